import { Line, type LineOptions, type LineOwner } from "./line.js";

/** How `webSocket` connects: with a fresh token for every attempt, or a cookie. */
export type WebSocketOptions = LineOptions;

/** A class that `WebSocketChatTransport` takes as its `webSocket`. */
export type ChatSocketClass = new (url: string | URL, protocols?: string | string[]) => ChatSocket;

/**
 * A WebSocket for `WebSocketChatTransport` that comes back by itself.
 *
 * A connection that breaks is not the end of an answer: the next one goes on with the chunk that
 * follows the last one, and the page sees nothing of it. What is sent while there is none waits.
 */
export function webSocket(options: WebSocketOptions = {}): ChatSocketClass {
  return class extends ChatSocket {
    constructor(url: string | URL, protocols?: string | string[]) {
      super(`${url}`, options, protocols === undefined ? undefined : [protocols].flat());
    }
  };
}

type Frame = Readonly<Record<string, unknown>>;

/** One request of the transport, until its stream has ended. */
interface Request {
  readonly frame: Frame;
  /** How many chunks were handed on. */
  chunks: number;
  /** The place of the last one. */
  place: string | null;
  isStarted: boolean;
  isAborted: boolean;
}

type Handler<T = unknown> = ((event: T) => void) | null;

/** What the transport sees: a socket that is open from the first connection on. */
export class ChatSocket implements LineOwner {
  readyState = 0;
  onopen: Handler = null;
  onmessage: Handler<{ data: unknown }> = null;
  onerror: Handler = null;
  onclose: Handler = null;
  /** @internal */
  readonly protocols: readonly string[];
  readonly #url: string;
  readonly #line: Line;
  readonly #requests = new Map<unknown, Request>();

  constructor(url: string, options: WebSocketOptions, protocols = ["catenary.v1"]) {
    this.#url = url;
    this.protocols = protocols;
    this.#line = new Line(options, this);
  }

  get bufferedAmount(): number {
    return this.#line.bufferedAmount;
  }

  /** Take a request of the transport. */
  send(text: string | Uint8Array | ArrayBuffer): void {
    const frame = JSON.parse(`${text}`) as Frame;
    if (frame["type"] === "abort") this.#abort(frame);
    else {
      const request: Request = { frame, chunks: 0, place: null, isStarted: false, isAborted: false };
      this.#requests.set(frame["requestId"], request);
      this.#line.send(JSON.stringify({ ...frame, places: true }));
    }
  }

  close(code?: number, reason?: string): void {
    this.readyState = 3;
    this.#line.close(code, reason);
  }

  /** @internal */
  url(): string {
    return this.#url;
  }

  /** @internal */
  opened(): void {
    const isFirst = this.readyState === 0;
    this.readyState = 1;
    for (const { frame, place, isAborted } of this.#requests.values()) {
      const after = place === null ? {} : { after: place };
      this.#line.send(JSON.stringify({ ...frame, places: true, again: true, ...after }));
      if (isAborted) this.#line.send(JSON.stringify({ type: "abort", requestId: frame["requestId"] }));
    }
    if (isFirst) this.onopen?.({ type: "open" });
  }

  /** @internal */
  received(text: string): void {
    const message = JSON.parse(text) as Frame;
    const { type, requestId, place, chunk } = message;
    const request = this.#requests.get(requestId);
    if (!request) return;
    if (type === "chunk") {
      request.place = `${place}`;
      this.#hand({ type, requestId, sequence: request.chunks++, chunk });
    } else if (type === "start") {
      if (!request.isStarted) this.#hand(message);
      request.isStarted = true;
    } else {
      this.#requests.delete(requestId);
      const isLost = type === "no-active" && request.isStarted;
      this.#hand(isLost ? { type: "error", requestId, errorText: "the answer is no longer kept" } : message);
    }
  }

  /** @internal */
  comesBack(): boolean {
    return this.readyState === 0 || this.#requests.size > 0;
  }

  /** @internal */
  closed(code: number, reason: string): void {
    this.readyState = 3;
    this.onclose?.({ type: "close", code, reason });
  }

  /** An abort counts when the server has stopped the stream; until then it is sent again. */
  #abort(frame: Frame): void {
    const request = this.#requests.get(frame["requestId"]);
    if (request) request.isAborted = true;
    this.#line.send(JSON.stringify(frame));
  }

  #hand(message: Frame): void {
    this.onmessage?.({ data: JSON.stringify(message) });
  }
}
