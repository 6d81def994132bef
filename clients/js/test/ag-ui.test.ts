import { HttpAgent, type AgentSubscriber, type BaseEvent, type Message } from "@ag-ui/client";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test, vi } from "vitest";
import WebSocket from "ws";

import { Cutter } from "../../../tests/frontends/test/cutter.js";
import { newUser, randomOf, Server } from "../../../tests/frontends/test/server.js";
import { CatenaryAgent, followAgent } from "../src/ag-ui.js";
import { connect, type Client, type Options } from "../src/index.js";

const SocketClass = WebSocket as unknown as NonNullable<Options["WebSocket"]>;

let server: Server;
let user: string;

beforeAll(async () => {
  server = await Server.start();
});

beforeEach(() => {
  user = newUser();
});

afterAll(() => server.stop());

/** The native wire of the same user. */
function clientTo(host = new URL(server.url).host): Client {
  return connect({ url: `ws://${host}/ws?user=${user}`, after: "now", WebSocket: SocketClass, page: {} });
}

/** An agent whose events are checked by `verifyEvents`, as the base class does, and recorded. */
class Page extends CatenaryAgent {
  readonly events: BaseEvent[] = [];
  readonly failures: string[] = [];

  constructor(host = new URL(server.url).host, page: NonNullable<Options["page"]> = {}) {
    super({ url: `ws://${host}/ws/ag-ui?user=${user}`, threadId: "t1", WebSocket: SocketClass, page });
    this.subscribe(recorderOf(this));
  }

  ask(text: string, id = "m1"): Promise<unknown> {
    this.messages = [...this.messages, { id, role: "user", content: text }];
    return this.runAgent();
  }

  get text(): string {
    return textOf(this.messages);
  }
}

function recorderOf(page: Page): AgentSubscriber {
  return {
    onEvent: ({ event }) => void page.events.push(event),
    onRunFailed: ({ error }) => void page.failures.push(error.message),
  };
}

function textOf(messages: Message[]): string {
  const said = messages.filter((message) => message.role === "assistant" && !("subagentRunId" in message));
  return said.map(({ content }) => (typeof content === "string" ? content : "")).join("");
}

const until = (holds: () => boolean | Promise<boolean>): Promise<void> =>
  vi.waitFor(async () => expect(await holds(), String(holds)).toBe(true), { timeout: 15_000, interval: 10 });

test("through a network that cuts, a run shows what was emitted, once and without an error", async () => {
  const seed = 20261201;
  console.log(`seed ${seed}`);
  const random = randomOf(seed);
  const cutter = await Cutter.start(server.port, () => 2500 + random() * 9000);
  for (let round = 0; round < 3; round++) {
    user = newUser();
    const page = new Page(cutter.host);
    await page.ask("text:150 tool:2 burst:200 think:3 text:50 child:3");
    expect(page.failures).toEqual([]);
    expect(page.text).toBe(await server.emitted(user));
    expect(page.events.filter(({ type }) => type === "RUN_STARTED")).toHaveLength(1);
    expect(await server.runs(user)).toHaveLength(2);
  }
  expect(cutter.cuts).toBeGreaterThan(3);
  await cutter.stop();
});

test("who joins in the middle has the same, though the network cuts", async () => {
  const random = randomOf(20261202);
  const cutter = await Cutter.start(server.port, () => 1500 + random() * 6000);
  const asking = new Page().ask("text:100 tool:2 burst:200 text:100");
  await server.until(user, ([run]) => (run?.messages?.[0]?.text ?? "").includes("20é"));
  const page = new Page(cutter.host);
  await page.connectAgent();
  expect(page.failures).toEqual([]);
  expect(page.text).toBe(await server.emitted(user));
  expect(page.events.filter(({ type }) => type === "RUN_STARTED")).toHaveLength(1);
  await asking;
  expect(cutter.cuts).toBeGreaterThan(1);
  await cutter.stop();
});

