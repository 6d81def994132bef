import { make } from "./dom.js";

/**
 * Show a text with a little Markdown in `container`: headings, lists, quotes, code, tables, emphasis.
 *
 * Blocks that have not changed since the last call keep their elements, so a streamed answer can be
 * selected while it grows. Text is set as text; links are shown as links for http and https only.
 */
export function showMarkdown(container, text) {
  const blocks = blocksOf(text);
  blocks.forEach((block, index) => {
    const source = block.lines.join("\n");
    const old = container.children[index];
    if (old?.source === source && old.dataset.kind === block.kind) return;
    const element = RENDER[block.kind](block.lines);
    element.source = source;
    element.dataset.kind = block.kind;
    if (old) old.replaceWith(element);
    else container.append(element);
  });
  while (container.children.length > blocks.length) container.lastElementChild.remove();
}

const STARTS = [
  ["code", /^\s*```/],
  ["heading", /^#{1,6}\s/],
  ["rule", /^\s*([-*_])(\s*\1){2,}\s*$/],
  ["quote", /^>/],
  ["table", /^\s*\|.*\|\s*$/],
  ["list", /^\s*([-*+]|\d+[.)])\s/],
];

function kindOf(line) {
  return STARTS.find(([, pattern]) => pattern.test(line))?.[0] ?? "paragraph";
}

function blocksOf(text) {
  const blocks = [];
  let open = null;
  for (const line of text.split("\n")) {
    if (open?.kind === "code" && !open.closed) {
      open.closed = kindOf(line) === "code";
      open.lines.push(line);
      continue;
    }
    if (!line.trim()) {
      open = null;
      continue;
    }
    const kind = kindOf(line);
    const goesOn = open && (open.kind === kind || (open.kind === "list" && /^\s/.test(line)));
    if (goesOn && kind !== "heading" && kind !== "code") open.lines.push(line);
    else blocks.push((open = { kind, lines: [line], closed: false }));
  }
  return joinLists(blocks);
}

/** Lists whose items are separated by blank lines are one list. */
function joinLists(blocks) {
  const joined = [];
  for (const block of blocks) {
    const last = joined.at(-1);
    const isSame = last?.kind === "list" && block.kind === "list" && isNumbered(last) === isNumbered(block);
    if (isSame) last.lines.push(...block.lines);
    else joined.push(block);
  }
  return joined;
}

const isNumbered = ({ lines }) => /^\s*\d/.test(lines[0]);

const RENDER = {
  paragraph: (lines) => make("p", {}, ...inline(lines.join("\n"))),
  heading: ([line]) => make(line.startsWith("# ") || line.startsWith("## ") ? "h3" : "h4", {}, ...inline(line.replace(/^#+\s+/, ""))),
  rule: () => make("hr"),
  quote: (lines) => make("blockquote", {}, ...inline(lines.map((line) => line.replace(/^>\s?/, "")).join("\n"))),
  code: (lines) => {
    const end = lines.length > 1 && /^\s*```\s*$/.test(lines.at(-1)) ? -1 : undefined;
    return make("pre", { tabIndex: 0 }, make("code", { textContent: lines.slice(1, end).join("\n") }));
  },
  table: (lines) => {
    const rows = lines.filter((line) => !/^[\s|:-]+$/.test(line)).map(cellsOf);
    const row = (tag) => (cells) => make("tr", {}, ...cells.map((cell) => make(tag, {}, ...inline(cell))));
    const [head = [], ...body] = rows;
    return make("div", { className: "table" }, make("table", {}, make("thead", {}, row("th")(head)), make("tbody", {}, ...body.map(row("td")))));
  },
  list: (lines) => {
    const items = [];
    for (const line of lines) {
      const match = /^(\s*)([-*+]|\d+[.)])\s+(.*)$/.exec(line);
      if (match) items.push({ depth: Math.floor(match[1].length / 2), text: match[3] });
      else if (items.length) items.at(-1).text += `\n${line.trim()}`;
    }
    return make(/^\s*\d/.test(lines[0]) ? "ol" : "ul", {}, ...items.map(listItem));
  },
};

function listItem({ depth, text }) {
  return make("li", { data: depth > 0 ? { depth: String(Math.min(depth, 3)) } : {} }, ...inline(text));
}

function cellsOf(line) {
  return line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
}

const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\(([^)\s]+)\)/g;

function inline(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > end) parts.push(text.slice(end, match.index));
    parts.push(inlineElement(match));
    end = match.index + match[0].length;
  }
  if (end < text.length) parts.push(text.slice(end));
  return parts;
}

function inlineElement([, code, strong, emphasis, label, target]) {
  if (code !== undefined) return make("code", { textContent: code });
  if (strong !== undefined) return make("strong", {}, ...inline(strong));
  if (emphasis !== undefined) return make("em", {}, ...inline(emphasis));
  if (!/^https?:\/\//.test(target)) return make("span", { textContent: label, title: target });
  return make("a", { textContent: label, href: target, target: "_blank", rel: "noopener noreferrer" });
}
