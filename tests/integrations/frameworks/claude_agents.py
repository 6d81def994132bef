"""Claude Agent SDK on a transport that plays its program: the SDK's own seam for that."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

import anyio
from claude_agent_sdk import ClaudeAgentOptions, Transport, create_sdk_mcp_server, query, tool

from catenary import Run
from catenary.integrations.claude_agent_sdk import relay
from catenary.integrations.relay import PARTS
from tests.integrations.frameworks.script import (
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Call,
    Say,
    Script,
    Think,
    Turn,
    playing,
)

Json = dict[str, Any]
SERVER = "tools"


class ScriptedProgram(Transport):
    """Plays a turn for each response, and calls the tools of the SDK's own server."""

    def __init__(self, turns: Script) -> None:
        self._turns = turns
        self._ids = itertools.count()
        self._answers: dict[str, asyncio.Future[Json]] = {}
        self._task: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    async def connect(self) -> None:
        """Begin."""
        self._out, self._in = anyio.create_memory_object_stream[Json](100)

    def is_ready(self) -> bool:
        return True

    async def end_input(self) -> None:
        """Nothing more is asked."""

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._in.close()
        self._out.close()

    async def write(self, data: str) -> None:
        message = json.loads(data)
        if message["type"] == "control_request":
            done = {"subtype": "success", "request_id": message["request_id"], "response": {}}
            await self._out.send({"type": "control_response", "response": done})
        elif message["type"] == "control_response":
            self._answers.pop(message["response"]["request_id"]).set_result(message["response"])
        elif self._task is None:
            self._task = asyncio.create_task(self._play())

    async def read_messages(self) -> AsyncIterator[Json]:
        async for message in self._in:
            yield message
        if self._failure is not None:
            raise self._failure

    async def _play(self) -> None:
        try:
            await self._work()
        except Exception as error:
            # As a program does that fails: its output ends, and the reader learns why.
            self._failure = error
        self._out.close()

    async def _work(self) -> None:
        about = {"protocolVersion": "2025-06-18", "capabilities": {}}
        await self._ask("initialize", {**about, "clientInfo": {"name": "p", "version": "1"}})
        for turn in self._turns:
            await self._respond(turn)
        await self._out.send(result(len(self._turns)))

    async def _respond(self, turn: Turn) -> None:
        message_id = f"msg_{next(self._ids)}"
        await self._send_event({"type": "message_start", "message": {"id": message_id}})
        blocks: list[Json] = []
        async for piece in playing(turn):
            for event in events_of(piece, blocks):
                await self._send_event(event)
        message = {"id": message_id, "model": "scripted", "content": blocks}
        await self._out.send({"type": "assistant", "message": message})
        calls = [block for block in blocks if block["type"] == "tool_use"]
        async with asyncio.TaskGroup() as group:
            for block in calls:
                group.create_task(self._call(block))

    async def _send_event(self, event: Json) -> None:
        about = {"uuid": "u", "session_id": "s", "parent_tool_use_id": None}
        await self._out.send({"type": "stream_event", "event": event, **about})

    async def _call(self, block: Json) -> None:
        name = block["name"].removeprefix(f"mcp__{SERVER}__")
        asked = {"name": name, "arguments": block["input"]}
        answer = await self._ask("tools/call", asked)
        text, is_error = answer["content"][0]["text"], bool(answer.get("isError"))
        await self._out.send(answered(block["id"], text, is_error=is_error))

    async def _ask(self, method: str, params: Json) -> Json:
        """Ask the SDK's server in this process, as the program does."""
        message = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        answer = await self._request(
            {"subtype": "mcp_message", "server_name": SERVER, "message": message}
        )
        made: Json = answer["response"]["mcp_response"]["result"]
        return made

    async def _request(self, request: Json) -> Json:
        request_id = f"call_{next(self._ids)}"
        future = self._answers[request_id] = asyncio.get_running_loop().create_future()
        await self._out.send(
            {"type": "control_request", "request_id": request_id, "request": request}
        )
        answer: Json = await future
        return answer


