"""
Asking the user from inside a run, and the one event that is the answer.

Whoever answers appends ``input_resolved`` under an idempotency key, so the
first one in the log counts, whatever the nodes; a run that waits reads its log
until it is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from catenary.errors import LogUnavailable
from catenary.eventlog.base import EventLog
from catenary.eventlog.entry import Entry
from catenary.eventlog.model import RunInfo
from catenary.eventlog.receipt import Receipt
from catenary.eventlog.signal import Signal
from catenary.events import (
    AgentCompleted,
    EventType,
    InputRequested,
    InputResolved,
    WebSocketEvent,
)
from catenary.grammar import Step
from catenary.position import Position
from catenary.questions import EXPIRY, WITHDRAWN, Question, answer_key, find, forget, keep
from catenary.verbs import Verbs
from catenary.voice import now_ms, with_key
from catenary.wires.native import event_of

RETRY_SECONDS = 1.0
"""How long a run that waits for an answer leaves a log alone that cannot be read."""


async def ask(
    verbs: Verbs, run_id: str, request: InputRequested, *, signal: Signal, check: Callable[[], None]
) -> Any:
    """
    Ask, and wait for the answer in the log; ``check`` raises if the run is interrupted.

    Raises:
        TimeoutError: If nobody answered before the question expired.
    """
    log, log_id = verbs.log, verbs.stream.log_id
    question = Question(request=request, run_id=run_id, thread_id=verbs.context.thread_id)
    await keep(log, log_id, [question])
    try:
        receipt = _append(verbs, run_id, request)
    except BaseException:
        await forget(log, log_id, [request.request_id])
        raise
    place = await receipt
    await log.watch(log_id, signal)
    limit = asyncio.timeout(_until(request.expires_at))
    try:
        async with limit:
            resolved = await _awaited(verbs, question, place, signal=signal, check=check)
    except TimeoutError:
        if not limit.expired():
            raise
        resolved = await _expire(verbs, question)
    except asyncio.CancelledError:
        check()
        # Not the run is given up, but this question.
        verbs.append(
            _answer(verbs, InputResolved(request_id=request.request_id, by=WITHDRAWN), run_id)
        )
        raise
    finally:
        log.unwatch(verbs.stream, signal)
    if resolved.by == EXPIRY:
        raise TimeoutError(f"nobody answered {request.question or request.request_id!r} in time")
    return resolved.answer


def _append(verbs: Verbs, run_id: str, request: InputRequested) -> Receipt:
    entry = verbs.voice(run_id).event(EventType.INPUT_REQUESTED, request, step=Step.WITHIN)
    return verbs.append(entry)


def _until(expires_at: int | None) -> float | None:
    return None if expires_at is None else max(0.0, (expires_at - now_ms()) / 1000)


async def _awaited(
    verbs: Verbs, question: Question, place: Position, *, signal: Signal, check: Callable[[], None]
) -> InputResolved:
    """Read the run's events from ``place`` until the answer is among them."""
    log, log_id = verbs.log, verbs.stream.log_id
    while True:
        signal.is_awake = False
        check()
        try:
            page = await log.read(log_id, place, run_id=question.run_id)
        except LogUnavailable:
            await asyncio.sleep(RETRY_SECONDS)
            continue
        for record in page.records:
            if record.type == EventType.INPUT_RESOLVED:
                event = event_of(record)
                if event.data.get("request_id") == question.request_id:
                    return _resolved(event)
        if page.gap is not None:
            known = await find(log, log_id, question.request_id)
            if known is not None and known.by is not None:
                return InputResolved(request_id=known.request_id, answer=known.answer, by=known.by)
        place = page.place
        if page.is_at_head:
            await signal.wait()


async def _expire(verbs: Verbs, question: Question) -> InputResolved:
    """Let nobody answer any more; returns the answer that was faster, if one was."""
    asked = InputResolved(request_id=question.request_id, by=EXPIRY)
    resolved = await resolve(verbs, asked, run_id=question.run_id)
    await keep(verbs.log, verbs.stream.log_id, [answered(question, resolved)])
    return resolved


async def resolve(verbs: Verbs, asked: InputResolved, *, run_id: str | None) -> InputResolved:
    """
    Append an answer, unless there is one; return the one that counts.

    ``run_id`` is that of a run that is open and waits for it; else None.

    Raises:
        RunClosed: If the run has ended meanwhile.
        EventTooLarge, LogFull, LogUnavailable: As a verb.
    """
    log, log_id = verbs.log, verbs.stream.log_id
    place = await verbs.append(_answer(verbs, asked, run_id))
    first = await _at(log, log_id, place)
    return asked if first is None else _resolved(first)


def _answer(verbs: Verbs, asked: InputResolved, run_id: str | None) -> Entry:
    entry = verbs.voice(run_id).event(EventType.INPUT_RESOLVED, asked)
    # The same for all answers, so that a second one is a repeat and not a conflict.
    same = InputResolved(request_id=asked.request_id, by="")
    return with_key(entry, answer_key(asked.request_id), same)


async def found_in(
    log: EventLog, log_id: str, run: RunInfo, request_id: str
) -> InputResolved | None:
    """Return the answer that a run got, if the log still has it."""
    place = await log.locate(log_id, "start")
    if place.seq < run.first_seq:
        place = Position((await log.head(log_id)).epoch, run.first_seq)
    while True:
        page = await log.read(log_id, place, run_id=run.run_id)
        for record in page.records:
            if record.type == EventType.INPUT_RESOLVED:
                event = event_of(record)
                if event.data.get("request_id") == request_id:
                    return _resolved(event)
        place = page.place
        if page.is_at_head or place.seq >= run.last_seq:
            return None


async def _at(log: EventLog, log_id: str, place: Position) -> WebSocketEvent | None:
    page = await log.read(log_id, Position(place.epoch, place.seq - 1), limit=1)
    for record in page.records:
        if record.position == place and record.type == EventType.INPUT_RESOLVED:
            return event_of(record)
    return None


def _resolved(event: WebSocketEvent) -> InputResolved:
    data = event.data
    return InputResolved(
        request_id=data["request_id"],
        answer=data.get("answer"),
        by=data.get("by", ""),
        client_message_id=data.get("client_message_id"),
    )


def answered(question: Question, resolved: InputResolved) -> Question:
    """Return a question with its answer."""
    return msgspec.structs.replace(
        question,
        answer=resolved.answer,
        by=resolved.by,
        client_message_id=resolved.client_message_id,
    )


class Suspension:
    """What a run asks as it ends, and what it keeps for whoever goes on."""

    def __init__(self, requests: Sequence[InputRequested], state: Any) -> None:
        self.requests = requests
        self.state = state

    async def keep(self, verbs: Verbs, run_id: str) -> None:
        """Put the questions, so that they are known before anyone sees them."""
        siblings = tuple(request.request_id for request in self.requests)
        questions = [
            Question(
                request=request,
                run_id=run_id,
                thread_id=verbs.context.thread_id,
                siblings=siblings,
                state=self.state if request is self.requests[0] else None,
            )
            for request in self.requests
        ]
        await keep(verbs.log, verbs.stream.log_id, questions)

    def end(self, verbs: Verbs, run_id: str, completed: AgentCompleted) -> Receipt:
        """End the run with its questions, in one step."""
        voice = verbs.voice(run_id)
        entries = [
            voice.event(EventType.INPUT_REQUESTED, request, step=Step.WITHIN)
            for request in self.requests
        ]
        return verbs.append_all([*entries, verbs.completion(completed, run_id)])
