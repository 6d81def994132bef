"""
Accepting: the one step in which an event enters a log, or is refused.

The step fixes the order of events and asks the grammar of their run. It is
safe inside a finalizer or a signal handler that interrupts it.
"""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Callable, Sequence

from catenary.errors import LifecycleError, UsageError
from catenary.eventlog.entry import Entry
from catenary.eventlog.receipt import Receipt, wake
from catenary.eventlog.stepping import Stepping
from catenary.eventlog.stream import HeldRun, Stream
from catenary.grammar import OpenTool, Step


class Accepting(Stepping):
    """The appending side of every event log."""

    def __init__(self) -> None:
        super().__init__()
        self._late: deque[tuple[Stream, Sequence[Entry]]] = deque()
        self._lists = 0

    @abc.abstractmethod
    def stream(self, log_id: str) -> Stream:
        """Return the one stream of a log in this process; it need not be loaded."""

    def append(self, stream: Stream, entry: Entry) -> Receipt:
        """
        Accept one event, or raise and leave everything as it was.

        Within a finalizer or a signal handler that interrupts this thread's own
        step the event is accepted after that step, and a refusal comes through
        the receipt.

        Raises:
            LifecycleError, RunClosed: The grammar of the run forbids it.
            LogFull: The intake holds all it may.
            UsageError: The idempotency key was used for another event.
        """
        with self._lock:
            if self._is_stepping:
                self._late.append((stream, (entry,)))
                return entry.receipt
            self._is_stepping = True
            try:
                if entry.key is not None:
                    return self._accept_all(stream, (entry,))[0]
                self._check_room(stream, (entry,))
                self._accept(stream, entry, self._admit(stream, entry))
                return entry.receipt
            finally:
                if self._late:
                    self._accept_late()
                self._is_stepping = False

    def append_all(self, stream: Stream, entries: Sequence[Entry]) -> list[Receipt]:
        """Accept several events of one log in one step: all, or none. Raises as ``append``."""
        with self._lock:
            if len(entries) > 1:
                self._lists += 1
                for entry in entries:
                    entry.whole = self._lists
            if self._is_stepping:
                self._late.append((stream, entries))
                return [entry.receipt for entry in entries]
            with self._step():
                return self._accept_all(stream, entries)

    def end_run(
        self,
        stream: Stream,
        run_id: str,
        entries_for: Callable[[dict[str, OpenTool]], Sequence[Entry]],
    ) -> Receipt:
        """
        End a run in one step with whatever closes its open tools.

        ``entries_for`` gets the open tools (by ``tool_call_id``) and
        returns the entries, the end last. Raises as ``append``, but for an
        earlier failure of the run: that is logged when its receipt goes.
        """
        with self._lock:
            run = stream.runs.get(run_id)
            open_tools = dict(run.grammar.open_tools) if run is not None else {}
            if run is not None:
                run.failure = None
            return self.append_all(stream, entries_for(open_tools))[-1]

    def _accept_late(self) -> None:
        while self._late:
            stream, entries = self._late.popleft()
            # The calls that made them have returned: the receipts that they gave out tell.
            given = [entry.receipt for entry in entries]
            try:
                self._accept_all(stream, entries)
            except Exception as error:
                for receipt in given:
                    receipt.fail(error)
                wake(given)
            for entry, receipt in zip(entries, given, strict=True):
                if entry.receipt is not receipt:
                    entry.receipt.share(receipt)

    def _accept_all(self, stream: Stream, entries: Sequence[Entry]) -> list[Receipt]:
        new = [entry for entry in entries if not self._is_repeat(stream, entry)]
        before = [
            (run, run.grammar.snapshot())
            for run in {entry.run_id: stream.runs.get(entry.run_id or "") for entry in new}.values()
            if run is not None
        ]
        admitted: list[tuple[Entry, HeldRun | None]] = []
        try:
            self._check_room(stream, new)
            for entry in new:
                admitted.append((entry, self._admit(stream, entry)))  # noqa: PERF401 - undone below
        except BaseException:
            for _, run in admitted:
                if run is not None:
                    stream.runs.pop(run.run_id, None)
            for run, snapshot in before:
                stream.runs[run.run_id] = run
                run.grammar.restore(snapshot)
            raise
        for entry, run in admitted:
            if entry.key is not None:
                stream.remember_key(entry.key, entry.digest, entry.receipt)
            self._accept(stream, entry, run)
        return [entry.receipt for entry in entries]

    def _is_repeat(self, stream: Stream, entry: Entry) -> bool:
        known = stream.keys.get(entry.key) if entry.key is not None else None
        if known is None:
            return False
        if known[0] != entry.digest:
            raise UsageError(
                f"the idempotency key {entry.key!r} was used for another event of {stream.log_id!r}"
            )
        entry.receipt = known[1]
        return True

    def _admit(self, stream: Stream, entry: Entry) -> HeldRun | None:
        run_id = entry.run_id
        if run_id is None:
            return None
        run = stream.runs.get(run_id)
        if run is None:
            if entry.step is Step.ASIDE:
                return None
            if entry.step is not Step.START:
                raise LifecycleError(run_id, "it has not started: emit agent_started first")
            run = HeldRun(run_id, entry.thread_id)
            run.grammar.admit(entry.step)
            stream.runs[run_id] = run
            return run
        if run.failure is not None:
            failed, run.failure = run.failure, None
            if failed.is_unheard_failure:
                failed._outcome()
        run.grammar.admit(entry.step, entry.tool_call_id, entry.tool)
        return run

    @abc.abstractmethod
    def _check_room(self, stream: Stream, entries: Sequence[Entry]) -> None:
        """Raise ``LogFull`` unless the intake has room for all the entries."""

    @abc.abstractmethod
    def _accept(self, stream: Stream, entry: Entry, run: HeldRun | None) -> None:
        """Take one admitted entry, under the lock: commit it, or put it into the intake."""
