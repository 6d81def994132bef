import type { AbstractChat, UIMessage } from "ai";

import type { Client } from "./client.js";
import { follow, type Follower } from "./follow.js";
import type { EventData } from "./types.js";

/** What of a chat is followed; `Chat` of `@ai-sdk/react`, and those of other frameworks, have it. */
export type FollowedChat<MESSAGE extends UIMessage> = Pick<
  AbstractChat<MESSAGE>,
  "id" | "status" | "error" | "messages" | "resumeStream"
>;

export interface FollowOptions<MESSAGE extends UIMessage> {
  /**
   * Gives the messages that the application keeps, as `messages` of `useChat`. Asked when the page is
   * connected for the first time, and when it comes back after it missed something.
   */
  load?: () => Promise<MESSAGE[]>;
}

/**
 * Show in a chat what happens to it elsewhere: a question of another tab and its answer, an approval
 * that was given there, what was at work when the page was loaded.
 *
 * `client` is connected to the native wire, as the same user; the chat's id is the thread. Do not set
 * `resume` of `useChat` besides: this resumes once the client is live, and again whenever an agent is
 * at work and the chat does not read. A question is shown by its text. Returns what ends it.
 */
export function followChat<MESSAGE extends UIMessage>(
  chat: FollowedChat<MESSAGE>,
  client: Pick<Client, "on" | "state">,
  options: FollowOptions<MESSAGE> = {},
): () => void {
  return follow(new ChatFollower(chat, options), client);
}

class ChatFollower<MESSAGE extends UIMessage> implements Follower {
  readonly #chat: FollowedChat<MESSAGE>;
  readonly #load: (() => Promise<MESSAGE[]>) | undefined;
  /** The last question, as the log and as the chat call it. */
  #question: EventData["user_message"] | null = null;

  constructor(chat: FollowedChat<MESSAGE>, { load }: FollowOptions<MESSAGE>) {
    this.#chat = chat;
    this.#load = load;
  }

  get threadId(): string {
    return this.#chat.id;
  }

  get isReading(): boolean {
    return this.#chat.status === "submitted" || this.#chat.status === "streaming";
  }

  /** The AI SDK tells it so; what an agent said is an `Error` of no other class. */
  get isCut(): boolean {
    return this.#chat.error instanceof TypeError;
  }

  read(): Promise<void> {
    return this.#chat.resumeStream();
  }

  async readAll(): Promise<void> {
    try {
      if (this.#load) this.#chat.messages = await this.#load();
    } catch (error) {
      console.warn("the messages could not be loaded:", error);
    }
    await this.#chat.resumeStream();
  }

  asked(question: EventData["user_message"]): void {
    const { client_message_id: id, content } = question;
    this.#question = question;
    if (this.#chat.messages.some((message) => message.id === id)) return;
    const text = typeof content === "string" ? content : JSON.stringify(content);
    const message = { id, role: "user", parts: [{ type: "text", text }] } as unknown as MESSAGE;
    this.#chat.messages = [...this.#chat.messages, message];
  }

  /** The answer may have been read before its question came: they have different connections. */
  replied(runId: string, questionId: string | undefined): void {
    if (questionId === undefined || this.#question?.message_id !== questionId) return;
    const { messages } = this.#chat;
    const answer = messages.findIndex(({ id }) => id === runId);
    const question = messages.findIndex(({ id }) => id === this.#question?.client_message_id);
    if (answer === -1 || answer > question) return;
    this.#chat.messages = messages.toSpliced(answer, 0, ...messages.splice(question, 1));
  }

  erased(): void {
    this.#chat.messages = [];
  }
}
