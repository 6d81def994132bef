from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from catenary import UsageError, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.auth import Identity
from catenary.inbound import HandlerConfig, Message, MessageHandlerService, Source
from catenary.session import ClientMessage

ME = Source(identity=Identity(user_id="user_123"), log_id="user_123")


async def ask(
    factory: WebSocketBridgeFactory, type: str, id: str = "1", source: Source = ME, **fields: Any
) -> dict[str, Any]:
    message = ClientMessage(type=type, id=id, **fields)
    answer: dict[str, Any] = json.loads(await factory.service.handle(source, message))
    return answer


async def test_a_message_is_handled_once_and_answered_the_same_again(
    factory: WebSocketBridgeFactory,
) -> None:
    """The handler runs once per id; the stored reply is sent again, also for other connections."""
    calls: list[Message] = []

    @factory.on_message("app.do")
    async def handle(message: Message, emitter: UserWebSocketEmitter) -> dict[str, int]:
        calls.append(message)
        return {"n": len(calls)}

    first = await ask(factory, "app.do", data={"x": 1}, thread_id="t1")
    again = await ask(factory, "app.do", data={"x": 1}, thread_id="t1")
    assert first == again == {"type": "ack", "id": "1", "reply": {"n": 1}}
    assert [(m.id, m.type, m.thread_id, m.data) for m in calls] == [("1", "app.do", "t1", {"x": 1})]
    assert (await ask(factory, "app.do", id="2"))["reply"] == {"n": 2}


async def test_the_same_id_with_other_content_is_a_conflict(
    factory: WebSocketBridgeFactory,
) -> None:
    """It is refused, and nothing runs."""
    calls: list[Message] = []
    factory.service.register("app.do", lambda message, _: calls.append(message))
    await ask(factory, "app.do", data=1)
    assert (await ask(factory, "app.do", data=2))["code"] == "id_conflict"
    assert len(calls) == 1


async def test_ids_of_two_users_do_not_meet(factory: WebSocketBridgeFactory) -> None:
    """The window is each user's own."""
    factory.service.register("app.do", lambda message, _: message.identity.user_id)
    other = Source(identity=Identity(user_id="user_456"), log_id="user_456")
    assert (await ask(factory, "app.do"))["reply"] == "user_123"
    assert (await ask(factory, "app.do", source=other))["reply"] == "user_456"


async def test_a_repeat_during_the_handling_waits_for_the_same_reply(
    factory: WebSocketBridgeFactory,
) -> None:
    """Two at once: one handling, one reply."""
    go_on = asyncio.Event()
    calls = 0

    @factory.on_message("app.do")
    async def handle(message: Message, emitter: UserWebSocketEmitter) -> int:
        nonlocal calls
        calls += 1
        await go_on.wait()
        return calls

    both = [asyncio.create_task(ask(factory, "app.do")) for _ in range(2)]
    await asyncio.sleep(0.01)
    go_on.set()
    assert [answer["reply"] for answer in await asyncio.gather(*both)] == [1, 1]


async def test_a_handler_that_fails_answers_with_an_error_and_no_detail(
    factory: WebSocketBridgeFactory, caplog: pytest.LogCaptureFixture
) -> None:
    """The error has no text of the exception; the log has it with the ids."""

    @factory.on_message("app.do")
    async def handle(message: Message, emitter: UserWebSocketEmitter) -> None:
        raise ValueError("private")

    answer = await ask(factory, "app.do")
    assert answer["code"] == "handler_failed"
    assert "private" not in str(answer)
    assert "user_123" in caplog.text
    assert await ask(factory, "app.do") == answer


async def test_a_handler_that_hangs_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    """After the timeout the answer is handler_timeout, and the next message is served."""
    config = HandlerConfig(timeout=0.02)
    async with WebSocketBridgeFactory(log="memory://?private", handlers=config) as factory:

        @factory.on_message("app.hang")
        async def hang(message: Message, emitter: UserWebSocketEmitter) -> None:
            await asyncio.sleep(60)

        factory.service.register("app.do", lambda message, _: "fine")
        assert (await ask(factory, "app.hang"))["code"] == "handler_timeout"
        assert (await ask(factory, "app.do", id="2"))["reply"] == "fine"


async def test_synchronous_handlers_are_bounded_and_a_hung_one_keeps_its_slot() -> None:
    """Four of one user run at a time; the fifth is overloaded, until one has returned."""
    config = HandlerConfig(timeout=0.05)
    go_on = threading.Event()
    async with WebSocketBridgeFactory(log="memory://?private", handlers=config) as factory:
        factory.service.register("app.hang", lambda *_: go_on.wait(10))
        hung = [ask(factory, "app.hang", id=str(n)) for n in range(4)]
        assert {answer["code"] for answer in await asyncio.gather(*hung)} == {"handler_timeout"}
        assert factory.service.running_sync == 4
        assert (await ask(factory, "app.hang", id="5"))["code"] == "overloaded"
        other = Source(identity=Identity(user_id="user_456"), log_id="user_456")
        go_on.set()
        assert (await ask(factory, "app.hang", id="5", source=other))["reply"] is True
        async with asyncio.timeout(5):
            while factory.service.running_sync:
                await asyncio.sleep(0.001)
        assert (await ask(factory, "app.hang", id="6"))["reply"] is True


