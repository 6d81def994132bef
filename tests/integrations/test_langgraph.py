"""What is particular to graphs: nodes, sub-graphs, streams of several modes, interrupts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("langgraph", reason="langgraph is not installed")

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Interrupt, interrupt

from catenary import (
    Run,
    UsageError,
    UserWebSocketEmitter,
    WebSocketBridgeFactory,
    current_run,
)
from catenary.answering import Answering
from catenary.auth import Identity
from catenary.fold import RunState, RunStatus
from catenary.inbound import Source
from catenary.integrations.interrupts import resumed
from catenary.integrations.langgraph import MODES, ask, relay, suspend
from tests.integrations.frameworks.chat_models import ScriptedChat, as_tool
from tests.integrations.frameworks.graphs import ASKED, graph
from tests.integrations.frameworks.script import Call, Fail, Hanging, Say, Script

CALL = Call("call_1", "search", ('{"q": ', '"bridges"}'))
SEARCHING: Script = [[Say("I search. "), CALL], [Say("Two.")]]


async def search(q: str) -> str:
    """Search."""
    return f"found {q}"


def stream_of(made: Any, config: Any = None, **options: Any) -> AsyncIterator[Any]:
    stream: AsyncIterator[Any] = made.astream(
        ASKED, config, stream_mode=MODES, subgraphs=True, **options
    )
    return stream


def around(*nodes: tuple[str, Any], checkpointer: Any = None) -> Any:
    """Return a graph whose nodes work one after the other."""
    made = StateGraph(MessagesState)
    before = START
    for name, node in nodes:
        made.add_node(name, node)
        made.add_edge(before, name)
        before = name
    return made.compile(checkpointer=checkpointer)


async def children(factory: WebSocketBridgeFactory, run: Run) -> list[RunState]:
    states = await factory.runs("user_123")
    return [state for state in states if state.parent_run_id == run.run_id]


# The result, and the stream


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_the_last_state_is_returned(version: str, emitter: UserWebSocketEmitter) -> None:
    """Of either version of LangGraph's stream."""
    async with emitter.run() as run:
        state = await relay(stream_of(graph(SEARCHING, [search]), version=version), run)
    assert [message.text for message in state["messages"]] == [
        "Which?", "I search. ", "found bridges", "Two.",
    ]  # fmt: skip
    assert run.state.text == "I search. Two."


async def test_a_stream_without_modes_is_refused(emitter: UserWebSocketEmitter) -> None:
    """What each of its chunks is cannot be told."""
    async with emitter.run() as run:
        with pytest.raises(UsageError, match="stream_mode=MODES"):
            await relay(graph(SEARCHING, [search]).astream(ASKED), run)


async def test_without_the_mode_tools_a_call_is_told_when_it_has_ended(
    emitter: UserWebSocketEmitter,
) -> None:
    """LangGraph's messages alone tell a tool's name, input and output."""
    async with emitter.run() as run:
        made = graph(SEARCHING, [search])
        await relay(made.astream(ASKED, stream_mode=["messages", "values"]), run, nodes={"agent"})
    (tool,) = run.state.tools
    assert (tool.tool_call_id, tool.tool_name) == ("call_1", "search")
    assert (tool.tool_input, tool.tool_output) == ({"q": "bridges"}, "found bridges")


async def test_a_message_that_does_not_come_in_pieces_is_said(
    emitter: UserWebSocketEmitter,
) -> None:
    """Of a model that does not stream, and of a node that makes it."""

    async def greet(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("Hello. ")]}

    model = ScriptedChat(turns=list(SEARCHING), disable_streaming=True)
    async with emitter.run() as run:
        await relay(stream_of(around(("greet", greet))), run)
        await relay(stream_of(graph([], [search], model=model)), run)
    assert run.state.text == "Hello. I search. Two."
    assert run.state.tools[0].tool_input == {"q": "bridges"}
    assert run.state.usage["requests"] == 2


