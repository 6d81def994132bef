import type { AbstractAgent } from "@ag-ui/client";

import type { Client } from "./client.js";
import { follow, type Follower } from "./follow.js";
import type { EventData } from "./types.js";

/**
 * Show in an agent what happens to its thread elsewhere: a question of another tab and its answer, an
 * approval that was given there, what was said and is at work when the page is loaded.
 *
 * `client` is connected to the native wire, as the same user. The agent begins without messages: it
 * joins once the client is live and gets what the log has of the thread, and again what it missed when
 * it comes back. Returns what ends it.
 */
export function followAgent(agent: AbstractAgent, client: Pick<Client, "on" | "state">): () => void {
  return follow(new AgentFollower(agent), client);
}

class AgentFollower implements Follower {
  readonly #agent: AbstractAgent;
  /** A run that breaks says so to whoever began it. */
  readonly isCut = false;

  constructor(agent: AbstractAgent) {
    this.#agent = agent;
  }

  get threadId(): string {
    return this.#agent.threadId;
  }

  get isReading(): boolean {
    return this.#agent.isRunning;
  }

  read(): Promise<unknown> {
    // Those that are left come again.
    this.#agent.pendingInterrupts = [];
    return this.#agent.connectAgent();
  }

  readAll(): Promise<unknown> {
    this.#agent.setMessages([]);
    return this.read();
  }

  asked({ client_message_id: id, content }: EventData["user_message"]): void {
    if (this.#agent.messages.some((message) => message.id === id)) return;
    const text = typeof content === "string" ? content : JSON.stringify(content);
    this.#agent.addMessage({ id, role: "user", content: text });
  }

  /** Who joins gets all messages in their order. */
  replied(): void {}

  erased(): void {
    this.#agent.setMessages([]);
  }
}
