"""
AG-UI 1.0: the events of a turn, as ``@ag-ui/client`` and TanStack AI read them.

Optional fields are left out, never null. A stretch of a turn between two
stops is one AG-UI run, with the id that its client asked for. Pure: no I/O, no
clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from catenary.events import WebSocketEvent
from catenary.wires.turn import Ending, Part, Turn

Frame = dict[str, Any]

PROTOCOL_VERSION = "1.0"

_json = msgspec.json.Encoder().encode


class AgUiTurn:
    """
    The AG-UI events of one turn. The same events give the same frames.

    ``take`` never finishes the run: whoever reads decides whether it stops
    there; then ``stop`` gives the last frames.
    """

    def __init__(self, turn: Turn, *, thread_id: str, run_id: str) -> None:
        self.turn = turn
        self.thread_id = thread_id
        self.run_id = run_id
        self._is_open = False
        self._text: tuple[str, str, str | None, str] | None = None
        self._openings: Counter[str] = Counter()
        self._calls: set[str] = set()
        self._children: dict[str, str] = {}

    def take(self, event: WebSocketEvent) -> list[Frame]:
        """Return the frames of the next event of the thread."""
        part = self.turn.take(event)
        if part is None:
            return []
        frames = [] if self._is_open else self.opened()
        if part is Part.CHILD and event.type in _CHILD_RULES:
            return [*frames, *_CHILD_RULES[event.type](self, event)]
        rule = _RULES.get(event.type)
        if rule is not None:
            return [*frames, *rule(self, event)]
        if not event.type.startswith("agent_"):
            frames.append(self._tagged(event, type="CUSTOM", name=event.type, value=event.data))
        return frames

    def reopen(self) -> None:
        """Begin a run again with the next frame: its former part has been read before."""
        self._is_open = False
        self._children.clear()

    def opened(self) -> list[Frame]:
        """Return the first frames of a run."""
        self._is_open = True
        return [
            {
                "type": "RUN_STARTED",
                "threadId": self.thread_id,
                "runId": self.run_id,
                "protocolVersion": PROTOCOL_VERSION,
            }
        ]

    def joined(self, frames: Sequence[Frame], messages: Sequence[Frame]) -> list[Frame]:
        """
        Return the frames for a reader that comes in the middle.

        ``frames`` are those of the turn so far, ``messages`` what the reader
        knows; it keeps them, with the turn's own brought up to now.
        """
        own = messages_of(frames)
        ids = {message["id"] for message in own}
        kept = [message for message in messages if message.get("id") not in ids]
        snapshot = {"type": "MESSAGES_SNAPSHOT", "messages": [*kept, *own]}
        return [*self.opened(), *self._children_again(), snapshot, *self._text_again()]

    def _children_again(self) -> list[Frame]:
        return [
            {"type": "SUBAGENT_STARTED", "subagentRunId": run_id, "name": name}
            for run_id, name in self._children.items()
        ]

    def _text_again(self) -> list[Frame]:
        if self._text is None:
            return []
        kind, _, owner, id = self._text
        return self._text_begun(kind, owner, id)

    def stop(self) -> list[Frame]:
        """Return the last frames, once the turn is stopped."""
        turn, frames = self.turn, self._closed()
        frames += [
            {"type": "SUBAGENT_FINISHED", "subagentRunId": run_id} for run_id in self._children
        ]
        self._children.clear()
        if turn.ending is Ending.FAILED:
            message = turn.end.get("message") or "the agent failed"
            error = {"type": "RUN_ERROR", "message": message, "code": turn.end.get("code")}
            return [*frames, _present(error)]
        outcome: Frame = {"type": "success"}
        if turn.ending is Ending.CANCELLED:
            outcome = {"type": "cancelled"}
        elif turn.ending is Ending.WAITING:
            interrupts = [_interrupt(data) for data in turn.pending.values()]
            outcome = {"type": "interrupt", "interrupts": interrupts}
        finished = {
            "type": "RUN_FINISHED",
            "threadId": self.thread_id,
            "runId": self.run_id,
            "result": turn.end.get("result"),
            "outcome": outcome,
        }
        return [*frames, _present(finished)]

    # Text

    def _tagged(self, event: WebSocketEvent, **frame: Any) -> Frame:
        """Say whose an event is, if a sub-agent's."""
        if event.run_id in self._children:
            frame["subagentRunId"] = event.run_id
        return frame

    def _closed(self) -> list[Frame]:
        if self._text is None:
            return []
        (kind, _, owner, id), self._text = self._text, None
        tag = {} if owner is None else {"subagentRunId": owner}
        if kind == "text":
            return [{"type": "TEXT_MESSAGE_END", "messageId": id, **tag}]
        return [
            {"type": "REASONING_MESSAGE_END", "messageId": id, **tag},
            {"type": "REASONING_END", "messageId": id, **tag},
        ]

    def _text_begun(self, kind: str, owner: str | None, id: str) -> list[Frame]:
        tag = {} if owner is None else {"subagentRunId": owner}
        if kind == "text":
            return [{"type": "TEXT_MESSAGE_START", "messageId": id, "role": "assistant", **tag}]
        return [
            {"type": "REASONING_START", "messageId": id, **tag},
            {"type": "REASONING_MESSAGE_START", "messageId": id, "role": "reasoning", **tag},
        ]

    def _said(self, event: WebSocketEvent) -> list[Frame]:
        kind = event.data.get("part", "text")
        delta = event.data.get("delta")
        # The input of a tool comes whole, with the call.
        if kind == "tool_input" or not delta:
            return []
        return self._spoken(event, kind, str(event.data.get("message_id")), delta)

    def _spoken(self, event: WebSocketEvent, kind: str, message: str, delta: str) -> list[Frame]:
        owner = event.run_id if event.run_id in self._children else None
        frames: list[Frame] = []
        if self._text is None or self._text[:3] != (kind, message, owner):
            frames = self._closed()
            id = message if kind == "text" else f"{kind}_{message}"
            id = self._counted(id)
            self._text = (kind, message, owner, id)
            frames += self._text_begun(kind, owner, id)
        word = "TEXT_MESSAGE_CONTENT" if kind == "text" else "REASONING_MESSAGE_CONTENT"
        said = self._tagged(event, type=word, messageId=self._text[3], delta=delta)
        return [*frames, said]

    def _counted(self, id: str) -> str:
        """Return the id of a message: not that of a former one, however text was merged."""
        self._openings[id] += 1
        return id if self._openings[id] == 1 else f"{id}_{self._openings[id]}"

    def _thought(self, event: WebSocketEvent) -> list[Frame]:
        text = event.data.get("thinking")
        if not text:
            return []
        said = self._spoken(event, "reasoning", f"thinking_{event.seq}", text)
        return [*said, *self._closed()]

    # Tools and questions

    def _tool_began(self, event: WebSocketEvent) -> list[Frame]:
        data = event.data
        call, given = data.get("tool_call_id"), data.get("tool_input")
        shown = self._shown(event, call, data.get("tool_name"), given)
        return [*self._closed(), *shown]

    def _shown(self, event: WebSocketEvent, call: Any, name: Any, given: Any) -> list[Frame]:
        """Show a call once: one that was approved has been shown with its question."""
        if call in self._calls:
            return []
        self._calls.add(call)
        arguments = _json({} if given is None else given).decode()
        return [
            self._tagged(event, type="TOOL_CALL_START", toolCallId=call, toolCallName=name),
            self._tagged(event, type="TOOL_CALL_ARGS", toolCallId=call, delta=arguments),
            self._tagged(event, type="TOOL_CALL_END", toolCallId=call),
        ]

    def _tool_ended(self, event: WebSocketEvent) -> list[Frame]:
        data, call = event.data, event.data.get("tool_call_id")
        output = data.get("tool_output") if data.get("success") else data.get("error")
        content = output if isinstance(output, str) else _json(output).decode()
        result = self._tagged(
            event,
            type="TOOL_CALL_RESULT",
            # A call that was held up for its approval ends again when that has come.
            messageId=self._counted(f"result_{call}"),
            toolCallId=call,
            content=content,
            role="tool",
        )
        shown = self._shown(event, call, data.get("tool_name"), None)
        return [*self._closed(), *shown, result]

    def _asked(self, event: WebSocketEvent) -> list[Frame]:
        """Show the call that waits for its approval; the question itself comes with the stop."""
        data = event.data
        if data.get("tool_call_id") is None or data.get("tool_name") is None:
            return self._closed()
        call, name = data["tool_call_id"], data["tool_name"]
        return [*self._closed(), *self._shown(event, call, name, data.get("tool_input"))]

    # Sub-agents

    def _child_began(self, event: WebSocketEvent) -> list[Frame]:
        run_id = event.run_id or ""
        self._children[run_id] = event.agent_name or run_id
        frame = {
            "type": "SUBAGENT_STARTED",
            "subagentRunId": run_id,
            "name": self._children[run_id],
        }
        parent = self.turn.parent_of(run_id)
        if parent in self._children:
            frame["parentSubagentRunId"] = parent or ""
        return [*self._closed(), frame]

    def _child_ended(self, event: WebSocketEvent) -> list[Frame]:
        run_id = event.run_id or ""
        if self._children.pop(run_id, None) is None:
            return []
        if event.type == "agent_completed":
            return [*self._closed(), {"type": "SUBAGENT_FINISHED", "subagentRunId": run_id}]
        message = event.data.get("message") or "the run was cancelled"
        error = {"type": "SUBAGENT_ERROR", "subagentRunId": run_id, "message": message}
        return [*self._closed(), error]


