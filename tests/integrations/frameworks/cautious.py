"""Agents that ask their user before they delete something, in each framework's own way."""

from __future__ import annotations

import importlib
from typing import NamedTuple, Protocol

import pytest

from catenary import Run
from catenary.answering import Answer
from tests.integrations.frameworks.script import Call, Say, Script

SCRIPT: Script = [
    [Call(f"call_{n}", "delete", ('{"path": ', f'"{n}"}}')) for n in (1, 2)],
    [Say("Done.")],
]


async def delete(path: str) -> str:
    """Delete."""
    return f"deleted {path}"


class Cautious(Protocol):
    """One agent, which lives for a conversation."""

    async def ask(self, run: Run) -> None:
        """Work, and ask within the run."""

    async def suspend(self, run: Run) -> None:
        """Work until there is something to ask, and end the run with that."""

    async def resume(self, run: Run, answer: Answer) -> None:
        """Go on with the answers."""


class Kind(NamedTuple):
    """Where the agents of a framework are."""

    package: str
    module: str
    options: dict[str, str]

    def make(self) -> Cautious:
        """Return an agent; skip the test where its framework is not installed."""
        pytest.importorskip(self.package, reason=f"{self.package} is not installed")
        module = importlib.import_module(f"tests.integrations.frameworks.{self.module}")
        made: Cautious = module.CautiousAgent(**self.options)
        return made


CAUTIOUS = {
    "langgraph": Kind("langchain", "graphs", {}),
    "langgraph, one by one": Kind("langchain", "graphs", {"mode": "per_call"}),
    "pydantic-ai": Kind("pydantic_ai", "pydantic_agents", {}),
    "openai-agents": Kind("agents", "openai_agents", {}),
}
