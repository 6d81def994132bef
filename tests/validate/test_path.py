"""A connection's way through a network and how it ends, without a socket."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catenary.validate.chaos import CALM, Faults, Incident
from catenary.validate.chaos.faults import Ending, Fate, Seed, Way
from catenary.validate.chaos.path import Path

UP, DOWN = Way.UP, Way.DOWN
CUTTING = Faults(cut=1.0, cut_within_bytes=5000)


def path(faults: Faults = CALM, *, seed: Seed = 7, number: int = 1, now: float = 0.0) -> Path:
    made = Path(seed=seed, number=number, faults=faults, now=now)
    if made.ending is None:
        assert made.take_incidents() == [(Incident.OPENED, "")]
    return made


def arrivals(path: Path, way: Way, data: bytes, *, size: int = 100) -> bytes:
    """Send in parts at one time, and return what arrives at once."""
    arrived = b""
    for start in range(0, len(data), size):
        path.receive_data(way, data[start : start + size], 0.0)
        arrived += path.data_to_send(way, 0.0)
    return arrived


@settings(derandomize=True, deadline=None)
@given(
    number=st.integers(1, 50),
    steps=st.lists(
        st.tuples(st.sampled_from(Way), st.integers(1, 3000), st.sampled_from([0.0, 0.1, 1.0])),
        max_size=30,
    ),
    faults=st.builds(
        Faults,
        cut=st.sampled_from([0.0, 0.5]),
        half_open=st.sampled_from([0.0, 0.5]),
        delay=st.sampled_from([0.0, 0.3]),
        jitter=st.sampled_from([0.0, 0.3]),
        loss=st.sampled_from([0.0, 0.3]),
        split_bytes=st.sampled_from([None, 100]),
    ),
)
def test_what_arrives_is_the_beginning_of_what_was_sent(
    number: int, steps: list[tuple[Way, int, float]], faults: Faults
) -> None:
    """In both directions; and all of it, unless the connection was cut or went silent."""
    connection, now = path(faults, number=number), 0.0
    sent, arrived = {UP: b"", DOWN: b""}, {UP: b"", DOWN: b""}

    def run_until(moment: float) -> None:
        while (due := connection.next_due(UP, DOWN)) is not None and due <= moment:
            for way in Way:
                arrived[way] += connection.data_to_send(way, due)

    for step, (way, size, later) in enumerate(steps):
        run_until(now + later)
        now += later
        data = Random(step).randbytes(size)
        if connection.ending is None:
            sent[way] += data
        connection.receive_data(way, data, now)
    run_until(now + 1000.0)
    for way in Way:
        assert sent[way].startswith(arrived[way])
    if connection.ending is None and not connection.is_silent:
        assert arrived == sent
    else:
        assert faults.cut or faults.half_open


def test_a_cut_comes_after_the_byte_that_chance_names() -> None:
    """The same for a connection every time, however its bytes come; the ones before it arrive."""
    data = Random(1).randbytes(6000)
    places = set()
    for number in range(40):
        place = Fate.draw(7, number).place_bytes(CUTTING)
        places.add(place)
        for size in (1, 100, 6000):
            connection = path(CUTTING, number=number)
            arrived = arrivals(connection, DOWN, data, size=size)
            assert arrived == data[:place]
            assert connection.ending is not None
            told = Incident.RESET if connection.ending is Ending.RESET else Incident.CUT
            assert connection.take_incidents() == [(told, "down")]
    assert len(places) > 30
    assert min(places) < 1000


def test_a_cut_counts_both_directions() -> None:
    """It comes in whichever direction has the byte, so also in a handshake's request."""
    for number in range(20):
        whole = len(arrivals(path(CUTTING, number=number), DOWN, b"x" * 6000))
        connection = path(CUTTING, number=number)
        first = len(arrivals(connection, UP, b"x" * 300, size=50))
        if whole < 300:
            assert first == whole
            assert connection.take_incidents()[-1][1] == "up"
        else:
            assert first + len(arrivals(connection, DOWN, b"x" * 6000)) == whole


