import { RunFold } from "./fold.js";
import type { Part, QuestionState, RunFailure, RunState, RunStatus } from "./run-state.js";
import type { CatenaryError, CatenaryEvent, Gap } from "./types.js";

/** What the user said. */
export interface UserMessage {
  readonly role: "user";
  /** The id under which it was sent. */
  readonly id: string;
  readonly content: unknown;
  /** The content, if that is text. */
  readonly text: string;
  /** `sending` until the server has it; `failed` if it was refused, and `error` says why. */
  readonly status: "sending" | "sent" | "failed";
  readonly error?: CatenaryError;
}

/** What an agent said and did: one run, with those that continue it. */
export interface AgentMessage {
  readonly role: "assistant";
  /** The id of the run, or of the first one. */
  readonly id: string;
  /** The run that is at work, or was the last. */
  readonly run_id: string;
  readonly agent_name?: string;
  readonly status: RunStatus;
  readonly parts: readonly Part[];
  /** The text of all parts. */
  readonly text: string;
  readonly error?: RunFailure;
}

/** What a conversation shows. */
export type Message = UserMessage | AgentMessage;

/** One conversation as its events tell it, and what was sent and is not an event yet. */
export class ThreadFold {
  readonly #items: (UserMessage | Turn)[] = [];
  readonly #runs = new Map<string, RunFold>();
  readonly #turns = new Map<string, Turn>();
  readonly #local = new Map<string, UserMessage>();
  /** The last gap since this conversation began: what it shows may lack something. */
  gap: Gap | null = null;

  get messages(): Message[] {
    const told = this.#items.map((item) => (item instanceof Turn ? item.message : item));
    return [...told, ...this.#local.values()];
  }

  /** All runs, also those of sub-agents, as they began. */
  get runs(): RunState[] {
    return [...this.#runs.values()].flatMap((run) => run.state ?? []);
  }

  /** What waits for the user. */
  get questions(): QuestionState[] {
    const waits = this.runs.filter(({ status }) => status === "running" || status === "suspended");
    return waits.flatMap((run) => run.questions.filter((asked) => asked.by === undefined));
  }

  /** The runs that a stop has to end; their sub-runs end with them. */
  get openRuns(): string[] {
    const open = this.runs.filter((run) => run.status === "running" && run.parent_run_id === undefined);
    return open.map((run) => run.run_id);
  }

  get isSending(): boolean {
    return [...this.#local.values()].some(({ status }) => status === "sending");
  }

  /** Take the next event of the thread. */
  apply(event: CatenaryEvent): void {
    if (event.type === "erased") this.#erase();
    else if (event.type === "user_message") this.#asked(event.data);
    else if (event.run_id !== undefined) this.#told(event, event.run_id);
    else if (event.type === "input_resolved") this.#answered(event.data);
  }

  /** Events are lost. What was told stays. */
  passGap(gap: Gap): void {
    const seq = Number(gap.resumes_at.split(":")[1]);
    for (const run of this.#runs.values()) run.resumeAt(seq);
    if (this.#items.length) this.gap = gap;
  }

  /** A message is on its way. Those that were refused before go. */
  sending(id: string, content: unknown): void {
    for (const { id: other, status } of this.#local.values()) {
      if (status === "failed") this.#local.delete(other);
    }
    this.#local.set(id, userMessage(id, content, "sending"));
  }

  /** The server has it; its event may still be on the way. */
  sent(id: string): void {
    const message = this.#local.get(id);
    if (message) this.#local.set(id, { ...message, status: "sent" });
  }

  failed(id: string, error: CatenaryError): void {
    const message = this.#local.get(id);
    if (message) this.#local.set(id, { ...message, status: "failed", error });
  }

  #erase(): void {
    this.#items.length = 0;
    this.#runs.clear();
    this.#turns.clear();
    this.gap = null;
  }

  #asked({ content, client_message_id: id }: { content: unknown; client_message_id: string }): void {
    this.#local.delete(id);
    this.#items.push(userMessage(id, content, "sent"));
  }

  #told(event: CatenaryEvent, runId: string): void {
    let run = this.#runs.get(runId);
    if (!run) {
      run = new RunFold();
      this.#runs.set(runId, run);
      if (event.parent_run_id === undefined) this.#turn(event, runId).runs.push(run);
    }
    run.apply(event);
    if (event.type === "agent_started" && event.parent_run_id !== undefined) {
      this.#runs.get(event.parent_run_id)?.apply(event);
    }
  }

  /** The turn that a run belongs to: that of the run it continues, or a new one. */
  #turn(event: CatenaryEvent, runId: string): Turn {
    const continued = event.type === "agent_started" ? event.data.continues_run_id : undefined;
    let turn = this.#turns.get(continued ?? "");
    if (!turn) this.#items.push((turn = new Turn(runId)));
    this.#turns.set(runId, turn);
    return turn;
  }

  /** The answer to what a run asked that has ended since. */
  #answered(data: Readonly<Record<string, unknown>>): void {
    for (const run of this.#runs.values()) if (run.answered(data)) return;
  }
}

/** A run and those that continue it. */
class Turn {
  readonly id: string;
  readonly runs: RunFold[] = [];
  #states: (RunState | null)[] = [];
  #message: AgentMessage | null = null;

  constructor(id: string) {
    this.id = id;
  }

  /** The same object until something is told. */
  get message(): AgentMessage {
    const states = this.runs.map((run) => run.state);
    if (!this.#message || states.some((state, index) => state !== this.#states[index])) {
      this.#states = states;
      this.#message = this.#shown(states.at(-1) as RunState);
    }
    return this.#message;
  }

  #shown({ run_id, agent_name, status, error }: RunState): AgentMessage {
    const parts = this.runs.flatMap((run) => run.parts);
    const text = parts.map((part) => (part.type === "text" ? part.text : "")).join("");
    const name = agent_name === undefined ? {} : { agent_name };
    const why = error === undefined ? {} : { error };
    return { role: "assistant", id: this.id, run_id, ...name, status, parts, text, ...why };
  }
}

function userMessage(id: string, content: unknown, status: UserMessage["status"]): UserMessage {
  return { role: "user", id, content, text: typeof content === "string" ? content : "", status };
}