test("a beginning that came in part is asked for anew, and shown once", async () => {
  const asking = new Page().ask("text:50 wait");
  await server.until(user, ([run]) => (run?.messages?.[0]?.text ?? "").includes("49é"));
  const limits = [400, 500, 600];
  const cutter = await Cutter.start(server.port, () => limits.shift() ?? Infinity);
  const page = new Page(cutter.host);
  const joining = page.connectAgent();
  await until(() => page.text !== "");
  expect(cutter.cuts).toBe(3);
  page.abortRun();
  await Promise.all([joining, asking]);
  expect(page.events.filter(({ type }) => type === "RUN_STARTED")).toHaveLength(1);
  expect(page.text).toBe(await server.emitted(user));
  await cutter.stop();
});

test("where nothing is at work, joining brings nothing", async () => {
  const page = new Page();
  await page.connectAgent();
  expect(page.events).toEqual([]);
  expect(page.failures).toEqual([]);
});

test("an abort cancels the run, also when there was no connection; what was said stays", async () => {
  let limit = Infinity;
  const cutter = await Cutter.start(server.port, () => limit);
  const page = new Page(cutter.host);
  const running = page.ask("text:3 wait");
  await until(() => page.text.includes("2é"));
  limit = 0;
  cutter.cut();
  page.abortRun();
  limit = Infinity;
  await running;
  expect((await server.runs(user))[0]?.status).toBe("cancelled");
  expect(page.failures).toEqual([]);
  expect(page.events.at(-1)).toMatchObject({ type: "RUN_FINISHED", outcome: { type: "cancelled" } });
  expect(page.text).toBe("0é✓ 1é✓ 2é✓ ");
  await cutter.stop();
});

test("who stops to listen cancels nothing, and can join again", async () => {
  const page = new Page();
  const running = page.ask("text:200");
  await until(() => page.text.includes("5é"));
  await page.detachActiveRun();
  await running;
  const [run] = await server.runs(user);
  expect(run?.status).toBe("running");
  await page.connectAgent();
  expect(page.text).toBe(await server.emitted(user));
});

test("a network that is gone without a word is noticed when the page is online again", async () => {
  const events = new EventTarget();
  const cutter = await Cutter.start(server.port, () => Infinity);
  const page = new Page(cutter.host, events as NonNullable<Options["page"]>);
  const running = page.ask("text:300");
  await until(() => page.text.includes("10é"));
  cutter.freeze();
  events.dispatchEvent(new Event("online"));
  await running;
  expect(page.text).toBe(await server.emitted(user));
  await cutter.stop();
});

test("an interrupt is answered, after the server was killed and started again", { timeout: 60_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), "catenary-"));
  const env = { LOG: `sqlite:///${folder}/events.db` };
  let other = await Server.start(0, env);
  const { port } = other;
  try {
    const page = new Page(`127.0.0.1:${port}`);
    await page.ask("text:3 suspend text:3");
    expect(page.pendingInterrupts).toHaveLength(1);
    await other.stop("SIGKILL");
    other = await Server.start(port, env);
    const resume = page.pendingInterrupts.map(({ id }) => ({
      interruptId: id,
      status: "resolved" as const,
      payload: { approved: true },
    }));
    await page.runAgent({ resume });
    expect(page.failures).toEqual([]);
    expect(page.text).toBe(await other.emitted(user));
    expect(page.pendingInterrupts).toEqual([]);
  } finally {
    await other.stop();
    rmSync(folder, { recursive: true });
  }
});

test("a failure of the agent is an event, and is not tried again", async () => {
  const page = new Page();
  await page.ask("text:2 fail");
  expect(page.events.at(-1)).toMatchObject({ type: "RUN_ERROR" });
  expect(page.text).toBe("0é✓ 1é✓ ");
  expect(await server.runs(user)).toHaveLength(1);
});

test("what is refused is told: another message while the agent answers, and a page that may not come in", async () => {
  const page = new Page();
  const running = page.ask("text:100");
  await server.until(user, ([run]) => run !== undefined);
  const second = new Page();
  await second.ask("text:1", "m2");
  expect(second.events.at(-1)).toMatchObject({ type: "RUN_ERROR", message: expect.stringContaining("stop it") });
  await running;
  user = "";
  const stranger = new Page();
  await expect(stranger.ask("text:1")).rejects.toThrow("4501");
  expect(stranger.failures).toEqual([expect.stringContaining("4501")]);
});

