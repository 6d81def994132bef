"""``catenary validate``, as an operator calls it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from .conftest import CommandLine


def test_the_rows_are_listed(catenary: CommandLine) -> None:
    said = catenary("validate", "--list", "--suite", "constructor")
    assert said.status == 0
    assert "injection: lazy" in said.out
    assert "isolation" not in said.out


def test_a_campaign_says_what_it_found_and_writes_its_report(
    catenary: CommandLine, tmp_path: Path
) -> None:
    said = catenary(
        "validate", "--quick", "--suite", "constructor", "--suite", "ordering:one sender",
        "--seed", "7", "--report", str(tmp_path / "report"),
    )  # fmt: skip
    assert said.status == 0, said.out
    assert "18 rows" in said.out
    assert "18 holds" in said.out
    written = json.loads((tmp_path / "report" / "report.json").read_bytes())
    assert (written["seed"], written["scale"], len(written["outcomes"])) == ("7", "quick", 18)
    assert "Every row holds" in (tmp_path / "report" / "report.html").read_text()


def test_it_fails_if_a_row_falls_short(catenary: CommandLine, tmp_path: Path) -> None:
    """On a log that cannot be opened every row does."""
    missing = tmp_path / "missing" / "events.db"
    said = catenary(
        "validate", "--quick", "--suite", "ordering:one sender", "--log", f"sqlite:///{missing}"
    )
    assert said.status == 1


def test_what_is_worse_is_marked(catenary: CommandLine, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    catenary("validate", "--quick", "--suite", "constructor:valid", "--report", str(first))
    written = first / "report.json"
    report = json.loads(written.read_bytes())
    report["outcomes"][0]["figures"] = [
        {"name": "gone", "value": 1, "unit": "s", "better": "lower"}
    ]
    written.write_text(json.dumps(report))
    said = catenary(
        "validate", "--quick", "--suite", "constructor:valid", "--report", str(second),
        "--compare", str(written),
    )  # fmt: skip
    assert said.status == 0
    assert "Nothing is worse" in said.out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--suite", "nothing"], "no suite 'nothing'"),
        (["--compare", "missing.json"], "there is no report"),
        (["--url", "http://host/ws"], "no WebSocket URL"),
    ],
)
def test_a_wrong_call_is_explained(catenary: CommandLine, arguments: list[str], told: str) -> None:
    said = catenary("validate", *arguments)
    assert said.status == 2
    assert told in said.err


def test_a_server_elsewhere_is_validated_as_far_as_it_allows(
    catenary: CommandLine, server: str
) -> None:
    """A development server gives tokens and the key; what needs its process is left out."""
    url = f"ws{server.removeprefix('http')}/ws"
    said = catenary(
        "validate", "--quick", "--url", url,
        "--suite", "ordering:sender", "--suite", "isolation:same", "--suite", "chat:10 users",
    )  # fmt: skip
    assert said.status == 0, said.out
    assert "3 holds, 1 left out" in said.out
    assert "needs a bridge that this command starts itself" in said.out


def test_a_network_that_breaks_is_put_before_a_server_elsewhere(
    catenary: CommandLine, server: str, tmp_path: Path
) -> None:
    """Each event is published over HTTP; what needs a certificate of its own is left out."""
    url = f"ws{server.removeprefix('http')}/ws"
    catenary(
        "validate", "--quick", "--url", url, "--report", str(tmp_path), "--seed", "7",
        "--suite", "chaos:single bytes", "--suite", "chaos:high",
        "--suite", "ordering:planted: hole",
    )  # fmt: skip
    written = json.loads((tmp_path / "report.json").read_bytes())
    outcomes = {outcome["row"]: outcome for outcome in written["outcomes"]}
    # What is only slow is no fault: others use this machine too.
    asked = outcomes["single bytes"]
    assert asked["faults"] == []
    assert "160 of 160 events" in asked["measured"]
    assert {happening["what"] for happening in asked["evidence"]["happenings"]} == {
        "faults split_bytes=3"
    }
    assert "records of TLS" in outcomes["high"]["faults"][0]
    assert "asked of the package here" in outcomes["planted: hole"]["measured"]


def test_tokens_may_come_from_a_command(catenary: CommandLine, server: str) -> None:
    """For each user anew; a command that fails is told."""
    url = f"ws{server.removeprefix('http')}/ws"
    code = (
        "import httpx, sys; "
        "print(httpx.post(sys.argv[1], json={'user_id': sys.argv[2]}).json()['token'])"
    )
    command = f'{sys.executable} -c "{code}" {server}/dev/credentials {{user}}'
    asked = ("validate", "--quick", "--url", url, "--suite", "ordering:one sender")
    said = catenary(*asked, "--token-command", command)
    assert said.status == 0, said.out
    said = catenary(*asked, "--token-command", "false")
    assert said.status == 1
    assert "the token command 'false' failed" in said.out
