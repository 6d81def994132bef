"""What the forecaster does, whatever the network does."""

import asyncio

import pytest
from agent import forecaster, make_app
from starlette.testclient import TestClient

from catenary.run_state import RunStatus
from catenary.testing import BridgeUnderTest, assert_complete
from catenary.validate.chaos import Action, BlockingChaosProxy

pytestmark = pytest.mark.asyncio


async def test_it_says_what_its_tool_found(catenary_bridge: BridgeUnderTest) -> None:
    run = await catenary_bridge.run_agent(forecaster, "Oslo")
    assert run.text == "In Oslo there is snow. "
    assert [tool.tool_input for tool in run.tools] == [{"city": "Oslo"}]
    assert run.result == {"weather": "snow"}
    assert_complete(run.events, runs=1)


async def test_an_unknown_city_is_an_error_that_the_user_may_read(
    catenary_bridge: BridgeUnderTest,
) -> None:
    run = await catenary_bridge.run_agent(forecaster, "Atlantis")
    assert run.status is RunStatus.FAILED
    assert run.state.error is not None
    assert run.state.error.message == "nothing is known of Atlantis"
    assert_complete(run.events, runs=1)


async def test_a_network_that_breaks_costs_no_word(
    catenary_bridge: BridgeUnderTest, catenary_chaos: BlockingChaosProxy
) -> None:
    url = catenary_chaos.url_for(catenary_bridge.websocket_url)
    running = asyncio.create_task(catenary_bridge.run_agent(forecaster, "Rome", url=url))
    while not running.done():
        catenary_chaos.apply(Action.RESET)
        await asyncio.sleep(0.02)
    run = await running
    assert run.text == "In Rome there is sun. "
    assert_complete(run.events, runs=1)


async def test_a_question_is_answered_once(catenary_bridge: BridgeUnderTest) -> None:
    question = {"content": "Oslo"}
    async with catenary_bridge.client("user_123") as client:
        first = await client.send("user_message", question, thread_id="t1", id="q1")
        again = await client.send("user_message", question, thread_id="t1", id="q1")
        assert first == again
        events = [await anext(client)]
        while events[-1].type != "agent_completed":
            events.append(await anext(client))
    assert [event.type for event in events].count("agent_started") == 1


async def test_the_application_under_a_test_client() -> None:
    with (
        TestClient(make_app()) as http,
        http.websocket_connect("/live/ws", headers={"x-user": "user_123"}) as page,
    ):
        assert page.receive_json()["user_id"] == "user_123"
        page.send_json(
            {"type": "user_message", "id": "q1", "thread_id": "t1", "data": {"content": "Rome"}}
        )
        said = ""
        while (message := page.receive_json())["type"] != "agent_completed":
            said += message.get("data", {}).get("delta", "")
        assert said == "In Rome there is sun. "
