"""The open runs of a node: which of them say nothing, and who has many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from catenary.eventlog.stream import HeldRun, Stream


class SilentRun(NamedTuple):
    """An open run that says nothing, neither itself nor through a run that it began."""

    stream: Stream
    run: HeldRun
    seconds: float


class RunWatch:
    """
    One look at the open runs of a node, stream by stream.

    ``now_ms`` is in milliseconds since 1970, ``limit`` in seconds.
    """

    def __init__(self, *, now_ms: int, limit: float) -> None:
        self._now_ms = now_ms
        self._limit = limit
        self.silent: list[SilentRun] = []
        self.of_user: Counter[str] = Counter()
        """How many open runs each user has."""

    def take(self, stream: Stream, runs: Sequence[HeldRun]) -> None:
        """Look at the open runs of one stream."""
        heard = last_heard(runs)
        for run in runs:
            self.of_user[run.user_id or stream.log_id] += 1
            seconds = (self._now_ms - heard[run.run_id]) / 1000
            if seconds > self._limit:
                self.silent.append(SilentRun(stream, run, seconds))


def last_heard(runs: Sequence[HeldRun]) -> dict[str, int]:
    """Return, by run, when it or a run that it began was last heard, in ms since 1970."""
    heard = {run.run_id: run.last_at for run in runs}
    parents = {run.run_id: run.parent_run_id for run in runs}
    for run in runs:
        parent = run.parent_run_id
        # Runs that name each other in a circle end it: no time is raised twice to the same.
        while parent is not None and heard.get(parent, run.last_at) < run.last_at:
            heard[parent] = run.last_at
            parent = parents[parent]
    return heard


def told(silent: SilentRun, last_type: str, holder: str) -> str:
    """Return the words of a warning about a silent run."""
    run = silent.run
    place = f"{silent.stream.epoch}:{run.last_seq}"
    tools = sorted({tool.name for tool in list(run.grammar.open_tools.values())})
    waits = f" It waits for {', '.join(tools)}." if tools else ""
    return (
        f"run {run.run_id} of {run.user_id or silent.stream.log_id} is open and silent for "
        f"{silent.seconds:.0f} s: agent {run.agent_name}, held by {holder}, its last event "
        f"{last_type} at {place}.{waits} Look: catenary inspect {run.run_id}"
    )
