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
    quarter of slack so that trimming is seldom.
    """

    __slots__ = ("bytes_held", "first", "frames", "threads")

    def __init__(self, first: int) -> None:
        self.first = first
        self.frames: list[bytes] = []
        self.threads: list[str | None] = []
        self.bytes_held = 0

    @property
    def end(self) -> int:
        """The ``seq`` after the last frame."""
        return self.first + len(self.frames)

    def append(self, frame: bytes, thread_id: str | None) -> None:
        """Add the frame of the next ``seq``."""
        self.frames.append(frame)
        self.threads.append(thread_id)
        self.bytes_held += len(frame)
        if len(self.frames) > FRAMES_LIMIT * 5 // 4 or self.bytes_held > BYTES_LIMIT * 5 // 4:
            self._trim()

    def _trim(self) -> None:
        drop = max(0, len(self.frames) - FRAMES_LIMIT)
        held = self.bytes_held - sum(map(len, self.frames[:drop]))
        while held > BYTES_LIMIT and drop < len(self.frames):
            held -= len(self.frames[drop])
            drop += 1
        del self.frames[:drop]
        del self.threads[:drop]
        self.first += drop
        self.bytes_held = held

    def clear(self) -> None:
        """Drop every frame; readers behind go to the log."""
        self.first = self.end
        self.frames.clear()
        self.threads.clear()
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
        start = seq + 1 - self.first
        if start < 0:
            return None
        if thread_ids is not None:
            return self._filtered(start, limit_bytes, thread_ids)
        frames = self.frames[start:]
        if sum(map(len, frames)) > limit_bytes:
            frames = frames[: _fitting(frames, limit_bytes)]
        return frames, seq + len(frames)

    def _filtered(
        self,
        start: int,
        limit_bytes: int,
        thread_ids: Collection[str],
    ) -> tuple[list[bytes], int]:
        taken: list[bytes] = []
        size = 0
        index = start
        while index < len(self.frames) and (size < limit_bytes or not taken):
            if self.threads[index] in thread_ids:
                taken.append(self.frames[index])
                size += len(self.frames[index])
            index += 1
        return taken, self.first + index - 1


def _fitting(frames: list[bytes], limit_bytes: int) -> int:
    size = 0
    for count, frame in enumerate(frames):
        size += len(frame)
        if size > limit_bytes:
            return max(1, count)
    return len(frames)
