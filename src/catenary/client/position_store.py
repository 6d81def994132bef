"""Where a client keeps its position, so that another run of the program continues there."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from pathlib import Path
from typing import Protocol

from catenary.errors import ConfigError, UsageError
from catenary.position import Position

logger = logging.getLogger("catenary.client")


class PositionStore(Protocol):
    """
    Keeps positions by key.

    A position belongs to the state that the events built; keep the two
    together, or events are skipped that were never applied to anything. What
    is saved lags by up to a second, so after a crash the last events may come
    again: either handle an event twice harmlessly, or save the position in the
    same transaction as the state and only ``load`` here.
    """

    async def load(self, key: str) -> Position | None:
        """Bring the position saved last under ``key``, or None."""
        ...

    async def save(self, key: str, position: Position) -> None:
        """Keep ``position`` under ``key``, replacing the former."""
        ...


class PositionFile:
    """
    Keeps positions in a JSON file, replaced as a whole.

    A crash, of the program or of the machine, leaves the former file or the
    new one. One process may use a file at a time, with as many clients as it
    likes if they share this object. Different users need different files.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()

    async def load(self, key: str) -> Position | None:
        """
        Bring the position saved last under ``key``, or None.

        Raises:
            ConfigError: If the file is not one of positions.
            OSError: If it cannot be read.
        """
        return await asyncio.to_thread(self.read, key)

    async def save(self, key: str, position: Position) -> None:
        """
        Keep ``position`` under ``key``; it is on the disk when this returns.

        Raises:
            ConfigError: If the file is not one of positions.
            OSError: If it cannot be written; the former file is then as it was.
        """
        await asyncio.to_thread(self.write, key, position)

    def read(self, key: str) -> Position | None:
        """Do what :meth:`load` does, in this thread."""
        with self._lock:
            return self._positions().get(key)

    def write(self, key: str, position: Position) -> None:
        """Do what :meth:`save` does, in this thread."""
        with self._lock:
            positions = self._positions()
            positions[key] = position
            content = {name: str(place) for name, place in positions.items()}
            self._replace(json.dumps({"positions": content}, indent=1).encode())

    def _positions(self) -> dict[str, Position]:
        try:
            content = json.loads(self._path.read_bytes())["positions"]
            return {key: Position.parse(text) for key, text in content.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            raise ConfigError(
                f"{self._path} is not a file of positions ({error}). Delete it to begin where "
                f"'after' says, or put back a copy that goes with your state."
            ) from error

    def _replace(self, content: bytes) -> None:
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}.new")
        try:
            with new.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        finally:
            new.unlink(missing_ok=True)
        self._sync_directory()

    def _sync_directory(self) -> None:
        # Without this the new name may be lost with the power. Windows cannot
        # open a directory, and keeps names by itself.
        if os.name == "posix":
            directory = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


class Keeper:
    """
    Saves one client's position as it moves, at most once in an interval.

    A save that fails is logged and tried again with the next move; the last
    one, when the client leaves, is not.
    """

    def __init__(self, store: PositionStore, key: str) -> None:
        self._store = store
        self._key = key
        self._saved: Position | None = None
        self._position: Position | None = None
        self._moved = asyncio.Event()

    async def load(self) -> str | None:
        """Bring the position that was kept, as text, or None."""
        self._saved = self._position = await self._store.load(self._key)
        return None if self._saved is None else str(self._saved)

    def move(self, position: Position | None) -> None:
        """Take the client's position of now."""
        self._position = position
        if position != self._saved:
            self._moved.set()

    async def run(self, interval: float) -> None:
        """Save whenever the position has moved, and then rest for ``interval`` seconds."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            try:
                await self.save()
            except OSError:
                logger.warning("the position could not be saved", exc_info=True)
            await asyncio.sleep(interval)

    async def save(self) -> None:
        """Save the position of now, unless that was done. The store's errors go through."""
        position = self._position
        if position is not None and position != self._saved:
            await self._store.save(self._key, position)
            self._saved = position
