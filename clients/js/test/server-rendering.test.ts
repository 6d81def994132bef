import { createElement } from "react";
import { renderToString } from "react-dom/server";
import { expect, test } from "vitest";

import { CatenaryProvider, useThread } from "../src/react.js";

const Page = () => {
  const { status, messages, connection } = useThread("t1");
  return createElement("p", null, `${status} ${messages.length} ${connection}`);
};

test("on a server, where there is no window, a page shows that it is loading, and nothing is connected", () => {
  expect(globalThis).not.toHaveProperty("window");
  let attempts = 0;
  const url = () => `ws://127.0.0.1:9/${++attempts}`;
  const html = renderToString(createElement(CatenaryProvider, { url }, createElement(Page)));
  expect(html).toBe("<p>loading 0 connecting</p>");
  expect(attempts).toBe(0);
});

test("without a provider the hook says so", () => {
  expect(() => renderToString(createElement(Page))).toThrow("there is no <CatenaryProvider> above");
});
