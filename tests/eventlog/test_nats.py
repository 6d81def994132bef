"""What is particular to the log in NATS JetStream: what a server may lose, and what is refused."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
from pathlib import Path

import pytest

from catenary.errors import ConfigError, LogUnavailable, RunClosed
from catenary.eventlog.model import Durability, Retention
from catenary.eventlog.nats import asking, rewriting
from catenary.eventlog.nats.link import Request
from catenary.eventlog.nats.log import NatsLog
from catenary.eventlog.nats.posts import Post
from catenary.eventlog.nats.reading import read_last, records_between
from catenary.eventlog.nats.store import Servers, Store
from catenary.eventlog.nats.stream import NatsStream
from catenary.eventlog.terms import Gap
from catenary.position import Position
from catenary.record import merge_adjacent
from catenary.validate.chaos import CALM, ChaosProxy, Faults, Incident
from tests.docs.pages import ROOT, blocks
from tests.e2e.slow_proxy import SlowProxy
from tests.eventlog.exercising import exercise
from tests.eventlog.following import Follower, until
from tests.eventlog.support import (
    USER,
    all_records,
    append,
    completed,
    delta,
    event,
    numbers,
    said,
    started,
)
from tests.nats_server import NatsServer, nats_url_of_its_own


@pytest.fixture
def own(tmp_path: Path) -> NatsServer:
    """A server that the test may stop; not started."""
    return NatsServer(tmp_path / "nats")


def store_of(log: NatsLog) -> Store:
    """Return a connection of the test's own, to be closed."""
    return Store(log.address, log.names, Servers(log.address))


# What a server may lose


async def _restarted(own: NatsServer, query: str) -> tuple[list[Position], Position, Gap | None]:
    log = NatsLog(own.url + query)
    follower = await Follower.of(log)
    before = await append(log, *(event(n) for n in range(10)))
    await follower.reach(10)
    own.kill()
    waiting = log.append(log.stream(USER), event("after"))
    await until(lambda: log.problem() is not None)
    own.start()
    after = await waiting
    await follower.reach_place(after)
    assert numbers(await all_records(log)) == [*range(10), "after"]
    assert log.problem() is None
    await log.stop()
    return before, after, follower.gaps[0] if follower.gaps else None


async def test_a_restart_is_a_new_term(own: NatsServer) -> None:
    """A server that was killed may lack what its disk had not: nothing is lost, and readers are told."""
    with own:
        before, after, gap = await _restarted(own, "")
    assert after.seq == 11
    assert after.epoch != before[0].epoch
    assert gap is not None
    assert (gap.reason, gap.after, gap.resumes_at) == ("epoch", before[-1], after)


async def test_a_restart_may_be_trusted(own: NatsServer) -> None:
    """``trust_restart=1``: the term goes on over a restart."""
    with own:
        before, after, gap = await _restarted(own, "?trust_restart=1")
    assert after == Position(before[0].epoch, 11)
    assert gap is None


async def test_a_server_that_comes_back_empty_is_told(own: NatsServer) -> None:
    """Events go on, in another term, and readers get a gap."""
    with own:
        log = NatsLog(own.url)
        follower = await Follower.of(log)
        before = await append(log, *(event(n) for n in range(10)))
        await follower.reach(10)
        own.kill()
        own.lose_data()
        waiting = [log.append(log.stream(USER), event(n)) for n in range(10, 20)]
        own.start()
        after = [await receipt for receipt in waiting]
        assert [place.seq for place in after] == list(range(1, 11))
        assert {place.epoch for place in after}.isdisjoint({before[0].epoch})
        await follower.reach_place(after[-1])
        assert [gap.reason for gap in follower.gaps] == ["epoch"]
        await log.stop()


