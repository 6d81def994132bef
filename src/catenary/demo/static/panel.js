import { $, setText } from "./dom.js";
import { Line } from "./line.js";
import { Timeline } from "./timeline.js";

const number = (value) => value.toLocaleString("en");

/** The panel beside the conversation: the connection, the counters, and the events as they came. */
export class Panel {
  #timeline = new Timeline($("rows"));
  #line = new Line($("line"));
  #counts = [...$("counters").querySelectorAll("[data-count]")];
  #finalWords = null;
  #breaks = 0;
  #isUp = false;
  #failed = 0;

  constructor(ledger) {
    this.ledger = ledger;
  }

  event(event) {
    this.#timeline.event(event);
    this.#line.pulse(event.type === "agent_delta" ? "text" : "other");
  }

  connected({ after, replay }, reconnects) {
    this.#isUp = true;
    this.#failed = 0;
    const words = replay > 0 ? `, ${number(replay)} to catch up` : ", nothing missed";
    this.#timeline.mark(reconnects ? `resumed after ${after}${words}` : `connected after ${after}${words}`, "good");
  }

  /** A connection ended, or an attempt failed. */
  broke() {
    if (this.#isUp) {
      this.#breaks += 1;
      this.#timeline.mark("the connection broke", "bad");
    } else this.#failed += 1;
    this.#isUp = false;
  }

  mark(text) {
    this.#timeline.mark(text);
  }

  gap({ after, resumes_at: next, reason }, lost) {
    this.#timeline.mark(`gap: ${after} to ${next}, ${reason}${lost === null ? "" : `, ${number(lost)} lost`}`, "bad");
  }

  /** The server does not want this page back. */
  closedFor(words) {
    this.#finalWords = words;
  }

  draw(client, userId, slowUntil) {
    this.#timeline.flush();
    const slowFor = Math.ceil((slowUntil - performance.now()) / 1000);
    const isSlow = slowFor > 0;
    this.#drawState(client, isSlow ? slowFor : 0);
    this.#drawFacts(client, userId);
    this.#drawBadge();
    this.#drawCounts(client.stats);
    $("slow").disabled = client.state !== "live" || isSlow;
    setText($("slow").lastElementChild, isSlow ? `Slow for ${slowFor} s` : "Make me a slow reader");
    $("cut").disabled = client.state === "waiting" || client.state === "closed";
  }

  #drawState(client, slowFor) {
    const { state } = client;
    const shown = slowFor && state === "live" ? "slow" : state;
    $("pill").dataset.state = $("line-card").dataset.state = shown;
    setText($("pill-text"), shown === "waiting" ? `back in ${seconds(client.retryIn)}` : shown);
    setText($("sentence"), this.#sentence(client, shown, slowFor));
    $("now").hidden = state !== "waiting";
    this.#line.show(state === "live" || state === "replaying");
  }

  #sentence(client, shown, slowFor) {
    if (shown === "waiting") return `${this.#failed ? "Server away" : "The line is cut"}. Next attempt in ${seconds(client.retryIn)}.`;
    if (shown === "connecting") return this.#failed ? "Server away. Trying now." : "Connecting";
    if (shown === "replaying") return "Catching up";
    if (shown === "slow") return `Held back for ${slowFor} s; the log keeps your events`;
    if (shown === "closed") return this.#finalWords ?? "Closed";
    return "Live: events arrive as they happen";
  }

  #drawFacts({ position, latency }, userId) {
    const [epoch, seq] = position?.split(":") ?? ["–", "–"];
    setText($("f-position"), seq);
    setText($("f-epoch"), epoch);
    setText($("f-latency"), latency === null ? "–" : latency < 10 ? `${latency.toFixed(1)} ms` : `${Math.round(latency)} ms`);
    setText($("f-user"), userId ?? "–");
    $("f-user").title = userId ?? "";
  }

  #drawBadge() {
    const { missing, doubled, gaps, toldLost, covered, isWhole } = this.ledger;
    const level = !isWhole ? "bad" : gaps > 0 ? "told" : "good";
    $("badge").dataset.level = $("tab-badge").dataset.level = level;
    setText($("b-lost"), number(missing));
    setText($("b-doubled"), number(doubled));
    setText($("tab-badge"), `${number(missing)} lost`);
    const told = toldLost ? `${number(toldLost)} lost and told` : `${gaps} ${gaps === 1 ? "loss" : "losses"} told`;
    const whole = `${number(covered)} of ${number(covered + missing)} events, ${this.#breaks} ${this.#breaks === 1 ? "break" : "breaks"}`;
    setText($("b-note"), gaps ? `${whole}, ${told} by gap` : whole);
  }

  #drawCounts({ reconnects, replayed }) {
    const { received, last, merged, missing, doubled, gaps } = this.ledger;
    const values = { received, last: last ?? 0, replayed, merged, missing, doubled, reconnects, gaps };
    for (const element of this.#counts) setText(element, number(values[element.dataset.count]));
  }
}

function seconds(ms) {
  return Number.isFinite(ms) ? `${Math.ceil(ms / 1000)} s` : "a moment";
}
