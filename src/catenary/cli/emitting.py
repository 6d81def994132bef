"""``emit``: one event into a user's log."""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any

import msgspec
import typer

from catenary.cli.desk import desk_of, user_path
from catenary.cli.options import REMOTE_SETTINGS, takes_settings
from catenary.cli.teaching import command
from catenary.errors import ConfigError
from catenary.settings import Settings, load

commands = typer.Typer()


@command(
    commands,
    """catenary emit user_123 app.greeting '{"text": "hello"}'""",
    "catenary emit user_123 agent_started --run r1 --agent researcher",
    "jq .report report.json | catenary emit user_123 app.report -",
)
@takes_settings(*REMOTE_SETTINGS)
def emit(
    options: dict[str, Any],
    user: Annotated[str, typer.Argument(help="Whose log.")],
    type: Annotated[str, typer.Argument(help="A type; one of your own should contain a dot.")],
    data: Annotated[
        str, typer.Argument(metavar="JSON", help="The data, a JSON object; - reads it from stdin.")
    ] = "{}",
    thread: Annotated[str | None, typer.Option(help="The thread that it belongs to.")] = None,
    run: Annotated[str | None, typer.Option(help="The run that it belongs to.")] = None,
    agent: Annotated[str | None, typer.Option(help="The name of the agent.")] = None,
) -> None:
    """
    Append one event to a user's log and print its position.

    It goes through the running server, whose API key is needed (CATENARY_API_KEY), or into the
    file where no server runs.
    """
    event = {
        "type": type,
        "data": _parsed(sys.stdin.read() if data == "-" else data),
        "thread_id": thread,
        "run_id": run,
        "agent_name": agent,
    }
    body = {name: value for name, value in event.items() if value is not None}
    print(asyncio.run(_emit(load(options), user, body)))


async def _emit(settings: Settings, user: str, body: dict[str, Any]) -> str:
    async with desk_of(settings) as desk:
        answer = await desk.ask("POST", user_path(user, "events"), body=body)
        return str(answer["position"])


def _parsed(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise ConfigError(
            f"""the data are no JSON object: {error}. Write them like '{{"text": "hello"}}'"""
        ) from None
