"""What a newcomer follows from the README leads on."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.docs.pages import ROOT, anchors, pages

README = ROOT / "README.md"
EXTRA = re.compile(r"\bcatenary\[([\w,-]+)\]")


def row(name: str) -> list[str]:
    """The pages in one row of the README's table of documents."""
    (line,) = re.findall(rf"^\| {re.escape(name)} \|.*$", README.read_text("utf-8"), re.MULTILINE)
    return re.findall(r"\]\((docs/how-to/[\w-]+\.md)\)", line)


def changed() -> list[str]:
    found = [*row("relay an agent of a framework"), *row("keep a front end")]
    return [page for page in found if page != "docs/how-to/frameworks.md"]


def test_each_framework_of_the_overview_is_in_the_readme() -> None:
    """Nobody has to find a relay by way of another page."""
    overview = (ROOT / "docs/how-to/frameworks.md").read_text("utf-8")
    known = set(re.findall(r"^\| [^|]+\| \[[^\]]+\]\(([\w-]+\.md)\)", overview, re.MULTILINE))
    there = {page.rpartition("/")[2] for page in row("relay an agent of a framework")}
    assert there == (known - {"run-agents.md"}) | {"frameworks.md"}


@pytest.mark.parametrize("page", changed())
def test_a_page_of_a_front_end_or_framework_says_which_lines_change(page: str) -> None:
    """Under the same heading everywhere."""
    assert "the-ten-lines-that-change" in anchors(ROOT / page)


def test_every_extra_that_a_page_installs_exists() -> None:
    """As `pip` only warns of one that does not."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {
        extra
        for page in pages()
        for found in EXTRA.findall(page.read_text("utf-8"))
        for extra in found.split(",")
    }
    assert named
    assert named <= set(project["optional-dependencies"])
