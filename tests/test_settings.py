"""Settings: where each comes from, what is refused and how that reads, and that secrets stay so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from catenary.auth import sign_token
from catenary.errors import AuthError, ConfigError
from catenary.eventlog.opening import open_log
from catenary.limits import Limits
from catenary.observe.monitoring import Monitoring
from catenary.settings import (
    Settings,
    check_durability,
    env_name,
    is_loopback,
    load,
    option_name,
    revealed,
    secured,
    shown,
    verifier,
)

SECRET = "hush-hush-hush-hush-hush-hush-hush"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own environment says nothing."""
    for name in os.environ:
        if name.upper().startswith("CATENARY_"):
            monkeypatch.delenv(name)


def test_options_win_over_the_environment_and_that_over_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An option that is None, or a variable that is empty, counts as absent."""
    monkeypatch.setenv("CATENARY_PORT", "9000")
    monkeypatch.setenv("CATENARY_LOG", "sqlite:///events.db")
    monkeypatch.setenv("CATENARY_HOST", "")
    settings = load({"port": "9001", "log": None})
    assert (settings.port, settings.log) == (9001, "sqlite:///events.db")
    assert settings.host == "127.0.0.1"


def test_every_limit_is_a_setting_with_its_default() -> None:
    """A limit that is added without its setting could be set by nobody."""
    assert set(Limits.__struct_fields__) <= set(Settings.model_fields)
    assert load().limits() == Limits()


def test_what_the_monitors_look_for_can_be_set() -> None:
    """The rest keeps its defaults; off is off."""
    assert load().monitoring() == Monitoring()
    options = {"monitor_connections": 3, "monitor_silence": "5", "monitor_latency": 0.5}
    assert load(options).monitoring() == Monitoring(connections=3, silence=5, latency=0.5)
    assert load({"monitor": "off"}).monitoring() is None
    with pytest.raises(ConfigError, match="CATENARY_MONITOR "):
        load({"monitor": "perhaps"})


def test_every_setting_says_what_it_is() -> None:
    """`config` and `--help` show these sentences."""
    assert all(field.description for field in Settings.model_fields.values())


def test_a_dotenv_file_that_lies_about_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a directory holds does not change a server that is started in it."""
    (tmp_path / ".env").write_text("CATENARY_PORT=1\n")
    monkeypatch.chdir(tmp_path)
    assert load().port == 8000


def test_lists_are_split_at_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces around the words do not count."""
    monkeypatch.setenv("CATENARY_ALLOWED_ORIGINS", "https://a.example, https://b.example,")
    assert load().allowed_origins == ("https://a.example", "https://b.example")


def test_a_wrong_value_is_named_by_its_variable_and_option() -> None:
    """The text says which one, and does not repeat what was given: it may be a secret."""
    with pytest.raises(ConfigError) as caught:
        load({"port": "hush", "heartbeat_interval": "-1"})
    text = str(caught.value)
    assert "CATENARY_PORT (or --port)" in text
    assert "CATENARY_HEARTBEAT_INTERVAL (or --heartbeat-interval)" in text
    assert "hush" not in text


def test_two_kinds_of_key_exclude_each_other() -> None:
    """It would not be plain which one counts."""
    with pytest.raises(ConfigError, match="CATENARY_JWT_SECRET and CATENARY_JWKS_URL"):
        load({"jwt_secret": SECRET, "jwks_url": "https://keys.example"})


# What a server may start with


def test_without_a_key_a_server_starts_for_development_only() -> None:
    """The refusal names every way out."""
    with pytest.raises(ConfigError, match=r"CATENARY_JWT_SECRET.*CATENARY_JWKS_URL.*--dev"):
        secured(load())


def test_development_makes_random_secrets_anew_each_time() -> None:
    """They are kept nowhere, so no two servers share them."""
    first, second = secured(load({"dev": True})), secured(load({"dev": True}))
    secrets = [revealed(each.jwt_secret) for each in (first, second)]
    keys = [revealed(each.api_key) for each in (first, second)]
    assert all(secret is not None and len(secret) >= 32 for secret in (*secrets, *keys))
    assert len({*secrets, *keys}) == 4


def test_development_keeps_what_was_configured() -> None:
    """A secret that was given is the one that counts."""
    settings = secured(load({"dev": True, "jwt_secret": SECRET}))
    assert revealed(settings.jwt_secret) == SECRET


@pytest.mark.parametrize("host", ["0.0.0.0", "10.0.0.5", "::", "server.example"])
def test_development_is_for_this_machine_only(host: str) -> None:
    """Whoever reaches a development server gets any token, so nobody else may reach it."""
    with pytest.raises(ConfigError, match="--dev is for this machine only"):
        load({"dev": True, "host": host})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("demo.localhost", True),
        ("0.0.0.0", False),
        ("localhost.evil.example", False),
        ("", False),
    ],
)
def test_which_names_mean_this_machine(host: str, expected: bool) -> None:
    """A name of somebody else's may resolve to anything."""
    assert is_loopback(host) is expected


