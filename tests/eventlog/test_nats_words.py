"""What a NATS log says and reads: subjects, the protocol, states, marks, logins. Without a server."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catenary.errors import ConfigError, LogUnavailable, RecordCorrupt
from catenary.eventlog.nats import protocol
from catenary.eventlog.nats.address import Storage, parse
from catenary.eventlog.nats.login import Key, credentials
from catenary.eventlog.nats.marks import (
    MARKS_KEPT,
    Mark,
    cut_at,
    cut_before,
    mark_before,
    with_mark,
)
from catenary.eventlog.nats.names import TOKEN_LIMIT, Names, token
from catenary.eventlog.nats.posts import milliseconds
from catenary.eventlog.nats.protocol import Message, Parser, Word
from catenary.eventlog.nats.state import (
    PRODUCERS_KEPT,
    Known,
    State,
    Wrote,
    batch_in,
    encode,
    known_in,
    stated,
)
from catenary.eventlog.nats.stream import NatsStream

IDS = st.text(min_size=1, max_size=200)

# Subjects


@settings(max_examples=300)
@given(IDS, IDS)
def test_no_id_reaches_another_s_subject(one: str, other: str) -> None:
    """An id is one token without wildcards, and no two are the same."""
    for name in (token(one), token(other)):
        assert not set(name) & set(".*> \t\r\n")
        assert 0 < len(name) <= TOKEN_LIMIT
        assert name.isascii()
    assert (token(one) == token(other)) is (one == other)


@pytest.mark.parametrize("wild", ["*", ">", "a.b", "", "~", " ", "$JS", "x" * 500])
def test_wild_ids_are_plain_tokens(wild: str) -> None:
    """Whatever a user is called, its subject is below its own log's."""
    names = Names("catenary").of_log(wild)
    assert names.events.split(".")[:2] == ["catenary", "e"]
    assert len(names.events.split(".")) == 3
    assert len((names.runs + token("r.1")).split(".")) == 4


# The address


def test_an_address_says_all_and_hides_the_password() -> None:
    """Every part of a URL is read; what is shown has no secret in it."""
    url = "nats://u:p%40ss@h1,h2:4333?replicas=3&storage=memory&trust_restart=1&key_prefix=shop"
    address = parse(url + "&durability=power&monitor=http://h1:8222,http://h2:8222&domain=hub")
    assert address.hosts == (("h1", 4222), ("h2", 4333))
    assert (address.username, address.password) == ("u", "p@ss")
    assert (address.replicas, address.storage) == (3, Storage.MEMORY)
    assert (address.key_prefix, address.trust_restart) == ("shop", True)
    assert address.monitor == ("http://h1:8222", "http://h2:8222")
    assert address.api == "$JS.hub.API"
    assert address.shown == "nats://h1:4222,h2:4333"
    assert parse("tls://token@h").is_tls
    assert parse("tls://token@h").password is None


# The protocol

WORDS = st.binary(max_size=60)
SUBJECTS = st.text("abc.123", min_size=1, max_size=20).map(str.encode)


@st.composite
def said_by_server(draw: st.DrawFn) -> tuple[bytes, Message | Word]:
    """Something that a server may say, and what it is."""
    subject, payload = draw(SUBJECTS), draw(WORDS)
    kind = draw(st.sampled_from(["MSG", "HMSG", "PING", "INFO"]))
    if kind == "PING":
        return b"PING\r\n", Word(b"PING", b"")
    if kind == "INFO":
        return b'INFO {"a":1}\r\n', Word(b"INFO", b'{"a":1}')
    reply = draw(st.sampled_from([b"", b"_INBOX.1"]))
    to = subject + b" 7" + (b" " + reply if reply else b"")
    if kind == "MSG":
        words = b"MSG %b %d\r\n%b\r\n" % (to, len(payload), payload)
        return words, Message(subject, b"7", reply, b"", payload)
    headers = protocol.headers_of({"Nats-Sequence": draw(st.integers(1, 10**9))})
    size = len(headers)
    words = b"HMSG %b %d %d\r\n%b%b\r\n" % (to, size, size + len(payload), headers, payload)
    return words, Message(subject, b"7", reply, headers, payload)


@settings(max_examples=200)
@given(st.lists(said_by_server(), max_size=8), st.integers(1, 40))
def test_what_a_server_says_is_read_in_any_pieces(
    said: list[tuple[bytes, Message | Word]], size: int
) -> None:
    """However the network cuts it, the same words come out."""
    parser = Parser()
    data = b"".join(words for words, _ in said)
    found = [word for at in range(0, len(data), size) for word in parser.feed(data[at : at + size])]
    assert found == [word for _, word in said]


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_what_is_no_protocol_is_said(data: bytes) -> None:
    """Any bytes are read or refused with an error of the log's, never with another."""
    try:
        Parser().feed(b"MSG a 1 " + data)
    except LogUnavailable as error:
        assert "not NATS" in str(error)


def test_headers_and_states_are_read() -> None:
    """A status line has a number and a text; a header its value; without one there is none."""
    message = Message(b"s", b"1", b"", b"NATS/1.0 404 No Messages\r\nNats-X: 5\r\n\r\n", b"")
    assert (message.status, message.description) == (404, "No Messages")
    assert message.header(b"Nats-X") == b"5"
    assert message.header(b"Nats-Y") is None
    assert Message(b"s", b"1", b"", b"", b"").status == 0
    assert milliseconds("2026-11-25T04:00:00.1239Z") == 1795579200123
    assert milliseconds("2026-11-25T04:00:00Z") == 1795579200000


