"""From batches of entries to calls of the script that appends, and back to what became of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from catenary.errors import LogUnavailable, RunClosed, UsageError
from catenary.eventlog.batch import Part, pack_entries
from catenary.eventlog.committer_group import Outcome
from catenary.eventlog.entry import Entry
from catenary.eventlog.epoch import new_epoch
from catenary.eventlog.redis.keys import Keys
from catenary.eventlog.redis.link import Call
from catenary.eventlog.redis.runs import RunStart, cancel_of
from catenary.eventlog.redis.store import Store
from catenary.eventlog.redis.stored import encode
from catenary.eventlog.redis.stream import RedisStream
from catenary.events import RUN_ENDS
from catenary.grammar import OpenTool, Step
from catenary.position import Position

_decode = msgspec.msgpack.Decoder(list[list[Any]]).decode

_APPENDED, _REFUSED = 1, 2
_KNOWN = "a run with this id has been before"


class Appending:
    """
    A batch on its way into the store, through as many attempts as it takes.

    What the store refuses is taken out, and the rest is tried again under the
    same number. ``holder`` is who must hold the runs that it goes on with.
    """

    def __init__(
        self, stream: RedisStream, entries: Sequence[Entry], number: int, holder: str
    ) -> None:
        self.stream = stream
        self.number = number
        self.holder = holder
        self.entries: list[Entry] = list(entries)
        self.refused: list[tuple[Entry, Exception]] = []
        self.repeated: list[tuple[Entry, Position]] = []
        self.ours_no_more: dict[str, str] = {}
        """The runs that the store says are not this holder's, and why."""
        self.cancels: dict[str, bytes] = {}
        self.must_fold = False
        self.runs_fields = 0
        self._parts: list[Part] | None = None
        self._epoch, self._first, self._at = "", 0, 0
        closed: dict[str, Exception] = dict(stream.refused)
        if closed or any(entry.key is not None for entry in self.entries):
            self._take_out(closed, {})

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to append."""
        return not self.entries

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
            _, self._epoch, self._first, self._at, cancels, must_fold, self.runs_fields = answer
            self.must_fold = bool(must_fold)
            self.cancels = {run: cancel.encode() for run, cancel in cancels}
            return True
        if answer[0] != _REFUSED:
            raise LogUnavailable(f"a later batch of {self.stream.log_id!r} is in the log already")
        _, closed, known = answer
        self.ours_no_more.update(closed)
        self._take_out(
            {run: RunClosed(run, reason) for run, reason in closed},
            {key: (digest, Position(epoch, seq)) for key, digest, epoch, seq in known},
        )
        self._parts = None
        return self.is_over

    def _take_out(
        self, closed: dict[str, Exception], known: dict[str, tuple[str, Position]]
    ) -> None:
        left: list[Entry] = []
        first_of: dict[str, Entry] = {}
        broken = {
            entry.whole: closed[entry.run_id]
            for entry in self.entries
            if entry.whole and entry.step is not Step.ASIDE and entry.run_id in closed
        }
        for entry in self.entries:
            of_run = entry.run_id if entry.step is not Step.ASIDE else None
            if entry.key is not None and entry.key in known:
                self._take_known(entry, *known[entry.key], closed)
            elif of_run is not None and of_run in closed:
                self.refused.append((entry, closed[of_run]))
            elif entry.whole in broken:
                self.refused.append((entry, broken[entry.whole]))
            elif (
                entry.key is not None
                and (first := first_of.setdefault(entry.key, entry)) is not entry
            ):
                first.receipt.share(entry.receipt)
            else:
                left.append(entry)
        self.entries = left

    def _take_known(
        self, entry: Entry, digest: str, place: Position, closed: dict[str, Exception]
    ) -> None:
        if digest != entry.digest.hex():
            text = f"the idempotency key {entry.key!r} was used for another event of "
            self.refused.append((entry, UsageError(f"{text}{self.stream.log_id!r}")))
        else:
            self.repeated.append((entry, place))
        if entry.step is Step.START and entry.run_id is not None:
            # Whatever this process made of the start, the run is not its own.
            closed[entry.run_id] = RunClosed(entry.run_id, _KNOWN)
            self.ours_no_more[entry.run_id] = _KNOWN

    # To everyone

    def tell(self, outcome: Outcome) -> None:
        """Add what became of the batch to an outcome."""
        stream = self.stream
        epoch, at = self._epoch, self._at
        seq = self._first
        for entry in self.entries:
            outcome.appended.append((stream, entry, entry.to_record(epoch, seq, at)))
            seq += 1
        outcome.refused += [(stream, entry, error) for entry, error in self.refused]
        outcome.repeated += [(stream, entry, place) for entry, place in self.repeated]
        if self.ours_no_more or self.cancels:
            outcome.effects.append(self._note_runs)

    def _note_runs(self) -> None:
        for run_id, reason in self.ours_no_more.items():
            run = self.stream.runs.get(run_id)
            if run is not None and self.holder:
                run.close(reason)
                self.stream.open_runs.discard(run_id)
        for run_id, packed in self.cancels.items():
            run = self.stream.runs.get(run_id)
            if run is not None and run.is_open and not run.is_cancel_requested:
                for tell in self.stream.cancel(run, *cancel_of(packed)):
                    tell()


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
