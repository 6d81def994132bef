import type { AddressInfo } from "node:net";
import { WebSocketServer, type WebSocket as Peer } from "ws";

/** One connection of a client, as the server sees it. */
export interface Seen {
  peer: Peer;
  after: string | null;
  threadIds: string[];
  protocols: string[];
  received: Record<string, unknown>[];
  closeCode: Promise<number>;
}

/** A small server of `catenary.v1` over real sockets: one log in memory, and nothing of its own will. */
export class LogServer {
  readonly connections: Seen[] = [];
  readonly log: string[] = [];
  readonly #server: WebSocketServer;
  readonly #waiting: (() => void)[] = [];
  /** What to do with a message of a client; by default pings are answered. */
  onMessage: (seen: Seen, message: Record<string, unknown>) => void = answerPing;
  /** What to send to a new connection; by default all that `catenary.v1` says. */
  onConnection: (seen: Seen) => void = (seen) => this.greet(seen);

  private constructor(server: WebSocketServer) {
    this.#server = server;
    server.on("connection", (peer, request) => {
      const query = new URL(request.url ?? "/", "ws://server").searchParams;
      const seen: Seen = {
        peer,
        after: query.get("after"),
        threadIds: query.getAll("thread_id"),
        protocols: (request.headers["sec-websocket-protocol"] ?? "").split(/, ?/),
        received: [],
        closeCode: new Promise((resolve) => peer.on("close", resolve)),
      };
      peer.on("message", (data) => {
        const message = JSON.parse(String(data)) as Record<string, unknown>;
        seen.received.push(message);
        this.onMessage(seen, message);
        this.#wake();
      });
      peer.on("close", () => this.#wake());
      this.connections.push(seen);
      this.onConnection(seen);
      this.#wake();
    });
  }

  static async listen(): Promise<LogServer> {
    const handleProtocols = () => "catenary.v1";
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0, handleProtocols });
    await new Promise((resolve) => server.once("listening", resolve));
    return new LogServer(server);
  }

  get url(): string {
    return `ws://127.0.0.1:${(this.#server.address() as AddressInfo).port}/ws`;
  }

  get last(): Seen {
    const last = this.connections.at(-1);
    if (!last) throw new Error("nobody has connected");
    return last;
  }

  /** Resolves when `condition` holds; it is looked at after everything a client does. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** Send `connected`, the events after the place asked for, and `live`. */
  greet(seen: Seen): void {
    const from = Number(seen.after?.split(":")[1] ?? 0);
    send(seen, connected(`k3:${from}`, `k3:${this.log.length}`));
    for (const text of this.log.slice(from)) seen.peer.send(text);
    send(seen, { type: "live", position: `k3:${this.log.length}` });
  }

  /** Append an event and send it to the last connection, if that is open. */
  append(data: Record<string, unknown> = {}, fields: Record<string, unknown> = {}): void {
    const seq = this.log.length + 1;
    const about = { id: `k3:${seq}`, seq, user_id: "user_123", timestamp: seq };
    const text = JSON.stringify({ type: "app.note", ...about, ...fields, data });
    this.log.push(text);
    this.connections.at(-1)?.peer.send(text);
  }

  /** Append an event of a run in thread `t1`. */
  tell(type: string, data: Record<string, unknown> = {}, fields: Record<string, unknown> = {}): void {
    this.append(data, { type, thread_id: "t1", run_id: "r1", ...fields });
  }

  async stop(): Promise<void> {
    for (const { peer } of this.connections) peer.terminate();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

export function send(seen: Seen, message: Record<string, unknown>): void {
  seen.peer.send(JSON.stringify(message));
}

export function connected(after: string, position = after): Record<string, unknown> {
  return {
    type: "connected",
    protocol: "catenary.v1",
    connection_id: "c_1",
    user_id: "user_123",
    position,
    after,
    replay: 0,
    heartbeat_interval: 15,
    max_message_bytes: 65536,
  };
}

function answerPing(seen: Seen, message: Record<string, unknown>): void {
  if (message["type"] === "ping") send(seen, { type: "pong", timestamp: 1 });
}
