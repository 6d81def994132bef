"""The chaos proxy for threads without an event loop."""

from __future__ import annotations

import concurrent.futures
from types import TracebackType
from typing import Self

from catenary.client.loop_thread import LoopThread
from catenary.errors import UsageError
from catenary.validate.chaos.faults import CALM, Faults, Seed
from catenary.validate.chaos.journal import Journal
from catenary.validate.chaos.proxy import BUFFER_BYTES, ChaosProxy
from catenary.validate.chaos.script import Action, Script


class BlockingChaosProxy:
    """
    A :class:`ChaosProxy` in a thread of its own::

        with BlockingChaosProxy("http://127.0.0.1:8000", seed=7) as network:
            network.apply(Action.STALL)

    Its methods may be called from any thread, and do the same.
    """

    def __init__(
        self,
        target: str | int,
        *,
        faults: Faults = CALM,
        seed: Seed = 0,
        buffer_bytes: int = BUFFER_BYTES,
    ) -> None:
        """Describe a proxy; the arguments are those of :class:`ChaosProxy`."""
        self._proxy = ChaosProxy(target, faults=faults, seed=seed, buffer_bytes=buffer_bytes)
        self._thread: LoopThread | None = None

    def __enter__(self) -> Self:
        if self._thread is not None:
            raise UsageError("a proxy is opened once; make another")
        self._thread = LoopThread("catenary-chaos")
        try:
            self._thread.run(self._proxy.open())
        except BaseException:
            self._thread.stop(self._proxy.close())
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.stop(self._proxy.close())

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._proxy.port

    @property
    def journal(self) -> Journal:
        """What happened so far."""
        return self._proxy.journal

    @property
    def faults(self) -> Faults:
        """What the network does now."""
        return self._proxy.faults

    @property
    def connection_count(self) -> int:
        """How many connections are there, those that have gone silent too."""
        return self._proxy.connection_count

    def url_for(self, url: str) -> str:
        """Return a URL of the server as it is through the proxy."""
        return self._proxy.url_for(url)

    def apply(self, what: Action | Faults) -> None:
        """Do something to the network, and return when it is done."""

        async def act() -> None:
            self._proxy.apply(what)

        self._running.run(act())

    def play(self, script: Script) -> concurrent.futures.Future[None]:
        """Play a script meanwhile; ``result()`` of what this returns waits for its end."""
        return self._running.submit(self._proxy.play(script))

    @property
    def _running(self) -> LoopThread:
        if self._thread is None or self._thread.is_stopped:
            raise UsageError("the proxy is not open; use it within its block")
        return self._thread
