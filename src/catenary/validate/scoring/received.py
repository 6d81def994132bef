"""Events with the time at which a user's client received them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from catenary.events import WebSocketEvent, decode_event


class Received(NamedTuple):
    """One event, and when it came, in seconds of any clock that does not go back."""

    event: WebSocketEvent
    at: float


def received_events(messages: Iterable[tuple[Mapping[str, Any], float]]) -> list[Received]:
    """
    Return the events among messages of the wire, each given with the time it came.

    Heartbeats and other control messages are no events: nobody sees them.

    Raises:
        ProtocolError: If a message has a ``seq`` and is no event.
    """
    return [Received(decode_event(message), at) for message, at in messages if "seq" in message]