def test_what_others_do_changes_nothing() -> None:
    """A connection's fate, down to its delays, depends on the seed and its number."""
    faults = Faults(cut=0.5, jitter=1.0, loss=0.3, corrupt=0.3)

    def fate(*, beside: int) -> list[object]:
        others = [path(faults, number=100 + number) for number in range(beside)]
        connection = path(faults, number=3)
        happened: list[object] = []
        for step in range(100):
            for other in others:
                other.receive_data(DOWN, b"y" * 500, float(step))
            connection.receive_data(DOWN, b"x" * 100, float(step))
            happened.append(connection.next_due(DOWN))
            happened.append(connection.data_to_send(DOWN, step + 0.9))
        return [happened, connection.take_incidents(), connection.ending]

    assert fate(beside=0) == fate(beside=5)


def test_a_share_of_connections_is_refused() -> None:
    made = [path(Faults(refuse=0.25), number=number) for number in range(1000)]
    refused = [connection for connection in made if connection.ending is Ending.RESET]
    assert len(refused) == pytest.approx(250, abs=40)
    assert refused[0].take_incidents() == [(Incident.OPENED, ""), (Incident.REFUSED, "")]


def test_a_half_open_connection_is_silent_in_both_directions_for_ever() -> None:
    silent = Faults(half_open=1.0, cut_within_bytes=5000, idle_timeout=1.0, lifetime=2.0)
    connection = path(silent)
    arrived = arrivals(connection, DOWN, b"x" * 6000)
    assert 0 < len(arrived) < 5000
    assert connection.is_silent
    assert arrivals(connection, UP, b"x" * 100) == b""
    assert connection.next_due(UP, DOWN) is None
    connection.advance(1e6)
    connection.cut(Ending.RESET)
    assert connection.ending is None
    assert connection.take_incidents() == [(Incident.HALF_OPEN, "")]
    connection.receive_eof(UP, 0.0)
    assert connection.ending is None, "the server is not told"
    connection.receive_loss(DOWN, 0.0)
    assert connection.ending is not None, "nobody is left"


def test_a_connection_that_both_left_before_it_went_silent_is_over() -> None:
    connection = path(Faults(delay=1.0))
    connection.receive_eof(UP, 0.0)
    connection.receive_eof(DOWN, 0.0)
    assert connection.ending is None
    connection.silence()
    assert connection.ending is Ending.END


def test_time_stands_still_while_a_path_is_held() -> None:
    """Delays, throttle and deadlines go on where they were; nothing comes in a rush."""
    connection = path(Faults(delay=1.0, bytes_per_second=100, idle_timeout=5.0, lifetime=9.0))
    connection.receive_data(DOWN, b"x" * 100, 0.0)
    connection.hold(0.5)
    connection.hold(3.0)
    assert connection.next_due(UP, DOWN) is None
    connection.receive_data(DOWN, b"y" * 100, 50.0)
    assert connection.data_to_send(DOWN, 100.0) == b""
    connection.advance(100.0)
    assert connection.ending is None
    connection.release(100.5)
    connection.release(101.0)
    assert connection.next_due(DOWN) == pytest.approx(102.0)
    assert connection.data_to_send(DOWN, 101.9) == b""
    assert connection.data_to_send(DOWN, 102.01) == b"x" * 100
    assert connection.data_to_send(DOWN, 103.01) == b"y" * 100
    assert connection.next_due(DOWN) == pytest.approx(105.5), "idle since it was held"


def test_an_end_of_sending_goes_through_and_two_are_the_end() -> None:
    connection = path(Faults(delay=0.1))
    connection.receive_data(UP, b"last words", 0.0)
    connection.receive_eof(UP, 0.0)
    assert connection.data_to_send(UP, 0.1) == b"last words"
    assert connection.is_at_end(UP)
    connection.receive_data(DOWN, b"an answer", 5.0)
    connection.receive_eof(DOWN, 5.0)
    assert connection.ending is None
    assert connection.data_to_send(DOWN, 5.1) == b"an answer"
    assert connection.ending is Ending.END
    assert connection.take_incidents() == [(Incident.ENDED, "")]


