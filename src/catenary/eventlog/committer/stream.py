"""A log's stream with its part of the intake: entries that wait to be committed."""

from __future__ import annotations

from catenary.errors import RunClosed
from catenary.eventlog.entry import Entry
from catenary.eventlog.stream import Stream
from catenary.record import MERGED_LIMIT_BYTES

ENTRY_BYTES = 200
"""What an entry counts for in the intake beside its body."""

_DELTA_END = b'"}}'


def intake_size(entry: Entry) -> int:
    """Return what an entry counts for in the intake, in bytes."""
    return len(entry.body) + ENTRY_BYTES


class CommitStream(Stream):
    """
    One log, as this process knows it, and its entries not yet committed.

    ``epoch`` and ``head`` mean something once ``is_loaded``.
    """

    __slots__ = (
        "_joined",
        "_last_bytes",
        "in_flight",
        "intake_bytes",
        "is_loaded",
        "is_queued",
        "open_runs",
        "refused",
        "waiting",
        "waiting_bytes",
    )

    def __init__(self, log_id: str) -> None:
        super().__init__(log_id, "", 0)
        self.is_loaded = False
        self.is_queued = False
        self.waiting: list[Entry] = []
        self.waiting_bytes = 0
        self.in_flight: list[Entry] = []
        """What is being committed."""
        self.intake_bytes = 0
        """What waits and what is being committed."""
        self.open_runs: set[str] = set()
        """The runs held here whose start is committed and whose end is not."""
        self.refused: dict[str, RunClosed] = {}
        """The runs that the store refused, for what was accepted before anyone knew."""
        self._joined: list[bytes] = []
        self._last_bytes = 0

    def put(self, entry: Entry) -> int:
        """
        Let an entry wait, as part of the last one if both are deltas of one message.

        Returns what it counts for, in bytes. A joined delta shares the receipt.
        """
        if entry.delta_at and self.waiting and self._joins(self.waiting[-1], entry):
            text = entry.body[entry.delta_at : -len(_DELTA_END)]
            self._joined.append(text)
            self._last_bytes += len(text)
            entry.receipt = self.waiting[-1].receipt
            size = len(text) + ENTRY_BYTES // 4
        else:
            self._finish_last()
            self.waiting.append(entry)
            self._last_bytes = len(entry.body)
            size = intake_size(entry)
        self.waiting_bytes += size
        self.intake_bytes += size
        return size

    def _joins(self, last: Entry, entry: Entry) -> bool:
        return (
            entry.merge is not None
            and entry.merge == last.merge
            and last.delta_at > 0
            and entry.run_id == last.run_id
            and entry.key is None
            and last.key is None
            and self._last_bytes + len(entry.body) < MERGED_LIMIT_BYTES
        )

    def _finish_last(self) -> None:
        if self._joined:
            last = self.waiting[-1]
            last.body = b"".join((last.body[: -len(_DELTA_END)], *self._joined, _DELTA_END))
            self._joined = []

    def take(self) -> tuple[list[Entry], int]:
        """Return all that waits, and what it counts for."""
        self._finish_last()
        taken, size = self.waiting, self.waiting_bytes
        self.waiting, self.waiting_bytes = [], 0
        self.in_flight = taken
        return taken, size

    def release(self, size: int) -> None:
        """Give back the room in the intake of what was being committed."""
        self.in_flight = []
        self.intake_bytes -= size

    def uncommitted(self) -> list[Entry]:
        """Return what is accepted and not yet shown to readers, in order."""
        self._finish_last()
        flying = [entry for entry in self.in_flight if not entry.receipt.is_settled]
        return flying + self.waiting

    @property
    def is_busy(self) -> bool:
        """Whether this process must keep the stream: it holds what is nowhere else."""
        return bool(self.waiting or self.intake_bytes or self.open_runs or self.watchers)
