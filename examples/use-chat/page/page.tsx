import { Chat, useChat } from "@ai-sdk/react";
import { lastAssistantMessageIsCompleteWithApprovalResponses, WebSocketChatTransport, type UIMessage } from "ai";
import { connect, type State } from "catenary-client";
import { chatFor, followChat, webSocket } from "catenary-client/ai";
import { StrictMode, useEffect, useState, type FormEvent, type ReactNode } from "react";
import { createRoot } from "react-dom/client";

/** Each `#name` in the address is a conversation of its own. */
const THREAD = location.hash.slice(1) || "tidy";

const transport = new WebSocketChatTransport<UIMessage>({
  url: "/live/ws/ai-sdk",
  webSocket: webSocket(),
  // Only the last message: the thread is with the graph.
  prepareSendMessagesRequest: ({ messages }) => ({ messages: messages.slice(-1) }),
});
const url = new URL("/live/ws", location.href.replace(/^http/, "ws")).href;
const client = connect({ url, after: "now" });

/** A chat outlives the components that show it: what an agent does is not over because nobody looks. */
function chatOf(id: string): Chat<UIMessage> {
  return chatFor(id, () => {
    const sendAutomaticallyWhen = lastAssistantMessageIsCompleteWithApprovalResponses;
    const chat = new Chat<UIMessage>({ id, transport, sendAutomaticallyWhen });
    followChat(chat, client, { load: async () => (await fetch(`/chats/${id}`)).json() });
    return chat;
  });
}

function useConnection(): State {
  const [state, setState] = useState(client.state);
  useEffect(() => client.on("state", setState), []);
  return state;
}

function Page(): ReactNode {
  const chat = useChat({ chat: chatOf(THREAD) });
  const connection = useConnection();
  const isRunning = chat.status === "submitted" || chat.status === "streaming";

  const send = (event: FormEvent<HTMLFormElement>): void => {
    event.preventDefault();
    const form = event.currentTarget;
    const text = new FormData(form).get("text")?.toString().trim();
    if (!text) return;
    void chat.sendMessage({ text });
    form.reset();
  };

  useEffect(() => {
    scrollTo(0, document.body.scrollHeight);
  }, [chat.messages]);
  return (
    <>
      <header>
        <h1>Tidy up</h1>
        <span id="connection" role="status">
          {connection}
        </span>
      </header>
      <main aria-live="polite">
        {chat.messages.map(({ id, role, parts }) => (
          <article key={id} className={role}>
            {parts.map((part, index) => (
              <Part key={index} part={part} answer={chat.addToolApprovalResponse} />
            ))}
          </article>
        ))}
        {chat.error && <p className="note">{chat.error.message}</p>}
      </main>
      <form onSubmit={send}>
        <input id="text" name="text" autoComplete="off" placeholder="tidy up, or ask anything" aria-label="Message" />
        <button id="send" disabled={isRunning}>
          Send
        </button>
        <button id="stop" type="button" hidden={!isRunning} onClick={() => void chat.stop()}>
          Stop
        </button>
      </form>
    </>
  );
}

interface PartProps {
  part: UIMessage["parts"][number];
  answer: (response: { id: string; approved: boolean }) => unknown;
}

function Part({ part, answer }: PartProps): ReactNode {
  if (part.type === "text") return <span>{part.text}</span>;
  if (part.type === "reasoning") return <p className="part reasoning">{part.text}</p>;
  if (part.type !== "dynamic-tool") return null;
  const call = `${part.toolName} ${JSON.stringify(part.input)}`;
  if (part.state === "approval-requested") {
    const { id } = part.approval;
    return (
      <p className="part question">
        {call}{" "}
        <button className="yes" onClick={() => answer({ id, approved: true })}>
          yes
        </button>
        <button className="no" onClick={() => answer({ id, approved: false })}>
          no
        </button>
      </p>
    );
  }
  const output = part.state === "output-available" ? ` → ${JSON.stringify(part.output)}` : "";
  return <p className="part tool">{call + output}</p>;
}

createRoot(document.body).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
