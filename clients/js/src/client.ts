import { attempt } from "./attempt.js";
import type { Effect, Outcome } from "./effects.js";
import type { Listeners, Options, Socket } from "./options.js";
import { watchPage, type Page } from "./page.js";
import { randomId } from "./random-id.js";
import { Session } from "./session.js";
import {
  CatenaryError,
  type After,
  type CatenaryEvent,
  type Control,
  type Gap,
  type Position,
  type State,
  type Stats,
} from "./types.js";

type Listener<K extends keyof Listeners> = (value: Listeners[K]) => void;
type Registry = { [K in keyof Listeners]: Set<Listener<K>> };
type Item = CatenaryEvent | Gap;

const OPEN_KEYS = new Set<string | null>();

/**
 * Connect to a Catenary server, and stay connected.
 *
 * Add listeners in the same turn: the first event may arrive right after it. In a page there may be
 * one open client for each URL and set of threads; a second one throws `already_connected`.
 */
export function connect(options: Options): Client {
  return new Client(options);
}

/** A connection that outlives its sockets. Made by `connect`. */
export class Client {
  readonly #options: Options;
  readonly #session: Session;
  readonly #listeners: Partial<Registry> = {};
  readonly #waiting = new Map<string, (outcome: Outcome) => void>();
  readonly #watch = new AbortController();
  #key: string | null;
  #socket: Socket | null = null;
  #attempt = 0;
  /** What a slow loop has not taken. A browser cannot stop reading a socket, so it waits here. */
  #backlog: Item[] | null = null;
  #wake: (() => void) | undefined;
  #isPumping = false;
  #toldState: State = "waiting";
  #savedPosition: Position | null;
  #failure: CatenaryError | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #timerAt = Infinity;

