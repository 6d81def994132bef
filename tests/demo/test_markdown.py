"""Markdown as sections and facts."""

from __future__ import annotations

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from catenary.demo.markdown import Section, entries_of, facts_of, sections_of

GUIDE = (Path(__file__).parent / "documents" / "guide.md").read_text("utf-8")


def section(title: str) -> Section:
    return next(one for one in sections_of("guide.md", GUIDE) if one.title == title)


def texts(title: str) -> list[str]:
    return [fact.text for fact in facts_of(section(title).text)]


def test_sections_know_the_headings_above_them() -> None:
    found = [one.titles for one in sections_of("docs/guide.md", GUIDE)]
    assert found == [
        ("guide",),
        ("A guide to lighthouses",),
        ("A guide to lighthouses", "Lamps"),
        ("A guide to lighthouses", "Lamps", "Lighting a lamp by hand"),
        ("A guide to lighthouses", "Duties of a keeper"),
        ("A guide to lighthouses", "Storms"),
    ]


def test_lines_of_a_section_are_those_of_the_file() -> None:
    lines = GUIDE.splitlines()
    for one in sections_of("guide.md", GUIDE):
        assert "\n".join(lines[one.first_line - 1 : one.last_line]).strip() == one.text


def test_sentences_are_told_apart_and_abbreviations_are_not_ends() -> None:
    assert texts("Lamps") == [
        "A lamp is what makes the light, e.g. a wick or an arc.",
        "Its reach depends on the lens.",
        "Ships see it from afar.",
        "The *main lamp* burns 12 litres of oil a night.",
        "The spare lamp starts within 5 s when the main lamp fails.",
        "Nobody at sea notices.",
        "A bell rings in the keeper's room.",
    ]


def test_abbreviations_and_short_leads_end_no_sentence() -> None:
    (fact,) = facts_of("**Lit.** It is lit on some days, e.g. Mondays.")
    assert fact.text == "Lit. It is lit on some days, e.g. Mondays."


def test_item_goes_on_in_the_lines_that_are_indented() -> None:
    assert [fact.text for fact in facts_of("- one two\n  and three.\n- four five six.")] == [
        "one two and three.", "four five six.",
    ]  # fmt: skip


def test_sentence_that_leans_on_the_one_before_carries_it() -> None:
    facts = facts_of(section("Storms").text)
    assert [(fact.text, fact.lean) for fact in facts] == [
        ("In a storm the fog horn sounds.", ""),
        ("That horn is heard for 3 miles.", "In a storm the fog horn sounds."),
        ("See the manual for its care.", ""),
    ]


def test_paragraph_that_points_back_carries_the_one_above() -> None:
    facts = facts_of("People write code.\n\nSuch code is lost. It grows too much. Ships sail on.")
    assert [(fact.lean, fact.is_dangling) for fact in facts] == [
        ("", False),
        ("People write code.", True),
        ("People write code. Such code is lost.", True),
        ("", False),
    ]


def test_code_is_one_fact() -> None:
    assert [fact.paragraph for fact in facts_of("```\nx\n```\nOne is here.\n\nTwo is.")] == [
        -1,
        0,
        1,
    ]
    (code,) = (one for one in facts_of(section("Lighting a lamp by hand").text) if one.is_code)
    assert code.text == '# not a heading\ntower.light("spare")'
    assert code.lean == "To light the spare lamp by hand, call `light` from the tower:"


def test_rows_are_facts_and_name_their_columns() -> None:
    assert texts("Duties of a keeper")[1] == ("D2: Watch. The lamp is looked at every hour; a | b.")
    table = "| limit | value | why |\n|---|---|---|\n| boats | 30. | short |"
    assert [fact.text for fact in facts_of(table)] == ["boats: value: 30; why: short"]


def test_entries_are_the_rows_of_the_table_or_the_items_of_the_list() -> None:
    assert entries_of(section("Duties of a keeper").text) == [
        "D1 (Isolation)", "D2 (Watch)", "D3 (Log)",
    ]  # fmt: skip
    assert entries_of("| limit | value |\n|---|---|\n| boats a pier | 30 |") == ["boats a pier"]
    assert len(entries_of(section("Lamps").text)) == 2
    assert entries_of("1. **One.** Yes\n   and more\n2. Two") == ["One. Yes", "Two"]
    assert entries_of("No list here.") == []


@given(st.text(st.sampled_from("#`|-* a.\n\t1:"), max_size=80))
@example("||\n |")
@example("|-|\n|-|")
def test_any_text_is_taken_apart(text: str) -> None:
    for one in sections_of("x.md", text):
        facts_of(one.text)
        entries_of(one.text)
