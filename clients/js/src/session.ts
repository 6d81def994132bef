import { backoff } from "./backoff.js";
import { Commands } from "./commands.js";
import type { Effect, GaveUp } from "./effects.js";
import { formatPlace, parsePlace, type Place } from "./place.js";
import {
  CatenaryError,
  type After,
  type CatenaryEvent,
  type Command,
  type Control,
  type Gap,
  type Outbox,
  type Position,
  type State,
  type Stats,
} from "./types.js";

/** Something the application has not handled yet, or (`place`) a position that waits behind it. */
interface Mark {
  kind: "event" | "gap" | "place";
  at: Place;
}

/** A time at which the session has something to do, and what. */
type Deadline = [at: number, what: GaveUp | "connect" | "report"];

const TOO_MANY_CONNECTIONS = 4505;

/** In seconds, but for the waits and the intervals. */
const enum Limit {
  CONNECT_DEADLINE = 10,
  HELD = 5,
  EASED_WAITS = 1,
  PROBE_DEADLINE = 2,
  REPORT_INTERVAL = 1,
  SILENT_INTERVALS = 2.5,
}

/**
 * The client's side of `catenary.v1`, without socket, clock or timer.
 *
 * Tell it what happens (`start`, `receive`, `closed`, `tick`, …) and then carry out what `effects`
 * returns, in order. All times are seconds of one monotonic clock. Call `tick` at `dueAt`, or later.
 */
export class Session {
  readonly stats: Stats = {
    events: 0,
    replayed: 0,
    duplicatesDropped: 0,
    gaps: 0,
    faults: 0,
    reconnects: 0,
  };

  #state: State = "waiting";
  readonly #effects: Effect[] = [];
  /** All through here was handed to the application: a reconnect continues after it. */
  #reach: Place | null;
  /** All through here was handled by the application: this may be kept. */
  #handled: Place | null;
  #reported: Place | null;
  #marks: Mark[] = [];
  readonly #commands: Commands;

  #attemptAt = 0;
  #heardAt = 0;
  #liveAt = Infinity;
  #probedAt = Infinity;
  #reportedAt = -Infinity;
  #resumeAt = Infinity;
  #waits = 0;
  #reconnectAfter: number | null = null;
  #heartbeatInterval = 15;
  #isFinal = false;
  #latency: number | null = null;

  readonly #after: After | null;
  readonly #threadIds: readonly string[];
  readonly #random: () => number;

  /** `random` gives numbers from 0 to 1. What is in the `outbox` is sent first. */
  constructor(after: After | null, threadIds: readonly string[] = [], outbox?: Outbox, random = Math.random) {
    this.#commands = new Commands((effect) => this.#effects.push(effect), outbox);
    this.#after = after;
    this.#threadIds = threadIds;
    this.#random = random;
    this.#reach = this.#handled = this.#reported = parsePlace(after);
  }

  get state(): State {
    return this.#state;
  }

