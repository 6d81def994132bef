"""serve and token: what they refuse, what they say, and which bridge is served."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest

from catenary import WebSocketBridgeFactory
from catenary.auth import JwtVerifier
from catenary.cli.loading import bridge_of
from catenary.errors import ConfigError
from catenary.settings import load

from .conftest import CommandLine, started, stopped

SECRET = "hush-hush-hush-hush-hush-hush-hush"

MODULE = """
from catenary import WebSocketBridgeFactory

bridge = WebSocketBridgeFactory(log="memory://?private")
nothing = 3

def make_plain():
    return bridge

def make(log, run_drain_timeout):
    made = WebSocketBridgeFactory(log=log, run_drain_timeout=run_drain_timeout)
    made.asked = (log, run_drain_timeout)
    return made

def make_any(**options):
    return WebSocketBridgeFactory(**options)

def make_nothing():
    return 3
"""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "CATENARY_JWT_SECRET"),
        (("--dev", "--host", "0.0.0.0"), "--dev is for this machine only"),
        (("--dev", "--port", "70000"), "CATENARY_PORT (or --port)"),
        (("--dev", "--log", "mysql://x"), "names no event log"),
        (("--dev", "--log", "memory://", "--durability", "power"), "asks for power"),
        (("--jwt-secret", "short"), "openssl rand -hex 32"),
        (("--dev", "--workers", "0"), "CATENARY_WORKERS (or --workers)"),
        (("--dev", "--workers", "2"), "memory:// belongs to one process"),
        (("--dev", "--workers", "2"), "redis://localhost:6379/0 or nats://localhost:4222"),
        (("--dev", "--workers", "2", "--log", "sqlite:///x.db"), "sqlite:///x.db belongs to one"),
        (("--dev", "--worker-ports", "9100"), "for several workers: give CATENARY_WORKERS too"),
        (("--dev", "--app", "nowhere:make"), "no module 'nowhere'"),
        (("--dev", "--app", "shop"), "module:name"),
        (
            ("--dev", "--jwt-secret", SECRET, "--jwks-url", "https://x.example"),
            "exclude each other",
        ),
    ],
)
def test_a_wrong_setting_ends_with_2_and_says_what_to_do(
    arguments: tuple[str, ...], says: str, catenary: CommandLine
) -> None:
    """Nothing is started, and no secret is repeated."""
    said = catenary("serve", *arguments)
    assert said.status == 2
    assert says in said.err
    assert SECRET not in said.err
    assert "Traceback" not in said.err


def test_a_port_that_is_taken_ends_with_2(catenary: CommandLine, server: str) -> None:
    """The error speaks of --port."""
    port = server.rpartition(":")[2]
    said = catenary("serve", "--dev", "--log", "memory://?private", "--port", port)
    assert said.status == 2
    assert "--port 0" in said.err


def test_development_says_so_and_prints_a_token_that_works(tmp_path: Path) -> None:
    """The token opens the history of the user whom it names, and of nobody else."""
    process, url = started("serve", "--dev", "--port", "0", "--log", "memory://")
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(4)]
        assert "nothing, for this log is in memory" in lines[0]
        assert "for this machine only" in lines[1]
        headers = {"authorization": f"Bearer {lines[3].strip()}"}
        with httpx.Client(base_url=url, headers=headers, trust_env=False) as http:
            assert http.get("/api/users/user_123/events").status_code == 200
            assert http.get("/api/users/user_456/events").status_code == 403
            assert http.get("/metrics").status_code == 200
    finally:
        assert stopped(process) == 0


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An application's module, in the directory in which one stands."""
    (tmp_path / "shop_app.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "shop_app", raising=False)
    return "shop_app"


def bridge(app: str, **options: str) -> WebSocketBridgeFactory:
    given = {"app": app, **options}
    return bridge_of(load(given), given)


def test_an_app_is_a_bridge_or_what_makes_one(shop: str) -> None:
    """A function gets what it takes of the settings."""
    assert bridge(f"{shop}:bridge") is bridge(f"{shop}:make_plain")
    made = bridge(f"{shop}:make", log="memory://?private", run_drain_timeout="3")
    assert vars(made)["asked"] == ("memory://?private", 3.0)
    any_made = bridge(
        f"{shop}:make_any", log="memory://?private", heartbeat_interval="7", monitor="off"
    )
    assert any_made.limits.heartbeat_interval == 7
    assert any_made.monitoring is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "is a int"),
        ("make_nothing", "returned a int"),
        ("missing", "has no 'missing'"),
    ],
)
def test_an_app_that_is_no_bridge_is_refused(name: str, says: str, shop: str) -> None:
    """The error says what was found."""
    with pytest.raises(ConfigError, match=says):
        bridge(f"{shop}:{name}")


def test_a_log_that_the_app_does_not_use_is_refused(shop: str) -> None:
    """Events would go elsewhere than the operator believes."""
    with pytest.raises(ConfigError, match="has its own log memory://"):
        bridge(f"{shop}:bridge", log="sqlite:///events.db")


async def verified(token: str) -> str:
    return (await JwtVerifier(secret=SECRET).verify(token)).user_id


async def test_a_token_names_its_user(
    catenary: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is signed with the configured secret, and printed alone, for `$(…)`."""
    monkeypatch.setenv("CATENARY_JWT_SECRET", SECRET)
    said = catenary("token", "user_123", "--ttl", "60", "--session", "phone")
    assert await verified(said.out.strip()) == "user_123"


def test_without_a_secret_there_is_no_token(catenary: CommandLine) -> None:
    """The error names the variable."""
    said = catenary("token", "user_123")
    assert said.status == 2
    assert "CATENARY_JWT_SECRET is not set" in said.err
