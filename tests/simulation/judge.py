"""The judge of a simulated world: whether what readers got keeps the guarantees."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, Protocol

from catenary.client import CommandFailed, Gap
from catenary.errors import UsageError
from catenary.eventlog.model import Retention
from catenary.eventlog.terms import TERMS_KEPT
from catenary.eventlog.terms import Gap as LogGap
from catenary.events import RUN_ENDS, EventType, WebSocketEvent
from catenary.position import Position
from catenary.validate.checker import Fault, OrderingChecker
from catenary.validate.checker import Problem as OrderProblem
from tests.simulation.ledger import Ledger


class Kind(enum.StrEnum):
    """What can be wrong in a simulated world, beside the faults of the checker."""

    UNTRUE_GAP = "untrue gap"
    """A gap names events that the log still holds, or was told by nobody."""
    LOSS = "loss"
    """The log dropped what its retention must keep."""
    DOUBLE_FRAME = "double frame"
    """The server sent what a connection's place said it had."""
    BROKEN = "broken protocol"
    """A client gave a connection up because of what came."""
    TEXT = "text"
    """A merged delta is not what was said."""
    GRAMMAR = "grammar"
    """A run has no start, a wrong end, or goes on after it."""
    STUCK = "stuck"
    """A reader, a receipt or an answer does not come, though nothing is in its way."""
    RESTLESS = "restless"
    """A connection ends though nothing is wrong with it."""
    REPEATED_COMMAND = "repeated command"
    WRONG_REPLY = "wrong reply"
    LEFT_BEHIND = "left behind"
    """Something stays although its connection is gone."""
    UNBOUNDED = "unbounded"
    """More is held for a connection or a log than may be."""
    UNTOLD = "untold"
    """An event was shown before it was committed, or under another place than its receipt says."""
    ERROR = "error"
    """Something raised or was logged as an error."""


class Problem(NamedTuple):
    """One thing that does not hold."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Entry(NamedTuple):
    """Something that happened: when, to whom, and what."""

    at: float
    who: str
    what: object


def markers_of(event: WebSocketEvent) -> list[str]:
    """Return the words by which the ledger knows an event, or those merged in it."""
    data = event.data
    if event.type == EventType.AGENT_DELTA:
        return [word for word in data["delta"].split() if word.startswith("m")]
    if event.type == EventType.AGENT_THINKING:
        return [data["thinking"]]
    return [data["marker"]] if "marker" in data else []


class LogView(NamedTuple):
    """What a log holds at one moment, looked at in its store."""

    log_id: str
    position: Position
    epochs: Collection[str]
    """The terms of this log."""
    ranges: Sequence[tuple[int, int]]
    """The first and last number of each record that is retained, in order."""
    now: float

    def kept_between(self, first: int, end: int) -> int | None:
        """Return a number from ``first`` on and before ``end`` that is retained."""
        for begin, last in self.ranges:
            if last >= first and begin < end:
                return max(begin, first)
        return None


class Reading(Protocol):
    """Who reads: an application, for as long as its process lives."""

    @property
    def name(self) -> str:
        """The reader, whose applications follow each other."""
        ...

    @property
    def user_id(self) -> str: ...

    @property
    def thread_ids(self) -> tuple[str, ...]: ...

    @property
    def position(self) -> Position | None:
        """The place through which it took everything."""
        ...


class Stretch:
    """A reader's unbroken way through one log, over as many connections and processes as it takes."""

    def __init__(self, name: str, app: Reading, begin: Position) -> None:
        self.name = name
        self.app = app
        self.begin = begin
        self.end: Position | None = None
        self.events: list[WebSocketEvent] = []
        self.gaps: list[Gap] = []


