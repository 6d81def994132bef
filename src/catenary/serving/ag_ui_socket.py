"""``/ws/ag-ui`` and ``/ws/tanstack``: AG-UI over WebSockets."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.types import Receive, Send

from catenary.connection import Connection
from catenary.errors import CloseCode
from catenary.serving.admission import Refusal
from catenary.serving.ag_ui import (
    RunAgentInput,
    Stream,
    joined,
    joined_again,
    ran,
    ran_again,
    read_input,
    replayed,
)
from catenary.serving.turn_store import Begun
from catenary.serving.turns import Asker, Turns
from catenary.serving.wire_socket import STREAMS_LIMIT, OnAbort, SocketStream, WireSocket
from catenary.wires.translation import Said, Translation

NOTHING_MORE = 1008
"""The close code of a stream that is not worth coming back for."""


class _Abort(msgspec.Struct, kw_only=True):
    type: str = ""
    runId: str = ""  # noqa: N815 - the wire's word


class AgUiSocket(WireSocket):
    """
    A socket for one AG-UI run: a ``RunAgentInput`` in, one event a message out.

    It is closed with 1000 after the run. ``{"type": "abort", "runId": …}``
    cancels it. On ``/ws/ag-ui/connect`` the input joins what is at work in its
    thread instead; where nothing is, the socket is closed at once.

    With ``?last_event_id=`` each event comes with its place, as ``{"id",
    "chunk"}``. A client that was cut off sends the same input again with the
    last place that it has, and gets the rest.
    """

    def __init__(
        self, turns: Turns, asker: Asker, receive: Receive, send: Send, *, on_abort: OnAbort
    ) -> None:
        super().__init__(turns, asker, receive, send, on_abort=on_abort)
        self._begun: dict[str, Begun] = {}
        self._aborted: set[str] = set()

    async def take(self, text: str) -> None:
        """Take an input, or an abort."""
        abort = _abort_in(text)
        if abort is None:
            self.start("", self._run(text))
        elif abort.type == "abort":
            self.start(abort.runId, self._abort(abort.runId))

    async def _abort(self, wire_run_id: str) -> None:
        begun = self._begun.get(wire_run_id)
        if begun is None and len(self._aborted) < STREAMS_LIMIT:
            self._aborted.add(wire_run_id)
        elif begun is not None:
            await self.abort(begun)

    async def _run(self, text: str) -> None:
        self.turns.admission.check_ready()
        self.turns.check_rate(self.asker)
        asked = read_input(self.turns.checked(text))
        stream = await self._asked(asked)
        if stream is not None:
            self._begun[asked.runId] = stream.begun
            if asked.runId in self._aborted:
                self._aborted.discard(asked.runId)
                await self.abort(stream.begun)
            await self.streamed(stream)
            del self._begun[asked.runId]
        await self.ended()

    async def _asked(self, asked: RunAgentInput) -> Stream | None:
        after = self.asker.request.query_params.get("last_event_id")
        if self.asker.request.url.path.endswith("/connect"):
            if after:
                return await joined_again(self.turns, self.asker, asked, after)
            return await joined(self.turns, self.asker, asked)
        if after is None:
            return await ran(self.turns, self.asker, asked)
        return await ran_again(self.turns, self.asker, asked, after or None)

    async def streamed(self, stream: Stream) -> None:
        """Stream a run to its stop."""
        for one in stream.first:
            await self.say(one)
        if not stream.translation.is_done:
            await self.stream(
                stream.begun,
                stream.after,
                lambda connection: _Stream(connection, self, stream.translation),
            )

    @property
    def _comes_back(self) -> bool:
        """Whether its client knows places, and comes back with the last one."""
        return "last_event_id" in self.asker.request.query_params

    @property
    def tells_places(self) -> bool:
        """Whether each event comes with its place."""
        return self._comes_back

    async def say(self, said: Said) -> None:
        """Send one event."""
        if self.tells_places:
            named = msgspec.json.encode(said.place)
            await self.put(b'{"id":%b,"chunk":%b}' % (named, said.frame))
        else:
            await self.put(said.frame)

    async def ended(self) -> None:
        """Close: the run was this socket's only one."""
        await self.close(CloseCode.NORMAL, "")

    async def refuse(self, name: str, refusal: Refusal) -> None:
        """Say that the run failed before it began, or to come back."""
        if self._comes_back and refusal.retry_after is not None:
            await self.close(CloseCode.OVERLOADED, refusal.message)
            return
        error = {"type": "RUN_ERROR", "message": refusal.message, "code": refusal.error}
        await self.put(msgspec.json.encode(error))
        await self.ended()


class TanStackSocket(AgUiSocket):
    """
    A conversation of TanStack AI: run after run, each event with its place.

    With ``?offset=`` it replays one run, ``runId``, from there (``-1``: all of
    it), and is closed with 1000; with 1008 where there is nothing to replay.
    """

    async def serve(self) -> None:
        """Take messages, or replay."""
        query = self.asker.request.query_params
        if "offset" in query:
            self.start("", self._replay(query.get("runId", ""), query["offset"]))
        await super().serve()

    async def _replay(self, wire_run_id: str, offset: str) -> None:
        begun = await self.turns.store.find_run(self.asker.log_id, wire_run_id)
        if begun is None or not await self.turns.may_use(self.asker, begun.thread_id):
            await self.close(NOTHING_MORE, "there is nothing to resume")
            return
        await self.streamed(await replayed(self.turns, self.asker, begun, offset))
        await self.close(CloseCode.NORMAL, "")

    @property
    def tells_places(self) -> bool:
        """Always."""
        return True

    async def ended(self) -> None:
        """Stay: the conversation goes on with the next run."""


class _Stream(SocketStream):
    """The events of one run on a socket."""

    socket: AgUiSocket

    def __init__(self, receiver: Connection, socket: AgUiSocket, translation: Translation) -> None:
        super().__init__(receiver, socket, translation)

    async def _say(self, said: Sequence[Said]) -> None:
        for one in said:
            await self.socket.say(one)

    async def _finish(self) -> None:
        """The last event says it."""

    async def _break_off(self, problem: str) -> None:
        # The run goes on, so no event may end it; its reader comes back, if that helps.
        code = CloseCode.RESTARTING if self.translation.can_go_on else NOTHING_MORE
        await self.socket.close(code, problem)


def _abort_in(text: str) -> _Abort | None:
    """Return a message with a type; an input has none."""
    try:
        found = msgspec.json.decode(text, type=_Abort)
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if found.type else None
