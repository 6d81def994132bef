"""What is particular to chains: tags, models inside tools, callbacks on other threads."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="langchain-core is not installed")

from langchain_core.language_models.fake import FakeStreamingListLLM
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda

from catenary import Run, UsageError, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.fold import RunState, RunStatus
from catenary.integrations.langchain import RelayHandler, relay
from tests.integrations.frameworks.chains import chain
from tests.integrations.frameworks.chat_models import ScriptedChat, as_tool
from tests.integrations.frameworks.script import Call, Say, Script

CALL = Call("call_1", "search", ('{"q": ', '"bridges"}'))
SEARCHING: Script = [[Say("I search. "), CALL], [Say("Two.")]]


async def search(q: str) -> str:
    """Search."""
    return f"found {q}"


async def by_events(run: Run, made: Any, **options: Any) -> Any:
    return await relay(made.astream_events("Which?", version="v2"), run, **options)


async def by_callbacks(run: Run, made: Any, **options: Any) -> Any:
    async with RelayHandler(run, **options) as handler:
        return await made.ainvoke("Which?", config={"callbacks": [handler]})


both = pytest.mark.parametrize("way", [by_events, by_callbacks])


@both
async def test_the_output_is_returned(way: Any, emitter: UserWebSocketEmitter) -> None:
    async with emitter.run() as run:
        assert await way(run, chain(SEARCHING, [search])) == "Two."


async def test_what_is_no_event_is_refused(emitter: UserWebSocketEmitter) -> None:
    async with emitter.run() as run:
        with pytest.raises(UsageError, match="astream_events"):
            await relay(chain(SEARCHING, [search]).astream("Which?"), run)


@both
async def test_only_what_bears_a_tag_is_said(way: Any, emitter: UserWebSocketEmitter) -> None:
    """And the tool calls that it asks for; the others are hidden."""
    hidden = ScriptedChat(turns=[[Say("I plan. "), CALL], [Say("Planned. ")]])
    shown = ScriptedChat(turns=list(SEARCHING), tags=["shown"])
    async with emitter.run() as run:
        await way(run, chain([], [search], model=hidden), tags={"shown"})
        assert (run.state.messages, run.state.tools) == ((), ())
        await way(run, chain([], [search], model=shown), tags={"shown"})
    assert run.state.text == "I search. Two."
    assert [tool.tool_call_id for tool in run.state.tools] == ["call_1"]


@both
async def test_a_model_inside_a_tool_speaks_in_a_sub_run(
    way: Any, factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """It bears the tool's name, and ends with it."""

    async def ask_expert(q: str) -> str:
        """Ask an expert."""
        inner: Script = [[Say("I look. "), CALL], [Say("I know.")]]
        return await chain(inner, [search]).ainvoke(q)

    asking = Call("call_2", "ask_expert", ('{"q": "x"}',))
    async with emitter.run() as run:
        await way(run, chain([[asking], [Say("Two.")]], [ask_expert]))
    (child,) = await children(factory, run)
    assert (child.agent_name, child.status) == ("ask_expert", RunStatus.COMPLETED)
    assert child.text == "I look. I know."
    assert [tool.tool_output for tool in child.tools] == ["found bridges"]
    assert (run.state.text, run.state.tools[0].tool_output) == ("Two.", "I look. I know."[8:])


