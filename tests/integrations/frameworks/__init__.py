"""Agent frameworks, each with the fake model that comes with it, driven by one script."""

from __future__ import annotations

import atexit
import enum
import importlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple, Protocol, cast

import pytest

from catenary import Run
from tests.integrations.frameworks.script import Turn

# CrewAI asks its environment when it is imported. It must not call home, nor write into one.
_STORAGE = tempfile.mkdtemp(prefix="catenary-crewai-")
atexit.register(shutil.rmtree, _STORAGE, ignore_errors=True)
os.environ.update(
    CREWAI_DISABLE_TELEMETRY="true",
    CREWAI_DISABLE_VERSION_CHECK="true",
    CREWAI_STORAGE_DIR=_STORAGE,
    CREWAI_TESTING="true",
    CREWAI_TRACING_ENABLED="false",
    OTEL_SDK_DISABLED="true",
)


class Answer(Protocol):
    """Let a framework's agent play a script with these tools, relayed; return its last words."""

    async def __call__(
        self,
        run: Run,
        turns: Sequence[Turn],
        tools: Sequence[Callable[..., Any]] = (),
        *,
        parts: Collection[str] = ...,
    ) -> str: ...


class Trait(enum.Enum):
    """What a framework can do, and not every one."""

    REASONS = enum.auto()
    """It tells of the reasoning of models."""
    RAISES = enum.auto()
    """What a tool raises can end the agent."""
    STOPS = enum.auto()
    """Its models and tools are tasks, which can be cancelled."""
    STREAMS_INPUTS = enum.auto()
    """It tells of a tool's input while that grows."""
    NAMES_CALLS = enum.auto()
    """It tells the model's own ids of tool calls."""


ALL = frozenset(Trait)


class Way(NamedTuple):
    """One way from a framework into a log."""

    package: str
    module: str
    function: str = "answer"
    traits: frozenset[Trait] = ALL

    def load(self) -> Answer:
        """Return it; skip the test where the framework is not installed."""
        pytest.importorskip(self.package, reason=f"{self.package} is not installed")
        module = importlib.import_module(f"{__name__}.{self.module}")
        return cast("Answer", getattr(module, self.function))


WAYS = {
    "langgraph": Way("langgraph", "graphs"),
    "langchain": Way("langchain_core", "chains"),
    "langchain, callbacks": Way("langchain_core", "chains", "answer_with_callbacks"),
    "pydantic-ai": Way("pydantic_ai", "pydantic_agents"),
    "pydantic-ai, handler": Way("pydantic_ai", "pydantic_agents", "answer_with_handler"),
    "openai-agents": Way("agents", "openai_agents"),
    "openai-agents, hooks": Way("agents", "openai_agents", "answer_with_hooks"),
    "claude-agent-sdk": Way("claude_agent_sdk", "claude_agents", traits=ALL - {Trait.RAISES}),
    "smolagents": Way(
        "smolagents", "small_agents", traits=frozenset({Trait.STREAMS_INPUTS, Trait.NAMES_CALLS})
    ),
    "google-adk": Way("google.adk", "google_agents", traits=ALL - {Trait.STREAMS_INPUTS}),
    "crewai": Way("crewai", "crews", traits=frozenset({Trait.REASONS})),
}


def ways(trait: Trait) -> list[str]:
    """Return the names of the ways that have a trait."""
    return [name for name, way in WAYS.items() if trait in way.traits]
