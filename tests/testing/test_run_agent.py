"""``run_agent`` brings what a user received of an agent's run."""

from __future__ import annotations

import asyncio

import pytest

from catenary import Run, RunFailed
from catenary.run_state import RunStatus, ToolStatus
from catenary.testing import BridgeUnderTest, assert_complete
from catenary.validate.chaos import Action, BlockingChaosProxy


async def researcher(run: Run, question: str) -> dict[str, str]:
    run.thinking(f"Looking for {question}")
    async with run.tool("search", {"q": question}) as tool:
        tool.set_result(["one bridge"])
    for word in ("One ", "bridge ", "fits."):
        run.delta(word)
        await asyncio.sleep(0.01)
    return {"answer": "One bridge fits."}


async def test_a_run_with_its_text_tools_result_and_events(
    catenary_bridge: BridgeUnderTest,
) -> None:
    found = await catenary_bridge.run_agent(researcher, "bridges", agent_name="researcher")
    assert (found.status, found.text) == (RunStatus.COMPLETED, "One bridge fits.")
    assert found.result == {"answer": "One bridge fits."}
    (tool,) = found.tools
    assert (tool.tool_name, tool.tool_input, tool.tool_output, tool.status) == (
        "search", {"q": "bridges"}, ["one bridge"], ToolStatus.SUCCEEDED,
    )  # fmt: skip
    assert found.state.agent_name == "researcher"
    assert found.connections == 1
    assert_complete(found.events, runs=1)


async def test_a_plain_function_runs_in_a_thread(catenary_bridge: BridgeUnderTest) -> None:
    def work(run: Run, number: int) -> int:
        run.delta(str(number))
        return number * 2

    found = await catenary_bridge.run_agent(work, 21)
    assert (found.text, found.result) == ("21", 42)


async def test_an_agent_that_fails(catenary_bridge: BridgeUnderTest) -> None:
    async def fail(run: Run) -> None:
        run.delta("So far ")
        raise RunFailed("the model refused", code="refused")

    found = await catenary_bridge.run_agent(fail)
    assert (found.status, found.text) == (RunStatus.FAILED, "So far ")
    assert found.state.error is not None
    assert (found.state.error.code, found.state.error.message) == ("refused", "the model refused")


async def test_sub_agents_belong_to_the_run(catenary_bridge: BridgeUnderTest) -> None:
    """And other runs of the same user do not."""

    async def supervise(run: Run) -> None:
        async with run.child(agent_name="worker") as child:
            child.delta("from below")

    async with catenary_bridge.emitter("user_123").run() as other:
        found = await catenary_bridge.run_agent(supervise, user_id="user_123")
        other.delta("beside")
    assert [event.type for event in found.events] == [
        "agent_started", "agent_started", "agent_delta", "agent_completed", "agent_completed",
    ]  # fmt: skip
    assert found.text == ""


async def test_a_network_that_breaks_loses_nothing(
    catenary_bridge: BridgeUnderTest, catenary_chaos: BlockingChaosProxy
) -> None:
    async def talk(run: Run) -> None:
        for number in range(100):
            run.delta(f"{number} ")
            if number % 25 == 10:
                catenary_chaos.apply(Action.RESET)
            await asyncio.sleep(0.01)

    url = catenary_chaos.url_for(catenary_bridge.websocket_url)
    found = await catenary_bridge.run_agent(talk, url=url)
    assert found.text == "".join(f"{number} " for number in range(100))
    assert found.connections >= 2
    assert_complete(found.events, runs=1)


async def test_an_agent_that_hangs_is_told(catenary_bridge: BridgeUnderTest) -> None:
    async def hang(run: Run) -> None:
        await run.wait_cancelled()

    with pytest.raises(TimeoutError):
        await catenary_bridge.run_agent(hang, timeout=0.3)
