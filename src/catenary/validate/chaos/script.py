"""What befalls a whole network, one thing after the other. Pure: no clock, and seeded chance."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from operator import attrgetter
from random import Random
from typing import NamedTuple

import msgspec

from catenary.errors import UsageError
from catenary.validate.chaos.faults import Faults, Seed, seeded


class Action(enum.StrEnum):
    """What can be done to a network as a whole."""

    CUT = "cut"
    """Every open connection is ended: both peers read an end."""
    RESET = "reset"
    """Every open connection is reset: both peers get an error."""
    STALL = "stall"
    """Nothing moves, in open connections and in those made meanwhile, until ``GO_ON``."""
    GO_ON = "go on"
    """What stood still goes on; nothing of it is lost."""
    HALF_OPEN = "half open"
    """Every open connection goes silent for ever, and neither peer is told."""
    REFUSE = "refuse"
    """New connections are dropped at once, until ``ACCEPT``."""
    ACCEPT = "accept"
    """New connections are taken again."""
    CHANGE_ADDRESS = "change address"
    """As ``HALF_OPEN``, and new connections reach the server from another address."""


class Step(NamedTuple):
    """At a time, in seconds from the beginning: an action, or the faults from then on."""

    at: float
    what: Action | Faults


class Script(msgspec.Struct, frozen=True):
    """
    Steps in the order of their times, which :meth:`ChaosProxy.play` plays.

    A script lasts for ``duration`` seconds; without one, until its last step.

    Raises:
        UsageError: If times are out of order, or beyond the duration.
    """

    steps: tuple[Step, ...] = ()
    duration: float = 0.0

    def __post_init__(self) -> None:
        last = 0.0
        for step in self.steps:
            if not last <= step.at < float("inf"):
                raise UsageError(f"{step.what} at {step.at} s comes after {last} s: sort the steps")
            last = step.at
        if self.duration and self.duration < last:
            raise UsageError(f"the last step is at {last} s, after the end at {self.duration} s")
        msgspec.structs.force_setattr(self, "duration", self.duration or last)


def together(*scripts: Script) -> Script:
    """Join scripts that begin at the same time; it lasts as long as the longest."""
    steps = [step for script in scripts for step in script.steps]
    steps.sort(key=attrgetter("at"))
    return Script(tuple(steps), max((script.duration for script in scripts), default=0.0))


def rapid_cuts(
    count: int = 15, *, interval: float = 0.2, seed: Seed = 0, reset: float = 0.5
) -> Script:
    """
    Cut all connections ``count`` times in quick succession.

    Each cut comes within the second half of its interval; ``reset`` is the
    share of resets. It lasts for ``count + 1`` intervals.
    """
    random = seeded(seed, "rapid cuts")
    steps = [
        Step((number + random.uniform(0.5, 1.0)) * interval, _cut(random, reset))
        for number in range(count)
    ]
    return Script(tuple(steps), (count + 1) * interval)


def random_cuts(
    duration: float, *, per_second: float, seed: Seed = 0, reset: float = 0.5
) -> Script:
    """
    Cut all connections now and then: on average ``per_second`` times a second.

    The times between are exponential, so cuts may follow each other closely or
    leave long calms.

    Raises:
        UsageError: If ``per_second`` is not more than 0.
    """
    if per_second <= 0:
        raise UsageError(f"per_second={per_second}: it is more than 0; for no cuts play nothing")
    random = seeded(seed, "random cuts")
    steps, at = [], random.expovariate(per_second)
    while at < duration:
        steps.append(Step(at, _cut(random, reset)))
        at += random.expovariate(per_second)
    return Script(tuple(steps), duration)


def _cut(random: Random, reset: float) -> Action:
    return Action.RESET if random.random() < reset else Action.CUT


class Interruption(msgspec.Struct, frozen=True, kw_only=True):
    """Something that comes over a network again and again, and passes."""

    begins: tuple[Action, ...]
    ends: tuple[Action, ...] = ()
    every: float
    """How many seconds lie between two on average."""
    lasts: tuple[float, float] = (0.0, 0.0)
    """How many seconds one lasts at least and at most."""


OUTAGE = Interruption(
    begins=(Action.HALF_OPEN, Action.REFUSE), ends=(Action.ACCEPT,), every=30.0, lasts=(2.0, 10.0)
)
"""The network is away: open connections are dead without a word, and new ones are refused."""


def interruptions(
    duration: float, kinds: Iterable[Interruption] = (OUTAGE,), *, seed: Seed = 0
) -> Script:
    """
    Interrupt the network now and then, as each kind says, one at a time.

    Every kind comes at least once. A duration that is too short for that
    shortens them: none takes more than a third of its share of the time, and
    after each comes at least a quarter of it in which all is well.
    """
    random = seeded(seed, "interruptions")
    due = [kind for kind in kinds for _ in range(max(1, round(duration / kind.every)))]
    random.shuffle(due)
    share = duration / max(1, len(due))
    steps = []
    for number, kind in enumerate(due):
        begin = share * (number + random.uniform(0.1, 0.4))
        end = begin + min(random.uniform(*kind.lasts), share / 3)
        steps += [Step(begin, action) for action in kind.begins]
        steps += [Step(end, action) for action in kind.ends]
    return Script(tuple(steps), duration)
