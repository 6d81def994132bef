"""What rows expect of what their readers have."""

from __future__ import annotations

from collections import defaultdict

from catenary.events import RUN_ENDS
from catenary.validate.field import Field
from catenary.validate.reader import Reader


def markers_of(reader: Reader) -> list[str]:
    """Return the markers of a reader's events, in order."""
    return [str(arrival.event.data.get("marker")) for arrival in reader.arrivals]


def expect_own(field: Field, reader: Reader, expected: int) -> None:
    """Each marker begins with the user's id, so that a foreign one shows."""
    foreign = [
        marker for marker in markers_of(reader) if not marker.startswith(f"{reader.user_id} ")
    ]
    field.expect(not foreign, f"{reader.name} received {foreign[:3]}")
    got = len(reader.arrivals)
    field.expect(got == expected, f"{reader.name} received {got} of {expected} events")


def expect_senders_order(field: Field, reader: Reader, each: int, *, senders: int = 1) -> None:
    """Markers are ``sender-number``; each of the senders' numbers must be 0, 1, 2, …"""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for arrival in reader.arrivals:
        sender, _, number = str(arrival.event.data["marker"]).rpartition("-")
        numbers[sender].append(int(number))
    field.expect(len(numbers) == senders, f"{reader.name}: {len(numbers)} of {senders} senders")
    for sender, got in numbers.items():
        field.expect(
            got == list(range(each)), f"{reader.name}: sender {sender} came as {got[:20]}…"
        )


def ends_of(reader: Reader) -> list[str]:
    """Return how the runs ended that a reader saw, in order."""
    return [arrival.event.type for arrival in reader.arrivals if arrival.event.type in RUN_ENDS]


def events_by_run(reader: Reader) -> dict[str, list[str]]:
    """Return the types of each run's events, in order."""
    runs: defaultdict[str, list[str]] = defaultdict(list)
    for arrival in reader.arrivals:
        if arrival.event.run_id is not None:
            runs[arrival.event.run_id].append(arrival.event.type)
    return runs


def expect_grammar(field: Field, reader: Reader) -> dict[str, list[str]]:
    """Expect of every run one start, first, and one end, last."""
    runs = events_by_run(reader)
    for run_id, types in runs.items():
        ends = [type_ for type_ in types if type_ in RUN_ENDS]
        field.expect(types[0] == "agent_started", f"run {run_id} begins with {types[0]}")
        field.expect(types.count("agent_started") == 1, f"run {run_id} starts more than once")
        field.expect(len(ends) == 1, f"run {run_id} has the ends {ends}")
        field.expect(types[-1] in RUN_ENDS, f"run {run_id} goes on after its end: {types[-3:]}")
    return runs


async def until_ended(reader: Reader, runs: int, *, timeout: float = 15.0) -> None:
    """Wait until so many runs have ended for a reader."""
    await reader.until(
        lambda: len(ends_of(reader)) >= runs, timeout=timeout, what=f"told of {runs} ends"
    )