async def test_what_a_node_writes_is_an_event(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    async def work(state: MessagesState) -> dict[str, Any]:
        get_stream_writer()({"page": 1})
        return {}

    async with emitter.run() as run:
        await relay(stream_of(around(("work", work))), run, nodes={"another"})
    (event,) = [e async for e in factory.events("user_123") if e.type == "langgraph.custom"]
    assert event.data == {"page": 1}


async def test_an_agent_of_langchain_is_a_graph(emitter: UserWebSocketEmitter) -> None:
    async with emitter.run() as run:
        agent = create_agent(ScriptedChat(turns=list(SEARCHING)), [as_tool(search)], name="a")
        await relay(stream_of(agent), run, nodes={"model"})
    assert run.state.text == "I search. Two."
    assert run.state.tools[0].tool_output == "found bridges"


# Nodes


async def test_only_the_named_nodes_speak(emitter: UserWebSocketEmitter) -> None:
    """With the tool calls that they ask for, wherever these are made; the others' are hidden."""
    async with emitter.run() as run:
        hidden = graph([[Say("I plan. "), CALL], [Say("Planned. ")]], [search], node="planner")
        await relay(stream_of(hidden), run, nodes={"agent"})
        assert (run.state.messages, run.state.tools) == ((), ())
        await relay(stream_of(graph(SEARCHING, [search])), run, nodes={"agent"})
    assert run.state.text == "I search. Two."
    assert [tool.tool_output for tool in run.state.tools] == ["found bridges"]


async def test_a_node_speaks_with_all_that_is_in_it(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """The messages of a sub-graph's nodes are those of the node that it is."""
    made = around(
        ("researcher", graph(SEARCHING, [search])),
        ("critic", graph([[Say("Why two?")]])),
    )
    async with emitter.run() as run:
        await relay(stream_of(made), run, nodes={"researcher"})
    (child,) = await children(factory, run)
    assert (child.agent_name, child.text) == ("researcher", "I search. Two.")


# Sub-graphs


async def test_a_sub_graph_is_a_run_of_its_own(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """It ends with its node, before the next one speaks, and bears its agent's name."""

    async def conclude(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage("So two.")]}

    agent = create_agent(ScriptedChat(turns=list(SEARCHING)), [as_tool(search)], name="expert")
    async with emitter.run(agent_name="boss") as run:
        await relay(stream_of(around(("researcher", agent), ("conclude", conclude))), run)
    (child,) = await children(factory, run)
    assert (child.agent_name, child.status) == ("expert", RunStatus.COMPLETED)
    assert (child.text, child.tools[0].tool_output) == ("I search. Two.", "found bridges")
    assert (run.state.text, run.state.tools) == ("So two.", ())
    events = [(e.type, e.run_id) async for e in factory.events("user_123")]
    assert events.index(("agent_completed", child.run_id)) < events.index(
        ("agent_delta", run.run_id)
    )


async def test_graphs_that_a_node_calls_are_runs_of_their_own(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Two at the same time do not mix, and one inside another is its child."""
    together = asyncio.Barrier(2)

    async def meet(state: MessagesState) -> dict[str, Any]:
        await together.wait()
        return {"messages": []}

    def inner(text: str) -> Any:
        return around(("talk", graph([[Say(text)]])), ("meet", meet))

    async def both(state: MessagesState) -> dict[str, Any]:
        await asyncio.gather(inner("One.").ainvoke(ASKED), inner("Two.").ainvoke(ASKED))
        return {}

    async with emitter.run() as run:
        await relay(stream_of(around(("both", both))), run)
    states = {state.run_id: state for state in await factory.runs("user_123")}
    spoken = [state for state in states.values() if state.text]
    assert {state.text for state in spoken} == {"One.", "Two."}
    assert {state.agent_name for state in spoken} == {"talk"}
    above = {states[state.parent_run_id or ""].run_id for state in spoken}
    assert len(above) == 2
    assert {states[run_id].parent_run_id for run_id in above} == {run.run_id}
    assert {state.status for state in states.values()} == {RunStatus.COMPLETED}


async def test_a_graph_that_a_tool_calls_is_a_run_of_its_own(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """It is relayed with the graph whose tool it is: nothing is said twice."""

    async def ask_expert(q: str) -> str:
        """Ask an expert."""
        state = await graph([[Say("I know.")]]).ainvoke(ASKED)
        return str(state["messages"][-1].text)

    asking = Call("call_1", "ask_expert", ('{"q": "x"}',))
    async with emitter.run() as run:
        await relay(stream_of(graph([[asking], [Say("Two.")]], [ask_expert])), run)
    (child,) = await children(factory, run)
    assert child.text == "I know."
    assert (run.state.text, run.state.tools[0].tool_output) == ("Two.", "I know.")


async def test_a_graph_inside_another_can_be_relayed_alone(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Where the outer one is relayed without its sub-graphs; its own state is returned."""

    async def ask_expert(q: str) -> str:
        """Ask an expert."""
        async with current_run().child(agent_name="expert") as child:
            state = await relay(stream_of(graph([[Say("I know.")]])), child)
        return str(state["messages"][-1].text)

    asking = Call("call_1", "ask_expert", ('{"q": "x"}',))
    async with emitter.run() as run:
        outer = graph([[asking], [Say("Two.")]], [ask_expert])
        await relay(outer.astream(ASKED, stream_mode=MODES), run)
    (child,) = await children(factory, run)
    assert (child.agent_name, child.text) == ("expert", "I know.")
    assert (run.state.text, run.state.tools[0].tool_output) == ("Two.", "I know.")


async def test_a_sub_graph_that_raises_fails_with_its_graph(
    factory: WebSocketBridgeFactory,
    emitter: UserWebSocketEmitter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    runs: list[Run] = []

    async def run_it() -> None:
        async with emitter.run() as run:
            runs.append(run)
            failing = graph([[Say("I know."), Fail(ValueError("private"))]])
            await relay(stream_of(around(("expert", failing))), run)

    with pytest.raises(ValueError, match="private"):
        await run_it()
    (child,) = await children(factory, runs[0])
    assert (child.text, child.status) == ("I know.", RunStatus.FAILED)
    assert child.error is not None
    assert child.error.message == "the agent failed: ValueError"
    assert runs[0].state.status is RunStatus.FAILED


async def test_a_cancel_of_a_sub_graph_cancels_the_graph(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A framework's run can only be stopped as a whole, and is at once."""
    hanging = Hanging()

    async def agent(run: Run) -> None:
        await relay(stream_of(around(("expert", graph([[Say("Hm. "), hanging.piece]])))), run)

    handle = emitter.start_run(agent)
    async with asyncio.timeout(5):
        await hanging.has_begun.wait()
        while len(states := await factory.runs("user_123")) < 2 or not states[1].text:
            await asyncio.sleep(0.005)
        await emitter.cancel_run(states[1].run_id)
        await handle.wait()
        await hanging.was_stopped.wait()
    assert {state.status for state in await factory.runs("user_123")} == {RunStatus.CANCELLED}


# Interrupts


async def test_an_interrupted_graph_leaves_nothing_open(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """All interrupts are in the state; the sub-graph that waits is suspended, its tools ended."""

    def delete(q: str) -> str:
        """Delete."""
        return f"deleted: {interrupt({'delete': q})}"

    calls = [Call(f"call_{n}", "delete", (f'{{"q": "{n}"}}',)) for n in (1, 2)]
    agent = create_agent(
        ScriptedChat(turns=[calls]), [as_tool(delete)], name="cleaner", checkpointer=True
    )
    made = around(("cleaner", agent), checkpointer=InMemorySaver())
    async with emitter.run() as run:
        state = await relay(stream_of(made, {"configurable": {"thread_id": "t1"}}), run)
    assert {asked.value["delete"] for asked in state["__interrupt__"]} == {"1", "2"}
    (child,) = await children(factory, run)
    assert child.status is RunStatus.SUSPENDED
    assert [tool.error for tool in child.tools] == ["it waits for an answer"] * 2
    assert run.state.status is RunStatus.COMPLETED


@pytest.mark.parametrize(
    ("value", "question", "kind", "schema"),
    [
        ("Which colour?", "Which colour?", "question", None),
        ({"question": "Sure?", "kind": "approval"}, "Sure?", "approval", None),
        ({"question": "Size?", "schema": {"type": "integer"}}, "Size?", "question", {"type": "integer"}),
        ({"n": 1}, '{"n":1}', "question", None),
    ],
)  # fmt: skip
async def test_what_an_interrupt_holds_is_the_question(
    value: Any,
    question: str,
    kind: str,
    schema: Any,
    factory: WebSocketBridgeFactory,
    emitter: UserWebSocketEmitter,
) -> None:
    async def node(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(str(interrupt(value)))]}

    made = around(("node", node), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "t1"}}
    async with emitter.run() as run:
        state = await relay(stream_of(made, config), run)
        asking = asyncio.create_task(ask(run, state))
        async with asyncio.timeout(5):
            while not run.state.pending:
                await asyncio.sleep(0.005)
        (asked,) = run.state.pending
        assert (asked.question, asked.kind, asked.schema) == (question, kind, schema)
        me = Source(identity=Identity(user_id="user_123"), log_id="user_123")
        await Answering(factory.service).take(me, asked.request_id, "blue", "m1")
        command = await asking
        state = await relay(made.astream(command, config, stream_mode=MODES), run)
        assert await ask(run, state) is None
    assert run.state.text == "blue"


async def test_an_interrupt_of_an_unknown_kind_is_refused(emitter: UserWebSocketEmitter) -> None:
    async with emitter.run() as run:
        asked = Interrupt({"question": "x", "kind": "riddle"}, id="i1")
        with pytest.raises(UsageError, match="kind is one of"):
            suspend(run, {"__interrupt__": (asked,)})


def test_decisions_of_the_middleware_go_through() -> None:
    """A page may send what LangChain's own interface would."""
    edit = {"type": "edit", "edited_action": {"name": "delete", "args": {"path": "2"}}}
    command = resumed([["i1", "decisions"], ["i1", "decisions"], ["i2", "value"]], [edit, False, 7])
    assert command.resume == {"i1": {"decisions": [edit, {"type": "reject"}]}, "i2": 7}
