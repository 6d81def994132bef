import { describe, expect, test } from "vitest";

interface Numbered {
  id: string;
  seq: number;
  from_seq?: number;
}

interface Ledger {
  begin(position: string): void;
  event(event: Numbered): void;
  gap(gap: { after: string; resumes_at: string }): number | null;
  received: number;
  covered: number;
  missing: number;
  doubled: number;
  merged: number;
  gaps: number;
  toldLost: number;
  isWhole: boolean;
}

interface Run {
  status: string;
  version: number;
  steps: { kind: string; status?: string; run?: Run }[];
  messages: Map<string, string>;
  endedAt: number | null;
}

interface Story {
  apply(event: Record<string, unknown>): { threadId: string; run: Run | null } | null;
  threads: Map<string, { title: string; items: unknown[] }>;
  runs: Map<string, Run>;
}

const STATIC = new URL("../../../src/catenary/demo/static/", import.meta.url);
const { Ledger } = (await import(new URL("ledger.js", STATIC).href)) as { Ledger: new () => Ledger };
const { Story, answerOf } = (await import(new URL("story.js", STATIC).href)) as {
  Story: new () => Story;
  answerOf: (run: Run) => string;
};

const numbered = (epoch: string, seq: number, first?: number): Numbered => ({
  id: `${epoch}:${seq}`,
  seq,
  ...(first === undefined ? {} : { from_seq: first }),
});

describe("the ledger of the demo page", () => {
  function ledger(...events: Numbered[]): Ledger {
    const made = new Ledger();
    made.begin("k3:10");
    events.forEach((event) => made.event(event));
    return made;
  }

  test("a dense sequence is whole, merged ranges counted", () => {
    const made = ledger(numbered("k3", 11), numbered("k3", 15, 12), numbered("k3", 16));
    expect(made).toMatchObject({ received: 3, covered: 6, merged: 1, missing: 0, doubled: 0, isWhole: true });
  });

  test("a hole is counted by its size, also before the first event and before a merged range", () => {
    const made = ledger(numbered("k3", 12), numbered("k3", 18, 15));
    expect(made).toMatchObject({ missing: 3, covered: 5, isWhole: false });
  });

  test("a doubled event is counted, and each number of a merged range that was there before", () => {
    const made = ledger(numbered("k3", 11), numbered("k3", 11), numbered("k3", 12), numbered("k3", 14, 11));
    expect(made).toMatchObject({ doubled: 3, missing: 0, covered: 4, isWhole: false });
  });

  test("a gap is told and not missing; the sequence goes on at its end", () => {
    const made = ledger(numbered("k3", 11));
    expect(made.gap({ after: "k3:11", resumes_at: "k3:20" })).toBe(8);
    made.event(numbered("k3", 20));
    expect(made.gap({ after: "k3:20", resumes_at: "k9:1" })).toBeNull();
    made.event(numbered("k9", 1));
    expect(made).toMatchObject({ gaps: 2, toldLost: 8, missing: 0, doubled: 0, isWhole: true });
  });

  test("an epoch that changes without a gap is not whole", () => {
    expect(ledger(numbered("k9", 11)).isWhole).toBe(false);
  });

  test("a reconnect begins nothing anew", () => {
    const made = ledger(numbered("k3", 11));
    made.begin("k3:13");
    made.event(numbered("k3", 14));
    expect(made.missing).toBe(2);
  });
});

describe("the story of the demo page", () => {
  const at = { thread_id: "t1", timestamp: 1000 };
  const event = (type: string, runId: string, data: object, more: object = {}) => ({ type, run_id: runId, data, ...at, ...more });

  test("a question, a run with a tool and a sub-run, and an answer fold into one conversation", () => {
    const story = new Story();
    story.apply({ type: "user_message", data: { client_message_id: "a1", content: "Why?" }, ...at });
    story.apply(event("agent_started", "r1", { task: "Why?" }));
    story.apply(event("tool_executing", "r1", { tool_name: "search", tool_call_id: "x", tool_input: {} }));
    story.apply(event("tool_completed", "r1", { tool_call_id: "x", success: true, duration_ms: 3 }));
    story.apply(event("agent_started", "r2", { task: "part" }, { parent_run_id: "r1" }));
    story.apply(event("agent_delta", "r1", { message_id: "m", delta: "Be" }));
    story.apply(event("agent_delta", "r1", { message_id: "m", delta: "cause." }));
    story.apply(event("agent_completed", "r1", { outcome: "success", result: { answer: "other" } }, { timestamp: 4000 }));
    const run = story.runs.get("r1") as Run;
    expect(story.threads.get("t1")?.title).toBe("Why?");
    expect(story.threads.get("t1")?.items).toHaveLength(2);
    expect(run.steps.map(({ kind, status }) => status ?? kind)).toEqual(["done", "child"]);
    expect(answerOf(run)).toBe("Because.");
    expect(run).toMatchObject({ status: "done", endedAt: 4000 });
  });

  test("an answer that was not streamed is taken from the result", () => {
    const story = new Story();
    story.apply(event("agent_started", "r1", {}));
    story.apply(event("agent_completed", "r1", { outcome: "success", result: { answer: "Yes." } }));
    expect(answerOf(story.runs.get("r1") as Run)).toBe("Yes.");
  });

  test("a lost producer keeps what was said, and ends the open tools", () => {
    const story = new Story();
    story.apply(event("agent_started", "r1", {}));
    story.apply(event("agent_delta", "r1", { message_id: "m", delta: "So far" }));
    story.apply(event("tool_executing", "r1", { tool_name: "search", tool_call_id: "x", tool_input: {} }));
    story.apply(event("agent_error", "r1", { code: "producer_lost", message: "gone", retryable: true }));
    const run = story.runs.get("r1") as Run;
    expect(answerOf(run)).toBe("So far");
    expect(run.status).toBe("lost");
    expect(run.steps[0]?.status).toBe("failed");
  });

  test("an event of a sub-run changes the run above it", () => {
    const story = new Story();
    story.apply(event("agent_started", "r1", {}));
    story.apply(event("agent_started", "r2", {}, { parent_run_id: "r1" }));
    const before = story.runs.get("r1")?.version ?? 0;
    const change = story.apply(event("agent_delta", "r2", { message_id: "m", delta: "x" }));
    expect(change?.run).toBe(story.runs.get("r1"));
    expect(story.runs.get("r1")?.version).toBe(before + 1);
  });
});
