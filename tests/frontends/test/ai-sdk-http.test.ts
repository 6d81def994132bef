import {
  DefaultChatTransport,
  readUIMessageStream,
  type UIMessage,
  type UIMessageChunk,
} from "ai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { Cutter } from "./cutter.js";
import { newUser, randomOf, Server } from "./server.js";

let server: Server;

beforeAll(async () => {
  server = await Server.start();
});

afterAll(() => server.stop());

const CHAT = "chat 1/ä";

function transportFor(user: string, host = new URL(server.url).host): DefaultChatTransport<UIMessage> {
  return new DefaultChatTransport({ api: `http://${host}/ai-sdk`, headers: { "x-user": user } });
}

function question(text: string, id = "m1"): UIMessage {
  return { id, role: "user", parts: [{ type: "text", text }] };
}

async function ask(
  transport: DefaultChatTransport<UIMessage>,
  messages: UIMessage[],
  abortSignal?: AbortSignal,
): Promise<ReadableStream<UIMessageChunk>> {
  const trigger = "submit-message";
  return transport.sendMessages({ chatId: CHAT, messages, abortSignal, trigger, messageId: undefined });
}

/** The message that a stream makes, and why the stream broke, if it did. */
async function read(
  stream: ReadableStream<UIMessageChunk>,
  message?: UIMessage,
): Promise<{ message: UIMessage | undefined; error: unknown }> {
  let last = message;
  let error: unknown;
  const onError = (problem: unknown): void => void (error ??= problem);
  try {
    for await (const state of readUIMessageStream({ stream, message, onError, terminateOnError: true })) {
      last = state;
    }
  } catch (problem) {
    error ??= problem;
  }
  return { message: last, error };
}

function textOf(message: UIMessage | undefined, type: "text" | "reasoning" = "text"): string {
  return (message?.parts ?? []).map((part) => (part.type === type ? part.text : "")).join("");
}

describe("DefaultChatTransport", () => {
  test("text received is text emitted", async () => {
    const user = newUser();
    const { message, error } = await read(await ask(transportFor(user), [question("text:50")]));
    expect(error).toBeUndefined();
    const [run] = await server.runs(user);
    expect(message).toMatchObject({ role: "assistant", id: run?.run_id });
    expect(textOf(message)).toBe(await server.emitted(user));
  });
});
