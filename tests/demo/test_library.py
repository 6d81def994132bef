"""The library: what it finds, counts, and refuses to read."""

from __future__ import annotations

from pathlib import Path

import pytest

from catenary.demo.library import Library
from catenary.demo.words import stem, terms, tokens
from catenary.errors import ConfigError

DOCUMENTS = Path(__file__).parent / "documents"


@pytest.fixture(scope="module")
def library() -> Library:
    return Library.open({"docs": DOCUMENTS})


def found(library: Library, query: str, context: str = "") -> list[tuple[str, str]]:
    hits = library.search(query, context=context)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    return [(hit.section.path, hit.section.title) for hit in hits]


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("fog horns in storms", "Storms"),
        ("duties", "Duties of a keeper"),
        ("lighting by hand", "Lighting a lamp by hand"),
        ("the rope of a boat", "Limits"),
        ("dusk and dawn", "A guide to lighthouses"),
    ],
)
def test_best_section_comes_first(library: Library, query: str, title: str) -> None:
    assert found(library, query)[0][1] == title


def test_heading_counts_more_than_mentions() -> None:
    text = "# Pets\n## Cats\nThey purr a lot.\n## Dogs\nThey chase cats. They bark at cats."
    assert found(Library({"pets.md": text}), "cats")[0][1] == "Cats"


def test_section_headed_by_just_what_is_asked_for_comes_first() -> None:
    text = "# Coast\n## Oil lamps\nLamps, lamps and lamps.\n## Lamp\nA light, a wick and some oil."
    assert found(Library({"a.md": text}), "lamp")[0][1] == "Lamp"


def test_number_of_hits_is_limited(library: Library) -> None:
    assert len(library.search("lamps", limit=2)) == 2


def test_nothing_is_found_for_words_that_no_document_has(library: Library) -> None:
    assert found(library, "quantum chromodynamics") == []
    assert found(library, "what is it?") == []


def test_context_decides_between_sections_that_fit_alike(library: Library) -> None:
    assert found(library, "lamps", "weekly rules")[0] == ("docs/rules.md", "Lamps")
    assert found(library, "lamps", "oil and lens")[0] == ("docs/guide.md", "Lamps")


def test_file_is_read_whole_or_by_lines(library: Library) -> None:
    assert library.read_file("docs/rules.md") == (DOCUMENTS / "rules.md").read_text().rstrip("\n")
    assert library.read_file("docs/rules.md", 1, 1) == "# Rules of the coast"


@pytest.mark.parametrize(
    "path",
    ["../test_library.py", "docs/../../test_library.py", "/etc/passwd", "docs", "", "docs/none.md",
     "docs//rules.md", str(DOCUMENTS / "rules.md")],
)  # fmt: skip
def test_only_the_library_can_be_read(library: Library, path: str) -> None:
    with pytest.raises(LookupError, match="not in the library"):
        library.read_file(path)
    with pytest.raises(LookupError):
        library.count("lamp", path)


def test_link_that_leads_out_is_not_followed(tmp_path: Path) -> None:
    inside = tmp_path / "docs"
    inside.mkdir()
    (tmp_path / "outside.md").write_text("# Outside")
    (inside / "inside.md").write_text("# Inside\nText")
    (inside / "link.md").symlink_to(tmp_path / "outside.md")
    assert list(Library.open({"docs": inside}).files) == ["docs/inside.md"]


def test_library_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no documents"):
        Library.open({"docs": tmp_path})


def test_single_files_keep_their_name() -> None:
    library = Library.open({"README.md": DOCUMENTS / "rules.md"})
    assert list(library.files) == ["README.md"]


def test_own_documents_are_found() -> None:
    assert any(path.startswith("docs/") for path in Library.find().files)


def test_words_and_phrases_are_counted(library: Library) -> None:
    tally = library.count("main  Lamp")
    assert (tally.occurrences, tally.by_path) == (2, {"docs/guide.md": 2})
    assert library.count("lamp").by_path == {"docs/guide.md": 7}
    assert library.count("lamp*").by_path == {"docs/guide.md": 8, "docs/rules.md": 2}
    assert library.count("lamps", "docs/rules.md").occurrences == 2
    assert library.count("(a+)+$").occurrences == 0
    assert library.count("").occurrences == 0


def test_entries_of_the_list_with_that_heading_are_counted(library: Library) -> None:
    listing = library.count("duties").listing
    assert listing is not None
    assert listing.entries == ("D1 (Isolation)", "D2 (Watch)", "D3 (Log)")
    assert library.count("storms").listing is None
    assert Library({"a.md": "# Broken lamps at sea\n- one"}).count("lamps").listing is None
    assert Library({"a.md": "# 3. Lamps (oil, wick)\n- one"}).count("lamps").listing is not None
    assert library.count("duties", "docs/rules.md").listing is None


def test_stems_bring_forms_of_a_word_together() -> None:
    for words in ("resume resumes resumed resuming", "run runs running", "kill killed killing",
                  "connect connects connection connections", "query queries"):  # fmt: skip
        assert len({stem(word) for word in words.split()}) == 1, words
    assert list(tokens("`agent_started`, 4.5")) == [
        "agent_started",
        "agent",
        "start",
        "4.5",
        "4",
        "5",
    ]
    assert terms("What happens with kill -9, and kill?") == ["kill"]
    assert terms("Is producer_lost an end?") == ["producer_lost", "producer", "lost", "end"]
