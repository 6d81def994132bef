"""
What an event is worth to whoever watches: 1 (unusable) to 5 (all that a page wants).

Each type of event has one thing without which it is useless, worth 2, and
three that a user interface would like to show, worth 1 each. So more content
never lowers a score.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from catenary.events import EventType, WebSocketEvent

FILLERS = frozenset(
    {"thinking", "processing", "loading", "working", "please", "wait", "a", "moment", "ok", "done"}
)
"""Words that alone say nothing of what happens."""

TELLING_WORDS = 3
"""So many real words are a sentence that tells something."""

_WORD = re.compile(r"\w+")


class ContentScore(NamedTuple):
    """The score of one event, 1 to 5, and what it lacks for a higher one, in words."""

    score: int
    lacks: tuple[str, ...]


class _Wish(NamedTuple):
    """Something that an event should carry."""

    name: str
    is_met: Callable[[WebSocketEvent], bool]


class _Rubric(NamedTuple):
    """What one type of event must carry, and the three things it should."""

    must: _Wish
    wishes: tuple[_Wish, _Wish, _Wish]


def content_score(event: WebSocketEvent) -> ContentScore:
    """
    Return what an event is worth to whoever watches.

    The rubric of each type is in docs/how-to/test-your-agents.md. A tombstone
    (``erased``) shows nothing, and nothing is wanted of it: 5.
    """
    if event.type == EventType.ERASED:
        return ContentScore(5, ())
    rubric = _RUBRICS.get(event.type, _OF_APPLICATIONS)
    lacks = tuple(wish.name for wish in rubric.wishes if not wish.is_met(event))
    if not rubric.must.is_met(event):
        return ContentScore(1, (rubric.must.name, *lacks))
    return ContentScore(5 - len(lacks), lacks)


def _holds(value: Any) -> bool:
    """Whether a value has something to show: neither empty, nor only empty things in it."""
    if isinstance(value, str):
        return not (value == "" or value.isspace())
    if isinstance(value, Mapping):
        return any(map(_holds, value.values()))
    if isinstance(value, Sequence):
        return any(map(_holds, value))
    return value is not None


def _words(value: Any) -> int:
    """How many words of a text say something."""
    if not isinstance(value, str):
        return 0
    return sum(word not in FILLERS for word in _WORD.findall(value.lower()))


# Wishes


def _has(*names: str) -> _Wish:
    """One of these data, with something in it."""
    return _Wish(" or ".join(names), lambda event: any(_holds(event.data.get(n)) for n in names))


def _tells(name: str) -> _Wish:
    """This datum, whatever it is: an empty object tells that there is nothing."""
    return _Wish(name, lambda event: event.data.get(name) is not None)


def _says(name: str, words: int) -> _Wish:
    """This datum, with so many words that say something."""
    text = f"{name} with {words} telling words" if words > 1 else f"{name} that says something"
    return _Wish(text, lambda event: _words(event.data.get(name)) >= words)


def _takes_time(name: str) -> _Wish:
    return _Wish(name, lambda event: _is_duration(event.data.get(name)))


def _is_duration(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


_TEXT = _Wish(
    "delta", lambda event: isinstance(text := event.data.get("delta"), str) and text != ""
)
_RUN = _Wish("run_id", lambda event: bool(event.run_id))
_THREAD = _Wish("thread_id", lambda event: bool(event.thread_id))
_AGENT = _Wish("agent_name", lambda event: bool(event.agent_name))
_TIME = _Wish("timestamp", lambda event: event.timestamp > 0)
_DOT = _Wish("a type with a dot", lambda event: "." in event.type)
_ANYTHING = _Wish("data", lambda event: _holds(event.data))
_RESULT = _Wish(
    "result",
    lambda event: _holds(event.data.get("result")) or event.data.get("outcome") == "suspended",
)

_RUBRICS: dict[str, _Rubric] = {
    EventType.AGENT_STARTED: _Rubric(_RUN, (_AGENT, _THREAD, _has("task"))),
    EventType.AGENT_THINKING: _Rubric(
        _says("thinking", 1), (_says("thinking", TELLING_WORDS), _RUN, _AGENT)
    ),
    EventType.AGENT_DELTA: _Rubric(_TEXT, (_has("message_id"), _RUN, _AGENT)),
    EventType.TOOL_EXECUTING: _Rubric(
        _has("tool_name"), (_has("tool_call_id"), _tells("tool_input"), _RUN)
    ),
    EventType.TOOL_COMPLETED: _Rubric(
        _has("tool_call_id"),
        (_tells("success"), _has("tool_output", "error"), _takes_time("duration_ms")),
    ),
    EventType.AGENT_COMPLETED: _Rubric(_RUN, (_RESULT, _takes_time("duration_ms"), _AGENT)),
    EventType.AGENT_ERROR: _Rubric(
        _says("message", 1), (_says("message", TELLING_WORDS), _has("code"), _RUN)
    ),
    EventType.AGENT_CANCELLED: _Rubric(_RUN, (_has("reason"), _has("by"), _AGENT)),
    EventType.PROGRESS_UPDATE: _Rubric(
        _has("message", "percentage", "current_step"),
        (_says("message", 1), _has("percentage", "total_steps"), _RUN),
    ),
    EventType.USER_MESSAGE: _Rubric(
        _has("content"), (_has("message_id"), _has("client_message_id"), _THREAD)
    ),
    EventType.INPUT_REQUESTED: _Rubric(
        _has("request_id"), (_says("question", TELLING_WORDS), _has("kind"), _RUN)
    ),
    EventType.INPUT_RESOLVED: _Rubric(_has("request_id"), (_tells("answer"), _has("by"), _RUN)),
}
_OF_APPLICATIONS = _Rubric(_ANYTHING, (_THREAD, _TIME, _DOT))
