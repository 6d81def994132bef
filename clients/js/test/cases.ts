import { readdirSync, readFileSync } from "node:fs";
import { expect } from "vitest";

import type { Effect } from "../src/effects.js";
import { Session } from "../src/session.js";
import type { After, Command } from "../src/types.js";

/** One step of a case: a word for what happens or must be so, and its value. */
export type Step = Record<string, unknown>;

/** A case of `protocol/cases`, whose README says what the words mean. */
export interface Case {
  name: string;
  holds: string;
  requires?: string[];
  initial: { after: After | null; thread_ids?: string[] };
  steps: Step[];
}

const FOLDER = new URL("../../../protocol/cases/", import.meta.url);

/** The files of cases of one kind, by name: those of the session, or of the fold. */
export function caseFiles<T extends { steps: Step[] } = Case>(kind: "session" | "fold"): { file: string; cases: T[] }[] {
  const names = readdirSync(FOLDER).filter((name) => name.endsWith(".json"));
  const wanted = names.filter((name) => name.startsWith("fold") === (kind === "fold"));
  return wanted.map((name) => {
    const { cases } = JSON.parse(readFileSync(new URL(name, FOLDER), "utf8")) as { cases: T[] };
    return { file: name.replace(".json", ""), cases };
  });
}

type Queue = "connect" | "delivered" | "send" | "reported" | "outcomes" | "errors" | "disconnect" | "closed";

/** Runs the steps of one case against a session. */
export class Runner {
  readonly #session: Session;
  #now = 0;
  #waitFrom = 0;
  readonly #queues: Record<Queue, unknown[]> = {
    connect: [],
    delivered: [],
    send: [],
    reported: [],
    outcomes: [],
    errors: [],
    disconnect: [],
    closed: [],
  };
  readonly #draw: number;

  constructor({ after, thread_ids: threadIds = [] }: Case["initial"], draw: number) {
    this.#draw = draw;
    this.#session = new Session(after, threadIds, undefined, () => draw);
    this.#do(() => this.#session.start(0));
  }

  run(steps: Step[]): void {
    if (!steps[0] || !("expect_connect" in steps[0])) this.#queues.connect = [];
    for (const step of steps) {
      for (const [word, value] of Object.entries(step)) {
        if (word !== "fails") this.#step(word, value, step["fails"] === true);
      }
    }
    this.#queues.reported = [];
    for (const [name, left] of Object.entries(this.#queues)) expect(left, `unexpected ${name}`).toEqual([]);
  }

  #step(word: string, value: unknown, fails: boolean): void {
    const action = this.#actions[word];
    if (!action) this.#expect(word, value);
    else if (fails) expect(() => action(value), word).toThrow(/./);
    else this.#do(() => action(value));
  }

  readonly #actions = {
    receive: (message: unknown) => this.#session.receive(JSON.stringify(message), this.#now),
    receive_text: (text: string) => this.#session.receive(text, this.#now),
    close: (code: number) => this.#session.closed(code, this.#now),
    advance: (seconds: number) => this.#session.tick((this.#now += seconds)),
    handled: (count: number) => {
      for (let left = count; left > 0; left--) this.#session.handled(this.#now);
    },
    acknowledge_gap: () => this.#session.acknowledgeGap(this.#now),
    command: (message: Command) => this.#session.command(message),
    authenticate: (token: string) => this.#session.authenticate(token),
    probe: () => this.#session.probe(this.#now),
    stop: () => this.#session.stop(),
  } as Record<string, (value: unknown) => void>;

  #do(action: () => void): void {
    const before = this.#session.resumeAt;
    action();
    if (this.#session.resumeAt !== before) this.#waitFrom = this.#now;
    for (const effect of this.#session.effects()) this.#keep(effect);
  }

  #keep(effect: Effect): void {
    const queues = this.#queues;
    switch (effect.kind) {
      case "connect":
        queues.connect.push({ after: effect.after, thread_ids: effect.threadIds });
        break;
      case "disconnect":
        queues.disconnect.push(effect.reason);
        break;
      case "send": {
        const message = JSON.parse(effect.text) as Record<string, unknown>;
        if (message["type"] === "position") queues.reported.push(message["position"]);
        else queues.send.push(message);
        break;
      }
      case "deliver":
        queues.delivered.push(effect.item);
        break;
      case "outcome": {
        const { id, ack, error } = effect;
        queues.outcomes.push(ack ? { ...ack, id, reply: ack["reply"] ?? null } : { id, error: error.code });
        break;
      }
      case "error":
        if (effect.error.closeCode !== undefined) queues.closed.push(effect.error.closeCode);
        else queues.errors.push({ code: effect.error.code });
        break;
      case "control":
        break;
    }
  }

  #expect(word: string, value: unknown): void {
    switch (word) {
      case "expect_state":
        return expect(this.#session.state).toBe(value);
      case "expect_position":
        return expect(this.#session.position).toBe(value);
      case "expect_wait": {
        const { min, max } = value as { min: number; max: number };
        const wait = this.#session.resumeAt - this.#waitFrom;
        return expect(wait).toBeCloseTo(min + this.#draw * (max - min), 6);
      }
      default:
        return this.#expectQueue(word.replace("expect_", "") as Queue, value);
    }
  }

  #expectQueue(name: Queue, value: unknown): void {
    const came = this.#queues[name];
    expect(came, `no such word: ${name}`).toBeDefined();
    this.#queues[name] = [];
    const wanted = Array.isArray(value) ? value : [value];
    expect(came, name).toHaveLength(wanted.length);
    wanted.forEach((entry: unknown, index) => {
      if (entry !== null && typeof entry === "object") expect(came[index], name).toMatchObject(entry);
      else expect(came[index], name).toEqual(entry);
    });
  }
}
