import { verifyEvents, type BaseEvent } from "@ag-ui/client";
import { ChatClient, webSocket } from "@tanstack/ai-client";
import { from, lastValueFrom, toArray } from "rxjs";
import { afterAll, beforeAll, expect, test } from "vitest";
import WebSocket from "ws";

import { Cutter } from "./cutter.js";
import { newUser, randomOf, Server } from "./server.js";

let server: Server;

beforeAll(async () => {
  server = await Server.start();
});

afterAll(() => server.stop());

const WebSocketImpl = WebSocket as unknown as typeof globalThis.WebSocket;
const RECONNECT = { maxAttempts: 100, delayMs: 5 };

function connectionFor(user: string, host = new URL(server.url).host): ReturnType<typeof webSocket> {
  return webSocket(`ws://${host}/ws/tanstack?user=${user}`, { WebSocketImpl, reconnect: RECONNECT });
}

type Chunk = BaseEvent & { delta?: string; messageId?: string };

/** Ask with the connection alone; the events of the run, each once. */
async function run(
  connection: ReturnType<typeof webSocket>,
  text: string,
  runId = "run-a",
  abort = new AbortController(),
  resume?: { interruptId: string; status: "resolved"; payload: unknown }[],
): Promise<Chunk[]> {
  const stop = new AbortController();
  const reading = collect(connection.subscribe(stop.signal) as AsyncIterable<Chunk>);
  const messages = [{ id: `m-${runId}`, role: "user" as const, parts: [{ type: "text" as const, content: text }] }];
  await connection.send(messages, undefined, abort.signal, { threadId: "t1", runId, ...(resume && { resume }) });
  const chunks = await reading;
  stop.abort();
  return chunks;
}

async function collect(chunks: AsyncIterable<Chunk>): Promise<Chunk[]> {
  const collected: Chunk[] = [];
  for await (const chunk of chunks) {
    collected.push(chunk);
    if (chunk.type === "RUN_FINISHED" || chunk.type === "RUN_ERROR") break;
  }
  return collected;
}

function textOf(chunks: Chunk[]): string {
  return chunks.map((chunk) => (chunk.type === "TEXT_MESSAGE_CONTENT" ? chunk.delta : "")).join("");
}

async function verified(events: BaseEvent[]): Promise<void> {
  await lastValueFrom(from(events).pipe(verifyEvents(false), toArray()));
}

test("ChatClient: text received is text emitted, turn after turn on one socket", async () => {
  const user = newUser();
  const client = new ChatClient({ connection: connectionFor(user), threadId: "t1" });
  for (const words of ["text:50", "tool:2 text:5", "think:2 text:5"]) {
    await client.sendMessage(words);
    const said = client
      .getMessages()
      .filter((message) => message.role === "assistant")
      .flatMap((message) => message.parts.map((part) => (part.type === "text" ? part.content : "")))
      .join("");
    expect(client.getError()).toBeUndefined();
    expect(said).toBe(await server.emitted(user));
  }
  client.dispose();
});

test("through a network that cuts, the connection goes on by itself: each event once, in order", async () => {
  const seed = 20261125;
  console.log(`seed ${seed}`);
  const random = randomOf(seed);
  const cutter = await Cutter.start(server.port, () => 900 + random() * 5000);
  for (let round = 0; round < 5; round++) {
    const user = newUser();
    const chunks = await run(connectionFor(user, cutter.host), "think:2 text:80 tool:2 child:5 burst:100 text:40");
    await verified(chunks);
    expect(chunks[0]).toMatchObject({ type: "RUN_STARTED", threadId: "t1", runId: "run-a" });
    const children = new Set(chunks.flatMap((chunk) => ("subagentRunId" in chunk ? [chunk.messageId] : [])));
    expect(textOf(chunks.filter((chunk) => !children.has(chunk.messageId)))).toBe(await server.emitted(user));
    expect(await server.runs(user)).toHaveLength(2);
  }
  expect(cutter.cuts).toBeGreaterThan(5);
  await cutter.stop();
});

test("a run is joined from its start, also after its end; what is unknown is refused", async () => {
  const user = newUser();
  const connection = connectionFor(user);
  const running = run(connection, "text:60");
  await server.until(user, ([one]) => (one?.messages?.[0]?.text ?? "").includes("20é"));
  const joined = await collect(connectionFor(user).joinRun("run-a") as AsyncIterable<Chunk>);
  const first = await running;
  const again = await collect(connectionFor(user).joinRun("run-a") as AsyncIterable<Chunk>);
  for (const chunks of [first, joined, again]) {
    await verified(chunks);
    expect(textOf(chunks)).toBe(await server.emitted(user));
  }
  const refused = expect.stringContaining("1008");
  await expect(collect(connectionFor(user).joinRun("run-b") as AsyncIterable<Chunk>)).rejects.toHaveProperty("cause.message", refused);
  await expect(collect(connectionFor(newUser()).joinRun("run-a") as AsyncIterable<Chunk>)).rejects.toHaveProperty("cause.message", refused);
});

test("stop cancels the run", async () => {
  const user = newUser();
  const abort = new AbortController();
  const running = run(connectionFor(user), "text:3 wait", "run-a", abort);
  await server.until(user, ([one]) => (one?.messages?.[0]?.text ?? "").includes("2é"));
  abort.abort();
  const chunks = await running;
  expect(chunks.at(-1)).toMatchObject({ type: "RUN_FINISHED", outcome: { type: "cancelled" } });
  expect((await server.runs(user))[0]?.status).toBe("cancelled");
});

test("an interrupt is resumed in another run, which is replayed alone", async () => {
  const user = newUser();
  const connection = connectionFor(user);
  const asked = await run(connection, "text:3 suspend text:3");
  const { outcome } = asked.at(-1) as unknown as { outcome: { interrupts: { id: string }[] } };
  const resume = outcome.interrupts.map(({ id }) => {
    return { interruptId: id, status: "resolved" as const, payload: { approved: true } };
  });
  const chunks = await run(connection, "yes", "run-b", undefined, resume);
  await verified(chunks);
  expect(textOf(asked) + textOf(chunks)).toBe(await server.emitted(user));
  const again = await collect(connectionFor(user).joinRun("run-b") as AsyncIterable<Chunk>);
  await verified(again);
  expect(textOf(again)).toBe(textOf(chunks));
});
