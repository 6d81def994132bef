"""
Questions to the user, as a log keeps them beside its events until they are answered.

A record is put before its ``input_requested`` is in the log, and outlives the
events: an answer may come after they are gone, and on another node. The first
``input_resolved`` in the log is the answer; the record only remembers it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from catenary.context import new_id
from catenary.encoding import encode, to_builtins
from catenary.errors import UsageError
from catenary.eventlog.base import EventLog
from catenary.events import InputKind, InputRequested
from catenary.redaction import redact
from catenary.voice import now_ms

LIFE_SECONDS = 7 * 24 * 3600.0
"""How long a question without an expiry can be answered."""

GRACE_SECONDS = 24 * 3600.0
"""How much longer a question is known, so that a late answer is told what happened."""

EXPIRY = "expiry"
"""Who answered a question that nobody answered in time."""

WITHDRAWN = "withdrawn"
"""Who answered a question whose agent waits for it no longer."""

NOBODY = frozenset({EXPIRY, WITHDRAWN})


class Question(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    One question that this log issued.

    ``siblings`` are the ids of all questions that one suspension asked, and
    ``state`` what it kept, with the first of them. ``by`` is None until it is
    answered; ``goes_on`` says that its run was gone by then, so that the answer
    begins another.
    """

    request: InputRequested
    run_id: str
    thread_id: str | None
    siblings: tuple[str, ...] = ()
    state: Any = None
    answer: Any = None
    by: str | None = None
    client_message_id: str | None = None
    goes_on: bool = False

    @property
    def request_id(self) -> str:
        """The id that answers name."""
        return self.request.request_id

    @property
    def suspends(self) -> bool:
        """Whether its run ended with it."""
        return self.request.suspends

    def is_expired(self, at: int) -> bool:
        """Whether it could be answered before ``at`` only (ms since 1970)."""
        return self.request.expires_at is not None and at >= self.request.expires_at


def request(
    question: str | None = None,
    *,
    schema: Mapping[str, Any] | None = None,
    kind: str = "question",
    tool_call_id: str | None = None,
    tool_name: str | None = None,
    tool_input: Any = None,
    timeout: float | None = None,
) -> InputRequested:
    """
    Return a question to the user, for :meth:`Run.suspend`; see :meth:`Run.ask`.

    ``tool_name`` and ``tool_input`` tell the user what an approval is for, when
    the call has not begun; secrets in the input are redacted. It can be
    answered for ``timeout`` seconds, 7 days if None.

    Raises:
        UsageError: If the kind is none, or ``timeout`` is no positive number.
    """
    if kind not in set(InputKind):
        raise UsageError(f"kind is one of {', '.join(InputKind)}, not {kind!r:.40}")
    life = LIFE_SECONDS if timeout is None else timeout
    if not life > 0:
        raise UsageError(f"timeout is a positive number of seconds, not {timeout!r:.40}")
    return InputRequested(
        request_id=new_id("ask"),
        kind=InputKind(kind),
        question=question,
        schema=to_builtins(schema),
        tool_call_id=tool_call_id,
        tool_name=tool_name,
        tool_input=redact(to_builtins(tool_input)) if tool_input is not None else None,
        expires_at=now_ms() + int(life * 1000),
    )


async def keep(log: EventLog, log_id: str, questions: Iterable[Question]) -> None:
    """Put these records, in place of what the log had of them."""
    for question in questions:
        expires_at = question.request.expires_at
        left = LIFE_SECONDS if expires_at is None else (expires_at - now_ms()) / 1000
        value = encode(question)
        await log.put(_key(log_id, question.request_id), value, max(left, 0) + GRACE_SECONDS)


async def find(log: EventLog, log_id: str, request_id: str) -> Question | None:
    """Return a question that this log issued; None if it did not, or long ago."""
    value = await log.get(_key(log_id, request_id))
    if value is None:
        return None
    # Another version of this program may have put it.
    with contextlib.suppress(msgspec.MsgspecError):
        return msgspec.json.decode(value, type=Question)
    return None


async def find_all(log: EventLog, log_id: str, request_ids: Sequence[str]) -> list[Question]:
    """Return those of these questions that are known, in order."""
    found = [await find(log, log_id, request_id) for request_id in request_ids]
    return [question for question in found if question is not None]


async def forget(log: EventLog, log_id: str, request_ids: Iterable[str]) -> None:
    """Drop these records: their questions were never asked."""
    for request_id in request_ids:
        await log.take(_key(log_id, request_id))


def answer_key(request_id: str) -> str:
    """Return the idempotency key under which the first answer enters the log."""
    return f"answer:{request_id}"


def is_approved(answer: object) -> bool:
    """Whether an answer to an approval is a yes: ``True``, or ``{"approved": True}``."""
    return answer is True or (isinstance(answer, dict) and answer.get("approved") is True)


def _key(log_id: str, request_id: str) -> str:
    # Hashed, so that no id can reach another log's key.
    about = f"{log_id}\0{request_id}".encode()
    return f"question:{hashlib.blake2b(about, digest_size=20).hexdigest()}"
