export { followAgent } from "./follow-agent.js";

import { AbstractAgent, type AgentConfig, type BaseEvent, type RunAgentInput } from "@ag-ui/client";
import { Observable, type Subscriber } from "rxjs";

import { Line, type LineOptions, type LineOwner } from "./line.js";

/** Where the wire is, such as `wss://example.org/ws/ag-ui`, and how to connect to it. */
export type CatenaryAgentConfig = AgentConfig & LineOptions & { url: string };

/**
 * An AG-UI agent behind a Catenary server.
 *
 * A run that loses its connection goes on with the event that follows the last one; the page sees
 * nothing of it. `connectAgent` joins what is at work in the thread, also from another tab. An agent
 * that has no messages gets the whole thread by it, at work or not; for one that has some it does
 * nothing where nothing is at work. `abortRun` cancels what runs; `detachActiveRun` only stops to listen.
 */
export class CatenaryAgent extends AbstractAgent {
  readonly config: CatenaryAgentConfig;
  /** The streams that are open. No `#` here: the `clone` of the base class calls no constructor. */
  protected open = new Set<Stream>();

  constructor(config: CatenaryAgentConfig) {
    super(config);
    this.config = config;
  }

  run(input: RunAgentInput): Observable<BaseEvent> {
    return this.stream("", input);
  }

  protected override connect(input: RunAgentInput): Observable<BaseEvent> {
    return this.stream("/connect", input);
  }

  override abortRun(): void {
    for (const stream of this.open) stream.abort();
  }

  override clone(): CatenaryAgent {
    const copy = super.clone() as CatenaryAgent;
    return Object.assign(copy, { config: this.config, open: new Set() });
  }

  /** The events of an input that is sent to this path. */
  protected stream(path: string, input: RunAgentInput): Observable<BaseEvent> {
    return new Observable((subscriber) => {
      const stream = new Stream(this.config, path, input, subscriber);
      this.open.add(stream);
      return () => {
        this.open.delete(stream);
        stream.close();
      };
    });
  }
}

/** The events of one run, over as many connections as it takes. */
class Stream implements LineOwner {
  readonly protocols = ["catenary.v1"];
  readonly #url: string;
  readonly #input: RunAgentInput;
  readonly #subscriber: Subscriber<BaseEvent>;
  readonly #line: Line;
  /** The place of the last event. Those without one come in a group, which counts as a whole. */
  #place = "";
  #group: BaseEvent[] = [];
  #isDone = false;
  #isAborted = false;

  constructor(config: CatenaryAgentConfig, path: string, input: RunAgentInput, subscriber: Subscriber<BaseEvent>) {
    const url = new URL(config.url, globalThis.location?.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.pathname += path;
    this.#url = url.href;
    this.#input = input;
    this.#subscriber = subscriber;
    this.#line = new Line(config, this);
  }

  url(): string {
    const url = new URL(this.#url);
    url.searchParams.set("last_event_id", this.#place);
    return url.href;
  }

  opened(): void {
    this.#group = [];
    this.#line.send(JSON.stringify(this.#input));
    if (this.#isAborted) this.abort();
  }

  received(text: string): void {
    const { id, chunk, ...event } = JSON.parse(text) as BaseEvent & { id?: string; chunk?: BaseEvent };
    this.#group.push(chunk ?? event);
    // What stands by itself is a refusal.
    if (chunk && !id) return;
    this.#place = id ?? "";
    for (const one of this.#group.splice(0)) {
      this.#isDone ||= one.type === "RUN_FINISHED" || one.type === "RUN_ERROR";
      this.#subscriber.next(one);
    }
  }

  comesBack(code: number): boolean {
    return code !== 1000 && !this.#isDone;
  }

  closed(code: number, reason: string): void {
    if (code === 1000 || this.#isDone) this.#subscriber.complete();
    else this.#subscriber.error(new Error(`the connection was closed with ${code}: ${reason}`));
  }

  /** An abort counts when the run has ended; until then it is sent on every connection. */
  abort(): void {
    this.#isAborted = true;
    this.#line.send(JSON.stringify({ type: "abort", runId: this.#input.runId }));
  }

  close(): void {
    this.#line.close();
  }
}
