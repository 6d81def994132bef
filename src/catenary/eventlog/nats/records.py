"""What is stored of runs, keys, claims and the like: small messages beside the batches. Pure."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from catenary.errors import RecordCorrupt
from catenary.eventlog.model import RunInfo
from catenary.eventlog.nats.state import Held
from catenary.eventlog.shared.runs import Cancel, RunStart, StoredRun
from catenary.grammar import OpenTool


class RunEnd(msgspec.Struct, frozen=True, array_like=True):
    """How a run ended: the event's type, empty if it was erased, its number and time."""

    type: str
    seq: int
    at: int
    cancel: Cancel | None = None


class RunRecord(msgspec.Struct, frozen=True, array_like=True):
    """A run: what its start says, and its end if it has one."""

    log_id: str
    run_id: str
    first_seq: int
    start: RunStart
    end: RunEnd | None = None


class RunNote(msgspec.Struct, frozen=True, array_like=True):
    """A run that has ended and was not reported, in the order of the ends."""

    log_id: str
    run_id: str
    at: int
    seq: int


class UsedKey(msgspec.Struct, frozen=True, array_like=True):
    """An idempotency key: the digest of its event, and where that is."""

    digest: bytes
    epoch: str
    seq: int


class Claimed(msgspec.Struct, frozen=True, array_like=True):
    """A claimed message: who claimed it when, and the reply once there is one."""

    at: int
    holder: str
    digest: bytes
    reply: bytes | None = None


class Value(msgspec.Struct, frozen=True, array_like=True):
    """A value and when it ends, in ms since 1970."""

    ends_at: int
    value: bytes


class Due(msgspec.Struct, frozen=True, array_like=True):
    """When somebody must look at a log, in ms since 1970."""

    log_id: str
    at: int


class Report(msgspec.Struct, frozen=True, array_like=True):
    """Who reports an ended run, until when in ms since 1970."""

    holder: str
    until: int


T = TypeVar("T")
encode = msgspec.msgpack.Encoder().encode


def decode(payload: bytes, kind: type[T]) -> T:
    """
    Read what :func:`encode` wrote.

    Raises:
        RecordCorrupt: If it is something else.
    """
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.DecodeError as error:
        raise RecordCorrupt(f"a {kind.__name__} in JetStream cannot be read: {error}") from None


def stored_run(record: RunRecord, held: Held | None, kept_fold: bytes | None) -> StoredRun:
    """Return a run; ``held`` is what the log's state knows of it while it is open."""
    start, end = record.start, record.end
    cancel = end.cancel if end is not None else held.cancel if held is not None else None
    last: tuple[int, int] = record.first_seq, start.started_at
    if end is not None:
        last = end.seq, end.at
    elif held is not None:
        last = held.last_seq, held.last_at
    info = RunInfo(
        log_id=record.log_id,
        run_id=record.run_id,
        thread_id=start.thread_id,
        agent_name=start.agent_name,
        parent_run_id=start.parent_run_id,
        is_open=held is not None,
        holder=held.holder if held is not None else "",
        first_seq=record.first_seq,
        last_seq=last[0],
        started_at=start.started_at,
        last_at=last[1],
        lease=start.lease,
        cancel_requested_at=cancel[0] if cancel is not None else None,
        end_type=(end.type or None) if end is not None else None,
        kept_fold=kept_fold,
    )
    tools: dict[str, Any] = held.tools if held is not None else {}
    return StoredRun(
        info, start.user_id, {call: OpenTool(*tool) for call, tool in tools.items()}, cancel
    )
