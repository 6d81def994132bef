"""Waiting for what something else does, with an end and a text that says what was waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from catenary.errors import ValidationFailed

LOOK_SECONDS = 0.01


async def until(condition: Callable[[], object], *, what: str, timeout: float = 10.0) -> None:
    """
    Look again and again until ``condition`` holds.

    Raises:
        ValidationFailed: After ``timeout`` seconds; ``what`` says what was waited for.
    """
    try:
        async with asyncio.timeout(timeout):
            while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        raise ValidationFailed(f"{what}: not within {timeout:g} s") from None
