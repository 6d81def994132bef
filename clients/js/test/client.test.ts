import { afterEach, beforeEach, expect, test } from "vitest";
import WebSocket from "ws";

import { CatenaryError, connect, type Client, type Options, type Page, type Socket } from "../src/index.js";
import { mulberry } from "./random.js";
import { LogServer, send } from "./server.js";

let server: LogServer;
const clients: Client[] = [];

beforeEach(async () => {
  server = await LogServer.listen();
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await server.stop();
});

const SocketClass = WebSocket as unknown as new (url: string, protocols: string[]) => Socket;

function open(options: Partial<Options> = {}): Client {
  const client = connect({ url: server.url, WebSocket: SocketClass, ...options });
  clients.push(client);
  return client;
}

/** Resolves with the first value that satisfies `wanted`. */
function next<T>(on: (listener: (value: T) => void) => () => void, wanted: (value: T) => boolean): Promise<T> {
  return new Promise((resolve) => {
    const off = on((value) => {
      if (!wanted(value)) return;
      off();
      resolve(value);
    });
  });
}

const reaches = (client: Client, state: string) =>
  next<string>((listener) => client.on("state", listener), (value) => value === state);

const receives = (client: Client, seq: number) =>
  next<{ seq: number }>((listener) => client.on("event", listener), (event) => event.seq === seq);

/** A page whose happenings the test decides. */
class TestPage extends EventTarget {
  readonly document = Object.assign(new EventTarget(), { visibilityState: "visible" });

  show(): void {
    this.document.dispatchEvent(new Event("visibilitychange"));
  }
}

test("a client replays, becomes live, and knows its position", async () => {
  server.append();
  server.append();
  const client = open();
  const seqs: number[] = [];
  const states: string[] = [];
  client.on("event", (event) => seqs.push(event.seq));
  client.on("state", (state) => states.push(state));
  await reaches(client, "live");
  server.append();
  await receives(client, 3);
  expect(seqs).toEqual([1, 2, 3]);
  expect(states).toEqual(["connecting", "replaying", "live"]);
  expect(client.position).toBe("k3:3");
  expect(client.stats).toMatchObject({ events: 3, replayed: 2, duplicatesDropped: 0, reconnects: 0 });
});

test("the place, the threads and the token are in the handshake, the token only as a subprotocol", async () => {
  open({ after: "k3:0", threadIds: ["t1", "t2"], token: () => "a.b.c" });
  await server.until(() => server.connections.length === 1);
  expect(server.last.after).toBe("k3:0");
  expect(server.last.threadIds).toEqual(["t1", "t2"]);
  expect(server.last.protocols).toEqual(["catenary.v1", "catenary.bearer.a.b.c"]);
});

test("every attempt takes a fresh token and continues after the last event", async () => {
  let tokens = 0;
  const client = open({ token: async () => `token${++tokens}` });
  server.append();
  await receives(client, 1);
  server.last.peer.terminate();
  await server.until(() => server.connections.length === 2);
  expect(server.last.after).toBe("k3:1");
  expect(server.last.protocols).toContain("catenary.bearer.token2");
});

test("cut at random places, a client receives every event once, in order", async () => {
  const seed = 20261121;
  console.log(`seed ${seed}`);
  const random = mulberry(seed);
  for (let i = 0; i < 100; i++) server.append();
  server.onConnection = (seen) => {
    server.greet(seen);
    if (random() < 0.3) seen.peer.terminate();
  };
  const client = open();
  const seqs: number[] = [];
  client.on("state", (state) => state === "waiting" && queueMicrotask(() => client.probe()));
  client.on("event", (event) => {
    seqs.push(event.seq);
    if (server.log.length < 3000) server.append();
    if (random() < 0.05) server.last.peer.terminate();
  });
  await receives(client, 3000);
  expect(seqs).toEqual(Array.from({ length: 3000 }, (_, i) => i + 1));
  expect(server.connections.length).toBeGreaterThan(20);
});

test("a command resolves with its reply", async () => {
  server.onMessage = (seen, { id, data }) => send(seen, { type: "ack", id, reply: data });
  expect(await open().send("user_message", { content: "hello" }, { threadId: "t1" })).toEqual({ content: "hello" });
  const [message] = server.last.received;
  expect(message).toMatchObject({ type: "user_message", thread_id: "t1", data: { content: "hello" } });
  expect(String(message?.["id"]).length).toBeGreaterThan(20);
});

