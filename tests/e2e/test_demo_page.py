"""The demo's page in a real browser: asked, cut, slowed, stopped, and its server killed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.browser import SECONDS, Console

from .server import Server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(90)]

QUESTION = "How does a reconnect resume, and what is a gap?"
PACE = 0.05
ANSWER_TIMEOUT = 30 * SECONDS
RUN = "#items > article.run"


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """The demo over a file, at a pace that leaves time to break things."""
    log = f"sqlite:///{tmp_path / 'demo.db'}"
    async with Server(tmp_path, "demo", "--log", log, "--pace", str(PACE)) as demo:
        yield demo


class Tab:
    """One page, and what its console said."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.console = Console(page)

    @property
    def errors(self) -> list[str]:
        return self.console.errors

    async def is_in(self, state: str, timeout: float = 10 * SECONDS) -> None:
        pill = self.page.locator("#pill")
        await expect(pill).to_have_attribute("data-state", state, timeout=timeout)

    async def ask(self, question: str = QUESTION) -> None:
        await self.page.fill("#question", question)
        await self.page.click("#send")

    async def run_is(self, status: str, timeout: float = ANSWER_TIMEOUT) -> None:
        run = self.page.locator(RUN).last
        await expect(run).to_have_attribute("data-status", status, timeout=timeout)

    async def says_something(self) -> str:
        """Wait until the answer has begun; return what it says so far."""
        answer = self.page.locator(f"{RUN} > .answer").last
        # Not a word of it: the answer is made of the documents, which change.
        await expect(answer).to_have_text(re.compile(r"\S.{30}", re.DOTALL), timeout=ANSWER_TIMEOUT)
        return await answer.inner_text()

    async def answer(self) -> str:
        return await self.page.locator(f"{RUN} > .answer").last.inner_text()

    async def count(self, name: str) -> int:
        text = await self.page.locator(f'#counters [data-count="{name}"]').inner_text()
        return int(text.replace(",", ""))

    async def is_whole(self) -> None:
        """Nothing is lost, nothing doubled, and nothing was told lost."""
        for name in ("missing", "doubled", "gaps"):
            assert await self.count(name) == 0, name
        await expect(self.page.locator("#b-lost")).to_have_text("0")
        await expect(self.page.locator("#b-doubled")).to_have_text("0")


async def opened(context: BrowserContext, url: str) -> Tab:
    tab = Tab(await context.new_page())
    await tab.page.goto(url)
    await tab.is_in("live")
    return tab


async def test_an_answer_is_whole_though_the_connection_is_cut(
    server: Server, chromium: Browser
) -> None:
    """Thinking, tools and text come; a cut of 5 s is made up for; a second tab sees the same."""
    context = await chromium.new_context()
    tab = await opened(context, server.url)
    await tab.ask()
    steps = tab.page.locator(f"{RUN} .step")
    await expect(steps.filter(has_text="search").first).to_be_visible(timeout=ANSWER_TIMEOUT)
    assert await tab.page.locator(f"{RUN} .step.thought").count() > 0
    before = len(await tab.says_something())
    await tab.page.click("#cut")
    await tab.is_in("waiting")
    second = await opened(context, tab.page.url)
    await tab.is_in("live", timeout=15 * SECONDS)
    await tab.run_is("done")
    await second.run_is("done")
    assert len(await tab.answer()) > before
    assert await second.answer() == await tab.answer()
    assert await tab.count("reconnects") == 1
    for each in (tab, second):
        await each.is_whole()
        assert each.errors == []
    assert await tab.count("last") == await second.count("last")


async def test_a_slow_reader_gets_everything_later(server: Server, chromium: Browser) -> None:
    """While the server holds its connection back nothing comes; then all of it does."""
    tab = await opened(await chromium.new_context(), server.url)
    await tab.ask()
    await tab.says_something()
    await tab.page.click("#slow")
    await tab.is_in("slow")
    held_at = await tab.count("received")
    await asyncio.sleep(2)
    assert await tab.count("received") <= held_at + 1
    await tab.is_in("live", timeout=15 * SECONDS)
    await tab.run_is("done")
    assert await tab.count("last") > held_at
    await tab.is_whole()
    assert await tab.count("reconnects") == 0
    assert tab.errors == []


async def test_a_run_that_is_stopped_keeps_what_it_said(server: Server, chromium: Browser) -> None:
    """The button cancels the run, and its partial answer stays."""
    tab = await opened(await chromium.new_context(), server.url)
    await tab.ask()
    said = await tab.says_something()
    await tab.page.click("#halt")
    await tab.run_is("cancelled")
    assert (await tab.answer()).startswith(said[:20])
    await tab.is_whole()
    assert tab.errors == []


async def test_the_page_goes_on_when_its_server_was_killed(
    server: Server, chromium: Browser
) -> None:
    """After kill -9 and a new start the run is closed as lost, its partial answer is kept."""
    tab = await opened(await chromium.new_context(), server.url)
    user = await tab.page.locator("#f-user").get_attribute("title")
    await tab.ask()
    said = await tab.says_something()
    await server.kill()
    await tab.is_in("waiting")
    await server.start()
    await tab.is_in("live", timeout=30 * SECONDS)
    await tab.run_is("lost")
    assert (await tab.answer()).startswith(said[:20])
    assert await tab.page.locator("#f-user").get_attribute("title") == user
    await tab.ask("How many guarantees are there?")
    await expect(tab.page.locator(RUN)).to_have_count(2)
    await tab.run_is("done")
    await tab.is_whole()
    assert tab.console.own_errors == []
