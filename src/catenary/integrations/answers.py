"""What a framework asks its user: in the run that waits, and what the answers say."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from catenary.events import InputRequested
from catenary.runs import Run


async def ask_all(
    run: Run, requests: Iterable[InputRequested], *, timeout: float | None
) -> list[Any]:
    """Ask several things at once, within the run; return the answers in their order."""
    asking = [
        run.ask(
            request.question,
            schema=request.schema,
            kind=request.kind,
            tool_call_id=request.tool_call_id,
            tool_name=request.tool_name,
            tool_input=request.tool_input,
            timeout=timeout,
        )
        for request in requests
    ]
    return list(await asyncio.gather(*asking))


def reason_of(answer: object) -> str | None:
    """Return why an approval was refused, if the user said so."""
    reason = answer.get("reason") if isinstance(answer, dict) else None
    return reason if isinstance(reason, str) and reason else None
