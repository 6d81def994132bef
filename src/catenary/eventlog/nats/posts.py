"""What is published to a stream, and what is found there. Pure."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Sequence
from typing import NamedTuple

from catenary.errors import RecordCorrupt
from catenary.eventlog.nats.link import Request
from catenary.eventlog.nats.protocol import Message, headers_of, publish

POSTS_LIMIT = 990
"""JetStream takes 1,000 messages as one set."""

SET_BYTES = 4 * 1024 * 1024


class Post(NamedTuple):
    """
    One message for a stream.

    ``expected`` is the number, in the stream, of the message that must be the last
    of its subject: 0 for none at all. ``ttl`` is in seconds. ``replaces`` says that
    what was on its subject before goes.
    """

    subject: str
    payload: bytes
    expected: int | None = None
    ttl: int | None = None
    replaces: bool = False

    def headers(self, more: dict[str, str | int]) -> bytes:
        """Return its headers, together with ``more``."""
        named: dict[str, str | int] = dict(more)
        if self.expected is not None:
            named["Nats-Expected-Last-Subject-Sequence"] = self.expected
        if self.ttl is not None:
            named["Nats-TTL"] = f"{max(1, self.ttl)}s"
        if self.replaces:
            named["Nats-Rollup"] = "sub"
        return headers_of(named) if named else b""


def request_for(posts: Sequence[Post], name: str) -> Request:
    """Return what publishes posts: all or none, under a name of their own if there are several."""
    *before, last = posts
    if not before:
        return Request(last.subject.encode(), last.payload, last.headers({}))
    words = []
    for number, post in enumerate(before, 1):
        headers = post.headers({"Nats-Batch-Id": name, "Nats-Batch-Sequence": number})
        words.append(publish(post.subject.encode(), post.payload, headers=headers))
    headers = last.headers(
        {"Nats-Batch-Id": name, "Nats-Batch-Sequence": len(posts), "Nats-Batch-Commit": 1}
    )
    return Request(last.subject.encode(), last.payload, headers, before=b"".join(words))


def in_sets(groups: Sequence[Sequence[Post]]) -> list[list[int]]:
    """Return which groups are stored as one set: those of one post stand alone."""
    sets: list[list[int]] = []
    joined: list[int] = []
    count = size = 0
    for place, posts in enumerate(groups):
        if len(posts) == 1:
            sets.append([place])
            continue
        bytes_more = sum(len(post.payload) for post in posts)
        if joined and (count + len(posts) > POSTS_LIMIT or size + bytes_more > SET_BYTES):
            sets.append(joined)
            joined, count, size = [], 0, 0
        joined.append(place)
        count += len(posts)
        size += bytes_more
    if joined:
        sets.append(joined)
    return sets


def numbers_in(
    groups: Sequence[Sequence[Post]], places: Sequence[int], last: int
) -> dict[int, int]:
    """Return the number of the last message of each group of a set, by that of the set."""
    found: dict[int, int] = {}
    for place in reversed(places):
        found[place] = last
        # What is stored as one set has numbers without a hole.
        last -= len(groups[place])
    return found


class Found(NamedTuple):
    """A message of a stream: its number there, and when it was stored, in ms since 1970."""

    subject: str
    seq: int
    stored_at: int
    payload: bytes


def found_in(message: Message) -> Found:
    """Return what a direct get answered."""
    subject = message.header(b"Nats-Subject")
    seq = message.header(b"Nats-Sequence")
    at = message.header(b"Nats-Time-Stamp")
    if subject is None or seq is None or at is None:
        raise RecordCorrupt(f"JetStream answered without saying what: {message.headers!r}")
    return Found(subject.decode(), int(seq), milliseconds(at.decode()), message.payload)


def found_by_leader(payload: bytes) -> Found:
    """Return what a stream's leader answered."""
    stored = json.loads(payload)["message"]
    data = base64.b64decode(stored.get("data") or "")
    return Found(stored["subject"], stored["seq"], milliseconds(stored["time"]), data)


def milliseconds(text: str) -> int:
    """Return a time that JetStream wrote, in ms since 1970."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = dt.datetime.fromisoformat(whole + "+00:00").timestamp()
    return int(seconds) * 1000 + int((fraction + "000")[:3])
