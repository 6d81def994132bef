"""Reading the log for a cursor that is behind the tail."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from catenary.errors import CloseCode, LogError, LogUnavailable
from catenary.eventlog.stream import Stream

if TYPE_CHECKING:
    from catenary.connection import Connection

logger = logging.getLogger("catenary.connection")

TURN_BYTES = 64 * 1024
"""A cursor hands over at most this much a turn."""

RETRY_SECONDS = 1.0


async def replay(connection: Connection, stream: Stream) -> None:
    """
    Write pages until the tail has the reader's next event, or its socket is full.

    A bounded number of cursors of a node replay at a time. While the log cannot
    be read the connection stays, up to the log's patience; then it is closed
    with 4003, or with 1011 where waiting cannot help.
    """
    hub = connection.hub
    patience_ends = hub.loop.time() + hub.limits.log_patience
    while connection.stream is stream and not connection.transport.is_paused:
        try:
            async with hub.replay_slots:
                await _write_pages(connection, stream)
                return
        except LogUnavailable as error:
            if hub.loop.time() > patience_ends:
                _give_up(connection, CloseCode.LOG_UNAVAILABLE, error)
                return
        except LogError as error:
            _give_up(connection, CloseCode.INTERNAL, error)
            return
        await asyncio.sleep(hub.uniform(0, RETRY_SECONDS))


async def _write_pages(connection: Connection, stream: Stream) -> None:
    """Write pages while the socket takes them."""
    log = connection.hub.log
    while connection.stream is stream and not connection.transport.is_paused:
        page = await log.read(
            connection.log_id,
            connection.place,
            limit_bytes=TURN_BYTES,
            thread_ids=connection.thread_ids,
        )
        if connection.stream is not stream:
            return
        connection.write_page(page)
        if _is_in_tail(connection, stream):
            return
        # Those who are live go first.
        await asyncio.sleep(0)


def _is_in_tail(connection: Connection, stream: Stream) -> bool:
    tail, place = stream.tail, connection.place
    return tail is not None and place.epoch == stream.epoch and place.seq + 1 >= tail.first


def _give_up(connection: Connection, code: CloseCode, error: LogError) -> None:
    logger.warning("connection %s cannot read: %s", connection.session.connection_id, error)
    connection.close(code, "the event log cannot be read")
