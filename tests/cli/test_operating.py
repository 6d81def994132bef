"""tail, emit, inspect, cancel, close-run, disconnect, erase and drain, against a real server."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import CommandLine, started, stopped


def emit(catenary: CommandLine, server: str, user: str, *arguments: str) -> str:
    said = catenary("emit", user, *arguments, "--url", server)
    assert said.status == 0, said.err
    return said.out.strip()


def events(catenary: CommandLine, server: str, user: str, *arguments: str) -> list[dict[str, Any]]:
    said = catenary("tail", user, "--no-follow", "--json", "--url", server, *arguments)
    assert said.status == 0, said.err
    return [json.loads(line) for line in said.out.splitlines()]


def test_what_is_emitted_is_what_tail_shows(catenary: CommandLine, server: str) -> None:
    """The position that emit prints is where tail goes on."""
    first = emit(catenary, server, "tailed", "app.greeting", '{"text": "hello"}')
    emit(catenary, server, "tailed", "app.greeting", '{"text": "again"}', "--thread", "t1")
    shown = events(catenary, server, "tailed")
    assert [event["data"] for event in shown] == [{"text": "hello"}, {"text": "again"}]
    assert shown[0]["id"] == first
    assert len(events(catenary, server, "tailed", "--after", first)) == 1
    assert [event["thread_id"] for event in events(catenary, server, "tailed", "--thread", "t1")]
    pretty = catenary("tail", "tailed", "--no-follow", "--url", server).out
    assert "app.greeting" in pretty
    assert "hello" in pretty


def test_tail_shows_a_long_history_to_its_end(catenary: CommandLine, server: str) -> None:
    """Page by page, each event once."""
    with httpx.Client(base_url=server, trust_env=False) as http:
        told = http.post("/dev/credentials", json={"user_id": "long"}).json()
        http.headers["authorization"] = f"Bearer {told['api_key']}"
        for _ in range(2):
            body = [{"type": "app.tick", "data": {}}] * 300
            assert http.post("/api/users/long/events", json=body).status_code == 201
    assert [event["seq"] for event in events(catenary, server, "long")] == list(range(1, 601))


def test_data_that_are_no_object_are_refused_before_anything_is_sent(
    catenary: CommandLine, server: str
) -> None:
    """The error shows how it is written."""
    said = catenary("emit", "user_123", "app.x", "[1]", "--url", server)
    assert said.status == 2
    assert """'{"text": "hello"}'""" in said.err
    assert events(catenary, server, "user_123") == []


def test_inspect_says_why_a_run_hangs(catenary: CommandLine, server: str) -> None:
    """By its user, its thread or itself: its age, and the tool that has not answered."""
    call = '{"tool_name": "search", "tool_call_id": "c1", "tool_input": {}}'
    emit(catenary, server, "hung", "agent_started", "--run", "r-hung", "--thread", "t-hung")
    emit(catenary, server, "hung", "tool_executing", call, "--run", "r-hung")
    for name in ("hung", "r-hung", "t-hung"):
        said = catenary("inspect", name, "--url", server)
        assert said.status == 0
        for word in ("r-hung", "t-hung", "open", "seq 2", "300 s", "search"):
            assert word in said.out, (name, word)
    assert "r-hung" not in catenary("inspect", "nobody", "--url", server).out
    assert "r-hung" in catenary("inspect", "--url", server).out


def test_a_run_is_cancelled_then_closed(catenary: CommandLine, server: str) -> None:
    """The request is stored at once; closing ends it at once; both are told when it had ended."""
    emit(catenary, server, "stopped", "agent_started", "--run", "r-stopped")
    assert "will end soon" in catenary("cancel", "r-stopped", "--url", server).out
    assert "cancel asked for" in catenary("inspect", "r-stopped", "--url", server).out
    assert catenary("close-run", "r-stopped", "--url", server).out == "Closed.\n"
    assert "had ended" in catenary("close-run", "r-stopped", "--url", server).out
    assert "had ended" in catenary("cancel", "r-stopped", "--url", server).out
    last = events(catenary, server, "stopped")[-1]
    assert last["type"] == "agent_error"


@pytest.mark.parametrize("command", ["cancel", "close-run"])
def test_a_run_that_is_unknown_is_an_error(
    command: str, catenary: CommandLine, server: str
) -> None:
    """It exits with 1 and says so."""
    said = catenary(command, "r-unknown", "--url", server)
    assert (said.status, said.err) == (1, "catenary: no such run\n")


def test_a_user_is_erased_when_one_is_sure(
    catenary: CommandLine, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a yes nothing is erased."""
    emit(catenary, server, "erased", "app.x")
    with pytest.MonkeyPatch.context() as patch, Path("/dev/null").open() as nothing:
        patch.setattr("sys.stdin", nothing)
        assert catenary("erase", "erased", "--url", server).status == 1
    assert len(events(catenary, server, "erased")) == 1
    assert catenary("erase", "erased", "--yes", "--url", server).out == "1 events erased.\n"
    assert [event["type"] for event in events(catenary, server, "erased")] == ["erased"]


def test_disconnect_says_how_many_it_closed(catenary: CommandLine, server: str) -> None:
    """Nobody is connected, and nobody is closed."""
    assert catenary("disconnect", "user_123", "--url", server).out == "0 closed.\n"


def test_a_server_is_drained_and_goes_on(catenary: CommandLine, tmp_path: Path) -> None:
    """It is not ready any more, and says so; SIGTERM then ends it in order."""
    process, url = started("serve", "--dev", "--port", "0", "--log", "memory://")
    try:
        assert "0 connections" in catenary("drain", "--timeout", "0", "--url", url).out
        assert "not ready: draining" in catenary("inspect", "--url", url).out
    finally:
        assert stopped(process) == 0


# Where no server runs


def nowhere() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def test_the_file_is_opened_where_no_server_runs(catenary: CommandLine, tmp_path: Path) -> None:
    """The same commands work, and what they wrote is there for the next server."""
    log = f"sqlite:///{tmp_path / 'events.db'}"
    (tmp_path / "events.db").touch()
    local = ("--log", log, "--port", nowhere())
    assert catenary("emit", "user_123", "app.x", '{"n": 1}', *local).status == 0
    said = catenary("tail", "user_123", "--json", *local)
    assert json.loads(said.out)["data"] == {"n": 1}
    assert "Runs (0)" in catenary("inspect", *local).out


def test_a_file_that_is_not_there_is_not_made(catenary: CommandLine, tmp_path: Path) -> None:
    """A name that was mistyped is an error, not an empty log."""
    log = f"sqlite:///{tmp_path / 'mistyped.db'}"
    said = catenary("inspect", "--log", log, "--port", nowhere())
    assert said.status == 2
    assert "catenary serve" in said.err
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_was_named_and_is_not_there_is_an_error(catenary: CommandLine) -> None:
    """No file is opened in its place."""
    said = catenary("inspect", "--url", f"http://127.0.0.1:{nowhere()}")
    assert said.status == 2
    assert "no server answers at http://127.0.0.1:" in said.err
