"""One direction of a connection: order, time, rate, pieces and altered bytes, without a socket."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catenary.validate.chaos import CALM, Faults, Incident
from catenary.validate.chaos.faults import CHUNK_BYTES, Way
from catenary.validate.chaos.link import PACKET_BYTES, Link, Mark

probabilities = st.sampled_from([0.0, 0.1, 0.5, 1.0])
times = st.sampled_from([0.0, 0.003, 0.2, 1.0])
rates = st.sampled_from([None, 1_000, 50_000.0])
networks = st.builds(
    Faults,
    delay=times,
    jitter=times,
    loss=probabilities,
    retransmit=times,
    stall=probabilities,
    stall_seconds=times,
    bytes_per_second=rates,
    bytes_per_second_up=rates,
    split_bytes=st.sampled_from([None, 1, 7, 1000]),
)
# Seconds since the former, and how many bytes are sent.
sendings = st.lists(
    st.tuples(st.sampled_from([0.0, 0.001, 0.5]), st.integers(1, 20_000)), max_size=6
)


def link(faults: Faults, *, way: Way = Way.DOWN, seed: int = 7) -> Link:
    return Link(way, faults, Random(seed))


def content(size: int, seed: int = 1) -> bytes:
    return Random(seed).randbytes(size)


def drain(link: Link) -> list[tuple[float, bytes]]:
    """Take everything, each piece when it is due, and say when that is."""
    taken = []
    while (due := link.next_due) is not None:
        assert link.take(due - 1e-6) == b""
        taken.append((due, link.take(due)))
        assert taken[-1][1], "what is due can be taken"
    return taken


@settings(derandomize=True, deadline=None)
@given(faults=networks, sendings=sendings)
def test_nothing_is_lost_altered_or_reordered(
    faults: Faults, sendings: list[tuple[float, int]]
) -> None:
    """Whatever a network does but alter, what arrives is what was sent, and not before its time."""
    channel, now, sent, arrived = link(faults), 0.0, b"", b""
    for number, (later, size) in enumerate(sendings):
        while (due := channel.next_due) is not None and due <= now + later:
            arrived += channel.take(due)
            assert sent.startswith(arrived)
        now += later
        data = content(size, number)
        sent += data
        channel.receive_data(data, now)
        assert channel.held_bytes == len(sent) - len(arrived)
        assert channel.next_due is not None
        assert arrived or channel.next_due >= faults.delay
    pieces = drain(channel)
    assert arrived + b"".join(piece for _, piece in pieces) == sent
    assert [due for due, _ in pieces] == sorted(due for due, _ in pieces)
    assert channel.held_bytes == 0


@settings(derandomize=True, deadline=None)
@given(faults=networks, sendings=sendings)
def test_the_same_chance_does_the_same_again(
    faults: Faults, sendings: list[tuple[float, int]]
) -> None:
    """Also where bytes are altered: seed, faults, bytes and times decide everything."""
    faults = msgspec.structs.replace(faults, corrupt=0.5)

    def run() -> tuple[list[tuple[float, bytes]], list[Incident]]:
        channel, now = link(faults), 0.0
        for number, (later, size) in enumerate(sendings):
            now += later
            channel.receive_data(content(size, number), now)
        return drain(channel), channel.incidents

    assert run() == run()


def test_a_calm_link_passes_everything_on_at_once() -> None:
    channel, data = link(CALM), content(100_000)
    channel.receive_data(data, 5.0)
    assert channel.take(5.0) == data
    assert channel.next_due is None


def test_the_delay_is_exact_and_jitter_comes_on_top() -> None:
    """Chunks that do not meet arrive after the delay and at most the jitter more."""
    channel = link(Faults(delay=0.05, jitter=0.15))
    waits = []
    for second in range(200):
        channel.receive_data(b"x", float(second))
        ((due, _),) = drain(channel)
        waits.append(due - second)
    assert 0.05 <= min(waits) < 0.06
    assert 0.19 < max(waits) <= 0.2
    assert sum(waits) / 200 == pytest.approx(0.125, abs=0.01)


@settings(derandomize=True, deadline=None)
@given(
    rate=st.sampled_from([100, 10_000, 1_000_000]),
    sizes=st.lists(st.integers(1, 50_000), min_size=1, max_size=5),
    split=st.sampled_from([None, 10, 1000]),
)
def test_a_throttled_link_holds_its_rate(rate: int, sizes: list[int], split: int | None) -> None:
    """At no time has more arrived than the rate allows, and at the end all has, no later."""
    channel = link(Faults(bytes_per_second=rate, split_bytes=split, delay=0.2))
    for size in sizes:
        channel.receive_data(content(size), 10.0)
    arrived = 0
    for due, piece in drain(channel):
        assert len(piece) <= min(PACKET_BYTES, split or PACKET_BYTES)
        arrived += len(piece)
        assert arrived <= rate * (due - 10.2) + 1e-3
    assert due - 10.2 == pytest.approx(sum(sizes) / rate)


def test_a_throttled_link_gains_nothing_by_a_rest() -> None:
    """Time in which nothing was sent is no credit."""
    channel = link(Faults(bytes_per_second=1000))
    channel.receive_data(content(1000), 0.0)
    drain(channel)
    channel.receive_data(content(1000), 100.0)
    assert drain(channel)[-1][0] == pytest.approx(101.0)


def test_the_way_up_may_have_another_rate() -> None:
    faults = Faults(bytes_per_second=1000, bytes_per_second_up=100)
    for way, seconds in ((Way.DOWN, 0.5), (Way.UP, 5.0)):
        channel = link(faults, way=way)
        channel.receive_data(content(500), 0.0)
        assert drain(channel)[-1][0] == pytest.approx(seconds)


def test_pieces_are_handed_out_one_by_one() -> None:
    channel = link(Faults(split_bytes=3))
    channel.receive_data(b"abcdefgh", 0.0)
    assert [channel.take(0.0) for _ in range(4)] == [b"abc", b"def", b"gh", b""]


def test_an_altered_chunk_has_one_other_byte() -> None:
    """Of every chunk, and of no other where nothing is to be altered."""
    data = content(5 * CHUNK_BYTES + 3)
    channel = link(Faults(corrupt=1.0))
    channel.receive_data(data, 0.0)
    arrived = channel.take(0.0)
    assert len(arrived) == len(data)
    altered = [place for place in range(len(data)) if arrived[place] != data[place]]
    assert [place // CHUNK_BYTES for place in altered] == [0, 1, 2, 3, 4, 5]
    assert channel.incidents == [Incident.CORRUPTED] * 6


def test_the_first_bytes_may_be_spared() -> None:
    """A chunk that begins within them is not altered, the next one is."""
    channel = link(Faults(corrupt=1.0, corrupt_after_bytes=10))
    for chunk in (b"greeting", b"also", b"altered"):
        channel.receive_data(chunk, 0.0)
    arrived = channel.take(0.0)
    assert arrived.startswith(b"greetingalso")
    assert not arrived.endswith(b"altered")


def test_a_share_of_chunks_is_altered() -> None:
    channel = link(Faults(corrupt=0.3))
    for _ in range(2000):
        channel.receive_data(b"\x00", 0.0)
    assert channel.take(0.0).count(b"\x00") / 2000 == pytest.approx(0.7, abs=0.03)


def test_a_lost_chunk_arrives_by_its_retransmission_and_the_others_wait_for_it() -> None:
    """As TCP delivers: in order, so all that follows comes with it."""
    channel = link(Faults(delay=0.1, loss=1.0, retransmit=0.5))
    channel.receive_data(b"lost", 0.0)
    channel.faults = Faults(delay=0.1)
    channel.receive_data(b" and not", 0.2)
    assert channel.incidents == [Incident.LOST]
    assert channel.take(0.59) == b""
    assert channel.take(0.6) == b"lost and not"


def test_a_stall_holds_up_the_chunk_and_all_that_follows() -> None:
    """And a throttled link does not catch up on what it missed meanwhile."""
    stalling = Faults(stall=1.0, stall_seconds=2.0, bytes_per_second=100)
    channel = link(stalling)
    channel.receive_data(content(100), 0.0)
    channel.faults = msgspec.structs.replace(stalling, stall=0.0)
    channel.receive_data(content(100), 0.1)
    assert channel.incidents == [Incident.STALLED]
    assert [due for due, _ in drain(channel)] == [pytest.approx(3.0), pytest.approx(4.0)]


def test_one_fault_does_not_move_the_others() -> None:
    """With the same seed the same chunks are lost, whatever else happens."""

    def lost(faults: Faults) -> list[int]:
        channel, hit = link(faults), []
        for number in range(300):
            channel.incidents.clear()
            channel.receive_data(b"x", 0.0)
            if Incident.LOST in channel.incidents:
                hit.append(number)
        return hit

    alone = lost(Faults(loss=0.2))
    assert 30 < len(alone) < 90
    assert lost(Faults(loss=0.2, corrupt=0.5, stall=0.5, jitter=1.0, split_bytes=1)) == alone
    assert set(alone) < set(lost(Faults(loss=0.4)))


def test_a_mark_follows_the_bytes_before_it() -> None:
    channel = link(Faults(delay=0.1, bytes_per_second=1000))
    channel.receive_data(content(500), 0.0)
    channel.receive_mark(Mark.EOF, 0.0)
    assert channel.take_mark(0.59) is None
    assert len(channel.take(0.6)) == 500
    assert channel.take_mark(0.6) is Mark.EOF
    assert channel.next_due is None
