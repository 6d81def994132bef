"""Producers and readers under which a server is killed, and what they learned."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import httpx

from catenary.client import Backoff, Client, CommandFailed, Gap
from catenary.events import RUN_ENDS, EventType, WebSocketEvent
from catenary.position import Position
from catenary.validate.checker import OrderingChecker

from .server import token_of

AWAY = (httpx.TransportError, httpx.TimeoutException)
POLL = 0.02


class Api(Protocol):
    """What may be published to: a server, or several behind one name."""

    def api(self) -> httpx.AsyncClient: ...


class Front(Protocol):
    """What clients connect to: a server, or what stands before several."""

    @property
    def websocket(self) -> str: ...


class Producer:
    """
    One run over HTTP: batches with idempotency keys, sent again until they are answered.

    One in five batches is given up after its first lost answer, so that there
    are events of which nobody knows whether they are in the log. ``pace`` is
    the longest pause between two batches.
    """

    def __init__(
        self,
        server: Api,
        user_id: str,
        run_id: str,
        checker: OrderingChecker,
        seed: str,
        *,
        pace: float = 0.02,
    ) -> None:
        self._server = server
        self._pace = pace
        self._path = f"/api/users/{user_id}/events"
        self._user_id = user_id
        self._run_id = run_id
        self._checker = checker
        self._random = random.Random(seed)
        self._batches = 0
        self.acknowledged = 0
        self.given_up = 0
        self.is_stopping = False

    async def run(self) -> None:
        """Emit until stopped, and end the run."""
        async with self._server.api() as http:
            start = {"type": "agent_started", "agent_name": "remote", "data": {}}
            await self._send(http, [start], [None], gives_up=False)
            while not self.is_stopping:
                markers = [
                    f"{self._run_id}-{self._batches}-{number}"
                    for number in range(self._random.randint(1, 5))
                ]
                gives_up = self._random.random() < 0.2
                await self._send(http, list(map(self._event, markers)), markers, gives_up=gives_up)
                await asyncio.sleep(self._random.uniform(0, self._pace))
            end = {"type": "agent_completed", "data": {}}
            await self._send(http, [end], [None], gives_up=False)

    def _event(self, marker: str) -> dict[str, Any]:
        if self._random.random() < 0.5:
            return {"type": "app.tick", "data": {"marker": marker}}
        return {"type": "agent_delta", "data": {"message_id": self._run_id, "delta": f"{marker} "}}

    async def _send(
        self,
        http: httpx.AsyncClient,
        events: list[dict[str, Any]],
        markers: Sequence[str | None],
        *,
        gives_up: bool,
    ) -> None:
        self._batches += 1
        body = [{**event, "run_id": self._run_id, "thread_id": "t1"} for event in events]
        headers = {"idempotency-key": f"{self._run_id}-{self._batches}"}
        while True:
            try:
                response = await http.post(self._path, json=body, headers=headers)
            except AWAY:
                response = None
            if response is not None and response.status_code == 201:
                self._note(response.json()["positions"], markers)
                return
            assert response is None or response.status_code == 503, response.text
            if gives_up:
                self.given_up += 1
                return
            await asyncio.sleep(POLL)

    def _note(self, positions: list[str], markers: Iterable[str | None]) -> None:
        for position, marker in zip(positions, markers, strict=True):
            self._checker.acknowledged(self._user_id, Position.parse(position), marker)
            self.acknowledged += 1


class Reader:
    """One client of a user, which comes back whatever happens, and what it saw of runs."""

    def __init__(
        self,
        server: Front,
        user_id: str,
        name: str,
        checker: OrderingChecker,
        seed: str,
        *,
        cap: float = 0.5,
    ) -> None:
        self.user_id = user_id
        self.name = name
        self._checker = checker
        self.starts: dict[str, int] = {}
        self.ends: dict[str, list[str]] = {}
        self.losses: list[Gap] = []
        self.first_seq: int | None = None
        self.client = Client(
            server.websocket,
            token=lambda: token_of(user_id),
            on_gap=self._told,
            backoff=Backoff(cap=cap, random=random.Random(seed)),
        )

    def _told(self, gap: Gap) -> None:
        self.losses.append(gap)
        self._checker.gap(self.name, gap.after, gap.resumes_at)

    async def run(self) -> None:
        """Read until cancelled."""
        self._checker.begin(self.name, self.user_id)
        async for event in self.client:
            if self.first_seq is None:
                self.first_seq = event.from_seq or event.seq
            self._checker.received(self.name, event, event.user_id or "")
            self._follow(event)

    def _follow(self, event: WebSocketEvent) -> None:
        run_id = event.run_id or ""
        if event.type == EventType.AGENT_STARTED:
            self.starts[run_id] = self.starts.get(run_id, 0) + 1
        elif event.type in RUN_ENDS:
            ends = self.ends.setdefault(run_id, [])
            ends.append(str(event.data.get("code", event.type)))

    async def start_work(self, **data: Any) -> str | None:
        """Let the server start an agent; None if the server died while it did."""
        try:
            reply = await self.client.send("work", data, thread_id="t1", timeout=20)
        except CommandFailed as error:
            assert error.code == "interrupted", error
            return None
        return str(reply["run_id"])


async def heads(server: Api, user_ids: Iterable[str]) -> dict[str, Position]:
    """Return where each user's log ends."""
    found = {}
    async with server.api() as http:
        for user_id in user_ids:
            response = await http.get(f"/api/users/{user_id}/events", params={"after": "now"})
            found[user_id] = Position.parse(response.json()["position"])
    return found


async def caught_up(readers: Iterable[Reader], ends: dict[str, Position], timeout: float) -> None:
    """Wait until every reader has handled all that is in its log, or the time is over."""
    waiting = list(readers)
    try:
        async with asyncio.timeout(timeout):
            while any(reader.client.position != ends[reader.user_id] for reader in waiting):
                await asyncio.sleep(POLL)
    except TimeoutError:
        # The checker says who is behind, and by how much.
        return


def read_journal(path: Path, checker: OrderingChecker) -> int:
    """Tell the checker what agents in the server were acknowledged; returns how many."""
    count = 0
    for line in path.read_text().splitlines():
        user_id, position, marker = line.split()
        checker.acknowledged(user_id, Position.parse(position), marker)
        count += 1
    return count
