"""Words as the library compares them: lower case, without endings, without filler."""

from __future__ import annotations

import re
from collections.abc import Iterator

_TOKEN = re.compile(r"[a-z0-9]+(?:[_.-][a-z0-9]+)*")
_NAME = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)+")
_PIECE = re.compile(r"[a-z0-9]+")

FILLER = frozenset(
    """
    a about all also am an and any are as ask at be been big but by can come comes could cover covers describe difference did do
    does doing each else explain far fast for from get gets give go goes had happen happens has have he her
    his how i if in into is it its just kind large let like long made make many may me mean means more most much
    must my need no not of often old on one or our out over per please said say says see shall she should show so
    some such tell than that the their them then there these they thing things this those to too up
    us very want was we were what when where whether which while who whom whose why will with would work works
    you your
    """.split()  # noqa: SIM905 - a list of a hundred strings reads worse
)
"""Words that say nothing about what a question asks for."""

RELATED = {
    "reader": ("client", "consumer", "cursor", "connection"),
    "client": ("reader", "connection"),
    "resum": ("reconnect", "continu", "recover"),
    "reconnect": ("resum", "continu"),
    "kill": ("die", "dead", "crash", "lost", "restart"),
    "crash": ("kill", "dead", "lost"),
    "cost": ("memory", "price", "delay"),
    "emit": ("append", "publish", "emitter"),
    "event": ("record",),
    "limit": ("maximum", "bound", "default", "most"),
    "user": ("owner",),
    "install": ("pip", "start"),
    "start": ("begin", "run"),
    "stop": ("cancel", "drain", "end"),
    "authenticat": ("token", "ticket", "credential", "cookie"),
    "browser": ("page", "javascript", "cookie", "origin"),
    "lose": ("lost", "loss"),
    "lost": ("lose", "loss", "gap"),
    "secret": ("redact", "token", "password"),
}  # by stem
"""Words that documents use for the same matter; they count for less."""


def stem(word: str) -> str:
    """Return a word without its common English endings; not a word itself."""
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    if len(word) > 6 and word.endswith(("tion", "sion")):
        word = word[:-3]
    return word[:-1] if len(word) > 4 and word.endswith("e") else word


def tokens(text: str) -> Iterator[str]:
    """Yield the stems of a text in order; ``agent_started`` also yields its pieces."""
    for match in _TOKEN.finditer(text.lower()):
        token = match[0]
        pieces = _PIECE.findall(token)
        if len(pieces) > 1:
            yield token
        for piece in pieces:
            yield stem(piece)


def terms(text: str) -> list[str]:
    """
    Return the stems that say what a text asks for, each once, in order.

    A name such as ``agent_started`` also counts as a whole. A single digit, as
    in ``kill -9``, says too little.
    """
    lower = text.lower().replace("'", "")
    wanted = (word for word in _PIECE.findall(lower) if not _says_little(word))
    return list(dict.fromkeys([*_NAME.findall(lower), *map(stem, wanted)]))


def _says_little(word: str) -> bool:
    return word in FILLER or (len(word) == 1 and word.isdigit())
