"""Answers of users to what runs asked: the first one counts, on whatever node."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from catenary.asking import answered, found_in, resolve
from catenary.auth import Identity, may_use_thread
from catenary.emitter import UserWebSocketEmitter
from catenary.errors import EventTooLarge, ProtocolError, RunClosed
from catenary.eventlog.model import RunInfo
from catenary.events import EventType, InputRequested, InputResolved
from catenary.inbound import Handler, Message, MessageHandlerService, Source
from catenary.questions import EXPIRY, NOBODY, Question, find, find_all, keep
from catenary.session import ClientMessage
from catenary.threads import is_coroutine_function
from catenary.voice import now_ms

logger = logging.getLogger("catenary.control")

ANSWER = "answer"
"""The type under which ``on_answer`` is registered; no client can send it as a command."""

CONTINUES = "\x01continue:"
"""Begins the id of a continuation: ids of clients hold no control characters."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a run that ended with questions gets to go on with.

    Attributes:
        run_id: The run that asked, and ended.
        answers: What was answered, by ``request_id``, in the order of the questions.
        requests: The questions.
        state: What :meth:`Run.suspend` kept.
        identity: Who gave the last answer.
    """

    run_id: str
    thread_id: str | None
    identity: Identity
    answers: Mapping[str, Any]
    requests: tuple[InputRequested, ...] = ()
    state: Any = None

    @property
    def answer(self) -> Any:
        """The answer to the first question, for runs that ask one."""
        return next(iter(self.answers.values()))


AnswerHandler = Callable[[Answer, UserWebSocketEmitter], Any]


def continuing(handler: AnswerHandler) -> Handler:
    """Return the handler of messages that calls a handler of answers, async or not as that is."""
    if is_coroutine_function(handler):

        async def go_on(message: Message, emitter: UserWebSocketEmitter) -> Any:
            return await handler(_answer_of(message, emitter), emitter)

        return go_on
    return lambda message, emitter: handler(_answer_of(message, emitter), emitter)


def _answer_of(message: Message, emitter: UserWebSocketEmitter) -> Answer:
    answer = msgspec.convert({**message.data, "identity": message.identity}, Answer)
    emitter.continues_run_id = answer.run_id
    return answer


class Outcome(NamedTuple):
    """What became of an answer: whether it was the first, and the one that counts."""

    is_first: bool
    answer: Any


class Answering:
    """
    Takes answers for the runs of a bridge, and begins what goes on with them.

    A run that is open and waits gets its answer through the log. One that
    suspended itself, or failed or died while it waited, is gone: once all that
    it asked is answered, the service's handler of :data:`ANSWER` is called,
    once, or again if its process dies meanwhile.
    """

    def __init__(self, service: MessageHandlerService) -> None:
        self._service = service

    async def take(self, source: Source, request_id: str, answer: Any, message_id: str) -> Outcome:
        """
        Take an answer; ``message_id`` tells a repeat from a second answer.

        Raises:
            ProtocolError: ``forbidden`` if this log asked no such question,
                ``not_found`` if it is over, ``unknown_type`` if nobody would
                go on with it, or as the handler answered.
            LogError: If the log cannot be written.
        """
        log = self._service.manager.log
        question = await find(log, source.log_id, request_id)
        if question is None or not await self._may_answer(source, question):
            raise ProtocolError("forbidden", "this server asked no question with this id")
        if question.by is None:
            question = await self._resolved(source, question, answer, message_id)
        if question.by in NOBODY:
            raise ProtocolError("not_found", "the question is over: nobody waits for its answer")
        if question.goes_on:
            await self._continue(source, question)
        is_first = question.client_message_id == message_id
        return Outcome(is_first, question.answer)

    async def _may_answer(self, source: Source, question: Question) -> bool:
        rule, thread_id = self._service.authorize_thread, question.thread_id
        return thread_id is None or await may_use_thread(rule, source.identity, thread_id)

    async def _run_of(self, log_id: str, question: Question) -> RunInfo | None:
        runs = await self._service.manager.log.runs(log_id, thread_id=question.thread_id)
        return next((run for run in runs if run.run_id == question.run_id), None)

    async def _resolved(
        self, source: Source, question: Question, answer: Any, message_id: str
    ) -> Question:
        """Let the log decide whose answer counts, and remember it."""
        run = await self._run_of(source.log_id, question)
        if _is_over(question, run):
            return await self._answered_before(source.log_id, question, run)
        goes_on = question.suspends or (run is not None and not run.is_open)
        if goes_on and not self._service.handles(ANSWER):
            raise ProtocolError("unknown_type", "nothing goes on with answers here: on_answer")
        asked = InputResolved(
            request_id=question.request_id,
            by=source.identity.user_id,
            answer=answer,
            client_message_id=message_id,
        )
        if question.is_expired(now_ms()):
            asked = InputResolved(request_id=question.request_id, by=EXPIRY)
        emitter = self._service.emitter(source, question.thread_id)
        try:
            resolved = await resolve(emitter, asked, run_id=None if goes_on else question.run_id)
        except RunClosed:
            run = await self._run_of(source.log_id, question)
            return await self._answered_before(source.log_id, question, run)
        except EventTooLarge as error:
            raise ProtocolError("too_large", str(error)) from None
        question = msgspec.structs.replace(answered(question, resolved), goes_on=goes_on)
        await keep(self._service.manager.log, source.log_id, [question])
        return question

    async def _answered_before(
        self, log_id: str, question: Question, run: RunInfo | None
    ) -> Question:
        """Return what a run that has ended was answered, whose record comes only now."""
        log = self._service.manager.log
        resolved = None
        if run is not None:
            resolved = await found_in(log, log_id, run, question.request_id)
        if resolved is None:
            raise ProtocolError("not_found", "the run that asked has ended")
        question = answered(question, resolved)
        await keep(log, log_id, [question])
        return question

    async def _continue(self, source: Source, question: Question) -> None:
        """Begin what goes on, if this was the last answer that it needs."""
        log = self._service.manager.log
        ids = question.siblings or (question.request_id,)
        questions = await find_all(log, source.log_id, ids)
        if len(questions) < len(ids) or any(one.by is None for one in questions):
            return
        message = ClientMessage(
            type=ANSWER,
            id=f"{CONTINUES}{question.run_id}:{ids[0]}",
            thread_id=question.thread_id,
            data={
                "run_id": question.run_id,
                "thread_id": question.thread_id,
                "answers": {one.request_id: one.answer for one in questions},
                "requests": [msgspec.to_builtins(one.request) for one in questions],
                "state": questions[0].state,
            },
        )
        reply = msgspec.json.decode(await self._service.handle(source, message))
        if reply["type"] == "error":
            logger.error(
                "run %s of %s is not continued: %s", question.run_id, source.log_id, reply["message"]
            )  # fmt: skip
            raise ProtocolError(reply["code"], reply["message"])


def _is_over(question: Question, run: RunInfo | None) -> bool:
    """Whether nobody can need an answer any more."""
    if run is None or run.is_open:
        return run is None and not question.suspends
    if question.suspends:
        return run.end_type != EventType.AGENT_COMPLETED
    # It may have waited when its process was stopped, or lost, or something else in it failed.
    return run.end_type != EventType.AGENT_ERROR
