import type { Effect } from "./effects.js";
import { CatenaryError, type Command, type Control, type Outbox } from "./types.js";

/**
 * The commands that have no answer yet, in the order they were given.
 *
 * Each stays here, and is sent again on each connection, until it is answered or given up.
 */
export class Commands {
  /** What the server takes as one message. */
  limitBytes = Infinity;

  readonly #open: Outbox;
  readonly #outbox: Outbox | undefined;
  readonly #emit: (effect: Effect) => void;

  constructor(emit: (effect: Effect) => void, outbox?: Outbox) {
    this.#emit = emit;
    this.#outbox = outbox;
    this.#open = outbox ?? new Map();
  }

  /** Throws `usage` if a command with this id is open. */
  add(message: Command): void {
    if (this.#open.has(message.id)) throw new CatenaryError("usage", `${message.id} is open`);
    this.#open.set(message.id, JSON.stringify(message));
  }

  transmit(id: string): void {
    const text = this.#open.get(id) ?? "";
    const bytes = new Blob([text]).size;
    if (bytes <= this.limitBytes) this.#emit({ kind: "send", text });
    else this.fail(id, "too_large", `${bytes} bytes are over ${this.limitBytes}`);
  }

  transmitAll(): void {
    for (const id of this.#open.keys()) this.transmit(id);
  }

  /** Take an `ack` or an `error`. An answer to a command that is not open changes nothing. */
  answer(message: Control): void {
    const { id, code, message: text } = message;
    const isError = message.type === "error";
    if (typeof id !== "string") {
      if (isError) this.#emit({ kind: "error", error: new CatenaryError(`${code}`, `${text}`) });
    } else if (isError) this.fail(id, `${code}`, `${text}`);
    else if (this.#open.delete(id)) this.#emit({ kind: "outcome", id, ack: message });
  }

  fail(id: string, code: string, message: string, closeCode?: number): void {
    const isKept = code === "closed" && this.#outbox;
    if (!isKept && !this.#open.delete(id)) return;
    this.#emit({ kind: "outcome", id, error: new CatenaryError(code, message, closeCode) });
  }

  /** The client is closed. What is in an outbox stays there. */
  failAll(message = "the client is closed", closeCode?: number): void {
    for (const id of this.#open.keys()) this.fail(id, "closed", message, closeCode);
  }

  /** Give up the largest: the server closed the connection because of a message's size. */
  failLargest(): void {
    const [largest] = [...this.#open].sort(([, a], [, b]) => b.length - a.length);
    if (largest) this.fail(largest[0], "too_large", "refused");
  }
}
