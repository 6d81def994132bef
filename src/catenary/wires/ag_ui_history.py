"""
What was said in a thread, as the messages of AG-UI.

Pure: no I/O, no clock.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from catenary.events import EventType, WebSocketEvent
from catenary.wires.ag_ui import AgUiTurn, Frame, messages_of
from catenary.wires.turn import Turn


class _Told(NamedTuple):
    encoder: AgUiTurn
    frames: list[Frame]


class AgUiHistory:
    """The messages of one thread. Give it the thread's events in order."""

    def __init__(self, thread_id: str) -> None:
        self._thread_id = thread_id
        self._items: list[Frame | _Told] = []
        self._by_run: dict[str, _Told] = {}

    def take(self, event: WebSocketEvent) -> None:
        """Take the next event of the thread."""
        if event.type == EventType.USER_MESSAGE:
            self._items.append(_question(event.data))
        elif event.run_id is not None:
            told = self._by_run.get(event.run_id) or self._begun(event, event.run_id)
            if told is not None:
                told.frames.extend(told.encoder.take(event))

    def _begun(self, event: WebSocketEvent, run_id: str) -> _Told | None:
        """Return the turn that a run belongs to: that of its parent or former run, or a new one."""
        if event.type != EventType.AGENT_STARTED:
            return None
        told = self._by_run.get(event.parent_run_id or event.data.get("continues_run_id") or "")
        if told is None and event.parent_run_id is None:
            turn = Turn(run_id=run_id)
            told = _Told(AgUiTurn(turn, thread_id=self._thread_id, run_id=run_id), [])
            self._items.append(told)
        if told is not None:
            self._by_run[run_id] = told
        return told

    def messages(self, *, without: str | None = None) -> list[Frame]:
        """Return the messages; the turn that began with the run ``without`` is left out."""
        messages: list[Frame] = []
        for item in self._items:
            if isinstance(item, dict):
                messages.append(item)
            elif item.encoder.turn.message_id != without:
                messages += messages_of(item.frames)
        return messages


def _question(data: dict[str, Any]) -> Frame:
    id = data.get("client_message_id") or data.get("message_id")
    content = data.get("content")
    return {"id": id, "role": "user", "content": content if isinstance(content, str) else ""}
