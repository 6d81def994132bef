"""Rows: what a campaign asks of a bridge, each with its name, its measure and its needs."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from catenary.validate.field import Field


class Need(enum.StrEnum):
    """What a row needs of the bridge that is validated; the text says why it is left out."""

    OWN_BRIDGE = "it needs a bridge that this command starts itself, with agents in its process"
    TLS = "it alters records of TLS, of a bridge that this command starts with a certificate of its own"
    NETWORK = (
        "it puts a network that breaks before the bridge, which works for ws:// only: over wss:// "
        "the certificate would be for another name"
    )
    ADDRESSES = "it changes the address that it comes from, which only a bridge on loopback can see"
    PROCESS = (
        "it kills, freezes or restarts the server, which only one that this command starts allows"
    )
    REDIS = "it needs a Redis that this command starts: install redis-server, and catenary[redis]"
    NATS = "it needs a NATS server that this command starts: install nats-server 2.12 or later"
    LOAD_BALANCER = "it needs a load balancer that this command starts: install haproxy"


class Scale(enum.StrEnum):
    """How large a campaign is."""

    FULL = "full"
    QUICK = "quick"
    """Rows that take long are shortened: all of them within two minutes."""


class Subject(enum.Enum):
    """What a row asks."""

    BRIDGE = enum.auto()
    """The bridge that is validated, or one that is started for the row."""
    PACKAGE = enum.auto()
    """The package in this process: of a bridge that runs elsewhere it says nothing."""


class Pace(enum.Enum):
    """What a row does most of the time."""

    BUSY = enum.auto()
    """It works, or measures time: it is asked alone."""
    PATIENT = enum.auto()
    """It waits for a network, a clock or a silence: some are asked beside each other."""


Check = Callable[["Field"], Awaitable[str]]
"""
Asks a row of a bridge and returns what was measured, in words.

What does not hold it tells the field; an exception that it raises counts as
that too.
"""


class Row(NamedTuple):
    """One thing that a campaign asks."""

    suite: str
    name: str
    asked: str
    check: Check
    needs: frozenset[Need]
    timeout: float
    """Seconds after which the row is given up, at the scale of a quick campaign."""
    pace: Pace
    subject: Subject

    @property
    def slug(self) -> str:
        """A short form of the name, for ids of users and tests."""
        words = "".join(c if c.isalnum() else " " for c in f"{self.suite} {self.name}").split()
        return "-".join(words).lower()


class Suite:
    """Rows that belong together."""

    def __init__(
        self,
        name: str,
        about: str,
        *,
        pace: Pace = Pace.BUSY,
        subject: Subject = Subject.BRIDGE,
    ) -> None:
        self.name = name
        self.about = about
        self.pace = pace
        self.subject = subject
        self.rows: list[Row] = []

    def row(
        self,
        name: str,
        *,
        asked: str,
        needs: tuple[Need, ...] = (),
        timeout: float = 30.0,
        pace: Pace | None = None,
        subject: Subject | None = None,
    ) -> Callable[[Check], Check]:
        """Add a row; its check is what is decorated."""

        def add(check: Check) -> Check:
            self.rows.append(
                Row(
                    self.name,
                    name,
                    asked,
                    check,
                    frozenset(needs),
                    timeout,
                    pace or self.pace,
                    subject or self.subject,
                )
            )
            return check

        return add
