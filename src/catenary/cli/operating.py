"""``inspect``, and what one does about what it shows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.console import Console

from catenary.cli.desk import Desk, Refused, desk_of, run_path, user_path
from catenary.cli.options import REMOTE_SETTINGS, takes_settings
from catenary.cli.rendering import ago, print_table
from catenary.cli.teaching import command
from catenary.settings import Settings, load

commands = typer.Typer()

User = Annotated[str, typer.Argument(help="Which user.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The id of the run.")]
OfUser = Annotated[
    str | None, typer.Option("--user", help="Whose run; needed if several users have that id.")
]


def _ask(options: dict[str, Any], method: str, path: str, **body: Any) -> dict[str, Any]:
    """Ask once, leaving out what is None."""
    given = {name: value for name, value in body.items() if value is not None}
    return asyncio.run(_asked(load(options), method, path, given))


async def _asked(settings: Settings, method: str, path: str, body: Any) -> dict[str, Any]:
    async with desk_of(settings) as desk:
        return await desk.ask(method, path, body=body)


# Looking


@command(
    commands,
    "catenary inspect",
    "catenary inspect user_123",
    "catenary inspect run_8f3a --url http://10.0.0.5:8000",
)
@takes_settings(*REMOTE_SETTINGS)
def inspect(
    options: dict[str, Any],
    what: Annotated[
        str | None, typer.Argument(metavar="USER|RUN|THREAD", help="All of them if absent.")
    ] = None,
) -> None:
    """
    Why does it hang? Show open runs, connections, and messages that are being handled.

    A run whose last event is long ago waits for something: its open tools and questions say for what. A
    connection with a lag does not read.
    """
    console = Console(highlight=False)
    asyncio.run(_inspect(load(options), what, console))


async def _inspect(settings: Settings, what: str | None, console: Console) -> None:
    async with desk_of(settings) as desk:
        seen = await _found(desk, what)
        if seen["problem"]:
            console.print(f"The bridge is not ready: {seen['problem']}", style="yellow")
        _show_runs(console, seen)
        _show_connections(console, seen["connections"])
        _show_handlers(console, seen["handlers"])
        if what is not None:
            users = dict.fromkeys(run["user_id"] for run in seen["runs"]) or [what]
            await _show_what_is_awaited(desk, console, users, seen["runs"])


async def _found(desk: Desk, what: str | None) -> dict[str, Any]:
    """Return what the server knows under a name, whatever it names."""
    if what is None:
        return await desk.ask("GET", "/api/inspect")
    for kind in ("run", "thread"):
        try:
            seen = await desk.ask("GET", "/api/inspect", query={kind: what})
        except Refused:
            continue
        if seen["runs"]:
            return seen
    return await desk.ask("GET", "/api/inspect", query={"user": what})


def _show_runs(console: Console, seen: dict[str, Any]) -> None:
    title = f"Runs ({seen['totals']['runs']})"
    columns = ("run", "user", "thread", "agent", "state", "age", "last event", "holder", "lease")
    print_table(console, title, columns, map(_run_row, seen["runs"]))


def _run_row(run: dict[str, Any]) -> list[str]:
    state = "open" if run["is_open"] else run.get("end_type", "ended")
    if run["is_open"] and "cancel_asked_for" in run:
        state = f"cancel asked for {ago(run['cancel_asked_for'])} ago"
    lease = f"{run['lease']:.0f} s" if "lease" in run else "its process"
    return [
        run["run_id"],
        run["user_id"],
        run.get("thread_id", "–"),
        run.get("agent_name", "–"),
        state,
        ago(run["age"]),
        f"{ago(run['silent_for'])} ago, seq {run['last_seq']}",
        run["holder"],
        lease,
    ]


def _show_connections(console: Console, connections: Iterable[dict[str, Any]]) -> None:
    columns = ("connection", "user", "node", "status", "position", "lag", "last heard", "age")
    rows = (
        [
            info["connection_id"],
            info["user_id"],
            info["node"],
            info["status"],
            info["position"],
            info["lag"],
            f"{ago(info['silent_for'])} ago",
            ago(info["age"]),
        ]
        for info in connections
    )
    print_table(console, "Connections", columns, rows)


def _show_handlers(console: Console, handlers: Iterable[dict[str, Any]]) -> None:
    rows = ([handler["user_id"], handler["message_id"]] for handler in handlers)
    print_table(console, "Messages being handled", ("user", "message"), rows)


async def _show_what_is_awaited(
    desk: Desk, console: Console, users: Iterable[str], runs: list[dict[str, Any]]
) -> None:
    tools, questions = [], []
    open_ids = {run["run_id"] for run in runs if run["is_open"]}
    for user_id in users:
        known = await desk.ask("GET", user_path(user_id, "runs"))
        for state in known["runs"]:
            if state["run_id"] in open_ids:
                tools += [[state["run_id"], *row] for row in _open_tools(state)]
            questions += [[state["run_id"], *row] for row in _pending(state)]
    print_table(console, "Tools that have not answered", ("run", "tool", "call"), tools)
    columns = ("run", "run is", "question", "kind", "asks", "expires in")
    print_table(console, "Questions to the user", columns, questions)


def _pending(state: dict[str, Any]) -> list[list[str]]:
    if state["status"] not in {"running", "suspended"}:
        return []
    now = time.time()
    return [
        [
            state["status"],
            asked["request_id"],
            asked.get("kind", "question"),
            asked.get("question") or asked.get("tool_name", "–"),
            ago(max(0.0, asked["expires_at"] / 1000 - now)) if "expires_at" in asked else "–",
        ]
        for asked in state.get("questions", ())
        if "by" not in asked
    ]


def _open_tools(state: dict[str, Any]) -> list[list[str]]:
    return [
        [tool["tool_name"], tool["tool_call_id"]]
        for tool in state.get("tools", ())
        if "status" not in tool
    ]


# Doing


@command(commands, "catenary cancel run_8f3a", "catenary cancel run_8f3a --reason 'asked to'")
@takes_settings(*REMOTE_SETTINGS)
def cancel(
    options: dict[str, Any],
    run_id: RunId,
    user: OfUser = None,
    reason: Annotated[str | None, typer.Option(help="What its user reads.")] = None,
) -> None:
    """
    Ask a run to stop, wherever it lives.

    It ends with agent_cancelled; if it has not stopped by itself after 10 seconds, the bridge
    closes it. What was said so far stays.
    """
    path = run_path(run_id, "cancel")
    answer = _ask(options, "POST", path, user_id=user, reason=reason)
    print("It had ended already." if answer["already_ended"] else "Asked; it will end soon.")


@command(commands, "catenary close-run run_8f3a", name="close-run")
@takes_settings(*REMOTE_SETTINGS)
def close_run(
    options: dict[str, Any],
    run_id: RunId,
    user: OfUser = None,
    reason: Annotated[str | None, typer.Option(help="What its user reads.")] = None,
) -> None:
    """
    End a run at once, without asking its agent; what that still emits is refused.

    It ends with agent_error, code closed. To let the agent end it itself, cancel it instead.
    """
    answer = _ask(options, "POST", run_path(run_id, "close"), user_id=user, reason=reason)
    print("It had ended already." if answer["already_ended"] else "Closed.")


@command(commands, "catenary disconnect user_123", "catenary disconnect user_123 --session phone")
@takes_settings(*REMOTE_SETTINGS)
def disconnect(
    options: dict[str, Any],
    user: User,
    session: Annotated[str | None, typer.Option(help="Only this session's.")] = None,
) -> None:
    """
    Close a user's connections; the client is told not to come back.

    To keep somebody out, revoke the credential too: a page may connect again when it is reloaded.
    """
    answer = _ask(options, "POST", user_path(user, "disconnect"), session_id=session)
    print(f"{answer['disconnected']} closed.")


@command(commands, "catenary erase user_123 --yes", "catenary erase user_123 --thread t1")
@takes_settings(*REMOTE_SETTINGS)
def erase(
    options: dict[str, Any],
    user: User,
    thread: Annotated[str | None, typer.Option(help="Only this thread.")] = None,
    is_sure: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """
    Erase what the log holds of a user, or of one thread. It cannot be undone.

    Readers that have not seen it yet are told of a gap. Your own database is your own matter.
    """
    what = f"all events of {user}" if thread is None else f"the thread {thread} of {user}"
    if not is_sure:
        typer.confirm(f"Erase {what}? It cannot be undone", abort=True)
    answer = _ask(options, "POST", user_path(user, "erase"), thread_id=thread)
    print(f"{answer['erased']} events erased.")


@command(commands, "catenary drain", "catenary drain --timeout 60 --url http://10.0.0.5:8000")
@takes_settings(*REMOTE_SETTINGS)
def drain(
    options: dict[str, Any],
    timeout: Annotated[
        float | None, typer.Option(help="How many seconds open runs may go on.")
    ] = None,
) -> None:
    """
    Take a server out of service: not ready, connections sent elsewhere, runs given their time.

    The process goes on; stop it when `catenary inspect` shows no runs any more. SIGTERM does the
    same and then ends it.
    """
    answer = _ask(options, "POST", "/api/drain", timeout=timeout)
    print(f"Draining; {answer['connections']} connections are being closed.")
