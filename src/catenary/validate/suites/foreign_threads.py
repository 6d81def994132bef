"""Threads of others: on every wire a user who names one is answered as if there were none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from catenary.auth import Identity
from catenary.client.messages import ErrorAnswer
from catenary.emitter import UserWebSocketEmitter
from catenary.inbound import Message
from catenary.runs import Run
from catenary.validate.bridges import ServedBridge
from catenary.validate.field import Field
from catenary.validate.rows import Need
from catenary.validate.suites.isolation import isolation

WIRES = ("ai-sdk", "ag-ui", "tanstack")
PATIENCE = 10.0
PRIVATE = "what was said in the other thread"


class Guarded:
    """A bridge that grants threads by their names, a user who asks, and what handlers got."""

    def __init__(self, bridge: ServedBridge, user_id: str, other: str) -> None:
        self.bridge = bridge
        self.user_id = user_id
        self.foreign, self.none, self.own = f"{other}-thread", "no-such-thread", f"{user_id}-thread"
        self.handled: list[str | None] = []

    @property
    def threads(self) -> tuple[str, str, str]:
        """Another user's thread, one that is not, and the user's own."""
        return self.foreign, self.none, self.own

    def http(self) -> httpx.AsyncClient:
        """Return a client of the HTTP endpoints with the user's token."""
        return self.bridge.http(self.bridge.token(self.user_id))

    def socket(self, path: str) -> connect:
        """Return a WebSocket of another wire, with the user's token."""
        url = f"{self.bridge.websocket_url.removesuffix('/ws')}{path}"
        headers = {"authorization": f"Bearer {self.bridge.token(self.user_id)}"}
        return connect(url, additional_headers=headers, proxy=None, open_timeout=PATIENCE)


@asynccontextmanager
async def _guarded(field: Field, *, withdrawn: Sequence[str] = ()) -> AsyncIterator[Guarded]:
    """
    Serve every wire, with a rule for threads: each user's own, but those that are withdrawn.

    In the log of the user who asks a run is at work in the thread that is not
    granted, as if it had been once: whoever does not ask the rule shows it.
    """
    a, b = field.some_users(2)

    async def authorize(identity: Identity, thread_id: str) -> bool:
        return thread_id.startswith(f"{identity.user_id}-") and thread_id not in withdrawn

    async with field.served(authorize_thread=authorize, serve={"wires": WIRES}) as bridge:
        guarded = Guarded(bridge, a, b)

        async def answer(run: Run) -> None:
            run.delta("an answer")

        @bridge.factory.on_message("validate.ask")
        async def asked(message: Message, emitter: UserWebSocketEmitter) -> None:  # noqa: ARG001 - a handler's form
            guarded.handled.append(message.thread_id)

        @bridge.factory.on_message("user_message")
        async def said(message: Message, emitter: UserWebSocketEmitter) -> None:
            guarded.handled.append(message.thread_id)
            emitter.start_run(answer)

        async with bridge.emitter(a, thread_id=guarded.foreign).run() as run:
            run.delta(PRIVATE)
            yield guarded
            field.expect(not run.cancelled, "the run in the other thread was cancelled")
        field.expect(
            guarded.handled == [guarded.own], f"handlers ran for the threads {guarded.handled}"
        )


def _expect_refused(field: Field, answers: Sequence[object], refusal: object) -> None:
    """Expect of the answers for another's thread and for none that both are this refusal."""
    field.expect(answers[0] == refusal, f"another's thread was answered {answers[0]!r:.200}")
    field.expect(answers[1] == refusal, f"a thread that is not was answered {answers[1]!r:.200}")


@isolation.row(
    "another's thread, on the native wire",
    asked="a message that names another user's thread is answered as if there were no such thread",
    needs=(Need.OWN_BRIDGE,),
)
async def on_the_native_wire(field: Field) -> str:
    async with _guarded(field) as guarded, field.audience(guarded.bridge) as audience:
        (reader,) = await audience.join([guarded.user_id])
        codes = []
        for number, thread_id in enumerate(guarded.threads):
            answer = await reader.ask(
                {"type": "validate.ask", "id": str(number), "thread_id": thread_id, "data": {}}
            )
            codes.append(answer.code if isinstance(answer, ErrorAnswer) else "ack")
        _expect_refused(field, codes, "not_found")
        field.expect(codes[2] == "ack", f"the user's own thread was answered {codes[2]}")
        return f"another's: {codes[0]}, none: {codes[1]}, own: {codes[2]}"


