"""An event loop in virtual time."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, Unpack

from catenary.validate.simulation.course import Simulation

if TYPE_CHECKING:
    from catenary.validate.simulation.network import Network

logger = logging.getLogger("asyncio")

A = TypeVarTuple("A")
P = TypeVar("P", bound=asyncio.BaseProtocol)
T = TypeVar("T")
ExceptionHandler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]

if TYPE_CHECKING:
    # Type checkers take for abstract what asyncio itself leaves to each loop to have or not.
    _Loop = asyncio.BaseEventLoop
else:
    _Loop = asyncio.AbstractEventLoop


class SimulatedLoop(_Loop):
    """
    An asyncio event loop that never waits: time jumps to the next timer.

    Alone it is the loop of a simulation of its own, so that
    ``asyncio.Runner(loop_factory=SimulatedLoop)`` runs any coroutine that only
    sleeps, waits and computes. Several loops of one :class:`Simulation` share
    its time, as processes of one world do.

    It has tasks, futures, timers and executors (whose work is done on the
    loop, in a callback of its own), and the connections of its ``network``.
    It has no sockets, processes or signals, and hears no other thread.
    """

    def __init__(
        self,
        simulation: Simulation | None = None,
        *,
        name: str = "loop",
        network: Network | None = None,
    ) -> None:
        self.simulation = simulation or Simulation()
        self.name = name
        self.network = network
        self.is_frozen = False
        self.held: list[tuple[SimulatedLoop, asyncio.Handle]] = []
        """What became ready while the loop was frozen."""
        self.generators: weakref.WeakKeyDictionary[AsyncGenerator[Any, Any], None] = (
            weakref.WeakKeyDictionary()
        )
        """The asynchronous generators that began here."""
        self._is_closed = False
        self._is_stopping = False
        self._exception_handler: ExceptionHandler | None = None
        self._task_factory: Any = None

    def __repr__(self) -> str:
        return f"<SimulatedLoop {self.name} at {self.simulation.now:.3f}>"

    # Callbacks

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self.simulation.now

    def call_soon(
        self,
        callback: Callable[[Unpack[A]], object],
        *args: *A,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Call back when the simulation chooses so."""
        self._check_closed()
        handle = asyncio.Handle(callback, args, self, context)
        self.simulation.add(self, handle)
        return handle

    def call_soon_threadsafe(
        self,
        callback: Callable[[Unpack[A]], object],
        *args: *A,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """As ``call_soon``, also from another loop or thread of the same simulation."""
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[Unpack[A]], object],
        *args: *A,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back after ``delay`` seconds."""
        return self.call_at(self.simulation.now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[A]], object],
        *args: *A,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call back at a time of this loop."""
        self._check_closed()
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self.simulation.add_timer(self, timer)
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing to do: a cancelled timer is passed over when it is due."""

    # Tasks and futures

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Generator[Any, None, T] | Coroutine[Any, Any, T], **options: Any
    ) -> asyncio.Task[T]:
        """Run a coroutine; ``options`` are those of :class:`asyncio.Task`."""
        self._check_closed()
        if self._task_factory is not None:
            task: asyncio.Task[T] = self._task_factory(self, coro, **options)
            return task
        return asyncio.Task(coro, loop=self, **options)

    def set_task_factory(self, factory: Any) -> None:
        """Make tasks with ``factory(loop, coro, **options)``; None: as ever."""
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        """Return what makes tasks."""
        return self._task_factory

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[A]], T], *args: *A
    ) -> asyncio.Future[T]:
        """Do the work on this loop, in a callback of its own, whichever the executor."""
        future = self.create_future()
        self.call_soon(_do, future, func, args)
        return future

    # Connections

    @property
    def _known_network(self) -> Network:
        if self.network is None:
            raise NotImplementedError("this simulated loop has no network: give it one")
        return self.network

    async def create_connection(
        self,
        protocol_factory: Callable[[], P],
        host: str | None = None,
        port: int | None = None,
        **options: Any,
    ) -> tuple[asyncio.Transport, P]:
        """
        Connect to who listens on the network; TLS and addresses of one's own do not exist there.

        Raises:
            ConnectionRefusedError: If nobody listens.
        """
        return await self._known_network.connect(self, protocol_factory, host or "", port or 0)

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        **options: Any,
    ) -> asyncio.AbstractServer:
        """Listen on the network."""
        return self._known_network.listen(self, protocol_factory, host or "", port or 0)

    # Running

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """
        Run the simulation, all its loops, until a future of this loop is done.

        Raises:
            Stuck: If it waits for what never comes.
        """
        self._check_closed()
        waited: asyncio.Future[T] = asyncio.ensure_future(future, loop=self)  # type: ignore[arg-type]
        self.simulation.run_until(waited.done)
        return waited.result()

    def run_forever(self) -> None:
        """Run the simulation until :meth:`stop`."""
        self._check_closed()
        self._is_stopping = False
        self.simulation.run_until(lambda: self._is_stopping)

    def stop(self) -> None:
        """End :meth:`run_forever` after the present callback."""
        self._is_stopping = True

    def is_running(self) -> bool:
        """Whether a callback of this loop runs now."""
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        """Whether the loop was closed."""
        return self._is_closed

    def close(self) -> None:
        """Take nothing more. Idempotent."""
        if self.is_running():
            raise RuntimeError("a running event loop cannot be closed")
        self._is_closed = True

    def _check_closed(self) -> None:
        if self._is_closed:
            raise RuntimeError("Event loop is closed")

    async def shutdown_asyncgens(self) -> None:
        """Close the asynchronous generators that began here."""
        await asyncio.gather(
            *(generator.aclose() for generator in list(self.generators)), return_exceptions=True
        )

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""

    # Errors

    def get_debug(self) -> bool:
        """Say that asyncio's debug mode is off."""
        return False

    def set_debug(self, enabled: bool) -> None:  # noqa: FBT001 - asyncio's own signature
        """There is no debug mode."""

    def set_exception_handler(self, handler: ExceptionHandler | None) -> None:
        """Give what callbacks raise to ``handler(loop, context)``; None: log it."""
        self._exception_handler = handler

    def get_exception_handler(self) -> ExceptionHandler | None:
        """Return what is given the errors."""
        return self._exception_handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log an error as asyncio does."""
        told = {key: value for key, value in context.items() if key not in {"message", "exception"}}
        logger.error("%s %r", context.get("message"), told, exc_info=context.get("exception"))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Handle what a callback raised."""
        if self._exception_handler is not None:
            self._exception_handler(self, context)
        else:
            self.default_exception_handler(context)


def _do(future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if future.done():
        return
    try:
        result = func(*args)
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)
