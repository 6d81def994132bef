from __future__ import annotations

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from catenary.envelope import Envelope
from catenary.record import MERGED_LIMIT_BYTES, Record, index_after, merge_adjacent, rest_after
from catenary.voice import Voice
from catenary.wires.native import event_of, event_payload

VOICE = Voice(Envelope(user_id="user_123", thread_id="t1", run_id="r1"), redactor=None)


def delta(seq: int, text: str, message_id: str = "m1") -> Record:
    return VOICE.delta(text, message_id, "text", None, None).to_record("k3", seq, 0)


def progress(seq: int, percentage: int) -> Record:
    entry = VOICE.event("progress_update", {"percentage": percentage}, merge="key")
    return entry.to_record("k3", seq, 0)


def other(seq: int) -> Record:
    return VOICE.event("app.note", {"seq": seq}).to_record("k3", seq, 0)


def text_of(record: Record) -> str:
    return str(event_of(record).data["delta"])


texts = st.lists(st.text(max_size=12), min_size=1, max_size=20)


@given(texts)
def test_merged_deltas_say_what_their_parts_said(parts: list[str]) -> None:
    """Joining the encoded pieces gives the concatenation, whatever the characters."""
    records = [delta(seq, text) for seq, text in enumerate(parts, 1)]
    (merged,) = merge_adjacent(records)
    event = event_of(merged)
    assert event.data["delta"] == "".join(parts)
    assert (merged.first_seq, merged.seq) == (1, len(parts))
    assert event.from_seq == (1 if len(parts) > 1 else None)
    assert json.loads(event_payload(merged))["data"]["message_id"] == "m1"


@given(texts, st.data())
def test_a_place_inside_a_merged_range_gets_exactly_the_rest(
    parts: list[str], data: st.DataObject
) -> None:
    """Cutting a merged record at any number leaves the text of the numbers after it."""
    (merged,) = merge_adjacent([delta(seq, text) for seq, text in enumerate(parts, 1)])
    if len(parts) == 1:
        return
    seen = data.draw(st.integers(1, len(parts) - 1))
    rest = rest_after(merged, seen)
    assert text_of(rest) == "".join(parts[seen:])
    assert (rest.first_seq, rest.seq) == (seen + 1, len(parts))
    if len(parts) - seen > 1:
        again = data.draw(st.integers(seen + 1, len(parts) - 1), label="again")
        assert text_of(rest_after(rest, again)) == "".join(parts[again:])


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("delta"), st.sampled_from(["m1", "m2"])),
            st.tuples(st.just("progress"), st.just("")),
            st.tuples(st.just("other"), st.just("")),
        ),
        max_size=30,
    ),
    st.data(),
)
def test_merging_keeps_every_number_and_every_other_event(
    kinds: list[tuple[str, str]], data: st.DataObject
) -> None:
    """Merged records cover the same numbers without a hole; merging in two steps changes nothing."""
    records = [
        delta(seq, f"{seq} ", message)
        if kind == "delta"
        else progress(seq, seq)
        if kind == "progress"
        else other(seq)
        for seq, (kind, message) in enumerate(kinds, 1)
    ]
    merged = list(merge_adjacent(records))
    covered = [seq for record in merged for seq in range(record.first_seq, record.seq + 1)]
    assert covered == list(range(1, len(records) + 1))
    assert [r for r in merged if r.type == "app.note"] == [
        r for r in records if r.type == "app.note"
    ]
    assert all(a.merge is None or a.merge != b.merge for a, b in pairwise(merged))
    cut = data.draw(st.integers(0, len(records)))
    in_steps = list(merge_adjacent([*merge_adjacent(records[:cut]), *records[cut:]]))
    assert in_steps == merged


def test_of_events_with_one_key_the_latest_stays() -> None:
    """Neighbouring progress is represented by the last, over the whole range."""
    (merged,) = merge_adjacent([progress(1, 10), progress(2, 20), progress(3, 30)])
    assert event_of(merged).data == {"percentage": 30}
    assert (merged.from_seq, merged.seq) == (1, 3)
    assert rest_after(merged, 2).from_seq == 0


def test_a_merged_delta_stays_under_its_limit() -> None:
    """Long texts are joined into several records, each under 64 KiB, none lost."""
    records = [delta(seq, "x" * 20_000) for seq in range(1, 11)]
    merged = list(merge_adjacent(records))
    assert len(merged) > 1
    assert all(len(record.body) <= MERGED_LIMIT_BYTES for record in merged)
    assert sum(len(text_of(record)) for record in merged) == 200_000


def test_terms_are_never_merged() -> None:
    """Neighbours of two terms stay apart: their numbers are not one sequence."""
    first, second = delta(1, "a"), VOICE.delta("b", "m1", "text", None, None).to_record("k4", 2, 0)
    assert len(list(merge_adjacent([first, second]))) == 2


@given(st.lists(st.integers(1, 4), max_size=10), st.integers(0, 40))
def test_the_index_after_a_place_is_that_of_the_first_record_beyond_it(
    widths: list[int], seq: int
) -> None:
    """Bisecting finds the first record that still holds a number above the place."""
    records: list[Record] = []
    last = 0
    for width in widths:
        last += width
        records.append(delta(last, "x"))
    index = index_after(records, seq)
    assert all(record.seq <= seq for record in records[:index])
    assert all(record.seq > seq for record in records[index:])
