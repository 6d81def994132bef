"""
Logs with a store behind them: the intake, and the one thread that writes.

A subclass brings the store: how to open it, commit a group, and close it. All
of that runs on the writer's thread; nobody else writes.
"""

from __future__ import annotations

import abc
import asyncio
import atexit
import logging
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from catenary.errors import LogError, LogUnavailable
from catenary.eventlog.committer.group import Group, Outcome, Work
from catenary.eventlog.committer.intake import IntakeLog
from catenary.eventlog.committer.life import Life
from catenary.eventlog.committer.stream import CommitStream
from catenary.eventlog.machine import Machine, RealMachine

BACKOFF_LIMIT = 1.0
STOP_TIMEOUT = 10.0
EXIT_TIMEOUT = 5.0

logger = logging.getLogger("catenary.eventlog")
T = TypeVar("T")


class CommittingLog(IntakeLog):
    """
    An event log that commits in groups, on a thread of its own.

    What is accepted waits in the intake, in order. The writer takes all that
    waits as one group, so a log has at most one batch under way; a group that
    the store could not commit is tried again whole before anything later.
    The writer starts with the first use and opens the store itself: appending
    needs neither ``start`` nor a loop.
    """

    machine: Machine = RealMachine()
    """Where the writer's thread, and those of a subclass, run."""

    def __init__(self, *, url: str, clock: Callable[[], float] = time.time, **limits: int) -> None:
        super().__init__(url=url, clock=clock, **limits)
        self._life: Life | None = None
        self._ending: Life | None = None
        self._starts = 0

    # The store, on the writer's thread

    @abc.abstractmethod
    def _open_store(self) -> None:
        """Open the store. Raises ``LogUnavailable`` (tried again) or ``ConfigError``."""

    @abc.abstractmethod
    def _close_store(self) -> None:
        """Close the store; it may not be open."""

    @abc.abstractmethod
    def _commit(self, group: Group) -> Outcome:
        """
        Commit a group, all or nothing.

        Raises:
            LogError: The store cannot now; the group will be tried again.
            Exception: Some part cannot be stored; the parts will be tried alone.
        """

    @abc.abstractmethod
    def _probe(self, transaction: Any) -> None:
        """Write something small, to learn whether the store takes it again."""

    @abc.abstractmethod
    def _upkeep(self, *, is_idle: bool) -> float | None:
        """
        Do what is due between two groups, within milliseconds; may raise ``LogError``.

        ``is_idle`` says that nothing waits. Returns after how many seconds of idleness more is to do; None: nothing is.
        """

    async def _do(self, act: Callable[[Any], T], *streams: CommitStream) -> T:
        """
        Let the writer do something in its next transaction; returns after the commit.

        Raises:
            LogUnavailable: The store cannot now; whether it was done is not known.
        """
        work = Work(act, streams)
        with self._step():
            self._living()
            self._works.append(work)
            self._ring()
        return await asyncio.wrap_future(work.future)

    # The writer

    def _need_writer(self) -> None:
        if self._life is None:
            self._living()

    def _ring(self) -> None:
        life = self._life
        if life is not None and life.is_idle:
            life.is_idle = False
            life.bell.set()

    def _living(self) -> Life:
        life = self._life
        if life is None:
            life = Life(self._run, self._ending, self.machine)
            life.start()
            self._life = self._ending = life
            _living_logs.add(self)
        return life

    def _run(self, life: Life) -> None:
        group = None
        try:
            if self._open_until_done(life):
                while group := self._next(life):
                    self._commit_until_done(group, life)
                    self._keep_up(life, is_idle=False)
        except BaseException as error:
            logger.critical("the writer of %s failed", self.shown_url, exc_info=True)
            reason = LogUnavailable(f"the writer of {self.shown_url} failed: {error!r}")
            self._abandon_all(life, reason, group)
        finally:
            self._close_store()
            life.note_closed()

    def _open_until_done(self, life: Life) -> bool:
        while True:
            try:
                self._open_store()
            except Exception as error:  # what start() raises; otherwise tried again
                self._note_problem(error)
                self._close_store()
                if not self._waits_to_open(life, error):
                    return False
            else:
                self._note_problem(None)
                life.note_open()
                self._keep_up(life, is_idle=False)
                return True

    def _waits_to_open(self, life: Life, error: Exception) -> bool:
        with self._step():
            works, self._works = self._works, []
            is_over = not self._ready or life.is_stopping
            # In the same step: what is accepted from now on belongs to the next writer.
            left = self._take().batches if is_over else []
            if is_over:
                self._life = None
        life.note_attempt_failed(error)
        self._fail_works(works, error)
        self._refuse(left, error)
        if not is_over:
            life.wait_before_retry(self.machine.uniform(0, BACKOFF_LIMIT))
        return not is_over

    def _next(self, life: Life) -> Group | None:
        """Wait for something to commit; None when the writer is to end."""
        while True:
            with self._step():
                if self._ready or self._works:
                    return self._take()
                if life.is_stopping:
                    self._life = None
                    return None
                life.is_idle = True
            if not life.bell.wait(life.idle_timeout):
                self._keep_up(life, is_idle=True)
            life.bell.clear()

    def _commit_until_done(self, group: Group, life: Life) -> None:
        attempt = 0
        while group.batches or group.works:
            try:
                outcome = self._commit(group)
            except LogError as error:
                self._note_problem(error)
                self._fail_works(group.works, error)
                if life.is_overdue:
                    self._refuse(group.batches, error)
                    return
                attempt += 1
                if group.batches:
                    longest = min(BACKOFF_LIMIT, 0.01 * 2**attempt)
                    life.wait_before_retry(self.machine.uniform(0, longest))
                group = Group(group.batches, self._take_works() if group.batches else [])
            except Exception as error:  # what the store says of content
                self._commit_apart(group, life, error)
                return
            else:
                self._note_problem(None)
                self._settle(group, outcome)
                # What was committed before its answer was lost has no part in what came since.
                left = [work for work in group.works if not work.future.done()]
                group = Group([], left)

    def _take_works(self) -> list[Work[Any]]:
        with self._step():
            works, self._works = self._works, []
            return works

    def _commit_apart(self, group: Group, life: Life, error: Exception) -> None:
        """Find the part that the store refuses; the others are committed."""
        parts = [
            *(Group([batch], []) for batch in group.batches),
            *(Group([], [work]) for work in group.works),
        ]
        if len(parts) == 1:
            self._fail_works(group.works, error)
            self._refuse(group.batches, error)
            return
        for part in parts:
            self._commit_until_done(part, life)

    def _fail_works(self, works: Sequence[Work[Any]], error: Exception) -> None:
        for work in works:
            if not work.future.done():
                work.future.set_exception(error)

    def _abandon_all(self, life: Life, error: Exception, at_work: Group | None = None) -> None:
        with self._step():
            if self._life is life:
                self._life = None
            group = self._take()
        life.note_attempt_failed(error)
        for part in (at_work, group):
            if part is not None:
                self._fail_works(part.works, error)
                self._refuse(part.batches, error)

    def _keep_up(self, life: Life, *, is_idle: bool) -> None:
        try:
            if self._problem is not None:
                self._commit_until_done(Group([], [Work(self._probe)]), life)
            life.idle_timeout = self._upkeep(is_idle=is_idle)
        except LogError as error:
            self._note_problem(error)
        if self._problem is not None:
            life.idle_timeout = BACKOFF_LIMIT

    def _note_problem(self, error: Exception | None) -> None:
        former, self._problem = self._problem, None if error is None else str(error)
        if error is not None and former is None:
            logger.error("%s does not commit, events wait: %s", self.shown_url, error)
        elif error is None and former is not None:
            logger.warning("%s commits again", self.shown_url)

    # Life

    async def start(self) -> None:
        """Open the store. Each ``start`` is undone by one ``stop``."""
        with self._step():
            attempt = self._living().opened
            self._starts += 1
        try:
            await asyncio.wrap_future(attempt)
        except BaseException:
            self._starts -= 1
            raise

    async def _is_open(self) -> None:
        """Wait until the store is open; raises what ``start`` raises."""
        life = self._life
        if life is None or not life.is_open:
            with self._step():
                attempt = self._living().opened
            await asyncio.wrap_future(attempt)

    async def stop(self) -> None:
        """
        Commit what the intake holds, then close the store.

        With several starts the last stop does it. What the store did not take
        within 10 s fails with ``LogUnavailable``. A later use opens it again.
        """
        with self._step():
            self._starts = max(0, self._starts - 1)
            if self._starts:
                return
            if self._life is not None:
                self._life.stop(STOP_TIMEOUT)
            ending = self._ending
        if ending is not None:
            await asyncio.wrap_future(ending.closed)

    def problem(self) -> str | None:
        """Return why the log does not commit now."""
        return self._problem

    def statistics(self) -> dict[str, Any]:
        """Return counters and sizes, of the logs that this process holds."""
        streams = list(self._streams.values())
        return {
            "streams": len(streams),
            "tail_bytes": sum(stream.tail.bytes_held for stream in streams if stream.tail),
            "intake_bytes": self._intake_bytes,
            "open_runs": sum(len(stream.open_runs) for stream in streams),
        }


_living_logs: weakref.WeakSet[CommittingLog] = weakref.WeakSet()


@atexit.register
def _commit_at_exit() -> None:
    """Commit what was accepted, at the process's normal end; bounded in time."""
    deadline = time.monotonic() + EXIT_TIMEOUT
    lives = [(log, log._life) for log in list(_living_logs)]
    for _, life in lives:
        if life is not None:
            life.stop(EXIT_TIMEOUT)
    for log, life in lives:
        if life is not None and not life.wait_closed(deadline - time.monotonic()):
            logger.error("%s was not closed within %s s at exit", log.shown_url, EXIT_TIMEOUT)
