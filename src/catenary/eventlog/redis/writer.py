"""What runs on the writer's thread of a Redis log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from catenary.errors import ConfigError, LogError, LogUnavailable
from catenary.eventlog.committer.group import Batch, Group, Outcome
from catenary.eventlog.committer.log import CommittingLog
from catenary.eventlog.model import Durability, Retention
from catenary.eventlog.redis import keeping
from catenary.eventlog.redis.address import Address
from catenary.eventlog.redis.appending import Appending, append_all
from catenary.eventlog.redis.durability import in_force
from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.marks import check_marks
from catenary.eventlog.redis.scripts import Rules
from catenary.eventlog.redis.session import Session
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stream import RedisStream
from catenary.eventlog.shared.callers import Callers
from catenary.eventlog.shared.durability import InForce
from catenary.eventlog.shared.leases import Lease

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("catenary.eventlog")


class RedisWriter(CommittingLog):
    """The appending side of a Redis log."""

    durability = Durability.MEMORY
    is_shared = True

    def __init__(
        self,
        address: Address,
        *,
        url: str,
        retention: Retention | None,
        clock: Callable[[], float] | None,
        lease: float,
        **limits: int,
    ) -> None:
        super().__init__(url=url, clock=clock or time.time, **limits)
        self.address = address
        self.keys = Keys(address.key_prefix)
        self._retention = retention or Retention()
        self._rules = Rules(retention=self._retention, trust_restart=address.trust_restart)
        self._own_clock = clock
        self._store = Store(address, self._rules, wait=address.wait)
        self._callers: Callers[Store] | None = None
        self._appendings: dict[int, Appending] = {}
        """The batches that are under way, by their number."""
        self._to_fold: set[RedisStream] = set()
        self._to_forget: set[RedisStream] = set()
        self._lease = Lease(lease)
        self._alive: frozenset[str] = frozenset()
        self._in_force: InForce | None = None
        self._processes: frozenset[str] = frozenset()

    def _new_stream(self, log_id: str) -> RedisStream:
        return RedisStream(log_id, self.keys)

    def stream(self, log_id: str) -> RedisStream:
        """Return the stream of a log."""
        stream = super().stream(log_id)
        assert isinstance(stream, RedisStream)
        return stream

    def _now(self) -> str:
        """Return what scripts are told of the time: nothing, so that they ask the store."""
        return "" if self._own_clock is None else str(int(self._own_clock() * 1000))

    @property
    def survives(self) -> str:
        """What an acknowledged event survives, as far as it is known."""
        if self._in_force is None:
            return "what its Redis is set to: that is logged once it answers"
        return self._in_force.text

    # Opening and closing

    def _open_store(self) -> None:
        self._note_servers(in_force(self._store, self.address, self.required))
        check_marks(self._store, self.keys)
        probe = self.keys.of_log("\0probe")
        self._store.call(self.keys.bucket_of("\0probe"), "probe", probe[:5], probe.channel)
        self._renew()
        self._callers = Callers(lambda: Store(self.address, self._rules), self.address.shown)

    def _close_store(self) -> None:
        callers, self._callers = self._callers, None
        if callers is not None:
            callers.close()
            try:
                self._store.call(0, "lease", [self.keys.leases], self.holder, 0)
            except LogError as error:
                logger.warning("%s: its lease ends by itself: %s", self.address.shown, error)
        self._store.close()
        self._lease.interrupted()

    async def _ask(
        self, ask: Callable[Concatenate[Store, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Ask the store on another thread. Raises as ``start``, or ``LogUnavailable``."""
        await self._is_open()
        callers = self._callers
        if callers is None:
            raise LogUnavailable(f"{self.address.shown} was closed meanwhile")
        return await callers.run(ask, *args, **kwargs)

    # Committing

    def _commit(self, group: Group) -> Outcome:
        with self._waiting_for_settings():
            outcome = Outcome()
            appendings = [self._appending(batch) for batch in group.batches]
            append_all(self._store, self.keys, appendings, producer=self.holder, now=self._now())
            for appending in appendings:
                self._note_appended(appending, outcome)
            for work in group.works:
                outcome.results.append((work, work.act(self._session(outcome))))
        for batch in group.batches:
            del self._appendings[batch.number]
        return outcome

    @contextmanager
    def _waiting_for_settings(self) -> Iterator[None]:
        """While it is open, what a server refuses by its configuration waits as an outage does."""
        try:
            yield
        except ConfigError as error:
            self._lease.interrupted()
            raise LogUnavailable(str(error)) from error
        except LogError:
            self._lease.interrupted()
            raise

    def _note_appended(self, appending: Appending, outcome: Outcome) -> None:
        appending.tell(outcome)
        if appending.must_fold:
            self._to_fold.add(appending.stream)
        if appending.runs_fields > keeping.RUNS_LIMIT_FIELDS:
            self._to_forget.add(appending.stream)

    def _appending(self, batch: Batch) -> Appending:
        """Return a batch with what the store has said of it in earlier attempts."""
        found = self._appendings.get(batch.number)
        if found is None:
            stream = batch.stream
            assert isinstance(stream, RedisStream)
            found = Appending(stream, batch.entries, batch.number, self.holder)
            self._appendings[batch.number] = found
        return found

    def _session(self, outcome: Outcome) -> Session:
        return Session(self._store, self.keys, outcome, holder=self.holder, now=self._now())

    def _probe(self, transaction: Session) -> None:
        self._renew()

    # Upkeep

    def _upkeep(self, *, is_idle: bool) -> float | None:
        with self._waiting_for_settings():
            to_fold, self._to_fold = self._to_fold, set()
            for stream in to_fold:
                keeping.drop_folding(self._store, self.keys, stream, self._now(), self._retention)
            to_forget, self._to_forget = self._to_forget, set()
            for stream in to_forget:
                keeping.forget_runs(self._store, stream.at(self._now()), stream.log_id)
            if self._lease.is_due(time.monotonic()):
                self._renew()
                self._look_at_held()
        return max(0.01, self._lease.due_in(time.monotonic()))

    def _who_lives(self, store: Store) -> frozenset[str]:
        """Renew this process's lease, and return the processes that live."""
        life = int(self._lease.seconds * 1000)
        living = store.call(0, "lease", [self.keys.leases], self.holder, life)
        return frozenset(name.decode() for name in living)

    def _renew(self) -> None:
        self._alive = self._who_lives(self._store)
        self._lease.renewed(time.monotonic())
        if self._store.processes != self._processes:
            self._note_servers(in_force(self._store, self.address, None))

    def _note_servers(self, found: InForce) -> None:
        """Say what holds on the servers that the log is on now."""
        former, self._in_force = self._in_force, found
        self._processes = self._store.processes
        self.durability = found.durability
        if former is None or former.durability is found.durability:
            logger.info("%s: an event survives %s", self.address.shown, found.text)
        else:
            logger.warning(
                "%s is another server now: an event survives %s", self.address.shown, found.text
            )

    def _look_at_held(self) -> None:
        """Learn of cancels and fences that concern the runs held here."""
