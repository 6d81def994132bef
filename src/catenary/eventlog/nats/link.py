"""One connection to one NATS server."""

from __future__ import annotations

import json
import secrets
import selectors
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from catenary.errors import ConfigError, LogUnavailable
from catenary.eventlog.nats import protocol
from catenary.eventlog.nats.address import Address
from catenary.eventlog.nats.errors import NoAnswer, said_by_server
from catenary.eventlog.nats.login import proof
from catenary.eventlog.nats.protocol import Message, Parser, Word
from catenary.eventlog.shared.address import Server

CONNECT_TIMEOUT = 3.0
TIMEOUT = 4.0
"""After so many seconds without a byte of an answer a connection is given up."""

OLDEST = (2, 12)
_PIECE_BYTES = 256 * 1024
_BATCH_ENDS = {204, 404, 408, 413, 503}


class Request(NamedTuple):
    """
    What is asked on a subject.

    ``before`` are words that are sent ahead of it and have no answer.
    ``has_many`` says that answers come until one with a status.
    """

    subject: bytes
    payload: bytes = b""
    headers: bytes = b""
    before: bytes = b""
    has_many: bool = False


class Link:
    """
    A connection that is open. Not thread-safe.

    After an error it is of no use any more: whether what was sent was done is
    not known.

    Raises:
        LogUnavailable: If the server cannot be reached.
        ConfigError: If it refuses the login, is too old, or has no JetStream.
    """

    def __init__(self, address: Address, server: Server) -> None:
        self.server = server
        self.where = f"nats at {server[0]}:{server[1]}"
        self._parser = Parser()
        self._waiting: list[Message | Word] = []
        self._number = 0
        try:
            self.socket: socket.socket = socket.create_connection(server, CONNECT_TIMEOUT)
        except OSError as error:
            raise LogUnavailable(f"{self.where}: {error}. It will be tried again") from None
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.info: dict[str, Any] = json.loads(self._word(b"INFO"))
            self._secure(address)
            # By chance: the servers of a cluster count their clients each for itself.
            self.inbox = f"_INBOX.{address.key_prefix}.{secrets.token_hex(12)}".encode()
            self._log_in(address)
        except BaseException:
            self.close()
            raise

    def _secure(self, address: Address) -> None:
        if not (address.is_tls or self.info.get("tls_required")):
            return
        context = ssl.create_default_context(cafile=address.tls.get("ssl_ca_certs"))
        certificate = address.tls.get("ssl_certfile")
        if certificate is not None:
            context.load_cert_chain(certificate, address.tls.get("ssl_keyfile"))
        # Servers that others told of are known by their addresses only.
        is_named = self.server in address.hosts
        name = self.server[0] if is_named else address.hosts[0][0]
        try:
            self.socket = context.wrap_socket(self.socket, server_hostname=name)
        except (OSError, ssl.SSLError) as error:
            raise LogUnavailable(f"{self.where}: {error}") from None

    def _log_in(self, address: Address) -> None:
        version = tuple(int(part) for part in self.info["version"].split(".")[:2])
        if version < OLDEST:
            raise ConfigError(
                f"{self.where} is version {self.info['version']}; 2.12 or later is needed"
            )
        if not self.info.get("jetstream"):
            raise ConfigError(f"{self.where} has no JetStream: start it with -js")
        about = proof(
            self.info.get("nonce", ""),
            username=address.username,
            password=address.password,
            credentials_file=address.credentials_file,
            seed_file=address.seed_file,
        )
        about |= {
            "verbose": False,
            "pedantic": False,
            "tls_required": isinstance(self.socket, ssl.SSLSocket),
            "name": "catenary",
            "lang": "python",
            "version": "0",
            "protocol": 1,
            "headers": True,
            "no_responders": True,
        }
        subscribed = protocol.subscribe(self.inbox + b".*", 1)
        words = b"CONNECT %b\r\n%b%b" % (json.dumps(about).encode(), subscribed, protocol.PING)
        self.send(words)
        self._word(b"PONG")

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, in bytes."""
        return int(self.info["max_payload"])

    @property
    def others(self) -> list[Server]:
        """The servers that this one tells of."""
        found = []
        for text in self.info.get("connect_urls") or ():
            host, _, port = text.rpartition(":")
            found.append((host.strip("[]"), int(port)))
        return found

    # Asking

    def ask(self, requests: Sequence[Request], timeout: float = TIMEOUT) -> list[list[Message]]:
        """
        Send requests, all at once, and return the answers to each.

        ``timeout`` is how long nothing may come.

        Raises:
            LogUnavailable: If one of them had no answer in time; ``NoAnswer`` if
                nobody is there who could.
        """
        first = self._number + 1
        self._number += len(requests)
        words: list[bytes] = []
        for number, request in enumerate(requests, first):
            reply = b"%b.%d" % (self.inbox, number)
            words += (
                request.before,
                protocol.publish(request.subject, request.payload, reply, request.headers),
            )
        self.send(b"".join(words))
        answers: list[list[Message]] = [[] for _ in requests]
        missing = set(range(len(requests)))
        begin = len(self.inbox) + 1
        while missing:
            for message in self.read(timeout):
                at = int(message.subject[begin:]) - first
                if at not in missing:
                    continue
                status = message.status
                if status == 503:
                    raise NoAnswer(f"{self.where}: nobody answers {requests[at].subject.decode()}")
                answers[at].append(message)
                if not requests[at].has_many or status in _BATCH_ENDS:
                    missing.discard(at)
        return answers

    def send(self, words: bytes) -> None:
        """Send words whose answers, if any, are read later."""
        try:
            self.socket.sendall(words)
        except OSError as error:
            raise LogUnavailable(f"{self.where}: {error}. It will be tried again") from None

    # Reading

    def read(self, timeout: float = TIMEOUT) -> list[Message]:
        """
        Return the messages that came; waits until there is at least one.

        Raises:
            LogUnavailable: If none comes in time, or the connection is over.
        """
        deadline = time.monotonic() + timeout
        while not self._waiting:
            self._receive(deadline - time.monotonic())
        words, self._waiting = self._waiting, []
        return [message for word in words if (message := self._heard(word)) is not None]

    def words(self) -> list[Message | Word]:
        """
        Return all that came, for whoever listens; there is something to be read.

        Raises:
            LogUnavailable: If the connection is over.
        """
        self._receive(TIMEOUT)
        while isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            self._receive(TIMEOUT)
        words, self._waiting = self._waiting, []
        for word in words:
            self._heard(word)
        return words

    def _heard(self, word: Message | Word) -> Message | None:
        if isinstance(word, Message):
            return word
        if word.kind == b"PING":
            self.send(protocol.PONG)
        elif word.kind == b"INFO":
            self.info = json.loads(word.rest)
        elif word.kind == b"-ERR":
            raise said_by_server(self.where, word.rest.decode(errors="replace").strip("'"))
        return None

    def _receive(self, timeout: float) -> None:
        try:
            self.socket.settimeout(max(timeout, 0.001))
            data = self.socket.recv(_PIECE_BYTES)
        except TimeoutError:
            text = f"{self.where} does not answer. It will be tried again"
            raise LogUnavailable(text) from None
        except OSError as error:
            raise LogUnavailable(f"{self.where}: {error}. It will be tried again") from None
        if not data:
            raise LogUnavailable(f"{self.where} closed the connection. It will be tried again")
        self._waiting += self._parser.feed(data)

    def _word(self, kind: bytes) -> bytes:
        """Wait for a word, and return what it says."""
        deadline = time.monotonic() + CONNECT_TIMEOUT
        while True:
            while not self._waiting:
                self._receive(deadline - time.monotonic())
            word = self._waiting.pop(0)
            if isinstance(word, Word) and word.kind == kind:
                return word.rest
            self._heard(word)

    @property
    def is_closed(self) -> bool:
        """Whether the server has closed it, where no answer is waited for."""
        try:
            while self._has_bytes():
                self._receive(0)
            for word in self._waiting:
                self._heard(word)
            self._waiting = []
        except (LogUnavailable, ConfigError):
            return True
        return False

    def _has_bytes(self) -> bool:
        if isinstance(self.socket, ssl.SSLSocket) and self.socket.pending():
            return True
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            return bool(selector.select(0))

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self.socket.close()
