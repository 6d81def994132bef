"""Which sentences of the documents answer a question, and how they are quoted."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import msgspec

from catenary.demo.library import Library
from catenary.demo.markdown import Fact, Section, facts_of
from catenary.demo.question import Part
from catenary.demo.words import terms, tokens

_LIMIT = 4
_MIN_SHARE = 0.34
_MIN_GAIN = 0.4
_SEEN_WEIGHT = 0.25
_TITLE_SHARE = 0.5
_TITLED_SHARE = 0.75  # of what is asked, in the heading: then the section is the answer
_TITLED_WEIGHT = 1.5
_LEAD_WEIGHT = 2.5
_DEFINITION_WEIGHT = 3.0  # wherever it stands
_READABLE_WORDS = 45
_SHORT_LINES = 15
_SHORT_WORDS = 25
_NUMBER = re.compile(r"(?<!\w)\d")
_BEING = re.compile(r"\b(?:is|are) (?:an?|the|what|one|those)\b|\b(?:means?|names?)\b|^\W*\w+[:.]")


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """A fact with the section that it stands in, its place there, and its section's score."""

    fact: Fact
    section: Section
    rank: int
    place: int
    score: float

    @property
    def text(self) -> str:
        """The fact as it is quoted."""
        return " ".join(filter(None, (self.fact.lean, self.fact.text)))


def choose(
    library: Library, part: Part, sections: Sequence[tuple[Section, str, float]]
) -> list[Quote]:
    """
    Return the facts that together answer a part best, in the order of the documents.

    ``sections`` are those found, each with the text that was read of it and
    its score, the best first. Empty if nothing fits well enough.
    """
    return _Choice(library, part, sections).made()


class _Choice:
    """
    The choice of facts, one after the other.

    What a word counts for falls once a chosen fact has it, so that the next
    fact says something else.
    """

    def __init__(
        self, library: Library, part: Part, sections: Sequence[tuple[Section, str, float]]
    ) -> None:
        self._part = part
        self._asked = {term: library.rarity(term) for term in terms(part.text)}
        self._weights = library.weigh(part.text, part.hints)
        self._best_score = sections[0][2] if sections else 1.0
        self._chosen: list[Quote] = []
        self._left = [
            Quote(fact=fact, section=section, rank=rank, place=place, score=score)
            for rank, (section, text, score) in enumerate(sections)
            for place, fact in enumerate(facts_of(text))
        ]

    def made(self) -> list[Quote]:
        limit = 1 if self._part.is_choice else _LIMIT
        least = 0.0
        while self._left and len(self._chosen) < limit:
            best = max(self._left, key=self._gain)
            gain = self._gain(best)
            if gain <= least:
                break
            least = least or _MIN_GAIN * gain
            self._take(best)
        if self._share(" ".join(map(_with_titles, self._chosen))) < _MIN_SHARE:
            return []
        more = [*_announced(self._chosen, self._left), *self._continued()]
        shown = _without_repeats([*self._chosen, *more])
        return sorted(shown, key=lambda quote: (quote.rank, quote.place))

    def _take(self, quote: Quote) -> None:
        self._chosen.append(quote)
        self._left.remove(quote)
        for term in self._weights.keys() & set(tokens(quote.text)):
            self._weights[term] *= _SEEN_WEIGHT

    def _gain(self, quote: Quote) -> float:
        words = set(tokens(quote.text))
        titles = set(tokens(" ".join(quote.section.titles)))
        gain = sum(
            weight if term in words else _TITLE_SHARE * weight
            for term, weight in self._weights.items()
            if term in words or term in titles
        )
        if self._is_titled(quote.section):
            gain *= _LEAD_WEIGHT if quote.fact.paragraph == 0 else _TITLED_WEIGHT
        elif not words & self._weights.keys():
            gain *= _TITLE_SHARE
        if _is_defined(self._part.subject, quote.fact):
            return gain * self._fitness(quote) * _DEFINITION_WEIGHT
        return gain * self._fitness(quote) * quote.score / self._best_score

    def _fitness(self, quote: Quote) -> float:
        """Return what the form of a fact counts for."""
        part = self._part
        length = len(quote.text.split())
        fitness = math.sqrt(min(1.0, _READABLE_WORDS / max(1, length))) * min(1.0, length / 6)
        if quote.fact.is_code:
            fitness *= 0.9 if part.is_doing and length < 80 else 0.1
        if part.is_numeric and _NUMBER.search(quote.text):
            fitness *= 1.4
        if quote.text.endswith(":") or quote.fact.is_dangling:
            fitness *= 0.5
        if self._chosen and quote.section == self._chosen[0].section:
            fitness *= 1.3
        return fitness

    def _share(self, text: str) -> float:
        """Return how much of what was asked a text speaks of, from 0 to 1."""
        said = set(tokens(text))
        total = sum(self._asked.values())
        return sum(self._asked[term] for term in self._asked.keys() & said) / total if total else 0

    def _is_titled(self, section: Section) -> bool:
        """Whether a section's heading is about what was asked and about little else."""
        title = terms(section.title)
        others = [term for term in title if term not in self._asked]
        return self._share(section.title) >= _TITLED_SHARE and 2 * len(others) <= len(title)

    def _continued(self) -> list[Quote]:
        """Return the sentence after a single short one, which tells more about the matter."""
        part, first = self._part, self._chosen[0]
        is_enough = len(self._chosen) > 1 or len(first.text.split()) > _SHORT_WORDS
        if is_enough or part.is_numeric or part.is_choice:
            return []
        return [
            quote
            for quote in self._left
            if quote.section == first.section
            and quote.place == first.place + 1
            and quote.fact.paragraph == first.fact.paragraph
            and not quote.fact.is_code
        ]


def _with_titles(quote: Quote) -> str:
    return " ".join((quote.text, *quote.section.titles))


def _is_defined(subject: str, fact: Fact) -> bool:
    """Whether a fact says what the subject is."""
    wanted = terms(subject)
    if not wanted:
        return False
    begin = " ".join(fact.text.split()[:7])
    return terms(begin)[: len(wanted)] == wanted and _BEING.search(begin) is not None


def _announced(chosen: Sequence[Quote], others: Sequence[Quote]) -> list[Quote]:
    """Return the short blocks of code that chosen sentences end with a colon for."""
    said = {(quote.section, quote.fact.text) for quote in chosen}
    return [
        quote
        for quote in others
        if quote.fact.is_code
        and (quote.section, quote.fact.lean) in said
        and quote.fact.text.count("\n") < _SHORT_LINES
    ]


def _without_repeats(chosen: Sequence[Quote]) -> list[Quote]:
    leans = {quote.fact.lean for quote in chosen}
    return [quote for quote in chosen if quote.fact.text not in leans]


def quoted(quotes: Sequence[Quote]) -> str:
    """Return the quotes as paragraphs, each with its source behind it."""
    paragraphs: list[str] = []
    sections = list(dict.fromkeys(quote.section for quote in quotes))
    for section in sections:
        own = [quote for quote in quotes if quote.section == section]
        prose = " ".join(_ended(said) for quote in own if (said := _prose(quote)))
        code = "\n\n".join(f"```\n{quote.fact.text}\n```" for quote in own if quote.fact.is_code)
        source = f"[{section.path}, “{section.title}”]"
        paragraphs.append("\n\n".join(filter(None, (f"{prose} {source}".strip(), code))))
    return "\n\n".join(paragraphs)


def _prose(quote: Quote) -> str:
    return quote.fact.lean if quote.fact.is_code else quote.text


def _ended(text: str) -> str:
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."
