"""``/ag-ui``: AG-UI over HTTP, for ``HttpAgent`` and other clients of server-sent events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from catenary.context import check_id
from catenary.errors import UsageError
from catenary.position import Position
from catenary.serving.admission import Refusal
from catenary.serving.answers import answer, decoded
from catenary.serving.sse import HEADERS
from catenary.serving.turn_places import going_on
from catenary.serving.turn_store import Begun
from catenary.serving.turn_transport import EventStream, TurnResponse
from catenary.serving.turns import Asker, Turns, command_id
from catenary.wires.ag_ui import AgUiTurn
from catenary.wires.ag_ui_history import AgUiHistory
from catenary.wires.translation import Said, Translation


class Resume(msgspec.Struct, kw_only=True):
    """The answer to one interrupt."""

    interruptId: str  # noqa: N815 - the wire's word
    status: str = "resolved"
    payload: Any = None

    @property
    def answer(self) -> Any:
        """What the run that asked gets."""
        return self.payload if self.status == "resolved" else {"approved": False, "cancelled": True}


class RunAgentInput(msgspec.Struct, kw_only=True):
    """What a client sends to get an answer. What its messages say is not to be trusted."""

    threadId: str  # noqa: N815
    runId: str  # noqa: N815
    messages: list[dict[str, Any]] = []
    tools: Any = None
    context: Any = None
    state: Any = None
    forwardedProps: Any = None  # noqa: N815
    resume: list[Resume] | None = None


class Stream(NamedTuple):
    """A turn to be streamed: how, from where, and what comes first."""

    begun: Begun
    translation: Translation
    after: str | None = None
    first: Sequence[Said] = ()


def read_input(text: str) -> RunAgentInput:
    """
    Read what a client sent.

    Raises:
        Refusal: If it is none, or its ids cannot be names in a log.
    """
    asked = decoded(text.encode(), RunAgentInput)
    try:
        check_id("threadId", asked.threadId)
        check_id("runId", asked.runId)
    except UsageError as error:
        raise Refusal(400, "bad_message", str(error)) from None
    return asked


async def ran(turns: Turns, asker: Asker, asked: RunAgentInput) -> Stream:
    """
    Do what a client sent; return the turn that answers it.

    Raises:
        Refusal: If it is nothing that can be answered.
    """
    if asked.resume:
        return await _answered(turns, asker, asked, asked.resume)
    message = asked.messages[-1] if asked.messages else {}
    if message.get("role") != "user":
        raise Refusal(400, "bad_message", "the last message is the user's, or resume has answers")
    begun = await turns.begin(
        asker,
        thread_id=asked.threadId,
        command_id=command_id("agui", asked.threadId, asked.runId),
        wire_run_id=asked.runId,
        data={
            "content": _text_of(message.get("content")),
            "message_id": message.get("id"),
            "parts": message.get("content"),
            "messages": asked.messages,
            "tools": asked.tools,
            "context": asked.context,
            "state": asked.state,
            "forwarded": asked.forwardedProps,
            "wire": "ag-ui",
        },
    )
    turn = await turns.seen(asker, begun)
    return Stream(begun, Translation(encoder_of(begun), stops_from=turn.next_stop))


async def _answered(
    turns: Turns, asker: Asker, asked: RunAgentInput, resume: list[Resume]
) -> Stream:
    answers = {one.interruptId: one.answer for one in resume}
    command = command_id("agui", asked.runId)
    begun, through = await turns.answer(asker, asked.threadId, answers, command)
    begun = await turns.store.name_run(asker.log_id, begun, asked.runId, through)
    return await replayed(turns, asker, begun, None)


async def replayed(turns: Turns, asker: Asker, begun: Begun, after: str | None) -> Stream:
    """
    Return the stream of a run that was begun before, from its start or after a place.

    Raises:
        Refusal: If the place is none.
    """
    through = None if begun.through is None else Position.parse(begun.through)
    translation, place = await going_on(
        turns, asker, begun, encoder_of(begun), after=after, through=through
    )
    return Stream(begun, translation, place)


async def ran_again(turns: Turns, asker: Asker, asked: RunAgentInput, after: str | None) -> Stream:
    """
    Return the rest of the run that this input began; if it began none yet, it does now.

    Raises:
        Refusal: As of ``ran``, or if the place is none.
    """
    begun = await turns.store.find_run(asker.log_id, asked.runId)
    if begun is None or not await turns.may_use(asker, begun.thread_id):
        return await ran(turns, asker, asked)
    return await replayed(turns, asker, begun, after)


async def joined_again(
    turns: Turns, asker: Asker, asked: RunAgentInput, after: str
) -> Stream | None:
    """
    Return the rest of the turn that a reader joined; None if there is none.

    Raises:
        Refusal: If the place is none.
    """
    if not await turns.may_use(asker, asked.threadId):
        return None
    found = await turns.active(asker, asked.threadId)
    begun = found[0] if found else await turns.store.find(asker.log_id, asked.threadId)
    if begun is None:
        return None
    named = msgspec.structs.replace(begun, wire_run_id=asked.runId, through=None)
    return await replayed(turns, asker, named, after)


async def joined(turns: Turns, asker: Asker, asked: RunAgentInput) -> Stream | None:
    """
    Return the thread's turn for a reader that comes in the middle; None if there is none.

    What it knows is brought up to now first; then it reads on. A reader that
    has no messages gets those of the thread, as far as the log has them, also
    where nothing is at work.
    """
    if not await turns.may_use(asker, asked.threadId):
        return None
    found = await turns.active(asker, asked.threadId)
    if found is None:
        return None if asked.messages else await _told(turns, asker, asked)
    begun = msgspec.structs.replace(found[0], wire_run_id=asked.runId)
    encoder = encoder_of(begun)
    frames: list[dict[str, Any]] = []
    place = await turns.read(asker, begun, lambda event: frames.extend(encoder.take(event)))
    known = asked.messages
    if not known:
        history, _ = await _history(turns, asker, asked.threadId)
        known = history.messages(without=encoder.turn.message_id)
    first = encoder.joined(frames, known)
    translation = Translation(encoder, stops_from=place.seq + 1)
    if encoder.turn.is_stopped:
        translation.is_done = True
        first += encoder.stop()
    return Stream(begun, translation, str(place), _group(first, place))


async def _told(turns: Turns, asker: Asker, asked: RunAgentInput) -> Stream | None:
    """Return what was said in a thread where nothing is at work; None if that is nothing."""
    history, place = await _history(turns, asker, asked.threadId)
    messages = history.messages()
    if not messages:
        return None
    begun = Begun(thread_id=asked.threadId, after=str(place), wire_run_id=asked.runId)
    encoder = encoder_of(begun)
    translation = Translation(encoder)
    translation.is_done = True
    first = [*encoder.joined([], messages), *encoder.stop()]
    return Stream(begun, translation, str(place), _group(first, place))


async def _history(turns: Turns, asker: Asker, thread_id: str) -> tuple[AgUiHistory, Position]:
    history = AgUiHistory(thread_id)
    place = await turns.read(asker, await turns.whole(asker, thread_id), history.take)
    return history, place


def _group(frames: list[dict[str, Any]], place: Position) -> list[Said]:
    """Who has only a part of these frames has to join anew: only the last one has a place."""
    places = [""] * (len(frames) - 1) + [str(place)]
    return [Said(at, msgspec.json.encode(frame)) for at, frame in zip(places, frames, strict=True)]


def encoder_of(begun: Begun) -> AgUiTurn:
    """Return what encodes a turn under the names that its client gave."""
    run_id = begun.wire_run_id or begun.run_id or ""
    return AgUiTurn(begun.turn(), thread_id=begun.thread_id, run_id=run_id)


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


class AgUiStream(EventStream):
    """A turn as AG-UI clients read it over HTTP; each event with its place, to resume from."""

    async def _say(self, said: Sequence[Said]) -> None:
        await self._put(_body(_events(said), more=True))


def _events(said: Sequence[Said]) -> bytes:
    return b"".join(
        b"id: %b\ndata: %b\n\n" % (one.place.encode(), one.frame)
        if one.place
        else b"data: %b\n\n" % one.frame
        for one in said
    )


def _body(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


class AgUiEndpoint:
    """``POST /ag-ui``, ``/ag-ui/connect`` and ``/ag-ui/stop``, each with a ``RunAgentInput``."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    async def run(self, request: Request) -> Response:
        """Take a message, or answers, and stream the run; with ``Last-Event-ID``, its rest."""
        asker, asked = await self._read(request)
        last_id = request.headers.get("last-event-id")
        if last_id:
            return await self._streamed(asker, await ran_again(self._turns, asker, asked, last_id))
        return await self._streamed(asker, await ran(self._turns, asker, asked))

    async def connect(self, request: Request) -> Response:
        """Stream what is at work in the thread, from the middle; nothing when nothing is."""
        asker, asked = await self._read(request)
        stream = await joined(self._turns, asker, asked)
        if stream is None:
            # A stream that ends at once, for `HttpAgent` takes a 204 for a failure.
            return Response(b": idle\n\n", headers=HEADERS)
        return await self._streamed(asker, stream)

    async def stop(self, request: Request) -> Response:
        """Cancel what answers in the thread; what was said so far stays."""
        asker, asked = await self._read(request)
        return answer({"stopped": await self._turns.stop(asker, asked.threadId)})

    async def _read(self, request: Request) -> tuple[Asker, RunAgentInput]:
        asker = await self._turns.asker(request)
        self._turns.check_rate(asker)
        return asker, read_input(await self._turns.body(request))

    async def _streamed(self, asker: Asker, stream: Stream) -> Response:
        if stream.translation.is_done:
            return Response(_events(stream.first), headers=HEADERS)
        connection = await self._turns.open(asker, stream.begun, stream.after)
        return TurnResponse(
            self._turns,
            asker,
            stream.begun,
            connection,
            stream.translation,
            transport=AgUiStream,
            headers={},
            first=stream.first,
        )
