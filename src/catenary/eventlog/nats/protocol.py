"""
The client protocol of NATS, as far as a log needs it. Pure: bytes come in, words go out.

https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from catenary.errors import LogUnavailable

_END = b"\r\n"
_VERSION = b"NATS/1.0"


class Message(NamedTuple):
    """What was published on a subject that somebody here subscribed to."""

    subject: bytes
    sid: bytes
    reply: bytes
    headers: bytes
    payload: bytes

    @property
    def status(self) -> int:
        """The status that its first header line has; 0 without one."""
        line = self.headers[: self.headers.find(_END)] if self.headers else b""
        word = line[len(_VERSION) + 1 : len(_VERSION) + 4]
        return int(word) if word.isdigit() else 0

    @property
    def description(self) -> str:
        """What its first header line says beside the status."""
        line = self.headers[: self.headers.find(_END)]
        return line[len(_VERSION) + 5 :].decode(errors="replace").strip()

    def header(self, name: bytes) -> bytes | None:
        """Return a header's value; None without it."""
        begin = self.headers.find(b"\r\n" + name + b":")
        if begin < 0:
            return None
        begin += len(name) + 3
        return self.headers[begin : self.headers.index(_END, begin)].strip()


class Word(NamedTuple):
    """Anything else that a server says: ``INFO``, ``PING``, ``PONG``, ``+OK`` or ``-ERR``."""

    kind: bytes
    rest: bytes


class Parser:
    """Splits what a server sends into messages and words."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message | Word]:
        """
        Return what is complete now.

        Raises:
            LogUnavailable: If it is not the protocol.
        """
        buffer = self._rest + data if self._rest else data
        found: list[Message | Word] = []
        at = 0
        try:
            while (end := buffer.find(_END, at)) >= 0:
                line = buffer[at:end]
                if line[:4] in {b"MSG ", b"HMSG"}:
                    message, after = _message(buffer, line, end + 2)
                    if message is None:
                        break
                    found.append(message)
                    at = after
                else:
                    kind, _, rest = line.partition(b" ")
                    found.append(Word(kind.upper(), rest))
                    at = end + 2
        except ValueError:
            raise LogUnavailable(f"this is not NATS: {buffer[at : at + 60]!r}") from None
        self._rest = buffer[at:]
        return found


def _message(buffer: bytes, line: bytes, begin: int) -> tuple[Message | None, int]:
    words = line.split()
    head = 0
    if words[0] == b"HMSG":
        head = int(words[-2])
        sizes = 2
    else:
        sizes = 1
    end = begin + int(words[-1])
    if end + 2 > len(buffer):
        return None, begin
    if buffer[end : end + 2] != _END:
        raise ValueError
    reply = words[3] if len(words) == 4 + sizes else b""
    headers = buffer[begin : begin + head]
    return Message(words[1], words[2], reply, headers, buffer[begin + head : end]), end + 2


def headers_of(headers: Mapping[str, str | int]) -> bytes:
    """Return a block of headers."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"%b\r\n%b\r\n" % (_VERSION, lines.encode())


def publish(subject: bytes, payload: bytes, reply: bytes = b"", headers: bytes = b"") -> bytes:
    """Return the words that publish something."""
    to = b"%b %b" % (subject, reply) if reply else subject
    if headers:
        size = len(headers)
        return b"HPUB %b %d %d\r\n%b%b\r\n" % (to, size, size + len(payload), headers, payload)
    return b"PUB %b %d\r\n%b\r\n" % (to, len(payload), payload)


def subscribe(subject: bytes, sid: int) -> bytes:
    """Return the words that begin a subscription."""
    return b"SUB %b %d\r\n" % (subject, sid)


def unsubscribe(sid: int) -> bytes:
    """Return the words that end a subscription."""
    return b"UNSUB %d\r\n" % sid


PING = b"PING\r\n"
PONG = b"PONG\r\n"