@isolation.row(
    "another's thread, over HTTP",
    asked="a message posted for another user's thread is answered as if there were no such thread",
    needs=(Need.OWN_BRIDGE,),
)
async def over_http(field: Field) -> str:
    async with _guarded(field) as guarded, guarded.http() as http:
        answers = []
        for number, thread_id in enumerate(guarded.threads):
            asked = {"type": "validate.ask", "id": str(number), "thread_id": thread_id, "data": {}}
            response = await http.post("/api/messages", json=asked)
            answers.append((response.status_code, response.json().get("code", "ack")))
        _expect_refused(field, answers, (404, "not_found"))
        return f"another's: {answers[0]}, none: {answers[1]}, own: {answers[2]}"


@isolation.row(
    "another's thread, by SSE",
    asked="an EventSource of another user's thread is refused as if there were none, and shows nothing",
    needs=(Need.OWN_BRIDGE,),
)
async def by_sse(field: Field) -> str:
    async with _guarded(field) as guarded, guarded.http() as http:
        statuses = []
        for thread_id in guarded.threads:
            asked = {"thread_id": thread_id, "after": "start"}
            async with http.stream("GET", "/sse", params=asked) as response:
                statuses.append(response.status_code)
        _expect_refused(field, statuses, 403)
        field.expect(statuses[2] == 200, f"the user's own thread was answered {statuses[2]}")
        guarded.handled.append(guarded.own)  # nobody is asked: it only reads
        return f"another's: {statuses[0]}, none: {statuses[1]}, own: {statuses[2]}"


def _chat(thread_id: str) -> dict[str, Any]:
    parts = [{"type": "text", "text": "a question"}]
    return {"id": thread_id, "messages": [{"id": "m1", "role": "user", "parts": parts}]}


def _input(thread_id: str) -> dict[str, Any]:
    messages = [{"id": "m1", "role": "user", "content": "a question"}]
    return {"threadId": thread_id, "runId": f"run of {thread_id}", "messages": messages}


async def _post(
    field: Field,
    guarded: Guarded,
    http: httpx.AsyncClient,
    path: str,
    asked: Callable[[str], dict[str, Any]],
) -> str:
    """Ask a question in each thread; only the user's own must be answered."""
    responses = [await http.post(path, json=asked(thread_id)) for thread_id in guarded.threads]
    statuses = [response.status_code for response in responses]
    _expect_refused(field, statuses, 404)
    field.expect(statuses[2] == 200, f"the user's own thread was answered {statuses[2]}")
    told = [response.text for response in responses[:2]]
    field.expect(told[0] == told[1], f"the refusals differ: {told}")
    return f"another's: {statuses[0]}, none: {statuses[1]}, own: {statuses[2]}"


async def _expect_not_stopped(
    field: Field, http: httpx.AsyncClient, path: str, **options: Any
) -> None:
    stopped = (await http.post(path, **options)).json()
    field.expect(stopped == {"stopped": 0}, f"a stop in the other thread was answered {stopped}")


@isolation.row(
    "another's thread, by the AI SDK",
    asked="a chat of another user's thread is refused as none is; it is not resumed and not stopped",
    needs=(Need.OWN_BRIDGE,),
)
async def by_the_ai_sdk(field: Field) -> str:
    async with _guarded(field) as guarded, guarded.http() as http:
        measured = await _post(field, guarded, http, "/ai-sdk", _chat)
        async with http.stream("GET", f"/ai-sdk/{guarded.foreign}/stream") as response:
            resumed = response.status_code
        field.expect(resumed == 204, f"a resume in the other thread was answered {resumed}")
        await _expect_not_stopped(field, http, f"/ai-sdk/{guarded.foreign}/stop")
        return f"{measured}; resumed: {resumed}, 0 stopped"


@isolation.row(
    "another's thread, by AG-UI",
    asked="a run in another user's thread is refused as in none; it is not joined and not stopped",
    needs=(Need.OWN_BRIDGE,),
)
async def by_ag_ui(field: Field) -> str:
    async with _guarded(field) as guarded, guarded.http() as http:
        measured = await _post(field, guarded, http, "/ag-ui", _input)
        joined = []
        for thread_id in guarded.threads[:2]:
            joins = {**_input(thread_id), "messages": []}
            async with http.stream("POST", "/ag-ui/connect", json=joins) as response:
                joined.append((response.status_code, await anext(response.aiter_lines(), "")))
            await _expect_not_stopped(field, http, "/ag-ui/stop", json=joins)
        _expect_refused(field, joined, (200, ": idle"))
        return f"{measured}; joined: nothing, 0 stopped"