test("a command rejects with the code of the error", async () => {
  server.onMessage = (seen, { id }) => send(seen, { type: "error", id, code: "not_found", message: "no such run" });
  const refusal = open().cancelRun("r1", "enough");
  await expect(refusal).rejects.toMatchObject({ code: "not_found", message: "no such run" });
  await expect(refusal).rejects.toBeInstanceOf(CatenaryError);
  expect(server.last.received[0]).toMatchObject({ type: "cancel_run", run_id: "r1", reason: "enough" });
});

test("a command that was not answered is sent again with the same id", async () => {
  server.onMessage = (seen, { id }) => {
    if (server.connections.length < 3) seen.peer.terminate();
    else send(seen, { type: "ack", id, reply: "done" });
  };
  expect(await open().send("app.go", {}, { id: "a1" })).toBe("done");
  const ids = server.connections.map((seen) => seen.received[0]?.["id"]);
  expect(ids).toEqual(["a1", "a1", "a1"]);
});

test("closing tells the server, and rejects what is open", async () => {
  const client = open();
  await reaches(client, "live");
  const reply = client.send("app.go", {});
  client.close();
  await expect(reply).rejects.toMatchObject({ code: "closed" });
  expect(await server.last.closeCode).toBe(1000);
  expect(client.state).toBe("closed");
});

test("a gap without a listener closes the client with an error that says so", async () => {
  server.onConnection = (seen) => {
    server.greet(seen);
    send(seen, { type: "gap", after: "k3:0", resumes_at: "k3:9", reason: "retention" });
    send(seen, { type: "app.note", id: "k3:9", seq: 9, user_id: "user_123", timestamp: 1, data: {} });
  };
  const client = open();
  const seqs: number[] = [];
  client.on("event", (event) => seqs.push(event.seq));
  const error = await next<CatenaryError>((listener) => client.on("error", listener), () => true);
  expect(error).toMatchObject({ code: "gap_unhandled" });
  expect(error.message).toContain('"gap"');
  expect(client.state).toBe("closed");
  expect(client.position).toBe("k3:0");
  expect(seqs).toEqual([]);
});

test("a gap with a listener is told in its place, and the events go on", async () => {
  const client = open();
  const story: string[] = [];
  client.on("event", (event) => story.push(event.id));
  client.on("gap", (gap) => story.push(gap.reason));
  server.append();
  await receives(client, 1);
  send(server.last, { type: "gap", after: "k3:1", resumes_at: "k9:1", reason: "epoch" });
  send(server.last, { type: "app.note", id: "k9:1", seq: 1, user_id: "user_123", timestamp: 1, data: {} });
  await receives(client, 1);
  expect(story).toEqual(["k3:1", "epoch", "k9:1"]);
  expect(client.position).toBe("k9:1");
});

test("a loop handles an event when it asks for the next one", async () => {
  const client = open();
  for (let i = 0; i < 3; i++) server.append();
  const positions: (string | null)[] = [];
  for await (const event of client.events()) {
    positions.push(client.position);
    if (event.seq === 3) break;
  }
  expect(positions).toEqual(["k3:0", "k3:1", "k3:2"]);
  expect(client.position).toBe("k3:3");
});

test("what a loop has not taken when it is left goes to the listeners", async () => {
  const client = open();
  for (let i = 0; i < 3; i++) server.append();
  const loop = client.events();
  await reaches(client, "live");
  const seqs: number[] = [];
  client.on("event", (event) => seqs.push(event.seq));
  await loop.next();
  expect(seqs).toEqual([1]);
  await loop.return();
  expect(seqs).toEqual([1, 2, 3]);
  expect(client.position).toBe("k3:3");
});

test("a loop ends with the client, and throws if the server closed it for good", async () => {
  const quiet = open({ url: `${server.url}?a` });
  const loop = quiet.events();
  const end = loop.next();
  await reaches(quiet, "live");
  quiet.close();
  expect((await end).done).toBe(true);

  const refused = open();
  refused.on("error", () => undefined);
  const refusal = refused.events().next();
  await reaches(refused, "live");
  server.last.peer.close(4503, "not yours");
  await expect(refusal).rejects.toMatchObject({ code: "closed", closeCode: 4503 });
});