  constructor(options: Options) {
    this.#options = options;
    this.#key = claimKey(options);
    const after = attempt(() => options.storage?.load()) ?? options.after ?? null;
    this.#session = new Session(after, options.threadIds, options.outbox);
    this.#savedPosition = this.#session.position;
    watchPage(
      options.page ?? (globalThis as Page),
      () => this.probe(),
      () => this.drop(Infinity),
      this.#watch.signal,
    );
    this.#session.start(now());
    queueMicrotask(() => this.#pump());
  }

  get state(): State {
    return this.#session.state;
  }

  /** All through here was handled. Keep it only together with the state that belongs to it. */
  get position(): Position | null {
    return this.#session.position;
  }

  get stats(): Readonly<Stats> {
    return { ...this.#session.stats };
  }

  /** Milliseconds until the next attempt; `Infinity` if none is awaited. */
  get retryIn(): number {
    return Math.max(0, (this.#session.resumeAt - now()) * 1000);
  }

  /** Milliseconds that the last probe took to be answered; `null` before the first. */
  get latency(): number | null {
    const { latency } = this.#session;
    return latency && latency * 1000;
  }

  /** Call `listener` for each of these. Returns a function that removes it. */
  on<K extends keyof Listeners>(type: K, listener: Listener<K>): () => void {
    const all: Partial<Record<K, Set<Listener<K>>>> = this.#listeners;
    const listeners = (all[type] ??= new Set());
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }

  /**
   * Events for a `for await` loop, from now on. Gaps still go to the listeners of `gap`.
   *
   * Events, and listeners, then go at the pace of the loop: an event counts as handled when the loop
   * asks for the next one, or is left. It ends when the client is closed, and throws if that was not
   * by `close()`. One loop at a time.
   */
  events(): AsyncGenerator<CatenaryEvent, void> {
    if (this.#backlog) throw new CatenaryError("usage", "a loop is open");
    this.#backlog = [];
    return this.#follow(this.#backlog);
  }

  /**
   * Send a message to the application behind the server. Resolves with its reply.
   *
   * It is sent again after reconnects until it is answered, and handled at most once for its id.
   * With the `id` of a command in the outbox it waits for that one. Rejects with a `CatenaryError`.
   */
  async send(
    type: string,
    data: unknown,
    { threadId, id }: { threadId?: string; id?: string } = {},
  ): Promise<unknown> {
    return (await this.#command({ type, thread_id: threadId, data }, id))["reply"];
  }

  /**
   * Ask for the end of a run. Resolves with whether it was still at work once the request is stored.
   *
   * Rejects with `not_found` if there is no such run of this user.
   */
  async cancelRun(runId: string, reason?: string): Promise<boolean> {
    return !(await this.#command({ type: "cancel_run", run_id: runId, reason }))["already_ended"];
  }

  /**
   * Answer what a run asked. Resolves with the answer that counts: another tab's, if that was first.
   *
   * Rejects with `forbidden` if nothing of this id was asked, `not_found` if the question is over.
   */
  async answer(requestId: string, answer: unknown): Promise<unknown> {
    const ack = await this.#command({ type: "answer", request_id: requestId, answer });
    return ack["already_answered"] ? ack["answer"] : answer;
  }

  /** Present a fresh token on the open connection, so that it lives on after the old one expires. */
  async authenticate(): Promise<void> {
    const token = await this.#options.token?.();
    if (token) this.#session.authenticate(token);
    this.#pump();
  }

  /** Find out soon whether the connection lives, and measure the latency; end a wait. */
  probe(): void {
    this.#session.probe(now());
    this.#pump();
  }

  /** Reconnect now. */
  reconnect(): void {
    this.drop(0);
  }

  /** Give up the connection, and come back after so many milliseconds. */
  drop(milliseconds: number): void {
    this.#session.drop(milliseconds / 1000, now());
    this.#pump();
  }

  /** Close for good. Commands without an answer reject with `closed`. */
  close(): void {
    this.#session.stop();
    this.#pump();
  }

  async *#follow(items: Item[]): AsyncGenerator<CatenaryEvent, void> {
    try {
      while (items.length || !this.#session.isFinal) {
        const item = items.shift();
        if (!item) await new Promise<void>((resolve) => (this.#wake = resolve));
        else if (this.#reached(item) && item.type !== "gap") {
          try {
            yield item as CatenaryEvent;
          } finally {
            this.#handled();
          }
        }
      }
    } finally {
      this.#backlog = null;
      for (const item of items) this.#deliver(item);
    }
    if (this.#failure) throw this.#failure;
  }

  #command(fields: { type: string; [field: string]: unknown }, id: string = randomId()): Promise<Control> {
    return new Promise((resolve, reject) => {
      const isKept = !this.#waiting.has(id) && this.#options.outbox?.has(id);
      if (!isKept) this.#session.command({ ...fields, id });
      this.#waiting.set(id, ({ ack, error }) => (ack ? resolve(ack) : reject(error)));
      this.#pump();
    });
  }

  /** Carry out what the session decided. Listeners may cause more of it meanwhile. */
  #pump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    for (let effects = this.#session.effects(); effects.length; effects = this.#session.effects()) {
      for (const effect of effects) this.#carryOut(effect);
    }
    this.#isPumping = false;
    this.#settle();
  }

  #carryOut(effect: Effect): void {
    switch (effect.kind) {
      case "connect":
        void this.#open(effect.after, effect.threadIds);
        break;
      case "disconnect":
        this.#giveUp(effect.reason);
        break;
      case "send":
        this.#socket?.send(effect.text);
        break;
      case "deliver":
        this.#deliver(effect.item);
        break;
      case "control":
        this.#emit("control", effect.message);
        break;
      case "outcome":
        this.#waiting.get(effect.id)?.(effect);
        this.#waiting.delete(effect.id);
        break;
      case "error":
        this.#fail(effect.error);
        break;
    }
  }

  /** After the effects: tell the state, keep the position, set the timer. */
  #settle(): void {
    const { state, position } = this;
    if (position && position !== this.#savedPosition) {
      this.#savedPosition = position;
      attempt(() => this.#options.storage?.save(position));
    }
    this.#setTimer();
    if (this.#session.isFinal) this.#release();
    if (state === this.#toldState) return;
    this.#toldState = state;
    this.#emit("state", state);
  }

  /** What is done again does nothing. */
  #release(): void {
    this.#watch.abort();
    clearTimeout(this.#timer);
    OPEN_KEYS.delete(this.#key);
    this.#key = null;
    this.#wake?.();
  }

  async #open(after: After | null, threadIds: readonly string[]): Promise<void> {
    const number = ++this.#attempt;
    try {
      const token = await this.#options.token?.();
      if (number !== this.#attempt) return;
      const protocols = ["catenary.v1"];
      if (token) protocols.push(`catenary.bearer.${token}`);
      const WebSocketClass = this.#options.WebSocket ?? (WebSocket as NonNullable<Options["WebSocket"]>);
      this.#listen(new WebSocketClass(attemptUrl(this.#options.url, after, threadIds), protocols));
    } catch (cause) {
      if (number !== this.#attempt) return;
      this.#fail(new CatenaryError("attempt_failed", `${cause}`));
      this.#session.closed(1006, now());
      this.#pump();
    }
  }

  #listen(socket: Socket): void {
    this.#socket = socket;
    // What a socket says that was given up concerns nobody any more.
    const take = (action: () => void) => {
      if (socket !== this.#socket) return;
      action();
      this.#pump();
    };
    socket.onmessage = ({ data }) => take(() => this.#session.receive(`${data}`, now()));
    socket.onclose = ({ code, reason }) => take(() => this.#session.closed(code, now(), reason));
    socket.onerror = () => undefined;
  }

  /** Also an attempt that has no socket yet. */
  #giveUp(reason: string): void {
    this.#attempt++;
    this.#socket?.close(1000, reason);
    this.#socket = null;
  }

  #deliver(item: Item): void {
    if (this.#backlog) {
      this.#backlog.push(item);
      this.#wake?.();
    } else if (this.#reached(item) && item.type !== "gap") this.#handled();
  }

  /** Tell the listeners. Whether the item counts: nothing does behind a gap that nobody heard. */
  #reached(item: Item): boolean {
    if (this.#failure?.code === "gap_unhandled") return false;
    if (item.type === "gap") return this.#reachedGap(item as Gap);
    this.#emit("event", item as CatenaryEvent);
    return true;
  }

  #reachedGap(gap: Gap): boolean {
    if (this.#listeners.gap?.size) {
      this.#emit("gap", gap);
      this.#session.acknowledgeGap(now());
      this.#pump();
      return true;
    }
    const lost = `no "gap" listener: lost ${gap.after} to ${gap.resumes_at}`;
    this.close();
    this.#fail(new CatenaryError("gap_unhandled", lost));
    return false;
  }

  #handled(): void {
    this.#session.handled(now());
    this.#pump();
  }

  #fail(error: CatenaryError): void {
    if (this.#session.isFinal) this.#failure = error;
    if (this.#listeners.error?.size) this.#emit("error", error);
    else
      attempt(() => {
        throw error;
      });
  }

  #emit<K extends keyof Listeners>(type: K, value: Listeners[K]): void {
    for (const listener of [...(this.#listeners[type] ?? [])]) attempt(() => listener(value));
  }

  #setTimer(): void {
    const at = this.#session.dueAt;
    // A timer that is early only looks and is set again, so most messages need no new one.
    if (at >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = at;
    this.#timer = setTimeout(() => this.#due(), Math.max(0, (at - now()) * 1000));
  }

  #due(): void {
    this.#timerAt = Infinity;
    this.#session.tick(now());
    this.#pump();
  }
}

/** Seconds of a clock that only rises. */
function now(): number {
  return performance.now() / 1000;
}

function text(url: Options["url"]): string {
  return typeof url === "function" ? url() : url;
}

function attemptUrl(url: Options["url"], after: After | null, threadIds: readonly string[]): string {
  const full = new URL(text(url), globalThis.location?.href);
  if (after) full.searchParams.set("after", after);
  for (const threadId of threadIds) full.searchParams.append("thread_id", threadId);
  return full.href;
}

/** Two sockets of one page for one log would only double the traffic. */
function claimKey({ url, threadIds = [], page = globalThis as Page }: Options): string | null {
  if (!page.document) return null;
  const key = text(url) + threadIds;
  if (OPEN_KEYS.has(key)) throw new CatenaryError("already_connected", "it is open");
  OPEN_KEYS.add(key);
  return key;
}
