import { attempt } from "./attempt.js";
import { connect, type Client } from "./client.js";
import type { Options } from "./options.js";
import { randomId } from "./random-id.js";
import type { QuestionState, RunState } from "./run-state.js";
import { ThreadFold, type Message } from "./thread.js";
import type { CatenaryError, CatenaryEvent, Command, Gap, State } from "./types.js";

export * from "./index.js";
export { tabOutbox } from "./outbox.js";
export type * from "./run-state.js";
export type { AgentMessage, Message, UserMessage } from "./thread.js";

/**
 * What a conversation waits for.
 *
 * `loading` until all that was there has come, `submitted` while a message is on its way, `running` while
 * an agent is at work, `waiting` while one waits for the user's answer, else `ready`.
 */
export type ThreadStatus = "loading" | "submitted" | "running" | "waiting" | "ready";

/** One conversation now. It does not change; another one takes its place. */
export interface Thread {
  readonly messages: readonly Message[];
  /** All runs, also those of sub-agents, as they began. */
  readonly runs: readonly RunState[];
  /** What waits for the user. */
  readonly questions: readonly QuestionState[];
  readonly status: ThreadStatus;
  /** What the connection does: `waiting` before it is tried again. */
  readonly connection: State;
  /** Events are lost, so something may be missing: load the page anew, or your own history. */
  readonly gap: Gap | null;
}

/** At most so many milliseconds pass before a change is told; changes in between are told together. */
const FRAME = 16;

const NOTHING = { messages: [], runs: [], questions: [], gap: null };

/** A conversation before there is a connection. */
export const LOADING: Thread = { ...NOTHING, status: "loading", connection: "connecting" };

/**
 * The conversations of a user, on one connection: what pages show and do, for any framework or none.
 *
 * Each is folded from its events as `protocol/cases/fold.json` says, beginning at the `after` of the
 * options. Made with the options of `connect`, and closed with `close`.
 */
export class Threads {
  readonly client: Client;
  readonly #folds = new Map<string, ThreadFold>();
  readonly #shown = new Map<string, Thread>();
  readonly #listeners = new Map<string, Set<() => void>>();
  readonly #changed = new Set<string>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isLoaded = false;

  constructor(options: Options) {
    const kept = [...(options.outbox?.values() ?? [])];
    this.client = connect(options);
    this.client.on("event", (event) => this.#event(event));
    this.client.on("gap", (gap) => {
      for (const fold of this.#folds.values()) fold.passGap(gap);
      this.#changeAll();
    });
    this.client.on("state", (state) => {
      this.#isLoaded ||= state === "live";
      this.#changeAll();
    });
    for (const text of kept) this.#sendKept(JSON.parse(text) as Command);
  }

  /** A conversation now: the same object until something changes. */
  get(threadId: string): Thread {
    let thread = this.#shown.get(threadId);
    if (!thread) {
      const fold = this.#folds.get(threadId);
      const { messages, runs, questions, gap } = fold ?? NOTHING;
      thread = { messages, runs, questions, status: this.#statusOf(fold), connection: this.client.state, gap };
      this.#shown.set(threadId, thread);
    }
    return thread;
  }

  /** Call `listener` after changes of a conversation, at most 60 times a second. Returns what ends it. */
  subscribe(threadId: string, listener: () => void): () => void {
    const listeners = this.#listeners.get(threadId) ?? new Set();
    this.#listeners.set(threadId, listeners.add(listener));
    return () => {
      listeners.delete(listener);
      if (!listeners.size && this.#listeners.get(threadId) === listeners) this.#listeners.delete(threadId);
    };
  }

  /**
   * Send a message of the user: `content`, which is text or any JSON, and other fields of its data.
   *
   * It is shown at once. Resolves with the reply of the application. A message that is refused is shown
   * as `failed` until the next one is sent, so the promise need not be awaited.
   */
  send(threadId: string, content: unknown, data: Record<string, unknown> = {}): Promise<unknown> {
    return this.#send({ type: "user_message", id: randomId(), thread_id: threadId, data: { ...data, content } });
  }

  /** Ask for the end of what is at work in a conversation. What was said stays. */
  async stop(threadId: string, reason?: string): Promise<void> {
    const open = this.#folds.get(threadId)?.openRuns ?? [];
    await Promise.all(open.map((runId) => this.client.cancelRun(runId, reason)));
  }

  /** Answer what an agent asked. Resolves with the answer that counts: another tab's, if that was first. */
  answer(requestId: string, answer: unknown): Promise<unknown> {
    return this.client.answer(requestId, answer);
  }

  /** Close the connection, and tell nobody any more. */
  close(): void {
    clearTimeout(this.#timer);
    this.#listeners.clear();
    this.client.close();
  }

  #statusOf(fold: ThreadFold | undefined): ThreadStatus {
    if (!this.#isLoaded) return "loading";
    if (!fold) return "ready";
    if (fold.isSending) return "submitted";
    if (fold.questions.length) return "waiting";
    return fold.openRuns.length ? "running" : "ready";
  }

  #event(event: CatenaryEvent): void {
    const threadId = event.type === "erased" ? event.data.thread_id : event.thread_id;
    if (threadId !== undefined) this.#apply(threadId, event);
    // Without a thread all was erased.
    else if (event.type === "erased") for (const each of this.#folds.keys()) this.#apply(each, event);
  }

  #apply(threadId: string, event: CatenaryEvent): void {
    this.#fold(threadId).apply(event);
    this.#change(threadId);
  }

  #fold(threadId: string): ThreadFold {
    const fold = this.#folds.get(threadId) ?? new ThreadFold();
    this.#folds.set(threadId, fold);
    return fold;
  }

  /** Show what an earlier page sent, and follow what becomes of it. */
  #sendKept(command: Command): void {
    if (command.type === "user_message" && command["thread_id"] !== undefined) void this.#send(command);
  }

  #send({ type, id, thread_id: thread, data }: Command): Promise<unknown> {
    const threadId = String(thread);
    const fold = this.#fold(threadId);
    fold.sending(id, (data as { content: unknown }).content);
    this.#change(threadId);
    const reply = this.client.send(type, data, { threadId, id });
    reply.then(
      () => fold.sent(id),
      (error: CatenaryError) => fold.failed(id, error),
    ).finally(() => this.#change(threadId));
    return reply;
  }

  #changeAll(): void {
    this.#shown.clear();
    for (const threadId of this.#listeners.keys()) this.#change(threadId);
  }

  #change(threadId: string): void {
    this.#shown.delete(threadId);
    this.#changed.add(threadId);
    this.#timer ??= setTimeout(() => this.#tell(), FRAME);
  }

  #tell(): void {
    this.#timer = undefined;
    const changed = [...this.#changed];
    this.#changed.clear();
    for (const threadId of changed) {
      for (const listener of [...(this.#listeners.get(threadId) ?? [])]) attempt(listener);
    }
  }
}
