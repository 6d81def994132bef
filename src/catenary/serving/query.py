"""What the query of ``/ws`` and ``/sse`` asks for."""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec

from catenary.context import check_id
from catenary.errors import UsageError
from catenary.position import Position

KEYWORDS = frozenset({"start", "open", "now"})
THREADS_LIMIT = 50


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Where to begin, in which log, and which threads."""

    after: str
    log_id: str | None
    thread_ids: frozenset[str] | None


def read_query(query: bytes) -> Wanted:
    """
    Read the query of a connection.

    Raises:
        UsageError: If a parameter is wrong; the text is safe to show.
    """
    try:
        fields = parse_qs(query.decode("ascii"), keep_blank_values=True, max_num_fields=100)
    except (UnicodeDecodeError, ValueError):
        raise UsageError("the query cannot be read") from None
    after = _single(fields, "after") or "start"
    if after not in KEYWORDS:
        Position.parse(after)
    log_id = _single(fields, "log")
    if log_id is not None:
        check_id("log", log_id)
    threads = fields.get("thread_id")
    if threads is not None:
        if len(threads) > THREADS_LIMIT:
            raise UsageError(f"at most {THREADS_LIMIT} thread_id parameters")
        for thread_id in threads:
            check_id("thread_id", thread_id)
    return Wanted(
        after=after,
        log_id=log_id,
        thread_ids=None if threads is None else frozenset(threads),
    )


def _single(fields: dict[str, list[str]], name: str) -> str | None:
    values = fields.get(name)
    if values is None:
        return None
    if len(values) > 1:
        raise UsageError(f"{name} is given {len(values)} times")
    return values[0]
