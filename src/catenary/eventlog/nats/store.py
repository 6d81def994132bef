"""A thread's way to JetStream: a connection to one of the servers, and the calls."""

from __future__ import annotations

import itertools
import json
import random
import secrets
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from catenary.errors import CatenaryError, ConfigError, LogUnavailable
from catenary.eventlog.nats import protocol
from catenary.eventlog.nats.address import Address
from catenary.eventlog.nats.errors import Conflict, checked
from catenary.eventlog.nats.link import Link, Request
from catenary.eventlog.nats.names import Names
from catenary.eventlog.nats.posts import (
    Found,
    Post,
    found_by_leader,
    found_in,
    in_sets,
    numbers_in,
    request_for,
)
from catenary.eventlog.nats.protocol import Message
from catenary.eventlog.nats.streams import Placed, prepare
from catenary.eventlog.shared.address import Server

PAGE_MESSAGES = 256
PAGE_BYTES = 512 * 1024
TOGETHER = 40
"""JetStream takes 50 sets of messages at a time, from all processes."""

_LASTS_AT_ONCE = 500
_NO_MESSAGE = 10037
_GONE = {_NO_MESSAGE, 10057, 10043}


class Servers:
    """The servers that are known, the one that answered last first. Thread-safe."""

    def __init__(self, address: Address) -> None:
        self._lock = threading.Lock()
        self._named = list(address.hosts)
        self._known = random.sample(self._named, len(self._named))

    def in_order(self) -> list[Server]:
        """Return the servers in the order in which they are to be tried."""
        with self._lock:
            return list(self._known)

    def good(self, server: Server, others: Sequence[Server]) -> None:
        """A server answered, and told of others."""
        with self._lock:
            rest = [known for known in (*self._known, *others) if known != server]
            self._known = [server, *dict.fromkeys(rest)]

    def bad(self, server: Server) -> None:
        """A server is away, or does not answer: it is tried last."""
        with self._lock:
            if server in self._known:
                self._known.remove(server)
                self._known.append(server)


def connect(address: Address, servers: Servers) -> Link:
    """
    Open a connection to the first server that takes one.

    Raises:
        LogUnavailable: If none does now.
        ConfigError: If one refuses for good.
    """
    problems: list[str] = []
    for server in servers.in_order():
        try:
            link = Link(address, server)
        except LogUnavailable as error:
            problems.append(str(error))
            servers.bad(server)
        else:
            servers.good(server, link.others)
            return link
    raise LogUnavailable("; ".join(problems))