# States


@pytest.mark.parametrize("damaged", [b"", b"\x99", b"{}", b"\xc1" * 20])
def test_damage_is_said(damaged: bytes) -> None:
    """A message that no log wrote is an error that names it."""
    with pytest.raises(RecordCorrupt):
        batch_in(damaged)


def state_at(head: int, producers: dict[str, Wrote] | None = None) -> State:
    return State("e1", "life", head=head, producers=producers or {})


def last_at(head: int, producers: dict[str, Wrote] | None = None) -> Known:
    """A last message that holds a state, where its head says."""
    return known_in(head, batch_in(encode(stated(state_at(head, producers), 0))))


def new_stream() -> NatsStream:
    return NatsStream("user_123", Names("catenary").of_log("user_123"))


def test_an_answer_that_is_older_than_what_was_stored_meanwhile_is_no_loss() -> None:
    """Only what was known when the store was asked can be missing in its answer."""
    stream = new_stream()
    stream.reload(last_at(5), stream.remembered())
    asked = stream.remembered()
    stream.see(last_at(9))
    stream.wrote["p1"] = (3, "e1")
    stream.reload(last_at(5), asked)
    assert not stream.is_lost
    assert stream.known is not None
    assert stream.known.seq == 9


def test_less_than_was_known_is_a_loss() -> None:
    """A lower head, or a batch of this process that the store does not know of."""
    stream = new_stream()
    stream.known = last_at(9)
    stream.reload(last_at(5), stream.remembered())
    assert stream.is_lost
    stream = new_stream()
    stream.wrote["p1"] = (3, "e1")
    before = stream.remembered()
    wrote = {"p1": Wrote(2, 1, 0, "e1")}
    stream.reload(last_at(9, wrote), before)
    assert stream.is_lost


def test_who_wrote_long_ago_is_not_lost_among_many() -> None:
    """Of more producers than are kept, one that is left out says nothing of a loss."""
    others = {f"p{n}": Wrote(1, n, n, "e1") for n in range(PRODUCERS_KEPT)}
    full = state_at(9, others)
    assert not full.lacks("me", 1)
    assert full.lacks("p1", 2)
    assert state_at(9, {"p1": others["p1"]}).lacks("me", 1)
    assert len(full.with_producer("me", Wrote(1, 40, 99, "e1"))) == PRODUCERS_KEPT


# Marks


@st.composite
def batches(draw: st.DrawFn) -> list[Mark]:
    """Marks of all batches of a log, one behind the other, and one behind the last."""
    number = seq = events = 1
    found = []
    for count in draw(st.lists(st.integers(1, 9), min_size=1, max_size=60)):
        found.append(Mark(number, seq, events - 1, (events - 1) * 10))
        number, seq, events = number + count, seq + draw(st.integers(1, 5)), events + count
    return [*found, Mark(number, 0, events - 1, (events - 1) * 10)]


@given(batches(), st.integers(1, 600))
def test_a_mark_is_never_behind_what_it_is_for(every: list[Mark], number: int) -> None:
    """Whoever begins to read at the mark before a number misses nothing; few marks are kept."""
    *found, _ = every
    marks: list[Mark] = []
    for mark in found:
        marks = with_mark(marks, mark)
    assert len(marks) <= MARKS_KEPT
    assert (marks[0], marks[-1]) == (found[0], found[-1])
    chosen, exact = mark_before(marks, number), mark_before(found, number)
    assert chosen is not None
    assert exact is not None
    assert chosen.seq <= exact.seq


@given(batches(), st.integers(0, 500), st.integers(0, 5000))
def test_a_cut_goes_as_far_as_the_limits_ask(every: list[Mark], events: int, size: int) -> None:
    """What lies before it reaches both totals, or all that there is; and no more than needed."""
    *marks, end = every
    cut = cut_at(marks, end, events, size)
    needed = min(max(events, -(-size // 10)), end.events)
    assert cut.events == needed
    assert cut_before(marks, end, cut.first).events == cut.events


# Logins


def seed_of(secret: bytes) -> str:
    """Return a user's seed, as ``nsc`` writes it."""
    raw = bytes([(18 << 3) | (20 << 3 >> 5), (20 << 3 & 31) << 3]) + secret
    return (
        base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")
    )


def test_a_seed_gives_its_public_key() -> None:
    """Both are written as NATS writes them."""
    key = Key(seed_of(bytes(range(32))))
    assert key.public.startswith("U")
    assert len(key.public) == 56


@pytest.mark.parametrize(
    "seed", ["", "SU", "SUAAAA", "UABC", "S" * 58, seed_of(bytes(32))[:-1] + "7"]
)
def test_a_text_that_is_no_seed_is_said(seed: str) -> None:
    """Without the text in it."""
    with pytest.raises(ConfigError, match="no seed") as refused:
        Key(seed)
    assert len(seed) < 6 or seed not in str(refused.value)


def test_a_file_without_a_login_is_said(tmp_path: Path) -> None:
    """What lacks the JWT or the seed, or cannot be read, is named."""
    file = tmp_path / "user.creds"
    with pytest.raises(ConfigError, match="cannot be read"):
        credentials(file)
    file.write_text("-----BEGIN NATS USER JWT-----\nabc\n------END NATS USER JWT------\n")
    with pytest.raises(ConfigError, match="no credentials file"):
        credentials(file)
