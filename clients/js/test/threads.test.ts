import { afterEach, beforeEach, expect, test, vi } from "vitest";
import WebSocket from "ws";

import { Threads, type Outbox, type Socket, type Thread } from "../src/threads.js";
import { LogServer, send } from "./server.js";

const SocketClass = WebSocket as unknown as new (url: string, protocols: string[]) => Socket;

let server: LogServer;
let threads: Threads;

beforeEach(async () => {
  server = await LogServer.listen();
});

afterEach(async () => {
  threads.close();
  await server.stop();
});

function open(outbox?: Outbox): Threads {
  threads = new Threads({ url: server.url, WebSocket: SocketClass, ...(outbox && { outbox }) });
  return threads;
}

const OUTSIDE = { run_id: undefined };

const asked = (id: string, content: unknown = "Why?") =>
  server.tell("user_message", { message_id: `msg_${id}`, content, client_message_id: id }, OUTSIDE);

const said = (delta: string, fields: Record<string, unknown> = {}) =>
  server.tell("agent_delta", { message_id: "m1", delta }, fields);

async function until(holds: (thread: Thread) => boolean): Promise<Thread> {
  return vi.waitFor(
    () => {
      const thread = threads.get("t1");
      if (!holds(thread)) throw new Error(JSON.stringify(thread));
      return thread;
    },
    { timeout: 5000, interval: 5 },
  );
}

const live = () => until(({ connection }) => connection === "live");

test("questions and answers stand in the order of the log; a run that continues goes on in its message", async () => {
  open();
  asked("a1");
  server.tell("agent_started", { in_reply_to: "msg_a1" }, { agent_name: "researcher" });
  said("Because. ");
  server.tell("input_requested", { request_id: "q1", kind: "approval", suspends: true });
  server.tell("agent_completed", { outcome: "suspended" });
  const { questions, status } = await until((thread) => thread.questions.length === 1);
  expect([questions[0]?.request_id, status]).toEqual(["q1", "waiting"]);
  server.tell("input_resolved", { request_id: "q1", answer: true, by: "user_123" }, OUTSIDE);
  server.tell("agent_started", { continues_run_id: "r1" }, { run_id: "r2" });
  server.tell("agent_delta", { message_id: "m2", delta: "Done." }, { run_id: "r2" });
  server.tell("agent_completed", { outcome: "success" }, { run_id: "r2" });
  asked("a2", { parts: [] });
  const { messages, runs, ...rest } = await until((thread) => thread.messages.length === 3);
  expect(rest).toMatchObject({ status: "ready", questions: [], gap: null });
  expect(messages).toMatchObject([
    { role: "user", id: "a1", text: "Why?", status: "sent" },
    { role: "assistant", id: "r1", run_id: "r2", text: "Because. Done.", status: "completed" },
    { role: "user", id: "a2", content: { parts: [] }, text: "" },
  ]);
  expect(messages[1]).toMatchObject({ parts: [{ type: "text" }, { type: "question", answer: true }, { type: "text" }] });
  expect(runs.map((run) => run.run_id)).toEqual(["r1", "r2"]);
});

test("a sub-agent is a part of its run, has a run of its own, and may ask", async () => {
  open();
  const child = { run_id: "r2", parent_run_id: "r1" };
  server.tell("agent_started");
  server.tell("agent_started", {}, { ...child, agent_name: "helper" });
  server.tell("agent_delta", { message_id: "m2", delta: "x" }, child);
  server.tell("input_requested", { request_id: "q1", kind: "approval" }, child);
  const thread = await until(({ questions }) => questions.length === 1);
  expect(thread.messages).toMatchObject([{ id: "r1", parts: [{ type: "run", run_id: "r2", agent_name: "helper" }] }]);
  expect(thread.runs).toMatchObject([{ run_id: "r1", children: ["r2"] }, { run_id: "r2", messages: [{ text: "x" }] }]);
});

test("a thread is the same object until something of it changes, and so is each message", async () => {
  open();
  asked("a1");
  said("one");
  const before = await until(({ messages }) => messages.length === 2);
  expect(threads.get("t1")).toBe(before);
  server.append({}, { type: "app.note", thread_id: "t2" });
  await vi.waitFor(() => expect(threads.client.stats.events).toBe(3));
  expect(threads.get("t1")).toBe(before);
  said(" two");
  const after = await until(({ messages }) => messages[1]?.text === "one two");
  expect(after).not.toBe(before);
  expect(after.messages[0]).toBe(before.messages[0]);
  expect(before.messages[1]?.text).toBe("one");
});