async def test_a_loss_is_told_without_another_event(tmp_path: Path) -> None:
    """Who was shown more than the store has is told once heads are compared, though it is trusted."""
    own = NatsServer(tmp_path / "nats")
    store, copy = tmp_path / "nats" / "store", tmp_path / "copy"
    with own:
        log = NatsLog(own.url + "?trust_restart=1")
        follower = await Follower.of(log)
        await append(log, *(event(n) for n in range(5)))
        own.stop()
        shutil.copytree(store, copy)
        own.start()
        (*_, last) = await append(log, *(event(n) for n in range(5, 10)))
        await follower.reach(10)
        own.stop()
        shutil.rmtree(store)
        shutil.copytree(copy, store)
        own.start()
        async with asyncio.timeout(15):
            while not follower.gaps:
                await follower.catch_up_or_wait()
        (gap,) = follower.gaps
        assert (gap.reason, gap.after, gap.resumes_at.seq) == ("future", last, 6)
        assert gap.resumes_at.epoch != last.epoch
        assert (await append(log, event("after")))[0] == gap.resumes_at
        await log.stop()


async def test_messages_that_are_gone_are_a_gap() -> None:
    """Where an operator took messages out of the stream a reader is told, and numbers go on."""
    log = NatsLog(nats_url_of_its_own())
    places = [(await append(log, event(n)))[0] for n in range(10)]
    store = store_of(log)
    subject = log.stream(USER).names.events
    found = list(store.every(store.names.events_stream, subject))
    store.remove(store.names.events_stream, [one.seq for one in found[3:7]])
    page = await log.read(USER, places[1])
    assert (numbers(page.records), page.gap, page.is_at_head) == ([2], None, False)
    page = await log.read(USER, page.place)
    assert page.gap is not None
    assert (page.gap.reason, page.gap.after, page.gap.resumes_at) == (
        "retention",
        places[2],
        places[7],
    )
    assert numbers(page.records) == [7, 8, 9]
    assert (await append(log, event("after")))[0] == Position(places[0].epoch, 11)
    store.close()
    await log.stop()


async def test_a_server_that_stands_still_loses_nothing(own: NatsServer) -> None:
    """Frozen for five seconds, longer than the timeout: all is committed once, in order."""
    with own:
        log = NatsLog(own.url)
        follower = await Follower.of(log)
        await append(log, event(0))
        own.freeze()
        given = []
        for n in range(1, 51):
            given.append(log.append(log.stream(USER), event(n)))
            await asyncio.sleep(0.1)
        own.thaw()
        assert [(await receipt).seq for receipt in given] == list(range(2, 52))
        await follower.reach(51)
        assert numbers(await all_records(log)) == list(range(51))
        assert follower.gaps == []
        await log.stop()


async def test_a_lost_answer_does_not_double(own: NatsServer) -> None:
    """Connections that are cut at random bytes both ways: each event is there once, in order."""
    seed = "20261125"
    print(f"seed {seed}")
    with own:
        faults = Faults(cut=1.0, cut_within_bytes=150_000)
        async with ChaosProxy(own.port, faults=faults, seed=seed) as network:
            log = NatsLog(f"nats://127.0.0.1:{network.port}")
            stream = log.stream(USER)
            given = []
            for n in range(2000):
                given.append(log.append(stream, event(n, size=200)))
                if n % 50 == 49:
                    # What waits must fit through before the next cut.
                    await given[-25]
            for receipt in given:
                await receipt
            assert network.journal.count(Incident.CUT, Incident.RESET) > 5
            network.apply(CALM)
            assert numbers(await all_records(log)) == list(range(2000))
            assert [(await receipt).seq for receipt in given] == list(range(1, 2001))
            await log.stop()


async def test_what_was_stored_without_an_answer_is_not_stored_again(own: NatsServer) -> None:
    """A batch is recognised by the number that its process gave it."""
    with own:
        async with SlowProxy("127.0.0.1", own.port) as network:
            log = NatsLog(f"nats://127.0.0.1:{network.port}")
            beside = NatsLog(own.url)
            await append(log, event(0))
            network.is_down = False
            given = log.append(log.stream(USER), event(1))
            while (await beside.head(USER)).seq < 2:
                await asyncio.sleep(0.02)
            await until(lambda: log.problem() is not None)
            network.is_down = True
            assert (await given).seq == 2
            assert numbers(await all_records(beside)) == [0, 1]
            await log.stop()
            await beside.stop()


