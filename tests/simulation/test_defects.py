"""
The simulation finds what is wrong: defects that are planted in a copy of the source.

``CATENARY_DEFECTS=all`` plants every one of them, which takes minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.course import verdict_on
from tests.simulation.defects import DEFECTS, Defect
from tests.simulation.schedule import Schedule

USUAL = (
    "the last reader leaves its watcher",
    "a filtered turn passes over one event",
    "a client goes on beyond a gap",
    "a client comes back one event too late",
)
ROOT = Path(__file__).parents[2]
SCHEDULES = 1000
LONGEST_TOKEN = 120

SEARCH = """
import gc, json, sys, time
from tests.simulation.searching import search
gc.collect()
gc.freeze()
began = time.process_time()
found = search(range(int(sys.argv[1])))
if found is None:
    sys.exit("no schedule finds it")
print(json.dumps({
    "tried": found.tried,
    "operations": len(found.schedule.operations),
    "token": found.schedule.token,
    "kind": found.problems[0].kind,
    "text": str(found.problems[0]),
    "told": str(found),
    "seconds": round(time.process_time() - began, 1),
}))
"""


class Planted:
    """A copy of the package with a defect in it."""

    def __init__(self, defect: Defect, folder: Path) -> None:
        shutil.copytree(
            ROOT / "src", folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
        defect.plant(folder)
        self._path = os.pathsep.join([str(folder), str(ROOT)])

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run Python with the copy in the package's place."""
        return subprocess.run(
            [sys.executable, "-B", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": self._path, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def found(self) -> dict[str, Any]:
        """Search for a schedule that finds the defect, and make it short."""
        answer = self.python("-c", SEARCH, str(SCHEDULES))
        assert answer.returncode == 0, answer.stderr[-2000:]
        found: dict[str, Any] = json.loads(answer.stdout)
        return found

    def replay(self, told: str) -> subprocess.CompletedProcess[str]:
        """Run the command that replays what was found, as it was printed."""
        [command] = [line for line in told.splitlines() if line.startswith("replay it:")]
        setting, program, *arguments = command.removeprefix("replay it:").split()
        name, token = setting.split("=", 1)
        return self.python("-m", program, *arguments, "-p", "no:cacheprovider", **{name: token})


def planted_here() -> list[Defect]:
    """Return the defects that are to be planted: few, or all that was asked for."""
    if os.environ.get("CATENARY_DEFECTS") == "all":
        return DEFECTS
    return [defect for defect in DEFECTS if defect.name in USUAL]


def check(defect: Defect, folder: Path) -> None:
    """A schedule finds it; its token is short, replays it, and blames nothing but the defect."""
    planted = Planted(defect, folder)
    found = planted.found()
    print(
        f"{defect.name}: schedule {found['tried']}, {found['operations']} operations, "
        f"{len(found['token'])} characters, {found['seconds']} s: {found['text']:.70}"
    )
    assert len(found["token"]) <= LONGEST_TOKEN
    replay = planted.replay(found["told"])
    assert replay.returncode == 1
    assert "1 failed" in replay.stdout
    assert f"{found['kind']}: " in replay.stdout
    assert verdict_on(Schedule.from_token(found["token"])) == []


@pytest.mark.timeout(120)
def test_a_planted_defect_gives_a_token_that_replays_it(tmp_path: Path) -> None:
    """A wake-up that is lost: found, made short, and shown again by its token alone."""
    [defect] = [one for one in DEFECTS if one.name == "a wake-up during a turn is lost"]
    check(defect, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("defect", planted_here(), ids=lambda one: one.name.replace(" ", "-"))
def test_planted_defects_are_found(defect: Defect, tmp_path: Path) -> None:
    """Whatever part it is in; ``pytest -s`` says by which schedule, and how short it became."""
    check(defect, tmp_path)


def test_a_defect_that_cannot_be_planted_says_so(tmp_path: Path) -> None:
    """Where the source has changed, the list must follow."""
    with pytest.raises(LookupError, match=r"reads otherwise now"):
        Planted(Defect("made up", "hub.py", "no such line", ""), tmp_path)
