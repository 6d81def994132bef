"""A question taken apart: its parts, and what each part asks for."""

from __future__ import annotations

import enum
import re

import msgspec

from catenary.demo.arithmetic import find_expression
from catenary.demo.words import FILLER, terms

MAX_LENGTH = 1000
MAX_PARTS = 6

_SENTENCE = re.compile(r"(?<=[?!;])\s*|(?<=\w[.])\s+(?=[A-Z])|\n+")
_AND = re.compile(
    r",?\s+(?:and|or)\s+(?=(?:what|how|where|which|who|when|why|does|do|is|are|can|may|should)\b)",
    re.IGNORECASE,
)
_LEANING = re.compile(
    r"\b(?:it|its|that|this|these|those|they|them|their|which one|which of|one of them)\b",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"\bhow many\s+(?!.*\b(?:may|can|could|should|allowed)\b)(?P<what>[\w' -]+?)\s*"
    r"(?:\s(?:are|is) there\b|\s(?:exist|in)\b|\s(?:do|does|has|have)\s.*\b(?:have|has|exist)\b"
    r"|\s(?:are|is)\s|[?.!]*$)",
    re.IGNORECASE,
)
_MENTIONED = re.compile(
    r"\bhow (?:often|many times)\s+(?:does|do|is|are)\s+(?:the\s+)?(?:(?:word|phrase|term)\s+)?"
    r"[\"“'`]?(?P<what>[\w*-]+(?:\s+[\w*-]+){0,3}?)[\"”'`]?\s+"
    r"(?:appear|occur|mentioned|used|written|named|come)",
    re.IGNORECASE,
)
_FILE = re.compile(r"(?<![\w/.])(?P<path>[\w./~-]*(?:/[\w.-]+|\.md))(?![\w/])")
_OPENING = re.compile(
    r"\b(?:open|read|show|summari[sz]e|what is in|what's in|print|cat)\b", re.IGNORECASE
)
_DEFINITION = re.compile(
    r"^\W*what(?:'s| is| are| does)\s+(?:an?\s+|the\s+)?(?P<what>[\w_ -]+?)(?:\s+mean)?\W*$",
    re.IGNORECASE,
)
_NUMERIC = re.compile(
    r"\bhow (?:many|much|long|often|big|large|fast|old|far)\b|\blimits?\b|\bmaximum\b",
    re.IGNORECASE,
)
_BOUNDED = re.compile(
    r"\bhow (?:many|much|long|big|large)\b.*\b(?:may|can|could|allowed|at most|up to|maximum)\b",
    re.IGNORECASE,
)
_CHOICE = re.compile(r"\W*which one\b", re.IGNORECASE)
_DOING = re.compile(
    r"\bhow (?:do|can|should|would|must) (?:i|you|we|one)\b|\bhow to\b", re.IGNORECASE
)


class Kind(enum.Enum):
    """What a part of a question asks for."""

    COMPUTE = "compute"
    COUNT = "count"
    MENTIONS = "mentions"
    FILE = "file"
    SEARCH = "search"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """
    One part of a question.

    ``context`` is the part before it, if this one points back at it ("that
    limit"). ``subject`` is what is to be computed, counted, opened or defined.
    """

    text: str
    kind: Kind
    subject: str = ""
    context: str = ""

    @property
    def hints(self) -> str:
        """What else to look for: the context, and limits where one is asked for."""
        return f"{self.context} limits" if _BOUNDED.search(self.text) else self.context

    @property
    def is_numeric(self) -> bool:
        """Whether an answer with a number in it is wanted."""
        return _NUMERIC.search(self.text) is not None

    @property
    def is_choice(self) -> bool:
        """Whether one of several is asked for."""
        return _CHOICE.match(self.text) is not None

    @property
    def is_doing(self) -> bool:
        """Whether it asks how to do something, so that code helps."""
        return _DOING.search(self.text) is not None


def parts_of(question: str) -> list[Part]:
    """
    Return the parts of a question in order, at most :data:`MAX_PARTS`.

    "How does it work?" and its like ask about Catenary.
    """
    texts = [
        text
        for sentence in _SENTENCE.split(question[:MAX_LENGTH])
        for piece in _AND.split(sentence)
        if terms(text := piece.strip(" ,;\t")) or find_expression(text)
    ]
    if not texts and _LEANING.search(question):
        texts = ["What is Catenary?"]
    parts: list[Part] = []
    for text in texts[:MAX_PARTS]:
        is_leaning = _LEANING.search(text) is not None
        before = f"{parts[-1].text} {parts[-1].context}".strip() if parts else ""
        parts.append(_part(text, before if is_leaning else ""))
    return parts


def _part(text: str, context: str) -> Part:
    if expression := find_expression(text):
        return Part(text=text, kind=Kind.COMPUTE, subject=expression, context=context)
    if (match := _FILE.search(text)) and _OPENING.search(text):
        return Part(text=text, kind=Kind.FILE, subject=match["path"], context=context)
    if match := _MENTIONED.search(text):
        return Part(text=text, kind=Kind.MENTIONS, subject=match["what"], context=context)
    if match := _COUNTED.search(text):
        return Part(text=text, kind=Kind.COUNT, subject=_counted(match["what"]), context=context)
    match = _DEFINITION.match(text)
    subject = match["what"] if match else ""
    return Part(text=text, kind=Kind.SEARCH, subject=subject, context=context)


def _counted(what: str) -> str:
    words = [word for word in what.split() if word.lower() not in FILLER]
    return " ".join(words) or what
