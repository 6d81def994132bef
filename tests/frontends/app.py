"""
The server of these tests: one handler and one agent behind every wire.

The agent does what the user's message says: words such as ``text:200`` or
``tool``, one after the other. It prints its URL once it listens.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from starlette.requests import HTTPConnection

from catenary import Run, UserWebSocketEmitter, WebSocketBridgeFactory, request
from catenary.answering import Answer
from catenary.inbound import Message
from catenary.serving.server import BridgeServer, config_for, listen

API_KEY = "an-api-key-for-the-tests"

factory = WebSocketBridgeFactory(log=os.environ.get("LOG", "memory://?private"))


async def who(connection: HTTPConnection) -> str | None:
    """Anybody is who they say: these tests are not about signing in."""
    return connection.query_params.get("user") or connection.headers.get("x-user")


@factory.on_message("user_message")
async def asked(message: Message, emitter: UserWebSocketEmitter) -> dict[str, str]:
    """Start the agent that answers, whichever wire the message came on."""
    words = str(message.data["content"]).split()
    return {"run_id": emitter.start_run(agent, words, agent_name="agent").run_id}


@factory.on_answer
async def answered(answer: Answer, emitter: UserWebSocketEmitter) -> None:
    """Go on where the run was suspended."""
    emitter.start_run(going_on, answer, agent_name="agent")


async def going_on(run: Run, answer: Answer) -> None:
    """Say what was answered; use the tool that was approved."""
    for asked_for in answer.requests:
        value = answer.answers[asked_for.request_id]
        if asked_for.tool_name is not None and value["approved"]:
            async with run.tool(
                asked_for.tool_name, asked_for.tool_input, tool_call_id=asked_for.tool_call_id
            ) as tool:
                tool.set_result("done")
        run.delta(f"Answered {value}. ")
    await agent(run, answer.state or [])


async def agent(run: Run, words: list[str]) -> None:
    """Do what each word says."""
    for number, word in enumerate(words):
        kind, _, count = word.partition(":")
        await ACTS[kind](run, int(count or 1), words[number + 1 :])
        if kind == "suspend":
            return


async def text(run: Run, count: int, _: list[str]) -> None:
    """Say so many pieces, numbered, with characters that take several bytes."""
    for piece in range(count):
        run.delta(f"{piece}é✓ ")
        await asyncio.sleep(0.002)


async def burst(run: Run, count: int, _: list[str]) -> None:
    """Say so many pieces at once."""
    for piece in range(count):
        run.delta(f"{piece} ")


async def think(run: Run, count: int, _: list[str]) -> None:
    """Think aloud, and reason piece by piece."""
    run.thinking("What was asked?")
    for piece in range(count):
        run.delta(f"because {piece} ", part="reasoning")


async def tool(run: Run, count: int, _: list[str]) -> None:
    """Use so many tools at once."""

    async def use(number: int) -> None:
        async with run.tool("search", {"q": f"bridges {number}"}) as one:
            await asyncio.sleep(0.01)
            one.set_result({"found": number})

    await asyncio.gather(*map(use, range(count)))


async def breaks(run: Run, _: int, __: list[str]) -> None:
    """Use a tool that fails, and go on."""
    async with run.tool("broken") as one:
        one.set_error("it broke")
    run.delta("It broke. ")


async def child(run: Run, count: int, _: list[str]) -> None:
    """Let a sub-agent say so many pieces and use a tool."""
    async with run.child(agent_name="helper") as helper:
        await text(helper, count, [])
        await tool(helper, 1, [])


async def note(run: Run, count: int, _: list[str]) -> None:
    """Say how far it is, and something of the application's own."""
    for number in range(count):
        run.progress("working", percentage=number)
    run.custom("orders.updated", {"order": count})


async def approve(run: Run, _: int, __: list[str]) -> None:
    """Ask whether a tool may be used, and wait."""
    async with run.tool("delete", {"path": "x"}) as one:
        is_yes = await one.approved("Delete x?")
        one.set_result("deleted" if is_yes else "kept")
    run.delta("Deleted. " if is_yes else "Kept. ")


async def question(run: Run, _: int, __: list[str]) -> None:
    """Ask anything, and wait."""
    run.delta(f"You said {await run.ask('Which colour?', schema={'type': 'string'})}. ")


async def suspend(run: Run, count: int, rest: list[str]) -> None:
    """End with so many approvals; what is left to do is kept."""
    requests = [
        request(
            f"Delete {number}?",
            kind="approval",
            tool_call_id=f"{run.run_id}-call-{number}",
            tool_name="delete",
            tool_input={"path": str(number)},
        )
        for number in range(count)
    ]
    run.suspend(requests, state=rest)


async def wait(run: Run, _: int, __: list[str]) -> None:
    """Wait to be cancelled."""
    await run.wait_cancelled()


async def fail(_: Run, __: int, ___: list[str]) -> None:
    """Fail."""
    raise RuntimeError("private")


ACTS: dict[str, Any] = {
    act.__name__: act
    for act in (
        text, burst, think, tool, breaks, child, note, approve, question, suspend, wait, fail,
    )
}  # fmt: skip


def main() -> None:
    """Serve until a signal."""
    app = factory.asgi_app(authenticate=who, api_key=API_KEY, wires=("ai-sdk", "ag-ui", "tanstack"))
    server = BridgeServer(config_for(app), factory, on_started=lambda url: print(url, flush=True))
    server.run(sockets=[listen("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0)])


if __name__ == "__main__":
    main()
