"""The reference names everything that exists, and nothing else."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest
import typer.main
from starlette.routing import Route, WebSocketRoute
from typer.core import TyperGroup

import catenary
from catenary import Run, UserWebSocketEmitter, WebSocketBridgeFactory, WebSocketManager
from catenary.cli import app
from catenary.limits import Limits
from catenary.observe.metrics import BridgeMetrics
from catenary.serving.asgi import BridgeApp
from catenary.settings import Settings, env_name, option_name
from catenary.validate.chaos import LEVELS, PROFILES, Action, Faults
from catenary.validate.checker import Fault, OrderingChecker
from tests.docs.pages import ROOT, prose

REFERENCE = ROOT / "docs" / "reference"
CLASSES: dict[str, type] = {
    each.__name__: each
    for each in (
        WebSocketBridgeFactory,
        UserWebSocketEmitter,
        Run,
        WebSocketManager,
        OrderingChecker,
    )
}
"""Those that have a table of their members."""


def words(name: str) -> set[str]:
    return set(re.findall(r"\w+", (REFERENCE / name).read_text()))


def test_every_public_name_is_in_the_reference() -> None:
    assert set(catenary.__all__) <= words("api.md")


@pytest.mark.parametrize("name", CLASSES)
def test_every_member_that_the_reference_names_exists(name: str) -> None:
    """The first cells of a class's table are its members."""
    text = prose(REFERENCE / "api.md").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (.+?) \|", text, re.MULTILINE)
    members = set(re.findall(r"`(?:await |@)?(\w+)", " ".join(cells)))
    made = WebSocketBridgeFactory("memory://?private")
    own = {"context", "agent_name", "run_id", "async", "events_received"}
    known = set(dir(CLASSES[name])) | set(vars(made)) | own
    assert members
    assert members <= known


@pytest.mark.parametrize("name", CLASSES)
def test_every_argument_that_the_reference_names_exists(name: str) -> None:
    """With its default, where one is shown."""
    text = prose(REFERENCE / "api.md").partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    shown = re.findall(r"`(?:await )?(\w+)\(([^)…]*)\)`", text)
    assert shown
    for method, arguments in shown:
        known = inspect.signature(getattr(CLASSES[name], method)).parameters
        for argument in re.findall(r"\w+(?:=[^,]+)?", arguments):
            parameter, _, default = argument.partition("=")
            assert parameter in known, f"{method}({argument})"
            if default:
                assert repr(known[parameter].default) == default.replace('"', "'"), argument


def test_every_name_of_the_modules_beside_it_exists() -> None:
    rows = re.findall(
        r"^\| (`catenary\..+?) \| (.+?) \|$", (REFERENCE / "api.md").read_text(), re.MULTILINE
    )
    assert len(rows) >= 8
    for modules, names in rows:
        found: set[str] = set()
        try:
            for module in re.findall(r"`([\w.]+)`", modules):
                loaded = importlib.import_module(module)
                found.update([*dir(loaded), *getattr(loaded, "__all__", ())])
        except ModuleNotFoundError as error:
            # A framework that is not in every environment; the module itself must be there.
            assert not str(error.name).startswith("catenary")
            continue
        assert set(re.findall(r"`(\w+)`", names)) <= found, modules


def test_every_setting_is_named_with_its_default() -> None:
    text = (REFERENCE / "settings.md").read_text()
    rows = re.findall(r"^\| `(CATENARY_\w+)` \| `(--[\w-]+)` \| (.+?) \|", text, re.MULTILINE)
    assert [(env, option) for env, option, _ in rows] == [
        (env_name(name), option_name(name)) for name in Settings.model_fields
    ]
    for (env, _, shown), field in zip(rows, Settings.model_fields.values(), strict=True):
        default = field.default
        if default in (None, ()) or default is False:
            assert shown in {"–", "off"}, env
        elif isinstance(default, int | float):
            assert float(shown.strip("`")) == default, env
        else:
            assert shown.strip("`") == str(default), env


def test_every_limit_is_named() -> None:
    named = re.findall(r"`(\w+)`", (REFERENCE / "limits.md").read_text())
    assert set(Limits.__struct_fields__) <= set(named)


