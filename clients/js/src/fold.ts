import type { MessageState, Part, QuestionState, RunState } from "./run-state.js";
import { CatenaryError, type CatenaryEvent } from "./types.js";

export type {
  MessageState,
  Part,
  QuestionState,
  RunFailure,
  RunState,
  RunStatus,
  ToolState,
} from "./run-state.js";

/** How many ended tool calls, and answered questions, a state lists, so that a long run stays bounded. */
export const TOOLS_KEPT = 100;

type Said = Extract<Part, { text: string }>;
type Tool = Extract<Part, { type: "tool" }>;
type Question = Extract<Part, { type: "question" }>;
type Data = Readonly<Record<string, unknown>>;
type Writable<T> = { -readonly [K in keyof T]: T[K] };

/**
 * A run's state that grows by its events, as `protocol/cases/fold.json` says.
 *
 * Begin with nothing, or with a saved state. Give the events in the order of the log; those at or below
 * `lastSeq` are ignored, so giving them twice is harmless. The first event decides whose run it is.
 */
export class RunFold {
  #known: Writable<RunState> | null = null;
  #parts: Part[] = [];
  /** Inputs of tools as they were written, whose calls have begun: said, and shown no more. */
  readonly #hidden = new Set<Said>();
  #state: RunState | null = null;
  #shown: readonly Part[] | null = null;

