"""The examples as their users start them, and what their pages have in common."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path

import httpx
from playwright.async_api import BrowserContext, Page, expect

from catenary.validate.stores import free_port
from tests.browser import SECONDS, Console, need

EXAMPLES = Path(__file__).parents[2] / "examples"
CLIENT = Path(__file__).parents[2] / "clients" / "js"
START_TIMEOUT = 30.0
ANSWER_TIMEOUT = 30 * SECONDS
PACE = 0.01
LONG = 200
LAST = "Sentence 12 says that the log has it."


def build(folder: Path) -> None:
    """Build the page of an example, where it has to be built."""
    if not (folder / "package.json").exists():
        return
    npm = need("npm")
    for package in (CLIENT, folder):
        if not (package / "node_modules").exists():
            _run([npm, "ci", "--no-audit", "--no-fund"], package)
    _run([npm, "run", "dist"], CLIENT)
    _run([npm, "run", "build"], folder)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


class Example:
    """The server of an example, on one port through all its lives."""

    def __init__(self, folder: Path, directory: Path) -> None:
        self._folder = folder
        self._directory = directory
        self._process: Process | None = None
        self._port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start it, and wait until it serves its page."""
        environment = {
            **os.environ,
            "PORT": str(self._port),
            "PACE": str(PACE),
            "LOG": f"sqlite:///{self._directory / 'events.db'}",
            "DATA": str(self._directory),
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "app.py", cwd=self._folder, env=environment, stdout=PIPE, stderr=STDOUT
        )
        async with asyncio.timeout(START_TIMEOUT), httpx.AsyncClient(trust_env=False) as client:
            while not await self._serves(client):
                await asyncio.sleep(0.05)

    async def _serves(self, client: httpx.AsyncClient) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, await self._output()
        try:
            return (await client.get(self.url)).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    async def _output(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        return (await self._process.stdout.read()).decode()

    async def kill(self) -> str:
        """End it as a crash would; return what it printed."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        return await self._output()


class Tab:
    """One page with one conversation."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.console = Console(page)

    @classmethod
    async def opened(cls, context: BrowserContext, url: str, thread: str) -> Tab:
        """Open the page, and wait until it is connected."""
        tab = cls(await context.new_page())
        await tab.page.goto(f"{url}/#{thread}")
        await tab.is_live()
        return tab

    async def is_live(self) -> None:
        connection = self.page.locator("#connection")
        await expect(connection).to_have_text("live", timeout=ANSWER_TIMEOUT)

    async def ask(self, question: str) -> None:
        await self.page.fill("#text", question)
        await self.page.click("#send")

    async def says(self, text: str | re.Pattern[str]) -> str:
        """Wait until the last answer has this; return the answer."""
        answer = self.page.locator("article.assistant").last
        await expect(answer).to_contain_text(text, timeout=ANSWER_TIMEOUT)
        return await answer.inner_text()

    async def is_ready(self) -> None:
        """Wait until nothing is at work."""
        await expect(self.page.locator("#stop")).to_be_hidden(timeout=ANSWER_TIMEOUT)

    async def has_messages(self, *roles: str) -> None:
        """Wait until the conversation has these messages, and no others."""
        articles = self.page.locator("article")
        await expect(articles).to_have_count(len(roles), timeout=ANSWER_TIMEOUT)
        for index, role in enumerate(roles):
            await expect(articles.nth(index)).to_have_class(re.compile(rf"\b{role}\b"))


def sentences(answer: str) -> list[int]:
    """Return which sentences of the long answer are there, in their order."""
    return [
        int(number) for number in re.findall(r"Sentence (\d+) says that the log has it", answer)
    ]


WHOLE = list(range(1, 13))
"""All of them."""
