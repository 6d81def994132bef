"""Markdown as sections, and sections as facts that can be quoted."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

_HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*\s*$")
_FENCE = re.compile(r"\s*(```|~~~)")
_ITEM = re.compile(r"\s*(?:[-*+]|\d{1,3}[.)])\s+(.*)")
_RULE = re.compile(r"\s*\|?\s*:?-+[\s:|-]*")
_CELL = re.compile(r"(?<!\\)\|")
_SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][\"”)*`]))\s+(?=[\"“(*`\[]*[A-Z0-9])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|No)|\s[A-Z])\.$")
_LEANING = re.compile(
    r"(?:it|its|this|that|these|those|they|their|he|she|so|then|there|such|both|otherwise)\b",
    re.IGNORECASE,
)
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """
    The text under one heading, without the sections below it.

    ``titles`` are the headings from the document's down to its own;
    lines are counted from 1.
    """

    path: str
    titles: tuple[str, ...]
    first_line: int
    last_line: int
    text: str

    @property
    def title(self) -> str:
        """Its own heading."""
        return self.titles[-1]


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """
    A sentence, a row of a table or a block of code.

    ``lean`` is the sentence before one that begins with a pronoun, or the one
    that announces code: quoted alone it would not be understood. Facts of one
    ``paragraph`` (or item, or table) stand together. One that points back at
    another paragraph is ``dangling``: it should not be quoted alone.
    """

    text: str
    paragraph: int
    lean: str = ""
    is_code: bool = False
    is_dangling: bool = False


def sections_of(path: str, text: str) -> list[Section]:
    """Return the sections of a Markdown file in order; empty ones are left out."""
    found: list[Section] = []
    titles: list[str] = [path.rpartition("/")[2].removesuffix(".md")]
    levels = [0]
    begin = 0
    lines = text.splitlines()
    marks = [*_headings(lines), (len(lines), 0, "")]
    for line, level, heading in marks:
        body = "\n".join(lines[begin:line]).strip()
        if body:
            found.append(
                Section(
                    path=path,
                    titles=tuple(titles),
                    first_line=begin + 1,
                    last_line=line,
                    text=body,
                )
            )
        while levels and level and levels[-1] >= level:
            levels.pop()
            titles.pop()
        if level == 1 and levels == [0]:
            levels, titles = [], []
        levels.append(level)
        titles.append(plain(heading))
        begin = line + 1
    return found


def _headings(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    is_code = False
    for number, line in enumerate(lines):
        if _FENCE.match(line):
            is_code = not is_code
        elif not is_code and (match := _HEADING.match(line)):
            yield number, len(match[1]), match[2]


def plain(text: str) -> str:
    """Return inline Markdown without links' targets and without bold marks."""
    return _LINK.sub(r"\1", text).replace("**", "").replace("__", "").strip()


def facts_of(text: str) -> list[Fact]:
    """Return what a section says, in order, ready to be quoted."""
    facts: list[Fact] = []
    at = -1
    for kind, lines in _blocks(_COMMENT.sub("", text).splitlines()):
        at += kind != "code"  # code belongs to the paragraph above it
        if kind == "code":
            lean = facts[-1].text if facts and facts[-1].text.endswith(":") else ""
            facts.append(Fact(text="\n".join(lines), paragraph=at, lean=lean, is_code=True))
        elif kind == "table":
            facts.extend(Fact(text=row, paragraph=at) for row in _rows(lines))
        else:
            said = plain(" ".join(line.strip() for line in lines))
            above = facts[-1].text if facts and not facts[-1].is_code else ""
            facts.extend(_sentence_facts(said, at, above))
    return facts


def entries_of(text: str) -> list[str]:
    """Return the first words of each entry of a section's longest table or list."""
    tables: list[list[str]] = [[]]
    items: list[str] = []
    for kind, lines in _blocks(text.splitlines()):
        if kind == "table":
            tables.append([_entry(row) for row in _table(lines)[1]])
        elif kind == "item":
            items.append(plain(lines[0]))
    return max([*tables, items], key=len)


def _entry(row: list[str]) -> str:
    """Return a row's first cell; behind a mere number or code how the second one begins."""
    name, more = row[0], "".join(row[1:2])
    lead = re.split(r"[.;,](?:\s|$)", more, maxsplit=1)[0]
    return f"{name} ({lead})" if len(name) <= 4 and lead else name


def _blocks(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the kind and the lines of each paragraph, list item, table and block of code."""
    kind, block = "", list[str]()
    for line in lines:
        now = _kind(line, kind)
        is_new = now != kind or (now == "item" and _ITEM.match(line) is not None)
        if block and (is_new or now == "fence"):
            yield kind, block
            block = []
        if now not in ("", "fence"):
            item = _ITEM.match(line) if now == "item" else None
            block.append(item[1] if item else line)
        kind = "code" if now == "fence" and kind != "code" else "" if now == "fence" else now
    if block:
        yield kind, block


def _kind(line: str, before: str) -> str:
    if _FENCE.match(line):
        return "fence"
    if before == "code":
        return "code"
    if line.lstrip().startswith("|"):
        return "table"
    if _ITEM.match(line):
        return "item"
    if not line.strip():
        return ""
    return "item" if before == "item" and line.startswith(" ") else "text"


def _table(lines: list[str]) -> tuple[list[str], list[list[str]]]:
    """Return the header's cells, if there is one, and those of the rows."""
    rows = [_cells(line) for line in lines if not _RULE.fullmatch(line)]
    has_header = len(lines) > 1 and not _RULE.fullmatch(lines[0]) and _RULE.fullmatch(lines[1])
    return (rows[0], rows[1:]) if has_header else ([], rows)


def _rows(lines: list[str]) -> Iterator[str]:
    header, rows = _table(lines)
    for row in rows:
        if len(row) < 3 or not header:
            yield ": ".join(cell for cell in row if cell)
            continue
        named = zip(header[1:], row[1:], strict=False)
        rest = [f"{name}: {cell}".removeprefix(": ").rstrip(".") for name, cell in named if cell]
        yield f"{row[0]}: {'; '.join(rest)}"


def _cells(line: str) -> list[str]:
    return [plain(cell.replace("\\|", "|")) for cell in _CELL.split(line.strip().strip("|"))]


def _sentence_facts(text: str, paragraph: int, above: str) -> Iterator[Fact]:
    """Yield the sentences of a paragraph; ``above`` is the last one of the paragraph before."""
    lean, is_dangling = above, True
    for sentence in _sentences(text):
        is_leaning = _LEANING.match(sentence) is not None
        is_dangling = is_leaning and is_dangling
        yield Fact(
            text=sentence,
            paragraph=paragraph,
            lean=lean if is_leaning else "",
            is_dangling=is_dangling,
        )
        lean = f"{lean} {sentence}".strip() if is_leaning else sentence


def _sentences(text: str) -> Iterator[str]:
    kept = ""
    for piece in _SENTENCE_END.split(text):
        kept = f"{kept} {piece}" if kept else piece
        # A lead such as "Gap." belongs to what follows it.
        if len(kept.split()) >= 3 and not _ABBREVIATION.search(kept):
            yield kept
            kept = ""
    if kept:
        yield kept
