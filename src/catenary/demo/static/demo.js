import { connect } from "./catenary.js";
import { Conversation } from "./conversation.js";
import { $, make, setText } from "./dom.js";
import { Identity } from "./identity.js";
import { Ledger } from "./ledger.js";
import { Panel } from "./panel.js";
import { Story } from "./story.js";
import { setUpFrame, threadOfUrl, urlOfThread } from "./frame.js";

const PROBE_EVERY = 5000;
const CUT_FOR = 5000;
const SLOW_FOR = 10;

const identity = new Identity();
const story = new Story();
const ledger = new Ledger();
const panel = new Panel(ledger);
const conversation = new Conversation({ story, onAsk: ask });

let threadId = threadOfUrl() ?? freshThread();
let connectionId = null;
let slowUntil = 0;
let hasBeenLive = false;
let isDrawn = false;

// The page keeps no state, so it begins at the start of what is retained.
const client = connect({
  url: new URL("/ws", location.href.replace(/^http/, "ws")).href,
  token: () => identity.token(),
  after: "start",
});

client.on("event", (event) => {
  ledger.event(event);
  panel.event(event);
  const change = story.apply(event);
  if (change?.run) announceEnd(event);
  draw();
});

client.on("gap", (gap) => {
  const lost = ledger.gap(gap);
  story.clear();
  conversation.reset();
  panel.gap(gap, lost);
  showNotice(gap, lost);
  draw();
});

client.on("control", (message) => {
  if (message.type !== "connected") return;
  if (identity.knownAs !== null && identity.knownAs !== message.user_id) location.reload();
  identity.knownAs = message.user_id;
  connectionId = message.connection_id;
  slowUntil = 0;
  ledger.begin(message.after);
  panel.connected(message, client.stats.reconnects);
});

client.on("state", (state) => {
  if (state === "live") hasBeenLive = true;
  if (state === "waiting") panel.broke();
  const words = { live: "Connected", waiting: "Connection lost. Trying again.", closed: "Connection closed." }[state];
  if (words) announce(words);
  draw();
});

client.on("error", (error) => {
  if (error.closeCode !== undefined || error.code === "gap_unhandled") panel.closedFor(error.message);
});

function ask(text, inThread = threadId) {
  const key = crypto.getRandomValues(new Uint32Array(4)).join("-");
  conversation.addPending(key, inThread, text);
  client.send("user_message", { content: text }, { threadId: inThread, id: key }).catch((error) => {
    conversation.failPending(key, error.message);
    announce(`The question was not sent: ${error.message}`);
    draw();
  });
  draw();
}

function runningHere() {
  const items = story.threads.get(threadId)?.items ?? [];
  return items.findLast((item) => item.kind === "run" && item.status === "running") ?? null;
}

function stop() {
  const run = runningHere();
  if (!run) return;
  client.cancelRun(run.key, "the reader stopped it").catch((error) => announce(`It could not be stopped: ${error.message}`));
}

/** Draw at most once a frame, however many events come. A hidden tab draws when it is seen. */
function draw() {
  if (isDrawn) return;
  isDrawn = true;
  requestAnimationFrame(() => {
    isDrawn = false;
    conversation.render(threadId, { isReady: hasBeenLive || client.state === "live", isOnline: client.state === "live" });
    panel.draw(client, identity.userId, slowUntil);
    drawThreads();
    const run = runningHere();
    $("stop").hidden = run === null;
    $("halt").disabled = run === null;
  });
}

function drawThreads() {
  const picker = $("threads");
  const threads = [...story.threads.values()].filter((thread) => thread.items.length).reverse();
  picker.hidden = threads.length === 0;
  $("new").hidden = !threads.some(({ id }) => id === threadId);
  const wanted = threads.map(({ id, title }) => [id, title || "Untitled"]);
  if (!wanted.some(([id]) => id === threadId)) wanted.unshift([threadId, "New conversation"]);
  const key = JSON.stringify([wanted, threadId]);
  if (picker.dataset.key === key) return;
  picker.dataset.key = key;
  picker.replaceChildren(...wanted.map(([id, title]) => make("option", { value: id, textContent: title.slice(0, 80), selected: id === threadId })));
}

function openThread(id) {
  threadId = id;
  history.replaceState(null, "", urlOfThread(id));
  $("tab").href = location.href;
  conversation.reset();
  draw();
}

function freshThread() {
  return `thread-${crypto.getRandomValues(new Uint32Array(2)).join("-")}`;
}

function showNotice({ after, resumes_at: next, reason }, lost) {
  const what = lost === null ? `The events after ${after} are lost` : `${lost} events between ${after} and ${next} are lost`;
  const why = { retention: "they are no longer kept", epoch: "the log began a new term", future: "the log is behind where this page was" }[reason] ?? reason;
  const close = make("button", { type: "button", className: "link", textContent: "Understood" });
  close.addEventListener("click", () => ($("notice").hidden = true));
  $("notice").replaceChildren(make("strong", { textContent: `${what}: ${why}.` }), " The page was cleared and shows what came after. ", close);
  $("notice").hidden = false;
}

function announce(text) {
  setText($("announcer"), text);
}

function announceEnd({ type, parent_run_id: parent }) {
  if (parent !== undefined || client.state !== "live") return;
  const words = { agent_completed: "The answer is complete.", agent_error: "The answer broke off.", agent_cancelled: "The run was stopped." }[type];
  if (words) announce(words);
}

async function slowDown() {
  if (connectionId === null) return;
  try {
    await identity.slowDown(connectionId, SLOW_FOR);
    slowUntil = performance.now() + SLOW_FOR * 1000;
    panel.mark(`the server stops writing to this page for ${SLOW_FOR} s`);
  } catch (error) {
    announce(`That did not work: ${error.message}`);
  }
}

setUpFrame({ onQuestion: ask, onThread: openThread });
$("new").addEventListener("click", () => {
  openThread(freshThread());
  $("question").focus();
});
$("stop").addEventListener("click", stop);
$("halt").addEventListener("click", stop);
$("slow").addEventListener("click", slowDown);
$("cut").addEventListener("click", () => client.drop(CUT_FOR));
$("now").addEventListener("click", () => client.probe());
openThread(threadId);

// A page that is made slow on purpose must not take that for a dead connection.
setInterval(() => {
  if (client.state === "live" && !document.hidden && performance.now() > slowUntil) client.probe();
}, PROBE_EVERY);
// Countdowns move by themselves.
setInterval(() => panel.draw(client, identity.userId, slowUntil), 200);
