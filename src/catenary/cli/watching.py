"""``tail``: a user's events in the terminal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from catenary.cli.desk import Desk, desk_of, user_path
from catenary.cli.options import REMOTE_SETTINGS, takes_settings
from catenary.cli.rendering import event_line
from catenary.cli.teaching import command
from catenary.client import Client, Gap
from catenary.events import WebSocketEvent, decode_event
from catenary.settings import Settings, load

commands = typer.Typer()

Show = Callable[[WebSocketEvent], None]


@command(
    commands,
    "catenary tail user_123",
    "catenary tail user_123 --after now",
    "catenary tail user_123 --thread t1 --no-follow --json",
)
@takes_settings(*REMOTE_SETTINGS, "jwt_secret", "jwt_audience", "jwt_issuer")
def tail(
    options: dict[str, Any],
    user: Annotated[str, typer.Argument(help="Whose events.")],
    after: Annotated[
        str, typer.Option(help="Where to begin: start, open, now, or a position.")
    ] = "start",
    thread: Annotated[str | None, typer.Option(help="Only the events of this thread.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="CATENARY_TOKEN", help="That user's token.")
    ] = None,
    follow: Annotated[bool, typer.Option(help="Go on as events come.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """
    Watch a user's events as they come, resumed across breaks. Ctrl+C ends it.

    The token is that of --token, or signed with the configured secret, or a development server's
    own. Where no server runs, the file is read once.
    """
    console = Console(highlight=False, soft_wrap=True)

    def show(event: WebSocketEvent) -> None:
        if as_json:
            print(msgspec.json.encode(event).decode(), flush=True)
        else:
            console.print(event_line(event))

    try:
        asyncio.run(_tail(load(options), user, after, thread, token, follow, show))
    except KeyboardInterrupt:
        return


async def _tail(
    settings: Settings,
    user: str,
    after: str,
    thread: str | None,
    token: str | None,
    follow: bool,
    show: Show,
) -> None:
    async with desk_of(settings) as desk:
        if desk.is_local or not follow:
            await _show_history(desk, user, after, thread, show)
            return

        async def fresh_token() -> str:
            return token or await desk.token(user)

        url = f"ws{settings.server_url.removeprefix('http')}/ws"
        threads = [] if thread is None else [thread]
        client = Client(url, token=fresh_token, after=after, thread_ids=threads, on_gap=_warn)
        async with client:
            async for event in client:
                show(event)


async def _show_history(desk: Desk, user: str, after: str, thread: str | None, show: Show) -> None:
    """Show what is there, page by page."""
    while True:
        query = {"after": after, "thread_id": thread, "limit": 500}
        page = await desk.ask("GET", user_path(user, "events"), query=query)
        if "gap" in page:
            gap = page["gap"]
            _tell(f"gap: events after {gap['after']} are lost ({gap['reason']})")
        for event in page["events"]:
            show(decode_event(msgspec.json.encode(event)))
        after = page["position"]
        if not page["more"]:
            return


def _warn(gap: Gap) -> None:
    _tell(f"gap: events after {gap.after} are lost ({gap.reason})")


def _tell(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, style="yellow", markup=False)
