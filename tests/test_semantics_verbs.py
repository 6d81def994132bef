from __future__ import annotations

import threading
from typing import Any

import pytest

from catenary import (
    UsageError,
    UserWebSocketContext,
    UserWebSocketEmitter,
    WebSocketBridgeFactory,
    WebSocketEvent,
)
from catenary.fold import RunStatus


async def events(factory: WebSocketBridgeFactory) -> list[WebSocketEvent]:
    return [event async for event in factory.events("user_123")]


@pytest.mark.parametrize("lease", ["5", -1, 0, float("nan"), True])
async def test_a_lease_is_a_number_of_seconds(emitter: UserWebSocketEmitter, lease: Any) -> None:
    """Anything else is refused at the call, and no upkeep stumbles over it."""
    with pytest.raises(UsageError, match="lease"):
        emitter.agent_started(lease=lease)


# Ids


@pytest.mark.parametrize("bad", ["a\0b", "x" * 257, 7, "line\nbreak"])
@pytest.mark.parametrize("name", ["run_id", "agent_name", "parent_run_id"])
async def test_names_of_runs_are_checked(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter, name: str, bad: Any
) -> None:
    """A name that the log or a reader could stumble over is refused, and nothing was emitted."""
    arguments = {"run_id": "r1", name: bad}
    with pytest.raises(UsageError):
        emitter.agent_started(**arguments)
    assert await events(factory) == []


@pytest.mark.parametrize(
    "arguments", [{"part": "banana"}, {"message_id": "m\0text"}, {"tool_call_id": "x" * 300}]
)
async def test_what_a_delta_belongs_to_is_checked(
    emitter: UserWebSocketEmitter, arguments: dict[str, Any]
) -> None:
    """No delta can be made to look like a piece of another message."""
    emitter.agent_started()
    with pytest.raises(UsageError):
        emitter.agent_delta("x", **arguments)


@pytest.mark.parametrize("name", ["a:b", "a/b", "ü", "{}", "%s"])
async def test_odd_names_are_kept_as_they_are(factory: WebSocketBridgeFactory, name: str) -> None:
    """Separators of other systems mean nothing here."""
    one = factory.get_user_emitter(UserWebSocketContext(user_id=name, thread_id=name, run_id=name))
    one.agent_started(agent_name=name)
    one.agent_delta("x", message_id=name)
    found = [event async for event in factory.events(name)]
    assert {(e.user_id, e.thread_id, e.run_id, e.agent_name) for e in found} == {(name,) * 4}


async def test_a_context_without_a_run_begins_a_new_one_at_each_start(
    factory: WebSocketBridgeFactory,
) -> None:
    """The first is the context's own; also a second emitter of the context begins another."""
    context = UserWebSocketContext(user_id="user_123")
    one = factory.get_user_emitter(context)
    one.agent_started()
    assert one.run_id == context.run_id
    one.agent_completed()
    one.agent_started()
    two = factory.get_user_emitter(context)
    two.agent_started()
    assert len({context.run_id, one.run_id, two.run_id}) == 3


# Data


async def test_data_that_are_no_object_are_put_into_one(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Every event can be read again, also by the folding of its run."""
    async with emitter.run():
        emitter.custom("app.list", [1, 2], run_id=emitter.run_id)
    assert (await events(factory))[1].data == {"value": [1, 2]}
    assert (await factory.runs("user_123"))[0].status is RunStatus.COMPLETED


async def test_output_of_any_characters_is_cut(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Characters that take six bytes in JSON do not make the cut output too large again."""
    emitter.agent_started()
    emitter.tool_executing("t", tool_call_id="c")
    emitter.tool_completed("t", "\0" * 300_000, tool_call_id="c", error="\0" * 300_000)
    assert (await events(factory))[-1].data["truncated"] is True


async def test_words_of_an_end_are_cut_not_refused(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A run always ends, however much its error has to say."""
    emitter.agent_started()
    emitter.agent_error("é\0" * 500_000)
    end = (await events(factory))[-1]
    assert end.type == "agent_error"
    assert len(str(end.data)) < 256 * 1024


async def test_tools_of_one_run_from_many_threads(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """Looking for the tool that ends never stumbles over one that begins."""
    emitter.agent_started()
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for _ in range(300):
                emitter.tool_executing(name)
                emitter.tool_completed(name)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    emitter.agent_completed()
    assert (await factory.runs("user_123"))[0].status is RunStatus.COMPLETED


# The redaction hook


def hide(event: WebSocketEvent) -> WebSocketEvent:
    def hidden(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: "***" if k == "key" else hidden(v) for k, v in value.items()}
        return value.replace("hush", "***") if isinstance(value, str) else value

    return WebSocketEvent(type=event.type, id="", seq=0, data=hidden(event.data))


@pytest.fixture
def hooked() -> WebSocketBridgeFactory:
    return WebSocketBridgeFactory(log="memory://?private", redact=hide)


async def test_the_hook_sees_ends_too(hooked: WebSocketBridgeFactory) -> None:
    """Errors and reasons pass it, and so does what they say of open tools."""
    emitter = hooked.get_user_emitter(UserWebSocketContext(user_id="user_123"))
    emitter.agent_started()
    emitter.tool_executing("t")
    emitter.agent_error("hush 1")
    emitter.agent_started()
    emitter.agent_cancelled("hush 2")
    text = str([event.data for event in await events(hooked)])
    assert "hush" not in text
    assert text.count("*** 1") == 2
    assert text.count("*** 2") == 1


async def test_the_hook_sees_tool_output_before_it_is_cut(hooked: WebSocketBridgeFactory) -> None:
    """It finds its keys in what will be cut."""
    emitter = hooked.get_user_emitter(UserWebSocketContext(user_id="user_123"))
    emitter.agent_started()
    emitter.tool_executing("t", tool_call_id="c")
    emitter.tool_completed("t", {"key": "s3cret", "long": "x" * 300_000}, tool_call_id="c")
    end = (await events(hooked))[-1]
    assert end.data["truncated"] is True
    assert "s3cret" not in str(end.data)


async def test_a_hook_that_fails_leaks_nothing_and_runs_still_end() -> None:
    """A verb raises what the hook raised; an end goes without its words."""

    def broken(event: WebSocketEvent) -> WebSocketEvent:
        if "secret" in str(event.data):
            raise ZeroDivisionError
        return event

    factory = WebSocketBridgeFactory(log="memory://?private", redact=broken)
    emitter = factory.get_user_emitter(UserWebSocketContext(user_id="user_123"))
    emitter.agent_started()
    with pytest.raises(ZeroDivisionError):
        emitter.agent_thinking("secret")
    emitter.agent_error("secret", code="x")
    found = await events(factory)
    assert [event.type for event in found] == ["agent_started", "agent_error"]
    assert found[-1].data == {"code": "x", "message": "[REDACTED]"}
