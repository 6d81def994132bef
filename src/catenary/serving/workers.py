"""
Several processes that serve one port, and their parent, which looks after them.

They accept from one listening socket, which the parent opened and gives to
each of them: whoever is free takes a connection, and one that is gone leaves
none behind. They are spawned and not forked, so that this works everywhere.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

from catenary.errors import ConfigError
from catenary.serving.worker import Listens, decode

logger = logging.getLogger("catenary.server")

STEADY_SECONDS = 10.0
"""A worker that lived for so long is replaced at once."""

PAUSE_LIMIT = 10.0
_LEAVE = b"leave"

Work = Callable[[Connection, list[socket.socket]], None]
"""What a worker does: with its end of the pipe to the parent, and its listeners. Picklable."""


def pause_before_life(short_lives: int) -> float:
    """Return how long to wait after so many short lives of a worker, one after another."""
    return min(PAUSE_LIMIT, 0.25 * 2**short_lives) if short_lives else 0.0


class Worker:
    """The place of one worker, and the process that has it now."""

    def __init__(self, number: int, work: Work, listeners: list[socket.socket]) -> None:
        self.number = number
        self.lives = 0
        self.due_at = 0.0
        """When the next life begins, while there is no process."""
        self.survives: str | None = None
        """What it said of its log when it listened."""
        self.failure: str | None = None
        """What it said of itself in this life before it ended."""
        self.process: BaseProcess | None = None
        self.link: Connection | None = None
        self._work = work
        self._listeners = listeners
        self._began_at = 0.0
        self._short_lives = 0

    def start(self, now: float) -> None:
        """Begin a life."""
        context = multiprocessing.get_context("spawn")
        self.link, its_end = context.Pipe()
        self.process = context.Process(
            target=self._work, args=(its_end, self._listeners), name=f"worker-{self.number}"
        )
        self.process.start()
        # Its only holder is the worker now, so that its end is heard here.
        its_end.close()
        self.lives += 1
        self.failure = None
        self._began_at = now
        logger.info("worker %d is process %s", self.number, self.process.pid)

    def hear(self) -> None:
        """Take note of what it has said."""
        while self.link is not None:
            try:
                if not self.link.poll():
                    return
                word = decode(self.link.recv_bytes())
            except (EOFError, OSError):
                self._close_link()
                return
            if isinstance(word, Listens):
                self.survives = word.survives
            else:
                self.failure = word.problem

    def end(self, now: float) -> int:
        """Its process has ended: note it, and return the exit status."""
        process, self.process = self.process, None
        assert process is not None
        process.join()
        status = process.exitcode
        process.close()
        # What it said last.
        self.hear()
        self._close_link()
        is_short = now - self._began_at < STEADY_SECONDS
        self._short_lives = self._short_lives + 1 if is_short else 0
        self.due_at = now + pause_before_life(self._short_lives)
        return 0 if status is None else status

    def _close_link(self) -> None:
        link, self.link = self.link, None
        if link is not None:
            link.close()

    def ask_to_leave(self) -> None:
        """Let it end in order."""
        if self.link is not None:
            with contextlib.suppress(OSError):
                self.link.send_bytes(_LEAVE)

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.kill()


class Workers:
    """
    The workers of a server, each with its listeners.

    One that ends is replaced: at once, or after a pause that grows if it does
    not live long. The first signal lets all of them leave in order, the second
    ends everything at once. If this process is gone, they leave too.
    ``on_started`` is told what an event survives, once all of them listen.
    """

    def __init__(
        self,
        work: Work,
        listeners: Sequence[list[socket.socket]],
        *,
        on_started: Callable[[str], None],
    ) -> None:
        self._workers = [Worker(number, work, own) for number, own in enumerate(listeners, start=1)]
        self._on_started = on_started
        self._has_started = False
        self._is_leaving = False
        self._is_asked = False
        self._failure: str | None = None
        self._bell, self._rope = multiprocessing.get_context("spawn").Pipe(duplex=False)

    def run(self) -> None:
        """
        Serve until a signal.

        Raises:
            ConfigError: If a worker cannot even begin its first life.
        """
        try:
            with self._signals():
                while self._turn():
                    pass
        finally:
            for worker in self._workers:
                worker.kill()
        if self._failure is not None:
            raise ConfigError(self._failure)

    def _turn(self) -> bool:
        """Look after the workers once; False when the last one has left."""
        now = time.monotonic()
        if self._is_asked and not self._is_leaving:
            self._leave()
        for worker in self._workers:
            if worker.process is None and worker.due_at <= now and not self._is_leaving:
                worker.start(now)
        living = [worker for worker in self._workers if worker.process is not None]
        if self._is_leaving and not living:
            return False
        self._wait(living, now)
        for worker in living:
            self._look_at(worker)
        return True

    def _wait(self, living: list[Worker], now: float) -> None:
        """Wait until a worker says something or ends, one is due, or a signal comes."""
        due = [worker.due_at for worker in self._workers if worker.process is None]
        is_open_end = self._is_leaving or not due
        links = [worker.link for worker in living if worker.link is not None]
        sentinels = [worker.process.sentinel for worker in living if worker.process is not None]
        timeout = None if is_open_end else max(0.0, min(due) - now)
        if self._bell in wait([self._bell, *links, *sentinels], timeout):
            self._bell.recv_bytes()

    def _look_at(self, worker: Worker) -> None:
        if worker.process is not None and worker.process.is_alive():
            worker.hear()
            self._note_listening()
        else:
            self._note_end(worker, worker.end(time.monotonic()))

    def _note_listening(self) -> None:
        said = [worker.survives for worker in self._workers if worker.survives is not None]
        if not self._has_started and len(said) == len(self._workers):
            self._has_started = True
            self._on_started(said[0])

    def _note_end(self, worker: Worker, status: int) -> None:
        number, failure = worker.number, worker.failure
        if self._is_leaving:
            return
        if worker.lives == 1 and (failure is not None or worker.survives is None):
            self._failure = failure or (
                f"worker {number} ended with status {status} before it listened; what it wrote "
                "says why"
            )
            self._leave()
        elif failure is not None:
            logger.error("worker %d cannot start, trying again: %s", number, failure)
        elif status:
            logger.error("worker %d ended with status %d; another follows", number, status)
        else:
            logger.info("worker %d has left in order; another follows", number)

    def _leave(self) -> None:
        self._is_leaving = True
        for worker in self._workers:
            worker.ask_to_leave()

    # Signals

    @contextmanager
    def _signals(self) -> Iterator[None]:
        handled = (signal.SIGINT, signal.SIGTERM)
        former = {number: signal.signal(number, self._take_signal) for number in handled}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _take_signal(self, number: int, frame: FrameType | None) -> None:
        if self._is_asked:
            for worker in self._workers:
                worker.kill()
            os._exit(128 + number)
        self._is_asked = True
        self._rope.send_bytes(b"!")
