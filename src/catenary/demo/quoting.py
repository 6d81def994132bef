"""Which sentences of the documents answer a question, and how they are quoted."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

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
_READABLE_WORDS = 45
_SHORT_LINES = 15
_SHORT_WORDS = 25
_BEING = re.compile(r"\b(?:is|are|means?|names?|says|tells|stands|was)\b|^\W*\w+[:.]")


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
    weights = library.weigh(part.text, part.hints)
    candidates = [
        Quote(fact=fact, section=section, rank=rank, place=place, score=score)
        for rank, (section, text, score) in enumerate(sections)
        for place, fact in enumerate(facts_of(text))
    ]
    chosen: list[Quote] = []
    left = dict(weights)
    while candidates and len(chosen) < _LIMIT:
        best = max(candidates, key=lambda quote: _gain(quote, left, part, chosen, sections))
        gain = _gain(best, left, part, chosen, sections)
        if chosen and gain < _MIN_GAIN * chosen[0].score:
            break
        chosen.append(msgspec.structs.replace(best, score=gain))
        candidates.remove(best)
        for term in _words(best):
            if term in left:
                left[term] *= _SEEN_WEIGHT
    if _share(part, chosen, weights) < _MIN_SHARE:
        return []
    more = [*_announced(chosen, candidates), *_continued(part, chosen, candidates)]
    shown = _without_repeats([*chosen, *more])
    return sorted(shown, key=lambda quote: (quote.rank, quote.place))


def _words(quote: Quote) -> set[str]:
    return set(tokens(quote.text))


def _gain(
    quote: Quote,
    weights: Mapping[str, float],
    part: Part,
    chosen: Sequence[Quote],
    sections: Sequence[tuple[Section, str, float]],
) -> float:
    words = _words(quote)
    titles = set(tokens(" ".join(quote.section.titles)))
    gain = sum(
        weight if term in words else _TITLE_SHARE * weight
        for term, weight in weights.items()
        if term in words or term in titles
    )
    if not words & weights.keys():
        gain *= _TITLE_SHARE
    gain *= 0.5 + 0.5 * sections[quote.rank][2] / max(sections[0][2], 1e-9)
    return gain * _fitness(quote, part, chosen)


def _fitness(quote: Quote, part: Part, chosen: Sequence[Quote]) -> float:
    """Return what the form of a fact counts for."""
    length = len(quote.text.split())
    fitness = math.sqrt(min(1.0, _READABLE_WORDS / max(1, length))) * min(1.0, length / 6)
    if quote.fact.is_code:
        fitness *= 0.9 if part.is_doing and length < 80 else 0.1
    if part.is_numeric and re.search(r"\d", quote.text):
        fitness *= 1.4
    if quote.text.endswith(":"):
        fitness *= 0.5
    if part.subject:
        fitness *= _definition(part.subject, quote)
    if chosen and quote.section == chosen[0].section:
        fitness *= 1.3
    return fitness


def _definition(subject: str, quote: Quote) -> float:
    """Return what a fact counts for as the one that says what the subject is."""
    wanted = terms(subject)
    begin = " ".join(quote.fact.text.split()[:7])
    if terms(begin)[: len(wanted)] == wanted and _BEING.search(begin):
        return 2.0
    is_titled = wanted == terms(quote.section.title)
    is_first = quote.fact.paragraph == 0 and not quote.fact.is_code
    return 5.0 if is_titled and is_first else 1.0


def _share(part: Part, chosen: Sequence[Quote], weights: Mapping[str, float]) -> float:
    """Return how much of what was asked the chosen facts and their headings speak of."""
    asked = [term for term in terms(part.text) if term in weights]
    said = {word for quote in chosen for word in _words(quote)}
    said |= {word for quote in chosen for word in tokens(" ".join(quote.section.titles))}
    total = sum(weights[term] for term in asked)
    return sum(weights[term] for term in asked if term in said) / total if total else 0.0


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


def _continued(part: Part, chosen: Sequence[Quote], others: Sequence[Quote]) -> list[Quote]:
    """Return the sentence after a single short one, which tells more about the matter."""
    first = chosen[0]
    if len(chosen) > 1 or part.is_numeric or len(first.text.split()) > _SHORT_WORDS:
        return []
    return [
        quote
        for quote in others
        if quote.section == first.section
        and quote.place == first.place + 1
        and quote.fact.paragraph == first.fact.paragraph
        and not quote.fact.is_code
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
