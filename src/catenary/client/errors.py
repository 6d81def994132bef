"""
What the client raises beside the package's own errors.

A :class:`Gap` is news, not a failure: iteration goes on after it.
"""

from __future__ import annotations

from catenary.errors import CatenaryError
from catenary.position import Position


class Gap(CatenaryError):
    """
    Events between two positions are lost to this reader.

    It is raised out of the iteration, in its place among the events. Reload
    the state that the events built, then iterate again: the next event is the
    one at ``resumes_at``.

    Attributes:
        after: The last position before the loss.
        resumes_at: The position of the next event; it may belong to another
            epoch, and then its number says nothing about ``after``.
        reason: ``retention``, ``epoch`` or ``future``.
    """

    def __init__(self, after: Position, resumes_at: Position, reason: str) -> None:
        super().__init__(after, resumes_at, reason)
        self.after = after
        self.resumes_at = resumes_at
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"events after {self.after} are lost ({self.reason}); the next is {self.resumes_at}. "
            f"Reload your state, then iterate again."
        )


class CommandFailed(CatenaryError):
    """
    The server answered a command with an error.

    ``code`` is one of the wire's error codes, such as ``handler_failed``. The
    command is settled: it is not sent again.
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code
