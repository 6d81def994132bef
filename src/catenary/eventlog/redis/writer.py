"""What runs on the writer's thread of a Redis log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from catenary.eventlog.committer.group import Batch, Outcome
from catenary.eventlog.model import Retention
from catenary.eventlog.redis import keeping
from catenary.eventlog.redis.address import Address
from catenary.eventlog.redis.appending import Appending, append_all
from catenary.eventlog.redis.durability import in_force
from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.live import Listener
from catenary.eventlog.redis.marks import check_marks
from catenary.eventlog.redis.scripts import Rules
from catenary.eventlog.redis.session import Session
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stream import RedisStream
from catenary.eventlog.shared.durability import InForce
from catenary.eventlog.shared.log import SharedLog

logger = logging.getLogger("catenary.eventlog")


class RedisWriter(SharedLog[Store, RedisStream, Appending, Listener]):
    """The appending side of a Redis log."""

    _store_name = "Redis"
    _stream_type = RedisStream

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
        super().__init__(
            url=url, shown=address.shown, retention=retention, clock=clock, lease=lease, **limits
        )
        self.address = address
        self.keys = Keys(address.key_prefix)
        self._rules = Rules(retention=self._retention, trust_restart=address.trust_restart)
        self._store = Store(address, self._rules, wait=address.wait)
        self._to_fold: set[RedisStream] = set()
        self._to_forget: set[RedisStream] = set()
        self._processes: frozenset[str] = frozenset()

    def _new_stream(self, log_id: str) -> RedisStream:
        return RedisStream(log_id, self.keys)

    def _new_store(self) -> Store:
        return Store(self.address, self._rules)

    def _now(self) -> str:
        """Return what scripts are told of the time: nothing, so that they ask the store."""
        return "" if self._own_clock is None else str(int(self._own_clock() * 1000))

    # Opening and closing

    def _look_at_store(self) -> None:
        self._note_servers(in_force(self._store, self.address, self.required))
        check_marks(self._store, self.keys)
        probe = self.keys.of_log("\0probe")
        self._store.call(self.keys.bucket_of("\0probe"), "probe", probe[:5], probe.channel)

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

    def _end_lease(self) -> None:
        self._store.call(0, "lease", [self.keys.leases], self.holder, 0)

    # Committing

    def _append_all(self, appendings: Sequence[Appending]) -> None:
        append_all(self._store, self.keys, appendings, producer=self.holder, now=self._now())

    def _new_appending(self, stream: RedisStream, batch: Batch) -> Appending:
        return Appending(stream, batch.entries, batch.number, self.holder)

    def _note_appended(self, appending: Appending) -> None:
        if appending.must_fold:
            self._to_fold.add(appending.stream)
        if appending.runs_fields > keeping.RUNS_LIMIT_FIELDS:
            self._to_forget.add(appending.stream)

    def _session(self, outcome: Outcome) -> Session:
        return Session(self._store, self.keys, outcome, holder=self.holder, now=self._now())

    # Upkeep

    def _keep_logs(self) -> None:
        to_fold, self._to_fold = self._to_fold, set()
        for stream in to_fold:
            keeping.drop_folding(self._store, self.keys, stream, self._now(), self._retention)
        to_forget, self._to_forget = self._to_forget, set()
        for stream in to_forget:
            keeping.forget_runs(self._store, stream.at(self._now()), stream.log_id)

    def _who_lives(self, store: Store) -> frozenset[str]:
        life = int(self._lease.seconds * 1000)
        living = store.call(0, "lease", [self.keys.leases], self.holder, life)
        return frozenset(name.decode() for name in living)

    def _renew(self) -> None:
        super()._renew()
        if self._store.processes != self._processes:
            self._note_servers(in_force(self._store, self.address, None))