class CautiousProgram(ScriptedProgram):
    """Asks whether it may before each call of a tool."""

    async def _call(self, block: Json) -> None:
        asked = {"tool_name": block["name"], "input": block["input"], "tool_use_id": block["id"]}
        answer = (await self._request({"subtype": "can_use_tool", **asked}))["response"]
        if answer["behavior"] == "allow":
            await super()._call(block)
        else:
            await self._out.send(answered(block["id"], answer["message"], is_error=True))


class ToldProgram(ScriptedProgram):
    """Sends these messages, then its result."""

    def __init__(self, messages: Sequence[Json]) -> None:
        super().__init__([])
        self._messages = messages

    async def _work(self) -> None:
        for message in self._messages:
            await self._out.send(message)
        await self._out.send(result(1))


def answered(call: str, text: str, *, is_error: bool = False, parent: str | None = None) -> Json:
    """Return what the program says when a tool has ended."""
    told = {"type": "tool_result", "tool_use_id": call, "content": text, "is_error": is_error}
    message = {"role": "user", "content": [told]}
    return {"type": "user", "message": message, "parent_tool_use_id": parent}


def said_whole(message_id: str, *blocks: Json, parent: str | None = None) -> Json:
    """Return a message of the model, as it comes without its pieces."""
    message = {"id": message_id, "model": "scripted", "content": list(blocks)}
    return {"type": "assistant", "message": message, "parent_tool_use_id": parent}


def events_of(piece: Think | Say | Call, blocks: list[Json]) -> list[Json]:
    """Add a piece to the blocks of its message; return the events of it."""
    begun: list[Json] = []
    kind, field = ("thinking", "thinking") if isinstance(piece, Think) else ("text", "text")
    if isinstance(piece, Call):
        block = {
            "type": "tool_use",
            "id": piece.id,
            "name": f"mcp__{SERVER}__{piece.name}",
            "input": json.loads(piece.input),
        }
        blocks.append(block)
        begun.append(started(blocks, {**block, "input": {}}))
        deltas = [{"type": "input_json_delta", "partial_json": text} for text in piece.pieces]
    else:
        if not blocks or blocks[-1]["type"] != kind:
            blocks.append({"type": kind, field: "", "signature": ""})
            begun.append(started(blocks, blocks[-1]))
        blocks[-1][field] += piece.text
        deltas = [{"type": f"{kind}_delta", field: piece.text}]
    index = len(blocks) - 1
    return [
        *begun,
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
    ]


def started(blocks: list[Json], block: Json) -> Json:
    return {
        "type": "content_block_start",
        "index": len(blocks) - 1,
        "content_block": dict(block),
    }


def result(turns: int) -> Json:
    return {
        "type": "result",
        "subtype": "success",
        "duration_ms": 1,
        "duration_api_ms": 1,
        "is_error": False,
        "num_turns": turns,
        "session_id": "s",
        "result": "done",
        "usage": {"input_tokens": turns * INPUT_TOKENS, "output_tokens": turns * OUTPUT_TOKENS},
    }


def as_tool(function: Callable[..., Any]) -> Any:
    """Return a tool of the SDK; a synchronous function works in a thread."""
    parameters: Any = dict.fromkeys(inspect.signature(function).parameters, str)

    @tool(function.__name__, function.__doc__ or "", parameters)
    async def call(given: Json) -> Json:
        if inspect.iscoroutinefunction(function):
            found = await function(**given)
        else:
            found = await asyncio.to_thread(function, **given)
        return {"content": [{"type": "text", "text": str(found)}]}

    return call


async def answer(
    run: Run,
    turns: Script,
    tools: Sequence[Callable[..., Any]] = (),
    *,
    parts: Collection[str] = PARTS,
) -> str:
    server = create_sdk_mcp_server(SERVER, tools=[as_tool(function) for function in tools])
    options = ClaudeAgentOptions(include_partial_messages=True, mcp_servers={SERVER: server})
    program = ScriptedProgram(turns)
    await relay(query(prompt="Which?", options=options, transport=program), run, parts=parts)
    return "".join(piece.text for piece in turns[-1] if isinstance(piece, Say))
