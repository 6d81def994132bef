"""config, doctor, log new-term, and help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from catenary.cli.diagnosis import Grade, check_log, check_open_files, check_sqlite
from catenary.settings import Settings, load

from .conftest import CommandLine

SECRET = "hush-hush-hush-hush-hush-hush-hush"
COMMANDS = [
    "serve",
    "demo",
    "token",
    "tail",
    "emit",
    "inspect",
    "cancel",
    "close-run",
    "disconnect",
    "erase",
    "drain",
    "config",
    "doctor",
    "log",
]


def test_config_shows_every_setting_and_no_secret(
    catenary: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a table and as JSON, with where each value comes from."""
    monkeypatch.setenv("CATENARY_JWT_SECRET", SECRET)
    table = catenary("config", "--port", "9000")
    rows = {row["name"]: row for row in json.loads(catenary("config", "--json").out)}
    assert rows.keys() == Settings.model_fields.keys()
    assert rows["jwt_secret"]["source"] == "environment"
    assert "CATENARY_PORT" in table.out
    assert "9000" in table.out
    assert SECRET not in table.out + json.dumps(rows)


def test_doctor_finds_nothing_wrong_where_nothing_is(catenary: CommandLine, tmp_path: Path) -> None:
    """The durability in force is among what it says."""
    log = f"sqlite:///{tmp_path / 'events.db'}"
    said = catenary("doctor", "--jwt-secret", SECRET, "--log", log, "--port", "0")
    assert said.status == 0, said.out
    assert "durability in force: power" in said.out
    assert "wrong" not in said.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "nothing to verify tokens with"),
        (("--dev", "--log", "sqlite:////nowhere/at/all/events.db"), "Check the address"),
        (("--dev", "--log", "mysql://x"), "names no event log"),
        (("--dev", "--durability", "power"), "asks for power"),
        (("--dev", "--workers", "4"), "4 workers need an event log that they share"),
        (("--dev", "--heartbeat-interval", "never"), "CATENARY_HEARTBEAT_INTERVAL"),
    ],
)
def test_doctor_ends_with_1_when_something_is_wrong(
    arguments: tuple[str, ...], says: str, catenary: CommandLine
) -> None:
    """And says what to do."""
    said = catenary("doctor", "--port", "0", *arguments)
    assert said.status == 1
    assert "wrong" in said.out
    assert says in said.out


def test_doctor_sees_that_the_port_is_taken(catenary: CommandLine, server: str) -> None:
    """A server that runs is one that would be in the way."""
    said = catenary("doctor", "--dev", "--port", server.rpartition(":")[2])
    assert said.status == 1
    assert "Is another server running" in said.out


async def test_single_findings(tmp_path: Path) -> None:
    """A log in memory is a note; a bundled SQLite is one only where it is used."""
    assert (await check_log(load())).grade is Grade.NOTE
    assert (await check_sqlite(load())).grade is Grade.GOOD
    assert (await check_open_files(load())).what == "open files"


def test_a_new_term_tells_readers_of_a_gap(catenary: CommandLine, tmp_path: Path) -> None:
    """A position of before the restore is answered with a gap, not with other events."""
    log = f"sqlite:///{tmp_path / 'events.db'}"
    (tmp_path / "events.db").touch()
    local = ("--log", log, "--port", "1")
    before = catenary("emit", "user_123", "app.x", *local).out.strip()
    assert catenary("log", "new-term", log).out == "1 log has a new term.\n"
    after = catenary("emit", "user_123", "app.x", *local).out.strip()
    assert before.partition(":")[0] != after.partition(":")[0]
    said = catenary("tail", "user_123", "--after", before, *local)
    assert "app.x" in said.out
    assert "gap" in said.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples(command: str, catenary: CommandLine) -> None:
    """Help that teaches shows how it is used."""
    said = catenary(command, *(["new-term"] if command == "log" else []), "--help")
    assert said.status == 0
    assert "Examples" in said.out
    assert f"catenary {command}" in said.out


def test_the_help_lists_every_command(catenary: CommandLine) -> None:
    """None is hidden."""
    said = catenary("--help")
    assert all(f" {command} " in said.out for command in COMMANDS)


def test_an_unknown_command_is_named(catenary: CommandLine) -> None:
    """As every command line does, with 2."""
    said = catenary("sevre")
    assert said.status == 2
    assert "sevre" in said.err
