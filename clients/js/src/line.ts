import { backoff } from "./backoff.js";
import type { Options, Socket } from "./options.js";
import { watchPage, type Page } from "./page.js";

/** How a line connects; the same words as for `connect`. */
export type LineOptions = Pick<Options, "token" | "WebSocket" | "page">;

/** Whom a line serves. */
export interface LineOwner {
  /** Where the server is; asked for every attempt. */
  url(): string;
  /** The subprotocols to offer; the token is added. */
  readonly protocols: readonly string[];
  /** There is a connection: send what has to be sent, also what was sent on an earlier one. */
  opened(): void;
  received(text: string): void;
  /** The connection is lost. Whether another one is wanted; if not, `closed` comes. */
  comesBack(code: number): boolean;
  closed(code: number, reason: string): void;
}

/** A browser is not shown the protocol's pings, so these say whether a socket lives. In seconds. */
const SILENT = 15;
const UNANSWERED = 1.5 * SILENT;
const CONNECT_DEADLINE = 10;
const PROBE_DEADLINE = 2;
const HELD = 5;
const EASED_WAITS = 1;

const PONG = '{"type":"pong"}';

/** The close code of a server that has nothing more to say. */
const NOTHING_MORE = 1008;

/** Whether a server forbids to come back. */
export function isFinal(code: number): boolean {
  return code === NOTHING_MORE || (code >= 4500 && code <= 4999);
}

/**
 * A WebSocket of one of the other wires that comes back, until it is closed, the server forbids it, or
 * its owner wants no other. What it sends and receives is its owner's business.
 */
export class Line {
  readonly #options: LineOptions;
  readonly #owner: LineOwner;
  readonly #watch = new AbortController();
  #socket: Socket | null = null;
  #isOpen = false;
  #attempt = 0;
  #waits = 0;
  /** When the open connection brought its first message. */
  #liveAt = Infinity;
  #heardAt = 0;
  #pingedAt = 0;
  #probedAt = Infinity;
  #wait: ReturnType<typeof setTimeout> | undefined;
  #look: ReturnType<typeof setInterval> | undefined;

  constructor(options: LineOptions, owner: LineOwner) {
    this.#options = options;
    this.#owner = owner;
    watchPage(
      options.page ?? (globalThis as Page),
      () => this.#doubt(),
      () => this.#lost(1001),
      this.#watch.signal,
    );
    void this.#open();
  }

  get bufferedAmount(): number {
    return (this.#socket as { bufferedAmount?: number } | null)?.bufferedAmount ?? 0;
  }

  /** Send on the open connection; without one this does nothing, for `opened` will come. */
  send(text: string): void {
    if (this.#isOpen) this.#socket?.send(text);
  }

  /** Close for good. */
  close(code = 1000, reason = ""): void {
    this.#watch.abort();
    this.#forget()?.close(code, reason);
    clearTimeout(this.#wait);
  }

  async #open(): Promise<void> {
    clearTimeout(this.#wait);
    clearInterval(this.#look);
    const attempt = ++this.#attempt;
    this.#heardAt = now();
    this.#look = setInterval(() => this.#lookAt(now()), 1000);
    try {
      const token = await this.#options.token?.();
      if (attempt !== this.#attempt) return;
      const protocols = [...this.#owner.protocols];
      if (token) protocols.push(`catenary.bearer.${token}`);
      const WebSocketClass = this.#options.WebSocket ?? (WebSocket as NonNullable<Options["WebSocket"]>);
      this.#listen(new WebSocketClass(this.#owner.url(), protocols));
    } catch (error) {
      console.warn("no connection could be tried:", error);
      if (attempt === this.#attempt) this.#lost(1006);
    }
  }

  #listen(socket: Socket): void {
    this.#socket = socket;
    const mine = (action: () => void) => () => void (socket === this.#socket && action());
    socket.onopen = mine(() => this.#opened());
    socket.onmessage = ({ data }) => mine(() => this.#received(`${data}`))();
    socket.onclose = ({ code, reason }) => mine(() => this.#lost(code, reason))();
    socket.onerror = () => undefined;
  }

  #opened(): void {
    this.#isOpen = true;
    this.#heardAt = now();
    this.#owner.opened();
  }

  #received(text: string): void {
    this.#heardAt = now();
    this.#liveAt = Math.min(this.#liveAt, this.#heardAt);
    if (text === PONG) this.#probedAt = Infinity;
    else this.#owner.received(text);
  }

  #lookAt(time: number): void {
    const silent = time - this.#heardAt;
    // Asked first: timers of a hidden page may be a minute late.
    const isAsked = this.#pingedAt > this.#heardAt;
    // A stream before the pong shows that the connection lives, so its last message counts.
    const probedUntil = Math.max(this.#probedAt, this.#heardAt) + PROBE_DEADLINE;
    const isDead = this.#isOpen
      ? time > probedUntil || (isAsked && time - this.#pingedAt > UNANSWERED)
      : silent > CONNECT_DEADLINE;
    if (isDead) this.#lost(1006);
    else if (this.#isOpen && !isAsked && silent > SILENT) this.#ping();
  }

  /** A page that slept, or whose network changed, holds a socket that may be dead without knowing it. */
  #doubt(): void {
    if (this.#isOpen) {
      this.#ping();
      this.#probedAt = Math.min(this.#probedAt, this.#pingedAt);
    } else if (!this.#socket) void this.#open();
  }

  #ping(): void {
    this.#pingedAt = now();
    this.send('{"type":"ping"}');
  }

  #lost(code: number, reason = ""): void {
    // A connection that brought something, however short, proves that the server is there.
    if (now() - this.#liveAt >= HELD) this.#waits = 0;
    else if (this.#liveAt !== Infinity) this.#waits = Math.min(this.#waits, EASED_WAITS);
    this.#liveAt = Infinity;
    this.#forget()?.close();
    if (isFinal(code) || !this.#owner.comesBack(code)) {
      this.close();
      this.#owner.closed(code, reason);
    } else this.#wait = setTimeout(() => void this.#open(), backoff(this.#waits++, Math.random()) * 1000);
  }

  #forget(): Socket | null {
    const socket = this.#socket;
    this.#attempt++;
    this.#socket = null;
    this.#isOpen = false;
    this.#probedAt = Infinity;
    clearInterval(this.#look);
    return socket;
  }
}

/** Seconds of a clock that only rises. */
function now(): number {
  return performance.now() / 1000;
}