def test_a_peer_that_vanishes_is_told_after_what_it_sent() -> None:
    connection = path(Faults(delay=0.1))
    connection.receive_data(UP, b"last words", 0.0)
    connection.receive_loss(UP, 0.0)
    connection.advance(0.09)
    assert connection.ending is None
    assert connection.next_due(DOWN) == pytest.approx(0.1)
    assert connection.data_to_send(UP, 0.1) == b"last words"
    connection.advance(0.1)
    assert connection.ending is Ending.RESET
    assert connection.take_incidents() == [(Incident.VANISHED, "up")]


def test_a_peer_that_does_not_read_is_told_as_well() -> None:
    """Of two that vanish the first counts, and nobody waits until all was sent on."""
    connection = path(Faults(delay=0.1))
    connection.receive_data(UP, b"unread", 0.0)
    connection.receive_loss(UP, 0.0)
    connection.receive_loss(DOWN, 0.0)
    connection.advance(0.1)
    assert connection.ending is Ending.RESET
    assert connection.take_incidents() == [(Incident.VANISHED, "up")]


def test_a_connection_that_is_idle_or_old_is_cut() -> None:
    """Anything in either direction keeps it from being idle; nothing keeps it from ageing."""
    connection = path(Faults(idle_timeout=60.0, lifetime=200.0, reset=0.0))
    assert connection.next_due(UP, DOWN) == 60.0
    for moment in (50.0, 100.0, 150.0):
        connection.advance(moment)
        connection.receive_data(UP if moment == 100.0 else DOWN, b"x", moment)
        connection.data_to_send(UP, moment)
        connection.data_to_send(DOWN, moment)
    assert connection.next_due(UP, DOWN) == 200.0
    connection.advance(199.0)
    assert connection.ending is None
    connection.advance(200.0)
    assert connection.ending is Ending.END
    assert connection.take_incidents() == [(Incident.CUT, "lifetime")]
    idle = path(Faults(idle_timeout=60.0, reset=1.0), now=1000.0)
    idle.advance(1059.9)
    assert idle.ending is None
    idle.advance(1060.0)
    assert (idle.ending, idle.take_incidents()) == (Ending.RESET, [(Incident.RESET, "idle")])


def test_other_faults_hold_from_now_on() -> None:
    """Calm saves a connection that was to be cut; a cut that comes later is counted from then."""
    data = b"x" * 6000
    place = len(arrivals(path(CUTTING), DOWN, data))
    saved = path(CUTTING)
    arrivals(saved, DOWN, data[: place - 1])
    saved.change(CALM)
    assert arrivals(saved, DOWN, data) == data
    saved.change(CUTTING)
    assert len(arrivals(saved, DOWN, data)) == place
    assert saved.ending is not None


def test_what_is_under_way_arrives_as_it_would_have() -> None:
    connection = path(Faults(delay=1.0))
    connection.receive_data(DOWN, b"slow ", 0.0)
    connection.change(CALM)
    connection.receive_data(DOWN, b"fast", 0.5)
    assert connection.data_to_send(DOWN, 0.9) == b""
    assert connection.data_to_send(DOWN, 1.0) == b"slow fast"


def test_a_cut_from_outside_loses_what_is_under_way() -> None:
    connection = path(Faults(delay=1.0))
    connection.receive_data(DOWN, b"lost", 0.0)
    connection.cut(Ending.END, "by hand")
    assert connection.data_to_send(DOWN, 2.0) == b""
    assert connection.take_incidents() == [(Incident.CUT, "by hand")]
    connection.receive_data(DOWN, b"late", 3.0)
    connection.cut(Ending.RESET)
    connection.receive_refusal("late")
    connection.refuse()
    assert (connection.ending, connection.take_incidents()) == (Ending.END, [])


def test_chance_has_its_own_draws_in_each_direction() -> None:
    """What goes up does not change what befalls what comes down."""
    faults = msgspec.structs.replace(CALM, jitter=1.0)

    def waits(*, chatter: int) -> list[float | None]:
        connection, found = path(faults), []
        for step in range(20):
            for _ in range(chatter):
                connection.receive_data(UP, b"x", float(step * 10))
            connection.receive_data(DOWN, b"x", float(step * 10))
            found.append(connection.next_due(DOWN))
            connection.data_to_send(DOWN, step * 10 + 5.0)
        return found

    assert waits(chatter=0) == waits(chatter=3)
