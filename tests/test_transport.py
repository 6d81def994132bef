"""The transport without a socket behaves as one with a socket does."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import catenary.transport
from catenary.errors import UsageError
from catenary.transport import HoldingTransport, Receiver, StallingTransport, Transport


class Notes:
    """A receiver that keeps what it was told, in order."""

    def __init__(self) -> None:
        self.told: list[object] = []

    def message_received(self, message: str | bytes) -> None:
        self.told.append(message)

    def writable(self) -> None:
        self.told.append("writable")

    def closed(self, code: int, reason: str) -> None:
        self.told.append((code, reason))


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def transport(notes: Notes) -> StallingTransport:
    return StallingTransport(notes, high_water_bytes=10, low_water_bytes=4)


def test_it_is_a_transport_and_its_receiver_a_receiver(
    transport: StallingTransport, notes: Notes
) -> None:
    typed: Transport = transport
    receiver: Receiver = notes
    assert typed.buffered_bytes == 0
    assert receiver is transport.receiver


def test_bytes_are_taken_at_once_until_it_stalls(transport: StallingTransport) -> None:
    transport.write(b"x" * 100)
    assert (transport.bytes_taken, transport.buffered_bytes) == (100, 0)
    assert not transport.is_paused
    transport.stall()
    transport.write(b"y" * 10)
    assert (transport.bytes_taken, transport.buffered_bytes) == (100, 10)
    assert not transport.is_paused
    transport.write(b"z")
    assert transport.is_paused
    assert transport.writes == [b"x" * 100, b"y" * 10, b"z"]
    assert transport.written == b"x" * 100 + b"y" * 10 + b"z"


def test_draining_below_the_low_water_mark_calls_writable_once(
    transport: StallingTransport, notes: Notes
) -> None:
    transport.stall()
    transport.write(b"x" * 12)
    transport.drain(7)
    assert (transport.is_paused, transport.bytes_taken) == (True, 7)
    assert notes.told == []
    transport.drain(1)
    assert (transport.is_paused, transport.buffered_bytes) == (False, 4)
    assert notes.told == ["writable"]
    transport.drain()
    transport.write(b"y" * 100)
    assert transport.buffered_bytes == 0
    assert notes.told == ["writable"]


def test_a_write_from_writable_may_pause_it_again(transport: StallingTransport) -> None:
    class Eager(Notes):
        def writable(self) -> None:
            super().writable()
            transport.write(b"y" * 11)

    transport.receiver = eager = Eager()
    transport.stall()
    transport.write(b"x" * 11)
    transport.drain(11)
    assert transport.is_paused
    assert eager.told == ["writable"]


def test_messages_arrive_unless_reading_is_paused(
    transport: StallingTransport, notes: Notes
) -> None:
    transport.say("one", now=3.5)
    assert transport.last_heard == 3.5
    transport.pause_reading()
    assert not transport.is_reading
    with pytest.raises(UsageError):
        transport.say("two")
    transport.resume_reading()
    transport.say(b"three")
    assert notes.told == ["one", b"three"]
    assert transport.last_heard == 3.5


def test_one_ping_is_outstanding_until_its_pong(transport: StallingTransport) -> None:
    transport.ping()
    transport.ping()
    assert transport.pings == 1
    transport.pong(now=2.0)
    assert transport.last_heard == 2.0
    transport.ping()
    assert transport.pings == 2


def test_a_close_is_told_when_the_peer_completes_it(
    transport: StallingTransport, notes: Notes
) -> None:
    transport.close(4505, "too many")
    transport.close(1000, "again")
    transport.write(b"late")
    transport.ping()
    assert notes.told == []
    assert (transport.closing, transport.writes, transport.pings) == ((4505, "too many"), [], 0)
    with pytest.raises(UsageError):
        transport.say("late")
    transport.die()
    assert notes.told == [(4505, "too many")]


def test_an_abort_is_told_when_it_dies(transport: StallingTransport, notes: Notes) -> None:
    transport.abort()
    assert transport.is_aborted
    assert notes.told == []
    transport.die()
    assert notes.told == [(1006, "")]


def test_closed_is_told_once_and_last(transport: StallingTransport, notes: Notes) -> None:
    transport.stall()
    transport.write(b"x" * 11)
    transport.die(1001, "bye")
    transport.die()
    transport.drain()
    transport.write(b"late")
    assert notes.told == [(1001, "bye")]
    assert transport.buffered_bytes == 0
    assert transport.bytes_taken == 0


def test_a_transport_without_a_receiver_says_what_is_missing() -> None:
    transport = StallingTransport()
    transport.write(b"x")
    with pytest.raises(UsageError, match="receiver"):
        transport.die()


@pytest.fixture
def holding(transport: StallingTransport, notes: Notes) -> HoldingTransport:
    return HoldingTransport(transport, notes)


def test_a_holding_transport_is_one_that_lets_everything_through(
    holding: HoldingTransport, transport: StallingTransport
) -> None:
    typed: Transport = holding
    typed.write(b"abc")
    typed.ping()
    typed.pause_reading()
    assert transport.writes == [b"abc"]
    assert (transport.pings, transport.is_reading) == (1, False)
    typed.resume_reading()
    assert transport.is_reading
    assert (typed.bytes_taken, typed.buffered_bytes, typed.is_paused) == (3, 0, False)
    transport.stall()
    typed.write(b"x" * 11)
    assert (typed.is_paused, typed.buffered_bytes) == (True, 11)


def test_what_is_held_goes_in_one_write_and_the_receiver_goes_on(
    holding: HoldingTransport, transport: StallingTransport, notes: Notes
) -> None:
    holding.hold()
    assert holding.is_paused
    holding.write(b"abc")
    holding.write(b"de")
    assert transport.writes == []
    assert (holding.buffered_bytes, holding.bytes_taken) == (5, 0)
    holding.release()
    assert transport.writes == [b"abcde"]
    assert not holding.is_paused
    assert notes.told == ["writable"]
    holding.release()
    assert notes.told == ["writable"]


def test_a_release_above_the_high_water_mark_waits_for_the_socket(
    holding: HoldingTransport, transport: StallingTransport, notes: Notes
) -> None:
    transport.stall()
    holding.hold()
    holding.write(b"x" * 11)
    holding.release()
    assert holding.is_paused
    assert notes.told == []
    transport.drain()
    assert notes.told == ["writable"]


def test_a_close_comes_after_what_was_held_and_an_abort_drops_it(
    transport: StallingTransport, notes: Notes
) -> None:
    holding = HoldingTransport(transport, notes)
    holding.hold()
    holding.write(b"last")
    holding.close(1012, "draining")
    assert transport.writes == [b"last"]
    assert transport.closing == (1012, "draining")
    other = StallingTransport(notes)
    holding = HoldingTransport(other, notes)
    holding.hold()
    holding.write(b"never")
    holding.abort()
    holding.release()
    assert other.writes == []
    assert other.is_aborted


def test_the_module_needs_no_loop_socket_thread_or_clock() -> None:
    tree = ast.parse(Path(catenary.transport.__file__).read_text())
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= {"__future__", "typing", "catenary.errors"}
