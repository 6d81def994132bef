"""
The Python client: a user's events, each once and in order, whatever breaks.

It needs no part of the server, and loads none.
"""

from catenary.client.backoff import Backoff
from catenary.client.blocking import BlockingClient
from catenary.client.client import Client
from catenary.client.errors import CommandFailed, Gap
from catenary.client.position_store import PositionFile, PositionStore
from catenary.client.state import Limits, State, Stats

__all__ = [
    "Backoff",
    "BlockingClient",
    "Client",
    "CommandFailed",
    "Gap",
    "Limits",
    "PositionFile",
    "PositionStore",
    "State",
    "Stats",
]