  /** The position that may be kept, together with the state that belongs to it. */
  get position(): Position | null {
    return formatPlace(this.#handled);
  }

  /** Whether it is closed, and nothing will open it again. */
  get isFinal(): boolean {
    return this.#isFinal;
  }

  /** How long the last probe took to be answered; `null` before the first. */
  get latency(): number | null {
    return this.#latency;
  }

  /** When the present wait ends; `Infinity` if there is none. */
  get resumeAt(): number {
    return this.#state === "waiting" ? this.#resumeAt : Infinity;
  }

  /** When `tick` has something to do; `Infinity` if never. */
  get dueAt(): number {
    return Math.min(...this.#deadlines().map(([at]) => at));
  }

  /** What must be done since the last call, in order. */
  effects(): Effect[] {
    return this.#effects.splice(0);
  }

  /** Begin the first attempt. */
  start(now: number): void {
    this.#connect(now);
  }

  /** Time has passed: do what is due. */
  tick(now: number): void {
    const due = this.#deadlines().find(([at]) => now >= at);
    if (!due) return;
    if (due[1] === "connect") this.#reconnect(now);
    else if (due[1] === "report") this.#report(now);
    else this.#giveUp(due[1], now);
  }

  /** A text message arrived. */
  receive(text: string, now: number): void {
    if (!this.#hasSocket()) return;
    this.#heardAt = now;
    const message = parseMessage(text);
    if (!message) this.#fault(now);
    else if (typeof message["seq"] === "number") this.#event(message as unknown as CatenaryEvent, now);
    else this.#control(message, now);
  }

  /** The connection or attempt ended; 1006 if it broke. */
  closed(code: number, now: number, reason = ""): void {
    if (!this.#hasSocket()) return;
    if (code === 1009) this.#commands.failLargest();
    if (code < 4500 || code > 4999) return this.#wait(now);
    const message = `closed with ${code} ${reason}`;
    this.#isFinal = code !== TOO_MANY_CONNECTIONS;
    this.#end(message, code);
    this.#effects.push({ kind: "error", error: new CatenaryError("closed", message, code) });
  }

  /** The application has handled the next event. Throws `usage` if the next item is none. */
  handled(now: number): void {
    this.#take("event", now);
  }

  /** The application has handled the next gap. Throws `usage` if the next item is none. */
  acknowledgeGap(now: number): void {
    this.#take("gap", now);
  }

  /**
   * Send a command, now or as soon as there is a connection, until it is answered.
   *
   * Throws `usage` if a command with this id is still open.
   */
  command(message: Command): void {
    this.#commands.add(message);
    if (this.#state === "closed") this.#commands.failAll();
    else if (this.#isConnected()) this.#commands.transmit(message.id);
  }

  /** Present a fresh token on the open connection. Without one this does nothing. */
  authenticate(token: string): void {
    if (this.#isConnected()) this.#send({ type: "auth", token });
  }

  /** Find out soon whether the connection lives; end a wait. */
  probe(now: number): void {
    if (!this.#hasSocket()) {
      if (!this.isFinal) this.#reconnect(now);
    } else if (this.#isConnected() && this.#probedAt === Infinity) {
      this.#probedAt = now;
      this.#send({ type: "ping" });
    }
  }

  /** Give up the connection and come back after so many seconds. */
  drop(seconds: number, now: number): void {
    if (this.#state === "closed") return;
    this.#reconnectAfter = seconds;
    this.#giveUp("dropped", now);
  }

  /** Close for good. Open commands end with `closed`. */
  stop(): void {
    this.#isFinal = true;
    if (this.#state === "closed") return;
    this.#cut("stopped");
    this.#end();
  }

  #isConnected(): boolean {
    return this.#state === "replaying" || this.#state === "live";
  }

  #hasSocket(): boolean {
    return this.#state === "connecting" || this.#isConnected();
  }

  #deadlines(): Deadline[] {
    if (this.#state === "closed") return [];
    if (this.#state === "waiting") return [[this.#resumeAt, "connect"]];
    if (this.#state === "connecting") return [[this.#attemptAt + Limit.CONNECT_DEADLINE, "deadline"]];
    return [
      [this.#heardAt + Limit.SILENT_INTERVALS * this.#heartbeatInterval, "silence"],
      // A stream before the pong shows that the connection lives, so its last message counts.
      [Math.max(this.#probedAt, this.#heardAt) + Limit.PROBE_DEADLINE, "probe"],
      [this.#isReported() ? Infinity : this.#reportedAt + Limit.REPORT_INTERVAL, "report"],
    ];
  }

  #connect(now: number): void {
    this.#state = "connecting";
    this.#attemptAt = now;
    this.#liveAt = this.#probedAt = Infinity;
    const after = formatPlace(this.#reach) ?? this.#after;
    this.#effects.push({ kind: "connect", after, threadIds: this.#threadIds });
  }

  #reconnect(now: number): void {
    this.stats.reconnects++;
    this.#connect(now);
  }

  #wait(now: number): void {
    // A connection that was live, however short, proves that the server is there.
    if (now - this.#liveAt >= Limit.HELD) this.#waits = 0;
    else if (this.#liveAt !== Infinity) this.#waits = Math.min(this.#waits, Limit.EASED_WAITS);
    this.#liveAt = Infinity;
    this.#resumeAt = now + (this.#reconnectAfter ?? backoff(this.#waits, this.#random()));
    this.#reconnectAfter = null;
    this.#waits++;
    this.#state = "waiting";
  }

  #giveUp(reason: GaveUp, now: number): void {
    this.#cut(reason);
    this.#wait(now);
  }

  #cut(reason: GaveUp): void {
    if (this.#hasSocket()) this.#effects.push({ kind: "disconnect", reason });
  }

  #fault(now: number): void {
    this.stats.faults++;
    this.#giveUp("fault", now);
  }

  #end(message?: string, closeCode?: number): void {
    this.#state = "closed";
    this.#commands.failAll(message, closeCode);
  }

  #event(event: CatenaryEvent, now: number): void {
    const reach = this.#reach;
    const { seq, from_seq: first = seq } = event;
    if (!this.#isConnected() || !reach || event.id !== `${reach.epoch}:${seq}`) return this.#fault(now);
    if (seq <= reach.seq) {
      this.stats.duplicatesDropped++;
      return;
    }
    if (!this.#threadIds.length && first !== reach.seq + 1) return this.#fault(now);
    this.stats.events++;
    if (this.#state === "replaying") this.stats.replayed++;
    this.#deliver("event", event, { ...reach, seq });
  }

  #deliver(kind: "event" | "gap", item: CatenaryEvent | Gap, at: Place): void {
    this.#reach = at;
    this.#marks.push({ kind, at });
    this.#effects.push({ kind: "deliver", item });
  }

  #control(message: Control, now: number): void {
    if (!this.#isRight(message, now)) return this.#fault(now);
    this.#effects.push({ kind: "control", message });
    this.#report(now);
  }

  /** Apply a control message. Whether the server may send it here. */
  #isRight(message: Control, now: number): boolean {
    switch (message.type) {
      case "connected":
        return this.#connected(message);
      case "gap":
        return this.#gap(message);
      case "live":
        this.#liveAt = now;
        return this.#place(message, "live");
      case "heartbeat":
        return this.#place(message, this.#state);
      case "pong":
        if (this.#probedAt < Infinity) this.#latency = now - this.#probedAt;
        this.#probedAt = Infinity;
        break;
      case "closing":
        this.#reconnectAfter = amount(message["reconnect_after"]);
        break;
      case "ack":
      case "error":
        this.#commands.answer(message);
    }
    return true;
  }

  #connected(message: Control): boolean {
    const at = parsePlace(message["after"]);
    if (this.#state !== "connecting" || !at) return false;
    this.#state = "replaying";
    this.#reach ??= at;
    this.#handled ??= at;
    this.#reported ??= at;
    this.#heartbeatInterval = amount(message["heartbeat_interval"]) || 15;
    this.#commands.limitBytes = amount(message["max_message_bytes"]) || Infinity;
    this.#commands.transmitAll();
    return true;
  }

  /** Take the place that the server names, if it can be this connection's. */
  #place(message: Control, state: State): boolean {
    const reach = this.#reach;
    const at = parsePlace(message["position"]);
    if (!this.#isConnected() || !reach || at?.epoch !== reach.epoch) return false;
    if (at.seq > reach.seq) {
      if (!this.#threadIds.length) return false;
      this.#reach = at;
      if (this.#marks.length) this.#marks.push({ kind: "place", at });
      else this.#handled = at;
    }
    this.#state = state;
    return true;
  }

  #gap(message: Control): boolean {
    const next = parsePlace(message["resumes_at"]);
    if (!this.#isConnected() || !next) return false;
    this.stats.gaps++;
    this.#deliver("gap", message as unknown as Gap, { ...next, seq: next.seq - 1 });
    return true;
  }

  #send(message: Record<string, unknown>): void {
    this.#effects.push({ kind: "send", text: JSON.stringify(message) });
  }

  #take(kind: "event" | "gap", now: number): void {
    const next = this.#marks[0]?.kind ?? "nothing";
    if (next !== kind) throw new CatenaryError("usage", `${next} is next`);
    do this.#handled = this.#marks.shift()?.at ?? this.#handled;
    while (this.#marks[0]?.kind === "place");
    this.#report(now);
  }

  #isReported(): boolean {
    return this.#handled === this.#reported;
  }

  #report(now: number): void {
    if (!this.#isConnected() || this.#isReported()) return;
    if (now < this.#reportedAt + Limit.REPORT_INTERVAL) return;
    this.#reported = this.#handled;
    this.#reportedAt = now;
    this.#send({ type: "position", position: this.position });
  }
}

function parseMessage(text: string): Control | null {
  try {
    const message: unknown = JSON.parse(text);
    return typeof (message as Control | null)?.type === "string" ? (message as Control) : null;
  } catch {
    return null;
  }
}

function amount(value: unknown): number | null {
  return typeof value === "number" && value >= 0 ? value : null;
}
