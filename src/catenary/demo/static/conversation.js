import { $, icon, make, setText } from "./dom.js";
import { RunView } from "./run-view.js";

const EXAMPLES = [
  "How does a reconnect resume, and what is a gap?",
  "How many guarantees are there and which one covers isolation?",
  "What is 30 connections × 64 KiB, and where does that limit come from?",
];

/** The conversation on the page: questions, runs, and questions that are still on their way. */
export class Conversation {
  #views = new Map();
  #pending = new Map();
  #isPinned = true;

  constructor({ story, onAsk }) {
    this.story = story;
    this.onAsk = onAsk;
    this.items = $("items");
    this.scroller = $("scroll");
    this.scroller.addEventListener("scroll", () => (this.#isPinned = this.#isAtEnd()), { passive: true });
    $("examples").append(...EXAMPLES.map((text) => this.#example(text)));
  }

  /** A question was asked, and is not in the log yet. */
  addPending(key, threadId, text) {
    this.#pending.set(key, { key, threadId, text, error: null });
    this.#isPinned = true;
  }

  failPending(key, message) {
    const pending = this.#pending.get(key);
    if (pending) pending.error = message;
  }

  /** Forget what is shown; it is built again from the story. */
  reset() {
    this.#views.clear();
    this.items.replaceChildren();
  }

  render(threadId, { isReady, isOnline }) {
    const items = this.story.threads.get(threadId)?.items ?? [];
    for (const item of items) this.#pending.delete(item.key);
    const pending = [...this.#pending.values()].filter((one) => one.threadId === threadId);
    const elements = [...items.map((item) => this.#show(item)), ...pending.map((one) => this.#showPending(one, isOnline))];
    this.#place(elements);
    $("empty").hidden = elements.length > 0 || !isReady;
    if (this.#isPinned && elements.length) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #place(elements) {
    elements.forEach((element, index) => {
      if (this.items.children[index] !== element) this.items.insertBefore(element, this.items.children[index] ?? null);
    });
    while (this.items.children.length > elements.length) this.items.lastElementChild.remove();
  }

  #show(item) {
    if (item.kind === "run") {
      const view = this.#view(item.key, () => new RunView(item, { onAskAgain: () => this.#askAgain(item) }));
      view.update();
      return view.element;
    }
    return this.#view(item.key, () => new QuestionView(item.text)).element;
  }

  #showPending({ key, text, threadId, error }, isOnline) {
    const view = this.#view(key, () => new QuestionView(text));
    const words = error ?? (isOnline ? "Sending" : "Waits for the connection");
    view.mark(words, error === null ? null : () => this.#sendAgain(key, threadId, text));
    return view.element;
  }

  #view(key, create) {
    const known = this.#views.get(key);
    if (known) {
      known.settle?.();
      return known;
    }
    const view = create();
    this.#views.set(key, view);
    return view;
  }

  #sendAgain(key, threadId, text) {
    this.#pending.delete(key);
    this.#views.delete(key);
    this.onAsk(text, threadId);
  }

  #askAgain(run) {
    const items = this.story.threads.get(run.threadId)?.items ?? [];
    const before = items.slice(0, items.indexOf(run)).findLast((item) => item.kind === "question");
    if (before) this.onAsk(before.text, run.threadId);
  }

  #example(text) {
    const button = make("button", { type: "button" }, make("span", { textContent: text }), icon("send"));
    button.addEventListener("click", () => this.onAsk(text));
    return make("li", {}, button);
  }

  #isAtEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < 80;
  }
}

class QuestionView {
  constructor(text) {
    this.status = make("span", { className: "sending" });
    this.element = make("div", { className: "question" }, make("p", { textContent: text }));
  }

  /** Say where a question is that the log does not have yet. */
  mark(words, retry) {
    if (!this.status.isConnected) this.element.append(this.status);
    this.element.dataset.status = retry ? "failed" : "sending";
    if (!retry || this.status.childElementCount) return setText(this.status, retry ? this.status.textContent : words);
    const again = make("button", { type: "button", className: "link", textContent: "Send again" });
    again.addEventListener("click", retry);
    this.status.replaceChildren(`${words} `, again);
  }

  settle() {
    this.status.remove();
    delete this.element.dataset.status;
  }
}
