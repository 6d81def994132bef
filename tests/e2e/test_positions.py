"""Positions that no server gave, or gave long ago, or to somebody else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from catenary.eventlog.base import EventLog
from catenary.eventlog.memory import MemoryLog
from catenary.eventlog.model import Retention
from catenary.eventlog.redis.log import RedisLog
from catenary.eventlog.sqlite.log import SqliteLog
from catenary.limits import Limits
from tests.e2e.support import Bridge, Reader, bridge, log_url, say, token_of
from tests.redis_server import url_of_its_own

KINDS = ("memory", "sqlite", "redis")
SEED = 20_261_121


async def fill(running: Bridge, user: str, count: int) -> str:
    """Emit numbered events, each with its owner's name in it; return the head's epoch."""
    emitter = running.emitter(user)
    receipts = [emitter.custom("app.note", {"n": n, "of": user}) for n in range(1, count + 1)]
    return [await receipt for receipt in receipts][-1].epoch


def check_own(reader: Reader, user: str) -> None:
    """Every event is the user's own, and is the one that its number says."""
    assert reader.faults == []
    for event in reader.received:
        assert (event["user_id"], event["data"]["of"]) == (user, user)
        assert event["data"]["n"] == event["seq"]


NONSENSE = [
    "x", ":", "a:", ":5", "a:b", "a:-1", "a:+1", "a:1.0", "a:1e3", "a:01", "a:0x1", "a: 1", "a :1",
    "a:1 ", "a:1:2", "a:\u0661", "a:\uff11", "\u00e9:1", "a:1\n", "a:1\x00", "a:" + "9" * 17, "a" * 17 + ":1",
    "a:" + "9" * 5000, "START", "start ", "now,open", "null", "..:1", "a/b:1", "%:1", "a;b:1", "{}", "[]",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
async def test_nonsense_is_refused_everywhere(kind: str, tmp_path: Path) -> None:
    """What is no position is refused with 4500 or 400 and words, over each way in."""
    async with bridge(log_url(kind, tmp_path)) as running, running.http(token_of("user_1")) as http:
        epoch = await fill(running, "user_1", 3)
        for text in NONSENSE:
            reader = await Reader.connect(running, "user_1", after=text)
            await reader.ended()
            assert reader.status == 400, text
            assert b"not a position" in reader.body or b"cannot be read" in reader.body, text
            assert len(reader.body) < 300
            for path in ("/sse", "/api/users/user_1/events"):
                answer = await http.get(path, params={"after": text})
                assert answer.status_code == 400, (path, text)
                assert answer.json()["error"] == "bad_request"
        twice = [("after", f"{epoch}:1"), ("after", f"{epoch}:2")]
        reader = await Reader.connect(running, "user_1", query=twice)
        await reader.ended()
        assert reader.status == 400
        assert b"given 2 times" in reader.body
        both = {"after": [place for _, place in twice]}
        assert (await http.get("/sse", params=both)).status_code == 400
        assert (await http.get("/api/users/user_1/events", params=both)).status_code == 400
        assert running.factory.manager.connection_count == 0
        assert (await running.factory.log.head("user_1")).epoch == epoch, "no term was begun"


@pytest.mark.parametrize("kind", KINDS)
async def test_nonsense_in_a_message_is_answered(kind: str, tmp_path: Path) -> None:
    """A ``position`` message that cannot be true changes nothing that the backend is told."""
    limits = Limits(bad_messages=1000, messages_burst=1000)
    async with bridge(log_url(kind, tmp_path), limits=limits) as running:
        epoch = await fill(running, "user_1", 3)
        await fill(running, "user_2", 5)
        head = await running.factory.log.head("user_1")
        emitter = running.emitter("user_1")
        reader = await Reader.open(running, "user_1")
        await reader.until(lambda: reader.reached == 3)
        other = await Reader.open(running, "user_2")
        await other.until(lambda: other.reached == 5)
        for text in [*NONSENSE, f"{epoch}:4", f"{epoch}:9999999999999999"]:
            answer = await reader.answer_to({"type": "position", "position": text})
            assert answer["type"] == "error", text
            assert answer["code"] == "bad_message", text
        await reader.answer_to({"type": "position", "position": "elsewhere:999"})
        known = other.head["position"]
        answer = await other.answer_to({"type": "position", "position": known})
        assert answer == {"type": "position_ok", "position": known}
        assert not await emitter.seen(head, timeout=0.05), "nobody of this user has seen it"
        await reader.answer_to({"type": "position", "position": str(head)})
        assert await emitter.seen(head, timeout=5)
        assert not reader.is_over


@pytest.mark.parametrize("kind", KINDS)
async def test_positions_of_other_terms_and_users(kind: str, tmp_path: Path) -> None:
    """A gap with its reason and bounds, then one's own events; never another's."""
    async with bridge(log_url(kind, tmp_path)) as running:
        epoch = await fill(running, "user_1", 10)
        foreign = await fill(running, "user_2", 50)
        cases = [
            ("elsewhere:3", 1, "epoch"),
            ("elsewhere:0", 1, "epoch"),
            ("elsewhere:9999999999999999", 1, "epoch"),
        ]
        if kind == "sqlite":
            assert foreign != epoch, "each user's term is named by itself"
            cases.append((f"{foreign}:40", 1, "epoch"))
        for after, resumes_at, reason in cases:
            reader = await Reader.open(running, "user_1", after=after)
            await reader.until(lambda reader=reader: reader.reached == 10)  # type: ignore[misc]
            check_own(reader, "user_1")
            (gap,) = reader.gaps
            expected = {"after": after, "resumes_at": f"{epoch}:{resumes_at}", "reason": reason}
            assert gap == {"type": "gap", **expected}
            assert reader.head["after"] == after
            assert reader.live == f"{epoch}:10"
        assert (await running.factory.log.head("user_2")).seq == 50


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beyond", [11, 40, 9_999_999_999_999_999])
async def test_a_position_of_the_future_begins_a_term(
    kind: str, beyond: int, tmp_path: Path
) -> None:
    """Who has seen more than there is gets a gap, and so do those who were connected."""
    async with bridge(log_url(kind, tmp_path)) as running:
        epoch = await fill(running, "user_1", 10)
        await fill(running, "user_2", 50)
        present = await Reader.open(running, "user_1")
        bystander = await Reader.open(running, "user_2")
        await present.until(lambda: present.reached == 10)
        reader = await Reader.open(running, "user_1", after=f"{epoch}:{beyond}")
        await fill_from(running, "user_1", 11)
        await reader.until(lambda: reader.gaps and reader.reached == 11)
        await present.until(lambda: present.reached == 11)
        check_own(reader, "user_1")
        check_own(present, "user_1")
        assert [gap["reason"] for gap in reader.gaps] == ["future"]
        assert [gap["reason"] for gap in present.gaps] == ["epoch"]
        now = await running.factory.log.head("user_1")
        assert now.epoch != epoch
        assert reader.gaps[0]["resumes_at"] == f"{now.epoch}:11"
        await bystander.until(lambda: bystander.reached == 50)
        assert bystander.gaps == []


async def fill_from(running: Bridge, user: str, first: int, count: int = 1) -> None:
    emitter = running.emitter(user)
    for n in range(first, first + count):
        await emitter.custom("app.note", {"n": n, "of": user})


@pytest.mark.parametrize("kind", KINDS)
async def test_positions_of_former_terms(kind: str, tmp_path: Path) -> None:
    """One of a former term resumes exactly, with a gap of reason ``epoch`` where the next began."""
    async with bridge(log_url(kind, tmp_path)) as running:
        epochs = []
        for term in range(12):
            await fill_from(running, "user_1", term * 5 + 1, 5)
            epochs.append((await running.factory.log.head("user_1")).epoch)
            await running.factory.log.new_term("user_1")
        await fill_from(running, "user_1", 61)
        known = epochs[-8:]
        for number, epoch in enumerate(epochs):
            last = number * 5 + 5
            for seq in (last - 3, last, last + 1):
                reader = await Reader.open(running, "user_1", after=f"{epoch}:{seq}")
                await reader.until(lambda reader=reader: bool(reader.live) and reader.reached == 61)  # type: ignore[misc]
                check_own(reader, "user_1")
                first = reader.received[0]["seq"]
                reasons = {gap["reason"] for gap in reader.gaps}
                if epoch not in known:
                    assert first == 1
                elif seq <= last:
                    assert first == seq + 1, "nothing again and nothing left out"
                    assert reasons == {"epoch"}
                else:
                    assert reader.gaps[0]["reason"] == "future"
                    assert first == last + 1


def trimmed_log(kind: str, directory: Path) -> EventLog:
    retention = Retention(events=200)
    if kind == "memory":
        return MemoryLog(retention=retention)
    if kind == "redis":
        return RedisLog(url_of_its_own(), retention=retention)
    return SqliteLog(directory / "events.db", retention=retention)


@pytest.mark.parametrize("kind", KINDS)
async def test_positions_while_the_log_is_trimmed(kind: str, tmp_path: Path) -> None:
    """Whatever is dropped while readers come, each gets what follows its place, or the gap."""
    rng = random.Random(SEED)
    say(f"seed {SEED}")
    limits = Limits(connections_per_user=1000)
    async with bridge(trimmed_log(kind, tmp_path), limits=limits) as running:
        epoch = await fill(running, "user_1", 1000)
        last = 4000
        filling = asyncio.create_task(_fill_slowly(running, 1001, last))
        readers: list[Reader] = []
        while not filling.done():
            head = (await running.factory.log.head("user_1")).seq
            after = f"{epoch}:{rng.randint(max(0, head - 400), head)}"
            readers.append(await Reader.open(running, "user_1", after=after))
            await asyncio.sleep(0.005)
        await filling
        await _all_reached(readers, last)
        reasons = {gap["reason"] for reader in readers for gap in reader.gaps}
        whole = sum(not reader.gaps for reader in readers)
        say(f"{kind}: {len(readers)} readers, {whole} without a gap")
        assert reasons == {"retention"}
        assert 0 < whole < len(readers)


async def _fill_slowly(running: Bridge, first: int, last: int) -> None:
    emitter = running.emitter("user_1")
    for n in range(first, last + 1):
        emitter.custom("app.note", {"n": n, "of": "user_1"})
        if n % 10 == 0:
            await asyncio.sleep(0.002)
        if n % 500 == 0:
            await running.factory.log.sweep()
    await emitter.flush()


async def _all_reached(readers: Sequence[Reader], last: int) -> None:
    for reader in readers:
        await reader.until(lambda reader=reader: reader.reached == last)  # type: ignore[misc]
        check_own(reader, "user_1")
        given = int(reader.head["after"].partition(":")[2])
        lost = {
            n for gap in reader.gaps for n in range(_seq(gap["after"]) + 1, _seq(gap["resumes_at"]))
        }
        got = {event["seq"] for event in reader.received}
        assert not got & lost
        assert got | lost == set(range(given + 1, reader.reached + 1))


def _seq(position: str) -> int:
    return int(position.partition(":")[2])
