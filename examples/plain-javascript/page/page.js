import { tabOutbox, Threads } from "/client/catenary-threads.js";

/** Each `#name` in the address is a conversation of its own. */
const THREAD = location.hash.slice(1) || "tidy";
const $ = (id) => document.getElementById(id);

const threads = new Threads({
  url: new URL("/live/ws", location.href.replace(/^http/, "ws")).href,
  // What is sent without a connection outlives a refresh. Name it by the user.
  outbox: tabOutbox("outbox:user_123"),
});
threads.subscribe(THREAD, render);
render();

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  // A message that is refused is shown as failed, so there is nothing to catch.
  threads.send(THREAD, text).catch(() => undefined);
  $("text").value = "";
});
$("stop").addEventListener("click", () => threads.stop(THREAD));

/** Show the conversation as it is now. Called at most 60 times a second. */
function render() {
  const { messages, status, connection } = threads.get(THREAD);
  document.body.dataset.status = status;
  $("connection").textContent = connection;
  $("connection").dataset.state = connection;
  $("stop").hidden = status !== "running";
  update($("messages"), messages.map(show));
}

function show({ role, id, parts, text, status, error }) {
  const is = { className: role, id: `message-${id}`, "data-status": status };
  if (role === "user") return element("article", is, text, status === "sending" && note("not sent yet"));
  const why = status === "failed" || status === "cancelled" ? note(error?.message ?? status) : null;
  return element("article", is, ...parts.map(part), why);
}

function part(part) {
  const is = { className: `part ${part.type}` };
  if (part.type === "text") return element("span", is, part.text);
  if (part.type === "thought") return element("p", { className: "part reasoning" }, part.thinking);
  if (part.type === "tool") {
    const output = part.status === "open" ? "…" : JSON.stringify(part.tool_output ?? part.error);
    return element("p", is, `${part.tool_name}: ${output}`);
  }
  if (part.type === "question") return question(part);
  return null;
}

function question({ request_id: id, question, by, answer }) {
  if (by !== undefined) return element("p", { className: "part question" }, `${question} ${answer ? "Yes." : "No."}`);
  const button = (name, answer) => {
    const made = element("button", { className: name }, name);
    made.onclick = () => threads.answer(id, answer);
    return made;
  };
  return element("p", { className: "part question" }, `${question} `, button("yes", true), button("no", false));
}

const note = (text) => element("span", { className: "note" }, ` ${text}`);

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key === "className" ? "class" : key, value);
  made.append(...children.filter(Boolean));
  return made;
}

/** Replace the children that are not the same as before, and leave alone those that are. */
function update(parent, children) {
  const isAtEnd = innerHeight + scrollY >= document.body.scrollHeight - 40;
  children.forEach((child, index) => {
    const there = parent.children[index];
    if (!there) parent.append(child);
    else if (!there.isEqualNode(child)) there.replaceWith(child);
  });
  while (parent.children.length > children.length) parent.lastChild.remove();
  if (isAtEnd) scrollTo(0, document.body.scrollHeight);
}
