"""
This project's documents, and what the demo's agent does with them.

The four tools are search, read a file, count, and (in
:mod:`catenary.demo.arithmetic`) compute. Nothing outside the library can be
read through them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec

from catenary.demo.markdown import Section, entries_of, sections_of
from catenary.demo.words import RELATED, terms, tokens
from catenary.errors import ConfigError

_MAX_FILE_BYTES = 1024 * 1024
_SATURATION = 1.2
_LENGTH_WEIGHT = 0.75
_TITLE_WEIGHT = 3
_HEADED_WEIGHT = 1.5
_ASIDE = re.compile(r"\([^)]*\)|^[\d.]+\s")
RELATED_WEIGHT = 0.35
CONTEXT_WEIGHT = 0.6


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A section that a search found, with how well it fits."""

    section: Section
    score: float


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A section whose table or list has what was counted as its entries."""

    section: Section
    entries: tuple[str, ...]


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How often something occurs, and where it is listed, if it is."""

    what: str
    occurrences: int
    by_path: dict[str, int]
    listing: Listing | None


class Library:
    """
    Markdown documents by path, indexed by section.

    Sections are ranked by BM25; the words of their headings count more.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = dict(files)
        self.sections = [
            section for path, text in self.files.items() for section in sections_of(path, text)
        ]
        self._counts = [_counted(section) for section in self.sections]
        self._headings = [set(terms(section.title)) for section in self.sections]
        self._lengths = [counts.total() for counts in self._counts]
        self._mean = sum(self._lengths) / max(1, len(self._lengths))
        self._spread = Counter(term for counts in self._counts for term in counts)

    @classmethod
    def open(cls, roots: Mapping[str, Path]) -> Self:
        """
        Read the Markdown files of some folders, or single files.

        ``roots`` maps how paths begin in the library to where that is on
        disk. A link that leads out of its folder is not followed.

        Raises:
            ConfigError: If there is no document.
        """
        files: dict[str, str] = {}
        for name, root in roots.items():
            found = [root] if root.is_file() else sorted(root.rglob("*.md"))
            for path in found:
                if not _is_readable(path, root):
                    continue
                inside = path.relative_to(root).as_posix() if root.is_dir() else ""
                files["/".join(filter(None, (name, inside)))] = path.read_text("utf-8")
        if not files:
            raise ConfigError(f"no documents in {', '.join(map(str, roots.values()))}")
        return cls(files)

    @classmethod
    def find(cls) -> Self:
        """Open this project's documents: the repository's, else those installed with it."""
        package = Path(__file__).parent
        repository = package.parents[2]
        if (repository / "pyproject.toml").is_file() and (repository / "docs").is_dir():
            names = ("README.md", "CHANGELOG.md")
            single = {name: repository / name for name in names if (repository / name).is_file()}
            return cls.open({**single, "docs": repository / "docs"})
        return cls.open({"docs": package / "documents"})

    # Tools

    def search(self, query: str, *, context: str = "", limit: int = 5) -> list[Hit]:
        """
        Return the sections that fit a query best, the best first.

        The words of ``context`` count for less than the query's; a section
        headed by just what is asked for counts for more.
        """
        weights = self.weigh(query, context)
        asked = set(terms(query))
        scored = [
            Hit(
                section=section,
                score=round(score * (_HEADED_WEIGHT if asked == self._headings[at] else 1), 3),
            )
            for at, section in enumerate(self.sections)
            if (score := self._score(at, weights)) > 0
        ]
        return sorted(scored, key=lambda hit: -hit.score)[:limit]

    def read_file(self, path: str, first_line: int = 1, last_line: int | None = None) -> str:
        """
        Return a document, or some of its lines, counted from 1.

        Raises:
            LookupError: If it is not a document of this library.
        """
        text = self.files.get(path)
        if text is None:
            raise LookupError(f"{path!r} is not in the library")
        return "\n".join(text.splitlines()[max(0, first_line - 1) : last_line])

    def count(self, what: str, path: str | None = None) -> Tally:
        """
        Count a word or phrase, and the entries of the list or table with that heading.

        A ``*`` stands for the rest of a word; case does not count.

        Raises:
            LookupError: If ``path`` is not a document of this library.
        """
        paths = list(self.files) if path is None else [path]
        pattern = re.compile(rf"\b{_pattern(what)}\b", re.IGNORECASE)
        counted = {name: len(pattern.findall(self.read_file(name))) for name in paths}
        by_path = {name: count for name, count in counted.items() if count}
        return Tally(
            what=what,
            occurrences=sum(by_path.values()),
            by_path=by_path,
            listing=self._listing(what, paths),
        )

    # Weighing

    def weigh(self, query: str, context: str = "") -> dict[str, float]:
        """Return what each word of a query counts for: the rarer, the more."""
        asked = terms(query)
        weights = {term: self.rarity(term) for term in asked}
        for term in terms(context):
            weights.setdefault(term, CONTEXT_WEIGHT * self.rarity(term))
        for term in asked:
            for related in RELATED.get(term, ()):
                weights.setdefault(related, RELATED_WEIGHT * self.rarity(term))
        return weights

    def is_known(self, term: str) -> bool:
        """Whether any section has this word."""
        return term in self._spread

    def rarity(self, term: str) -> float:
        """Return what a word counts for: the rarer, the more."""
        spread = self._spread[term]
        return math.log(1 + (len(self.sections) - spread + 0.5) / (spread + 0.5))

    def _score(self, at: int, weights: Mapping[str, float]) -> float:
        counts = self._counts[at]
        length = 1 - _LENGTH_WEIGHT + _LENGTH_WEIGHT * self._lengths[at] / self._mean
        return sum(
            weight * counts[term] * (_SATURATION + 1) / (counts[term] + _SATURATION * length)
            for term, weight in weights.items()
            if term in counts
        )

    def _listing(self, what: str, paths: Sequence[str]) -> Listing | None:
        """Return the section headed by what is asked for, with one other word at most."""
        wanted = set(terms(what))
        found: list[tuple[int, Section]] = []
        for section in self.sections:
            words = set(terms(_ASIDE.sub("", section.title)))
            others = len(words - wanted)
            if wanted and wanted <= words and others <= 1 and section.path in paths:
                found.append((others, section))
        for _, section in sorted(found, key=lambda pair: pair[0]):
            if entries := tuple(entries_of(section.text)):
                return Listing(section=section, entries=entries)
        return None


def _counted(section: Section) -> Counter[str]:
    counts = Counter(tokens(section.text))
    for title in section.titles:
        counts.update(tokens(title))
    for token in tokens(section.title):
        counts[token] += _TITLE_WEIGHT - 1
    return counts


def _is_readable(path: Path, root: Path) -> bool:
    inside = path.resolve().is_relative_to(root.resolve())
    return inside and path.is_file() and path.stat().st_size <= _MAX_FILE_BYTES


def _pattern(what: str) -> str:
    words = [re.escape(word).replace(r"\*", r"\w*") for word in what.split()]
    return r"\s+".join(words) or r"(?!)"