  constructor(state?: RunState) {
    if (!state) return;
    this.#known = { ...state };
    const began = new Set(state.tools.map((tool) => tool.tool_call_id));
    for (const message of state.messages) {
      const said = saidPart(message);
      this.#parts.push(said);
      if (said.type === "tool_input" && began.has(said.tool_call_id ?? "")) this.#hidden.add(said);
    }
    this.#parts.push(
      ...state.tools.map((tool): Tool => ({ type: "tool", ...tool })),
      ...state.questions.map((question): Question => ({ type: "question", ...question })),
    );
  }

  /** The number of the last event folded; 0 before the first. */
  get lastSeq(): number {
    return this.#known?.last_seq ?? 0;
  }

  /** The state now, the same object until more is folded; `null` before the first event. */
  get state(): RunState | null {
    if (this.#known && !this.#state) {
      this.#state = {
        ...this.#known,
        messages: messagesOf(this.#parts),
        tools: this.#of("tool").map(({ type: _, ...tool }) => tool),
        questions: this.#of("question").map(({ type: _, ...question }) => question),
      };
    }
    return this.#state;
  }

  /** What it shows, in the order in which it was told; a saved state has lost the order. */
  get parts(): readonly Part[] {
    return (this.#shown ??= this.#parts.filter((part) => !this.#hidden.has(part as Said)));
  }

  /**
   * Take the next event of the run; of the runs of its sub-agents, their starts.
   *
   * Throws `usage` if the event belongs to another run, or is a merged delta of which a part was folded
   * before. The state is as it was.
   */
  apply(event: CatenaryEvent): void {
    const known = this.#known ?? begun(event);
    if (event.run_id !== known.run_id) this.#child(known, event);
    else if (event.seq > known.last_seq) this.#own(known, event);
    else return;
    this.#known = known;
    this.#state = this.#shown = null;
  }

  /** Go on after a gap, at the place where the events resume: numbers may begin anew there. */
  resumeAt(seq: number): void {
    if (this.#known) this.#known.last_seq = seq - 1;
    this.#state = null;
  }

  /** Take an answer that stands outside the run, because that has ended with its questions. */
  answered(data: Data): boolean {
    const asked = this.#of("question").find((part) => part.request_id === data["request_id"]);
    if (!asked || asked.by !== undefined) return false;
    this.#replace(asked, { ...asked, ...present({ answer: data["answer"], by: text(data["by"]) }) });
    this.#drop("question", (part) => part.by !== undefined);
    this.#state = this.#shown = null;
    return true;
  }

  #own(known: Writable<RunState>, event: CatenaryEvent): void {
    const { type, timestamp } = event;
    const data = event.data as Data;
    switch (type) {
      case "agent_started":
        Object.assign(known, present({ started_at: timestamp, agent_name: event.agent_name, task: data["task"] }));
        Object.assign(known, present({ continues_run_id: given(data["continues_run_id"]) }));
        break;
      case "agent_thinking":
        known.thinking = event.data;
        this.#parts.push({ type: "thought", ...event.data });
        break;
      case "progress_update":
        known.progress = event.data;
        break;
      case "agent_delta":
        this.#said(known, event);
        break;
      case "tool_executing":
        this.#toolBegan(data);
        break;
      case "tool_completed":
        this.#toolEnded(known, data);
        break;
      case "input_requested":
        this.#asked(data);
        break;
      case "input_resolved":
        this.answered(data);
        break;
      case "agent_completed":
      case "agent_error":
      case "agent_cancelled":
        Object.assign(known, { ended_at: timestamp }, endOf(type, data));
    }
    known.last_seq = event.seq;
  }

  #child(known: Writable<RunState>, event: CatenaryEvent): void {
    const { run_id: runId, parent_run_id: parent, agent_name: name } = event;
    if (runId === undefined || parent !== known.run_id) {
      throw new CatenaryError("usage", `an event of ${runId} in the fold of ${known.run_id}`);
    }
    if (event.type !== "agent_started" || known.children.includes(runId)) return;
    known.children = [...known.children, runId];
    this.#parts.push({ type: "run", run_id: runId, ...present({ agent_name: name }) });
  }

  #said(known: RunState, { seq, from_seq: first = seq, data }: CatenaryEvent & { type: "agent_delta" }): void {
    if (first <= known.last_seq) {
      throw new CatenaryError("usage", `a part of ${first}-${seq} was folded: all through ${known.last_seq}`);
    }
    const said = saidPart({
      message_id: text(data.message_id),
      part: text(data.part, "text"),
      text: text(data.delta),
      ...present({ tool_call_id: given(data.tool_call_id) }),
    });
    const last = this.#parts.at(-1);
    if (last && isSaid(last) && placeOf(last) === placeOf(said)) {
      this.#parts[this.#parts.length - 1] = { ...last, text: last.text + said.text };
    } else this.#parts.push(said);
  }

  #toolBegan(data: Data): void {
    const call = text(data["tool_call_id"]);
    const tool: Tool = {
      type: "tool",
      tool_call_id: call,
      tool_name: text(data["tool_name"]),
      ...present({ tool_input: data["tool_input"] }),
      status: "open",
    };
    const written = this.#of("tool_input").filter(
      (part) => part.tool_call_id === call && !this.#hidden.has(part),
    );
    const [first] = written;
    this.#parts.splice(first ? this.#parts.indexOf(first) : this.#parts.length, 0, tool);
    for (const part of written) this.#hidden.add(part);
  }

  #toolEnded(known: Writable<RunState>, data: Data): void {
    const call = text(data["tool_call_id"]);
    const began = this.#of("tool").find((part) => part.tool_call_id === call && part.status === "open");
    const { duration_ms: duration } = data;
    const ended: Tool = {
      type: "tool",
      tool_call_id: call,
      tool_name: text(data["tool_name"], began?.tool_name),
      ...present({ tool_input: began?.tool_input }),
      status: data["success"] ? "succeeded" : "failed",
      ...present({
        tool_output: data["tool_output"],
        error: data["error"],
        duration_ms: typeof duration === "number" ? duration : null,
      }),
    };
    if (began) this.#replace(began, ended);
    else this.#parts.push(ended);
    known.tools_dropped += this.#drop("tool", (part) => part.status !== "open");
  }

  #asked(data: Data): void {
    const id = text(data["request_id"]);
    const asked: Question = {
      type: "question",
      kind: "question",
      suspends: false,
      ...present(pick(data, ASKED)),
      request_id: id,
    };
    const former = this.#of("question").find((part) => part.request_id === id);
    if (former) this.#replace(former, asked);
    else this.#parts.push(asked);
  }

  #of<T extends Part["type"]>(type: T): Extract<Part, { type: T }>[] {
    return this.#parts.filter((part): part is Extract<Part, { type: T }> => part.type === type);
  }

  #replace(old: Part, by: Part): void {
    this.#parts[this.#parts.lastIndexOf(old)] = by;
  }

  /** Drop the oldest that are over, if there are too many; return how many went. */
  #drop<T extends "tool" | "question">(type: T, isOver: (part: Extract<Part, { type: T }>) => boolean): number {
    const dropped = new Set<Part>(this.#of(type).filter(isOver).slice(0, -TOOLS_KEPT));
    if (dropped.size) this.#parts = this.#parts.filter((part) => !dropped.has(part));
    return dropped.size;
  }
}