class Judge:
    """
    Witnesses what applications get and what the log's pages say.

    It is told of everything while the world goes on; :meth:`verdict` says at
    the end what does not hold.
    """

    def __init__(self, ledger: Ledger, retention: Retention) -> None:
        self._ledger = ledger
        self._retention = retention
        self._checker = OrderingChecker(markers=markers_of)
        self._present: dict[str, Stretch] = {}
        self._stretches: dict[str, Stretch] = {}
        self._told: set[tuple[Position, Position, str]] = set()
        self.problems: list[Problem] = []
        self.journal: list[Entry] = []
        """What happened, in order."""

    def note(self, kind: Kind, text: str) -> None:
        """Record that something does not hold."""
        self.problems.append(Problem(kind, text))
        self.write("judge", self.problems[-1])

    def write(self, who: str, what: object) -> None:
        """Write into the journal."""
        self.journal.append(Entry(self._ledger.now(), who, what))

    # What applications get

    def began(self, app: Reading, after: Position) -> None:
        """An application reads after a place: where its reader was before, or anew."""
        self.write(app.name, after)
        former = self._present.get(app.name)
        if former is not None:
            if former.app is not app and former.app.position == after:
                former.app = app
                return
            former.end = former.end or former.app.position
        name = f"{app.name} from {after}, {len(self._stretches)}"
        self._present[app.name] = self._stretches[name] = Stretch(name, app, after)
        self._checker.begin(name, app.user_id, after, thread_ids=app.thread_ids or None)

    def received(self, app: Reading, event: WebSocketEvent) -> None:
        """An application handles an event."""
        stretch = self._present[app.name]
        stretch.events.append(event)
        self.write(app.name, event)
        self._checker.received(stretch.name, event, event.user_id or "")
        if event.type == EventType.ERASED and event.thread_id is not None:
            through = self._ledger.erased_through.get((app.user_id, event.thread_id), 0)
            if event.seq > through:
                self.note(Kind.UNTOLD, f"{event.id} is erased, and nobody asked for it")

    def gap(self, app: Reading, gap: Gap) -> None:
        """An application was told of a loss."""
        stretch = self._present[app.name]
        stretch.gaps.append(gap)
        self.write(app.name, gap)
        is_first = gap.after == stretch.begin and not stretch.events
        if gap.reason == "future" and not is_first:
            self.note(Kind.UNTRUE_GAP, f"{stretch.name}: it was shown {gap.after}, which is gone")
        if (gap.after, gap.resumes_at, gap.reason) not in self._told:
            self.note(Kind.UNTRUE_GAP, f"{stretch.name}: {gap} No page of the log says so")
        self._checker.gap(stretch.name, gap.after, gap.resumes_at)
        if self._leads_elsewhere(gap):
            # What came before stands in another log, or comes again.
            stretch.end = gap.after
            self.began(app, Position(gap.resumes_at.epoch, gap.resumes_at.seq - 1))

    def answered(self, app: Reading, message_id: str, outcome: object) -> None:
        """A message of an application was answered, or is given up."""
        self._ledger.answers.append((app.user_id, message_id, outcome))

    def _leads_elsewhere(self, gap: Gap) -> bool:
        lives = self._ledger.life_of
        is_other = lives.get(gap.after.epoch) != lives.get(gap.resumes_at.epoch)
        return is_other or gap.resumes_at.seq <= gap.after.seq

    # What the log says

    def saw_gap(self, view: LogView, after: Position, gap: LogGap) -> None:
        """A page told of a loss: that must be true, and right."""
        self._told.add((gap.after, gap.resumes_at, gap.reason))
        first, end = after.seq + 1 if after.epoch in view.epochs else 1, gap.resumes_at.seq
        text = f"{view.log_id}, {gap.reason} from {gap.after} to {gap.resumes_at}"
        kept = view.kept_between(first, end)
        if kept is not None:
            self.note(Kind.UNTRUE_GAP, f"{text}: {kept} is retained")
        head = view.position
        if gap.reason == "future" and after.epoch == head.epoch and after.seq <= head.seq:
            self.note(Kind.UNTRUE_GAP, f"{text}: the head is {head}")
        for seq in self._to_be_kept(view):
            if first <= seq < end:
                self.note(
                    Kind.LOSS, f"{text}: {seq} should be retained, the head is {view.position}"
                )
                return

    def _to_be_kept(self, view: LogView) -> Iterator[int]:
        """Yield the numbers, the latest first, that the rules of retention do not let go of."""
        ledger, rules = self._ledger, self._retention
        gone = max(
            view.position.seq - rules.events, ledger.erased_through.get((view.log_id, None), 0)
        )
        size = 0
        for seq, several in groupby(ledger.committed_in(view.log_id), key=attrgetter("seq")):
            # Deltas that were joined are one event.
            said = list(several)
            size += sum(one.size_bytes for one in said)
            # What is not in the ledger, such as ends of runs, takes room too.
            is_over = size > rules.bytes * 0.7 or view.now - said[0].at >= rules.age
            if seq <= gone or is_over:
                return
            yield seq

    # The verdict

    def verdict(self) -> list[Problem]:
        """Return what does not hold."""
        for said in self._ledger.said:
            if said.position is not None:
                self._checker.acknowledged(
                    said.log_id, said.position, said.marker, thread_id=said.thread_id
                )
        found = list(self.problems)
        found += [
            Problem(problem.fault, f"{problem.reader}: {problem.text}")
            for problem in self._checker.problems()
            if not self._is_excused(problem)
        ]
        texts = {said.marker: said.text for said in self._ledger.said if said.text is not None}
        for stretch in self._stretches.values():
            found += _wrong_texts(stretch, texts)
            if not stretch.app.thread_ids and not stretch.gaps:
                found += _wrong_runs(stretch)
        found += self._wrong_commands()
        return found

    def _is_excused(self, problem: OrderProblem) -> bool:
        """A gap that is true is no fault, nor is the loss of what lies outside a stretch."""
        place = problem.place
        if problem.fault is Fault.TOLD_LOSS:
            return True
        if problem.fault is not Fault.LOST or place is None:
            return False
        stretch, lives = self._stretches[problem.reader], self._ledger.life_of
        begin, end = stretch.begin, stretch.end
        return (
            lives.get(place.epoch) != lives.get(begin.epoch)
            or place.seq <= begin.seq
            or (end is not None and place.seq > end.seq)
            or any(gap.after.seq < place.seq < gap.resumes_at.seq for gap in stretch.gaps)
            or self._is_renamed(place, stretch)
        )

    def _is_renamed(self, place: Position, stretch: Stretch) -> bool:
        """Whether it came in the name of another term, because its own is forgotten."""
        terms = self._ledger.epochs[stretch.app.user_id]
        return len(terms) > TERMS_KEPT and any(
            (event.from_seq or event.seq) <= place.seq <= event.seq for event in stretch.events
        )

    def _wrong_commands(self) -> Iterator[Problem]:
        ledger = self._ledger
        for asked, times in ledger.started.items():
            if times > 1:
                text = f"{asked.message_id} of {asked.log_id} was started {times} times"
                yield Problem(Kind.REPEATED_COMMAND, text)
        for log_id, message_id, outcome in ledger.answers:
            replies = [
                reply
                for asked, reply in ledger.replies.items()
                if (asked.log_id, asked.message_id) == (log_id, message_id)
            ]
            if outcome not in replies and not self._may_fail(outcome):
                text = f"{message_id} of {log_id} was answered {outcome!r}"
                yield Problem(Kind.WRONG_REPLY, text)

    def _may_fail(self, outcome: object) -> bool:
        """Whether a message may be answered so: because of what happened to client or server."""
        if isinstance(outcome, UsageError):
            return True  # it is under way already
        codes = {"closed"}
        if self._ledger.was_disturbed:
            codes |= {"interrupted", "overloaded"}
        return isinstance(outcome, CommandFailed) and outcome.code in codes

    def runs_in(self, events: Iterable[WebSocketEvent], may_be_open: Collection[str]) -> None:
        """A log holds these events and no more: every run in it must have ended, but for some."""
        open_runs: dict[str, str] = {}
        for event in events:
            if event.run_id is not None and event.type == EventType.AGENT_STARTED:
                open_runs[event.run_id] = event.id
            elif event.run_id is not None and event.type in RUN_ENDS:
                open_runs.pop(event.run_id, None)
        for run_id, begun in open_runs.items():
            if run_id not in may_be_open:
                self.note(Kind.GRAMMAR, f"{run_id}, begun at {begun}, has no end")


