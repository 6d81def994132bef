import type { Page } from "./page.js";
import type {
  After,
  CatenaryError,
  CatenaryEvent,
  Control,
  Gap,
  Outbox,
  PositionStorage,
  State,
} from "./types.js";

/** The part of `WebSocket` that a client uses. */
export interface Socket {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: ((event: never) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

/** How to connect. */
export interface Options {
  /** Where the server is, such as `wss://example.org/ws`; a function is asked for every attempt. */
  url: string | (() => string);
  /** Gives a fresh token for every attempt. Without it the server must know the page by a cookie. */
  token?: () => string | Promise<string>;
  /** Where to begin. Absent means the start of what is retained. */
  after?: After;
  /** Only the events of these threads. */
  threadIds?: readonly string[];
  /**
   * Where the position outlives the page. A position in it is used instead of `after`. Keep the state
   * that belongs to it as well.
   */
  storage?: PositionStorage;
  /**
   * Where commands without an answer outlive the client: the next one with this outbox sends them
   * again, under their ids. See `tabOutbox`.
   */
  outbox?: Outbox;
  /** A `WebSocket` class, where there is no global one. */
  WebSocket?: new (url: string, protocols: string[]) => Socket;
  /** The page to watch, where it is not the global one. */
  page?: Page;
}

/** What listeners receive. */
export interface Listeners {
  /** An event of the log, in order. It counts as handled when the listeners have returned. */
  event: CatenaryEvent;
  /** Events are lost: load your state anew. A client without a listener for it closes at a gap. */
  gap: Gap;
  state: State;
  /** Every message that is not an event. */
  control: Control;
  error: CatenaryError;
}
