"""The limit of connections that one user has to all nodes together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from catenary.context import ConnectionStatus
from catenary.errors import CloseCode, LogError
from catenary.inquiries import ConnectionInfo, Disconnect, Looked

logger = logging.getLogger("catenary.manager")

ENDING = (ConnectionStatus.CLOSING, ConnectionStatus.CLOSED)


def over(limit: int) -> str:
    """Return what a connection is told that is closed for a newer one."""
    return f"over {limit} connections; this was the longest silent"


class Crowds:
    """
    Closes the longest silent connections of users who have too many, wherever they are.

    Nodes that see it at the same time choose the same ones. What is not done,
    because the log was away, is done when the next one comes.
    """

    def __init__(
        self,
        limit: int,
        look: Callable[[str], Awaitable[Looked]],
        close: Callable[[Disconnect], Awaitable[int]],
    ) -> None:
        self._limit = limit
        self._look = look
        self._close = close
        self._at_work: dict[str, asyncio.Task[None]] = {}

    def thin_out(self, user_id: str) -> None:
        """Begin to look at a user's connections, on the running loop."""
        if user_id not in self._at_work:
            task = asyncio.create_task(self._thin_out(user_id), name=f"catenary crowd {user_id}")
            self._at_work[user_id] = task
            task.add_done_callback(lambda _: self._at_work.pop(user_id, None))

    async def _thin_out(self, user_id: str) -> None:
        try:
            looked = await self._look(user_id)
            chosen = self._chosen(looked.connections)
            if chosen:
                await self._close(
                    Disconnect(
                        user_id=user_id,
                        connection_ids=chosen,
                        code=CloseCode.TOO_MANY_CONNECTIONS,
                        reason=over(self._limit),
                    )
                )
        except LogError as error:
            logger.warning("connections of %s over the limit stay for now: %s", user_id, error)

    def _chosen(self, found: list[ConnectionInfo]) -> list[str]:
        staying = [info for info in found if info.status not in ENDING]
        # Not by how long they are silent, for nodes answer at different moments.
        staying.sort(key=lambda info: info.heard_at)
        return [info.connection_id for info in staying[: max(0, len(staying) - self._limit)]]
