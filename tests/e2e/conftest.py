"""Chromium for the tests of pages, and a stack for what tests open on their way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest_asyncio
from playwright.async_api import Browser

from tests.browser import launched


@pytest_asyncio.fixture
async def chromium() -> AsyncIterator[Browser]:
    """The system's Chromium."""
    async with launched() as browser:
        yield browser


@pytest_asyncio.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What is entered into it is left when the test ends, the last first."""
    async with AsyncExitStack() as opened:
        yield opened
