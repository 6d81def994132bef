"""
One native connection, sans I/O: what it may say, and what it hears.

Feed it messages and times; it returns what to do. It writes nothing and reads
no clock.
"""

from __future__ import annotations

import enum
import re
from typing import Any

import msgspec

from catenary.context import ConnectionStatus, check_id
from catenary.errors import CloseCode, UsageError
from catenary.eventlog.terms import Gap
from catenary.limits import Limits
from catenary.position import Position
from catenary.wires.native import SUBPROTOCOL, control_frame


class ClientMessage(msgspec.Struct, kw_only=True):
    """A message of a client, as the wire carries it."""

    type: str
    id: str | int | None = None
    thread_id: str | None = None
    data: Any = None
    token: str | None = None
    position: str | None = None
    run_id: str | None = None
    request_id: str | None = None
    answer: Any = None
    reason: str | None = None


class Send(msgspec.Struct, frozen=True):
    """Write this frame."""

    frame: bytes


class Close(msgspec.Struct, frozen=True):
    """Close the connection."""

    code: CloseCode
    reason: str


class Handle(msgspec.Struct, frozen=True):
    """Handle this message; its answer follows when there is one."""

    message: ClientMessage


Action = Send | Close | Handle

REASON_LIMIT = 1000
_LARGEST_ID = 2**53
"""JavaScript reads larger numbers wrong."""

_decode = msgspec.json.Decoder(ClientMessage).decode


class _Phase(enum.Enum):
    WAITING_FOR_AUTH = enum.auto()
    OPEN = enum.auto()


class Session:
    """
    The rules of one connection.

    ``now`` is a monotonic time in seconds, given with every call.
    """

    __slots__ = (
        "_allowance", "_bad", "_checked_at", "_limits", "_phase", "_refused", "connection_id",
        "status",
    )  # fmt: skip

    def __init__(
        self, connection_id: str, limits: Limits, *, now: float, is_authenticated: bool
    ) -> None:
        self.connection_id = connection_id
        self.status = ConnectionStatus.CONNECTING
        self._limits = limits
        self._phase = _Phase.OPEN if is_authenticated else _Phase.WAITING_FOR_AUTH
        self._allowance = float(limits.messages_burst)
        self._checked_at = now
        self._bad = 0
        self._refused = 0

    # In

    def receive(self, message: str | bytes, now: float, timestamp: int) -> Action:
        """Take one message of the client; return what to do. ``timestamp``: ms since 1970."""
        if not self.is_within_rate(now):
            return self._refuse()
        if _is_larger(message, self._limits.message_bytes):
            limit = self._limits.message_bytes
            return self._error(None, "too_large", f"a message has at most {limit:,} bytes")
        if isinstance(message, bytes):
            return self._bad_message(None, "bad_message", "messages are text, not binary")
        if nests_deeper(message, self._limits.nesting):
            return self._bad_message(
                None, "bad_message", f"a message nests at most {self._limits.nesting} deep"
            )
        try:
            parsed = _decode(message)
        except msgspec.ValidationError as error:
            return self._bad_message(None, "bad_message", str(error))
        except (msgspec.DecodeError, UnicodeError):
            return self._bad_message(None, "bad_json", "a message is one JSON object")
        return self._take(parsed, timestamp)

    def _take(self, message: ClientMessage, timestamp: int) -> Action:
        if self._phase is _Phase.WAITING_FOR_AUTH and message.type != "auth":
            return Close(CloseCode.NOT_AUTHENTICATED, "the first message must be auth")
        problem = _problem_of_id(message.id)
        if problem is not None:
            return self._bad_message(None, "bad_message", problem)
        problem = _problem_of_names(message) or _problem_of(message)
        if problem is not None:
            return self._bad_message(message.id, "bad_message", problem)
        if message.type == "ping":
            return Send(control_frame({"type": "pong", "id": message.id, "timestamp": timestamp}))
        return Handle(message)

    def is_within_rate(self, now: float) -> bool:
        """Count one message; whether it is one of those that are allowed."""
        limits = self._limits
        earned = (now - self._checked_at) * limits.messages_per_second
        self._allowance = min(limits.messages_burst, self._allowance + earned)
        self._checked_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        self._refused = 0
        return True

    def _refuse(self) -> Action:
        self._refused += 1
        if self._refused > self._limits.refused_messages:
            return Close(CloseCode.RATE_LIMITED, "too many messages a second")
        return self._error(None, "rate_limited", "too many messages a second; slow down")

    def _bad_message(self, id: str | int | None, code: str, text: str) -> Action:
        self._bad += 1
        if self._bad > self._limits.bad_messages or self._phase is _Phase.WAITING_FOR_AUTH:
            return Close(CloseCode.PROTOCOL_ERROR, f"too many bad messages; the last: {text:.80}")
        return self._error(id, code, text)

    def _error(self, id: str | int | None, code: str, text: str) -> Send:
        return Send(error_frame(id, code, text))

    def authenticated(self) -> None:
        """The first message named a user."""
        self._phase = _Phase.OPEN

    @property
    def is_authenticated(self) -> bool:
        """Whether it is known whose connection this is."""
        return self._phase is _Phase.OPEN

    # Out

    def connected(self, *, user_id: str, log_id: str, head: Position, after: Position) -> bytes:
        """Return the first frame of the connection."""
        self.status = ConnectionStatus.REPLAYING
        return control_frame(
            {
                "type": "connected",
                "protocol": SUBPROTOCOL,
                "connection_id": self.connection_id,
                "user_id": user_id,
                "log_id": log_id if log_id != user_id else None,
                "position": str(head),
                "after": str(after),
                "replay": max(0, head.seq - after.seq),
                "heartbeat_interval": self._limits.heartbeat_interval,
                "max_message_bytes": self._limits.message_bytes,
            }
        )

    def live(self, place: Position) -> bytes:
        """Return the frame that says: all through ``place`` was sent."""
        self.status = ConnectionStatus.LIVE
        return control_frame({"type": "live", "position": str(place)})


