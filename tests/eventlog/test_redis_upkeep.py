"""What a Redis log asks of its server, and what it leaves there."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from catenary.errors import ConfigError, RunClosed
from catenary.eventlog.model import Retention
from catenary.eventlog.redis.appending import Appending, append_all
from catenary.eventlog.redis.log import RedisLog
from catenary.events import AgentError
from catenary.record import Record
from catenary.validate.stores import free_port
from tests.docs.pages import ROOT, blocks
from tests.eventlog.exercising import exercise
from tests.eventlog.following import Follower, until
from tests.eventlog.support import (
    USER,
    Clock,
    all_records,
    append,
    completed,
    delta,
    event,
    numbers,
    said,
    started,
    tool_started,
)
from tests.redis_server import RedisServer


async def test_the_documented_acl_is_enough(tmp_path: Path) -> None:
    """A user with exactly the commands of the how-to can do everything, and no more."""
    (rules,) = blocks(ROOT / "docs" / "how-to" / "redis.md", "text")
    with RedisServer(tmp_path / "redis") as own:
        with own.client() as client:
            client.execute_command("ACL", "SETUSER", "bridge", "on", ">secret", *rules.split())
        log = RedisLog(own.url.replace("//", "//bridge:secret@"))
        await log.start()
        await exercise(log)
        await log.stop()
        with own.client() as client:
            denied = client.acl_log()
        # The driver asks for that one on its own account, and goes on without.
        assert {entry["object"] for entry in denied} <= {"client|setinfo"}


_ONLY_LATER = {
    "+config|get", "+ping", "+select", "+wait", "+time", "+scan", "+client|setname", "+cluster|slots",
    "+subscribe", "+unsubscribe", "+ssubscribe", "+sunsubscribe", "+publish", "+smembers",
}  # fmt: skip
"""What opening does not need, or goes on without."""


async def test_a_missing_permission_is_said(tmp_path: Path) -> None:
    """What its user may not do is found out at the opening, and names the how-to."""
    (rules,) = blocks(ROOT / "docs" / "how-to" / "redis.md", "text")
    words = [word for word in rules.split() if word.startswith("+")]
    needed = [word for word in words if word not in _ONLY_LATER]
    with RedisServer(tmp_path / "redis") as own:
        url = own.url.replace("//", "//bridge:secret@")
        for missing in ("&catenary:*", "~catenary:*", *needed):
            rest = [word for word in rules.split() if word != missing]
            with own.client() as client:
                client.execute_command("ACL", "SETUSER", "bridge", "reset", "on", ">secret", *rest)
            with pytest.raises(ConfigError, match=r"how-to/redis\.md"):
                await RedisLog(url).start()


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    files = directory / "cert.pem", directory / "key.pem"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files


async def test_over_tls(tmp_path: Path) -> None:
    """``rediss://`` works live and otherwise, and does not trust whoever answers."""
    cert, key = _certificate(tmp_path)
    port = free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", str(cert), "--tls-key-file", str(key))
    with RedisServer(
        tmp_path / "redis", *options, "--tls-ca-cert-file", str(cert), "--tls-auth-clients", "no"
    ):
        url = f"rediss://127.0.0.1:{port}/0"
        log = RedisLog(f"{url}?ssl_ca_certs={cert}")
        await log.start()
        await exercise(log)
        log.nodes.refresh()
        follower = await Follower.of(log)
        before = follower.place.seq
        places = await append(log, *(event(n, size=5000) for n in range(100)))
        await follower.reach(places[-1].seq)
        assert before < places[-1].seq
        await log.stop()
        with pytest.raises(Exception, match="certificate verify failed"):
            await RedisLog(url).start()


async def test_a_full_redis_stops_nobody_who_reads(tmp_path: Path) -> None:
    """Out of memory: events wait, the problem is said, reading goes on; with room all is committed."""
    with RedisServer(tmp_path / "redis") as own, own.client() as client:
        log = RedisLog(own.url)
        await append(log, *(event(n, size=1000) for n in range(100)))
        client.config_set("maxmemory", 1_000_000)
        waiting = [log.append(log.stream(USER), event(n)) for n in range(100, 110)]
        await until(lambda: log.problem() is not None)
        assert "maxmemory" in (log.problem() or "")
        page = await log.read(USER, await log.locate(USER, "start"))
        assert numbers(page.records)[0] == 0
        client.config_set("maxmemory", 0)
        assert [(await receipt).seq for receipt in waiting] == list(range(101, 111))
        assert log.problem() is None
        await log.stop()


async def test_every_key_expires_once_no_run_is_open(redis: RedisServer, clock: Clock) -> None:
    """While a run is open its user's keys stay; afterwards each has an end."""
    log = RedisLog(redis.url, clock=clock)
    await append(log, event(0))
    await append(log, started(), tool_started("c1"), event(1, key="k"))
    await log.claim_command(USER, "m1", b"x")
    names = log.stream(USER).names
    with redis.client() as client:
        assert client.pttl(names.meta) == client.pttl(names.stream) == client.pttl(names.runs) == -1
        clock.now += 1
        assert await log.close_run(USER, "r1", AgentError(code="c", message="m"), "closed")
        await log.sweep()
        stay = [
            name
            for name in client.keys("catenary:*")
            if client.pttl(name) == -1 and not name.endswith((b":due", b":open"))
        ]
        assert stay == []
        clock.now += 24 * 3600 + 1
        await log.sweep()
        await log.unreported_runs(10)
        await log.mark_reported(USER, "r1")
        assert [name for name in client.keys("catenary:*") if client.pttl(name) == -1] == []
    await log.stop()


