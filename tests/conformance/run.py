"""
Run Autobahn's fuzzing client against the echo server, and judge its report.

Exits with 0 if every case passed, or if there is no Python 2.7 to run the
suite with (it says so); with 1 otherwise. See the README beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from catenary.validate.stores import free_port

HERE = Path(__file__).parent
SUITE = "autobahntestsuite==25.10.1"
SECTIONS = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
CASES = 247
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
LIMIT_SECONDS = 600


def find_python27(wanted: str | None) -> Path | None:
    """Return the first that runs of: the one asked for, the one on the path, pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates: list[str | Path] = (
        [wanted] if wanted else ["python2.7", *pyenv.glob("versions/2.7*/bin/python2.7")]
    )
    for candidate in candidates:
        path = shutil.which(candidate)
        # A version manager's shim may be on the path without a version behind it.
        if path and not subprocess.run([path, "-V"], check=False, capture_output=True).returncode:
            return Path(path)
    return None


def install(python27: Path, build: Path) -> Path:
    """Make the suite's environment, unless it is there, and return its command."""
    wstest = build / "suite" / "bin" / "wstest"
    if not wstest.exists():
        tools = build / "tools"
        for command in (
            [sys.executable, "-m", "venv", str(tools)],
            [str(tools / "bin/pip"), "install", "-q", "virtualenv<20.22"],
            [str(tools / "bin/virtualenv"), "-q", "-p", str(python27), str(build / "suite")],
            [str(build / "suite/bin/pip"), "install", "-q", SUITE],
        ):
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return wstest


def fuzz(wstest: Path, build: Path, urls: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Run all cases against each URL; return the outcomes by agent and case."""
    report = build / "report"
    spec = {
        "outdir": str(report),
        "servers": [{"agent": agent, "url": url} for agent, url in urls.items()],
        "cases": SECTIONS,
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    shutil.rmtree(report, ignore_errors=True)
    (build / "spec.json").write_text(json.dumps(spec))
    command = [str(wstest), "-m", "fuzzingclient", "-s", str(build / "spec.json")]
    with (build / "wstest.log").open("w") as log:
        subprocess.run(command, check=True, timeout=LIMIT_SECONDS, stdout=log, stderr=log)
    outcomes: dict[str, dict[str, Any]] = json.loads((report / "index.json").read_text())
    return outcomes


def judge(agent: str, cases: dict[str, Any]) -> bool:
    """Print the outcomes of one agent; return whether it passed."""
    failed = {
        case: f"{result['behavior']}, closing {result['behaviorClose']}"
        for case, result in cases.items()
        if {result["behavior"], result["behaviorClose"]} - PASSED
    }
    counts = Counter(result["behavior"] for result in cases.values())
    print(f"{agent}: {len(cases)} cases, {dict(counts)}")
    for case, outcome in failed.items():
        print(f"  {case}: {outcome}")
    return not failed and len(cases) == CASES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python27", help="a Python 2.7 interpreter")
    parser.add_argument("--build", type=Path, default=Path("build/conformance"))
    parser.add_argument("--url", help="test this server instead of starting one")
    options = parser.parse_args()
    python27 = find_python27(options.python27)
    if python27 is None:
        print("skipped: conformance needs a Python 2.7, and none was found")
        return 0
    build = options.build.resolve()
    build.mkdir(parents=True, exist_ok=True)
    wstest = install(python27, build)
    if options.url:
        outcomes = fuzz(wstest, build, {"given": options.url})
    else:
        outcomes = fuzz_own(wstest, build)
    verdicts = [judge(agent, cases) for agent, cases in outcomes.items()]
    print(f"report: {build / 'report' / 'index.html'}")
    return 0 if verdicts and all(verdicts) else 1


def fuzz_own(wstest: Path, build: Path) -> dict[str, dict[str, Any]]:
    """Run all cases against the product's own echo, and against one by ASGI messages."""
    taken, plain = free_port(), free_port()
    serve = ["-m", "catenary.cli", "serve", "--dev", "--log", "memory://", "--port", str(taken)]
    with (
        running([sys.executable, *serve], taken),
        running([sys.executable, str(HERE / "echo.py"), str(plain)], plain),
    ):
        urls = {
            "serve --dev": f"ws://127.0.0.1:{taken}/echo",
            "asgi": f"ws://127.0.0.1:{plain}/echo",
        }
        return fuzz(wstest, build, urls)


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """Run a server until the block is left; it listens when the block begins."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 20
            while not _listens(port):
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{' '.join(command)} does not listen")
                time.sleep(0.1)
            yield
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
