import { describe, expect, test } from "vitest";

import { RunFold, TOOLS_KEPT, type RunState } from "../src/fold.js";
import type { CatenaryEvent } from "../src/types.js";
import { caseFiles, type Step } from "./cases.js";
import { mulberry } from "./random.js";

interface FoldCase {
  name: string;
  holds: string;
  requires?: string[];
  steps: Step[];
}

/** The ways in which a case is run, which must make no difference. */
type Way = "plainly" | "with every event twice" | "saved and restored before every event";

/** An event of a case, with what the README says of absent fields. */
function eventOf(fields: Record<string, unknown>): CatenaryEvent {
  const { seq } = fields;
  const about = { user_id: "user_123", thread_id: "t1", run_id: "r1", agent_name: "researcher" };
  const event = { id: `k3:${seq}`, timestamp: 1000 + Number(seq), ...about, ...fields };
  return Object.fromEntries(Object.entries(event).filter(([, value]) => value !== null)) as never;
}

/** A state of a case, with the defaults that it leaves out. */
function whole(state: Record<string, unknown>): unknown {
  const each = (name: string, defaults: object) =>
    ((state[name] ?? []) as object[]).map((one) => ({ ...defaults, ...one }));
  return {
    status: "running",
    tools_dropped: 0,
    children: [],
    ...state,
    messages: each("messages", { part: "text", text: "" }),
    tools: each("tools", { status: "open" }),
    questions: each("questions", { kind: "question", suspends: false }),
    ...(state["error"] !== undefined && { error: { retryable: false, ...(state["error"] as object) } }),
  };
}

function wholePart(part: Record<string, unknown>): unknown {
  const defaults = { tool: { status: "open" }, question: { kind: "question", suspends: false } };
  return { ...defaults[part["type"] as "tool"], ...part };
}

function run(steps: Step[], way: Way): void {
  let fold = new RunFold();
  for (const step of steps) {
    if (step["fold"]) {
      const event = eventOf(step["fold"] as Record<string, unknown>);
      if (step["fails"]) {
        expect(() => fold.apply(event)).toThrow(expect.objectContaining({ code: "usage" }));
        continue;
      }
      if (way === "saved and restored before every event" && fold.state) {
        fold = new RunFold(JSON.parse(JSON.stringify(fold.state)) as RunState);
      }
      fold.apply(event);
      if (way === "with every event twice") fold.apply(event);
    } else if (step["expect_state"]) {
      expect(fold.state).toEqual(whole(step["expect_state"] as Record<string, unknown>));
    } else {
      expect(fold.parts).toEqual((step["expect_parts"] as Record<string, unknown>[]).map(wholePart));
    }
  }
}

describe.each(caseFiles<FoldCase>("fold"))("$file", ({ cases }) => {
  for (const story of cases) {
    test(`${story.name}: ${story.holds}`, () => {
      run(story.steps, "plainly");
      run(story.steps, "with every event twice");
      // A saved state has no order.
      if (!story.requires?.includes("order")) run(story.steps, "saved and restored before every event");
    });
  }
});

const folded = (events: CatenaryEvent[]) => {
  const fold = new RunFold();
  for (const event of events) fold.apply(event);
  return fold;
};

test("a state and its parts are the same objects until more is folded, and never change", () => {
  const fold = folded([eventOf({ seq: 1, type: "agent_delta", data: { message_id: "m1", delta: "a" } })]);
  const { state, parts } = fold;
  expect(fold.state).toBe(state);
  expect(fold.parts).toBe(parts);
  fold.apply(eventOf({ seq: 1, type: "agent_delta", data: { message_id: "m1", delta: "a" } }));
  expect(fold.state).toBe(state);
  fold.apply(eventOf({ seq: 2, type: "agent_delta", data: { message_id: "m1", delta: "b" } }));
  expect(fold.state).not.toBe(state);
  expect(state?.messages).toEqual([{ message_id: "m1", part: "text", text: "a" }]);
  expect(parts).toEqual([{ type: "text", message_id: "m1", text: "a" }]);
});

test("a part that nothing happened to stays the same object", () => {
  const fold = folded([
    eventOf({ seq: 1, type: "tool_executing", data: { tool_name: "search", tool_call_id: "c" } }),
    eventOf({ seq: 2, type: "agent_delta", data: { message_id: "m1", delta: "a" } }),
  ]);
  const [tool, text] = fold.parts;
  fold.apply(eventOf({ seq: 3, type: "agent_delta", data: { message_id: "m1", delta: "b" } }));
  expect(fold.parts[0]).toBe(tool);
  expect(fold.parts[1]).not.toBe(text);
});