def _interrupt(data: dict[str, Any]) -> Frame:
    expires_at = data.get("expires_at")
    return _present(
        {
            "id": data.get("request_id"),
            "reason": "tool_call" if data.get("kind") == "approval" else "input_required",
            "message": data.get("question"),
            "toolCallId": data.get("tool_call_id"),
            "responseSchema": data.get("schema"),
            "expiresAt": None
            if expires_at is None
            else datetime.fromtimestamp(expires_at / 1000, UTC).isoformat(),
        }
    )


def _present(frame: Frame) -> Frame:
    return {key: value for key, value in frame.items() if value is not None}


def messages_of(frames: Sequence[Frame]) -> list[Frame]:
    """Return the messages that a reader of these frames has, in the order in which they began."""
    messages: dict[str, Frame] = {}
    for frame in frames:
        kind, id = frame["type"], frame.get("messageId", "")
        owner = {key: frame[key] for key in ("subagentRunId",) if key in frame}
        if kind == "TEXT_MESSAGE_START":
            messages[id] = {"id": id, "role": "assistant", "content": "", **owner}
        elif kind == "REASONING_MESSAGE_START":
            messages[id] = {"id": id, "role": "reasoning", "content": "", **owner}
        elif kind in {"TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT"}:
            messages[id]["content"] += frame["delta"]
        elif kind == "TOOL_CALL_START":
            function = {"name": frame["toolCallName"], "arguments": ""}
            call = {"id": frame["toolCallId"], "type": "function", "function": function}
            about = {"id": frame["toolCallId"], "role": "assistant", "toolCalls": [call]}
            messages[frame["toolCallId"]] = {**about, **owner}
        elif kind == "TOOL_CALL_ARGS":
            call = messages[frame["toolCallId"]]["toolCalls"][0]
            call["function"]["arguments"] += frame["delta"]
        elif kind == "TOOL_CALL_RESULT":
            about = {"id": id, "role": "tool", "toolCallId": frame["toolCallId"]}
            messages[id] = {**about, "content": frame["content"], **owner}
    return list(messages.values())


_RULES: dict[str, Callable[[AgUiTurn, WebSocketEvent], list[Frame]]] = {
    "agent_delta": AgUiTurn._said,
    "agent_thinking": AgUiTurn._thought,
    "tool_executing": AgUiTurn._tool_began,
    "tool_completed": AgUiTurn._tool_ended,
    "input_requested": AgUiTurn._asked,
}

_CHILD_RULES: dict[str, Callable[[AgUiTurn, WebSocketEvent], list[Frame]]] = {
    "agent_started": AgUiTurn._child_began,
    "agent_completed": AgUiTurn._child_ended,
    "agent_error": AgUiTurn._child_ended,
    "agent_cancelled": AgUiTurn._child_ended,
}
