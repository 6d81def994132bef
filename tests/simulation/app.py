"""An application with a client, in a process of its own in a simulated world."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection
from random import Random
from typing import Any, Protocol

from catenary.client import Client, Gap
from catenary.client.backoff import Backoff
from catenary.client.state import State
from catenary.errors import AuthError, CatenaryError, ConnectionClosed
from catenary.events import WebSocketEvent
from catenary.position import Position
from catenary.validate.simulation.loop import SimulatedLoop
from tests.simulation.bridge import HOST


class Witness(Protocol):
    """Who is told what applications get."""

    def began(self, app: App, after: Position) -> None: ...

    def received(self, app: App, event: WebSocketEvent) -> None: ...

    def gap(self, app: App, gap: Gap) -> None: ...

    def answered(self, app: App, message_id: str, outcome: object) -> None: ...


class App:
    """
    A reader of one user's events, from its first connection until its process ends.

    It hands each event to the witness and counts it as handled in the same
    step, so what it kept is what was witnessed.
    """

    def __init__(
        self,
        name: str,
        loop: SimulatedLoop,
        witness: Witness,
        *,
        user_id: str,
        thread_ids: Collection[str] = (),
        after: str | None,
    ) -> None:
        self.name = name
        self.loop = loop
        self.user_id = user_id
        self.thread_ids = tuple(thread_ids)
        self.after = after
        self.ended: CatenaryError | None = None
        self._witness = witness
        self._has_begun = False
        self._may_take = asyncio.Event()
        self._may_take.set()
        self.client = Client(
            f"ws://{HOST}/ws",
            after=after,
            thread_ids=self.thread_ids,
            headers={"X-User": user_id},
            backoff=Backoff(random=Random(name)),
        )
        self.sending: set[asyncio.Task[None]] = set()
        self._reading = loop.create_task(self._read())

    # Reading

    async def _read(self) -> None:
        async with self.client:
            while True:
                await self._may_take.wait()
                try:
                    event = await anext(self.client)
                except Gap as gap:
                    self.begin()
                    self._witness.gap(self, gap)
                    self.client.handled()
                except (ConnectionClosed, AuthError) as error:
                    self.ended = error
                    return
                else:
                    self.begin()
                    self._witness.received(self, event)
                    self.client.handled()

    def begin(self) -> None:
        """Tell where it began, once, as soon as that is known."""
        connected = self.client.connected
        if self._has_begun or connected is None:
            return
        self._has_begun = True
        after = connected.after if self.after in {None, "start", "now", "open"} else self.after
        self._witness.began(self, Position.parse(after or ""))

    def pause(self) -> None:
        """Take no further events."""
        self._may_take.clear()

    def resume(self) -> None:
        """Take events again. Idempotent."""
        self._may_take.set()

    @property
    def position(self) -> Position | None:
        """The place through which everything was witnessed."""
        return self.client.position

    @property
    def is_over(self) -> bool:
        """Whether it reads no more."""
        return self._reading.done()

    @property
    def is_live(self) -> bool:
        """Whether the client has caught up, as far as it knows."""
        return self.client.state is State.LIVE

    def failure(self) -> BaseException | None:
        """Return what its reading raised and no application could expect."""
        if self._reading.done() and not self._reading.cancelled():
            return self._reading.exception()
        return None

    # Sending

    def send(self, message_id: str, data: dict[str, Any]) -> None:
        """Send a message until it is answered."""
        self._start(self._send(message_id, data))

    def cancel_run(self, run_id: str) -> None:
        """Ask for a run to be cancelled, until that is answered."""
        self._start(self._cancel_run(run_id))

    def _start(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self.sending.add(task)
        task.add_done_callback(self.sending.discard)

    async def _send(self, message_id: str, data: dict[str, Any]) -> None:
        outcome: object
        try:
            outcome = await self.client.send("sim.note", data, id=message_id)
        except CatenaryError as error:
            outcome = error
        self._witness.answered(self, message_id, outcome)

    async def _cancel_run(self, run_id: str) -> None:
        with contextlib.suppress(CatenaryError):
            await self.client.cancel_run(run_id)

    # Ending

    def leave(self) -> None:
        """Close the client politely."""
        self._reading.cancel()
