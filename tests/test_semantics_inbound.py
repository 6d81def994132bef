from __future__ import annotations

import asyncio
import functools
import json
import threading
from typing import Any

import pytest

from catenary import RunCancelled, UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.errors import LogUnavailable
from catenary.eventlog.memory import MemoryLog
from catenary.inbound import HandlerConfig, Message
from catenary.limits import Limits
from catenary.session import Close, Handle, Send, Session
from catenary.threads import call_in_thread
from catenary.wires.native import payload_of
from tests.test_inbound import ME, ask


class FailingLog(MemoryLog):
    """A log that cannot store replies, or accept events, while it is told so."""

    def __init__(self) -> None:
        super().__init__()
        self.cannot_finish = False
        self.cannot_accept = False

    async def finish_command(self, log_id: str, command_id: str, reply: bytes) -> None:
        if self.cannot_finish:
            raise LogUnavailable("the disk is full")
        await super().finish_command(log_id, command_id, reply)

    def _check_room(self, *_: object) -> None:
        if self.cannot_accept:
            raise LogUnavailable("the disk is full")


@pytest.fixture
def calls() -> list[Message]:
    return []


@pytest.fixture
def log() -> FailingLog:
    return FailingLog()


@pytest.fixture
def bridge(log: FailingLog, calls: list[Message]) -> WebSocketBridgeFactory:
    factory = WebSocketBridgeFactory(log=log, handlers=HandlerConfig(timeout=5))

    async def handle(message: Message, emitter: UserWebSocketEmitter) -> int:
        calls.append(message)
        return len(calls)

    factory.service.register("app.do", handle)
    factory.service.register("user_message", handle)
    return factory


# Replies


async def test_a_reply_that_could_not_be_stored_comes_with_the_repeat(
    bridge: WebSocketBridgeFactory, log: FailingLog, calls: list[Message]
) -> None:
    """The client is told to try again, and then gets the reply of the one handling."""
    log.cannot_finish = True
    assert (await ask(bridge, "app.do"))["code"] == "overloaded"
    assert (await ask(bridge, "app.do"))["code"] == "overloaded"
    log.cannot_finish = False
    assert (await ask(bridge, "app.do"))["reply"] == 1
    assert (await ask(bridge, "app.do"))["reply"] == 1
    assert len(calls) == 1


async def test_what_was_never_started_is_started_by_the_repeat(
    bridge: WebSocketBridgeFactory, log: FailingLog, calls: list[Message]
) -> None:
    """A question that the log did not take is asked again, and is one event then."""
    log.cannot_accept = True
    question: dict[str, Any] = {"data": {"content": "why?"}}
    assert (await ask(bridge, "user_message", **question))["code"] == "overloaded"
    assert calls == []
    log.cannot_accept = False
    assert (await ask(bridge, "user_message", **question))["reply"] == 1
    found = [event async for event in bridge.events("user_123")]
    assert [event.type for event in found] == ["user_message"]


async def test_an_overloaded_message_may_be_sent_again() -> None:
    """Nothing was started, so its id is not used up."""
    go_on = threading.Event()
    config = HandlerConfig(timeout=5, threads=1)
    factory = WebSocketBridgeFactory(log="memory://?private", handlers=config)
    factory.service.register("app.do", lambda *_: go_on.wait(5))
    first = asyncio.create_task(ask(factory, "app.do", id="1"))
    await asyncio.sleep(0.01)
    assert (await ask(factory, "app.do", id="2"))["code"] == "overloaded"
    go_on.set()
    assert (await first)["reply"] is True
    assert (await ask(factory, "app.do", id="2"))["reply"] is True


