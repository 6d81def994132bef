"""Questions taken apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catenary.demo.question import MAX_PARTS, Kind, parts_of


@pytest.mark.parametrize(
    ("question", "texts"),
    [
        ("How does a lamp work?", ["How does a lamp work?"]),
        ("How does it work?", ["What is Catenary?"]),
        (
            "How does a reconnect resume, and what is a gap?",
            ["How does a reconnect resume", "what is a gap?"],
        ),
        ("What are lamps and horns?", ["What are lamps and horns?"]),
        ("Who keeps it? Where; why is it lit", ["Who keeps it?", "why is it lit"]),
        (
            "Tell me of lamps. How many lamps are there",
            ["Tell me of lamps.", "How many lamps are there"],
        ),
    ],
)
def test_parts_begin_with_a_question(question: str, texts: list[str]) -> None:
    assert [part.text for part in parts_of(question)] == texts


@pytest.mark.parametrize("question", ["", "  ?!", "and what?", "\n;\n"])
def test_text_that_asks_nothing_has_no_parts(question: str) -> None:
    assert parts_of(question) == []


def test_number_of_parts_is_bounded() -> None:
    assert len(parts_of("Why lamps? " * 100)) == MAX_PARTS


@pytest.mark.parametrize(
    ("question", "kind", "subject"),
    [
        ("What is 3 × 4?", Kind.COMPUTE, "3 * 4"),
        ("How many guarantees are there?", Kind.COUNT, "guarantees"),
        ("How many close codes does it have?", Kind.COUNT, "close codes"),
        ("How many boats may a pier have?", Kind.SEARCH, ""),
        ("How many duties?", Kind.COUNT, "duties"),
        ("How often is the word “lamp” mentioned?", Kind.MENTIONS, "lamp"),
        ("How many times does fog horn occur?", Kind.MENTIONS, "fog horn"),
        ("Show docs/guide.md", Kind.FILE, "docs/guide.md"),
        ("Read ../../etc/passwd", Kind.FILE, "../../etc/passwd"),
        ("What is a gap?", Kind.SEARCH, "gap"),
        ("What does producer_lost mean?", Kind.SEARCH, "producer_lost"),
        ("How do I emit an event?", Kind.SEARCH, ""),
    ],
)
def test_shape_decides_what_is_asked_for(question: str, kind: Kind, subject: str) -> None:
    (part,) = parts_of(question)
    assert (part.kind, part.subject) == (kind, subject)


def test_part_that_points_back_carries_what_it_points_at() -> None:
    parts = parts_of("What is 30 boats × 64 KiB, and where does that limit come from? Why lamps?")
    assert [part.context for part in parts] == ["", "What is 30 boats × 64 KiB", ""]
    assert (parts[1].is_numeric, parts[2].is_numeric) == (True, False)


def test_limits_are_looked_for_where_one_is_asked_for() -> None:
    assert parts_of("How many boats may a pier have?")[0].hints == " limits"
    assert parts_of("How many boats are there?")[0].hints == ""


def test_part_that_asks_how_to_do_something_is_known() -> None:
    assert parts_of("How can I light a lamp?")[0].is_doing
    assert not parts_of("How does a lamp burn?")[0].is_doing


@given(st.text(max_size=200))
def test_any_text_is_taken_apart(question: str) -> None:
    assert len(parts_of(question)) <= MAX_PARTS
