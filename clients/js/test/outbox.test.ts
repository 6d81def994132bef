// @vitest-environment jsdom
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import WebSocket from "ws";

import { connect, type Client, type Outbox, type Socket } from "../src/index.js";
import { tabOutbox } from "../src/outbox.js";
import { LogServer, send } from "./server.js";

const SocketClass = WebSocket as unknown as new (url: string, protocols: string[]) => Socket;

let server: LogServer;

beforeEach(async () => {
  server = await LogServer.listen();
  sessionStorage.clear();
});

afterEach(() => server.stop());

/** A page of its own, so that several clients may be open. */
const page = {};

function open(outbox: Outbox): Client {
  return connect({ url: server.url, WebSocket: SocketClass, outbox, page });
}

describe.each([
  ["a Map", () => new Map<string, string>()],
  ["the tab's storage", () => tabOutbox("outbox:user_123")],
])("an outbox in %s", (_, outboxOf) => {
  test("what a client leaves unanswered the next one sends again, under its id and in order", async () => {
    server.onMessage = () => undefined;
    const outbox = outboxOf();
    const first = open(outbox);
    const replies = ["a1", "a2"].map((id) => first.send("app.go", { id }, { id }));
    await server.until(() => server.connections.length === 1 && server.last.received.length === 2);
    first.close();
    for (const reply of replies) await expect(reply).rejects.toMatchObject({ code: "closed" });
    expect([...outbox.keys()]).toEqual(["a1", "a2"]);

    server.onMessage = (seen, { id, type }) => type === "app.go" && send(seen, { type: "ack", id, reply: id });
    const second = open(outbox);
    await server.until(() => server.connections.length === 2 && server.last.received.length === 2);
    expect(server.last.received.map(({ id, data }) => [id, data])).toEqual([
      ["a1", { id: "a1" }],
      ["a2", { id: "a2" }],
    ]);
    expect(await second.send("app.go", { id: "a3" }, { id: "a3" })).toBe("a3");
    expect(outbox.size).toBe(0);
    second.close();
  });

  test("whoever sends with the id of a kept command waits for that one", async () => {
    const outbox = outboxOf();
    outbox.set("a1", JSON.stringify({ type: "app.go", id: "a1", data: 1 }));
    const client = open(outbox);
    server.onMessage = (seen, { id }) => send(seen, { type: "ack", id, reply: "done" });
    const reply = client.send("app.go", 1, { id: "a1" });
    await expect(client.send("app.go", 1, { id: "a1" })).rejects.toMatchObject({ code: "usage" });
    expect(await reply).toBe("done");
    expect(server.last.received.filter(({ type }) => type === "app.go")).toHaveLength(1);
    client.close();
  });

  test("an answered or refused command is not kept", async () => {
    const outbox = outboxOf();
    server.onMessage = (seen, { id, type }) => send(seen, { type: "error", id, code: "forbidden", message: `${type}` });
    const client = open(outbox);
    await expect(client.send("app.go", {})).rejects.toMatchObject({ code: "forbidden" });
    expect(outbox.size).toBe(0);
    client.close();
  });
});

test("the tab's storage has it after a refresh, and another tab's name has not", () => {
  tabOutbox("outbox:user_123").set("a1", "text");
  expect([...tabOutbox("outbox:user_123")]).toEqual([["a1", "text"]]);
  expect(tabOutbox("outbox:user_456").size).toBe(0);
  tabOutbox("outbox:user_123").delete("a1");
  expect(tabOutbox("outbox:user_123").size).toBe(0);
});

test("without an outbox a closed client keeps nothing", async () => {
  const client = connect({ url: server.url, WebSocket: SocketClass, page });
  const reply = client.send("app.go", {});
  client.close();
  await expect(reply).rejects.toMatchObject({ code: "closed" });
});

describe("where the browser keeps nothing", () => {
  const storage = Object.getOwnPropertyDescriptor(globalThis, "sessionStorage") as PropertyDescriptor;
  const refuse = { configurable: true, get: () => { throw new DOMException("denied", "SecurityError"); } };

  beforeEach(() => void Object.defineProperty(globalThis, "sessionStorage", refuse));
  afterEach(() => void Object.defineProperty(globalThis, "sessionStorage", storage));

  test("it is a plain Map", () => {
    const outbox = tabOutbox("outbox:user_123");
    outbox.set("a1", "text");
    expect([...outbox]).toEqual([["a1", "text"]]);
  });
});
