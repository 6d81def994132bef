"""
The settings of a server, read once, at the edge.

From options of the command line, else from environment variables that begin
with ``CATENARY_``, else the defaults. A file ``.env`` is not read.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from catenary.auth import JwtVerifier
from catenary.errors import ConfigError
from catenary.eventlog.base import EventLog
from catenary.eventlog.model import Durability
from catenary.eventlog.urls import without_secrets
from catenary.factory import RUN_DRAIN_TIMEOUT
from catenary.limits import Limits
from catenary.observe.monitoring import MONITORING, Monitoring
from catenary.voice import DATA_LIMIT_BYTES

PREFIX = "CATENARY_"

_LIMITS = Limits()

Words = Annotated[tuple[str, ...], NoDecode]
"""Several words, with commas between them in the environment."""


class Settings(BaseSettings):
    """Every setting of ``catenary serve``. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    # The server

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """The port to listen on; 0 takes any that is free."""
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    """How many processes serve the port; more than 1 need a log that can be shared."""
    worker_ports: Annotated[int, Field(ge=1, le=65535)] | None = None
    """With several workers, worker 1 listens on this port too, worker 2 on the next: for its metrics."""
    app: str | None = None
    """Where the bridge is made, as module:name; without it a plain one is served."""
    dev: bool = False
    """For development: a random secret if there is none, and /echo. On loopback only."""
    url: str | None = None
    """Where the running server is, for the commands that speak to it; if absent, at host and port."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least log records that are written."""
    log_format: Literal["console", "json"] = "console"
    """How log records are written."""
    run_drain_timeout: Annotated[float, Field(ge=0)] = RUN_DRAIN_TIMEOUT
    """How long open runs may go on once the server is told to stop."""
    monitor: Literal["on", "off"] = "on"
    """Whether the running bridge is watched for silent runs, broken connections and faults."""
    monitor_connections: Annotated[int, Field(ge=0)] = MONITORING.connections
    """How many connections are looked at closely at a time."""
    monitor_silence: Annotated[float, Field(gt=0)] = MONITORING.silence
    """An open run that says nothing for so long is warned about."""
    monitor_latency: Annotated[float, Field(gt=0)] = MONITORING.latency
    """An event that is written so long after its emission is warned about."""

    wires: Words = ()
    """Whose clients are served too: ai-sdk, ag-ui, tanstack."""
    on_abort: Literal["cancel", "detach"] = "cancel"
    """What the abort of a client on these wires does: cancel the run, or detach from it."""

    # The event log

    log: Annotated[str, Field(repr=False)] = "memory://"
    """The event log: memory://, sqlite:///events.db, redis://host:6379/0, nats://host:4222."""
    durability: Literal["any", "process", "power"] = "any"
    """What an acknowledged event must survive; the server refuses to start on a log below it."""

    # Who may connect

    jwt_secret: SecretStr | None = None
    """The secret that tokens are signed with (HS256), 32 bytes or more."""
    jwt_key_file: Path | None = None
    """A PEM public key that tokens are verified with."""
    jwks_url: str | None = None
    """The https address of a JWKS that has the keys."""
    jwt_algorithms: Words = ()
    """The algorithms taken; those of the key if empty."""
    jwt_audience: Words = ()
    """Tokens must be for one of these."""
    jwt_issuer: Words = ()
    """Tokens must be from one of these."""
    cookie_name: str | None = None
    """A cookie that browsers may send the token in."""
    allowed_origins: Words = ()
    """Pages that may connect; if empty, those of the server's own host."""
    api_key: SecretStr | None = None
    """What producers and operators show as a Bearer token. Without it there is no /api for them."""
    metrics_key: SecretStr | None = None
    """What whoever reads /metrics shows. Without it, and on loopback, they are open."""

    # Limits

    data_limit_bytes: Annotated[int, Field(gt=0)] = DATA_LIMIT_BYTES
    """The most that the data of an event may take."""
    message_bytes: Annotated[int, Field(gt=0)] = _LIMITS.message_bytes
    """The most that a client's message may take."""
    wire_message_bytes: Annotated[int, Field(gt=0)] = _LIMITS.wire_message_bytes
    """The same on the wires of other clients, which send whole histories."""
    nesting: Annotated[int, Field(gt=0)] = _LIMITS.nesting
    """How deep a client's message may be nested."""
    connections_per_user: Annotated[int, Field(gt=0)] = _LIMITS.connections_per_user
    """How many connections a user may have."""
    messages_per_second: Annotated[float, Field(gt=0)] = _LIMITS.messages_per_second
    """How many messages a client may send a second."""
    messages_burst: Annotated[int, Field(gt=0)] = _LIMITS.messages_burst
    """How many messages a client may send at once."""
    handshake_timeout: Annotated[float, Field(gt=0)] = _LIMITS.handshake_timeout
    """How long a client may take to say who it is."""
    heartbeat_interval: Annotated[float, Field(gt=0)] = _LIMITS.heartbeat_interval
    """A heartbeat comes after so long without a message."""
    bad_messages: Annotated[int, Field(gt=0)] = _LIMITS.bad_messages
    """After so many bad messages a connection is closed."""
    refused_messages: Annotated[int, Field(gt=0)] = _LIMITS.refused_messages
    """After so many messages over the rate, one after another, a connection is closed."""
    commands_waiting: Annotated[int, Field(gt=0)] = _LIMITS.commands_waiting
    """How many messages of a connection may wait to be handled."""
    credential_grace: Annotated[float, Field(ge=0)] = _LIMITS.credential_grace
    """How long a connection may outlive its credential."""
    credential_lifetime: Annotated[float, Field(gt=0)] = _LIMITS.credential_lifetime
    """How long a connection may live on a credential without an end."""
    unauthenticated_connections: Annotated[int, Field(gt=0)] = _LIMITS.unauthenticated_connections
    """How many connections may wait for their first message."""
    replaying: Annotated[int, Field(gt=0)] = _LIMITS.replaying
    """How many connections read from the log at a time."""
    start_patience: Annotated[float, Field(gt=0)] = _LIMITS.start_patience
    """How long a client of another wire waits for the run that answers it to begin."""
    log_patience: Annotated[float, Field(gt=0)] = _LIMITS.log_patience
    """How long connections wait for a log that cannot be read before they are closed."""
    tail_bytes: Annotated[int, Field(gt=0)] = _LIMITS.tail_bytes
    """How much of the latest events is held in memory for all who are connected."""

    @field_validator(
        "jwt_algorithms", "jwt_audience", "jwt_issuer", "allowed_origins", "wires", mode="before"
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(part.strip() for part in parts if part.strip())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read options and the environment, and nothing that lies about."""
        return init_settings, env_settings

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def has_key(self) -> bool:
        """Whether there is a way to verify tokens."""
        return any((self.jwt_secret, self.jwt_key_file, self.jwks_url))

    @property
    def server_url(self) -> str:
        """Where the running server is, for those who speak to it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104
        own = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        return (self.url or own).rstrip("/")

    def monitoring(self) -> Monitoring | None:
        """Return what the monitors look for; None if they are off."""
        if self.monitor == "off":
            return None
        return Monitoring(
            connections=self.monitor_connections,
            silence=self.monitor_silence,
            latency=self.monitor_latency,
        )

    def limits(self) -> Limits:
        """Return the limits of the native wire."""
        return Limits(**{name: getattr(self, name) for name in Limits.__struct_fields__})


def is_loopback(host: str) -> bool:
    """Whether a name or an address means this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load(options: Mapping[str, Any] | None = None) -> Settings:
    """
    Read the settings; ``options`` (None counts as absent) win over the environment.

    Raises:
        ConfigError: If one is wrong or they do not go together; it names each
            with its variable and option, and no secret's value.
    """
    given = {name: value for name, value in (options or {}).items() if value not in (None, ())}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise ConfigError("\n".join(map(_explained, error.errors(include_input=False)))) from None
    _check(settings)
    return settings


def _explained(problem: Any) -> str:
    name = ".".join(map(str, problem["loc"]))
    text = problem["msg"][:1].lower() + problem["msg"][1:]
    return f"{env_name(name)} (or {option_name(name)}): {text}"


def env_name(name: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + name.upper()


def option_name(name: str) -> str:
    """Return the option of a setting on the command line."""
    return f"--{name.replace('_', '-')}"


def _check(settings: Settings) -> None:
    keys = ("jwt_secret", "jwt_key_file", "jwks_url")
    given = [name for name in keys if getattr(settings, name)]
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(map(env_name, given))} exclude each other; keep one")
    if settings.dev and not settings.is_loopback:
        raise ConfigError(
            f"--dev is for this machine only, and --host {settings.host} is reachable from others: "
            "leave --host out, or give a key (CATENARY_JWT_SECRET) and leave --dev out"
        )
    if settings.worker_ports is not None and settings.workers == 1:
        raise ConfigError(
            f"{env_name('worker_ports')} is for several workers: give {env_name('workers')} too"
        )


def secured(settings: Settings) -> Settings:
    """
    Return settings that a server may start with; in development with a random secret.

    The random secret and API key are kept nowhere: every start makes new ones.

    Raises:
        ConfigError: If there is no way to verify tokens, without ``dev``.
    """
    if not settings.dev:
        if settings.has_key:
            return settings
        raise ConfigError(
            "there is nothing to verify tokens with. Give CATENARY_JWT_SECRET (32 bytes or more, "
            "such as `openssl rand -hex 32` makes), CATENARY_JWT_KEY_FILE or CATENARY_JWKS_URL; "
            "or try it out with --dev: a random secret, on this machine only"
        )
    missing: dict[str, Any] = {}
    if not settings.has_key:
        missing["jwt_secret"] = SecretStr(secrets.token_urlsafe(32))
    if settings.api_key is None:
        missing["api_key"] = SecretStr(secrets.token_urlsafe(32))
    return settings.model_copy(update=missing)


def revealed(secret: SecretStr | None) -> str | None:
    """Return what a secret setting holds."""
    return None if secret is None else secret.get_secret_value()


def verifier(settings: Settings) -> JwtVerifier:
    """
    Return what verifies tokens.

    Raises:
        ConfigError: If the key cannot be used.
    """
    return JwtVerifier(
        secret=revealed(settings.jwt_secret),
        key_file=settings.jwt_key_file,
        jwks_url=settings.jwks_url,
        algorithms=settings.jwt_algorithms,
        audience=settings.jwt_audience or None,
        issuer=settings.jwt_issuer or None,
    )


def required_durability(settings: Settings) -> Durability | None:
    """Return what an acknowledged event must survive; None if that is not asked."""
    return None if settings.durability == "any" else Durability(settings.durability)


def check_durability(settings: Settings, log: EventLog) -> None:
    """
    Refuse a log that keeps less than was asked for; one that tells only when it opens, then.

    Raises:
        ConfigError: If so, with what to do.
    """
    wanted = log.required = required_durability(settings)
    if wanted is not None and not log.is_shared and log.durability.is_below(wanted):
        raise ConfigError(
            f"{env_name('durability')} asks for {wanted}, and {log.shown_url.partition('?')[0]} gives "
            f"{log.durability}: choose another log, such as sqlite:///events.db (power), or ask "
            "for less"
        )


def check_workers(settings: Settings, log: EventLog) -> None:
    """
    Refuse a log that several workers cannot share.

    Raises:
        ConfigError: If so, with what to do.
    """
    if settings.workers > 1 and not log.is_shared:
        raise ConfigError(
            f"{settings.workers} workers need an event log that they share, and "
            f"{log.shown_url.partition('?')[0]} belongs to one process: give {env_name('log')} a "
            "Redis or NATS, such as redis://localhost:6379/0 or nats://localhost:4222, or leave "
            "--workers out"
        )


class Shown(NamedTuple):
    """One setting, as ``catenary config`` shows it."""

    name: str
    variable: str
    value: str
    source: str
    about: str


def shown(settings: Settings, options: Mapping[str, Any] | None = None) -> list[Shown]:
    """Return every setting with its value, secrets masked, and where it comes from."""
    given = {name for name, value in (options or {}).items() if value not in (None, ())}
    environment = {name.upper() for name, value in os.environ.items() if value}
    rows = []
    for name, field in Settings.model_fields.items():
        variable = env_name(name)
        source = "environment" if variable in environment else "default"
        rows.append(
            Shown(
                name,
                variable,
                _masked(getattr(settings, name)),
                "option" if name in given else source,
                field.description or "",
            )
        )
    return rows


def _masked(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "(set, not shown)"
    if value is None or value == ():
        return "–"
    if isinstance(value, tuple):
        return ", ".join(value)
    return without_secrets(str(value))
