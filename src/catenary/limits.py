"""The limits of a node, with their defaults (docs/protocol.md)."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one client and one user may ask of a node. Times in seconds."""

    message_bytes: int = 64 * 1024
    wire_message_bytes: int = 4 * 1024 * 1024
    """On the wires of other clients, whose stock transports send whole histories."""
    nesting: int = 32
    connections_per_user: int = 30
    """To all nodes of a log together."""
    messages_per_second: float = 50
    messages_burst: int = 100
    handshake_timeout: float = 5
    heartbeat_interval: float = 15
    bad_messages: int = 20
    """After so many bad messages the connection is closed with 4500."""
    refused_messages: int = 200
    """After so many messages over the rate, one after another, it is closed with 4002."""
    commands_waiting: int = 32
    credential_grace: float = 30
    credential_lifetime: float = 12 * 3600
    """How long a connection may live on a credential without an expiry."""
    unauthenticated_connections: int = 1000
    """How many connections of a node may wait for their first message."""
    tail_bytes: int = 256 * 1024 * 1024
    """How much of the frames' memory a node spends on tails; the longest quiet go first."""
    replaying: int = 100
    """How many cursors of a node read from the log at a time."""
    log_patience: float = 60
    """How long readers wait for a log that cannot be read before they are closed with 4003."""
    start_patience: float = 60
    """How long a client of another wire waits for the run that answers it to begin."""
