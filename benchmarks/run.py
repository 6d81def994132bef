"""Run the scenarios: the server on one core, the client on another. Prints a table."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent

# Scenario, users, what the client is told, logs.
MEMORY = ("memory://",)
PLAN: list[tuple[str, int, list[str], tuple[str, ...]]] = [
    ("single", 100, [], MEMORY),
    ("watched", 100, [], MEMORY),
    ("burst", 100, [], MEMORY),
    ("paced", 100, ["--latency"], (*MEMORY, "process", "power")),
    ("connects", 1000, ["--seconds", "2"], MEMORY),
    ("resume", 1000, ["--after", "start", "--expect", "100"], (*MEMORY, "power")),
    ("idle", 5000, ["--seconds", "4"], MEMORY),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pinned(core: int) -> list[str]:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return ["taskset", "-c", str(cores[core % len(cores)])] if len(cores) > 1 else []


def run(scenario: str, users: int, client: list[str], log: str) -> dict[str, Any]:
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        url = log if log.startswith("memory") else f"sqlite:///{folder}/b.db?durability={log}"
        server = subprocess.Popen(
            [*pinned(0), sys.executable, str(HERE / "bridge.py"), "--scenario", scenario,
             "--users", str(users), "--port", str(port), "--log", url],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert server.stdout is not None
        while server.stdout.readline().strip() != "LISTENING":
            if server.poll() is not None:
                raise SystemExit("the server did not start")
        load = subprocess.run(
            [*pinned(1), sys.executable, str(HERE / "load.py"), "--port", str(port),
             "--connections", str(users), "--seconds", "6", *client],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        result: dict[str, Any] = {"log": log}
        for line in [*server.stdout, *load.stdout.splitlines()]:
            if line.startswith("{"):
                result |= json.loads(line)
        server.wait(timeout=60)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="one scenario")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = [
        {"scenario": scenario, **run(scenario, users, client, log)}
        for scenario, users, client, logs in PLAN
        for log in logs
        if options.only in (None, scenario)
    ]
    if options.json:
        print(json.dumps(results, indent=2))
        return
    columns = ["scenario", "log", "connections", "events", "events_per_s", "cpu_us_per_event",
               "p50_ms", "p99_ms", "all_complete_s", "bytes_per_idle_connection"]  # fmt: skip
    table = Table(*columns)
    for result in results:
        table.add_row(*(str(result.get(column, "")) for column in columns))
    Console().print(table)


if __name__ == "__main__":
    main()