test("changes are told together, to those who asked for the thread, until they ask no more", async () => {
  open();
  await live();
  const told = { t1: 0, t2: 0 };
  const off = threads.subscribe("t1", () => void told.t1++);
  threads.subscribe("t2", () => void told.t2++);
  await vi.waitFor(() => expect(threads.get("t2").status).toBe("ready"));
  told.t1 = told.t2 = 0;
  for (let n = 0; n < 100; n++) said("x");
  await vi.waitFor(() => expect(told.t1).toBeGreaterThan(0));
  await until(({ messages }) => messages[0]?.text.length === 100);
  off();
  const before = told.t1;
  said("x");
  await until(({ messages }) => messages[0]?.text.length === 101);
  expect(told).toEqual({ t1: before, t2: 0 });
  expect(before).toBeLessThan(10);
});

test("a gap is told, what was said stays, and the run goes on with the numbers that follow it", async () => {
  open();
  server.tell("agent_started");
  said("a");
  await until(({ messages }) => messages[0]?.text === "a");
  send(server.last, { type: "gap", after: "k3:2", resumes_at: "k9:1", reason: "epoch" });
  const event = { type: "agent_delta", thread_id: "t1", run_id: "r1", user_id: "user_123", timestamp: 1 };
  send(server.last, { ...event, id: "k9:1", seq: 1, data: { message_id: "m1", delta: "c" } });
  const { gap, messages } = await until((thread) => thread.messages[0]?.text === "ac");
  expect(gap).toMatchObject({ reason: "epoch" });
  expect(messages).toHaveLength(1);
  expect(threads.get("t2").gap).toBeNull();
});

test.each([
  ["an erased thread", { thread_id: "t1" }],
  ["where all was erased, a thread", {}],
])("%s shows nothing, and goes on", async (_, data) => {
  open();
  asked("a1");
  said("secret");
  await until(({ messages }) => messages.length === 2);
  server.append(data, { type: "erased" });
  expect(await until(({ messages }) => messages.length === 0)).toMatchObject({ runs: [], status: "ready" });
  asked("a2");
  await until(({ messages }) => messages.length === 1);
});

test("a message is shown at once, and once when its event has come", async () => {
  let reply = (): void => undefined;
  server.onMessage = (seen, { id, type, data, thread_id: thread }) => {
    if (type !== "user_message") return;
    expect([thread, data]).toEqual(["t1", { lang: "en", content: "Why?" }]);
    reply = () => send(seen, { type: "ack", id, reply: "started" });
    asked(String(id));
  };
  open();
  await live();
  const promise = threads.send("t1", "Why?", { lang: "en" });
  expect(threads.get("t1")).toMatchObject({ status: "submitted", messages: [{ status: "sending", text: "Why?" }] });
  await until(({ messages }) => messages[0]?.status === "sent");
  reply();
  expect(await promise).toBe("started");
  expect(threads.get("t1").messages).toHaveLength(1);
});

test("what the outbox of an earlier page has is shown, and waited for", async () => {
  const message = { type: "user_message", id: "a1", thread_id: "t1", data: { content: "Why?" } };
  const other = { type: "answer", id: "a2", request_id: "q1", answer: true };
  const outbox = new Map([message, other].map((command) => [command.id, JSON.stringify(command)]));
  server.onMessage = (seen, { id, type }) => {
    if (type === "user_message") send(seen, { type: "error", id, code: "forbidden", message: "not yours" });
    else send(seen, { type: "ack", id });
  };
  open(outbox);
  expect(threads.get("t1").messages).toMatchObject([{ id: "a1", status: "sending", text: "Why?" }]);
  const { messages } = await until((thread) => thread.messages[0]?.status === "failed");
  expect(messages[0]).toMatchObject({ error: { code: "forbidden" } });
  await vi.waitFor(() => expect(outbox.size).toBe(0));
});

test("stop cancels the runs that are at work, and leaves sub-runs to them", async () => {
  const cancelled: unknown[] = [];
  server.onMessage = (seen, { id, run_id: run, reason }) => {
    if (run !== undefined) cancelled.push([run, reason]);
    send(seen, { type: "ack", id });
  };
  open();
  for (const run of ["r1", "r2", "r3"]) server.tell("agent_started", {}, { run_id: run });
  server.tell("agent_started", {}, { run_id: "r4", parent_run_id: "r2" });
  server.tell("agent_completed", { outcome: "success" }, { run_id: "r3" });
  await until(({ runs }) => runs.length === 4 && runs[2]?.status === "completed");
  cancelled.length = 0;
  await threads.stop("t1", "enough");
  expect(cancelled).toEqual([
    ["r1", "enough"],
    ["r2", "enough"],
  ]);
  await threads.stop("t9");
});