test("a loop does not pass a gap that nobody listens to", async () => {
  const client = open();
  client.on("error", () => undefined);
  const loop = client.events();
  server.append();
  await reaches(client, "live");
  send(server.last, { type: "gap", after: "k3:1", resumes_at: "k3:9", reason: "retention" });
  send(server.last, { type: "app.note", id: "k3:9", seq: 9, user_id: "user_123", timestamp: 1, data: {} });
  expect((await loop.next()).value).toMatchObject({ seq: 1 });
  await expect(loop.next()).rejects.toMatchObject({ code: "gap_unhandled" });
  expect(client.position).toBe("k3:1");
});

test("a dropped connection comes back after the time given, and not before", async () => {
  const client = open();
  await reaches(client, "live");
  const from = performance.now();
  client.drop(300);
  expect(client.state).toBe("waiting");
  expect(client.retryIn).toBeGreaterThan(250);
  await reaches(client, "live");
  expect(performance.now() - from).toBeGreaterThanOrEqual(299);
  expect(client.retryIn).toBe(Infinity);
});

test("an attempt without a token is reported and tried again", async () => {
  let calls = 0;
  const client = open({
    token: () => {
      if (++calls === 1) throw new Error("offline");
      return "token";
    },
  });
  const error = next<CatenaryError>((listener) => client.on("error", listener), () => true);
  await reaches(client, "live");
  expect(await error).toMatchObject({ code: "attempt_failed", message: "Error: offline" });
});

test("a token that comes after its attempt was given up opens nothing", async () => {
  const tokens: ((token: string) => void)[] = [];
  const client = open({ token: () => new Promise((resolve) => tokens.push(resolve)) });
  await reaches(client, "connecting");
  client.reconnect();
  await reaches(client, "connecting");
  tokens.forEach((resolve, index) => resolve(`token${index}`));
  await reaches(client, "live");
  expect(server.connections.map((seen) => seen.protocols[1])).toEqual(["catenary.bearer.token1"]);
});

test("a position in the storage is used, and kept as events are handled", async () => {
  server.append();
  server.append();
  const saved: string[] = [];
  const storage = { load: () => "k3:1", save: (position: string) => saved.push(position) };
  const client = open({ after: "start", storage });
  await reaches(client, "live");
  expect(server.last.after).toBe("k3:1");
  expect(saved).toEqual(["k3:2"]);
});

test("a page that becomes visible probes its connection, and knows the latency", async () => {
  const page = new TestPage();
  const client = open({ page: page as unknown as Page });
  await reaches(client, "live");
  page.show();
  await next<{ type: string }>((listener) => client.on("control", listener), ({ type }) => type === "pong");
  expect(client.latency).toBeGreaterThan(0);
  expect(client.latency).toBeLessThan(2000);
  page.document.visibilityState = "hidden";
  page.show();
  const pings = server.last.received.filter(({ type }) => type === "ping");
  expect(pings).toHaveLength(1);
});

test("a probe that is not answered brings a new connection after 2 s", async () => {
  const page = new TestPage();
  server.onMessage = () => undefined;
  const client = open({ page: page as unknown as Page });
  await reaches(client, "live");
  const from = performance.now();
  page.dispatchEvent(new Event("online"));
  await reaches(client, "waiting");
  expect(performance.now() - from).toBeGreaterThanOrEqual(1990);
  await reaches(client, "live");
  expect(server.connections).toHaveLength(2);
});

test("a page that is hidden for good closes, and comes back when it is shown again", async () => {
  const page = new TestPage();
  const client = open({ page: page as unknown as Page });
  await reaches(client, "live");
  page.dispatchEvent(new Event("pagehide"));
  expect(await server.last.closeCode).toBe(1000);
  expect(client.state).toBe("waiting");
  page.dispatchEvent(new Event("pageshow"));
  await reaches(client, "live");
  expect(server.connections).toHaveLength(2);
});

test("closed with 4505, a page tries again when it is looked at", async () => {
  const page = new TestPage();
  const client = open({ page: page as unknown as Page });
  client.on("error", () => undefined);
  await reaches(client, "live");
  server.last.peer.close(4505);
  await reaches(client, "closed");
  page.show();
  await reaches(client, "live");
});

test("a page has one client for each URL", async () => {
  const page = new TestPage() as unknown as Page;
  const first = open({ page });
  expect(() => open({ page })).toThrow(expect.objectContaining({ code: "already_connected" }));
  first.close();
  await reaches(open({ page }), "live");
});
