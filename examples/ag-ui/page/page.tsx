import type { Message } from "@ag-ui/client";
import { connect, type State } from "catenary-client";
import { CatenaryAgent, followAgent } from "catenary-client/ag-ui";
import { StrictMode, useEffect, useReducer, useState, type FormEvent, type ReactNode } from "react";
import { createRoot } from "react-dom/client";

/** Each `#name` in the address is a conversation of its own. */
const THREAD = location.hash.slice(1) || "tidy";

// Both outlive the components: what an agent does is not over because nobody looks.
const agent = new CatenaryAgent({ url: "/live/ws/ag-ui", threadId: THREAD });
const url = new URL("/live/ws", location.href.replace(/^http/, "ws")).href;
const client = connect({ url, threadIds: [THREAD], after: "now" });
followAgent(agent, client);

/** What the agent has now; renders again when that changes. */
function useAgent(): CatenaryAgent {
  const [, render] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    const { unsubscribe } = agent.subscribe({
      onRunInitialized: render,
      onMessagesChanged: render,
      onRunFinalized: render,
    });
    return unsubscribe;
  }, []);
  return agent;
}

function useConnection(): State {
  const [state, setState] = useState(client.state);
  useEffect(() => client.on("state", setState), []);
  return state;
}

function Page(): ReactNode {
  const { messages, isRunning, pendingInterrupts } = useAgent();
  const [failure, setFailure] = useState("");
  const connection = useConnection();

  const run = (parameters?: Parameters<typeof agent.runAgent>[0]): void => {
    setFailure("");
    agent.runAgent(parameters).catch((error: Error) => setFailure(error.message));
  };
  const send = (event: FormEvent<HTMLFormElement>): void => {
    event.preventDefault();
    const form = event.currentTarget;
    const content = new FormData(form).get("text")?.toString().trim();
    if (!content) return;
    agent.addMessage({ id: crypto.randomUUID(), role: "user", content });
    run();
    form.reset();
  };
  const answer = (interruptId: string, approved: boolean): void => {
    run({ resume: [{ interruptId, status: "resolved", payload: { approved } }] });
  };

  useEffect(() => {
    scrollTo(0, document.body.scrollHeight);
  }, [messages, pendingInterrupts]);
  return (
    <>
      <header>
        <h1>Tidy up</h1>
        <span id="connection" role="status">
          {connection}
        </span>
      </header>
      <main aria-live="polite">
        {turnsOf(messages).map(({ role, id, parts }) => (
          <article key={id} className={role}>
            {parts.map((message) => (
              <Part key={message.id} message={message} />
            ))}
          </article>
        ))}
        {pendingInterrupts.map(({ id, message }) => (
          <p key={id} className="part question">
            {message ?? "May the agent do this?"}{" "}
            <button className="yes" onClick={() => answer(id, true)}>
              yes
            </button>
            <button className="no" onClick={() => answer(id, false)}>
              no
            </button>
          </p>
        ))}
        {failure && <p className="note">{failure}</p>}
      </main>
      <form onSubmit={send}>
        <input id="text" name="text" autoComplete="off" placeholder="tidy up, or ask anything" aria-label="Message" />
        <button id="send" disabled={isRunning || pendingInterrupts.length > 0}>
          Send
        </button>
        <button id="stop" type="button" hidden={!isRunning} onClick={() => agent.abortRun()}>
          Stop
        </button>
      </form>
    </>
  );
}

interface Turn {
  role: "user" | "assistant";
  id: string;
  parts: Message[];
}

/** What the user said is one article, and all that an agent said and did until the next one. */
function turnsOf(messages: readonly Message[]): Turn[] {
  const turns: Turn[] = [];
  for (const message of messages) {
    const role = message.role === "user" ? "user" : "assistant";
    const last = turns.at(-1);
    if (role !== "assistant" || last?.role !== role) turns.push({ role, id: message.id, parts: [message] });
    // A call that waited for its approval ends twice.
    else last.parts = [...last.parts.filter((part) => !isSameCall(part, message)), message];
  }
  return turns;
}

function isSameCall(one: Message, other: Message): boolean {
  return one.role === "tool" && other.role === "tool" && one.toolCallId === other.toolCallId;
}

function Part({ message }: { message: Message }): ReactNode {
  if (message.role === "tool") return <p className="part tool">→ {String(message.content)}</p>;
  const calls = message.role === "assistant" ? (message.toolCalls ?? []) : [];
  return (
    <>
      {typeof message.content === "string" && <span className={`part ${message.role}-text`}>{message.content}</span>}
      {calls.map(({ id, function: { name, arguments: given } }) => (
        <p key={id} className="part tool">
          {name} {given}
        </p>
      ))}
    </>
  );
}

createRoot(document.body).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
