"""The shape of the code: which module may import which, and how large it may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "catenary"
LINES_LIMIT = 400
FUNCTION_LIMIT = 40

CORE = {
    "catenary.events", "catenary.position", "catenary.session", "catenary.fold",
    "catenary.run_state",
    "catenary.record", "catenary.grammar", "catenary.envelope", "catenary.limits",
    "catenary.errors", "catenary.wires.native", "catenary.wires.sse", "catenary.eventlog.terms",
    "catenary.transport", "catenary.observe.follower", "catenary.observe.run_watch",
    "catenary.validate.scoring.content", "catenary.validate.scoring.received",
    "catenary.validate.scoring.silence", "catenary.validate.scoring.summary",
    "catenary.validate.scoring.timing",
    "catenary.wires.turn", "catenary.wires.ai_sdk", "catenary.wires.ag_ui",
    "catenary.wires.translation",
}  # fmt: skip
SEEDED = {
    "catenary.validate.chaos.faults", "catenary.validate.chaos.link",
    "catenary.validate.chaos.path", "catenary.validate.chaos.script",
    "catenary.validate.chaos.profiles",
}  # fmt: skip
"""As the core, but for chance: they draw it from a seed that they are given."""
NOT_IN_CORE = {"asyncio", "socket", "threading", "time", "random", "ssl", "sqlite3"}

# From the top of the house to its ground: a module imports from its own row or from lower ones.
ROWS = [
    {"cli"},
    {"demo", "testing"},
    {"validate"},
    {"serving", "integrations"},
    {"settings"},
    {"factory"},
    {"reporting", "history", "control"},
    {"answering"},
    {"inbound"},
    {"constructor"},
    {"manager"},
    {"connection", "hub", "replay", "emitter", "supervisor"},
    {"lanes"},
    {"runs", "run_verbs", "asking", "current", "tool", "interrupt"},
    {"verbs", "auth", "tickets", "questions"},
    {"voice", "voices", "threads", "crowds"},
    {"eventlog", "observe"},
    {"wires", "session", "context", "redaction", "transport", "inquiries"},
    {"record", "envelope", "fold", "run_state", "grammar", "limits", "surroundings"},
    {"encoding", "events"},
    {"position"},
    {"errors"},
]
FREE = {"client"}
"""Stands beside the house: it shares only events, positions, errors and the wire's words."""

# What one row may take from a higher one, for a reason.
EXCEPTIONS = {
    ("session", "eventlog"),  # a session writes the gap that a log describes
    ("wires", "record"),
    ("factory", "serving"),  # asgi_app() loads the server only when it is asked for one
    ("observe", "manager"),  # metrics show what the manager knows
    ("observe", "factory"),
    ("validate", "client"),
}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path
    return found


def imports_of(path: Path, *, only_top: bool = False) -> set[str]:
    """The modules that a file imports when it runs; those for type checkers do not count."""
    tree = ast.parse(path.read_text())
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        if only_top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            skipped.update(ast.walk(node))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped.update(child for statement in node.body for child in ast.walk(statement))
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def row_of(room: str) -> int:
    return next(index for index, row in enumerate(ROWS) if room in row)


@pytest.mark.parametrize("module", sorted(CORE | SEEDED))
def test_the_core_does_no_input_or_output_and_reads_no_clock(module: str) -> None:
    """Time and randomness come in as values."""
    path = modules().get(module)
    if path is not None:
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots & (NOT_IN_CORE - {"random"} if module in SEEDED else NOT_IN_CORE)


def test_imports_go_one_way() -> None:
    """No module imports from a higher row."""
    wrong = []
    for module, path in modules().items():
        room = room_of(module)
        if not room or room in FREE:
            continue
        for imported in imports_of(path):
            other = room_of(imported) if imported.startswith("catenary.") else ""
            if not other or other == room or (room, other) in EXCEPTIONS:
                continue
            if other in FREE:
                if room not in {"cli", "demo", "testing", "validate"}:
                    wrong.append(f"{module} imports {imported}")
            elif row_of(other) < row_of(room):
                wrong.append(f"{module} imports {imported}")
    assert wrong == []


@pytest.mark.parametrize("path", [pytest.param(p, id=n) for n, p in modules().items()])
def test_modules_and_functions_stay_small(path: Path) -> None:
    """A module of 400 lines or a function of 40 asks for the missing idea."""
    text = path.read_text()
    assert len(text.splitlines()) <= LINES_LIMIT
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body:
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
                assert lines <= FUNCTION_LIMIT, f"{node.name} has {lines} lines"


def test_importing_catenary_loads_no_server() -> None:
    """An agent's process does not pay for a web server, a CLI or metrics."""
    heavy = {"starlette", "uvicorn", "fastapi", "typer", "rich", "prometheus_client", "httpx"}
    code = "import sys, catenary; print(*{name.split('.')[0] for name in sys.modules})"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not heavy & set(result.stdout.split())


def test_no_room_for_everything() -> None:
    """There is no module called utils, helpers or common."""
    assert not {"utils", "helpers", "common", "misc"} & {path.stem for path in modules().values()}


def test_no_module_imports_itself_in_a_circle() -> None:
    """At run time the imports at the top of modules form no circle."""
    names = modules()
    edges = {
        name: {other for other in imports_of(path, only_top=True) if other in names}
        for name, path in names.items()
        if path.name != "__init__.py"
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " → ".join((*path[path.index(name) :], name))
        if name in done or name not in edges:
            return
        for other in edges[name]:
            visit(other, (*path, name))
        done.add(name)

    for name in edges:
        visit(name, ())
