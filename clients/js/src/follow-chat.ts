import type { AbstractChat, UIMessage } from "ai";

import type { Client } from "./client.js";
import type { CatenaryEvent, EventData, State } from "./types.js";

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
  const following = new Following(chat, options);
  const ends = [
    client.on("event", (event) => following.take(event)),
    client.on("gap", () => following.miss()),
    client.on("state", (state) => following.connection(state)),
  ];
  following.connection(client.state);
  return () => ends.forEach((end) => end());
}

class Following<MESSAGE extends UIMessage> {
  readonly #chat: FollowedChat<MESSAGE>;
  readonly #load: (() => Promise<MESSAGE[]>) | undefined;
  #isLive = false;
  /** Something began that the chat has not shown. At first that is all. */
  #isBehind = true;
  #work: Promise<void> | null = null;
  /** The last question, as the log and as the chat call it. */
  #question: { message_id: string; client_message_id: string } | null = null;

  constructor(chat: FollowedChat<MESSAGE>, { load }: FollowOptions<MESSAGE>) {
    this.#chat = chat;
    this.#load = load;
  }

  connection(state: State): void {
    this.#isLive = state === "live";
    if (this.#isLive && (this.#isBehind || this.#isCut)) this.#catchUp(this.#load);
  }

  /** Events are lost. */
  miss(): void {
    this.#isBehind = true;
    if (this.#isLive) this.#catchUp(this.#load);
  }

  take(event: CatenaryEvent): void {
    const chat = this.#chat;
    // Without a thread all was erased.
    if (event.type === "erased" && (event.data.thread_id ?? chat.id) === chat.id) chat.messages = [];
    if (event.thread_id !== chat.id || event.parent_run_id !== undefined) return;
    const begins = event.type === "agent_started" || event.type === "input_resolved";
    if (begins || event.type === "user_message") this.#isBehind = true;
    // What comes before it is live is caught up with as a whole.
    if (!this.#isLive) return;
    if (event.type === "user_message") this.#asked(event.data);
    if (event.type === "agent_started") this.#replied(event.run_id ?? "", event.data.in_reply_to);
    if (begins || this.#isCut) this.#catchUp();
  }

  /** Whether the network broke the chat's stream; what an agent said then is an `Error` of no class. */
  get #isCut(): boolean {
    return this.#chat.error instanceof TypeError;
  }

  /** Read what is at work, unless the chat reads: a second stream would abort the first. */
  #catchUp(load?: () => Promise<MESSAGE[]>): void {
    const { status } = this.#chat;
    if (this.#work || status === "submitted" || status === "streaming") return;
    this.#isBehind = false;
    this.#work = this.#caughtUp(load).finally(() => {
      this.#work = null;
      if (this.#isBehind && this.#isLive) this.#catchUp();
    });
  }

  async #caughtUp(load?: () => Promise<MESSAGE[]>): Promise<void> {
    try {
      if (load) this.#chat.messages = await load();
    } catch (error) {
      console.warn("the messages could not be loaded:", error);
    }
    await this.#chat.resumeStream();
  }

  #asked(data: EventData["user_message"]): void {
    const { client_message_id: id, content } = data;
    this.#question = data;
    if (this.#chat.messages.some((message) => message.id === id)) return;
    const text = typeof content === "string" ? content : JSON.stringify(content);
    const message = { id, role: "user", parts: [{ type: "text", text }] } as unknown as MESSAGE;
    this.#chat.messages = [...this.#chat.messages, message];
  }

  /** The answer may have been read before its question came: they have different connections. */
  #replied(runId: string, questionId: string | undefined): void {
    if (questionId === undefined || this.#question?.message_id !== questionId) return;
    const { messages } = this.#chat;
    const answer = messages.findIndex(({ id }) => id === runId);
    const question = messages.findIndex(({ id }) => id === this.#question?.client_message_id);
    if (answer === -1 || answer > question) return;
    this.#chat.messages = messages.toSpliced(answer, 0, ...messages.splice(question, 1));
  }
}
