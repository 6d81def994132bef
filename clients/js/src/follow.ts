import type { Client } from "./client.js";
import type { CatenaryEvent, EventData, State } from "./types.js";

/** What shows one thread, and reads by a wire of its own what an agent says in it. */
export interface Follower {
  readonly threadId: string;
  /** Whether it reads now. Then it is left alone. */
  readonly isReading: boolean;
  /** Whether it lost what it read to the network. */
  readonly isCut: boolean;
  /** Read what is at work in the thread, to its end. */
  read(): Promise<unknown>;
  /** Read that, and what was said before. */
  readAll(): Promise<unknown>;
  /** The user asked something, here or in another tab. */
  asked(question: EventData["user_message"]): void;
  /** An agent began to answer a question. */
  replied(runId: string, messageId: string | undefined): void;
  erased(): void;
}

/** Let `follower` read whenever something is to be read, as the native wire tells. Returns what ends it. */
export function follow(follower: Follower, client: Pick<Client, "on" | "state">): () => void {
  const following = new Following(follower);
  const ends = [
    client.on("event", (event) => following.take(event)),
    client.on("gap", () => following.miss()),
    client.on("state", (state) => following.connection(state)),
  ];
  following.connection(client.state);
  return () => ends.forEach((end) => end());
}

class Following {
  readonly #follower: Follower;
  #isLive = false;
  /** Something was said that the follower has not shown. At first that is all. */
  #isBehind = true;
  #work: Promise<void> | null = null;

  constructor(follower: Follower) {
    this.#follower = follower;
  }

  connection(state: State): void {
    this.#isLive = state === "live";
    if (this.#isBehind || this.#follower.isCut) this.#catchUp();
  }

  /** Events are lost. */
  miss(): void {
    this.#isBehind = true;
    this.#catchUp();
  }

  take(event: CatenaryEvent): void {
    const follower = this.#follower;
    // Without a thread all was erased.
    if (event.type === "erased" && (event.data.thread_id ?? follower.threadId) === follower.threadId) follower.erased();
    if (event.thread_id !== follower.threadId || event.parent_run_id !== undefined) return;
    const begins = event.type === "agent_started" || event.type === "input_resolved";
    // What comes before it is live is caught up with as a whole.
    if (!this.#isLive || (begins && this.#work)) this.#isBehind ||= begins || event.type === "user_message";
    if (!this.#isLive) return;
    if (event.type === "user_message") follower.asked(event.data);
    if (event.type === "agent_started") follower.replied(event.run_id ?? "", event.data.in_reply_to);
    if (begins || follower.isCut) this.#read(() => follower.read());
  }

  #catchUp(): void {
    if (!this.#isLive) return;
    this.#read(() => {
      this.#isBehind = false;
      return this.#follower.readAll();
    });
  }

  /** A second stream would end the first, so there is one at a time. */
  #read(read: () => Promise<unknown>): void {
    if (this.#work || this.#follower.isReading) return;
    const told = (error: unknown): void => console.warn("what is at work could not be read:", error);
    this.#work = read()
      .then(() => undefined, told)
      .finally(() => {
        this.#work = null;
        if (this.#isBehind) this.#catchUp();
      });
  }
}
