"""Which facts are quoted."""

from __future__ import annotations

from catenary.demo.library import Library
from catenary.demo.question import parts_of
from catenary.demo.quoting import choose, quoted


def answer_from(text: str, question: str) -> str:
    library = Library({"a.md": text})
    hits = library.search(question)
    read = [(hit.section, hit.section.text, hit.score) for hit in hits]
    (part,) = parts_of(question)
    return quoted(choose(library, part, read))


def test_definition_is_preferred_to_mentions() -> None:
    text = "# Ropes\nEvery gap needs care and a gap may grow. A gap is a hole in the wall."
    assert answer_from(text, "What is a gap?").startswith("A gap is a hole")


def test_number_is_preferred_where_one_is_asked_for() -> None:
    text = "# Ropes\nRopes of a boat have limits for safety. Ropes of a boat have 30 knots at most."
    assert answer_from(text, "How much rope may a boat have?").startswith("Ropes of a boat have 30")


def test_sentence_is_not_repeated_before_the_one_that_leans_on_it() -> None:
    text = (
        "# Coast\nThe zebra horn sounds loud every night. That horn, which was built a long time "
        "ago by people who knew what they did and who wanted every ship on the whole wide sea to "
        "hear it well from far away, reaches all of the water behind the harbour when the wind "
        "is not against it, which is not often the case in the dark half of the year."
    )
    said = answer_from(text, "Does the zebra horn sound loud every night over water?")
    assert said.count("The zebra horn sounds") == 1
    assert said.count("water behind") == 1


def test_code_is_shown_only_for_how_to() -> None:
    text = "# Boats\nThe lamp is lit by hand.\n\n```\nlamp lit spare call wick oil\n```"
    assert "```" not in answer_from(text, "Is the spare lamp lit by a call?")
    assert "```" in answer_from(text, "How do I get the spare lamp lit by a call?")


def test_facts_of_one_section_share_their_source() -> None:
    text = "# Coast\nShips carry oil. Keepers carry rope.\n"
    assert answer_from(text, "Do ships carry oil or keepers rope?") == (
        "Ships carry oil. Keepers carry rope. [a.md, “Coast”]"
    )