test("ended tools and answered questions are bounded, and what is open stays", () => {
  const fold = folded([
    eventOf({ seq: 1, type: "tool_executing", data: { tool_name: "search", tool_call_id: "open" } }),
    eventOf({ seq: 2, type: "input_requested", data: { request_id: "open" } }),
  ]);
  let seq = 2;
  for (let n = 0; n < TOOLS_KEPT + 3; n++) {
    for (const type of ["tool_executing", "tool_completed"]) {
      fold.apply(eventOf({ seq: ++seq, type, data: { tool_name: "search", tool_call_id: `c${n}`, success: true } }));
    }
    for (const type of ["input_requested", "input_resolved"]) {
      fold.apply(eventOf({ seq: ++seq, type, data: { request_id: `q${n}`, by: "user_123" } }));
    }
  }
  const { tools, tools_dropped: dropped, questions } = fold.state as RunState;
  expect(tools.map((tool) => tool.tool_call_id).slice(0, 2)).toEqual(["open", "c3"]);
  expect(questions.map((question) => question.request_id).slice(0, 2)).toEqual(["open", "q3"]);
  expect([tools.length, questions.length, dropped]).toEqual([TOOLS_KEPT + 1, TOOLS_KEPT + 1, 3]);
});

test("an answer that stands outside the run goes to the question that ended it, once", () => {
  const fold = folded([eventOf({ seq: 1, type: "input_requested", data: { request_id: "q1", suspends: true } })]);
  expect(fold.answered({ request_id: "q9", answer: 1, by: "user_123" })).toBe(false);
  expect(fold.answered({ request_id: "q1", answer: 2, by: "user_123" })).toBe(true);
  expect(fold.answered({ request_id: "q1", answer: 3, by: "user_456" })).toBe(false);
  expect(fold.state?.questions).toMatchObject([{ request_id: "q1", answer: 2, by: "user_123" }]);
});

test("after a gap numbers may begin anew", () => {
  const fold = folded([eventOf({ seq: 9, type: "agent_delta", data: { message_id: "m1", delta: "a" } })]);
  fold.resumeAt(3);
  fold.apply(eventOf({ seq: 3, type: "agent_delta", data: { message_id: "m1", delta: "b" } }));
  expect(fold.state?.messages).toMatchObject([{ text: "ab" }]);
  expect(fold.lastSeq).toBe(3);
});

describe("however neighbouring deltas are merged", () => {
  const seed = 20261126;
  console.log(`seed ${seed}`);
  const random = mulberry(seed);
  const pick = <T>(from: T[]): T => from[Math.floor(random() * from.length)] as T;

  const history = (): CatenaryEvent[] =>
    Array.from({ length: 40 }, (_, index) => {
      const seq = index + 1;
      const kind = random();
      if (kind < 0.1) return eventOf({ seq, type: "progress_update", data: { percentage: seq } });
      if (kind < 0.2) return eventOf({ seq, type: "tool_executing", data: { tool_name: "t", tool_call_id: `c${seq}` } });
      const data = { message_id: pick(["m1", "m2"]), part: pick(["text", "reasoning"]), delta: pick(["a", "é", "\n", ""]) };
      return eventOf({ seq, type: "agent_delta", data });
    });

  /** Join neighbours of one message and part, where chance says so. */
  const merged = (events: CatenaryEvent[]): CatenaryEvent[] => {
    const done: CatenaryEvent[] = [];
    for (const event of events) {
      const last = done.at(-1);
      const isDelta = last?.type === "agent_delta" && event.type === "agent_delta";
      if (isDelta && last.data.message_id === event.data.message_id && last.data.part === event.data.part && random() < 0.7) {
        const delta = last.data.delta + event.data.delta;
        done[done.length - 1] = { ...event, from_seq: last.from_seq ?? last.seq, data: { ...event.data, delta } };
      } else done.push(event);
    }
    return done;
  };

  test("the state and its parts are the same", () => {
    for (let round = 0; round < 300; round++) {
      const events = history();
      const [one, other] = [folded(events), folded(merged(events))];
      expect(other.state).toEqual(one.state);
      expect(other.parts).toEqual(one.parts);
    }
  });
});