def _wrong_texts(stretch: Stretch, texts: Mapping[str, str]) -> Iterator[Problem]:
    """Say which deltas are not what was said, to the letter."""
    for event in stretch.events:
        if event.type == EventType.AGENT_DELTA:
            expected = "".join(texts.get(word, "?") for word in markers_of(event))
            if event.data["delta"] != expected:
                yield Problem(
                    Kind.TEXT, f"{stretch.name}: {event.id} says {event.data['delta']!r:.60}"
                )


def _wrong_runs(stretch: Stretch) -> Iterator[Problem]:
    """Say which runs break the grammar, as a reader that missed nothing saw them."""
    name = stretch.name
    tools: defaultdict[str, set[str]] = defaultdict(set)
    stages: dict[str, str] = {}
    for event in stretch.events:
        run_id, type_ = event.run_id, event.type
        if run_id is None or type_ == EventType.ERASED:
            continue
        stage = stages.get(run_id, "new")
        if type_ == EventType.AGENT_STARTED:
            if stage != "new":
                yield Problem(Kind.GRAMMAR, f"{name}: {event.id} starts {run_id} again")
            stages[run_id] = "open"
        elif type_ not in _LIFE:
            continue
        elif stage == "ended":
            yield Problem(Kind.GRAMMAR, f"{name}: {event.id} {type_} follows the end of {run_id}")
        elif type_ == EventType.TOOL_EXECUTING:
            tools[run_id].add(event.data["tool_call_id"])
        elif type_ == EventType.TOOL_COMPLETED:
            tools[run_id].discard(event.data["tool_call_id"])
        elif type_ in RUN_ENDS:
            stages[run_id] = "ended"
            if tools[run_id]:
                yield Problem(Kind.GRAMMAR, f"{name}: {run_id} ends with open tools")


_LIFE = RUN_ENDS | {
    EventType.AGENT_THINKING,
    EventType.AGENT_DELTA,
    EventType.TOOL_EXECUTING,
    EventType.TOOL_COMPLETED,
}
