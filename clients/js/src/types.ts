/** A place in a log, `<epoch>:<seq>`, such as `k3:57`. Compare seqs only within one epoch. */
export type Position = string;

/** Where a client begins: a position, or one of the words of the wire. */
export type After = Position | "start" | "open" | "now";

/**
 * What a client is doing.
 *
 * `connecting` until the server said `connected`, `replaying` until it has sent all that was there,
 * `live`, `waiting` before the next attempt, and `closed` for good.
 */
export type State = "connecting" | "replaying" | "live" | "waiting" | "closed";

/** What an event's data hold, by type. */
export interface EventData {
  agent_started: { task?: unknown; continues_run_id?: string; in_reply_to?: string };
  agent_thinking: { thinking: string; step?: number; total_steps?: number };
  agent_delta: {
    message_id: string;
    delta: string;
    part?: "text" | "reasoning" | "tool_input";
    tool_call_id?: string;
  };
  tool_executing: { tool_name: string; tool_call_id: string; tool_input: unknown };
  tool_completed: {
    tool_name: string;
    tool_call_id: string;
    success: boolean;
    tool_output?: unknown;
    error?: unknown;
    duration_ms: number;
  };
  agent_completed: {
    result?: unknown;
    outcome: "success" | "suspended";
    usage?: Record<string, unknown>;
    duration_ms: number;
  };
  agent_error: { code: string; message: string; retryable: boolean; holder?: unknown };
  agent_cancelled: { reason?: string; by?: string };
  input_requested: {
    request_id: string;
    kind: "approval" | "question";
    question?: string;
    schema?: unknown;
    tool_call_id?: string;
    tool_name?: string;
    tool_input?: unknown;
    expires_at?: number;
    suspends?: boolean;
  };
  input_resolved: { request_id: string; answer?: unknown; by: string; client_message_id?: string };
  user_message: { message_id: string; content: unknown; client_message_id: string };
  /** Without a thread all was erased. */
  erased: { thread_id?: string };
  progress_update: {
    message?: string;
    percentage?: number;
    current_step?: number;
    total_steps?: number;
  };
}

interface Envelope {
  /** The event's position. */
  id: Position;
  /** The event's number: dense within an epoch, and the last number of a merged event. */
  seq: number;
  /** The first number of a merged event. */
  from_seq?: number;
  user_id: string;
  thread_id?: string;
  run_id?: string;
  parent_run_id?: string;
  agent_name?: string;
  /** When it was emitted, in milliseconds since 1970. */
  timestamp: number;
  /** The version of an application's own type; absent means 1. */
  v?: number;
}

type BuiltIn = { [T in keyof EventData]: Envelope & { type: T; data: EventData[T] } };

/** An event of an application's own type, which contains a dot. */
export type CustomEvent = Envelope & { type: `${string}.${string}`; data: Record<string, unknown> };

/** One event of the log. Narrow it by `type`. */
export type CatenaryEvent = BuiltIn[keyof EventData] | CustomEvent;

/**
 * Events that this client will never see: those strictly between `after` and `resumes_at`.
 *
 * State that was built from events must be loaded anew.
 */
export interface Gap {
  type: "gap";
  after: Position;
  resumes_at: Position;
  /** `retention`, `epoch`, `future`, or a reason that was added later. */
  reason: string;
}

/** A message of the server that is not an event. */
export interface Control {
  type: string;
  [field: string]: unknown;
}

/** A message to the server that is answered with a reply or an error. */
export interface Command {
  type: string;
  id: string;
  [field: string]: unknown;
}

/** What a client has counted since it was made. */
export interface Stats {
  /** Events handed to the application. */
  events: number;
  /** Of these, events handed over before the connection was live. */
  replayed: number;
  /** Events that came a second time, and were dropped. */
  duplicatesDropped: number;
  gaps: number;
  /** Connections given up because the server broke the protocol. */
  faults: number;
  /** Attempts after the first. */
  reconnects: number;
}

/** Keeps a position between two lives of a page. Keep the state that belongs to it as well. */
export interface PositionStorage {
  load(): string | null;
  save(position: Position): void;
}

/**
 * The commands without an answer, as texts by their ids, in the order they were given.
 *
 * A plain `Map` does; `tabOutbox` makes one that outlives a refresh.
 */
export type Outbox = Map<string, string>;

/**
 * Something went wrong that a program can tell apart by its `code`.
 *
 * The codes of the wire (`handler_failed`, `not_found`, …) and the client's own: `closed` (the client
 * is closed, so there will be no reply), `too_large`, `usage`, `attempt_failed` (there was no token, or
 * no socket could be made), `gap_unhandled`, and `already_connected`. `closeCode` is there if the
 * server closed the connection for good.
 */
export class CatenaryError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly closeCode?: number,
  ) {
    super(message);
    this.name = "CatenaryError";
  }
}
