import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";

import { bundle, SERVED } from "../scripts/bundle.js";

test("the file that the server serves is built from these sources (else: npm run build)", async () => {
  expect(readFileSync(SERVED, "utf8")).toBe(await bundle());
});

test("the whole client takes at most 4 KiB, minified and compressed", async () => {
  expect(gzipSync(await bundle(), { level: 9 }).length).toBeLessThanOrEqual(4096);
});
