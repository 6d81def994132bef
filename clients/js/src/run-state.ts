import type { EventData } from "./types.js";

/** How far a run is. All but `running` are ends. */
export type RunStatus = "running" | "completed" | "suspended" | "failed" | "cancelled";

/** One part of one message, as far as it was said. */
export interface MessageState {
  readonly message_id: string;
  /** `text`, `reasoning`, or `tool_input`. */
  readonly part: string;
  readonly tool_call_id?: string;
  readonly text: string;
}

/** One tool call. */
export interface ToolState {
  readonly tool_call_id: string;
  readonly tool_name: string;
  readonly tool_input?: unknown;
  readonly status: "open" | "succeeded" | "failed";
  readonly tool_output?: unknown;
  readonly error?: unknown;
  readonly duration_ms?: number;
}

/** One question to the user. It is open while there is no `by`. */
export interface QuestionState {
  readonly request_id: string;
  readonly kind: "approval" | "question";
  readonly question?: string;
  readonly schema?: unknown;
  readonly tool_call_id?: string;
  readonly tool_name?: string;
  readonly tool_input?: unknown;
  /** In milliseconds since 1970. */
  readonly expires_at?: number;
  readonly suspends: boolean;
  readonly answer?: unknown;
  /** Who answered: the user, `expiry`, or `withdrawn`. */
  readonly by?: string;
}

/** Why a run failed. */
export interface RunFailure {
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
}

/** A run as its events through `last_seq` tell it. What was not told is not there. */
export interface RunState {
  readonly run_id: string;
  readonly user_id?: string;
  readonly thread_id?: string;
  readonly agent_name?: string;
  readonly parent_run_id?: string;
  readonly status: RunStatus;
  readonly task?: unknown;
  readonly continues_run_id?: string;
  /** What was said, each part of each message once, as they began. */
  readonly messages: readonly MessageState[];
  /** The tool calls as they began: the open ones and the last 100 that ended. */
  readonly tools: readonly ToolState[];
  /** How many ended calls are no longer listed. */
  readonly tools_dropped: number;
  /** What the user was asked: what is open, and the last 100 that were answered. */
  readonly questions: readonly QuestionState[];
  readonly thinking?: EventData["agent_thinking"];
  readonly progress?: EventData["progress_update"];
  readonly result?: unknown;
  readonly error?: RunFailure;
  readonly cancel_reason?: string;
  readonly usage?: unknown;
  /** Milliseconds since 1970. */
  readonly started_at?: number;
  readonly ended_at?: number;
  readonly first_seq: number;
  readonly last_seq: number;
  /** The runs of its sub-agents. */
  readonly children: readonly string[];
}

/** A piece of what a run shows, in the order in which it was told. */
export type Part =
  | { readonly type: "text" | "reasoning"; readonly message_id: string; readonly text: string }
  | {
      readonly type: "tool_input";
      readonly message_id: string;
      readonly tool_call_id?: string;
      readonly text: string;
    }
  | ({ readonly type: "thought" } & Readonly<EventData["agent_thinking"]>)
  | ({ readonly type: "tool" } & ToolState)
  | ({ readonly type: "question" } & QuestionState)
  | { readonly type: "run"; readonly run_id: string; readonly agent_name?: string };
