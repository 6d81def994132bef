"""What runs on the writer's thread of a NATS log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence

from catenary.eventlog.committer.group import Batch, Outcome
from catenary.eventlog.model import Retention
from catenary.eventlog.nats import keeping, leases
from catenary.eventlog.nats.address import Address
from catenary.eventlog.nats.appending import Appending, append_all
from catenary.eventlog.nats.durability import in_force
from catenary.eventlog.nats.live import Listener
from catenary.eventlog.nats.names import Names
from catenary.eventlog.nats.session import Session
from catenary.eventlog.nats.store import Servers, Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.shared.log import SharedLog
from catenary.grammar import Step

logger = logging.getLogger("catenary.eventlog")


class NatsWriter(SharedLog[Store, NatsStream, Appending, Listener]):
    """The appending side of a NATS log."""

    _store_name = "JetStream"
    _stream_type = NatsStream

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
        self.names = Names(address.key_prefix)
        self._servers = Servers(address)
        self._store = self._new_store()
        self._to_trim: set[NatsStream] = set()
        self._to_compact: set[NatsStream] = set()
        self._to_forget: set[NatsStream] = set()
        self._marked: dict[str, NatsStream] = {}
        """The logs that the store is told of, where runs may be open that are held here."""
        self._ahead_ms = 0
        """How far the store's clock is ahead of this one."""

    def _new_stream(self, log_id: str) -> NatsStream:
        return NatsStream(log_id, self.names.of_log(log_id))

    def _new_store(self) -> Store:
        return Store(self.address, self.names, self._servers)

    def _now_ms(self) -> int:
        """Return the time that the store goes by, in ms since 1970."""
        if self._own_clock is not None:
            return int(self._own_clock() * 1000)
        return int(time.time() * 1000) + self._ahead_ms

    # Opening and closing

    def _look_at_store(self) -> None:
        found = self._in_force = in_force(self._store, self.address, self.required)
        self.durability = found.durability
        logger.info("%s: an event survives %s", self.address.shown, found.text)

    def _end_lease(self) -> None:
        leases.end(self._store, self.holder)

    def _close_store(self) -> None:
        super()._close_store()
        self._marked.clear()

    # Committing

    def _append_all(self, appendings: Sequence[Appending]) -> None:
        self._mark(appendings)
        append_all(self._store, appendings, producer=self.holder, at=self._now_ms())

    def _mark(self, appendings: Iterable[Appending]) -> None:
        """
        Tell the store where runs may be open that are held here, and where leases may end.

        Before the runs begin: a process that dies in between leaves a mark at a log
        without its runs, which harms nobody.
        """
        marked = []
        for appending in appendings:
            starts = [entry for entry in appending.entries if entry.step is Step.START]
            if starts:
                marked.append(appending.stream)
                keeping.expect_leases(self._store, appending.stream, starts, self._now_ms())
        self._mark_all(self._store, marked)

    def _mark_all(self, store: Store, streams: Iterable[NatsStream]) -> None:
        new = [stream for stream in streams if stream.log_id not in self._marked]
        if new:
            store.publish_all([[keeping.mark(self.names, self.holder, one)] for one in new])
        for stream in new:
            self._marked[stream.log_id] = stream

    def _new_appending(self, stream: NatsStream, batch: Batch) -> Appending:
        return Appending(stream, batch.entries, batch.number, self.holder)

    def _note_appended(self, appending: Appending) -> None:
        stream = appending.stream
        known = stream.known
        if known is None or not appending.appended:
            return
        if any(entry.is_run_end for entries, *_ in appending.appended for entry in entries):
            self._to_compact.add(stream)
        if keeping.is_over(known.state, self._retention):
            self._to_trim.add(stream)
        if keeping.has_much_to_forget(known.state):
            self._to_forget.add(stream)

    def _session(self, outcome: Outcome) -> Session:
        return Session(self._store, outcome, holder=self.holder, at=self._now_ms())

    # Upkeep

    def _keep_logs(self) -> None:
        to_trim, self._to_trim = self._to_trim, set()
        for stream in to_trim:
            keeping.trim(self._store, stream, self._retention, self._now_ms())
        to_forget, self._to_forget = self._to_forget, set()
        for stream in to_forget:
            keeping.forget(self._store, stream, self._now_ms())

    def _who_lives(self, store: Store) -> frozenset[str]:
        return leases.renew(store, self.holder, self._lease.seconds).alive

    def _renew(self) -> None:
        found = leases.renew(self._store, self.holder, self._lease.seconds)
        self._alive = found.alive
        self._ahead_ms = found.ahead_ms
        self._lease.renewed(time.monotonic())
