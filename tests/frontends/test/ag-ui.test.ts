import { AbstractAgent, HttpAgent, verifyEvents, type BaseEvent, type Message, type RunAgentInput } from "@ag-ui/client";
import { from, lastValueFrom, Observable, toArray } from "rxjs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import WebSocket from "ws";

import { Cutter } from "./cutter.js";
import { newUser, randomOf, Server } from "./server.js";

let server: Server;

beforeAll(async () => {
  server = await Server.start();
});

afterAll(() => server.stop());

const hostOf = (): string => new URL(server.url).host;

interface Place {
  user: string;
  host?: string;
  threadId?: string;
}

/** `HttpAgent`, which joins what is at work by another URL. */
class Http extends HttpAgent {
  readonly recorded: BaseEvent[] = [];

  constructor({ user, host = hostOf(), threadId = "t1" }: Place) {
    super({ url: `http://${host}/ag-ui`, headers: { "x-user": user }, threadId, fetch: fetchQuietly });
  }

  override run(input: RunAgentInput): Observable<BaseEvent> {
    return record(this.recorded, super.run(input));
  }

  protected override connect(input: RunAgentInput): Observable<BaseEvent> {
    this.url = `${this.url}/connect`;
    const events = super.run(input);
    this.url = this.url.replace("/connect", "");
    return record(this.recorded, events);
  }
}

/** An agent whose run and connect open a socket. */
class Socket extends AbstractAgent {
  readonly recorded: BaseEvent[] = [];
  readonly #url: (path: string) => string;
  socket: WebSocket | undefined;

  constructor({ user, host = hostOf(), threadId = "t1" }: Place) {
    super({ threadId });
    this.#url = (path) => `ws://${host}${path}?user=${user}`;
  }

