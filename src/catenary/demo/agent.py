"""
The demo's agent: it answers questions from this project's documents.

It has no model and no network. It takes a question apart, gives each part to
a sub-agent, decides by the part's shape which tools to use, and composes an
answer of quotes with their sources. It says so when it found nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

import msgspec

from catenary.demo.arithmetic import Computation, compute
from catenary.demo.library import Library, Tally
from catenary.demo.markdown import Section
from catenary.demo.question import Kind, Part, parts_of
from catenary.demo.quoting import choose, quoted
from catenary.demo.words import terms
from catenary.runs import Run

_HITS = 6
_SECTIONS_READ = 3
_WORD = re.compile(r"\s*\S+\s*")
_HELP = (
    "Ask me something about Catenary, for example: How does a reconnect resume, and what is a gap?"
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one part of the question came to: the text, and the sections that it rests on."""

    text: str
    sources: tuple[Section, ...] = ()


async def answer(run: Run, question: str, library: Library, *, pace: float = 0.02) -> None:
    """
    Answer a question in ``run``: think, use tools, stream the answer, set the result.

    ``pace`` is the pause after each word, in seconds. The result is
    ``{"answer", "sources": [{"path", "title"}]}``.
    """
    parts = parts_of(question)
    if not parts:
        run.thinking("There is no question in this; I say what can be asked.")
        findings = [Finding(text=_HELP)]
    elif len(parts) == 1:
        findings = [await Investigation(run, parts[0], library, pace).run()]
    else:
        findings = await _delegate(run, parts, library, pace)
    text = _composed(parts, findings)
    await _say(run, text, pace)
    sources = dict.fromkeys(section for finding in findings for section in finding.sources)
    run.set_result({"answer": text, "sources": [_source(section) for section in sources]})


async def _delegate(
    run: Run, parts: Sequence[Part], library: Library, pace: float
) -> list[Finding]:
    """Give each part to a sub-agent of its own; they work at the same time."""
    listed = "; ".join(f"“{part.text}”" for part in parts)
    run.thinking(f"The question has {len(parts)} parts: {listed}. Each gets a sub-agent.")
    findings: list[Finding | None] = [None] * len(parts)

    async def work(at: int, part: Part) -> None:
        async with run.child(agent_name=f"reader {at + 1}", task=part.text) as child:
            finding = await Investigation(child, part, library, pace).run()
            sources = [_source(section) for section in finding.sources]
            child.set_result({"answer": finding.text, "sources": sources})
            findings[at] = finding
        done = sum(finding is not None for finding in findings)
        run.progress(
            f"{done} of {len(parts)} parts are answered", 100 * done / len(parts), done, len(parts)
        )

    async with asyncio.TaskGroup() as group:
        for at, part in enumerate(parts):
            group.create_task(work(at, part))
    return [finding or Finding(text="This part was cancelled.") for finding in findings]


def _composed(parts: Sequence[Part], findings: Sequence[Finding]) -> str:
    if len(findings) == 1:
        return findings[0].text
    return "\n\n".join(
        f"**{part.text[:1].upper()}{part.text[1:]}**\n\n{finding.text}"
        for part, finding in zip(parts, findings, strict=True)
    )


async def _say(run: Run, text: str, pace: float) -> None:
    for word in _WORD.findall(text):
        run.delta(word)
        await asyncio.sleep(pace)


def _source(section: Section) -> dict[str, str]:
    return {"path": section.path, "title": section.title}


