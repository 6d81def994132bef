"""Clients of other wires that come back by themselves: with places, on a new socket."""

from __future__ import annotations

import json
from typing import Any

import pytest

from catenary import UserWebSocketContext
from tests.serving.bridges import Bridge
from tests.serving.test_wires import bridge, chat, closed, opened, received, run_input, text_in

__all__ = ["bridge"]

JOINED = ["RUN_STARTED", "MESSAGES_SNAPSHOT", "RUN_FINISHED"]
PATHS = ["/ws/ag-ui", "/ws/ag-ui/connect"]


async def sent(path: str, bridge: Bridge, *messages: Any) -> list[dict[str, Any]]:
    """Send these, and return what comes until the socket is closed, or a stream ends."""
    got = []
    async with opened(bridge, path) as ws:
        for message in messages:
            await ws.send(json.dumps(message))
        while True:
            got.append(await received(ws))
            if got[-1].get("type") in {"end", "error", "no-active"}:
                return got
            if got[-1].get("chunk", {}).get("type") in {"RUN_FINISHED", "RUN_ERROR"}:
                assert await closed(ws) == 1000
                return got


def is_same(rest: list[dict[str, Any]], left: list[dict[str, Any]]) -> None:
    """The same frames, but that text may have been merged."""
    assert text_in(rest) == text_in(left)
    others = [[frame for frame in frames if "delta" not in frame] for frames in (rest, left)]
    assert others[0] == others[1]


def asked(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "send", "requestId": "r1", "places": True, **chat(text), **fields}


async def test_a_chat_goes_on_after_each_of_its_chunks(bridge: Bridge) -> None:
    """Numbered from 0, and the same as what followed; after the last one there is the end."""
    whole = await sent("/ws/ai-sdk", bridge, asked("say:5"))
    chunks = whole[1:-1]
    assert [frame["sequence"] for frame in chunks] == list(range(len(chunks)))
    for number, frame in enumerate(chunks):
        again = asked("say:5", again=True, after=frame["place"], requestId="r2")
        rest = await sent("/ws/ai-sdk", bridge, again)
        assert [one["type"] for one in rest] == ["start", *["chunk"] * (len(rest) - 2), "end"]
        assert [one["sequence"] for one in rest[1:-1]] == list(range(len(rest) - 2))
        is_same(
            [one["chunk"] for one in rest[1:-1]], [one["chunk"] for one in chunks[number + 1 :]]
        )
    assert len(await bridge.factory.runs("user_123")) == 1


async def test_who_did_not_ask_for_places_gets_none(bridge: Bridge) -> None:
    """The stock transport gets what its protocol says."""
    frames = await sent("/ws/ai-sdk", bridge, asked("say:2", places=False))
    assert all("place" not in frame for frame in frames)
    async with opened(bridge, "/ws/ag-ui") as ws:
        await ws.send(json.dumps(run_input("say:2", thread_id="t2")))
        assert (await received(ws))["type"] == "RUN_STARTED"


async def test_a_message_that_is_sent_again_finds_its_turn_though_that_failed(
    bridge: Bridge,
) -> None:
    """A retry of the socket is no retry of the user's."""
    await sent("/ws/ai-sdk", bridge, asked("wait"), {"type": "abort", "requestId": "r1"})
    await sent("/ws/ai-sdk", bridge, asked("wait", again=True))
    assert len(await bridge.factory.runs("user_123")) == 1


async def test_an_aborted_request_of_who_comes_back_ends(bridge: Bridge) -> None:
    """Else it would come back, to abort it again."""
    frames = await sent("/ws/ai-sdk", bridge, asked("wait"), {"type": "abort", "requestId": "r1"})
    assert frames[-1] == {"type": "end", "requestId": "r1"}


async def test_a_run_of_ag_ui_goes_on_after_each_of_its_events(bridge: Bridge) -> None:
    """The same input with the last place brings the rest, and begins no other run."""
    asking = run_input("say:5")
    whole = await sent("/ws/ag-ui?last_event_id=", bridge, asking)
    for number, frame in enumerate(whole[:-1]):
        rest = await sent(
            f"/ws/ag-ui?last_event_id={frame['id'].replace('+', '%2B')}", bridge, asking
        )
        is_same([one["chunk"] for one in rest], [one["chunk"] for one in whole[number + 1 :]])
    async with opened(bridge, f"/ws/ag-ui?last_event_id={whole[-1]['id']}") as ws:
        await ws.send(json.dumps(asking))
        assert await closed(ws) == 1000
    assert len(await bridge.factory.runs("user_123")) == 1


async def test_who_joins_ag_ui_with_nothing_gets_the_thread(bridge: Bridge) -> None:
    """At once, as a group that ends with a place; who has messages and is late gets nothing."""
    await sent("/ws/ag-ui?last_event_id=", bridge, run_input("say:3"))
    joining = {"threadId": "t1", "runId": "run-b", "messages": []}
    frames = await sent("/ws/ag-ui/connect?last_event_id=", bridge, joining)
    assert [frame["id"] == "" for frame in frames] == [True] * (len(frames) - 1) + [False]
    chunks = [frame["chunk"] for frame in frames]
    assert [chunks[n]["type"] for n in (0, 1, -1)] == JOINED
    said = [(one["role"], one["content"]) for one in chunks[1]["messages"]]
    assert said == [("user", "say:3"), ("assistant", "0 1 2 ")]
    unknown = {"threadId": "nothing", "runId": "run-c", "messages": []}
    async with opened(bridge, "/ws/ag-ui/connect") as ws:
        await ws.send(json.dumps(unknown))
        assert await closed(ws) == 1000


async def test_what_was_said_long_ago_is_joined_too(bridge: Bridge) -> None:
    """Where nothing is at work, by who has nothing; after a cut it ends where it was told."""
    context = UserWebSocketContext(user_id="user_123", thread_id="t1")
    async with bridge.factory.get_user_emitter(context).run() as run:
        run.delta("Long ago.")
    joining = {"threadId": "t1", "runId": "run-b", "messages": []}
    frames = await sent("/ws/ag-ui/connect?last_event_id=", bridge, joining)
    assert [frame["chunk"]["type"] for frame in frames] == JOINED
    assert [one["content"] for one in frames[1]["chunk"]["messages"]] == ["Long ago."]
    known = {**joining, "messages": [{"id": "m1", "role": "user", "content": "?"}]}
    for path, message in (
        (f"/ws/ag-ui/connect?last_event_id={frames[-1]['id']}", joining),
        ("/ws/ag-ui/connect", known),
    ):
        async with opened(bridge, path) as ws:
            await ws.send(json.dumps(message))
            assert await closed(ws) == 1000


@pytest.mark.parametrize("path", ["/ws/ai-sdk", *PATHS, "/ws/tanstack"])
async def test_a_ping_is_answered(bridge: Bridge, path: str) -> None:
    """A browser is not shown the protocol's own."""
    async with opened(bridge, path) as ws:
        await ws.send('{"type":"ping"}')
        assert await received(ws) == {"type": "pong"}


@pytest.mark.parametrize("place", ["nonsense", "k3", "k3:x", "k3:1+x"])
async def test_a_place_that_is_none_is_refused(bridge: Bridge, place: str) -> None:
    """It is told, and nothing begins."""
    await sent("/ws/ai-sdk", bridge, asked("say:1"))
    frames = await sent("/ws/ai-sdk", bridge, asked("say:1", again=True, after=place))
    assert frames[-1]["type"] == "error"
    assert "no place" in frames[-1]["errorText"]
