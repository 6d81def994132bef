"""
Turns on the wires of other clients: how one begins, is found again, and is read.

What is known of a turn is kept in the log: where it begins, by user and
thread, so that it is found after a refresh, a restart, and on another node.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import msgspec
from starlette.requests import HTTPConnection, Request

from catenary.answering import Answering
from catenary.auth import Identity, may_use_thread
from catenary.connection import Connection
from catenary.encoding import encode
from catenary.errors import ProtocolError
from catenary.eventlog.model import CancelOutcome
from catenary.events import WebSocketEvent
from catenary.inbound import Source
from catenary.position import Position
from catenary.serving.admission import Admission, Refusal
from catenary.serving.answers import read_body
from catenary.serving.messages import STATUSES
from catenary.serving.query import Wanted
from catenary.serving.turn_store import Begun, TurnStore
from catenary.session import ClientMessage, Session, nests_deeper
from catenary.wires.native import event_of
from catenary.wires.turn import Ending, Turn

REPLAYED_SECONDS = 60.0
"""A turn that ended so lately is still replayed: its end may have come while a page was loading."""

SENDERS_REMEMBERED = 10_000


class Asker(NamedTuple):
    """Who asks, on which log, and with which request."""

    identity: Identity
    log_id: str
    may_write: bool
    request: HTTPConnection

    @property
    def source(self) -> Source:
        """Who sends messages."""
        return Source(identity=self.identity, log_id=self.log_id)


class Turns:
    """The turns of one bridge."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self._factory = admission.factory
        self.limits = admission.factory.limits
        self._log = admission.factory.log
        self.store = TurnStore(admission.factory.log)
        self._answering = Answering(admission.factory.service)
        self._rates: OrderedDict[str, Session] = OrderedDict()
        self._beginning: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    # Who asks

    async def asker(self, request: HTTPConnection) -> Asker:
        """
        Return who sends this request.

        Raises:
            Refusal: If the bridge is not ready, or the credentials or the log are refused.
        """
        self.admission.check_ready()
        wanted = self.admission.wanted(request)
        identity = await self.admission.require(request)
        admitted = await self.admission.admit(
            identity, Wanted(after="now", log_id=wanted.log_id, thread_ids=None)
        )
        return Asker(identity, admitted.log_id, admitted.may_write, request)

    async def may_use(self, asker: Asker, thread_id: str) -> bool:
        """Whether a thread is granted."""
        rule = self._factory.service.authorize_thread
        return await may_use_thread(rule, asker.identity, thread_id)

    def check_rate(self, asker: Asker) -> None:
        """Refuse with 429 who sends too much; the rate is that of the native wire."""
        now = time.monotonic()
        user_id = asker.identity.user_id
        session = self._rates.pop(user_id, None) or Session(
            "wires", self.limits, now=now, is_authenticated=True
        )
        self._rates[user_id] = session
        if len(self._rates) > SENDERS_REMEMBERED:
            self._rates.popitem(last=False)
        if not session.is_within_rate(now):
            raise Refusal(429, "rate_limited", "too many messages a second", retry_after=1)

    async def body(self, request: Request) -> str:
        """
        Return the body of a request as text.

        Raises:
            Refusal: If it is over the limit of these wires, too slow, or nests too deep.
        """
        body = await read_body(request, self.limits.wire_message_bytes)
        return self.checked(body.decode(errors="replace"))

    def checked(self, text: str) -> str:
        """Return a message's text, unless it nests too deep."""
        nesting = self.limits.nesting
        if nests_deeper(text, nesting):
            raise Refusal(400, "bad_message", f"a message nests at most {nesting} deep")
        return text

    # Beginning

    async def begin(
        self,
        asker: Asker,
        *,
        thread_id: str,
        command_id: str,
        data: Mapping[str, Any],
        wire_run_id: str | None = None,
    ) -> Begun:
        """
        Give a message of the user to the application; return the turn that answers it.

        Its ``message_id`` is what the client calls the message; other clients
        of the user see it too.

        The same command again finds the turn that it began, unless that failed
        or was cancelled: then it is another attempt.

        Raises:
            Refusal: As the application, or the rules of messages, answer.
            LogError: If the log cannot be written.
        """
        if not asker.may_write:
            raise Refusal(403, "forbidden", "this log may only be read")
        place = (asker.log_id, thread_id)
        # Two messages at once in one chat: the second one finds the first one's run.
        async with self._beginning.setdefault(place, asyncio.Lock()):
            return await self._begin(asker, thread_id, command_id, data, wire_run_id)

    async def begun_by(self, asker: Asker, thread_id: str, command_id: str) -> Begun | None:
        """Return the turn that a command began, if that is the latest of its thread."""
        if not await self.may_use(asker, thread_id):
            return None
        latest = await self.store.find(asker.log_id, thread_id)
        return latest if latest is not None and _is_by(latest, command_id) else None

    async def _begin(
        self,
        asker: Asker,
        thread_id: str,
        command_id: str,
        data: Mapping[str, Any],
        wire_run_id: str | None,
    ) -> Begun:
        former = await self.store.find(asker.log_id, thread_id)
        if former is not None and former.message_id is not None:
            turn = await self.seen(asker, former)
            if _is_by(former, command_id):
                if turn.ending not in {Ending.FAILED, Ending.CANCELLED}:
                    return former
                command_id = f"{command_id}_{secrets.token_hex(4)}"
            elif turn.is_started and not turn.is_stopped:
                raise Refusal(409, "turn_active", "an answer is being given in this chat: stop it")
        begun = Begun(
            thread_id=thread_id,
            after=str(await self._log.head(asker.log_id)),
            message_id=f"msg_{command_id}",
            wire_run_id=wire_run_id,
            at=time.time(),
        )
        message = ClientMessage(
            type="user_message", id=command_id, thread_id=thread_id, data=dict(data)
        )
        named = data["message_id"] if isinstance(data["message_id"], str) else None
        source = msgspec.structs.replace(asker.source, client_message_id=named)
        await self.store.keep(asker.log_id, begun)
        reply = msgspec.json.decode(await self._factory.service.handle(source, message))
        if reply["type"] == "error":
            await self.store.forget(asker.log_id, begun, former)
            raise refusal_of(ProtocolError(reply["code"], reply["message"]))
        return begun

    async def answer(
        self, asker: Asker, thread_id: str, answers: Mapping[str, Any], command_id: str
    ) -> tuple[Begun, Position]:
        """
        Give answers of the user to what a turn asked; return it, and where it stopped for them.

        Those that another was faster with do not count, and those that are
        over neither: what became of the questions is in the turn. What other
        turns asked is left out, for messages of clients hold that too.

        Raises:
            Refusal: If nothing here asked these questions, or nobody can go on.
        """
        if not asker.may_write:
            raise Refusal(403, "forbidden", "this log may only be read")
        for begun in await self._candidates(asker, thread_id):
            turn = await self.seen(asker, begun)
            mine = {id: answer for id, answer in answers.items() if id in turn.asked_at}
            if mine:
                break
        else:
            raise Refusal(403, "forbidden", "this server asked no question with this id")
        for request_id, answer in mine.items():
            try:
                await self._answering.take(
                    asker.source, request_id, answer, f"{command_id}:{request_id}"[:256]
                )
            except ProtocolError as error:
                if error.code != "not_found":
                    raise refusal_of(error) from None
        fresh = [turn.asked_at[id] for id in mine if id in turn.pending]
        # A repeat reads again what followed the last answer.
        return begun, min(fresh) if fresh else max(turn.asked_at[id] for id in mine)

    # Finding

    async def active(self, asker: Asker, thread_id: str) -> tuple[Begun, Turn] | None:
        """Return the turn of a thread that a page has to see: at work, waiting, or just ended."""
        for begun in await self._candidates(asker, thread_id):
            turn = await self.seen(asker, begun)
            if self._is_to_be_seen(begun, turn):
                return begun, turn
        return None

    def _is_to_be_seen(self, begun: Begun, turn: Turn) -> bool:
        now = time.time()
        if not turn.is_started:
            return begun.at > now - self.limits.start_patience
        is_recent = turn.ended_at > (now - REPLAYED_SECONDS) * 1000
        return not turn.is_stopped or turn.ending is Ending.WAITING or is_recent

    async def _candidates(self, asker: Asker, thread_id: str) -> list[Begun]:
        """Return the latest turn of these wires, and the runs that were begun in other ways."""
        found = await self.store.find(asker.log_id, thread_id)
        runs = await self._log.runs(asker.log_id, thread_id=thread_id, only_open=True)
        place = str(await self._log.locate(asker.log_id, "open"))
        others = [
            Begun(thread_id=thread_id, after=place, run_id=run.run_id)
            for run in reversed(runs)
            if run.parent_run_id is None
        ]
        return others if found is None else [found, *others]

    async def whole(self, asker: Asker, thread_id: str) -> Begun:
        """Return all that the log has of a thread, as what to read."""
        place = await self._log.locate(asker.log_id, "start")
        return Begun(thread_id=thread_id, after=str(place))

    async def seen(self, asker: Asker, begun: Begun) -> Turn:
        """Return a turn as its events through now tell it."""
        turn = begun.turn()
        await self.read(asker, begun, turn.take)
        return turn

    async def read(
        self,
        asker: Asker,
        begun: Begun,
        take: Callable[[WebSocketEvent], object],
        through: Position | None = None,
    ) -> Position:
        """Give ``take`` the events of a turn's thread, through a place or now; return the place."""
        place = Position.parse(begun.after)
        while through is None or place.seq < through.seq:
            page = await self._log.read(asker.log_id, place, thread_ids={begun.thread_id})
            for record in page.records:
                if through is not None and record.first_seq > through.seq:
                    return through
                take(event_of(record))
            place = page.place
            if page.is_at_head:
                break
        return place if through is None else through

    async def stop(self, asker: Asker, thread_id: str, *, reason: str | None = None) -> int:
        """Ask for the open runs of a thread to be cancelled; returns how many."""
        if not asker.may_write or not await self.may_use(asker, thread_id):
            return 0
        runs = await self._log.runs(asker.log_id, thread_id=thread_id, only_open=True)
        asked = 0
        for run in runs:
            if run.parent_run_id is None:
                outcome = await self._log.request_cancel(
                    asker.log_id, run.run_id, reason=reason, by="user"
                )
                asked += outcome is CancelOutcome.STORED
        return asked

    # Reading

    async def open(self, asker: Asker, begun: Begun, after: str | None = None) -> Connection:
        """
        Return a connection that reads a turn, from its beginning or from a place.

        Give it a transport, then :meth:`start` it.

        Raises:
            Refusal: If the thread is not granted, or the log cannot be read.
        """
        connection = self.admission.new_connection(
            asker.request, on_message=lambda *_: None, is_authenticated=True
        )
        wanted = self._wanted(asker, begun, after)
        await self.admission.prepare(connection, asker.identity, wanted)
        return connection

    def start(self, connection: Connection, asker: Asker, begun: Begun) -> None:
        """Let a connection read; its transport is there."""
        self.admission.begin(connection, self._wanted(asker, begun, None))

    def _wanted(self, asker: Asker, begun: Begun, after: str | None) -> Wanted:
        threads = frozenset({begun.thread_id})
        return Wanted(after=after or begun.after, log_id=asker.log_id, thread_ids=threads)


def _is_by(begun: Begun, command_id: str) -> bool:
    """Whether a command began this turn, or another attempt of it."""
    name = f"msg_{command_id}"
    return begun.message_id == name or (begun.message_id or "").startswith(f"{name}_")


def refusal_of(error: ProtocolError) -> Refusal:
    """Return a refusal of a message as HTTP tells it."""
    status = STATUSES.get(error.code, 500)
    return Refusal(
        int(status), error.code, error.message, retry_after=1 if status in {429, 503} else None
    )


def command_id(wire: str, *about: object) -> str:
    """Return the id of a message that its client gave none of its own: the same for a repeat."""
    return f"{wire}_{hashlib.blake2b(encode(about), digest_size=16).hexdigest()}"
