"""How long a connection lives on its credential, by a clock that the tests move."""

from __future__ import annotations

import time

from catenary import Identity, WebSocketBridgeFactory
from catenary.connection import Connection
from catenary.control import lives_until
from catenary.errors import CloseCode
from catenary.limits import Limits
from catenary.session import Session
from catenary.transport import StallingTransport

NOW = 1_800_000_000.0


async def connected(
    factory: WebSocketBridgeFactory, identity: Identity
) -> tuple[Connection, StallingTransport]:
    """A connection that the factory's manager knows, on a transport without a socket."""
    hub = factory.manager.hub()
    connection = Connection(
        hub,
        Session("c_1", factory.limits, now=hub.loop.time(), is_authenticated=True),
        on_message=lambda *_: None,
        on_closed=lambda *_: None,
    )
    transport = StallingTransport(connection, now=hub.loop.time())
    connection.transport = transport
    connection.prepared = await connection.find_place(
        identity, log_id=identity.user_id, after="now", thread_ids=None
    )
    connection.lives_until = lives_until(identity, factory.limits, now=time.time())
    factory.manager.add(connection, identity.user_id)
    connection.begin()
    return connection, transport


def tick(factory: WebSocketBridgeFactory, wall_clock: float) -> None:
    factory.manager.tick(factory.manager.hub().loop.time(), wall_clock)


async def test_a_connection_ends_thirty_seconds_after_its_token(
    factory: WebSocketBridgeFactory,
) -> None:
    """It is closed with 4001 then, and not a moment before."""
    _, transport = await connected(factory, Identity(user_id="user_123", expires_at=NOW))
    tick(factory, NOW + 29.9)
    assert transport.closing is None
    tick(factory, NOW + 30)
    assert transport.closing is not None
    assert transport.closing[0] == CloseCode.TOKEN_EXPIRED


async def test_a_renewed_credential_keeps_the_connection(factory: WebSocketBridgeFactory) -> None:
    """What counts is the latest credential."""
    connection, transport = await connected(factory, Identity(user_id="user_123", expires_at=NOW))
    later = Identity(user_id="user_123", expires_at=NOW + 600)
    connection.lives_until = lives_until(later, factory.limits, now=time.time())
    tick(factory, NOW + 60)
    assert transport.closing is None
    tick(factory, NOW + 630)
    assert transport.closing is not None


async def test_a_credential_without_an_end_lasts_twelve_hours(
    factory: WebSocketBridgeFactory,
) -> None:
    """Nothing lives for ever."""
    _, transport = await connected(factory, Identity(user_id="user_123"))
    lifetime = Limits().credential_lifetime
    tick(factory, time.time() + lifetime - 60)
    assert transport.closing is None
    tick(factory, time.time() + lifetime)
    assert transport.closing is not None
