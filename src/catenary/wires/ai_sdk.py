"""
The AI SDK's wire: the UI message chunks of a turn.

The chunks are those that ``useChat`` reads, of AI SDK 5 and later. One message
of the assistant is one turn; its id is that of the run, so that a replay takes
its place. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from catenary.events import WebSocketEvent
from catenary.wires.turn import Ending, Part, Turn

Chunk = dict[str, Any]

ASK_TOOL = "ask_user"
"""The tool as whose call a question that is no approval is shown."""


class AiSdkTurn:
    """
    The chunks of one turn. The same events give the same chunks.

    ``take`` never ends the message: the turn may be gone on with, and whoever
    reads decides whether it stops there; then ``stop`` gives the last chunks.
    """

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self._is_open = False
        self._text: tuple[str, str, str] | None = None
        self._openings: Counter[str] = Counter()
        self._tools: set[str] = set()
        self._questions: set[str] = set()

    def take(self, event: WebSocketEvent) -> list[Chunk]:
        """Return the chunks of the next event of the thread."""
        part = self.turn.take(event)
        if part is None or part is Part.CHILD:
            return []
        chunks = [] if self._is_open else self._opened()
        if part is Part.ANSWER:
            return [*chunks, *self._answered(event)]
        rule = _RULES.get(event.type)
        if rule is not None:
            return [*chunks, *rule(self, event)]
        if part is Part.OWN and not event.type.startswith("agent_"):
            chunks.append({"type": f"data-{event.type}", "data": event.data})
        return chunks

    def reopen(self) -> None:
        """Begin the message again with the next chunk: its former part has been read before."""
        self._is_open = False

    def _opened(self) -> list[Chunk]:
        self._is_open = True
        return [{"type": "start", "messageId": self.turn.message_id}, {"type": "start-step"}]

    def stop(self) -> list[Chunk]:
        """Return the last chunks, once the turn is stopped."""
        chunks = self._closed()
        if self.turn.ending is Ending.FAILED:
            text = self.turn.end.get("message")
            return [*chunks, {"type": "error", "errorText": text or "the agent failed"}]
        if self.turn.ending is Ending.CANCELLED:
            reason = self.turn.end.get("reason")
            return [*chunks, {"type": "abort", **({"reason": reason} if reason else {})}]
        why = "tool-calls" if self.turn.ending is Ending.WAITING else "stop"
        return [*chunks, {"type": "finish-step"}, {"type": "finish", "finishReason": why}]

    # Text

    def _closed(self) -> list[Chunk]:
        if self._text is None:
            return []
        (kind, _, id), self._text = self._text, None
        return [{"type": f"{kind}-end", "id": id}]

    def _said(self, event: WebSocketEvent) -> list[Chunk]:
        kind = event.data.get("part", "text")
        delta = event.data.get("delta")
        # The input of a tool comes whole, with the call.
        if kind == "tool_input" or not delta:
            return []
        message = str(event.data.get("message_id"))
        chunks: list[Chunk] = []
        if self._text is None or self._text[:2] != (kind, message):
            chunks = self._closed()
            id = f"{kind}_{message}"
            # Counted, so that it does not depend on how text was merged.
            self._openings[id] += 1
            if self._openings[id] > 1:
                id = f"{id}_{self._openings[id]}"
            self._text = (kind, message, id)
            chunks.append({"type": f"{kind}-start", "id": id})
        return [*chunks, {"type": f"{kind}-delta", "id": self._text[2], "delta": delta}]

    def _thought(self, event: WebSocketEvent) -> list[Chunk]:
        id, text = f"thinking_{event.seq}", event.data.get("thinking")
        if not text:
            return []
        return [
            *self._closed(),
            {"type": "reasoning-start", "id": id},
            {"type": "reasoning-delta", "id": id, "delta": text},
            {"type": "reasoning-end", "id": id},
        ]

    # Tools

    def _tool_began(self, event: WebSocketEvent) -> list[Chunk]:
        data = event.data
        shown = self._shown(data.get("tool_call_id"), data.get("tool_name"), data.get("tool_input"))
        return [*self._closed(), *shown]

    def _shown(self, call: Any, name: Any, input: Any, *, executes: str = "server") -> list[Chunk]:
        """Show a call once: one that was approved has been shown with its question."""
        if call in self._tools:
            return []
        self._tools.add(call)
        tool = {"toolCallId": call, "toolName": name, "dynamic": True}
        if executes == "server":
            # So that no client waits for itself to bring the output.
            tool["providerExecuted"] = True
        given = {} if input is None else input
        return [
            {"type": "tool-input-start", **tool},
            {"type": "tool-input-available", **tool, "input": given},
        ]

    def _tool_ended(self, event: WebSocketEvent) -> list[Chunk]:
        data, call = event.data, event.data.get("tool_call_id")
        shown = [*self._closed(), *self._shown(call, data.get("tool_name"), None)]
        about = {"toolCallId": call, "dynamic": True, "providerExecuted": True}
        if data.get("success"):
            return [
                *shown,
                {"type": "tool-output-available", **about, "output": data.get("tool_output")},
            ]
        error = data.get("error") or "the tool failed"
        return [*shown, {"type": "tool-output-error", **about, "errorText": str(error)}]

    # Questions

    def _asked(self, event: WebSocketEvent) -> list[Chunk]:
        data, request_id = event.data, event.data.get("request_id")
        closed = self._closed()
        if data.get("kind") != "approval":
            self._questions.add(str(request_id))
            asked = {key: data[key] for key in ("question", "schema") if key in data}
            return [*closed, *self._shown(request_id, ASK_TOOL, asked, executes="client")]
        call = data.get("tool_call_id") or request_id
        name = data.get("tool_name") or "approve"
        given = data.get("tool_input", {"question": data.get("question")})
        asks = {"type": "tool-approval-request", "approvalId": request_id, "toolCallId": call}
        if data.get("question"):
            asks["reason"] = data["question"]
        return [*closed, *self._shown(call, name, given), asks]

    def _answered(self, event: WebSocketEvent) -> list[Chunk]:
        """Show the answer, and go on in a new step, as clients expect after their answers."""
        request_id, answer = event.data.get("request_id"), event.data.get("answer")
        step: list[Chunk] = [{"type": "finish-step"}, {"type": "start-step"}]
        if request_id in self._questions:
            output = {"toolCallId": request_id, "output": answer, "dynamic": True}
            return [*self._closed(), {"type": "tool-output-available", **output}, *step]
        is_yes = answer is True or (isinstance(answer, dict) and answer.get("approved") is True)
        shown = {"type": "tool-approval-response", "approvalId": request_id, "approved": is_yes}
        if isinstance(answer, dict) and isinstance(answer.get("reason"), str):
            shown["reason"] = answer["reason"]
        return [*self._closed(), shown, *step]

    def _progressed(self, event: WebSocketEvent) -> list[Chunk]:
        # One part that is replaced, not one more for each.
        return [{"type": "data-progress", "id": f"progress_{event.run_id}", "data": event.data}]


_RULES: dict[str, Callable[[AiSdkTurn, WebSocketEvent], list[Chunk]]] = {
    "agent_delta": AiSdkTurn._said,
    "agent_thinking": AiSdkTurn._thought,
    "tool_executing": AiSdkTurn._tool_began,
    "tool_completed": AiSdkTurn._tool_ended,
    "input_requested": AiSdkTurn._asked,
    "progress_update": AiSdkTurn._progressed,
}