async def test_an_end_that_was_reported_since_the_notes_were_read_is_not_taken() -> None:
    """A node that is slow between reading and taking leaves what another has told meanwhile."""
    log = NatsLog(nats_url_of_its_own())
    await append(log, started(), completed())
    stream, store = log.stream(USER), store_of(log)

    def reported_meanwhile(_: str) -> NatsStream:
        taken = asking.take_ended(store, lambda _: stream, "other", 10, log._now_ms())
        assert taken == [(USER, "r1")]
        asking.mark_ended(store, stream, "r1")
        return stream

    assert asking.take_ended(store, reported_meanwhile, "slow", 10, log._now_ms()) == []
    store.close()
    await log.stop()


async def test_a_slow_store_is_slow_and_nothing_else(own: NatsServer) -> None:
    """Answers that take long change neither order nor number, and no reader is told anything."""
    with own:
        async with ChaosProxy(own.port, faults=Faults(delay=0.05), seed="20261125") as network:
            log = NatsLog(f"nats://127.0.0.1:{network.port}")
            follower = await Follower.of(log)
            given = [log.append(log.stream(USER), event(n)) for n in range(200)]
            assert [(await receipt).seq for receipt in given] == list(range(1, 201))
            await follower.reach(200)
            assert follower.gaps == []
            assert len(follower.bodies) == 200
            await log.stop()


# Many threads of one process


async def test_who_reads_and_changes_a_log_while_it_is_written_takes_nothing_for_lost() -> None:
    """An answer that is older than what was stored meanwhile is no loss: the term goes on."""
    log = NatsLog(nats_url_of_its_own())
    other = NatsLog(log.url)
    follower = await Follower.of(log)
    places = await append(log, started(lease=60.0))
    stop = threading.Event()

    async def contend(node: NatsLog) -> None:
        while not stop.is_set():
            await node.adopt_runs(USER, ["r1"], [])

    contending = [asyncio.create_task(contend(node)) for node in (log, other, log)]
    for n in range(150):
        places += await append(log, event(n))
    stop.set()
    await asyncio.gather(*contending)
    assert {place.epoch for place in places} == {places[0].epoch}
    await follower.reach(151)
    assert follower.gaps == []
    await log.stop()
    await other.stop()


async def test_compaction_and_erasing_race_with_appends() -> None:
    """While events come, what was compacted and erased in the middle reads as it should."""
    log = NatsLog(nats_url_of_its_own(), retention=Retention(events=5000))
    stream = log.stream(USER)
    words = [f"w{n} " for n in range(200)]
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
    store = store_of(log)
    every = log.names.every("*", ">")
    before = b"".join(found.payload for found in store.every(store.names.events_stream, every))
    assert b"w199" in before
    assert await log.erase(USER, "t1") > 0
    stop.set()
    count = await emitting
    records = await all_records(log)
    assert said(records) == ""
    notes = [record for record in records if record.type == "app.note"]
    assert numbers(notes) == list(range(count))
    after = b"".join(found.payload for found in store.every(store.names.events_stream, every))
    assert b"w199" not in after
    with pytest.raises(RunClosed):
        await append(log, delta("late"))
    store.close()
    await log.stop()


@pytest.mark.parametrize("overtaker", ["an erasure", "a collection"])
async def test_a_compaction_that_was_overtaken_is_in_vain(overtaker: str) -> None:
    """Who wrote a rewriting and was slow to tell of it brings back nothing, and leaves nothing."""
    log = NatsLog(nats_url_of_its_own())
    words = "".join([f"w{n} " for n in range(50)])
    await append(log, started(), *(delta(f"w{n} ") for n in range(50)), completed())
    await append(log, event("kept", thread="t2"))
    store, stream, now = store_of(log), log.stream(USER), log._now_ms()
    last = read_last(store, stream, now)
    slow = rewriting._Rewritten(store, stream, "slow", 0)
    slow.write(merge_adjacent(records_between(store, stream, last, 0, last.state.head)))
    if overtaker == "an erasure":
        assert await log.erase(USER, "t1") > 0
    else:
        rewriting.collect(store, stream, now)
    assert not rewriting._switch(store, stream, last.state, slow, "slow", now)
    records = await all_records(log)
    assert said(records) == ("" if overtaker == "an erasure" else words)
    assert "kept" in numbers(records)
    found = store.every(store.names.events_stream, stream.names.rewritten + "slow")
    assert list(found) == []
    store.close()
    await log.stop()