async def test_a_handling_that_was_cancelled_is_told_honestly(
    bridge: WebSocketBridgeFactory,
) -> None:
    """A repeat is interrupted: it was started, and nobody knows how far it came; or runs again."""
    begun = asyncio.Event()
    hang = [True]

    async def handle(message: Message, emitter: UserWebSocketEmitter) -> str:
        begun.set()
        if hang:
            await asyncio.sleep(60)
        return "done"

    bridge.service.register("app.hang", handle)
    bridge.service.register("app.again", handle, retry=True)
    for type, id in (("app.hang", "1"), ("app.again", "2")):
        begun.clear()
        task = asyncio.create_task(ask(bridge, type, id=id))
        await begun.wait()
        waiting = asyncio.create_task(ask(bridge, type, id=id))
        await asyncio.sleep(0)
        task.cancel()
        assert (await waiting)["code"] == "interrupted"
    hang.clear()
    assert (await ask(bridge, "app.hang", id="1"))["code"] == "interrupted"
    assert (await ask(bridge, "app.again", id="2"))["reply"] == "done"


async def test_bridges_that_share_a_log_handle_a_message_once(
    bridge: WebSocketBridgeFactory, log: FailingLog
) -> None:
    """A repeat that comes to another bridge, on another loop, waits for the same reply."""
    begun, go_on = threading.Event(), asyncio.Event()

    async def handle(message: Message, emitter: UserWebSocketEmitter) -> str:
        begun.set()
        await go_on.wait()
        return "here"

    async def wrong(message: Message, emitter: UserWebSocketEmitter) -> str:
        return "there"

    bridge.service.register("app.slow", handle)
    other = WebSocketBridgeFactory(log=log)
    other.service.register("app.slow", wrong)
    first = asyncio.create_task(ask(bridge, "app.slow"))
    await asyncio.to_thread(begun.wait, 5)
    assert (await ask(other, "app.slow", data="else"))["code"] == "id_conflict"
    repeat = asyncio.create_task(asyncio.to_thread(asyncio.run, ask(other, "app.slow")))
    await asyncio.sleep(0.01)
    go_on.set()
    assert (await first)["reply"] == (await repeat)["reply"] == "here"
    assert bridge.service.in_flight == []


async def test_an_answer_echoes_the_id_as_it_came(bridge: WebSocketBridgeFactory) -> None:
    """1 and "1" are one message, and each sender finds its own."""
    answers = [await ask(bridge, "app.do", id=id) for id in ("1", 1, "1")]  # type: ignore[arg-type]
    assert [answer["id"] for answer in answers] == ["1", 1, "1"]
    assert {answer["reply"] for answer in answers} == {1}


# What handlers may do


@pytest.mark.parametrize(
    "error", [RunCancelled("r1"), asyncio.CancelledError(), StopIteration(), GeneratorExit()]
)
@pytest.mark.parametrize("is_async", [True, False])
async def test_whatever_a_handler_raises_is_answered(
    bridge: WebSocketBridgeFactory, error: BaseException, is_async: bool
) -> None:
    """Also what is no Exception, and what futures cannot carry."""

    def fail(message: Message, emitter: UserWebSocketEmitter) -> None:
        raise error

    async def fail_async(message: Message, emitter: UserWebSocketEmitter) -> None:
        raise error

    bridge.service.register("app.fail", fail_async if is_async else fail)
    async with asyncio.timeout(2):
        assert (await ask(bridge, "app.fail"))["code"] == "handler_failed"


async def test_callable_objects_and_partials_may_handle(bridge: WebSocketBridgeFactory) -> None:
    """Asynchronous ones are awaited on the loop."""

    class Handler:
        async def __call__(self, message: Message, emitter: UserWebSocketEmitter) -> str:
            return "object"

    async def add(word: str, message: Message, emitter: UserWebSocketEmitter) -> str:
        return word

    bridge.service.register("app.object", Handler())
    bridge.service.register("app.partial", functools.partial(add, "partial"))
    assert (await ask(bridge, "app.object"))["reply"] == "object"
    assert (await ask(bridge, "app.partial", id="2"))["reply"] == "partial"


async def test_a_reply_of_any_kind_is_encoded(bridge: WebSocketBridgeFactory) -> None:
    """What has no form in JSON is named."""
    bridge.service.register("app.odd", lambda *_: {"x": object()})
    assert (await ask(bridge, "app.odd"))["reply"] == {"x": {"unencodable": "object"}}


async def test_a_thread_that_cannot_start_gives_its_slot_back() -> None:
    """StopIteration of a thread is an error of its future, not a hang."""

    def stop() -> None:
        raise StopIteration

    with pytest.raises(RuntimeError):
        await asyncio.wait_for(call_in_thread(stop, name="stop"), 2)