@both
async def test_a_model_inside_a_tool_that_fails_fails_with_it(
    way: Any,
    factory: WebSocketBridgeFactory,
    emitter: UserWebSocketEmitter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def ask_expert(q: str) -> str:
        """Ask an expert."""
        await chain([[Say("I know.")]]).ainvoke(q)
        raise KeyError("private")

    runs: list[Run] = []

    async def run_it() -> None:
        async with emitter.run() as run:
            runs.append(run)
            await way(run, chain([[Call("call_2", "ask_expert", ('{"q": "x"}',))]], [ask_expert]))

    with pytest.raises(KeyError, match="private"):
        await run_it()
    (child,) = await children(factory, runs[0])
    assert (child.text, child.status) == ("I know.", RunStatus.FAILED)
    assert runs[0].state.tools[0].error == "KeyError"


async def children(factory: WebSocketBridgeFactory, run: Run) -> list[RunState]:
    states = await factory.runs("user_123")
    return [state for state in states if state.parent_run_id == run.run_id]


async def test_calls_that_are_alike_keep_their_ids(emitter: UserWebSocketEmitter) -> None:
    """Events do not tell which call a tool answers: its name and input do."""
    calls = [
        Call("call_1", "search", ('{"q": "a"}',)),
        Call("call_2", "search", ('{"q": "b"}',)),
        Call("call_3", "search", ('{"q": "a"}',)),
    ]
    async with emitter.run() as run:
        await by_events(run, chain([calls, [Say("Two.")]], [search]))
    tools = {tool.tool_call_id: tool for tool in run.state.tools}
    assert set(tools) == {"call_1", "call_2", "call_3"}
    assert all(tool.tool_output == f"found {tool.tool_input['q']}" for tool in tools.values())


@both
async def test_a_tool_that_no_model_asked_for_is_told_too(
    way: Any, emitter: UserWebSocketEmitter
) -> None:
    async with emitter.run() as run:
        await way(run, RunnableLambda(lambda q: {"q": q}) | as_tool(search))
    (tool,) = run.state.tools
    assert (tool.tool_name, tool.tool_output) == ("search", "found Which?")
    assert tool.tool_call_id


@both
async def test_a_model_of_texts_is_relayed(way: Any, emitter: UserWebSocketEmitter) -> None:
    """Whether its text comes in pieces or whole."""
    async with emitter.run() as run:
        await way(run, FakeStreamingListLLM(responses=["Two bridges."]))
    assert run.state.text == "Two bridges."


@both
async def test_a_message_that_does_not_come_in_pieces_is_said(
    way: Any, emitter: UserWebSocketEmitter
) -> None:
    async with emitter.run() as run:
        model = ScriptedChat(turns=list(SEARCHING), disable_streaming=True)
        await way(run, chain([], [search], model=model))
    assert run.state.text == "I search. Two."
    assert run.state.tools[0].tool_input == {"q": "bridges"}
    assert run.state.usage["requests"] == 2


# Synchronous chains


def sync_chain(turns: Script, threads: set[threading.Thread] | None = None) -> Any:
    """Return a chain that calls its model and its tools in the caller's thread."""
    model = ScriptedChat(turns=list(turns))

    def look(q: str) -> str:
        """Look."""
        if threads is not None:
            threads.add(threading.current_thread())
        return f"found {q}"

    tool = as_tool(look)

    def ask(question: str) -> str:
        said = model.invoke(question)
        while isinstance(said, AIMessage) and said.tool_calls:
            for call in said.tool_calls:
                tool.invoke(call)
            said = model.invoke(question)
        return str(said.text)

    return RunnableLambda(ask)


LOOKING: Script = [[Call("call_1", "look", ('{"q": "a"}',))], [Say("Two "), Say("bridges.")]]


async def test_a_synchronous_chain_in_a_thread_is_relayed(emitter: UserWebSocketEmitter) -> None:
    """LangChain calls the handler on loops of other threads."""
    threads: set[threading.Thread] = set()

    def agent(run: Run) -> str:
        with RelayHandler(run) as handler:
            config = {"callbacks": [handler]}
            said: str = sync_chain(LOOKING, threads).invoke("Which?", config=config)
        return said

    handle = emitter.start_run(agent)
    async with asyncio.timeout(10):
        await handle.wait()
    state = emitter.log.folded(emitter.stream, emitter.stream.runs[handle.run_id])
    assert (state.status, state.text, state.result) == (
        RunStatus.COMPLETED, "Two bridges.", "Two bridges.",
    )  # fmt: skip
    assert [tool.tool_output for tool in state.tools] == ["found a"]
    assert threading.main_thread() not in threads


async def test_a_synchronous_chain_is_cancelled_at_its_next_word(
    emitter: UserWebSocketEmitter,
) -> None:
    """A thread cannot be stopped; what it says next raises, through LangChain."""
    begun, go_on = threading.Event(), threading.Event()
    went_on: list[str] = []

    def stall(q: str) -> str:
        """Stall."""
        begun.set()
        assert go_on.wait(10)
        return q

    tool = as_tool(stall)

    def work(question: str) -> str:
        tool.invoke({"name": "stall", "args": {"q": question}, "id": "call_1", "type": "tool_call"})
        went_on.append(question)
        return question

    def agent(run: Run) -> None:
        with RelayHandler(run) as handler:
            RunnableLambda(work).invoke("Which?", config={"callbacks": [handler]})

    handle = emitter.start_run(agent)
    async with asyncio.timeout(10):
        assert await asyncio.to_thread(begun.wait, 10)
        await emitter.cancel_run(handle.run_id)
        go_on.set()
        await handle.wait()
    state = emitter.log.folded(emitter.stream, emitter.stream.runs[handle.run_id])
    assert state.status is RunStatus.CANCELLED
    assert went_on == []
