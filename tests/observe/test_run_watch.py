"""Open runs: which are silent, and who has many."""

from __future__ import annotations

from catenary.eventlog.stream import HeldRun, Stream
from catenary.grammar import OpenTool
from catenary.observe.run_watch import RunWatch, last_heard, told

NOW = 1_795_222_800_000


def run(run_id: str, silent_for: float, *, parent: str | None = None) -> HeldRun:
    made = HeldRun(run_id, "t1")
    made.user_id, made.agent_name, made.parent_run_id = "user_123", "scout", parent
    made.last_at, made.last_seq = int(NOW - silent_for * 1000), 57
    return made


def watched(*runs: HeldRun) -> RunWatch:
    watch = RunWatch(now_ms=NOW, limit=60)
    watch.take(Stream("user_123", "k3", 57), runs)
    return watch


def test_runs_that_say_nothing_for_too_long_are_silent() -> None:
    """More than the limit is too long."""
    watch = watched(run("quiet", 61), run("talking", 1), run("border", 60))
    assert [(silent.run.run_id, silent.seconds) for silent in watch.silent] == [("quiet", 61)]
    assert watch.of_user == {"user_123": 3}


def test_a_run_speaks_through_those_that_it_began() -> None:
    """A supervisor waits in silence while its sub-agents work, over any number of levels."""
    runs = [
        run("root", 500),
        run("middle", 400, parent="root"),
        run("leaf", 1, parent="middle"),
        run("other", 300, parent="gone"),
    ]
    assert [silent.run.run_id for silent in watched(*runs).silent] == ["other"]
    assert last_heard(runs)["root"] == NOW - 1000


def test_runs_that_name_each_other_end_the_look() -> None:
    """A producer may write any parent."""
    runs = [run("a", 100, parent="b"), run("b", 200, parent="a"), run("c", 300, parent="c")]
    assert len(watched(*runs).silent) == 3


def test_the_words_name_what_one_needs() -> None:
    """Run, user, agent, holder, last event, what it waits for, and what to look at."""
    silent_run = run("r1", 75)
    silent_run.grammar.open_tools = {
        "c1": OpenTool("search", NOW), "c2": OpenTool("search", NOW), "c3": OpenTool("buy", NOW),
    }  # fmt: skip
    (silent,) = watched(silent_run).silent
    assert told(silent, "tool_executing", "9f2c") == (
        "run r1 of user_123 is open and silent for 75 s: agent scout, held by 9f2c, its last "
        "event tool_executing at k3:57. It waits for buy, search. Look: catenary inspect r1"
    )
