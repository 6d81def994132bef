import { StrictMode, version, type ReactNode } from "react";
import { createRoot, type Root } from "react-dom/client";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import WebSocket from "ws";

import { Cutter } from "../../../../tests/frontends/test/cutter.js";
import { newUser, randomOf, Server } from "../../../../tests/frontends/test/server.js";
import { CatenaryProvider, tabOutbox, Threads, useThread, type Options, type UseThread } from "../../src/react.js";

const SocketClass = WebSocket as unknown as NonNullable<Options["WebSocket"]>;

let server: Server;
let user: string;
const roots: Root[] = [];

beforeAll(async () => {
  server = await Server.start();
});

beforeEach(() => {
  user = newUser();
  sessionStorage.clear();
});

afterEach(() => {
  for (const root of roots.splice(0)) root.unmount();
});

afterAll(() => server.stop());

const urlOf = (host = new URL(server.url).host): string => `ws://${host}/ws?user=${user}`;

/** One page: what a component got from the hook. */
class Tab {
  readonly renders: UseThread[] = [];
  readonly #root = createRoot(document.createElement("div"));

  constructor(readonly threadId = "t1") {
    roots.push(this.#root);
  }

  /** Mount it; each tab has a page of its own. */
  open(options: Partial<Options> = {}, wrap: (page: ReactNode) => ReactNode = (page) => page): this {
    const given: Options = { url: urlOf(), WebSocket: SocketClass, page: {}, ...options };
    return this.render(
      wrap(
        <CatenaryProvider {...given}>
          <this.Show />
        </CatenaryProvider>,
      ),
    );
  }

  render(page: ReactNode): this {
    this.#root.render(page);
    return this;
  }

  readonly Show = (): ReactNode => {
    const thread = useThread(this.threadId);
    if (this.renders.at(-1) !== thread) this.renders.push(thread);
    return null;
  };

  get now(): UseThread {
    const last = this.renders.at(-1);
    if (!last) throw new Error("it has not rendered");
    return last;
  }

  /** What was rendered, one after the other. */
  get statuses(): string[] {
    return this.renders.map(({ status }) => status).filter((status, index, all) => status !== all[index - 1]);
  }

  get texts(): string[] {
    return this.now.messages.map((message) => message.text);
  }

  async until(holds: (thread: UseThread) => boolean): Promise<UseThread> {
    return vi.waitFor(
      () => {
        if (!holds(this.now)) throw new Error(JSON.stringify(this.now));
        return this.now;
      },
      { timeout: 15_000, interval: 10 },
    );
  }

  is(status: UseThread["status"]): Promise<UseThread> {
    return this.until((thread) => thread.status === status);
  }

  close(): void {
    this.#root.unmount();
  }
}

/** Wait until so many messages are there and nothing is at work. */
const settled = (tab: Tab, messages: number): Promise<UseThread> =>
  tab.until((thread) => thread.status === "ready" && thread.messages.length === messages);

interface Connections {
  connections: unknown[];
}

async function connections(): Promise<number> {
  const headers = { authorization: "Bearer an-api-key-for-the-tests" };
  const response = await fetch(`${server.url}/api/inspect?user=${user}`, { headers });
  return ((await response.json()) as Connections).connections.length;
}

test(`a question and its answer, with React ${version}`, async () => {
  const tab = new Tab().open();
  await tab.is("ready");
  expect(await tab.now.send("text:30 tool:1 text:3")).toEqual({ run_id: expect.any(String) });
  const { messages, runs } = await settled(tab, 2);
  expect(messages[0]).toMatchObject({ role: "user", text: "text:30 tool:1 text:3", status: "sent" });
  expect(messages[1]).toMatchObject({ role: "assistant", status: "completed", agent_name: "agent" });
  expect(messages[1]?.text).toBe(await server.emitted(user));
  const kinds = messages.flatMap((message) => ("parts" in message ? message.parts.map(({ type }) => type) : []));
  expect(kinds).toEqual(["text", "tool", "text"]);
  expect(tab.statuses.filter((status) => status !== "submitted")).toEqual(["loading", "ready", "running", "ready"]);
  expect(runs).toMatchObject([{ status: "completed", tools: [{ status: "succeeded", tool_output: { found: 0 } }] }]);
});

test("it renders once for many events", async () => {
  const tab = new Tab().open();
  await tab.is("ready");
  const before = tab.renders.length;
  await tab.now.send("burst:500");
  await settled(tab, 2);
  expect(tab.texts[1]).toHaveLength((await server.emitted(user)).length);
  expect(tab.renders.length - before).toBeLessThan(30);
});

test("in StrictMode there is one connection, and none when it is unmounted", async () => {
  const tab = new Tab().open({}, (page) => <StrictMode>{page}</StrictMode>);
  await tab.is("ready");
  await tab.now.send("text:3");
  await settled(tab, 2);
  expect(await connections()).toBe(1);
  tab.close();
  await vi.waitFor(async () => expect(await connections()).toBe(0), { timeout: 5000 });
});

test("a page that is loaded anew in the middle of an answer shows all of it", async () => {
  const first = new Tab().open();
  await first.is("ready");
  void first.now.send("text:150 tool:1");
  await first.until(({ messages }) => (messages[1]?.text.length ?? 0) > 50);
  first.close();
  const second = new Tab().open();
  await settled(second, 2);
  expect(second.texts[1]).toBe(await server.emitted(user));
});

test("a question of one tab shows in the other, and its answer", async () => {
  const tabs = [new Tab().open(), new Tab().open()] as const;
  for (const tab of tabs) await tab.is("ready");
  void tabs[0].now.send("text:5");
  await settled(tabs[1], 2);
  void tabs[1].now.send("text:6");
  for (const tab of tabs) {
    await settled(tab, 4);
    expect(tab.texts).toEqual(["text:5", expect.stringContaining("4é✓"), "text:6", expect.stringContaining("5é✓")]);
  }
});

test("stop ends what is at work, and what was said stays", async () => {
  const tab = new Tab().open();
  await tab.is("ready");
  await tab.now.send("text:3 wait");
  await tab.until(({ messages }) => messages[1]?.text.includes("2é") ?? false);
  await tab.now.stop("enough");
  const { messages } = await settled(tab, 2);
  expect(messages[1]).toMatchObject({ status: "cancelled", text: "0é✓ 1é✓ 2é✓ " });
});

test.each(["approve", "suspend:1"])("%s waits for the answer, and goes on in the same message", async (word) => {
  const tab = new Tab().open();
  await tab.is("ready");
  await tab.now.send(`text:2 ${word} text:2`);
  const { questions, messages } = await tab.is("waiting");
  const message = messages[1];
  expect(questions).toHaveLength(1);
  await tab.now.answer(questions[0]?.request_id ?? "", { approved: true });
  const after = await tab.until(({ messages }) => messages[1]?.status === "completed");
  expect(after.messages).toHaveLength(2);
  expect(after.messages[1]).toMatchObject({ id: message?.id, text: await server.emitted(user) });
  expect(after.questions).toEqual([]);
});

test("through a network that cuts, what is shown is what was emitted", async () => {
  const seed = 20261127;
  console.log(`seed ${seed}`);
  const random = randomOf(seed);
  const cutter = await Cutter.start(server.port, () => 2500 + random() * 9000);
  const tab = new Tab().open({ url: urlOf(cutter.host) });
  for (let round = 1; round <= 3; round++) {
    await tab.until(({ status }) => status !== "loading");
    void tab.now.send("text:120 tool:2 burst:200 text:60");
    await settled(tab, 2 * round);
  }
  const agents = tab.now.messages.filter((message) => message.role === "assistant");
  expect(agents.map((message) => message.text).join("")).toBe(await server.emitted(user));
  expect(cutter.cuts).toBeGreaterThan(3);
  tab.close();
  await cutter.stop();
});

test("what was sent without a connection is shown, outlives a refresh, and is sent once", async () => {
  const outbox = "outbox";
  const nowhere = { url: "ws://127.0.0.1:9/ws" };
  const first = new Tab().open({ ...nowhere, outbox: tabOutbox(outbox) }, (page) => <StrictMode>{page}</StrictMode>);
  await first.until(({ connection }) => connection === "waiting");
  void first.now.send("text:2").catch(() => undefined);
  await first.until(({ messages }) => messages[0]?.status === "sending");
  first.close();
  const second = new Tab().open({ ...nowhere, outbox: tabOutbox(outbox) }, (page) => <StrictMode>{page}</StrictMode>);
  await second.until(({ messages }) => messages[0]?.status === "sending");
  second.close();
  const third = new Tab().open({ outbox: tabOutbox(outbox) });
  await settled(third, 2);
  expect(third.texts).toEqual(["text:2", "0é✓ 1é✓ "]);
  expect(await server.runs(user)).toHaveLength(1);
  expect(tabOutbox(outbox).size).toBe(0);
});

test("a message that is refused is shown as failed until the next one is sent", async () => {
  const tab = new Tab().open();
  await tab.is("ready");
  void tab.now.send("x".repeat(70_000));
  const { messages } = await tab.until((thread) => thread.messages[0]?.status === "failed");
  expect(messages[0]).toMatchObject({ role: "user", error: { code: "too_large" } });
  void tab.now.send("text:1");
  await settled(tab, 2);
  expect(tab.texts).toEqual(["text:1", "0é✓ "]);
});

test("another thread is another conversation, on the same connection", async () => {
  const [one, other] = [new Tab("t1"), new Tab("t2")];
  const threads = new Threads({ url: urlOf(), WebSocket: SocketClass, page: {} });
  for (const tab of [one, other]) {
    tab.render(
      <CatenaryProvider threads={threads}>
        <tab.Show />
      </CatenaryProvider>,
    );
    await tab.is("ready");
  }
  void one.now.send("text:1");
  void other.now.send("text:2");
  await settled(one, 2);
  await settled(other, 2);
  expect([one.texts[1], other.texts[1]]).toEqual(["0é✓ ", "0é✓ 1é✓ "]);
  expect(await connections()).toBe(1);
  one.close();
  expect(threads.client.state).toBe("live");
  threads.close();
});
