"""Which facts are quoted."""

from __future__ import annotations

from catenary.demo.library import Library
from catenary.demo.question import parts_of
from catenary.demo.quoting import choose, quoted


def answer_from(text: str, question: str) -> str:
    library = Library({"a.md": text})
    hits = library.search(question)
    read = [(hit.section, hit.section.text, hit.score) for hit in hits]
    *_, part = parts_of(question)
    return quoted(choose(library, part, read))


def test_definition_is_preferred_to_mentions() -> None:
    text = "# Ropes\nA gap is feared, for every gap may grow. A gap is a hole in the wall."
    assert answer_from(text, "What is a gap?").startswith("A gap is a hole")


def test_section_headed_by_the_question_is_the_answer() -> None:
    text = (
        "# Sea\n## When the lamp fails\nA bell rings in the tower at once.\n\nNobody sleeps then."
        "\n## Notes\nThe lamp fails often, as the keeper says."
    )
    said = answer_from(text, "What happens when the lamp fails?")
    assert said.startswith("A bell rings in the tower at once.")


def test_heading_about_much_else_decides_nothing() -> None:
    text = (
        "# Sea\n## How lamps burn in fog and rain on boats by night\nInstall the hook on the wall."
        "\n## Notes\nLamps burn well when their wick is dry."
    )
    assert answer_from(text, "Do lamps burn?").startswith("Lamps burn well")


def test_short_answer_goes_on_with_its_next_sentence() -> None:
    text = "# Sea\nFog slows each boat down. Nobody minds the delay.\n\nBoats are brown."
    assert answer_from(text, "Does fog slow boats?").startswith(
        "Fog slows each boat down. Nobody minds the delay."
    )


def test_what_a_part_points_back_at_decides_between_facts_that_fit_alike() -> None:
    text = "# Sea\nThe limits stem from old law. The limits of boats stem from short piers."
    said = answer_from(text, "What is 30 boats × 2, and where does that limit stem from?")
    assert said == "The limits of boats stem from short piers. [a.md, “Sea”]"


def test_which_one_gets_one_answer() -> None:
    text = "# Duties\n| # | duty |\n|---|---|\n| D1 | Ships are watched at sea. |\n| D2 | All duties go on after the night. |"
    said = answer_from(text, "How many duties are there and which one covers ships?")
    assert said == "D1: Ships are watched at sea. [a.md, “Duties”]"


def test_fact_that_points_back_at_another_paragraph_is_avoided() -> None:
    text = "# Sea\nSuch boats are slow in the fog.\n\nMany boats are slow in the fog."
    assert answer_from(text, "Are boats slow in fog?").startswith("Many boats are slow")
    chained = (
        "# Sea\nSuch boats are lost. They are slow in the fog.\n\nMany boats are slow in the fog."
    )
    assert answer_from(chained, "Are boats slow in fog?").startswith("Many boats are slow")


def test_number_is_preferred_where_one_is_asked_for() -> None:
    text = "# Ropes\nRopes G1 of a boat are long for safety. Ropes of a boat have 30 knots of wool."
    assert answer_from(text, "How long are ropes of a boat?").startswith("Ropes of a boat have 30")


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
