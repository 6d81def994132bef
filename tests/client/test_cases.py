"""The session behaves as protocol/cases says, which every client has to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from catenary.client.backoff import Backoff
from catenary.client.errors import Gap
from catenary.client.session import Session
from catenary.client.state import State
from catenary.errors import UsageError

CASES = Path(__file__).parents[2] / "protocol" / "cases"
DRAWS = (0.0, 0.5, 0.999)


def cases() -> Iterator[Any]:
    for path in sorted(CASES.glob("*.json")):
        if path.stem.startswith("fold"):
            continue
        for case in json.loads(path.read_text())["cases"]:
            yield pytest.param(case, id=f"{path.stem}: {case['name']}")


class FixedRandom(Random):
    """A random source that always draws the same."""

    def __init__(self, draw: float) -> None:
        super().__init__()
        self._draw = draw

    def random(self) -> float:
        return self._draw


class Story:
    """One session, told a case step by step; every output is collected in a queue."""

    def __init__(self, case: dict[str, Any], draw: float) -> None:
        self.case = case
        self.draw = draw
        self.now = 0.0
        self.threads = case["initial"].get("thread_ids", [])
        self.session = Session(
            after=case["initial"]["after"],
            backoff=Backoff(random=FixedRandom(draw)),
            now=self.now,
            is_filtered=bool(self.threads),
        )
        self.queues: dict[str, list[Any]] = {
            name: []
            for name in (
                "connect", "delivered", "send", "reported", "outcomes", "errors", "disconnect",
                "closed",
            )
        }  # fmt: skip
        self.before = State.WAITING
        self.wait_from = 0.0
        self.is_stopped = False
        self.collect()
        if "expect_connect" not in case["steps"][0]:
            self.queues["connect"].clear()

    def run(self) -> None:
        for number, step in enumerate(self.case["steps"]):
            try:
                self.step(dict(step))
            except AssertionError as error:
                error.add_note(f"step {number}: {step}; the random source draws {self.draw}")
                raise
        self.queues["reported"].clear()
        assert not any(self.queues.values()), f"left over: {self.queues}"

    def step(self, step: dict[str, Any]) -> None:
        fails = step.pop("fails", False)
        ((name, value),) = step.items()
        if name.startswith("expect_"):
            self.expect(name.removeprefix("expect_"), value)
            return
        act: Callable[[Any], None] = getattr(self, name)
        self.before = self.session.state
        if fails:
            with pytest.raises(UsageError):
                act(value)
        else:
            act(value)
        self.collect()

    def collect(self) -> None:
        session, queues = self.session, self.queues
        for text in session.messages_to_send():
            message = json.loads(text)
            if message["type"] == "position":
                queues["reported"].append(message["position"])
            else:
                queues["send"].append(message)
        while (content := session.inbox.take()) is not None:
            queues["delivered"].append(as_message(content))
        queues["outcomes"] += [as_outcome(outcome) for outcome in session.commands.outcomes()]
        queues["errors"] += [{"code": error.code} for error in session.errors()]
        if disconnect := session.disconnect_to_make():
            queues["disconnect"].append(str(disconnect))
        if session.state is not self.before:
            self.entered(session.state)
        self.before = session.state

    def entered(self, state: State) -> None:
        if state is State.CONNECTING:
            self.queues["connect"].append(
                {"after": self.session.after, "thread_ids": self.threads},
            )
        elif state is State.WAITING:
            self.wait_from = self.now
        elif state is State.CLOSED and not self.is_stopped:
            self.queues["closed"].append(self.session.close_code)

    # What happens

    def receive(self, message: dict[str, Any]) -> None:
        self.session.receive(json.dumps(message), self.now)

    def receive_text(self, text: str) -> None:
        self.session.receive(text, self.now)

    def close(self, code: int) -> None:
        self.session.connection_lost(code, self.now)

    def refuse(self, answer: dict[str, Any]) -> None:
        self.session.refused(answer["status"], self.now, answer.get("retry_after"))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.session.tick(self.now)

    def handled(self, count: int) -> None:
        self.session.handled(count, self.now)

    def acknowledge_gap(self, _: bool) -> None:
        self.session.acknowledge_gap(self.now)

    def command(self, message: dict[str, Any]) -> None:
        self.session.command(message)

    def authenticate(self, token: str) -> None:
        self.session.authenticate(token)

    def probe(self, _: bool) -> None:
        self.session.probe(self.now)

    def stop(self, _: bool) -> None:
        self.is_stopped = True
        self.session.stop()

    # What must be so

    def expect(self, name: str, value: Any) -> None:
        if name == "state":
            assert self.session.state == value
        elif name == "position":
            position = self.session.inbox.position
            assert (None if position is None else str(position)) == value
        elif name == "wait":
            expected = value["min"] + self.draw * (value["max"] - value["min"])
            deadline = self.session.next_deadline()
            assert deadline is not None
            assert deadline - self.wait_from == pytest.approx(expected, abs=1e-6)
        else:
            wanted = value if isinstance(value, list) else [value]
            came = self.queues[name]
            assert len(came) == len(wanted), came
            for entry, fields in zip(came, wanted, strict=True):
                assert contains(entry, fields), (entry, fields)
            came.clear()


def as_message(content: Any) -> dict[str, Any]:
    if isinstance(content, Gap):
        return {
            "type": "gap",
            "after": str(content.after),
            "resumes_at": str(content.resumes_at),
            "reason": content.reason,
        }
    return {name: getattr(content, name) for name in content.__struct_fields__}


def as_outcome(outcome: Any) -> dict[str, Any]:
    if outcome.error is not None:
        return {"id": outcome.id, "error": outcome.error}
    return {
        "id": outcome.id,
        "reply": outcome.reply,
        "already_ended": outcome.already_ended,
        "already_answered": outcome.already_answered,
        "answer": outcome.answer,
    }


def contains(entry: Any, fields: Any) -> bool:
    if isinstance(fields, dict):
        return all(name in entry and entry[name] == fields[name] for name in fields)
    return bool(entry == fields)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("case", list(cases()))
def test_case(case: dict[str, Any], draw: float) -> None:
    """The case holds, whatever the random source draws."""
    Story(case, draw).run()


def test_the_cases_are_there() -> None:
    """No file of cases was passed over."""
    assert len(list(cases())) >= 100
