"""From a schedule to a verdict."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from catenary.validate.simulation.course import Stuck
from tests.simulation.ending import come_to_rest
from tests.simulation.judge import Judge, Kind, Problem
from tests.simulation.schedule import Schedule, Setup
from tests.simulation.world import World

LOGGERS = ("catenary", "asyncio", "uvicorn", "websockets")
EXPECTED = ("its events were erased", "does not commit, events wait", "is not committed")
"""What may be logged as an error: an agent whose thread was erased, and a store that is away."""


def verdict_on(schedule: Schedule) -> list[Problem]:
    """Let a schedule happen in a world of its own; return what did not hold."""
    return course_of(schedule)[0]


def course_of(schedule: Schedule) -> tuple[list[Problem], Judge]:
    """Let a schedule happen; return the verdict, and the judge with its journal."""
    with world_of(schedule.setup) as world:
        try:
            for operation in schedule.operations:
                world.happen(operation)
            come_to_rest(world)
            return world.judge.verdict(), world.judge
        except Stuck as stuck:
            world.judge.note(Kind.STUCK, str(stuck))
            return world.judge.verdict(), world.judge
        # Whatever else comes out of a world is a verdict on it too, and shrinks to a token.
        except Exception as error:
            world.judge.note(Kind.ERROR, f"the schedule raised {error!r}")
            return list(world.judge.problems), world.judge


@contextmanager
def world_of(setup: Setup) -> Iterator[World]:
    """
    Give a world, and clear it away afterwards.

    Nothing is collected while it goes on, for that comes at times of its own.
    """
    gc.disable()
    try:
        world = World(setup)
        with listening(world.judge), world.simulation.running():
            try:
                yield world
            finally:
                _clear_away(world)
    finally:
        gc.enable()


def _clear_away(world: World) -> None:
    try:
        world.clear_away()
    except Stuck:
        _unburied.append(world)


_unburied: list[World] = []
"""Worlds with tasks that do not end; were they collected, their tasks would complain."""


class _Ear(logging.Handler):
    """Tells a judge of what is logged and should not be."""

    def __init__(self, judge: Judge) -> None:
        super().__init__(logging.WARNING)
        self._judge = judge

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("gave up the connection: fault"):
            self._judge.note(Kind.BROKEN, text)
        elif record.levelno >= logging.ERROR:
            error = record.exc_info[1] if record.exc_info else None
            text = f"{record.name}: {text} {error!r}"
            if not any(words in text for words in EXPECTED):
                self._judge.note(Kind.ERROR, text)


@contextmanager
def listening(judge: Judge) -> Iterator[None]:
    """Give what the parts of the world log to the judge, and to nobody else."""
    ear = _Ear(judge)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addHandler(ear)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(ear)
            logger.propagate = True
