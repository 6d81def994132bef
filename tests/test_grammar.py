from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catenary.errors import LifecycleError, RunClosed
from catenary.grammar import OpenTool, RunGrammar, RunStage, Step

ENDS = [Step.COMPLETE, Step.FAIL, Step.CANCEL]


def started() -> RunGrammar:
    grammar = RunGrammar("r1")
    grammar.admit(Step.START)
    return grammar


@pytest.mark.parametrize("step", [Step.WITHIN, Step.TOOL_START, Step.TOOL_END, *ENDS])
def test_nothing_comes_before_the_start(step: Step) -> None:
    """Every step of the lifecycle but the start is refused before the start."""
    with pytest.raises(LifecycleError, match="has not started"):
        RunGrammar("r1").admit(step, "call_1")


def test_a_run_starts_once() -> None:
    """A second start is refused and changes nothing."""
    grammar = started()
    with pytest.raises(LifecycleError, match="started already"):
        grammar.admit(Step.START)
    assert grammar.stage is RunStage.OPEN


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("late", list(Step))
def test_nothing_comes_after_an_end(end: Step, late: Step) -> None:
    """After any end everything is refused, asides included."""
    grammar = started()
    grammar.admit(end)
    with pytest.raises(RunClosed, match="it has ended"):
        grammar.admit(late)


def test_tool_calls_come_in_pairs() -> None:
    """A call ends once, after its start, and is not started twice while it is open."""
    grammar = started()
    with pytest.raises(LifecycleError, match="'call_1' is open"):
        grammar.admit(Step.TOOL_END, "call_1")
    grammar.admit(Step.TOOL_START, "call_1", OpenTool("search", 5))
    with pytest.raises(LifecycleError, match="open already"):
        grammar.admit(Step.TOOL_START, "call_1", OpenTool("search", 6))
    grammar.admit(Step.TOOL_END, "call_1")
    assert grammar.open_tools == {}


def test_a_run_does_not_complete_with_open_tools() -> None:
    """The error names the calls, and the run goes on."""
    grammar = started()
    grammar.admit(Step.TOOL_START, "call_1", OpenTool("search", 5))
    with pytest.raises(LifecycleError, match=r"search \(call_1\)"):
        grammar.admit(Step.COMPLETE)
    assert grammar.stage is RunStage.OPEN


def test_a_closed_run_says_why() -> None:
    """What was closed from outside tells its producer the reason."""
    grammar = started()
    grammar.close("it was lost")
    with pytest.raises(RunClosed, match="it was lost"):
        grammar.admit(Step.WITHIN)


@given(st.lists(st.tuples(st.sampled_from(list(Step)), st.sampled_from(["a", "b"])), max_size=30))
def test_whatever_is_tried_the_accepted_events_are_a_whole_run(
    tries: list[tuple[Step, str]],
) -> None:
    """Of any sequence of tries, those admitted start once, pair their tools and end once, last."""
    grammar = RunGrammar("r1")
    admitted: list[tuple[Step, str]] = []
    for step, call in tries:
        before = grammar.snapshot()
        try:
            grammar.admit(step, call, OpenTool("tool", 0))
        except (LifecycleError, RunClosed):
            assert grammar.snapshot() == before
        else:
            if step is not Step.ASIDE:
                admitted.append((step, call))
    steps = [step for step, _ in admitted]
    assert steps[:1] in ([], [Step.START])
    assert steps.count(Step.START) <= 1
    ends = [index for index, step in enumerate(steps) if step in ENDS]
    assert ends in ([], [len(steps) - 1])
    open_calls: set[str] = set()
    for step, call in admitted:
        if step is Step.TOOL_START:
            assert call not in open_calls
            open_calls.add(call)
        elif step is Step.TOOL_END:
            open_calls.remove(call)
    assert not (ends and open_calls)
