"""Every Python block of the documents runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.agents import NEEDS
from tests.docs.pages import ROOT, blocks, pages

VIRTUAL_TIME = "docs/how-to/virtual-time.md"
OWN_TESTS = {"README.md", "docs/tutorial.md", VIRTUAL_TIME}


def names() -> list[str]:
    found = (str(page.relative_to(ROOT)) for page in pages() if blocks(page, "python"))
    return [name for name in found if name not in OWN_TESTS]


@pytest.mark.parametrize("name", names())
def test_the_blocks_of_a_page_run_one_after_another(name: str, tmp_path: Path) -> None:
    """They run in a process of their own, and do what the page says."""
    if package := NEEDS.get(Path(name).stem):
        pytest.importorskip(package, reason=f"{package} is not installed")
    run([sys.executable, "-W", "error", "-m", "tests.docs.stage", name], tmp_path)


def run(command: list[str], folder: Path) -> str:
    # The source beside these tests, wherever an installed one may be.
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def run_block(block: str, more: str, folder: Path) -> str:
    (folder / "block.py").write_text(block + more)
    return run([sys.executable, "-W", "error", "block.py"], folder)


def test_the_plain_example_of_the_readme_prints_what_was_emitted_before(tmp_path: Path) -> None:
    """It has the lines that the text promises, and prints three events."""
    block = blocks(ROOT / "README.md", "python")[0]
    code = [line for line in block.splitlines() if line.strip()]
    assert len(code) <= 15
    lines = run_block(block, "", tmp_path).splitlines()
    assert lines[0].startswith("in the log: ")
    assert [line.split()[1] for line in lines[1:]] == [
        "agent_started", "agent_thinking", "agent_completed",
    ]  # fmt: skip


_ASK = """
import json

import httpx
import websockets

from tests.docs.stage import serving


async def use() -> None:
    async with serving(app) as url, httpx.AsyncClient(base_url=url) as http:
        asked = {"question": "Which?"}
        assert (await http.post("/questions", params=asked)).status_code == 401
        http.cookies.set("session", "the-cookie-of-user_123")
        answer = (await http.post("/questions", params=asked)).json()
        assert answer["user_id"] == "user_123"
        cookie = {"Cookie": "session=the-cookie-of-user_123"}
        live = url.replace("http", "ws") + "/live/ws"
        async with websockets.connect(live, additional_headers=cookie) as socket:
            async for text in socket:
                message = json.loads(text)
                print(message["type"])
                if message["type"] == "agent_completed":
                    print(message["data"]["result"])
                    break


asyncio.run(use())
"""


def test_the_fastapi_example_of_the_readme_answers_over_its_websocket(tmp_path: Path) -> None:
    """A question asked by a user comes back to that user as a run."""
    printed = run_block(blocks(ROOT / "README.md", "python")[1], _ASK, tmp_path).splitlines()
    assert printed[0] == "connected"
    assert printed[-1] == "{'answer': 'Two bridges fit.'}"
    assert {"tool_executing", "tool_completed", "agent_delta"} <= set(printed)


def test_the_examples_in_virtual_time_take_none(tmp_path: Path) -> None:
    """They run event loops of their own; the first says how long it believes to have taken."""
    printed = [run_block(block, "", tmp_path) for block in blocks(ROOT / VIRTUAL_TIME, "python")]
    assert printed[0].splitlines() == [
        "['agent_started', 'tool_executing', 'tool_completed', 'agent_error']",
        "600 virtual seconds",
    ]
    assert printed[1:] == ["", ""]
