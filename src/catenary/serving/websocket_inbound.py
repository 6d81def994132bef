"""
What comes from the peer of an open WebSocket: frames into messages, and its end.

Pure: bytes in, messages and bytes to send out.
"""

from __future__ import annotations

import logging
from typing import Any, cast

from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from catenary.errors import UsageError

# Frames may carry tokens, so those of the sans-I/O protocol are never logged. The logger stands
# outside the tree of loggers, where no configuration resets its level.
_LOG = logging.Logger("catenary.serving.frames", logging.WARNING)  # noqa: LOG001 - on purpose

_ABNORMAL = 1006
_NOT_UTF8 = 1007
_LONGEST_REASON_BYTES = 123


class _Frames(ServerProtocol):
    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            # A peer may close in the middle of a fragmented message (RFC 6455
            # 5.4, 5.5.1); the library answers that with 1002.
            self.current_size = None
        super().recv_frame(frame)


class Inbound:
    """
    The reading half of a connection, with the closing handshake.

    After :meth:`feed` and :meth:`close` the caller sends what :meth:`replies`
    returns. It never raises for what a peer sends: it fails the connection,
    which :attr:`is_open` and :attr:`is_failed` tell.

    Attributes:
        is_failed: Whether the peer broke RFC 6455 or a limit.
        pongs: How many pongs arrived.
    """

    __slots__ = ("_is_text", "_parts", "_protocol", "is_failed", "pongs")

    def __init__(self, max_message_bytes: int) -> None:
        self._protocol = _Frames(state=OPEN, max_size=max_message_bytes, logger=_LOG)
        self._parts: bytearray | None = None
        self._is_text = False
        self.is_failed = False
        self.pongs = 0

    @property
    def is_open(self) -> bool:
        """Whether no close frame was sent or received, and nothing failed."""
        return self._protocol.state is OPEN

    @property
    def is_finished(self) -> bool:
        """Whether nothing more is expected from the peer."""
        return self._protocol.eof_sent

    @property
    def first_close(self) -> tuple[int, str]:
        """Code and reason of the first close frame of either side; 1006 if there was none."""
        protocol = self._protocol
        close = protocol.close_rcvd if protocol.close_rcvd_then_sent else protocol.close_sent
        return (_ABNORMAL, "") if close is None else (int(close.code), close.reason)

    def feed(self, data: bytes | bytearray) -> list[str | bytes]:
        """Take bytes from the peer; return the messages that they complete."""
        self._protocol.receive_data(data)
        messages: list[str | bytes] = []
        for frame in cast("list[Frame]", self._protocol.events_received()):
            if frame.opcode is Opcode.PONG:
                self.pongs += 1
            elif frame.opcode <= Opcode.BINARY:
                try:
                    message = self._assemble(frame)
                except UnicodeDecodeError:
                    self._fail_utf8()
                    break
                if message is not None:
                    messages.append(message)
        if self._protocol.parser_exc is not None:
            self.is_failed = True
        return messages

    def close(self, code: int, reason: str) -> None:
        """
        Begin the closing handshake; only while :attr:`is_open`.

        Raises:
            UsageError: If the code may not be sent in a close frame.
        """
        cut = reason.encode()[:_LONGEST_REASON_BYTES].decode("utf-8", "ignore")
        try:
            self._protocol.send_close(code, cut)
        except ProtocolError as exc:
            raise UsageError(f"{code} may not be sent in a close frame") from exc

    def replies(self) -> list[bytes]:
        """Return the frames to send to the peer, and forget them."""
        return self._protocol.data_to_send()

    def _assemble(self, frame: Frame) -> str | bytes | None:
        data: Any = frame.data
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
            if not frame.fin:
                self._parts = bytearray(data)
                return None
        elif self._parts is not None:
            self._parts += data
            if not frame.fin:
                return None
            data, self._parts = self._parts, None
        return str(data, "utf-8") if self._is_text else bytes(data)

    def _fail_utf8(self) -> None:
        self.is_failed = True
        if self.is_open:
            self._protocol.fail(_NOT_UTF8, "text must be UTF-8")
