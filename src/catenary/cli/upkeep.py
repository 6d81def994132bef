"""``log``: what is done to a store."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from catenary.cli.teaching import command
from catenary.eventlog.opening import move_logs, open_log

commands = typer.Typer(help="Look after an event log.", no_args_is_help=True)


@commands.callback()
def log() -> None:
    """Look after an event log."""


@command(commands, "catenary log new-term sqlite:///events.db", name="new-term")
def new_term(
    url: Annotated[str, typer.Argument(help="The event log, such as sqlite:///events.db.")],
    user: Annotated[str | None, typer.Option(help="Only this user's log.")] = None,
) -> None:
    """
    Begin a new term, after a backup was restored. Stop the server first.

    A restored file holds less than readers have seen, and would give the same numbers again.
    A new term makes that plain to them: they get a gap, and none takes new events for old ones.
    """
    count = asyncio.run(_begin(url, user))
    print(f"{count} {'log has' if count == 1 else 'logs have'} a new term.")


@command(
    commands,
    "catenary log move redis://one:6379/0 'redis://one:6379,another:6379/0?shards=1'",
    name="move",
)
def move(
    source: Annotated[str, typer.Argument(help="Where the logs are, such as redis://one:6379/0.")],
    target: Annotated[str, typer.Argument(help="Where they are to be.")],
) -> None:
    """
    Move logs to other servers of Redis: to several, to one more, to a cluster. Stop every node first.

    Until it is done no node can open either. If it fails, call it again with the same URLs.
    Readers are told by a gap that numbering began anew; no event is lost.
    """
    print(f"{move_logs(source, target)} keys are on other servers now.")


async def _begin(url: str, user: str | None) -> int:
    store = open_log(url)
    await store.start()
    try:
        return await store.new_term(user)
    finally:
        await store.stop()
