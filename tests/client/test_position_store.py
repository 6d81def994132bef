"""Positions that outlive the program, and the file that keeps them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from catenary.client import Limits, PositionFile
from catenary.errors import ConfigError
from catenary.position import Position

from .scripted import SEED, Visit, quick, scripted


async def stream(visit: Visit) -> None:
    await visit.greet(visit.after or "k3:0")
    first = int((visit.after or "k3:0").split(":")[1]) + 1
    await visit.events(first, first + 9)
    await visit.stay()


async def test_another_run_continues(tmp_path: Path) -> None:
    """A client with the same file continues after what was handled, whatever after says."""
    path = tmp_path / "positions.json"
    async with scripted(stream) as server:
        async with quick(server.url, position_store=PositionFile(path)) as client:
            assert [(await anext(client)).seq for _ in range(3)] == [1, 2, 3]
        store = PositionFile(path)
        async with quick(server.url, position_store=store, after="start") as client:
            assert (await anext(client)).seq == 4
        assert [visit.after for visit in server.visits] == [None, "k3:3"]


async def test_without_a_kept_position_after_counts(tmp_path: Path) -> None:
    """A file without the key leaves the beginning to after; filters have keys of their own."""
    store = PositionFile(tmp_path / "positions.json")
    async with scripted(stream) as server:
        url = server.url.replace("ws://", "ws://name:secret@") + "?ticket=secret"
        for options in ({}, {"thread_ids": ["t1"]}, {"log": "conversation:42"}):
            async with quick(url, position_store=store, after="k3:5", **options) as client:
                assert (await anext(client)).seq == 6
    text = (tmp_path / "positions.json").read_text()
    assert len(json.loads(text)["positions"]) == 3
    assert "secret" not in text


async def test_the_position_is_kept_while_it_moves(tmp_path: Path) -> None:
    """The file follows during the iteration, not only at its end."""
    path = tmp_path / "positions.json"

    class Told(PositionFile):
        async def save(self, key: str, position: Position) -> None:
            await super().save(key, position)
            if position == Position("k3", 9):
                kept.set()

    kept = asyncio.Event()
    options = {"position_store": Told(path), "limits": Limits(report_interval=0.05)}
    async with scripted(stream) as server, quick(server.url, **options) as client:
        for _ in range(10):
            await anext(client)
        await asyncio.wait_for(kept.wait(), 5)
        assert "k3:9" in path.read_text()


async def test_a_hook_that_fails_is_tried_again() -> None:
    """A store that cannot be written for a while does not end the client."""

    class Flaky:
        def __init__(self) -> None:
            self.saves = 0
            self.kept: Position | None = None

        async def load(self, key: str) -> Position | None:
            return Position("k3", 4)

        async def save(self, key: str, position: Position) -> None:
            self.saves += 1
            if self.saves < 3:
                raise OSError("the disk is full")
            self.kept = position

    store = Flaky()
    options = {"position_store": store, "limits": Limits(report_interval=0.01)}
    async with scripted(stream) as server:
        async with quick(server.url, **options) as client:
            for _ in range(5):
                await anext(client)
                await asyncio.sleep(0.03)
        assert server.visits[0].after == "k3:4"
    assert store.kept == Position("k3", 9)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"positions": 1}', b'{"positions": {"a": "k3"}}', b"\xff\xfe",
     b'{"positions": {"a": 3}}'],
)  # fmt: skip
async def test_a_corrupt_file_is_told(tmp_path: Path, content: bytes) -> None:
    """A file that is not one of positions is named, with what to do, and left as it is."""
    path = tmp_path / "positions.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"positions\.json is not a file of positions.*Delete it"):
        async with quick("ws://127.0.0.1:1/ws", position_store=PositionFile(path)):
            pass
    with pytest.raises(ConfigError):
        PositionFile(path).write("a", Position("k3", 1))
    assert path.read_bytes() == content


def test_several_keys_share_a_file(tmp_path: Path) -> None:
    """Writing one key keeps the others."""
    store = PositionFile(tmp_path / "positions.json")
    store.write("a", Position("k3", 1))
    store.write("b", Position("k9", 2))
    store.write("a", Position("k3", 7))
    again = PositionFile(tmp_path / "positions.json")
    assert again.read("a") == Position("k3", 7)
    assert again.read("b") == Position("k9", 2)
    assert again.read("c") is None
    assert [path.name for path in tmp_path.iterdir()] == ["positions.json"]


def test_a_failed_write_leaves_the_former_file(tmp_path: Path) -> None:
    """If the new file cannot be made, the old one stays."""
    store = PositionFile(tmp_path / "positions.json")
    store.write("a", Position("k3", 1))
    (tmp_path / f"positions.json.{os.getpid()}.new").mkdir()
    with pytest.raises(OSError, match=r"\.new"):
        store.write("a", Position("k3", 2))
    assert store.read("a") == Position("k3", 1)


WRITER = """
import sys
from catenary.client import PositionFile
from catenary.position import Position
store = PositionFile(sys.argv[1])
place = store.read("a")
seq = place.seq if place else 0
while True:
    seq += 1
    store.write("a", Position("k3", seq))
    print(seq, flush=True)
"""


def test_killed_while_writing(tmp_path: Path) -> None:
    """Killed at any moment, the file holds what was acknowledged last, or the one after."""
    path = tmp_path / "positions.json"
    random = Random(SEED)
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        last = [writer.stdout.readline() for _ in range(random.randrange(1, 60))][-1]
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split("\n")
        writer.stdout.close()
        writer.wait()
        acknowledged = int(([last, *rest[:-1]])[-1])
        place = PositionFile(path).read("a")
        assert place is not None
        assert acknowledged <= place.seq <= acknowledged + 1
