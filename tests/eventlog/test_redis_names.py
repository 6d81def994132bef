"""Names and forms of a Redis log: addresses, keys, batches, terms."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catenary.errors import RecordCorrupt
from catenary.eventlog.batch import pack_entries, pack_numbered
from catenary.eventlog.model import Durability
from catenary.eventlog.redis.address import Topology, parse
from catenary.eventlog.redis.keys import BUCKETS, Keys
from catenary.eventlog.redis.store import slot_of
from catenary.eventlog.redis.stored import Header, batch_of, header_of, records_of, terms_of
from catenary.eventlog.terms import Term
from catenary.record import Record, merge_adjacent
from tests.eventlog.support import delta, event

ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(ids, ids)
def test_no_id_reaches_another_s_key(one: str, other: str) -> None:
    """Different ids have different keys, in their bucket's slot, whatever they contain."""
    keys = Keys("catenary")
    names, others = keys.of_log(one), keys.of_log(other)
    assert (one == other) == bool(set(names) & set(others))
    bucket = keys.bucket_of(one)
    shared = {keys.of_bucket(bucket, kind) for kind in ("open", "due", "ended", "claims")}
    assert not set(names) & shared
    for name in (*names, *shared, keys.of_run(bucket, other)):
        assert name.count(b"{") == name.count(b"}") == 1
        assert name.isascii()
        assert name.startswith(b"catenary:{%d}:" % bucket)
    assert 0 <= bucket < BUCKETS


def test_buckets_never_change() -> None:
    """What is stored today must be found tomorrow."""
    keys = Keys("catenary")
    assert [keys.bucket_of(name) for name in ("user_123", "ä", "conversation:42")] == [
        601, 387, 389,
    ]  # fmt: skip
    assert keys.of_log("a:b{c}").meta == b"catenary:{%d}:m:a%%3Ab%%7Bc%%7D" % keys.bucket_of(
        "a:b{c}"
    )
    assert len({slot_of(bucket) for bucket in range(BUCKETS)}) > BUCKETS * 9 // 10


def test_addresses_say_all_and_hide_the_password() -> None:
    """Single, Sentinel, cluster and shards; what is shown has no password."""
    one = parse("rediss://us%40er:p%3Ass@host:7000/3?durability=power&wait=2&trust_restart=1")
    assert (one.hosts, one.db, one.username, one.password) == (
        (("host", 7000),),
        3,
        "us@er",
        "p:ss",
    )
    assert (one.is_tls, one.wait, one.trust_restart) == (True, 2, True)
    assert one.durability is Durability.POWER
    assert "p:ss" not in one.shown
    watched = parse(
        "redis://:pw@s1,[::1]:5000/1?sentinel=mymaster&sentinel_password=x&key_prefix=shop"
    )
    assert watched.topology is Topology.SENTINEL
    assert watched.hosts == (("s1", 26379), ("::1", 5000))
    assert (watched.username, watched.password, watched.sentinel_password) == (None, "pw", "x")
    assert watched.key_prefix == "shop"
    assert parse("redis://a,b:1?cluster=1").topology is Topology.CLUSTER
    shards = parse("redis://a,b:1/2?shards=1")
    assert (shards.topology, shards.hosts, shards.db) == (
        Topology.SHARDS,
        (("a", 6379), ("b", 1)),
        2,
    )


def _numbered(texts: list[str]) -> list[Record]:
    entries = [delta(text, message=f"m{len(text) % 2}") for text in texts]
    return [entry.to_record("e1", seq, 1000) for seq, entry in enumerate(entries, 7)]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=40))
def test_a_batch_reads_as_it_was_written(texts: list[str]) -> None:
    """Packed before its numbers are known, or rewritten with merged records: the same events."""
    records = _numbered(texts)
    entries = [delta(text, message=f"m{len(text) % 2}") for text in texts]
    (part,) = pack_entries(entries)
    header = Header("e1", 7, records[-1].seq, 1000, part.events, part.size_bytes, "p")
    batch = header.line() + part.body
    assert header_of(batch) == header
    assert records_of(batch, header) == records
    assert part.size_bytes == sum(record.size_bytes for record in records)
    merged = list(merge_adjacent(records))
    again, rewritten = batch_of(merged, pack_numbered(merged).body)
    assert records_of(rewritten, header_of(rewritten)) == merged
    assert (again.first, again.last) == (7, records[-1].seq)


def test_large_batches_are_split() -> None:
    """No part is larger than a page, unless one event is."""
    parts = pack_entries([event(n, size=60_000) for n in range(10)] + [event(1, size=400_000)])
    assert [part.events for part in parts] == [4, 4, 2, 1]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 500), st.integers(1, 500), st.integers(0, 10**6), st.integers(-10, 510))
def test_a_batch_retained_in_part_counts_for_its_part(
    events: int, more: int, size: int, gone: int
) -> None:
    """Nothing is counted twice, nothing below zero, and the whole is the whole."""
    header = Header("e1", 100, 99 + events + more, 0, events, size, "p")
    counts, bytes_ = header.share(100 + max(0, min(gone, events + more)))
    assert 0 <= counts <= events
    assert 0 <= bytes_ <= size
    assert header.share(100) == (events, size)


@pytest.mark.parametrize(
    "damaged",
    [b"", b"x", b"b e1 1 2", b"b e1 1 1 0 1 1 p\nrubbish", b"b e1 1 2 0 1 1 p\n\x92\x90\x90"],
)
def test_damage_is_said(damaged: bytes) -> None:
    """What no log wrote is not read."""
    with pytest.raises(RecordCorrupt):
        records_of(damaged, header_of(damaged))


def test_terms_are_read() -> None:
    """Former terms with their last numbers, oldest first."""
    terms = terms_of("e3", 9, 4, "e1:3 e2:7")
    assert terms.former == [Term("e1", 3), Term("e2", 7)]
    assert terms_of("e1", 0, 1, "").former == []