class Store:
    """
    A connection of one thread, opened when it is needed. Not thread-safe.

    One that failed is dropped; the next call opens another, to a server that
    answers.
    """

    def __init__(self, address: Address, names: Names, servers: Servers) -> None:
        self.address = address
        self.names = names
        self._servers = servers
        self._link: Link | None = None
        self._placed: Placed | None = None
        self._life = ""
        self._name = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    # The connection

    @property
    def link(self) -> Link:
        """The open connection; the streams are there once there is one."""
        if self._link is None:
            link = connect(self.address, self._servers)
            try:
                self._placed = prepare(link, self.address, self.names)
                self._link = link
                self._life = self._read_life()
            except BaseException:
                self._link = None
                link.close()
                raise
        return self._link

    @property
    def placed(self) -> Placed:
        """Where the events are kept."""
        _ = self.link
        assert self._placed is not None
        return self._placed

    @property
    def life(self) -> str:
        """
        The name of what the servers' memory holds.

        It is another one once they may have lost what was not on their disks:
        after a restart, or with replicas after that of most of them at once.
        """
        _ = self.link
        return self._life

    def read_life(self) -> str:
        """Look again which life it is."""
        _ = self.link
        self._life = self._read_life()
        return self._life

    def _read_life(self) -> str:
        while True:
            found = self.last(self.names.leases_stream, self.names.life)
            if found is not None:
                return found.payload.decode()
            try:
                self.publish(Post(self.names.life, secrets.token_hex(5).encode(), expected=0))
            except Conflict:
                continue

    def ask(self, requests: Sequence[Request]) -> list[list[Message]]:
        """Send requests at once. Raises ``LogUnavailable``."""
        link = self.link
        try:
            return link.ask(requests)
        except BaseException:
            self._servers.bad(link.server)
            self.close()
            raise

    def rested(self) -> None:
        """Before the next use after a while: drop a connection that has been closed meanwhile."""
        if self._link is not None and self._link.is_closed:
            self.close()

    def close(self) -> None:
        """Close the connection. Idempotent."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    @property
    def where(self) -> str:
        """The server, for errors."""
        return self.link.where

    # Publishing

    def publish_all(self, groups: Sequence[Sequence[Post]]) -> list[int | Conflict]:
        """
        Publish groups of posts, each group wholly or not at all; no two share a subject.

        Returns for each the number of its last message, or that another one was
        written before. Groups of several posts are stored as one set, which costs
        JetStream about as much as one of them; if one is refused all are stored apart.

        Raises:
            LogUnavailable: One was not taken, or has no answer; the others may be there.
        """
        sets = in_sets(groups)
        found: dict[int, int | Conflict] = {}
        apart: list[int] = []
        posts = [[post for place in places for post in groups[place]] for places in sets]
        for places, answer in zip(sets, self._publish(posts), strict=True):
            if isinstance(answer, int):
                found.update(numbers_in(groups, places, answer))
            elif len(places) > 1:
                apart += places
            else:
                found[places[0]] = answer
        for begin in range(0, len(apart), TOGETHER):
            some = apart[begin : begin + TOGETHER]
            answers = self._publish([groups[place] for place in some])
            found.update(zip(some, answers, strict=True))
        return [found[place] for place in range(len(groups))]

    def _publish(self, groups: Sequence[Sequence[Post]]) -> list[int | Conflict]:
        requests = [request_for(posts, f"{self._name}{next(self._numbers):x}") for posts in groups]
        found: list[int | Conflict] = []
        problem: CatenaryError | None = None
        for (answer,) in self.ask(requests):
            try:
                found.append(int(checked(self.where, answer.payload)["seq"]))
            except Conflict as conflict:
                found.append(conflict)
            except (LogUnavailable, ConfigError) as error:
                problem = error
        if problem is not None:
            self.close()
            raise problem
        return found

    def publish(self, *posts: Post) -> int:
        """Publish posts, all or none. Raises ``Conflict`` too."""
        (result,) = self.publish_all([posts])
        if isinstance(result, Conflict):
            raise result
        return result

    def tell(self, subject: str, payload: bytes) -> None:
        """Publish something that is not stored: whoever listens now hears it."""
        link = self.link
        try:
            link.send(protocol.publish(subject.encode(), payload))
        except BaseException:
            self.close()
            raise

    def is_heard(self, subject: str, timeout: float) -> bool:
        """Whether somebody who listens on a subject answers in time."""
        link = self.link
        try:
            link.ask([Request(subject.encode())], timeout)
        except LogUnavailable:
            # An answer that comes late is not taken for another's.
            return False
        return True

    # Reading

    def last(self, stream: str, subject: str) -> Found | None:
        """Return the last message of a subject, as the stream's leader has it."""
        return self.lasts(stream, [subject])[0]

    def lasts(self, stream: str, subjects: Sequence[str]) -> list[Found | None]:
        """Return the last messages of subjects, as the stream's leader has them."""
        api = self.address.api
        if self.placed.replicas == 1:
            asked = [Request(f"{api}.DIRECT.GET.{stream}.{name}".encode()) for name in subjects]
            return [_direct(self.where, answer) for (answer,) in self.ask(asked)]
        subject = f"{api}.STREAM.MSG.GET.{stream}".encode()
        asked = [Request(subject, json.dumps({"last_by_subj": n}).encode()) for n in subjects]
        return [_of_leader(self.where, answer.payload) for (answer,) in self.ask(asked)]

    def about(self, stream: str, subjects: Sequence[str]) -> dict[str, Found]:
        """Return the last messages of many subjects; replicas may be a little behind."""
        found: dict[str, Found] = {}
        for begin in range(0, len(subjects), _LASTS_AT_ONCE):
            asked = {"multi_last": list(subjects[begin : begin + _LASTS_AT_ONCE])}
            for one in self._batch(stream, asked)[0]:
                found[one.subject] = one
        return found

    def batch(
        self,
        stream: str,
        subject: str,
        seq: int,
        *,
        limit: int = PAGE_MESSAGES,
        limit_bytes: int = PAGE_BYTES,
    ) -> tuple[list[Found], int]:
        """
        Return messages of a subject or filter from a number of the stream on, in order.

        Also how many follow them. Replicas may be a little behind.
        """
        asked = {"next_by_subj": subject, "seq": seq, "batch": limit, "max_bytes": limit_bytes}
        return self._batch(stream, asked)

    def _batch(self, stream: str, asked: dict[str, Any]) -> tuple[list[Found], int]:
        subject = f"{self.address.api}.DIRECT.GET.{stream}".encode()
        payload = json.dumps(asked).encode()
        (answers,) = self.ask([Request(subject, payload, has_many=True)])
        *messages, end = answers
        if end.status == 404:
            return [], 0
        if end.status != 204:
            raise LogUnavailable(f"{self.where}: {end.description} ({end.status})")
        return list(map(found_in, messages)), int(end.header(b"Nats-Num-Pending") or 0)

    def every(self, stream: str, subject: str, seq: int = 1) -> Iterator[Found]:
        """Return all messages of a filter from a number of the stream on, in order."""
        while True:
            found, pending = self.batch(stream, subject, seq)
            yield from found
            if not found or not pending:
                return
            seq = found[-1].seq + 1

    def subjects(self, stream: str, subject: str) -> list[str]:
        """Return the subjects of a filter that have messages."""
        found: list[str] = []
        request = f"{self.address.api}.STREAM.INFO.{stream}".encode()
        while True:
            asked = json.dumps({"subjects_filter": subject, "offset": len(found)}).encode()
            ((answer,),) = self.ask([Request(request, asked)])
            told = checked(self.where, answer.payload)
            found += told["state"].get("subjects") or ()
            if len(found) >= int(told.get("total", 0)):
                return found

    # Taking away

    def purge(self, stream: str, subject: str, **what: int) -> int:
        """
        Drop the messages of a filter: those before ``seq``, or all but the last ``keep``.

        Returns how many there were.
        """
        asked = json.dumps({"filter": subject} | what).encode()
        request = Request(f"{self.address.api}.STREAM.PURGE.{stream}".encode(), asked)
        ((answer,),) = self.ask([request])
        return int(checked(self.where, answer.payload).get("purged", 0))

    def remove(self, stream: str, seqs: Sequence[int]) -> None:
        """Drop messages; those that are gone already do not matter."""
        self._delete(stream, seqs, b'{"seq":%d,"no_erase":true}')

    def shred(self, stream: str, seqs: Sequence[int]) -> None:
        """Overwrite messages where they are stored, and drop them."""
        self._delete(stream, seqs, b'{"seq":%d}')

    def _delete(self, stream: str, seqs: Sequence[int], words: bytes) -> None:
        subject = f"{self.address.api}.STREAM.MSG.DELETE.{stream}".encode()
        for begin in range(0, len(seqs), _LASTS_AT_ONCE):
            part = seqs[begin : begin + _LASTS_AT_ONCE]
            for (answer,) in self.ask([Request(subject, words % seq) for seq in part]):
                error = json.loads(answer.payload).get("error", {}).get("err_code")
                if error not in _GONE:
                    checked(self.where, answer.payload)


def _direct(where: str, answer: Message) -> Found | None:
    if answer.status == 404:
        return None
    if answer.status:
        raise LogUnavailable(f"{where}: {answer.description} ({answer.status})")
    return found_in(answer)


def _of_leader(where: str, payload: bytes) -> Found | None:
    answer = json.loads(payload)
    if answer.get("error", {}).get("err_code") == _NO_MESSAGE:
        return None
    checked(where, payload)
    return found_by_leader(payload)
