"""Events for logs, and what a log's tests ask again and again."""

from __future__ import annotations

from collections.abc import Sequence

from catenary.encoding import encode
from catenary.envelope import Envelope
from catenary.eventlog.base import EventLog
from catenary.eventlog.closing import ending_entries
from catenary.eventlog.entry import Entry
from catenary.eventlog.receipt import Receipt
from catenary.events import AgentCancelled, AgentDelta, AgentStarted, EventType
from catenary.grammar import OpenTool, Step
from catenary.position import Position
from catenary.record import Record
from catenary.wires.native import event_of

USER = "user_123"
NOW = 1_795_222_800.0


class Clock:
    """A clock that goes on when it is told."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Bell:
    """A watcher that remembers being woken."""

    def __init__(self) -> None:
        self.is_awake = False

    def wake(self) -> None:
        """Note it."""
        self.is_awake = True


def event(
    n: object = 0,
    *,
    user: str = USER,
    thread: str | None = "t1",
    run: str | None = None,
    key: str | None = None,
    size: int = 0,
) -> Entry:
    """Return an event of the application outside the grammar."""
    about = Envelope(user_id=user, thread_id=thread, run_id=run)
    data = encode({"n": n, "pad": "x" * size} if size else {"n": n})
    return Entry(
        "app.note",
        about.body(int(NOW * 1000), data),
        Receipt(),
        thread,
        run,
        key=key,
        digest=data if key else b"",
    )


def _of_run(
    type: str, data: bytes, step: Step, run: str, thread: str, user: str, call: str = ""
) -> Entry:
    about = Envelope(user_id=user, thread_id=thread, run_id=run, agent_name="writer")
    body = about.body(int(NOW * 1000), data)
    tool = OpenTool("search", int(NOW * 1000)) if step is Step.TOOL_START else None
    return Entry(type, body, Receipt(), thread, run, step=step, tool_call_id=call, tool=tool)


def started(
    run: str = "r1", *, thread: str = "t1", user: str = USER, lease: float | None = None
) -> Entry:
    """Return the start of a run."""
    data = encode(AgentStarted(lease=lease))
    return _of_run(EventType.AGENT_STARTED, data, Step.START, run, thread, user)


def delta(text: str, run: str = "r1", *, thread: str = "t1", message: str = "m1") -> Entry:
    """Return a piece of a message."""
    data = encode(AgentDelta(message_id=message, delta=text))
    entry = _of_run(EventType.AGENT_DELTA, data, Step.WITHIN, run, thread, USER)
    entry.merge = f"{run}\0{message}\0text"
    entry.delta_at = len(entry.body) - len(encode(text)) + 1 - 2
    return entry


def tool_started(call: str, run: str = "r1") -> Entry:
    """Return the start of a tool call."""
    data = encode({"tool_name": "search", "tool_call_id": call, "tool_input": {}})
    return _of_run(EventType.TOOL_EXECUTING, data, Step.TOOL_START, run, "t1", USER, call)


def tool_ended(call: str, run: str = "r1") -> Entry:
    """Return the end of a tool call."""
    data = encode({"tool_name": "search", "tool_call_id": call, "success": True})
    return _of_run(EventType.TOOL_COMPLETED, data, Step.TOOL_END, run, "t1", USER, call)


def completed(run: str = "r1", *, thread: str = "t1") -> Entry:
    """Return the good end of a run."""
    data = encode({"outcome": "success"})
    return _of_run(EventType.AGENT_COMPLETED, data, Step.COMPLETE, run, thread, USER)


def cancelled(run: str, tools: dict[str, OpenTool]) -> Sequence[Entry]:
    """Return what ends a run with its open tools."""
    about = Envelope(user_id=USER, thread_id="t1", run_id=run)
    return ending_entries(about, tools, AgentCancelled(), at=int(NOW * 1000))


async def append(log: EventLog, *entries: Entry, log_id: str = USER) -> list[Position]:
    """Append entries one by one and wait for all."""
    stream = log.stream(log_id)
    receipts = [log.append(stream, entry) for entry in entries]
    return [await receipt for receipt in receipts]


async def all_records(log: EventLog, log_id: str = USER, limit: int = 500) -> list[Record]:
    """Read a log from the start of what is retained, page by page, and check that none is lost."""
    place = await log.locate(log_id, "start")
    records: list[Record] = []
    while True:
        page = await log.read(log_id, place, limit=limit)
        assert page.gap is None or page.gap.reason == "epoch"
        for record in page.records:
            assert not records or record.first_seq == records[-1].seq + 1, "a hole"
            records.append(record)
        place = page.place
        if page.is_at_head:
            return records


def numbers(records: Sequence[Record]) -> list[object]:
    """Return what :func:`event` was made with."""
    return [event_of(record).data.get("n") for record in records]


def said(records: Sequence[Record], run: str = "r1") -> str:
    """Return the text that the records of a run hold."""
    return "".join(
        event_of(record).data["delta"]
        for record in records
        if record.type == EventType.AGENT_DELTA and record.run_id == run
    )