test("a clone runs by itself, and has what `HttpAgent` has", async () => {
  const page = new Page();
  const copy = page.clone();
  copy.subscribers = [];
  copy.messages = [{ id: "m1", role: "user", content: "text:5 tool:1 text:5" }];
  await copy.runAgent();
  expect(textOf(copy.messages)).toBe(await server.emitted(user));
  expect(page.messages).toEqual([]);
  const http = new HttpAgent({ url: `${server.url}/ag-ui`, headers: { "x-user": newUser() }, threadId: "t1" });
  http.messages = [{ id: "m1", role: "user", content: "text:5 tool:1 text:5" }];
  await http.runAgent();
  expect(copy.messages.map(kind)).toEqual(http.messages.map(kind));
});

function kind({ role, content }: Message): unknown {
  return { role, content };
}

test("a page that has nothing gets the whole conversation, at work or not, as the page that had it", async () => {
  const page = new Page();
  await page.ask("think:2 text:3 tool:1 text:2");
  await page.ask("child:2 text:3", "m2");
  const loaded = new Page();
  await loaded.connectAgent();
  expect(loaded.messages.map(kind)).toEqual(page.messages.map(kind));
  const running = page.ask("text:100", "m3");
  await until(() => page.text.includes("9é"));
  const joining = new Page();
  await Promise.all([joining.connectAgent(), running]);
  expect(joining.messages.map(kind)).toEqual(page.messages.map(kind));
  expect(new Set(joining.messages.map(({ id }) => id)).size).toBe(joining.messages.length);
  // Who has messages of its own keeps those.
  const known = joining.messages;
  await joining.connectAgent();
  expect(joining.messages.map(kind)).toEqual(known.map(kind));
});

test("another tab that follows shows the question, the answer, and what is said after an approval in either", async () => {
  const [first, second] = [new Page(), new Page()];
  const clients = [clientTo(), clientTo()];
  const ends = [followAgent(first, clients[0]!), followAgent(second, clients[1]!)];
  await until(() => clients.every(({ state }) => state === "live") && !first.isRunning && !second.isRunning);
  const same = async (): Promise<void> => {
    await until(() => !first.isRunning && !second.isRunning);
    await vi.waitFor(() => expect(second.messages.map(kind)).toEqual(first.messages.map(kind)));
  };
  await first.ask("text:20 suspend text:2 suspend text:2");
  await until(() => second.pendingInterrupts.length === 1);
  await same();
  for (const [page, approved] of [[second, true], [first, false]] as const) {
    await until(() => page.pendingInterrupts.length === 1 && !page.isRunning);
    const resume = [{ interruptId: page.pendingInterrupts[0]!.id, status: "resolved" as const, payload: { approved } }];
    await page.runAgent({ resume });
  }
  await until(async () => second.text === (await server.emitted(user)) && second.text.includes("False"));
  await same();
  expect(second.pendingInterrupts).toEqual([]);
  await second.ask("text:3", "m2");
  await until(async () => first.text === (await server.emitted(user)));
  await same();
  for (const end of ends) end();
  for (const client of clients) client.close();
});

test("a page that follows through a cut shows what was said meanwhile, and nothing twice", async () => {
  const cutter = await Cutter.start(server.port, () => Infinity);
  const page = new Page(cutter.host);
  const client = clientTo(cutter.host);
  const end = followAgent(page, client);
  await until(() => client.state === "live" && !page.isRunning);
  await page.ask("text:3");
  client.drop(60_000);
  const other = new Page();
  other.messages = structuredClone(page.messages);
  await other.ask("text:4", "m2");
  await other.ask("text:5", "m3");
  client.reconnect();
  await until(async () => page.text === (await server.emitted(user)) && !page.isRunning);
  expect(page.messages.map(kind)).toEqual(other.messages.map(kind));
  end();
  client.close();
  await cutter.stop();
});
