"""What a fake model says: turns of pieces, which each framework's fake says in its own way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple


class Think(NamedTuple):
    """A piece of reasoning."""

    text: str


class Say(NamedTuple):
    """A piece of text."""

    text: str


class Call(NamedTuple):
    """A call of a tool, whose input comes in pieces of JSON."""

    id: str
    name: str
    pieces: tuple[str, ...]

    @property
    def input(self) -> str:
        return "".join(self.pieces)


class Fail(NamedTuple):
    """The model raises."""

    error: Exception


class Wait(NamedTuple):
    """The model goes on when something else has happened."""

    until: Callable[[], Awaitable[object]]


Piece = Think | Say | Call | Fail | Wait
Turn = Sequence[Piece]
Script = Sequence[Turn]

INPUT_TOKENS = 10
OUTPUT_TOKENS = 5
"""What each turn takes, where a fake can be told."""


class Refused(Exception):
    """A tool failed and its model is told, in the way of the framework."""


class Hanging:
    """A model that hangs in the middle of a turn, and knows how that ended."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.was_stopped = asyncio.Event()

    async def forever(self) -> None:
        self.has_begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.was_stopped.set()

    @property
    def piece(self) -> Wait:
        return Wait(self.forever)


async def playing(turn: Turn) -> AsyncIterator[Think | Say | Call]:
    """Yield what a turn says, and do what else is in it."""
    for piece in turn:
        if isinstance(piece, Fail):
            raise piece.error
        if isinstance(piece, Wait):
            await piece.until()
        else:
            yield piece