async def test_an_unknown_type_is_not_claimed(factory: WebSocketBridgeFactory) -> None:
    """It is answered, and the id stays free for a message that can be handled."""
    assert (await ask(factory, "app.do"))["code"] == "unknown_type"
    factory.service.register("app.do", lambda *_: "now")
    assert (await ask(factory, "app.do"))["reply"] == "now"


async def test_a_refused_thread_looks_like_one_that_does_not_exist() -> None:
    """authorize_thread is asked before anything happens."""
    async with WebSocketBridgeFactory(
        log="memory://?private", authorize_thread=lambda identity, thread: thread == "mine"
    ) as factory:
        factory.service.register("app.do", lambda *_: "done")
        assert (await ask(factory, "app.do", thread_id="mine"))["reply"] == "done"
        assert (await ask(factory, "app.do", id="2", thread_id="other"))["code"] == "not_found"


async def test_a_user_message_is_an_event_before_its_handler_runs(
    factory: WebSocketBridgeFactory,
) -> None:
    """Other tabs see the question first, once, whatever the handler does."""
    seen: list[int] = []

    @factory.on_message("user_message")
    async def handle(message: Message, emitter: UserWebSocketEmitter) -> None:
        seen.append((await factory.log.head("user_123")).seq)
        emitter.agent_started()
        raise ValueError

    for _ in range(2):
        await ask(factory, "user_message", data={"content": "why?"}, thread_id="t1")
    found = [event async for event in factory.events("user_123")]
    assert [event.type for event in found] == ["user_message", "agent_started"]
    assert found[0].data == {"message_id": "msg_1", "content": "why?", "client_message_id": "1"}
    assert found[0].thread_id == "t1"
    assert seen == [1]


async def test_a_type_has_one_handler(factory: WebSocketBridgeFactory) -> None:
    """A second registration is an error, and so is a handler that cannot be called."""
    factory.service.register("app.do", lambda *_: None)
    with pytest.raises(UsageError, match="already"):
        factory.service.register("app.do", lambda *_: None)
    not_a_handler: Any = "handler"
    with pytest.raises(UsageError, match="function"):
        factory.service.register("app.other", not_a_handler)


# The constructor


def service(**arguments: Any) -> MessageHandlerService:
    return MessageHandlerService(**arguments)


@pytest.mark.parametrize("name", ["websocket", "manager", "ws_manager"])
def test_a_wrong_argument_name_suggests_the_right_one(name: str) -> None:
    """The TypeError names both."""
    with pytest.raises(TypeError, match=rf"{name!r}.*websocket_manager"):
        service(**{name: object()})


def test_a_missing_manager_is_named() -> None:
    """The error says what to pass."""
    with pytest.raises(TypeError, match="needs websocket_manager"):
        service()


def test_an_unknown_argument_is_named() -> None:
    """And the known ones are listed."""
    with pytest.raises(TypeError, match=r"'banana'.*redis_client"):
        service(banana=1)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"websocket_manager": "x"}, "must be a WebSocketManager or a function.*str"),
        ({"logger": "x"}, "logger must be a Logger, not str"),
        ({"config": 7}, "config must be a HandlerConfig or a mapping, not int"),
        ({"config": {"tiemout": 1}}, "unknown key 'tiemout'"),
        ({"config": {"timeout": "x"}}, "config: Expected `float`, got `str`"),
    ],
)
async def test_a_wrong_type_says_what_was_expected_and_what_came(
    factory: WebSocketBridgeFactory, arguments: dict[str, Any], problem: str
) -> None:
    """Each invalid argument has its message."""
    with pytest.raises(TypeError, match=problem):
        service(**{"websocket_manager": factory.manager, **arguments})


async def test_managers_may_be_injected_directly_or_lazily(factory: WebSocketBridgeFactory) -> None:
    """A manager, or a getter that is asked with the first use and no sooner."""
    assert service(websocket_manager=factory.manager).manager is factory.manager
    asked: list[int] = []

    def getter() -> Any:
        asked.append(1)
        return factory.manager

    lazy = service(websocket_manager=getter)
    assert asked == []
    assert lazy.manager is factory.manager
    assert lazy.manager is factory.manager
    assert asked == [1]


def test_a_circular_getter_is_refused() -> None:
    """Getting the manager through the service that asks for it is an error, not a recursion."""
    holder: list[MessageHandlerService] = []
    getter: Callable[[], Any] = lambda: holder[0].manager  # noqa: E731
    holder.append(service(websocket_manager=getter))
    with pytest.raises(TypeError, match="circular"):
        _ = holder[0].manager


def test_a_getter_of_something_else_is_refused() -> None:
    """The error says what it returned."""
    with pytest.raises(TypeError, match="must return a WebSocketManager, not dict"):
        _ = service(websocket_manager=lambda: {"a": 1}).manager


async def test_twenty_services_at_once(factory: WebSocketBridgeFactory) -> None:
    """They are independent of each other."""
    made = await asyncio.gather(
        *(asyncio.to_thread(service, websocket_manager=factory.manager) for _ in range(20))
    )
    assert len({id(one) for one in made}) == 20
