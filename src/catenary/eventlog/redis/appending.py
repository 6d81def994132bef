"""From batches of entries to calls of the script that appends, and back to what became of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from catenary.errors import LogUnavailable
from catenary.eventlog.batch import Part, pack_entries
from catenary.eventlog.entry import Entry
from catenary.eventlog.epoch import new_epoch
from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.link import Call
from catenary.eventlog.redis.runs import cancel_of
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stored import encode
from catenary.eventlog.redis.stream import RedisStream
from catenary.eventlog.shared.appending import Appended, SharedAppending
from catenary.eventlog.shared.runs import RunStart
from catenary.events import RUN_ENDS
from catenary.grammar import OpenTool, Step
from catenary.position import Position

_decode = msgspec.msgpack.Decoder(list[list[Any]]).decode

_APPENDED, _REFUSED = 1, 2


class Appending(SharedAppending):
    """A batch on its way into Redis."""

    def __init__(
        self, stream: RedisStream, entries: Sequence[Entry], number: int, holder: str
    ) -> None:
        super().__init__(stream, entries, holder)
        self.stream = stream
        self.number = number
        self.must_fold = False
        self.runs_fields = 0
        self._parts: list[Part] | None = None

    # To the store

    def described(self, naming: Naming) -> tuple[Any, ...]:
        """Return what the script is told, beside what ``naming`` takes."""
        if self._parts is None:
            self._parts = pack_entries(self.entries)
        about = _Described(self, naming)
        for index, entry in enumerate(self.entries):
            if entry.key is not None:
                about.keys.append((entry.key, entry.digest.hex(), index))
            if entry.run_id is not None:
                about.note(index, entry, entry.run_id)
        return (
            self.stream.log_id,
            self.stream.names.channel.decode(),
            self.number,
            naming.epoch,
            [(events, size, naming.body(body)) for events, size, body in self._parts],
            about.starts,
            list(about.uses.values()),
            about.ends,
            about.tools,
            list(about.lasts.items()),
            about.keys,
        )

    # From the store

    def take(self, answer: list[Any]) -> bool:
        """Take the script's answer; False if the rest must be tried again."""
        if answer[0] == _APPENDED:
            _, epoch, first, at, cancels, must_fold, self.runs_fields = answer
            self.appended.append(Appended(self.entries, epoch, first, at))
            self.entries = []
            self.must_fold = bool(must_fold)
            self.cancels = {run: cancel_of(cancel.encode()) for run, cancel in cancels}
            return True
        if answer[0] != _REFUSED:
            raise LogUnavailable(f"a later batch of {self.stream.log_id!r} is in the log already")
        _, closed, known = answer
        self.refuse(
            dict(closed),
            {key: (bytes.fromhex(d), Position(epoch, seq)) for key, d, epoch, seq in known},
        )
        self._parts = None
        return self.is_over


class _Described:
    """What entries do to runs, in the making."""

    def __init__(self, appending: Appending, naming: Naming) -> None:
        self._appending = appending
        self._naming = naming
        self.starts: list[tuple[Any, ...]] = []
        self.uses: dict[str, list[Any]] = {}
        self.ends: list[tuple[Any, ...]] = []
        self.tools: list[tuple[Any, ...]] = []
        self.lasts: dict[str, int] = {}
        self.keys: list[tuple[Any, ...]] = []
        self._started: set[str] = set()

    def note(self, index: int, entry: Entry, run_id: str) -> None:
        step = entry.step
        if step is Step.START:
            self._start(index, entry, run_id)
        if run_id in self._started:
            self.lasts[run_id] = index
        else:
            use = self.uses.get(run_id)
            if use is None:
                use = self.uses[run_id] = [run_id, "", index]
            use[2] = index
            if step is not Step.ASIDE:
                use[1] = self._appending.holder
        if step is Step.WITHIN or step is Step.ASIDE:
            return
        if step is Step.TOOL_START:
            tool = entry.tool or OpenTool("", 0)
            self.tools.append((run_id, entry.tool_call_id, tool.name or "?", tool.began_at))
        elif step is Step.TOOL_END:
            self.tools.append((run_id, entry.tool_call_id, "", 0))
        elif entry.type in RUN_ENDS:
            self.ends.append((run_id, entry.type, index))
            self.lasts.pop(run_id, None)
            if run_id in self.uses:
                self.uses[run_id][2] = False

    def _start(self, index: int, entry: Entry, run_id: str) -> None:
        start = RunStart.of(entry)
        lease = int((start.lease or 0) * 1000)
        place = self._naming.run(run_id)
        self.starts.append((run_id, start.packed().decode(), lease, place, index))
        self._started.add(run_id)


def append_all(
    store: Store, keys: Keys, appendings: Iterable[Appending], *, producer: str, now: str
) -> None:
    """
    Append batches, each log's in one step, one call a bucket, until all have their answer.

    Raises:
        LogUnavailable: If the store did not answer; to be tried again whole.
    """
    left = [appending for appending in appendings if not appending.is_over]
    while left:
        by_bucket: defaultdict[int, list[Appending]] = defaultdict(list)
        for appending in left:
            by_bucket[appending.stream.bucket].append(appending)
        epoch = new_epoch()
        calls = [
            _call(keys, bucket, group, epoch, producer=producer, now=now)
            for bucket, group in by_bucket.items()
        ]
        left = []
        answers = store.call_all(calls)
        for group, answer in zip(by_bucket.values(), answers, strict=True):
            for appending, told in zip(group, _decode(answer), strict=True):
                if not appending.take(told):
                    left.append(appending)


class Naming:
    """The keys and arguments of a call, as its batches add to them."""

    def __init__(self, keys: Keys, bucket: int, group: Sequence[Appending], epoch: str) -> None:
        self.epoch = epoch
        """The name of a term, for each log that begins one now."""
        self._keys = keys
        self._bucket = bucket
        self.names = [keys.of_bucket(bucket, kind) for kind in ("open", "due", "ended")]
        for appending in group:
            self.names += appending.stream.names[:5]
        self.bodies: list[bytes] = []

    def run(self, run_id: str) -> int:
        """Add the key of a run's id; returns which of the keys it is."""
        self.names.append(self._keys.of_run(self._bucket, run_id))
        return len(self.names)

    def body(self, body: bytes) -> int:
        """Add packed records; returns which of the arguments they are."""
        self.bodies.append(body)
        return _ARGUMENTS + len(self.bodies)


_ARGUMENTS = 3


def _call(
    keys: Keys, bucket: int, group: list[Appending], epoch: str, *, producer: str, now: str
) -> Call:
    naming = Naming(keys, bucket, group, epoch)
    described = [appending.described(naming) for appending in group]
    return Call(bucket, "append", naming.names, (now, producer, encode(described), *naming.bodies))
