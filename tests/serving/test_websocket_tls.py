"""The same over TLS, where a socket cannot be closed for writing alone."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from websockets.frames import Opcode

from tests.serving.certificates import write_certificate
from tests.serving.sockets import Peer, TakeoverApp, closing, masked, request, serving, text, until


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A certificate for 127.0.0.1, and its key."""
    return write_certificate(tmp_path)


async def open_peer(port: int, certfile: str) -> Peer:
    context = ssl.create_default_context(cafile=certfile)
    peer = Peer(*await asyncio.open_connection("127.0.0.1", port, ssl=context))
    peer.send(request())
    assert (await peer.response()).status == 101
    return peer


async def test_a_connection_over_tls_opens_carries_messages_and_closes(
    certificate: tuple[str, str],
) -> None:
    schemes: list[str] = []
    app = TakeoverApp()

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        schemes.append(scope["scheme"])
        await app(scope, receive, send)

    certfile, keyfile = certificate
    async with serving(noting, ssl_certfile=certfile, ssl_keyfile=keyfile) as server:
        peer = await open_peer(server.port, certfile)
        server.peers.add(peer)
        peer.send(text("hello") + closing(1000, "bye"))
        assert await peer.close_frame() == (1000, "bye")
        assert await peer.rest() == b""
        peer.close()
        await until(lambda: app.only.ends == [(1000, "bye")])
        assert app.only.messages == ["hello"]
        assert schemes == ["wss"]


async def test_a_violation_over_tls_closes_with_its_code(certificate: tuple[str, str]) -> None:
    app = TakeoverApp()
    certfile, keyfile = certificate
    async with serving(app, ssl_certfile=certfile, ssl_keyfile=keyfile) as server:
        peer = await open_peer(server.port, certfile)
        server.peers.add(peer)
        peer.send(masked(Opcode.TEXT, b"\xff"))
        assert (await peer.close_frame())[0] == 1007
        peer.close()
        await server.until_idle()
        assert [end[0] for end in app.only.ends] == [1007]
