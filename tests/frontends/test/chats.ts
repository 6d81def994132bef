import { readUIMessageStream, type ChatTransport, type UIMessage, type UIMessageChunk } from "ai";

export const CHAT = "chat 1/ä";

export function question(text: string, id = "m1"): UIMessage {
  return { id, role: "user", parts: [{ type: "text", text }] };
}

export async function ask(
  transport: ChatTransport<UIMessage>,
  messages: UIMessage[],
  abortSignal?: AbortSignal,
): Promise<ReadableStream<UIMessageChunk>> {
  const trigger = "submit-message";
  return transport.sendMessages({ chatId: CHAT, messages, abortSignal, trigger, messageId: undefined });
}

export interface Result {
  message: UIMessage | undefined;
  error: unknown;
}

/** The message that a stream makes, and why the stream broke, if it did. */
export async function read(stream: ReadableStream<UIMessageChunk>, before?: UIMessage): Promise<Result> {
  // The reader writes into the message that it is given.
  const message = structuredClone(before);
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

/** Ask and read; a request that fails is a result with an error. */
export async function askAndRead(
  transport: ChatTransport<UIMessage>,
  messages: UIMessage[],
  before?: UIMessage,
): Promise<Result> {
  try {
    return await read(await ask(transport, messages), before);
  } catch (error) {
    return { message: undefined, error };
  }
}

/** What a page does that is loaded, or has lost its stream; `undefined` if there is nothing to resume. */
export async function resume(transport: ChatTransport<UIMessage>): Promise<Result | undefined> {
  try {
    const stream = await transport.reconnectToStream({ chatId: CHAT });
    return stream ? await read(stream) : undefined;
  } catch (error) {
    return { message: undefined, error };
  }
}

export function textOf(message: UIMessage | undefined, type: "text" | "reasoning" = "text"): string {
  return (message?.parts ?? []).map((part) => (part.type === type ? part.text : "")).join("");
}

/** What `addToolApprovalResponse` makes of a message. */
export function approved(message: UIMessage, isYes: boolean): UIMessage {
  const parts = message.parts.map((part) =>
    part.type === "dynamic-tool" && part.state === "approval-requested"
      ? { ...part, state: "approval-responded" as const, approval: { id: part.approval.id, approved: isYes } }
      : part,
  );
  return { ...message, parts };
}