class Investigation:
    """One part of a question, and the run in which it is looked into."""

    def __init__(self, run: Run, part: Part, library: Library, pace: float) -> None:
        self._run = run
        self._part = part
        self._library = library
        self._pace = pace

    async def run(self) -> Finding:
        """Do what the part's kind asks for, and return what was found."""
        return await {
            Kind.COMPUTE: self._compute,
            Kind.COUNT: self._count,
            Kind.MENTIONS: self._count_mentions,
            Kind.FILE: self._read,
            Kind.SEARCH: self._search,
        }[self._part.kind]()

    async def _think(self, text: str, step: int, total_steps: int) -> None:
        self._run.thinking(text, step, total_steps)
        await asyncio.sleep(self._pace)

    # Computing

    async def _compute(self) -> Finding:
        expression = self._part.subject
        await self._think(f"“{expression}” can be computed, so I compute it.", 1, 1)
        async with self._run.tool("compute", {"expression": expression}) as tool:
            try:
                computation = compute(expression)
            except (ArithmeticError, ValueError) as error:
                tool.set_error(str(error))
                return Finding(text=f"{expression} cannot be computed: {error}.")
            tool.set_result(computation)
        return Finding(text=_computed(computation))

    # Counting

    async def _count(self) -> Finding:
        what = self._part.subject
        await self._think(f"It asks how many {what}, so I count them.", 1, 2)
        tally = await self._tally(what)
        if tally.listing is None:
            await self._think(f"Nothing lists {what} by that name; I search instead.", 2, 2)
            return await self._search()
        section, entries = tally.listing.section, tally.listing.entries
        await self._think(f"“{section.title}” in {section.path} lists them.", 2, 2)
        named = "; ".join(_shortened(entry) for entry in entries[:12])
        more = f" and {len(entries) - 12} more" if len(entries) > 12 else ""
        text = f"{len(entries)}: {named}{more}. [{section.path}, “{section.title}”]"
        return Finding(text=text, sources=(section,))

    async def _count_mentions(self) -> Finding:
        what = self._part.subject
        await self._think(f"It asks how often “{what}” is written, so I count it.", 1, 1)
        tally = await self._tally(what)
        if not tally.occurrences:
            return Finding(text=f"“{what}” does not occur in the {len(self._library.files)} files.")
        most = sorted(tally.by_path.items(), key=lambda item: -item[1])[:5]
        where = ", ".join(f"{count} in {path}" for path, count in most)
        times = "once" if tally.occurrences == 1 else f"{tally.occurrences} times"
        return Finding(text=f"“{what}” occurs {times}: {where}.")

    async def _tally(self, what: str) -> Tally:
        async with self._run.tool("count", {"what": what}) as tool:
            tally = self._library.count(what)
            listing = tally.listing
            tool.set_result(
                {
                    "occurrences": tally.occurrences,
                    "by_path": tally.by_path,
                    "listed": listing
                    and {**_source(listing.section), "entries": len(listing.entries)},
                }
            )
        return tally

    # Reading

    async def _read(self) -> Finding:
        path = self._part.subject
        await self._think(f"It names the file {path}, so I read it.", 1, 1)
        async with self._run.tool("read_file", {"path": path}) as tool:
            try:
                tool.set_result(self._library.read_file(path))
            except LookupError:
                tool.set_error("not in the library")
                known = ", ".join(self._library.files)
                return Finding(text=f"I may not read {path}: my library holds {known}.")
        sections = [section for section in self._library.sections if section.path == path]
        titles = ", ".join(f"“{section.title}”" for section in sections)
        return Finding(text=f"{path} has these sections: {titles}.", sources=tuple(sections[:1]))

    async def _search(self) -> Finding:
        part = self._part
        query = " ".join(terms(part.text))
        await self._think(self._reason(), 1, 3)
        async with self._run.tool("search", {"query": query, "context": part.hints}) as tool:
            hits = self._library.search(part.text, context=part.hints, limit=_HITS)
            tool.set_result(
                [
                    {**_source(hit.section), "line": hit.section.first_line, "score": hit.score}
                    for hit in hits
                ]
            )
        if not hits:
            return await self._nothing()
        # A definition may stand in a section about something else, so more are read for one.
        found = [hit.section for hit in hits[: _HITS if part.subject else _SECTIONS_READ]]
        titles = ", ".join(f"“{section.title}” in {section.path}" for section in found)
        await self._think(f"Best fit: {titles}. I read {_them(len(found))}.", 2, 3)
        texts = [await self._read_section(section) for section in found]
        scores = [hit.score for hit in hits]
        quotes = choose(self._library, part, list(zip(found, texts, scores, strict=False)))
        if not quotes:
            return await self._nothing()
        await self._think(f"{_sentences(len(quotes))} what was asked; I quote.", 3, 3)
        sources = dict.fromkeys(quote.section for quote in quotes)
        return Finding(text=quoted(quotes) + self._unknown(), sources=tuple(sources))

    async def _read_section(self, section: Section) -> str:
        lines = {
            "path": section.path,
            "first_line": section.first_line,
            "last_line": section.last_line,
        }
        async with self._run.tool("read_file", lines) as tool:
            text = self._library.read_file(section.path, section.first_line, section.last_line)
            tool.set_result(text)
        await asyncio.sleep(self._pace)
        return text

    async def _nothing(self) -> Finding:
        await self._think("Nothing of that fits well enough to be quoted; I say so.", 3, 3)
        asked = "”, “".join(self._words(terms(self._part.text)))
        return Finding(
            text=f"I found nothing about this in the {len(self._library.files)} documents "
            f"(I looked for “{asked}”)."
        )

    def _reason(self) -> str:
        if self._part.context:
            return "It points back at the part before it, so I search for both together."
        if self._part.is_doing:
            return "It asks how to do something, so I search for instructions and code."
        return "It asks about a matter, so I search the documents."

    def _unknown(self) -> str:
        asked = terms(self._part.text)
        words = self._words([term for term in asked if not self._library.is_known(term)])
        if not words:
            return ""
        named = ", ".join(f"“{word}”" for word in words)
        return f"\n\nThe documents say nothing about {named}."

    def _words(self, stems: Sequence[str]) -> list[str]:
        """Return the words of the question that have these stems."""
        words = (word.strip("?.,!;:()“”\"'`") for word in self._part.text.split())
        return [word for word in words if set(terms(word)) & set(stems)]


def _computed(computation: Computation) -> str:
    shown = computation.expression.replace("**", "^").replace("*", "×")
    return f"{shown} = {computation.text}."


def _shortened(entry: str) -> str:
    words = entry.rstrip(".").split()
    return " ".join(words[:8]) + ("…" if len(words) > 8 else "")


def _them(count: int) -> str:
    return "it" if count == 1 else "them"


def _sentences(count: int) -> str:
    return "One passage says" if count == 1 else f"{count} passages say"