async def test_ended_runs_are_bounded(redis: RedisServer) -> None:
    """Of many ended runs of a user the last 1,000 are known, and open ones."""
    log = RedisLog(redis.url)
    await append(log, started("open"))
    for begin in range(0, 2200, 100):
        entries = [
            entry
            for n in range(begin, begin + 100)
            for entry in (started(f"run-{n}"), completed(f"run-{n}"))
        ]
        await append(log, *entries)
    runs = await log.runs(USER)
    assert 1000 <= len(runs) < 2100
    assert runs[0].run_id == "open"
    assert runs[-1].run_id == "run-2199"
    await log.stop()


async def test_a_batch_that_comes_late_is_not_appended(redis: RedisServer) -> None:
    """A command that lay in a dead connection's buffer arrives after its successor: it is dropped."""
    log = RedisLog(redis.url)
    await append(log, event(0))
    stream = log.stream(USER)

    def send(number: int, n: int) -> Appending:
        appending = Appending(stream, [event(n)], number, log.holder)
        append_all(log._store, log.keys, [appending], producer=log.holder, now="")
        return appending

    await asyncio.to_thread(send, 1000, 1)
    await asyncio.to_thread(send, 1000, 1)
    with pytest.raises(Exception, match="in the log already"):
        await asyncio.to_thread(send, 999, 2)
    assert numbers(await all_records(log)) == [0, 1]
    await log.stop()


async def test_what_was_accepted_is_committed_at_the_process_s_end(redis: RedisServer) -> None:
    """A process that emits without a loop and ends without waiting loses nothing."""
    code = textwrap.dedent(
        f"""
        from catenary.eventlog.redis.log import RedisLog
        from tests.eventlog.support import event
        log = RedisLog({redis.url!r})
        for n in range(2000):
            log.append(log.stream("user_123"), event(n))
        """
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], cwd=ROOT, check=True, timeout=15
    )
    assert done.returncode == 0
    log = RedisLog(redis.url)
    assert numbers(await all_records(log)) == list(range(2000))
    await log.stop()


async def test_prefixes_keep_logs_apart(redis: RedisServer) -> None:
    """Two applications on one Redis share nothing, and no other key is touched."""
    with redis.client() as client:
        client.set("their own", "1")
        logs = [RedisLog(f"{redis.url}?key_prefix={prefix}") for prefix in ("a", "b")]
        followers = [await Follower.of(log) for log in logs]
        for log in logs:
            await append(log, event(log.address.key_prefix))
        for log, follower in zip(logs, followers, strict=True):
            await follower.reach(1)
            assert numbers(await all_records(log)) == [log.address.key_prefix]
            assert await log.nodes.ask(b"?") == []
        await logs[0].erase(USER)
        assert numbers(await all_records(logs[1])) == ["b"]
        assert client.get("their own") == b"1"
        names = client.keys("*")
        assert all(re.match(rb"(a|b):|their own", name) for name in names)
    for log in logs:
        await log.stop()


async def test_compaction_and_erasing_race_with_appends(redis: RedisServer) -> None:
    """While events come, what was compacted and erased in the middle reads as it should."""
    log = RedisLog(redis.url, retention=Retention(events=5000))
    stream = log.stream(USER)
    words = [f"w{n} " for n in range(400)]
    await append(log, started("r1"))
    for word in words:
        await append(log, delta(word))
    await append(log, completed("r1"))
    stop = asyncio.Event()

    async def emit() -> int:
        n = 0
        while not stop.is_set():
            await log.append(stream, event(n, thread="t2"))
            n += 1
        return n

    emitting = asyncio.create_task(emit())
    await log.sweep()
    assert said(await all_records(log)) == "".join(words)
    with redis.client() as client:
        assert client.zcard(stream.names.rewritten) > 0
    assert await log.erase(USER, "t1") > 0
    stop.set()
    count = await emitting
    records = await all_records(log)
    assert said(records) == ""
    assert numbers([record for record in records if record.type == "app.note"]) == list(
        range(count)
    )
    with redis.client() as client:
        everything = client.xrange(stream.names.stream)
        rewritten = client.zrange(stream.names.rewritten, 0, -1)
        assert b"w399" not in repr(everything).encode() + b"".join(rewritten)
        meta = client.hgetall(stream.names.meta)
    assert int(meta[b"n"]) == len(records)
    with pytest.raises(RunClosed):
        await append(log, delta("late"))
    await log.stop()


def _sizes(records: list[Record]) -> int:
    return sum(record.size_bytes for record in records)


async def test_sizes_are_those_of_what_is_retained(redis: RedisServer) -> None:
    """Through trimming, compaction and erasing the log's own count stays right."""
    log = RedisLog(redis.url, retention=Retention(events=300))
    for round_ in range(4):
        run = f"r{round_}"
        await append(log, started(run), *(delta(f"{n} ", run) for n in range(60)), completed(run))
        await append(log, *(event(n, size=n) for n in range(100)))
        await log.sweep()
    await log.erase(USER, "t1")
    records = await all_records(log)
    with redis.client() as client:
        meta = client.hgetall(log.stream(USER).names.meta)
    assert abs(int(meta[b"n"]) - len(records)) <= 2
    assert abs(int(meta[b"b"]) - _sizes(records)) <= 1000
    await log.stop()
