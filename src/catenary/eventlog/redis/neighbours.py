"""The processes of a Redis log."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from catenary.errors import LogError
from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.link import Call
from catenary.eventlog.redis.store import Store
from catenary.eventlog.shared.nodes import PRESENCE_SECONDS, REFRESH_SECONDS, SharedNodes

if TYPE_CHECKING:
    from catenary.eventlog.redis.log import RedisLog

_AT_ONCE = 500


class RedisNodes(SharedNodes):
    """Questions over channels; presence in a hash for each user."""

    def __init__(self, log: RedisLog) -> None:
        super().__init__(log.holder)
        self._log = log
        self._flushing = threading.Lock()
        self._said_at = float("-inf")

    async def _others(self) -> Collection[str]:
        return await self._log._ask(self._living) - {self.node}

    def _living(self, store: Store) -> frozenset[str]:
        found = store.command(0, "ZRANGE", self._log.keys.leases, 0, -1)
        return frozenset(name.decode() for name in found)

    async def _tell_all(self, message: bytes) -> None:
        channel = self._log.keys.nodes_channel
        await self._log._ask(lambda store: store.command(0, "PUBLISH", channel, b"n" + message))

    def _tell(self, node: str, message: bytes) -> None:
        callers = self._log._callers
        if callers is not None:
            channel = self._log.keys.node_channel(node)
            callers.run_later(lambda store: self._publish(store, channel, b"n" + message))

    def _publish(self, store: Store, channel: bytes, message: bytes) -> None:
        try:
            store.command(0, "PUBLISH", channel, message)
        except LogError:
            # Who asked goes on without this answer.
            return

    # Presence

    def _count_changed(self, user_id: str) -> None:
        super()._count_changed(user_id)
        callers = self._log._callers
        if callers is not None:
            callers.run_later(self.flush)

    def refresh(self) -> None:
        """Say again who is here, where that is due; and what could not be said before."""
        now = time.monotonic()
        if now - self._said_at >= REFRESH_SECONDS:
            self._said_at = now
            self.all_changed()
        if self._changed and self._log._callers is not None:
            self._log._callers.run_later(self.flush)

    def flush(self, store: Store) -> None:
        """Say who came and who left."""
        # One at a time: of two that say different things of a user the later one counts.
        with self._flushing:
            here, gone = self.take_changes()
            counts = [*here.items(), *((user_id, 0) for user_id in gone)]
            try:
                for begin in range(0, len(counts), _AT_ONCE):
                    self._say(store, dict(counts[begin : begin + _AT_ONCE]))
            except LogError:
                self.changed_again([*here, *gone])

    def _say(self, store: Store, counts: dict[str, int]) -> None:
        keys = self._log.keys
        ttl = int(PRESENCE_SECONDS * 1000)
        of_bucket = _by_bucket(keys, counts)
        calls = []
        for bucket, user_ids in of_bucket.items():
            names = [keys.of_name("on", user_id) for user_id in user_ids]
            told = [counts[user_id] for user_id in user_ids]
            calls.append(Call(bucket, "present", names, (self._log._now(), self.node, ttl, *told)))
        for user_ids, found in zip(of_bucket.values(), store.call_all(calls), strict=True):
            for user_id, elsewhere in zip(user_ids, found, strict=True):
                self._crowded(user_id, elsewhere)

    async def is_present(self, user_id: str) -> bool:
        """Whether a user has a connection to any process."""
        if self.is_here(user_id):
            return True
        keys = self._log.keys
        names = [keys.of_name("on", user_id)]
        answer = await self._log._ask(
            Store.call, keys.bucket_of(user_id), "present", names, self._log._now(), self.node
        )
        return bool(answer[0])


def _by_bucket(keys: Keys, user_ids: Iterable[str]) -> dict[int, list[str]]:
    found: defaultdict[int, list[str]] = defaultdict(list)
    for user_id in user_ids:
        found[keys.bucket_of(user_id)].append(user_id)
    return found