def gap_frame(gap: Gap) -> bytes:
    """Return the frame of a gap."""
    return control_frame(
        {
            "type": "gap",
            "after": str(gap.after),
            "resumes_at": str(gap.resumes_at),
            "reason": gap.reason,
        }
    )


def heartbeat_frame(place: Position, timestamp: int) -> bytes:
    """Return the frame of a heartbeat; ``timestamp`` in ms since 1970."""
    return control_frame({"type": "heartbeat", "position": str(place), "timestamp": timestamp})


def closing_frame(reason: str, reconnect_after: float) -> bytes:
    """Return the frame that comes before a planned close; seconds, with jitter."""
    return control_frame(
        {"type": "closing", "reason": reason, "reconnect_after": round(reconnect_after, 3)}
    )


def error_frame(id: str | int | None, code: str, text: str) -> bytes:
    """Return the frame of an error."""
    return control_frame({"type": "error", "id": id, "code": code, "message": text})


def _problem_of(message: ClientMessage) -> str | None:
    if message.type == "auth":
        return None if message.token else "auth needs a token"
    if message.type == "position":
        return None if message.position else "position needs a position"
    if message.type == "ping":
        return None
    if message.id is None:
        return f"{message.type[:40]!r} needs an id of 1 to 128 characters"
    if message.type == "cancel_run" and not message.run_id:
        return "cancel_run needs a run_id"
    if message.type == "answer" and not message.request_id:
        return "answer needs a request_id"
    return None


def _problem_of_id(id: str | int | None) -> str | None:
    if isinstance(id, str) and not (0 < len(id) <= 128 and id.isprintable()):
        return "an id has 1 to 128 printable characters"
    if isinstance(id, int) and abs(id) > _LARGEST_ID:
        return "an id that is a number has at most 53 bits; send a string"
    return None


def _problem_of_names(message: ClientMessage) -> str | None:
    for name in ("type", "thread_id", "run_id", "request_id"):
        value = getattr(message, name)
        if value is not None:
            try:
                check_id(name, value)
            except UsageError as error:
                return str(error)
    if message.reason is not None and len(message.reason) > REASON_LIMIT:
        return f"a reason has at most {REASON_LIMIT:,} characters"
    return None


def _is_larger(message: str | bytes, limit_bytes: int) -> bool:
    size = len(message)
    if size > limit_bytes or isinstance(message, bytes) or message.isascii():
        return size > limit_bytes
    # A character takes at most four bytes.
    return size * 4 > limit_bytes and len(message.encode(errors="surrogatepass")) > limit_bytes


def nests_deeper(text: str, limit: int) -> bool:
    """Whether brackets outside strings nest deeper than ``limit``."""
    if text.count("{") + text.count("[") <= limit:
        return False
    depth = 0
    for bracket in _BRACKETS.finditer(text):
        if bracket[0] in "{[":
            depth += 1
            if depth > limit:
                return True
        elif bracket[0] in "}]":
            depth -= 1
    return False


_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
"""A string, so that what it holds does not count, or one bracket."""