const ASKED = [
  "kind",
  "question",
  "schema",
  "tool_call_id",
  "tool_name",
  "tool_input",
  "expires_at",
  "suspends",
] satisfies (keyof QuestionState)[];

function begun(event: CatenaryEvent): Writable<RunState> {
  const { run_id: runId, seq, from_seq: first = seq } = event;
  if (runId === undefined) throw new CatenaryError("usage", `${event.type} at ${seq} belongs to no run`);
  return {
    run_id: runId,
    ...present(pick(event, ["user_id", "thread_id", "agent_name", "parent_run_id"])),
    status: "running",
    messages: [],
    tools: [],
    tools_dropped: 0,
    questions: [],
    first_seq: first,
    last_seq: 0,
    children: [],
  };
}

function saidPart({ message_id, part, tool_call_id, text }: MessageState): Said {
  return { type: part as Said["type"], message_id, ...present({ tool_call_id }), text } as Said;
}

function isSaid(part: Part): part is Said {
  return "text" in part;
}

/** Text of one place is one message of a state. */
function placeOf(part: Said): string {
  const call = "tool_call_id" in part ? part.tool_call_id : undefined;
  return `${part.type}\n${part.message_id}\n${call === undefined}\n${call}`;
}

function endOf(type: "agent_completed" | "agent_error" | "agent_cancelled", data: Data): Partial<RunState> {
  if (type === "agent_cancelled") {
    return { status: "cancelled", ...present({ cancel_reason: given(data["reason"]) }) };
  }
  if (type === "agent_completed") {
    const status = data["outcome"] === "suspended" ? "suspended" : "completed";
    return { status, ...present({ result: data["result"], usage: data["usage"] }) };
  }
  const [code, message] = [text(data["code"]), text(data["message"])];
  return { status: "failed", error: { code, message, retryable: !!data["retryable"] } };
}

function messagesOf(parts: readonly Part[]): MessageState[] {
  const messages = new Map<string, Writable<MessageState>>();
  for (const part of parts) {
    if (!isSaid(part)) continue;
    const place = placeOf(part);
    const { type, ...said } = part;
    const message = messages.get(place);
    if (message) message.text += part.text;
    else messages.set(place, { part: type, ...said });
  }
  return [...messages.values()];
}

function pick<T extends object>(from: T, names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(names.map((name) => [name, (from as Record<string, unknown>)[name]]));
}

/** What is there: `null` counts as absent. */
function present<T extends object>(fields: T): { [K in keyof T]?: NonNullable<T[K]> } {
  const there = Object.entries(fields).filter(([, value]) => value !== null && value !== undefined);
  return Object.fromEntries(there) as { [K in keyof T]?: NonNullable<T[K]> };
}

/** Producers in other languages may publish data of any shape. */
function given(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

function text(value: unknown, otherwise = ""): string {
  return given(value) ?? otherwise;
}
