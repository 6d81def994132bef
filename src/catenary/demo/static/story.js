/**
 * The events, folded into conversations.
 *
 * `apply` takes the events in order, and returns the conversation and the run that changed, if any.
 * Nothing here touches the page.
 */
export class Story {
  threads = new Map();
  runs = new Map();

  clear() {
    this.threads.clear();
    this.runs.clear();
  }

  thread(threadId) {
    if (!this.threads.has(threadId)) this.threads.set(threadId, { id: threadId, title: "", items: [] });
    return this.threads.get(threadId);
  }

  apply(event) {
    if (event.type === "user_message") return this.#question(event);
    if (event.type === "erased") {
      this.threads.delete(event.data.thread_id);
      return { threadId: event.data.thread_id, run: null };
    }
    if (event.run_id === undefined) return null;
    const run = this.#run(event);
    FOLDS[event.type]?.(run, event.data, event);
    const root = rootOf(run);
    root.version += 1;
    return { threadId: run.threadId, run: root };
  }

  #question({ thread_id: threadId = "", data, timestamp }) {
    const thread = this.thread(threadId);
    const text = textOf(data.content);
    thread.items.push({ kind: "question", key: data.client_message_id, text, at: timestamp });
    thread.title ||= text;
    return { threadId, run: null };
  }

  #run(event) {
    const known = this.runs.get(event.run_id);
    if (known) return known;
    const parent = this.runs.get(event.parent_run_id) ?? null;
    const threadId = event.thread_id ?? parent?.threadId ?? "";
    const run = {
      kind: "run",
      key: event.run_id,
      threadId,
      parent,
      agent: event.agent_name ?? "agent",
      task: "",
      status: "running",
      /** Rises with each change of this run or of one below it. */
      version: 0,
      steps: [],
      messages: new Map(),
      sources: [],
      error: null,
      progress: null,
      startedAt: event.timestamp,
      endedAt: null,
    };
    this.runs.set(run.key, run);
    if (parent) parent.steps.push({ kind: "child", run });
    else this.thread(threadId).items.push(run);
    return run;
  }
}

/** What a run has said so far. */
export function answerOf(run) {
  return [...run.messages.values()].join("\n\n");
}

const FOLDS = {
  agent_started(run, { task }) {
    run.task = task ?? "";
  },
  agent_thinking(run, { thinking, step, total_steps: total }) {
    run.steps.push({ kind: "thought", text: thinking, step, total });
  },
  agent_delta(run, { message_id: id, delta, part = "text" }) {
    if (part === "text") run.messages.set(id, (run.messages.get(id) ?? "") + delta);
    else if (part === "reasoning") think(run, id, delta);
  },
  tool_executing(run, { tool_name: name, tool_call_id: id, tool_input: input }) {
    run.steps.push({ kind: "tool", id, name, input, output: undefined, status: "running" });
  },
  tool_completed(run, { tool_call_id: id, success, tool_output: output, error, duration_ms: ms }) {
    const step = run.steps.find((one) => one.kind === "tool" && one.id === id);
    if (step) Object.assign(step, { status: success ? "done" : "failed", output: error ?? output, ms });
  },
  progress_update(run, data) {
    run.progress = data;
  },
  agent_completed(run, { result }, { timestamp }) {
    end(run, "done", timestamp);
    if (run.messages.size === 0 && typeof result?.answer === "string") run.messages.set("", result.answer);
    run.sources = Array.isArray(result?.sources) ? result.sources : [];
  },
  agent_error(run, data, { timestamp }) {
    end(run, data.code === "producer_lost" ? "lost" : "failed", timestamp);
    run.error = data;
  },
  agent_cancelled(run, _, { timestamp }) {
    end(run, "cancelled", timestamp);
  },
};

function end(run, status, at) {
  Object.assign(run, { status, endedAt: at, progress: null });
  for (const step of run.steps) if (step.status === "running") step.status = "failed";
}

function think(run, id, delta) {
  const last = run.steps.at(-1);
  if (last?.kind === "thought" && last.id === id) last.text += delta;
  else run.steps.push({ kind: "thought", id, text: delta });
}

function rootOf(run) {
  return run.parent ? rootOf(run.parent) : run;
}

function textOf(content) {
  return typeof content === "string" ? content : JSON.stringify(content);
}
