"""
The sidecar file that says which process holds a SQLite log.

The lock is the operating system's, so it ends with the process whatever
becomes of it; what stands in the file is for people.
"""

from __future__ import annotations

import datetime as dt
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from catenary.errors import ConfigError, LogUnavailable

_POLL = 0.05
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
_SIZE_LIMIT = 4096
# Beyond the text, so that others can read it where a lock forbids reading too.
_LOCKED_BYTE = 1 << 30


class FileHolder:
    """The right of one process to open a file."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".holder")
        self._descriptor: int | None = None

    def acquire(self, patience: float) -> None:
        """
        Take the file, waiting at most ``patience`` seconds for another process.

        Raises:
            ConfigError: Its directory does not exist.
            LogUnavailable: Another process holds it, and the text says which; or
                nothing can be written there now.
        """
        try:
            self._descriptor = os.open(self._path, _OPEN_FLAGS, 0o600)
            self._lock(self._descriptor, time.monotonic() + patience)
        except FileNotFoundError as error:
            raise ConfigError(
                f"{self._path.parent} does not exist: make this directory, or name another"
            ) from error
        except OSError as error:
            self.release()
            advice = "Let this user create and write files in that directory, on a disk with room"
            raise LogUnavailable(f"{self._path}: {error.strerror}. {advice}") from error
        self._sign()

    def _lock(self, descriptor: int, deadline: float) -> None:
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                self.release()
                raise LogUnavailable(self._refusal())
            time.sleep(_POLL)

    def _sign(self) -> None:
        assert self._descriptor is not None
        about = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            # Only the program's name: arguments may hold secrets.
            "command": Path(sys.argv[0]).name if sys.argv else "",
        }
        try:
            os.ftruncate(self._descriptor, 0)
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, msgspec.json.encode(about))
        except OSError:
            # A full disk: the lock holds all the same, only its text is missing.
            return

    def _refusal(self) -> str:
        database = self._path.name.removesuffix(".holder")
        holder = self._read()
        if holder is None:
            who = f"another process (its name is not in {self._path.name})"
        elif holder["pid"] == os.getpid() and holder["host"] == socket.gethostname():
            who = "this process, through another URL,"
        else:
            who = (
                f"process {holder['pid']} ({holder['command']}) on {holder['host']}, "
                f"since {holder['since']},"
            )
        return (
            f"{who} holds the event log {database}. One process at a time opens it: stop that one, "
            "or talk to the running server (--url)"
        )

    def _read(self) -> dict[str, Any] | None:
        try:
            return msgspec.json.decode(
                self._path.read_bytes()[:_SIZE_LIMIT], type=dict[str, str | int]
            )
        except (OSError, msgspec.DecodeError):
            return None

    def release(self) -> None:
        """Let others take the file. Idempotent."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
