"""Places in a turn: where the stream of a client that comes back goes on."""

from __future__ import annotations

from typing import Protocol

from catenary.errors import UsageError
from catenary.position import Position
from catenary.serving.admission import Refusal
from catenary.serving.turn_store import Begun
from catenary.serving.turns import Asker, Turns
from catenary.wires.translation import Translation, TurnEncoder


class ReopenedEncoder(TurnEncoder, Protocol):
    """An encoder that can begin anew in the middle of a turn."""

    def reopen(self) -> None: ...


async def going_on(
    turns: Turns,
    asker: Asker,
    begun: Begun,
    encoder: ReopenedEncoder,
    *,
    after: str | None,
    through: Position | None = None,
) -> tuple[Translation, str | None]:
    """
    Return the rest of a turn, and after which place to read it.

    Args:
        turns: The turns of the bridge.
        asker: Whose turn it is.
        begun: The turn.
        encoder: What encodes it, before its first event.
        after: The place of the last frame that the client has (see
            :class:`~catenary.wires.translation.Said`); None for none.
        through: Where the part of the turn begins that the client asked for:
            after the place where the turn stopped for what was answered.

    Raises:
        Refusal: If ``after`` is no place.
    """
    place, skips = place_in(after)
    turn = await turns.seen(asker, begun)
    translation = Translation(encoder, stops_from=turn.next_stop, skips=skips)
    if place is not None and (through is None or place.seq > through.seq):
        await turns.read(asker, begun, encoder.take, place)
        # All of it was received, and only the end of the stream was not.
        translation.is_done = turn.is_stopped and turn.stopped_at <= place.seq
        return translation, str(place)
    if through is not None:
        await turns.read(asker, begun, encoder.take, through)
        encoder.reopen()
        return translation, str(through)
    return translation, None


def place_in(after: str | None) -> tuple[Position | None, int]:
    """
    Return the position of a place between frames, and how many frames follow it.

    Raises:
        Refusal: If it is none.
    """
    if after is None or after == "-1":
        return None, 0
    place, _, skips = after.partition("+")
    try:
        return Position.parse(place), int(skips or 0)
    except (UsageError, ValueError):
        raise Refusal(400, "bad_request", "this is no place in a run") from None