def test_every_command_is_named_and_no_other() -> None:
    text = (REFERENCE / "cli.md").read_text()
    table = text.partition("## Commands\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `catenary (log [\w-]+|[\w-]+)", table, re.MULTILINE))
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    exist = set()
    for name, command in group.commands.items():
        inner = command.commands if isinstance(command, TyperGroup) else {"": command}
        exist |= {f"{name} {sub}".strip() for sub in inner}
    assert named == exist


def test_every_option_that_a_page_gives_to_a_command_exists() -> None:
    """In the reference of the command line, in prose and examples."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    options = set()
    for command in group.commands.values():
        inner = command.commands.values() if isinstance(command, TyperGroup) else [command]
        options |= {
            option
            for sub in inner
            for parameter in sub.params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
    named = set(re.findall(r"(?<![\w-])(--[a-z][\w-]+)", (REFERENCE / "cli.md").read_text()))
    assert named - {"--help"} <= options


def test_every_path_is_named() -> None:
    text = (REFERENCE / "http.md").read_text()
    table = text.partition("## Paths\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"^\| `(GET|POST) ([^`]+)`", table, re.MULTILINE))
    wires = ("ai-sdk", "ag-ui", "tanstack")
    endpoints = BridgeApp(WebSocketBridgeFactory("memory://?private"), wires=wires).endpoints
    routes = [
        *endpoints.client_routes(),
        *endpoints.api_routes(),
        *endpoints.health_routes(),
        *endpoints.metrics_routes(),
    ]
    exist = set()
    for route in routes:
        assert isinstance(route, Route | WebSocketRoute)
        path = route.path.replace(":path", "")
        methods = route.methods or set() if isinstance(route, Route) else {"GET"}
        exist |= {(method, path) for method in methods if method != "HEAD"}
    assert named == exist


def test_every_metric_is_named() -> None:
    """And every metric that a page names exists."""
    bridge = BridgeMetrics(WebSocketBridgeFactory("memory://?private"))
    endings = ("", "_total", "_bucket", "_sum", "_count")
    spellings = [{f"{metric.name}{end}" for end in endings} for metric in bridge.collect()]
    named = {
        page: set(re.findall(r"`(catenary_\w+)`", (ROOT / "docs" / page).read_text()))
        for page in ("reference/metrics.md", "how-to/observe.md")
    }
    for names in named.values():
        assert names <= set().union(*spellings)
    assert [
        spelling for spelling in spellings if not spelling & named["reference/metrics.md"]
    ] == []


def test_everything_that_a_network_can_do_is_named() -> None:
    """Faults, levels, actions and profiles, in the page that is about them."""
    text = (ROOT / "docs" / "how-to" / "break-the-network.md").read_text()
    cells = re.findall(r"^\| (`.+?`) \|", text, re.MULTILINE)
    named = set(re.findall(r"`(\w+)`", " ".join(cells)))
    assert named == {*Faults.__struct_fields__, *LEVELS, *PROFILES, *Action.__members__}


def test_every_fault_of_an_order_is_named() -> None:
    text = (ROOT / "docs" / "how-to" / "test-your-agents.md").read_text()
    table = text.partition("| fault | what is wrong |\n")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE) == list(Fault)


def test_every_test_that_the_guarantees_name_exists() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)`", text)
    assert len(named) >= 15
    assert [name for name in named if not (ROOT / name).is_file()] == []
    assert re.findall(r"^\| (G\d)", text, re.MULTILINE) == [f"G{n}" for n in range(1, 9)] * 2


def test_every_module_is_in_the_map_of_the_design() -> None:
    """And every module of the map exists."""
    text = (ROOT / "docs" / "design.md").read_text()
    table = text.partition("## The module map\n")[2]
    cells = " ".join(re.findall(r"^\| (`.+?) \|", table, re.MULTILINE))
    named = {name.split("/")[0] for name in re.findall(r"`([\w/]+)\*?`", cells)}
    source = ROOT / "src" / "catenary"
    files = {path.stem for path in source.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in source.glob("*/__init__.py")}
    assert named == files | folders