async def _received(ws: ClientConnection) -> dict[str, Any] | None:
    """Return the next message; None if the socket is closed instead."""
    try:
        async with asyncio.timeout(PATIENCE):
            message: dict[str, Any] = json.loads(await ws.recv())
    except ConnectionClosed:
        return None
    return message


async def _ask(guarded: Guarded, path: str, asked: dict[str, Any]) -> dict[str, Any] | None:
    """Send one message over a socket of its own; return the first answer."""
    async with guarded.socket(path) as ws:
        await ws.send(json.dumps(asked))
        return await _received(ws)


@isolation.row(
    "another's thread, by the AI SDK's socket",
    asked="a chat of another user's thread is refused on the socket as none is, and not resumed",
    needs=(Need.OWN_BRIDGE,),
)
async def by_the_ai_sdks_socket(field: Field) -> str:
    async with _guarded(field) as guarded:
        answers = [
            await _ask(guarded, "/ws/ai-sdk", {"type": "send", "requestId": "1", **_chat(thread)})
            for thread in guarded.threads
        ]
        refusal = {"type": "error", "requestId": "1", "errorText": "no such thread"}
        _expect_refused(field, answers, refusal)
        field.expect(answers[2] == {"type": "start", "requestId": "1"}, f"own: {answers[2]}")
        resume = {"type": "resume", "requestId": "1", "id": guarded.foreign}
        resumed = await _ask(guarded, "/ws/ai-sdk", resume)
        field.expect(resumed == {"type": "no-active", "requestId": "1"}, f"resumed: {resumed}")
        return "another's and none: no such thread, own: start; resumed: no-active"


def _kind(frame: dict[str, Any] | None) -> tuple[str, str]:
    """Return the type of an event of AG-UI, and what it says if it is an error."""
    event = frame or {}
    event = event.get("chunk", event)
    return event.get("type", ""), event.get("message", "")


REFUSED_RUN = ("RUN_ERROR", "no such thread")


@isolation.row(
    "another's thread, by AG-UI's socket",
    asked="a run in another user's thread is refused on the socket as in none, and not joined",
    needs=(Need.OWN_BRIDGE,),
)
async def by_ag_uis_socket(field: Field) -> str:
    async with _guarded(field) as guarded:
        kinds = [
            _kind(await _ask(guarded, "/ws/ag-ui", _input(thread))) for thread in guarded.threads
        ]
        _expect_refused(field, kinds, REFUSED_RUN)
        field.expect(kinds[2][0] == "RUN_STARTED", f"the user's own thread was answered {kinds[2]}")
        joins = {**_input(guarded.foreign), "messages": []}
        joined = await _ask(guarded, "/ws/ag-ui/connect", joins)
        field.expect(joined is None, f"who joined was told {joined!r:.200}")
        return "another's and none: RUN_ERROR, own: RUN_STARTED; joined: nothing"


@isolation.row(
    "another's thread, by TanStack",
    asked="a run in another user's thread is refused as in none; one whose thread is withdrawn is not replayed",
    needs=(Need.OWN_BRIDGE,),
)
async def by_tanstack(field: Field) -> str:
    withdrawn: list[str] = []
    async with _guarded(field, withdrawn=withdrawn) as guarded:
        kinds = [
            _kind(await _ask(guarded, "/ws/tanstack", _input(thread))) for thread in guarded.threads
        ]
        _expect_refused(field, kinds, REFUSED_RUN)
        field.expect(kinds[2][0] == "RUN_STARTED", f"the user's own thread was answered {kinds[2]}")
        withdrawn.append(guarded.own)
        run_id = _input(guarded.own)["runId"]
        query = httpx.QueryParams(runId=run_id, offset="-1")
        async with guarded.socket(f"/ws/tanstack?{query}") as ws:
            replayed = await _received(ws)
        field.expect(replayed is None, f"who replayed was told {replayed!r:.200}")
        field.expect(ws.close_code == 1008, f"the replay was closed with {ws.close_code}")
        return f"another's and none: RUN_ERROR, own: RUN_STARTED; replayed: {ws.close_code}"
