"""The examples' pages in a real browser: reloaded, cut off, doubled, stopped, and their server killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, expect

from catenary.validate.chaos import Action, ChaosProxy
from tests.browser import launched
from tests.examples.pages import EXAMPLES, LAST, LONG, WHOLE, Example, Tab, build, sentences

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

FOLDERS = ["plain-javascript", "use-chat", "ag-ui"]
QUESTION = "What is kept?"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with launched() as browser:
        yield browser


@pytest.fixture(scope="module", params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> Path:
    """One of the examples, built."""
    folder = EXAMPLES / str(request.param)
    build(folder)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def example(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Example]:
    """Its server; each test has a conversation of its own."""
    one = Example(folder, tmp_path_factory.mktemp("example"))
    await one.start()
    yield one
    output = await one.kill()
    assert "Traceback" not in output, output


@pytest.fixture
def thread(request: pytest.FixtureRequest) -> str:
    """A name that no other conversation has."""
    return str(request.node.name).split("[", maxsplit=1)[0]


@pytest_asyncio.fixture(loop_scope="module")
async def context(chromium: Browser) -> AsyncIterator[BrowserContext]:
    """A browser of one user, without a past."""
    one = await chromium.new_context()
    yield one
    await one.close()


async def test_a_page_that_is_reloaded_in_mid_answer_shows_all_of_it(
    example: Example, context: BrowserContext, thread: str
) -> None:
    """Once and in order, with the question; the console has nothing to say."""
    tab = await Tab.opened(context, example.url, thread)
    await tab.ask(QUESTION)
    await tab.says("Sentence 3 says")
    await tab.page.reload()
    await tab.is_live()
    assert sentences(await tab.says(LAST)) == WHOLE
    await tab.has_messages("user", "assistant")
    await expect(tab.page.locator("article.user")).to_contain_text(QUESTION)
    await tab.is_ready()
    # It has ended lately: it is there once, whoever tells it.
    await tab.page.reload()
    assert sentences(await tab.says(LAST)) == WHOLE
    # Nothing more may come.
    await tab.page.wait_for_timeout(500)
    await tab.has_messages("user", "assistant")
    assert tab.console.errors == []


async def test_what_is_written_offline_is_sent_and_what_was_said_comes(
    example: Example, context: BrowserContext, thread: str
) -> None:
    """Its connections are gone meanwhile. Nothing comes; then all of it does, and nothing twice."""
    async with ChaosProxy(example.url, seed=7) as network:
        tab = await Tab.opened(context, network.url_for(example.url), thread)
        await tab.ask(QUESTION)
        await tab.says("Sentence 2 says")
        await context.set_offline(True)
        # What was on its way is shown first.
        await tab.page.wait_for_timeout(300)
        held = await tab.says("Sentence 2 says")
        network.apply(Action.CUT)
        await tab.page.wait_for_timeout(400)
        assert await tab.says("Sentence 2 says") == held
        await context.set_offline(False)
        assert sentences(await tab.says(LAST)) == WHOLE
        await tab.is_ready()
        await context.set_offline(True)
        await tab.ask("And now?")
        await context.set_offline(False)
        await tab.has_messages("user", "assistant", "user", "assistant")
        assert sentences(await tab.says(LAST)) == WHOLE
        assert tab.console.own_errors == []


async def test_two_tabs_show_the_same(
    example: Example, context: BrowserContext, thread: str
) -> None:
    """A question of one, its answer, and an approval that the other one gives."""
    one = await Tab.opened(context, example.url, thread)
    other = await Tab.opened(context, example.url, thread)
    await one.ask("tidy up")
    await other.page.locator("button.yes").click(timeout=15_000)
    for tab in (one, other):
        await tab.says("Deleted draft.txt, notes.txt.")
        await tab.is_ready()
        await tab.has_messages("user", "assistant")
        await expect(tab.page.locator("button.yes")).to_have_count(0)
        assert tab.console.errors == []
    texts = [await tab.page.locator("article").all_inner_texts() for tab in (one, other)]
    assert texts[0] == texts[1]


async def test_a_stop_keeps_what_was_said(
    example: Example, context: BrowserContext, thread: str
) -> None:
    """The agent is cancelled, in the other tab too, and the next question is answered."""
    tab = await Tab.opened(context, example.url, thread)
    other = await Tab.opened(context, example.url, thread)
    await tab.page.bring_to_front()
    await tab.ask("Tell me a long story")
    await tab.says("Sentence 2 says")
    await tab.page.click("#stop")
    for each in (tab, other):
        await each.is_ready()
        said = sentences(await each.says("Sentence 2 says"))
        assert said == list(range(1, len(said) + 1))
        assert len(said) < LONG
    await tab.ask("tidy up")
    await tab.page.locator("button.no").click(timeout=15_000)
    await tab.says("Then everything stays.")
    assert tab.console.errors == other.console.errors == []


async def test_a_slow_phone_shows_all_of_it(
    example: Example, context: BrowserContext, thread: str
) -> None:
    """With a sixth of the speed, 400 ms away, and 10 kB a second."""
    tab = await Tab.opened(context, example.url, thread)
    devtools = await context.new_cdp_session(tab.page)
    await devtools.send("Emulation.setCPUThrottlingRate", {"rate": 6})
    network = {"offline": False, "latency": 400}
    speed = {"downloadThroughput": 10_000, "uploadThroughput": 5_000}
    await devtools.send("Network.emulateNetworkConditions", {**network, **speed})
    await tab.page.set_viewport_size({"width": 360, "height": 640})
    await tab.ask(QUESTION)
    assert sentences(await tab.says(LAST)) == WHOLE
    width = await tab.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360
    assert tab.console.errors == []


async def test_approved_after_the_server_was_killed_and_started_again(
    example: Example, context: BrowserContext, thread: str
) -> None:
    """The page that was open goes on by itself, and the agent where it was."""
    tab = await Tab.opened(context, example.url, thread)
    await tab.ask("tidy up")
    await expect(tab.page.locator("button.yes")).to_be_visible(timeout=15_000)
    await example.kill()
    await expect(tab.page.locator("#connection")).not_to_have_text("live", timeout=15_000)
    await example.start()
    await tab.is_live()
    await tab.page.click("button.yes")
    await tab.says("Deleted draft.txt, notes.txt.")
    await tab.has_messages("user", "assistant")
    await tab.is_ready()
    assert tab.console.own_errors == []