# What clients may say


@pytest.mark.parametrize("data", [{}, {"text": "why?"}, "why?"])
async def test_a_question_in_another_shape_is_shown_as_it_came(
    bridge: WebSocketBridgeFactory, data: Any
) -> None:
    """Without ``content`` the other tabs get the data whole."""
    assert (await ask(bridge, "user_message", data=data))["reply"] == 1
    (event,) = [event async for event in bridge.events("user_123")]
    assert event.data["content"] == data


@pytest.mark.parametrize("data", [None, {"content": None}])
async def test_a_question_without_content_is_refused(
    bridge: WebSocketBridgeFactory, calls: list[Message], data: Any
) -> None:
    """It would be an event that no tab can show; its id stays free."""
    assert (await ask(bridge, "user_message", data=data))["code"] == "bad_message"
    assert [event async for event in bridge.events("user_123")] == []
    assert (await ask(bridge, "user_message", data={"content": ""}))["reply"] == 1


async def test_a_question_over_the_events_limit_is_too_large() -> None:
    """Where client messages may be larger than events."""
    factory = WebSocketBridgeFactory(
        log="memory://?private", limits=Limits(message_bytes=4 * 1024 * 1024)
    )
    factory.service.register("user_message", lambda *_: None)
    answer = await ask(factory, "user_message", data={"content": "x" * 300_000})
    assert answer["code"] == "too_large"


async def test_a_thread_that_is_no_name_is_refused(bridge: WebSocketBridgeFactory) -> None:
    """The service checks it too, for messages that come without a session."""
    assert (await ask(bridge, "app.do", thread_id="a\0b"))["code"] == "bad_message"
    assert ME.log_id == "user_123"


def receive(text: str, **limits: Any) -> Any:
    session = Session("c_1", Limits(**limits), now=0, is_authenticated=True)
    action = session.receive(text, 0, 0)
    if isinstance(action, Send):
        return json.loads(payload_of(action.frame))
    assert isinstance(action, Handle | Close)
    return action


@pytest.mark.parametrize("name", ["thread_id", "run_id", "request_id", "reason", "type"])
@pytest.mark.parametrize("value", ["", "x" * 5000, "a\0b", "line\nbreak"])
def test_names_in_a_message_are_checked(name: str, value: str) -> None:
    """Nothing oversized or unprintable goes on to the log or to handlers."""
    message = {"type": "app.do", "id": "1", "run_id": "r", "request_id": "q", name: value}
    if name == "reason" and len(value) < 100:
        assert isinstance(receive(json.dumps(message)), Handle)
        return
    answer = receive(json.dumps(message))
    assert answer["code"] == "bad_message"
    assert answer["id"] == "1"
    assert len(str(answer)) < 500


@pytest.mark.parametrize("id", ["x" * 129, "", 10**30, -(10**30), "a\0b"])
@pytest.mark.parametrize("type", ["ping", "app.do", "cancel_run"])
def test_ids_are_short_names_or_small_numbers(id: str | int, type: str) -> None:
    """An answer never grows with what came, and any client can read the number in it."""
    answer = receive(json.dumps({"type": type, "id": id, "run_id": "r"}))
    assert answer["code"] == "bad_message"
    assert "id" not in answer


@pytest.mark.parametrize("letter", ["é", "漢", "🚂"])
def test_the_size_of_a_message_is_in_bytes(letter: str) -> None:
    """Characters of many bytes count for what they take on the wire."""
    room = 65536 - len('{"type":"app.do","id":"1","data":""}')
    fits, size = room // len(letter.encode()), len(letter.encode())
    text = '{"type":"app.do","id":"1","data":"%s"}'
    assert isinstance(receive(text % (letter * fits)), Handle)
    assert receive(text % (letter * (fits + size)))["code"] == "too_large"


def test_the_last_of_equal_keys_counts() -> None:
    """And a message without data is one with null."""
    action = receive('{"type":"app.x","id":"1","type":"app.do","id":"2"}')
    assert (action.message.type, action.message.id, action.message.data) == ("app.do", "2", None)
