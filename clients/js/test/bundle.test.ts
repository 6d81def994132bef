import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";

import { bundle, FILES, SERVED } from "../scripts/bundle.js";

test.each(Object.entries(FILES))("%s, which the server serves, is built from these sources (else: npm run build)", async (name, source) => {
  expect(readFileSync(new URL(name, SERVED), "utf8")).toBe(await bundle(source));
});

test.each([
  ["the whole client", "src/index.ts", 4096],
  ["the client with the conversations that a page shows", "src/threads.ts", 7680],
  ["all of it for React", "src/react.ts", 8192],
  ["what chats of the AI SDK need", "src/ai.ts", 3072],
  ["the agent for AG-UI", "src/ag-ui.ts", 2560],
])("%s takes at most so many bytes, minified and compressed", async (_, source, limit) => {
  expect(gzipSync(await bundle(source), { level: 9 }).length).toBeLessThanOrEqual(limit);
});
