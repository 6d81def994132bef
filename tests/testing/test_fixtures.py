"""The fixtures do what a user's tests ask of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from catenary import (
    Run,
    UserWebSocketEmitter,
    WebSocketBridgeFactory,
    get_websocket_bridge_factory,
    get_websocket_manager,
)
from catenary.inbound import Message
from catenary.testing import assert_complete, reset
from catenary.validate.bridges import ServedBridge
from catenary.validate.chaos import Action, BlockingChaosProxy
from catenary.validate.checker import OrderingChecker
from catenary.validate.threads import ThreadMonitor, ThreadViolations

Users = Callable[[int], list[str]]


async def agent(run: Run) -> dict[str, int]:
    """An agent as a user has it, which takes some time."""
    for number in range(40):
        run.delta(f"{number} ")
        await asyncio.sleep(0.005)
    return {"words": 40}


async def test_an_agent_survives_a_network_that_breaks(
    catenary_bridge: ServedBridge,
    catenary_chaos: BlockingChaosProxy,
    catenary_checker: OrderingChecker,
    catenary_users: Users,
) -> None:
    (user_id,) = catenary_users(1)
    url = catenary_chaos.url_for(catenary_bridge.websocket_url)
    async with catenary_bridge.client(user_id, url=url) as client:
        async with catenary_bridge.emitter(user_id).run(agent_name="talker") as run:
            working = asyncio.create_task(agent(run))
            events = [await anext(client)]
            catenary_checker.begin("phone", user_id)
            for _ in range(3):
                catenary_chaos.apply(Action.RESET)
                events.append(await anext(client))
            await working
        while events[-1].type != "agent_completed":
            events.append(await anext(client))
    for event in events:
        catenary_checker.received("phone", event, event.user_id or "")
    assert_complete(events, runs=1)
    assert catenary_checker.problems() == []
    assert client.stats.connections >= 2


def test_a_synchronous_test_needs_no_loop(
    catenary_bridge: ServedBridge, catenary_users: Users
) -> None:
    first, second = catenary_users(2)
    assert first != second
    with catenary_bridge.emitter(first).run() as run:
        run.thinking("Looking")
    assert catenary_bridge.emit(first, "app.note").result(5).seq == 4


@pytest.fixture
def catenary_factory() -> WebSocketBridgeFactory:
    """A user's own bridge, in place of the empty one."""
    factory = WebSocketBridgeFactory("memory://?private", run_drain_timeout=0.5)

    @factory.on_message("user_message")
    async def answer(message: Message, emitter: UserWebSocketEmitter) -> dict[str, str]:
        return {"echo": message.data["content"]}

    return factory


async def test_a_redefined_factory_is_what_is_served(catenary_bridge: ServedBridge) -> None:
    async with catenary_bridge.client("user_123") as client:
        reply = await client.send("user_message", {"content": "hello"}, thread_id="t1")
    assert reply == {"echo": "hello"}


async def test_the_monitor_watches_the_bridge(
    catenary_threads: ThreadMonitor, catenary_bridge: ServedBridge
) -> None:
    async with catenary_bridge.client("user_123") as client:
        await asyncio.to_thread(lambda: catenary_bridge.emit("user_123", "app.note").result(5))
        assert (await anext(client)).type == "app.note"
    assert sum(lock.acquisitions for lock in catenary_threads.contention()) > 0


def test_a_violation_fails_the_test_that_caused_it(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["catenary.testing"]')
    pytester.makepyfile(
        """
        import threading

        def test_two_at_once(catenary_threads):
            barrier = threading.Barrier(2)
            def work():
                with catenary_threads.exclusive("one at a time"):
                    barrier.wait(10)
            threads = [threading.Thread(target=work) for _ in range(2)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]

        def test_nothing_is_used_that_is_not_asked_for(request):
            assert not [name for name in request.fixturenames if name.startswith("catenary")]
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines([f"*{ThreadViolations.__name__}*"])


def test_reset_forgets_the_one_bridge_of_the_process() -> None:
    before = get_websocket_bridge_factory()
    assert get_websocket_manager() is before.manager
    reset()
    assert get_websocket_bridge_factory() is not before
    reset()
