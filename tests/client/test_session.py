"""What protocol/cases leaves to each client: reading ahead, reports on demand, parted input."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest

from catenary.client import Backoff, Limits, State
from catenary.client.session import Session
from catenary.client.state import Disconnect
from catenary.position import Position

from .scripted import SEED, event


def opened(**limits: Any) -> Session:
    session = Session(
        after="k3:0", backoff=Backoff(random=Random(SEED)), now=0.0, limits=Limits(**limits)
    )
    connected = {"type": "connected", "after": "k3:0", "heartbeat_interval": 15}
    session.receive(json.dumps(connected), 0.0)
    assert session.state is State.REPLAYING
    return session


def feed(session: Session, *seqs: int, text: str = "") -> None:
    for seq in seqs:
        session.receive(json.dumps(event(seq, data={"text": text})), 0.0)


def test_reading_stops_at_the_frames_ahead() -> None:
    """With so many events unread the transport is to stop, and go on when one is taken."""
    session = opened(ahead_frames=3)
    feed(session, 1, 2)
    assert session.may_read
    feed(session, 3)
    assert not session.may_read
    session.inbox.take()
    assert session.may_read


def test_reading_stops_at_the_bytes_ahead() -> None:
    """Few but large events stop the reading too."""
    session = opened(ahead_bytes=10_000)
    feed(session, 1, text="x" * 9_000)
    assert session.may_read
    feed(session, 2, text="x" * 9_000)
    assert not session.may_read


@pytest.mark.parametrize("what", ["command", "probe", "report"])
def test_reading_goes_on_for_an_answer(what: str) -> None:
    """While an answer is awaited the transport reads on; with it, it stops again."""
    session = opened(ahead_frames=1)
    feed(session, 1, 2)
    assert not session.may_read
    if what == "command":
        session.command({"type": "app.ask", "id": "a1"})
        answer: dict[str, Any] = {"type": "ack", "id": "a1"}
    elif what == "probe":
        session.probe(0.0)
        answer = {"type": "pong"}
    else:
        session.report_now(0.0)
        answer = {"type": "position_ok", "position": "k3:0"}
    assert session.may_read
    session.receive(json.dumps(answer), 0.0)
    assert not session.may_read


def test_what_lies_beyond_is_passed_over_and_fetched_again() -> None:
    """Far behind, events are passed over until the answer comes, and then asked for again."""
    session = opened(ahead_frames=1, answer_ahead_bytes=2_000)
    session.command({"type": "app.ask", "id": "a1"})
    feed(session, *range(1, 100), text="x" * 900)
    assert session.inbox.waiting_frames == 2
    assert session.state is State.REPLAYING
    session.receive('{"type": "ack", "id": "a1"}', 0.0)
    assert session.disconnect_to_make() is Disconnect.BEHIND
    assert session.next_deadline() == 0.0
    session.tick(0.0)
    assert session.after == "k3:2"


def test_an_automatic_report_does_not_make_it_read() -> None:
    """Only a report that someone waits for is worth reading on."""
    session = opened(ahead_frames=1)
    feed(session, 1, 2, 3)
    session.inbox.take()
    session.settle(0.0)
    assert "position" in session.messages_to_send()[0]
    assert not session.may_read


def test_a_report_on_demand_is_repeated_until_confirmed() -> None:
    """A demanded report outlives a break; one that is confirmed is not sent again."""
    session = opened()
    feed(session, 1)
    session.inbox.take()
    session.settle(0.0)
    session.messages_to_send()
    session.report_now(0.1)
    assert len(session.messages_to_send()) == 1
    session.connection_lost(1006, 0.2)
    session.tick(1.0)
    session.receive('{"type": "connected", "after": "k3:1"}', 0.4)
    assert len(session.messages_to_send()) == 1
    session.receive('{"type": "position_ok", "position": "k3:1"}', 0.5)
    assert session.reports.confirmed == Position("k3", 1)
    session.report_now(0.6)
    assert session.messages_to_send() == []
    assert not session.reports.is_awaited


def test_a_part_of_a_message_is_a_sign_of_life() -> None:
    """Bytes that make no message yet begin the silence and a probe anew."""
    session = opened()
    session.heard(30.0)
    session.tick(60.0)
    assert session.state is State.REPLAYING
    session.probe(60.0)
    session.heard(61.5)
    session.tick(63.0)
    assert session.state is State.REPLAYING
    session.tick(63.5)
    assert session.disconnect_to_make() is Disconnect.PROBE


def test_nothing_is_left_over_for_the_next_connection() -> None:
    """What was to be said on a connection that ended is not said before the next greeting."""
    session = opened()
    feed(session, 1)
    session.inbox.take()
    session.authenticate("token")
    session.settle(0.0)
    session.tick(100.0)
    assert session.disconnect_to_make() is Disconnect.SILENCE
    assert session.messages_to_send() == []


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "null", "[]", '"connected"', "{}", '{"type": 1}', '{"type": "live"}',
     '{"type": "live", "position": "k3"}', '{"type": "app.x", "seq": 1}',
     '{"type": "app.x", "seq": "1", "id": "k3:1"}', '{"type": "app.x", "seq": 1, "id": "k3:2"}',
     '{"type": "gap", "after": "x", "resumes_at": "k3:1", "reason": "epoch"}', "\udcff",
     '{"type": "connected", "after": "k3:0"}'],
)  # fmt: skip
def test_nonsense_is_a_fault(text: str) -> None:
    """Whatever is not the protocol costs the connection, and neither an event nor the client."""
    session = opened()
    session.receive(text.encode(errors="surrogateescape"), 0.0)
    assert session.disconnect_to_make() is Disconnect.FAULT
    assert session.state is State.WAITING
    assert session.after == "k3:0"
