"""What the Claude Agent SDK starts instead of its own program: it keeps the protocol, and asks no model."""

from __future__ import annotations

import itertools
import json
import sys
from typing import Any

ids = itertools.count()


def tell(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def say(*blocks: dict[str, Any]) -> None:
    message = {"id": f"msg_{next(ids)}", "model": "none", "content": list(blocks)}
    tell({"type": "assistant", "message": message})


def may(name: str, given: dict[str, Any], call: str) -> bool:
    """Ask for a permission, as the program does for what its rules leave open."""
    asked = {"subtype": "can_use_tool", "tool_name": name, "input": given, "tool_use_id": call}
    tell({"type": "control_request", "request_id": "asking", "request": asked})
    answer = json.loads(sys.stdin.readline())["response"]["response"]
    return bool(answer["behavior"] == "allow")


def work() -> None:
    given = {"query": "Bern"}
    say({"type": "tool_use", "id": "call_1", "name": "search", "input": given})
    if may("search", given, "call_1"):
        told = {"type": "tool_result", "tool_use_id": "call_1", "content": "a bridge for Bern"}
        tell({"type": "user", "message": {"role": "user", "content": [told]}})
    say({"type": "text", "text": "One fits."})
    took = {"duration_ms": 1, "duration_api_ms": 1, "num_turns": 2}
    ended = {"type": "result", "subtype": "success", "is_error": False, "session_id": "s"}
    tell({**ended, **took, "result": "One fits."})


if __name__ == "__main__":
    for line in sys.stdin:
        message = json.loads(line)
        if message["type"] == "control_request":
            done = {"subtype": "success", "request_id": message["request_id"], "response": {}}
            tell({"type": "control_response", "response": done})
        elif message["type"] == "user":
            work()
            break