async def test_the_verifier_checks_what_was_configured() -> None:
    """Audience and issuer reach it."""
    settings = load({"jwt_secret": SECRET, "jwt_audience": "shop", "jwt_issuer": "idp"})

    token = sign_token("user_123", secret=SECRET, audience="shop", issuer="idp")
    assert (await verifier(settings).verify(token)).user_id == "user_123"
    with pytest.raises(AuthError):
        await verifier(settings).verify(sign_token("user_123", secret=SECRET, audience="other"))


@pytest.mark.parametrize(
    ("url", "durability", "is_enough"),
    [
        ("memory://?private", "any", True),
        ("memory://?private", "process", False),
        ("sqlite:///{}/a.db?durability=process", "process", True),
        ("sqlite:///{}/a.db?durability=process", "power", False),
        ("sqlite:///{}/a.db", "power", True),
    ],
)
def test_a_log_that_keeps_less_than_was_asked_for_is_refused(
    url: str, durability: str, is_enough: bool, tmp_path: Path
) -> None:
    """The log's own word counts."""
    log = open_log(url.format(tmp_path))
    settings = load({"durability": durability})
    if is_enough:
        check_durability(settings, log)
    else:
        with pytest.raises(ConfigError, match=f"asks for {durability}"):
            check_durability(settings, log)


# Showing


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by `config`, nor in what Python prints."""
    monkeypatch.setenv("CATENARY_JWT_SECRET", SECRET)
    monkeypatch.setenv("CATENARY_LOG", f"redis://user:{SECRET}@host/0")
    settings = load({"api_key": SECRET, "metrics_key": SECRET})
    rows = shown(settings, {"api_key": SECRET})
    assert SECRET not in f"{rows} {settings!r} {settings}"
    by_name = {row.name: row for row in rows}
    assert by_name["jwt_secret"].value == "(set, not shown)"
    assert by_name["log"].value == "redis://…@host/0"


def test_each_setting_shows_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Option, environment or default."""
    monkeypatch.setenv("CATENARY_HOST", "localhost")
    options = {"port": "9000", "log": None}
    sources = {row.name: row.source for row in shown(load(options), options)}
    assert sources["port"] == "option"
    assert sources["host"] == "environment"
    assert sources["log"] == "default"
    assert set(sources) == set(Settings.model_fields)


def test_names_of_a_setting() -> None:
    """One rule makes them, so that one is known from the other."""
    assert env_name("jwt_secret") == "CATENARY_JWT_SECRET"
    assert option_name("jwt_secret") == "--jwt-secret"


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"host": "0.0.0.0", "port": "9000"}, "http://127.0.0.1:9000"),
        ({"host": "::1"}, "http://[::1]:8000"),
        ({"url": "https://shop.example/"}, "https://shop.example"),
    ],
)
def test_where_the_running_server_is(options: dict[str, str], url: str) -> None:
    """At its own address, unless another is named."""
    assert load(options).server_url == url
