import type { AbstractAgent } from "@ag-ui/client";

import type { Client } from "./client.js";
import type { CatenaryEvent, State } from "./types.js";

/**
 * Show in an agent what happens to its thread elsewhere: a question of another tab and its answer, an
 * approval that was given there, what was said and is at work when the page is loaded.
 *
 * `client` is connected to the native wire, as the same user. The agent begins without messages: it
 * joins once the client is live and gets what the log has of the thread, and again what it missed when
 * it comes back. Returns what ends it.
 */
export function followAgent(agent: AbstractAgent, client: Pick<Client, "on" | "state">): () => void {
  const following = new Following(agent);
  const ends = [
    client.on("event", (event) => following.take(event)),
    client.on("gap", () => following.miss()),
    client.on("state", (state) => following.connection(state)),
  ];
  following.connection(client.state);
  return () => ends.forEach((end) => end());
}

class Following {
  readonly #agent: AbstractAgent;
  #isLive = false;
  /** Something was said that the agent has not shown. At first that is all. */
  #isBehind = true;
  #work: Promise<void> | null = null;

  constructor(agent: AbstractAgent) {
    this.#agent = agent;
  }

  connection(state: State): void {
    this.#isLive = state === "live";
    if (this.#isLive && this.#isBehind) this.#catchUp();
  }

  /** Events are lost. */
  miss(): void {
    this.#isBehind = true;
    if (this.#isLive) this.#catchUp();
  }

  take(event: CatenaryEvent): void {
    if (event.thread_id !== this.#agent.threadId || event.parent_run_id !== undefined) return;
    const begins = event.type === "agent_started" || event.type === "input_resolved";
    if (event.type === "user_message") this.#asked(event.data);
    if (!begins) return;
    if (!this.#isLive || this.#work) this.#isBehind = true;
    else if (!this.#agent.isRunning) this.#join();
  }

  /** Get the whole conversation anew. */
  #catchUp(): void {
    if (this.#agent.isRunning) return;
    this.#isBehind = false;
    this.#agent.setMessages([]);
    this.#join();
  }

  #join(): void {
    if (this.#work) return;
    // Those that are left come again.
    this.#agent.pendingInterrupts = [];
    this.#work = this.#agent.connectAgent().then(
      () => undefined,
      (error: unknown) => console.warn("what is at work could not be joined:", error),
    );
    void this.#work.then(() => {
      this.#work = null;
      if (this.#isLive && this.#isBehind) this.#catchUp();
    });
  }

  #asked({ client_message_id: id, content }: { client_message_id: string; content: unknown }): void {
    if (this.#agent.messages.some((message) => message.id === id)) return;
    const text = typeof content === "string" ? content : JSON.stringify(content);
    this.#agent.addMessage({ id, role: "user", content: text });
  }
}