async def test_readers_need_no_consumer(own: NatsServer) -> None:
    """However many read, JetStream has no consumer of theirs."""
    with own:
        log = NatsLog(own.url)
        followers = [await Follower.of(log, f"user_{n}") for n in range(20)]
        for n, follower in enumerate(followers):
            await append(log, event(n), log_id=f"user_{n}")
            await follower.reach(1)
        about = own.ask("/jsz?streams=1&consumers=1")
        assert (about["streams"], about["consumers"]) == (3, 0)
        await log.stop()


async def test_prefixes_keep_logs_apart() -> None:
    """Two logs on one server share nothing but the server."""
    logs = [NatsLog(nats_url_of_its_own()) for _ in range(2)]
    for n, log in enumerate(logs):
        await append(log, event(n))
        assert numbers(await all_records(log)) == [n]
        await log.stop()


# What an acknowledged event survives


@pytest.mark.parametrize(
    ("jetstream", "query", "durability", "says"),
    [
        ("", "", Durability.PROCESS, "unknown without monitor="),
        ("", "?storage=memory", Durability.MEMORY, "keeps it in memory"),
        ("sync_interval: 10s", "?monitor=", Durability.PROCESS, "up to the last 10 s"),
        ("sync_interval: always", "?monitor=", Durability.POWER, "sync_interval: always"),
    ],
)
async def test_the_durability_in_force_is_the_server_s(
    tmp_path: Path, jetstream: str, query: str, durability: Durability, says: str
) -> None:
    """It is read from the server; less than was asked for is refused."""
    with NatsServer(tmp_path / "nats", jetstream=jetstream) as own:
        url = own.url + (query + own.monitor if query.endswith("=") else query)
        log = NatsLog(url)
        await log.start()
        assert log.durability is durability
        assert says in log.survives
        await log.stop()
        for asked in (Durability.PROCESS, Durability.POWER):
            log = NatsLog(f"{url}{'&' if '?' in url else '?'}durability={asked}")
            if durability.is_below(asked):
                with pytest.raises(ConfigError, match=f"asked for durability {asked}"):
                    await log.start()
            else:
                await log.start()
                await log.stop()


async def test_a_monitoring_address_that_does_not_answer_is_said(own: NatsServer) -> None:
    """A setting that was to be read and cannot be is an error, not a guess."""
    with own, pytest.raises(ConfigError, match="settings of JetStream cannot be read"):
        await NatsLog(own.url + "?monitor=http://127.0.0.1:1").start()


async def test_fewer_replicas_than_asked_for_are_refused(own: NatsServer) -> None:
    """A stream is not kept less often than the URL says."""
    with own:
        log = NatsLog(own.url)
        await append(log, event(1))
        await log.stop()
        with pytest.raises(ConfigError, match="has 1 replicas"):
            await NatsLog(own.url + "?replicas=3").start()


# What it refuses


async def test_a_stream_that_may_drop_events_is_refused(own: NatsServer) -> None:
    """A stream that somebody made or changed so that it is no log is named, with what to change."""
    with own:
        log = NatsLog(own.url)
        await append(log, event(1))
        store = store_of(log)
        await log.stop()
        _edit(store, max_age=3_600_000_000_000)
        with pytest.raises(ConfigError, match="may drop events on its own account"):
            await NatsLog(own.url).start()
        _edit(store, max_age=0, republish=None)
        with pytest.raises(ConfigError, match="republish"):
            await NatsLog(own.url).start()
        store.close()


def _edit(store: Store, **changed: object) -> None:
    name = store.names.events_stream
    ((answer,),) = store.ask([Request(f"$JS.API.STREAM.INFO.{name}".encode())])
    config = json.loads(answer.payload)["config"] | changed
    ((answer,),) = store.ask(
        [Request(f"$JS.API.STREAM.UPDATE.{name}".encode(), json.dumps(config).encode())]
    )
    assert "error" not in json.loads(answer.payload), answer.payload


async def test_a_wrong_password_is_said_at_once(tmp_path: Path) -> None:
    """What waiting cannot mend is an error of the configuration, without the password in it."""
    users = "authorization { users: [{user: catenary, password: secret}] }"
    with NatsServer(tmp_path / "nats", settings=users) as own:
        for login in ("", "catenary:wrongword@"):
            with pytest.raises(ConfigError, match="password") as refused:
                await NatsLog(own.url.replace("//", f"//{login}")).start()
            assert "wrongword" not in str(refused.value)
        log = NatsLog(own.url.replace("//", "//catenary:secret@"))
        assert (await append(log, event(1)))[0].seq == 1
        await log.stop()


