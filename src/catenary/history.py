"""Reading a log from the application's side: events, runs, and where to begin."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from catenary.errors import PositionLost
from catenary.eventlog.base import EventLog
from catenary.eventlog.model import RunInfo
from catenary.eventlog.signal import Signal
from catenary.events import EventType, WebSocketEvent
from catenary.fold import RunFold, RunState, RunStatus, decode_state
from catenary.position import Position
from catenary.questions import find_all
from catenary.wires.native import event_of


async def fold_run(log: EventLog, info: RunInfo) -> RunState:
    """Return a run folded from its events, and from what was kept of those that are gone."""
    kept = decode_state(info.kept_fold) if info.kept_fold is not None else None
    fold = RunFold(kept)
    start = max(info.first_seq - 1, kept.last_seq if kept is not None else 0)
    place = await log.locate(info.log_id, "start")
    if place.seq < start:
        place = Position((await log.head(info.log_id)).epoch, start)
    while True:
        page = await log.read(info.log_id, place, run_id=info.run_id)
        for record in page.records:
            fold.apply(event_of(record))
        place = page.place
        if page.is_at_head or place.seq >= info.last_seq:
            return fold.state if fold.is_begun else _state_of(info)


def _state_of(info: RunInfo) -> RunState:
    """Return what is known of a run whose events are all gone."""
    return RunState(
        run_id=info.run_id,
        thread_id=info.thread_id,
        agent_name=info.agent_name,
        parent_run_id=info.parent_run_id,
        status=_STATUS.get(info.end_type or "", RunStatus.RUNNING),
        started_at=info.started_at,
        ended_at=info.last_at if info.end_type is not None else None,
        first_seq=info.first_seq,
        last_seq=info.last_seq,
    )


_STATUS: dict[str, RunStatus] = {
    EventType.AGENT_COMPLETED: RunStatus.COMPLETED,
    EventType.AGENT_ERROR: RunStatus.FAILED,
    EventType.AGENT_CANCELLED: RunStatus.CANCELLED,
}


async def read_events(
    log: EventLog, log_id: str, *, after: str, thread_id: str | None, follow: bool
) -> AsyncIterator[WebSocketEvent]:
    """
    Yield the events after a place; with ``follow``, for ever.

    Raises:
        PositionLost: Where events are missing. Its ``resumes_at`` is where to go on.
        UsageError: If ``after`` is no position.
    """
    threads = None if thread_id is None else {thread_id}
    signal = Signal()
    stream = await log.watch(log_id, signal) if follow else None
    try:
        place = await log.locate(log_id, after)
        while True:
            signal.is_awake = False
            page = await log.read(log_id, place, thread_ids=threads)
            if page.gap is not None:
                gap = page.gap
                raise PositionLost(str(gap.after), str(gap.place), gap.reason)
            for record in page.records:
                yield event_of(record)
            place = page.place
            if page.is_at_head:
                if not follow:
                    return
                await signal.wait()
    finally:
        if stream is not None:
            log.unwatch(stream, signal)


async def resume_point(log: EventLog, log_id: str) -> Position:
    """Return the place just before the oldest open run, else the head."""
    return await log.locate(log_id, "open")


async def folded_runs(log: EventLog, log_id: str, thread_id: str | None) -> list[RunState]:
    """Return every run that the log knows, folded, oldest first."""
    infos = await log.runs(log_id, thread_id=thread_id)
    return [await _with_answers(log, log_id, await fold_run(log, info)) for info in infos]


async def _with_answers(log: EventLog, log_id: str, state: RunState) -> RunState:
    """Add the answers that came after a run had ended: they stand outside it."""
    if state.status is not RunStatus.SUSPENDED or not state.pending:
        return state
    asked = {one.request_id: one for one in state.questions}
    for question in await find_all(log, log_id, list(asked)):
        request_id = question.request_id
        if question.by is not None:
            asked[request_id] = msgspec.structs.replace(
                asked[request_id], answer=question.answer, by=question.by
            )
    return msgspec.structs.replace(state, questions=tuple(asked.values()))
