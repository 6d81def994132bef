"""Which client messages of one log were claimed, and their replies."""

from __future__ import annotations

from collections import OrderedDict

from catenary.eventlog.model import Claim, ClaimState

WINDOW_COMMANDS = 1000
WINDOW_SECONDS = 24 * 3600.0


class CommandTable:
    """
    Claims by command id, for 24 h or 1,000 ids.

    Not thread-safe: the log's lock guards it.
    """

    def __init__(self) -> None:
        self._claims: OrderedDict[str, tuple[bytes, float, bytes | None]] = OrderedDict()

    def claim(self, command_id: str, digest: bytes, *, now: float) -> Claim:
        """Claim an id, or say what it was claimed for."""
        self._expire(now)
        known = self._claims.get(command_id)
        if known is None:
            self._claims[command_id] = (digest, now, None)
            if len(self._claims) > WINDOW_COMMANDS:
                self._claims.popitem(last=False)
            return Claim(ClaimState.NEW)
        if known[0] != digest:
            return Claim(ClaimState.CONFLICT)
        if known[2] is None:
            return Claim(ClaimState.HELD)
        return Claim(ClaimState.DONE, known[2])

    def finish(self, command_id: str, reply: bytes) -> None:
        """Keep the reply of a claimed id."""
        known = self._claims.get(command_id)
        if known is not None:
            self._claims[command_id] = (known[0], known[1], reply)

    def _expire(self, now: float) -> None:
        while self._claims:
            command_id, (_, claimed_at, _) = next(iter(self._claims.items()))
            if claimed_at > now - WINDOW_SECONDS:
                return
            del self._claims[command_id]
