"""``validate``: the campaigns, against a bridge that is started here or one that runs elsewhere."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import typer
from rich.console import Console

from catenary.cli.desk import signed_token
from catenary.cli.options import takes_settings
from catenary.cli.teaching import command
from catenary.errors import ConfigError
from catenary.settings import Settings, load, revealed

if TYPE_CHECKING:
    from catenary.validate.bridges import RemoteBridge

commands = typer.Typer()

TOKEN_SECONDS = 10.0
PACKAGES = ("jinja2", "junitparser", "plotly", "psutil", "trustme")


@command(
    commands,
    "catenary validate --quick",
    "catenary validate --suite ordering --suite chaos --report ./report",
    "catenary validate --log sqlite:///events.db --seed 7 --compare before/report.json --report after",
    "catenary validate --url wss://bridge.example/ws --token-command 'mint-token {user}'",
)
@takes_settings("api_key", "jwt_secret", "jwt_audience", "jwt_issuer")
def validate(
    options: dict[str, Any],
    url: Annotated[
        str | None, typer.Option(help="The /ws of a bridge that runs; else one is started here.")
    ] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(help="Only this suite; or suite:part for some rows. May be repeated."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Shorten what takes long: under two minutes.")
    ] = False,
    log: Annotated[
        str, typer.Option(help="The event log of the bridge that is started here.")
    ] = "memory://?private",
    seed: Annotated[str | None, typer.Option(help="Repeat the draws of an earlier run.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="A directory for report.html, report.json and junit.xml.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="An earlier report.json: what is worse is marked.")
    ] = None,
    token_command: Annotated[
        str | None,
        typer.Option(help="For --url: a command that prints a token; {user} stands for the user."),
    ] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="Show the suites and their rows, and ask nothing.")
    ] = False,
) -> None:
    """
    Ask a bridge to prove what Catenary promises: real server, real sockets, real faults.

    Without --url a bridge is started here for the time of it. With --url tokens come from
    --token-command, else they are signed with CATENARY_JWT_SECRET, else a server that was started
    with --dev gives them; events are published with CATENARY_API_KEY. Rows that would kill or
    freeze the server, or that run agents inside it, are left out then, and say so; over wss:// also
    those that put a network that breaks before it. Rows that ask the package, and not the bridge,
    say that.

    Exit status 0 if no row falls short, 1 if one does.
    """
    check_installed()
    from catenary.cli.campaigning import list_rows, show_campaign, show_regressions  # noqa: PLC0415
    from catenary.validate.campaign import Campaign, chosen_rows  # noqa: PLC0415
    from catenary.validate.report import compare as compared  # noqa: PLC0415
    from catenary.validate.report import read_report, write_report  # noqa: PLC0415
    from catenary.validate.rows import Scale  # noqa: PLC0415
    from catenary.validate.suites import SUITES  # noqa: PLC0415

    console = Console(highlight=False)
    rows = chosen_rows(SUITES, suite or [])
    if show_list:
        list_rows(console, rows)
        return
    earlier = None if compare is None else read_report(compare)
    remote = None if url is None else remote_bridge(url, load(options), token_command)
    scale = Scale.QUICK if quick else Scale.FULL
    try:
        found = show_campaign(
            console, Campaign(rows, scale=scale, seed=seed, log=log, remote=remote)
        )
    finally:
        if remote is not None:
            remote.close()
    if earlier is not None:
        show_regressions(console, compared(earlier, found))
    if report is not None:
        console.print(f"Report: {write_report(found, report, earlier=earlier)}", soft_wrap=True)
    if not found.holds:
        raise typer.Exit(1)


def check_installed() -> None:
    """
    Raise unless what the campaigns use beside the bridge is installed.

    Raises:
        ConfigError: If something is missing; with how to install it.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"`catenary validate` needs {', '.join(missing)}: pip install 'catenary[validate]'"
        )


def remote_bridge(url: str, settings: Settings, token_command: str | None) -> RemoteBridge:
    """
    Return a bridge that runs elsewhere, with the credentials that there are for it.

    Raises:
        ConfigError: If nothing brings tokens, or there is no key to publish with.
    """
    from catenary.validate.bridges import RemoteBridge  # noqa: PLC0415

    told = _development_credentials(url)
    api_key = revealed(settings.api_key) or told.get("api_key")
    if api_key is None:
        raise ConfigError(
            "to validate a bridge that runs elsewhere events are published to it: give its key "
            "with CATENARY_API_KEY or --api-key"
        )
    return RemoteBridge(
        url, token=_token_source(url, settings, token_command, told), api_key=api_key
    )


def _token_source(
    url: str, settings: Settings, token_command: str | None, told: dict[str, Any]
) -> Callable[[str], str]:
    if token_command is not None:
        return lambda user_id: _run_token_command(token_command, user_id)
    if settings.jwt_secret is not None:
        return lambda user_id: signed_token(settings, user_id)
    if "token" in told:
        return lambda user_id: str(_development_credentials(url, user_id)["token"])
    raise ConfigError(
        "nothing here brings a token for the users of a validation: give --token-command, or the "
        "server's secret with CATENARY_JWT_SECRET; or start the server with --dev"
    )


def _run_token_command(token_command: str, user_id: str) -> str:
    words = [word.replace("{user}", user_id) for word in shlex.split(token_command)]
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own command
            words, capture_output=True, text=True, timeout=TOKEN_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ConfigError(f"the token command {words[0]!r} failed: {error}") from error
    return done.stdout.strip()


def _development_credentials(url: str, user_id: str = "validate") -> dict[str, Any]:
    """Ask a server that was started with --dev; any other one knows no such path."""
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme)
    if scheme is None:
        raise ConfigError(f"{url!r} is no WebSocket URL; one looks like wss://host/ws")
    base = urlunsplit((scheme, parts.netloc, parts.path.removesuffix("/ws"), "", ""))
    response = httpx.post(
        f"{base}/dev/credentials",
        json={"user_id": user_id},
        timeout=TOKEN_SECONDS,
        # The certificates of all authorities take long to load, and a storm asks 200 times.
        verify=scheme == "https",
        trust_env=False,
    )
    told: dict[str, Any] = response.json() if response.is_success else {}
    return told