  run(input: RunAgentInput): Observable<BaseEvent> {
    return record(this.recorded, this.#open("/ws/ag-ui", input));
  }

  protected override connect(input: RunAgentInput): Observable<BaseEvent> {
    return record(this.recorded, this.#open("/ws/ag-ui/connect", input));
  }

  #open(path: string, input: RunAgentInput): Observable<BaseEvent> {
    return new Observable((subscriber) => {
      const socket = (this.socket = new WebSocket(this.#url(path)));
      socket.on("open", () => socket.send(JSON.stringify(input)));
      socket.on("message", (data) => subscriber.next(JSON.parse(String(data)) as BaseEvent));
      socket.on("error", (error) => subscriber.error(error));
      socket.on("close", (code) => {
        if (code === 1000) subscriber.complete();
        else subscriber.error(new Error(`closed with ${code}`));
      });
      return () => socket.close();
    });
  }
}

/** `fetch` whose readers can be cancelled after they broke: the client throws that where nobody can catch it. */
async function fetchQuietly(url: string, init: RequestInit): Promise<Response> {
  const response = await fetch(url, init);
  const getReader = (): unknown => {
    const reader = response.body!.getReader();
    return { read: () => reader.read(), cancel: () => reader.cancel().catch(() => undefined) };
  };
  const { ok, status, headers } = response;
  return { ok, status, headers, text: () => response.text(), body: { getReader } } as unknown as Response;
}

function record(into: BaseEvent[], events: Observable<BaseEvent>): Observable<BaseEvent> {
  return new Observable((subscriber) =>
    events.subscribe({
      next: (event) => {
        into.push(event);
        subscriber.next(event);
      },
      error: (error) => subscriber.error(error),
      complete: () => subscriber.complete(),
    }),
  );
}

function ask(agent: AbstractAgent, text: string, id = "m1"): void {
  agent.messages = [...agent.messages, { id, role: "user", content: text }];
}

function textOf(messages: Message[]): string {
  return messages
    .filter((message) => message.role === "assistant" && !("subagentRunId" in message))
    .map((message) => (typeof message.content === "string" ? message.content : ""))
    .join("");
}

/** What `verifyEvents` makes of a stream; it throws at what AG-UI forbids. */
async function verified(events: BaseEvent[]): Promise<BaseEvent[]> {
  return lastValueFrom(from(events).pipe(verifyEvents(false), toArray()));
}

const AGENTS = {
  HttpAgent: (place: Place): Http | Socket => new Http(place),
  "an agent on a WebSocket": (place: Place): Http | Socket => new Socket(place),
};

describe.each(Object.entries(AGENTS))("%s", (_, agentFor) => {
  test("text received is text emitted", async () => {
    const user = newUser();
    const agent = agentFor({ user });
    ask(agent, "text:50");
    await agent.runAgent({ runId: "run-a" });
    expect(textOf(agent.messages)).toBe(await server.emitted(user));
    await verified(agent.recorded);
    expect(agent.recorded[0]).toMatchObject({ type: "RUN_STARTED", threadId: "t1", runId: "run-a" });
    expect(agent.recorded.at(-1)).toMatchObject({ type: "RUN_FINISHED", outcome: { type: "success" } });
    expect(JSON.stringify(agent.recorded)).not.toContain("null");
  });

  test("reasoning, tools, sub-agents and an application's own events", async () => {
    const user = newUser();
    const agent = agentFor({ user });
    ask(agent, "think:3 text:5 tool:3 text:5 breaks note:3 child:3 text:2");
    await agent.runAgent();
    await verified(agent.recorded);
    expect(textOf(agent.messages)).toBe(await server.emitted(user));
    const results = agent.messages.filter((message) => message.role === "tool");
    expect(results.map((message) => message.content)).toEqual([
      '{"found":0}', '{"found":1}', '{"found":2}', "it broke", '{"found":0}',
    ]);
    const types = agent.recorded.map((event) => event.type);
    expect(types).toContain("SUBAGENT_STARTED");
    expect(types).toContain("SUBAGENT_FINISHED");
    const custom = agent.recorded.filter((event) => event.type === "CUSTOM");
    expect(custom.at(-1)).toMatchObject({ name: "orders.updated", value: { order: 3 } });
    const reasoning = agent.messages.filter((message) => message.role === "reasoning");
    expect(reasoning.map((message) => message.content)).toEqual([
      "What was asked?", "because 0 because 1 because 2 ",
    ]);
  });

  test("cut at random moments, a page joins in the middle and has every character once", async () => {
    const seed = 7;
    console.log(`seed ${seed}`);
    const random = randomOf(seed);
    const cutter = await Cutter.start(server.port, () => 500 + random() * 9000);
    for (let round = 0; round < 4; round++) {
      const user = newUser();
      const place = { user, host: cutter.host };
      const agent = agentFor(place);
      ask(agent, "text:120 tool:2 think:2 burst:200 text:60");
      const isWhole = async (work: () => Promise<unknown>): Promise<boolean> => {
        agent.recorded.length = 0;
        try {
          await work();
        } catch {
          return false;
        }
        return ["RUN_FINISHED", "RUN_ERROR"].includes(agent.recorded.at(-1)?.type ?? "");
      };
      let whole = await isWhole(() => agent.runAgent({ runId: "run-a" }));
      while (!whole) {
        whole = await isWhole(() => agent.connectAgent());
        if (agent.recorded.length) await verified(agent.recorded);
        // The question itself may have been cut; it is the same run then.
        else whole = await isWhole(() => agent.runAgent({ runId: "run-a" }));
      }
      expect(textOf(agent.messages)).toBe(await server.emitted(user));
      expect(agent.messages.filter((message) => message.role === "user")).toHaveLength(1);
      expect(await server.runs(user)).toHaveLength(1);
    }
    expect(cutter.cuts).toBeGreaterThan(4);
    await cutter.stop();
  });

  test("whoever joins late keeps what it knew and follows to the end; an idle thread has nothing", async () => {
    const user = newUser();
    const agent = agentFor({ user });
    const late = agentFor({ user });
    await late.connectAgent();
    expect(late.recorded).toEqual([]);
    ask(agent, "think text:20 tool:1 child:20 text:80");
    const running = agent.runAgent();
    await server.until(user, ([run]) => run?.messages?.some(({ text = "" }) => text.includes("40é")) ?? false);
    late.messages = [{ id: "old", role: "user", content: "before" }];
    await late.connectAgent();
    await running;
    await verified(late.recorded);
    expect(late.recorded.slice(0, 2).map((event) => event.type)).toEqual(["RUN_STARTED", "MESSAGES_SNAPSHOT"]);
    expect(late.messages[0]).toMatchObject({ id: "old", content: "before" });
    expect(textOf(late.messages)).toBe(await server.emitted(user));
    expect(textOf(agent.messages)).toBe(await server.emitted(user));
  });

  test.each([
    ["approve", { approved: true }, "Deleted. "],
    ["approve", false, "Kept. "],
    ["question", "blue", "You said blue. "],
    ["suspend:2", { approved: true }, "Answered"],
  ])("an interrupt by %s is resumed with %j", async (word, payload, said) => {
    const user = newUser();
    const agent = agentFor({ user });
    ask(agent, `text:3 ${word} text:3`);
    await agent.runAgent();
    await verified(agent.recorded);
    const interrupts = agent.pendingInterrupts;
    expect(agent.recorded.at(-1)).toMatchObject({ type: "RUN_FINISHED", outcome: { type: "interrupt" } });
    expect(interrupts).toHaveLength(word === "suspend:2" ? 2 : 1);
    expect(interrupts[0]?.reason).toBe(word === "question" ? "input_required" : "tool_call");
    expect(Date.parse(interrupts[0]?.expiresAt ?? "")).toBeGreaterThan(Date.now());
    agent.recorded.length = 0;
    const resume = interrupts.map(({ id }) => ({ interruptId: id, status: "resolved" as const, payload }));
    await agent.runAgent({ runId: "run-b", resume });
    await verified(agent.recorded);
    expect(agent.recorded[0]).toMatchObject({ type: "RUN_STARTED", runId: "run-b" });
    expect(agent.recorded.at(-1)).toMatchObject({ type: "RUN_FINISHED", outcome: { type: "success" } });
    expect(textOf(agent.messages)).toBe(await server.emitted(user));
    expect(textOf(agent.messages)).toContain(said);
    expect((await server.runs(user)).at(-1)?.status).toBe("completed");
  });

  test("a failing run is a RUN_ERROR; what cannot be answered is an error", async () => {
    const user = newUser();
    const agent = agentFor({ user });
    ask(agent, "text:2 fail");
    await agent.runAgent();
    await verified(agent.recorded);
    const error = { type: "RUN_ERROR", code: "agent_failed", message: "the agent failed: RuntimeError" };
    expect(agent.recorded.at(-1)).toMatchObject(error);
    const nothing = agentFor({ user: newUser() });
    const errors: unknown[] = [];
    const onRunFailed = ({ error: problem }: { error: Error }): void => void errors.push(problem.message);
    const onRunErrorEvent = ({ event }: { event: { message: string } }): void => void errors.push(event.message);
    await nothing.runAgent({}, { onRunFailed, onRunErrorEvent }).catch(() => undefined);
    expect(String(errors)).toMatch(/the last message is the user's/);
    const forged = agentFor({ user });
    ask(forged, "text:1");
    await forged.runAgent();
    forged.recorded.length = 0;
    errors.length = 0;
    const resume = [{ interruptId: "ask_forged", status: "resolved" as const, payload: true }];
    await forged.runAgent({ resume }, { onRunFailed, onRunErrorEvent }).catch(() => undefined);
    expect(String(errors)).toMatch(/asked no question/);
  });
});

test("an abort on the socket cancels the run, and the run says so", async () => {
  const user = newUser();
  const agent = new Socket({ user });
  ask(agent, "text:3 wait");
  const running = agent.runAgent({ runId: "run-a" });
  await server.until(user, ([run]) => (run?.messages?.[0]?.text ?? "").includes("2é"));
  agent.socket!.send(JSON.stringify({ type: "abort", runId: "run-a" }));
  await running;
  await verified(agent.recorded);
  expect(agent.recorded.at(-1)).toMatchObject({ type: "RUN_FINISHED", outcome: { type: "cancelled" } });
  expect((await server.runs(user))[0]?.status).toBe("cancelled");
});

test("a dropped request cancels nothing; stop does", async () => {
  const user = newUser();
  const agent = new Http({ user });
  ask(agent, "text:3 wait");
  const running = agent.runAgent({ runId: "run-a" }).catch(() => undefined);
  await server.until(user, ([run]) => (run?.messages?.[0]?.text ?? "").includes("2é"));
  agent.abortRun();
  await running;
  expect((await server.runs(user))[0]?.status).toBe("running");
  const input = { threadId: "t1", runId: "run-a", messages: [], tools: [], context: [] };
  const headers = { "x-user": user };
  const stopped = await fetch(`${server.url}/ag-ui/stop`, { method: "POST", body: JSON.stringify(input), headers });
  expect(await stopped.json()).toEqual({ stopped: 1 });
  await server.until(user, ([run]) => run?.status === "cancelled");
});
