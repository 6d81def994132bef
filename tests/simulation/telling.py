"""What happened in a simulated world, as lines to read and as a digest to compare."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from catenary.client import Gap
from catenary.events import WebSocketEvent
from catenary.position import Position
from tests.simulation.judge import Entry, Problem, markers_of
from tests.simulation.schedule import Operation, shown


def lines_of(journal: Iterable[Entry]) -> Iterator[str]:
    """Yield a line for each thing that happened."""
    for at, who, what in journal:
        yield f"{at:9.3f}  {who:14}  {_told(what)}"


def _told(what: object) -> str:
    if isinstance(what, Operation):
        return shown(what)
    if isinstance(what, Position):
        return f"reads after {what}"
    if isinstance(what, Gap):
        return f"gap from {what.after} to {what.resumes_at}: {what.reason}"
    if isinstance(what, WebSocketEvent):
        begin = f"from {what.from_seq} to " if what.from_seq is not None else ""
        return f"{begin}{what.id} {what.type} {' '.join(markers_of(what))}"
    return f"** {what}"


def digest_of(journal: Iterable[Entry]) -> str:
    """Return what two courses have in common if they are the same; names made by chance apart."""
    digest = hashlib.blake2b(digest_size=16)
    for at, who, what in journal:
        digest.update(repr((round(at, 9), who, _plain(what))).encode())
    return digest.hexdigest()


def _plain(what: object) -> object:
    if isinstance(what, Position):
        return what.seq
    if isinstance(what, Gap):
        return (what.after.seq, what.resumes_at.seq, what.reason)
    if isinstance(what, WebSocketEvent):
        return (what.type, what.from_seq, what.seq, markers_of(what), len(str(what.data)))
    return what.kind if isinstance(what, Problem) else shown(what)  # type: ignore[arg-type]
