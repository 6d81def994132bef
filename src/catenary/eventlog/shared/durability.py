"""What an acknowledged event survives in a store of its own, and what it must."""

from __future__ import annotations

from typing import NamedTuple

from catenary.errors import ConfigError
from catenary.eventlog.model import Durability


class InForce(NamedTuple):
    """Which row of the durability table holds; ``text`` says what an event survives."""

    durability: Durability
    text: str

    def check(self, *wanted: Durability | None, shown: str, advice: str) -> None:
        """
        See that it is as much as is wanted; ``advice`` says how to get it.

        Raises:
            ConfigError: If it is less.
        """
        for one in wanted:
            if one is not None and self.durability.is_below(one):
                raise ConfigError(
                    f"{shown} was asked for durability {one}, and gives less. An event "
                    f"survives {self.text}. {advice}"
                )
