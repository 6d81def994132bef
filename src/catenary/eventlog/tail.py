"""
The tail: a log's last frames, in memory, for users with a reader here.

Each event's frame is built once, when it is committed, and shared by every
reader. A reader inside the tail is served without awaiting anything; a reader
behind it reads pages from the log.
"""

from __future__ import annotations

from collections.abc import Collection

FRAMES_LIMIT = 1000
BYTES_LIMIT = 256 * 1024


class Tail:
    """
    The frames from ``first`` on, one a ``seq``, without holes.

    It is bounded by :data:`FRAMES_LIMIT` and :data:`BYTES_LIMIT`, with a
    quarter of slack so that trimming is seldom. One thread at a time may
    change it, under its log's lock; any thread may read it meanwhile.
    """

    __slots__ = ("_held", "bytes_held")

    def __init__(self, first: int) -> None:
        # Replaced as a whole when the oldest go: a reader keeps lists that only grow.
        self._held: tuple[int, list[bytes], list[str | None]] = (first, [], [])
        self.bytes_held = 0

    @property
    def first(self) -> int:
        """The ``seq`` of the first frame."""
        return self._held[0]

    @property
    def end(self) -> int:
        """The ``seq`` after the last frame."""
        first, frames, _ = self._held
        return first + len(frames)

    def append(self, frame: bytes, thread_id: str | None) -> None:
        """Add the frame of the next ``seq``."""
        _, frames, threads = self._held
        # The thread first: a reader finds one for every frame that it finds.
        threads.append(thread_id)
        frames.append(frame)
        self.bytes_held += len(frame)
        if len(frames) > FRAMES_LIMIT * 5 // 4 or self.bytes_held > BYTES_LIMIT * 5 // 4:
            self._trim()

    def _trim(self) -> None:
        first, frames, threads = self._held
        drop = max(0, len(frames) - FRAMES_LIMIT)
        held = self.bytes_held - sum(map(len, frames[:drop]))
        while held > BYTES_LIMIT and drop < len(frames):
            held -= len(frames[drop])
            drop += 1
        self._held = (first + drop, frames[drop:], threads[drop:])
        self.bytes_held = held

    def clear(self) -> None:
        """Drop every frame; readers behind go to the log."""
        self._held = (self.end, [], [])
        self.bytes_held = 0

    def after(
        self,
        seq: int,
        limit_bytes: int,
        thread_ids: Collection[str] | None,
    ) -> tuple[list[bytes], int] | None:
        """
        Return the frames after ``seq`` that fit, and the ``seq`` reached.

        At least one frame is returned where there is one, whatever its size.
        None means that the frames begin after ``seq + 1``: read the log.
        """
        first, frames, threads = self._held
        start = seq + 1 - first
        if start < 0:
            return None
        if thread_ids is not None:
            taken, count = _filtered(frames[start:], threads[start:], limit_bytes, thread_ids)
            return taken, seq + count
        frames = frames[start:]
        if sum(map(len, frames)) > limit_bytes:
            frames = frames[: _fitting(frames, limit_bytes)]
        return frames, seq + len(frames)


def _filtered(
    frames: list[bytes],
    threads: list[str | None],
    limit_bytes: int,
    thread_ids: Collection[str],
) -> tuple[list[bytes], int]:
    """Return the frames of these threads that fit, and how many were looked at."""
    taken: list[bytes] = []
    size = 0
    for count, frame in enumerate(frames):
        if threads[count] in thread_ids:
            size += len(frame)
            if size > limit_bytes and taken:
                return taken, count
            taken.append(frame)
    return taken, len(frames)


def _fitting(frames: list[bytes], limit_bytes: int) -> int:
    size = 0
    for count, frame in enumerate(frames):
        size += len(frame)
        if size > limit_bytes:
            return max(1, count)
    return len(frames)
