import { make } from "./dom.js";

const SHOWN = 500;
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const FAMILIES = [
  [/^agent_(started|completed)$/, "life"],
  [/^agent_(error|cancelled)$/, "bad"],
  [/^agent_delta$/, "text"],
  [/^tool_/, "tool"],
  [/^user_message$/, "user"],
];

/** The raw events as they came, newest first; only the last 500 are in the page. */
export class Timeline {
  #waiting = [];
  #encoder = new TextEncoder();

  constructor(rows) {
    this.rows = rows;
  }

  event(event) {
    this.#waiting.push(event);
    if (this.#waiting.length > 2 * SHOWN) this.#waiting.splice(0, SHOWN);
  }

  /** Something that is not an event, such as a break. */
  mark(text, level = "quiet") {
    this.#waiting.push({ text, level });
  }

  clear() {
    this.#waiting = [];
    this.rows.replaceChildren();
  }

  /** Put what has come into the page. Rows that would fall out again at once are never made. */
  flush() {
    if (!this.#waiting.length) return;
    const fresh = this.#waiting.splice(0).slice(-SHOWN);
    const wasAtTop = this.rows.scrollTop < 4;
    this.rows.prepend(...fresh.reverse().map((one) => ("seq" in one ? this.#row(one) : markRow(one))));
    while (this.rows.children.length > SHOWN) this.rows.lastElementChild.remove();
    if (wasAtTop) this.rows.scrollTop = 0;
  }

  #row(event) {
    const { seq, from_seq: first, type, run_id: runId = "", timestamp } = event;
    const bytes = this.#encoder.encode(JSON.stringify(event)).length;
    const cells = [
      make("span", { className: "seq", textContent: first === undefined ? seq : `${first}–${seq}` }),
      make("span", { className: "type", textContent: type }),
      make("span", { className: "id", textContent: shortId(runId), title: runId }),
      make("span", { className: "bytes", textContent: bytes.toLocaleString("en") }),
      make("span", { className: "at", textContent: CLOCK.format(timestamp) }),
    ];
    const row = make("details", { className: "row", data: { family: familyOf(type) } }, make("summary", {}, ...cells));
    row.addEventListener("toggle", () => showJson(row, event), { once: true });
    return row;
  }
}

function showJson(row, event) {
  row.append(make("pre", { tabIndex: 0, textContent: JSON.stringify(event, null, 2) }));
}

function markRow({ text, level }) {
  return make("p", { className: "mark-row", textContent: text, data: { level } });
}

/** Ids are long and alike at the start. */
function shortId(id) {
  return id.length > 8 ? `…${id.slice(-6)}` : id;
}

function familyOf(type) {
  return FAMILIES.find(([pattern]) => pattern.test(type))?.[1] ?? "other";
}
