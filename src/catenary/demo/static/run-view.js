import { icon, make, setText } from "./dom.js";
import { showMarkdown } from "./markdown.js";
import { answerOf } from "./story.js";

const TOOL_ICONS = { search: "search", read_file: "file", count: "count", compute: "compute" };
const DOING = { search: "Searching", read_file: "Reading", count: "Counting", compute: "Computing" };
const STATUS = {
  running: "working",
  done: "done",
  failed: "failed",
  lost: "broke off",
  cancelled: "stopped",
};

/** One run and its sub-runs: what it thinks and does, what it says, and how it ended. */
export class RunView {
  #isTouched = false;
  #steps;
  #version = -1;

  constructor(run, { onAskAgain }) {
    this.run = run;
    this.summary = make("span", { className: "doing" });
    this.time = make("span", { className: "time" });
    this.list = make("ol", { className: "steps" });
    this.work = make("details", { className: "work", open: true }, make("summary", {}, icon("chevron"), this.summary, this.time), this.list);
    this.work.firstChild.addEventListener("click", () => (this.#isTouched = true));
    this.bar = make("progress", { className: "bar", max: 100, hidden: true, aria: { label: "Progress" } });
    this.answer = make("div", { className: "answer" });
    this.outcome = make("p", { className: "outcome", hidden: true });
    this.sources = make("ul", { className: "sources", hidden: true, aria: { label: "Sources" } });
    this.element = make("article", { className: "run", aria: { label: `Answer of ${run.agent}` } }, this.work, this.bar, this.answer, this.outcome, this.sources);
    this.onAskAgain = onAskAgain;
    this.#steps = new StepList(this.list);
  }

  update() {
    const { run } = this;
    if (run.version === this.#version) return;
    this.#version = run.version;
    const text = answerOf(run);
    this.element.dataset.status = run.status;
    this.#steps.update(run.steps);
    this.#updateWork(text);
    this.#updateProgress(run.progress);
    showMarkdown(this.answer, text);
    this.answer.ariaBusy = String(run.status === "running");
    this.answer.hidden = !text;
    this.#updateOutcome();
    this.#updateSources();
  }

  #updateWork(text) {
    const { run } = this;
    this.work.hidden = run.steps.length === 0 && run.status !== "running";
    setText(this.summary, run.status === "running" ? doingOf(run, text) : didOf(run));
    setText(this.time, run.endedAt === null ? "" : duration(run.endedAt - run.startedAt));
    if (!this.#isTouched) this.work.open = run.status === "running" && !text;
  }

  #updateProgress(progress) {
    const percentage = progress?.percentage;
    this.bar.hidden = typeof percentage !== "number";
    if (!this.bar.hidden) this.bar.value = percentage;
  }

  #updateOutcome() {
    const words = outcomeOf(this.run);
    this.outcome.hidden = words === null;
    if (words === null || this.outcome.childElementCount) return;
    const again = make("button", { type: "button", className: "link", textContent: "Ask again" });
    again.addEventListener("click", () => this.onAskAgain(this.run));
    const [title, text] = words;
    this.outcome.replaceChildren(make("strong", { textContent: title }), ` ${text} `, again);
  }

  #updateSources() {
    const { sources } = this.run;
    this.sources.hidden = sources.length === 0;
    if (this.sources.childElementCount === sources.length) return;
    this.sources.replaceChildren(...sources.map(sourceItem));
  }
}

/** The steps of a run; those that are there are updated in place. */
class StepList {
  #views = [];

  constructor(list) {
    this.list = list;
  }

  update(steps) {
    steps.forEach((step, index) => {
      this.#views[index] ??= this.#add(step);
      this.#views[index].update();
    });
  }

  #add(step) {
    const view = step.kind === "tool" ? new ToolView(step) : step.kind === "child" ? new ChildView(step.run) : new ThoughtView(step);
    this.list.append(view.element);
    return view;
  }
}

