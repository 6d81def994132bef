"""What a simulated connection delivers, and how it fails."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catenary.validate.simulation import Link, SimulatedLoop, Simulation


class Peer(asyncio.Protocol):
    """A protocol that remembers what it was told, and when."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self.loop = loop
        self.pieces: list[bytes] = []
        self.told: list[object] = []

    @property
    def received(self) -> bytes:
        return b"".join(self.pieces)

    def data_received(self, data: bytes) -> None:
        assert asyncio.get_running_loop() is self.loop
        self.pieces.append(data)

    def eof_received(self) -> None:
        self.told.append("eof")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost" if exc is None else "reset")


class Pair:
    """A link with a peer at each end."""

    def __init__(self, **options: float) -> None:
        self.simulation = Simulation()
        loops = [SimulatedLoop(self.simulation) for _ in range(2)]
        self.link = Link(*loops, **options)  # type: ignore[arg-type]
        self.client, self.server = map(Peer, loops)
        self.link.client.set_protocol(self.client)
        self.link.server.set_protocol(self.server)

    def run(self, seconds: float = 1.0) -> None:
        self.simulation.run_for(seconds)


def test_bytes_arrive_after_the_latency() -> None:
    """Both ways, and not before."""
    pair = Pair(latency=0.25)
    pair.link.client.write(b"question")
    pair.link.server.write(b"answer")
    pair.run(0.2)
    assert (pair.server.received, pair.client.received) == (b"", b"")
    pair.run(0.1)
    assert (pair.server.received, pair.client.received) == (b"question", b"answer")


@given(
    st.lists(st.binary(max_size=50)),
    st.integers(1, 40),
    st.integers(1, 60),
    st.integers(min_value=0),
)
def test_everything_arrives_once_in_its_order(
    writes: list[bytes], segment: int, window: int, seed: int
) -> None:
    """However it is cut into pieces, and in whatever order callbacks run."""
    pair = Pair(segment_bytes=segment, window_bytes=window)
    pair.simulation.choose = lambda count: seed % count
    for data in writes:
        pair.link.client.write(data)
    pair.link.client.close()
    pair.run()
    assert pair.server.received == b"".join(writes)
    assert all(len(piece) <= segment for piece in pair.server.pieces)
    assert pair.server.told == ["eof", "lost"]
    assert pair.client.told == ["lost"]


def test_a_latency_that_becomes_shorter_lets_nothing_overtake() -> None:
    pair = Pair(latency=1.0)
    pair.link.client.write(b"first ")
    pair.link.latency = 0.1
    pair.link.client.write(b"second")
    pair.run(2.0)
    assert pair.server.received == b"first second"


def test_a_sender_is_paused_and_goes_on() -> None:
    """Above its high mark while the other end reads nothing; below the low one it goes on."""
    pair = Pair(window_bytes=10)
    pair.link.client.set_write_buffer_limits(high=100, low=20)
    pair.link.server.pause_reading()
    pair.link.client.write(b"x" * 110)
    assert pair.client.told == []
    pair.link.client.write(b"x")
    assert pair.client.told == ["pause"]
    pair.run()
    assert pair.link.client.get_write_buffer_size() == 101
    pair.link.server.resume_reading()
    pair.run()
    assert pair.client.told == ["pause", "resume"]
    assert len(pair.server.received) == 111


def test_a_stalled_link_keeps_everything() -> None:
    """Nothing leaves; what flew arrives; released, the rest follows."""
    pair = Pair()
    pair.link.client.write(b"before ")
    pair.link.stall()
    pair.link.client.write(b"after")
    pair.run()
    assert pair.server.received == b"before "
    assert pair.link.client.get_write_buffer_size() == 5
    pair.link.release()
    pair.run()
    assert pair.server.received == b"before after"


def test_a_half_open_link_tells_nobody() -> None:
    """What flies and what follows vanishes; a full window is all that a sender may notice."""
    pair = Pair(window_bytes=10)
    pair.link.client.write(b"12345")
    pair.link.lose()
    pair.link.client.write(b"1234567890")
    pair.link.server.abort()
    pair.run(1000.0)
    assert pair.server.received == b""
    assert pair.link.client.get_write_buffer_size() == 5
    assert pair.client.told == []
    assert pair.server.told == ["lost"]
    assert not pair.link.is_whole


@pytest.mark.parametrize("kept", [0, 1, 7, 100])
def test_a_cut_loses_what_was_under_way(kept: int) -> None:
    """But for the first bytes; both ends are told."""
    pair = Pair(segment_bytes=5)
    pair.link.client.write(b"0123456789")
    pair.link.cut(kept_bytes=kept)
    pair.run()
    assert pair.server.received == b"0123456789"[:kept]
    assert (pair.client.told, pair.server.told) == (["reset"], ["reset"])


def test_an_end_can_be_told_alone() -> None:
    pair = Pair()
    pair.link.lose()
    pair.link.reset(pair.link.server)
    pair.run()
    assert (pair.client.told, pair.server.told) == ([], ["reset"])


def test_an_abort_reaches_the_other_end() -> None:
    """After what was written before it; what had not left is lost."""
    pair = Pair(window_bytes=4)
    pair.link.client.write(b"sentkept")
    pair.link.client.abort()
    pair.run()
    assert pair.server.received == b"sent"
    assert (pair.client.told, pair.server.told) == (["lost"], ["reset"])


def test_a_half_close_leaves_the_other_direction_open() -> None:
    class Talkative(Peer):
        def eof_received(self) -> bool:  # type: ignore[override]
            pair.link.server.write(b"still here")
            return True

    pair = Pair()
    pair.link.server.set_protocol(Talkative(pair.server.loop))
    pair.link.client.write_eof()
    pair.run()
    assert pair.client.received == b"still here"
    assert pair.link.is_whole


def test_a_proxy_cuts_what_is_idle_and_nothing_else() -> None:
    """After its limit without a byte, counted from the last one."""
    pair = Pair(idle_limit=60.0)
    pair.run(59.0)
    pair.link.server.write(b"x")
    pair.run(59.0)
    assert pair.client.told == []
    pair.run(2.0)
    assert (pair.client.told, pair.server.told) == (["reset"], ["reset"])


def test_a_frozen_receiver_leaves_its_bytes_in_the_network() -> None:
    """As the kernel of a stopped process would: a window full, and no more."""
    pair = Pair(window_bytes=10)
    pair.simulation.freeze(pair.server.loop)
    pair.link.client.write(b"x" * 25)
    pair.run()
    assert pair.link.client.get_write_buffer_size() == 15
    pair.simulation.thaw(pair.server.loop)
    pair.run()
    assert len(pair.server.received) == 25