async def test_the_documented_permissions_are_enough(tmp_path: Path) -> None:
    """A user with exactly what the how-to lists can do everything; without it the how-to is named."""
    (rules,) = blocks(ROOT / "docs" / "how-to" / "nats.md", "text")
    user = "{{user: bridge, password: secret, {}}}"
    for number, allowed in enumerate((rules, rules.replace('"catenary.>", ', ""))):
        users = f"authorization {{ users: [{user.format(allowed)}] }}"
        with NatsServer(tmp_path / str(number), settings=users) as own:
            log = NatsLog(own.url.replace("//", "//bridge:secret@"))
            if allowed is rules:
                await exercise(log)
                await log.stop()
                assert "Violation" not in own.said()
            else:
                with pytest.raises(ConfigError, match=r"how-to/nats\.md"):
                    await log.start()


async def test_a_server_without_jetstream_is_refused(tmp_path: Path) -> None:
    """With how to start one that has it."""
    own = NatsServer(tmp_path / "nats", jetstream="enabled: false")
    with own, pytest.raises(ConfigError, match="-js"):
        await NatsLog(own.url).start()


async def test_an_old_server_is_refused() -> None:
    """One that cannot store several messages as one is named with its version."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b'INFO {"version":"2.9.10","jetstream":true,"client_id":1}\r\n')
                connection.recv(1)

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(ConfigError, match=r"2\.9\.10; 2\.12 or later"):
            await NatsLog(f"nats://127.0.0.1:{port}").start()
        thread.join(5)


async def test_a_server_that_is_away_is_said() -> None:
    """It may come: trying again later may help."""
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1"):
        await NatsLog("nats://127.0.0.1:1").start()


def test_a_message_is_stored_only_after_the_one_that_was_known() -> None:
    """Several are stored all or none: the rule on which the order of a log rests."""
    log = NatsLog(nats_url_of_its_own())
    store = store_of(log)
    subject = log.stream(USER).names.events
    first = store.publish(Post(subject, b"1", expected=0))
    (conflict,) = store.publish_all(
        [[Post(log.names.of_log("x").events, b"x"), Post(subject, b"2", expected=first - 1)]]
    )
    assert not isinstance(conflict, int)
    assert store.last(store.names.events_stream, log.names.of_log("x").events) is None
    assert store.publish(Post(subject, b"2", expected=first)) > first
    store.close()


def test_sets_of_many_logs_are_stored_at_once() -> None:
    """Each has its own number; where one is refused the others are stored all the same."""
    log = NatsLog(nats_url_of_its_own())
    store = store_of(log)
    events = store.names.events_stream

    def group(name: str, expected: int, size: int = 1) -> list[Post]:
        names = log.names.of_log(name)
        keys = [Post(f"{names.known}{n}", b"k", expected=0) for n in range(size)]
        return [*keys, Post(names.events, name.encode(), expected=expected)]

    groups = [
        group("a", 0),
        [Post(log.names.of_log("b").events, b"b", expected=0)],
        group("c", 0, 5),
    ]
    for name, seq in zip("abc", store.publish_all(groups), strict=True):
        found = store.last(events, log.names.of_log(name).events)
        assert found is not None
        assert (found.seq, found.payload) == (seq, name.encode())
    known, refused, stored = store.publish_all([group("d", 0), group("a", 0), group("e", 0, 400)])
    assert not isinstance(refused, int)
    for name, seq in (("d", known), ("e", stored)):
        found = store.last(events, log.names.of_log(name).events)
        assert found is not None
        assert found.seq == seq
    many = [group(f"u{n}", 0, 300) for n in range(7)]
    assert all(isinstance(seq, int) for seq in store.publish_all(many))
    several = [group(f"v{n}", 0, 3) for n in range(200)]
    answers = store.publish_all([*several, group("a", 0)])
    assert [isinstance(seq, int) for seq in answers] == [*[True] * 200, False]
    store.close()