class ThoughtView {
  constructor(step) {
    this.step = step;
    this.text = make("p");
    this.element = make("li", { className: "step thought" }, icon("thought"), this.text);
  }

  update() {
    setText(this.text, this.step.text);
  }
}

class ToolView {
  constructor(step) {
    this.step = step;
    this.state = make("span", { className: "state" });
    this.output = make("pre", { tabIndex: 0 });
    const name = make("span", { className: "tool-name", textContent: step.name });
    const gist = make("span", { className: "gist", textContent: gistOf(step.input) });
    const input = make("pre", { tabIndex: 0, textContent: pretty(step.input) });
    const head = make("summary", {}, icon(TOOL_ICONS[step.name] ?? "tool"), name, gist, this.state);
    const body = make("div", { className: "io" }, make("h5", { textContent: "In" }), input, make("h5", { textContent: "Out" }), this.output);
    this.element = make("li", { className: "step tool" }, make("details", {}, head, body));
  }

  update() {
    const { status, output, ms } = this.step;
    this.element.dataset.status = status;
    setText(this.state, status === "running" ? "…" : status === "failed" ? "failed" : duration(ms ?? 0));
    setText(this.output, output === undefined ? "…" : pretty(output));
  }
}

class ChildView {
  constructor(run) {
    this.run = run;
    this.state = make("span", { className: "state" });
    this.list = make("ol", { className: "steps" });
    this.said = make("div", { className: "said answer" });
    const head = make("summary", {}, icon("branch"), make("span", { className: "tool-name", textContent: run.agent }), make("span", { className: "gist", textContent: run.task }), this.state);
    this.element = make("li", { className: "step child" }, make("details", { open: run.status === "running" }, head, this.list, this.said));
    this.steps = new StepList(this.list);
  }

  update() {
    const { run } = this;
    this.element.dataset.status = run.status;
    setText(this.state, run.status === "done" ? duration(run.endedAt - run.startedAt) : STATUS[run.status]);
    this.steps.update(run.steps);
    showMarkdown(this.said, answerOf(run));
  }
}

function sourceItem({ path, title }) {
  const file = title && path ? make("span", { className: "path", textContent: path }) : null;
  return make("li", { title: path ?? "" }, icon("file"), make("span", { textContent: title ?? path }), file);
}

function doingOf(run, text) {
  if (text) return "Answering";
  const step = run.steps.findLast((one) => one.status === "running" || one.run?.status === "running");
  if (step?.kind === "child") {
    const count = run.steps.filter((one) => one.run?.status === "running").length;
    return count > 1 ? `Looking into ${count} parts at once` : `Looking into: ${step.run.task}`;
  }
  if (step) return `${DOING[step.name] ?? `Using ${step.name}`} ${gistOf(step.input)}`.trim();
  return run.progress?.message ?? "Thinking";
}

function didOf(run) {
  const tools = countTools(run);
  const parts = run.steps.filter((step) => step.kind === "child").length;
  const words = [tools === 1 ? "1 tool call" : `${tools} tool calls`];
  if (parts > 0) words.push(parts === 1 ? "1 sub-agent" : `${parts} sub-agents`);
  return words.join(", ");
}

function countTools(run) {
  const counts = run.steps.map((step) => (step.kind === "child" ? countTools(step.run) : Number(step.kind === "tool")));
  return counts.reduce((sum, count) => sum + count, 0);
}

function outcomeOf({ status, error }) {
  if (status === "cancelled") return ["Stopped.", "What was said so far stays."];
  if (status === "lost") return ["The answer broke off.", "The process that was answering died. What it had said is kept."];
  if (status === "failed") return ["This did not work.", error?.message ?? ""];
  return null;
}

function gistOf(input) {
  if (input === null || typeof input !== "object") return input === undefined ? "" : String(input);
  const value = Object.values(input).find((one) => typeof one === "string" || typeof one === "number");
  return value === undefined ? "" : String(value);
}

function pretty(value) {
  return typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? "");
}

function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}
