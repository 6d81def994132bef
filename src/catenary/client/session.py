"""
One client's conversation with a server, over as many connections as it takes.

Pure: no I/O; time comes in as ``now``, in seconds of any steady clock. The
rules are those of docs/protocol.md, "How a client behaves".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from catenary.client.backoff import Backoff
from catenary.client.commands import Commands, Outcome
from catenary.client.inbox import Inbox
from catenary.client.messages import (
    Ack,
    Closing,
    Connected,
    Control,
    ErrorAnswer,
    GapNotice,
    Heartbeat,
    Live,
    Pong,
    PositionOk,
    decode_message,
    read_position,
)
from catenary.client.reports import Reports
from catenary.client.state import WORDS, Disconnect, Limits, State, Stats
from catenary.errors import CloseCode, ProtocolError
from catenary.events import WebSocketEvent
from catenary.position import Position

_FINAL_STATUSES = frozenset({400, 401, 403, 426})
_TOLD_STATUSES = frozenset({429, 503})


class Session:
    """
    The state of a client, between its transport and its application.

    The transport's duties: connect when :attr:`state` is ``connecting``; feed
    :meth:`receive`, :meth:`connection_lost` and :meth:`refused`; call
    :meth:`tick` at :meth:`next_deadline`; after each call write
    :meth:`messages_to_send` and drop the connection if
    :meth:`disconnect_to_make` says so.
    """

    def __init__(
        self,
        *,
        after: str | None,
        backoff: Backoff,
        now: float,
        is_filtered: bool = False,
        limits: Limits | None = None,
    ) -> None:
        """
        Begin with the first attempt.

        Raises:
            UsageError: If ``after`` is neither a position nor one of the words.
        """
        place = None if after is None or after in WORDS else Position.parse(after)
        self.inbox = Inbox(place, is_filtered=is_filtered)
        self.commands = Commands()
        self.connected: Connected | None = None
        self.close_code: int | None = None
        self.close_reason = ""
        self.pongs = 0
        self.attempts = 0
        self.connections = 0
        self._asked = after
        self._backoff = backoff
        self._limits = limits or Limits()
        self._outgoing: list[str] = []
        self._errors: list[ErrorAnswer] = []
        self._disconnect: Disconnect | None = None
        self.reports = Reports(self._limits.report_interval)
        self.reports.begin(place)
        self._heard_at = self._started_at = self._wait_until = now
        self._live_at: float | None = None
        self._probed_at: float | None = None
        self._reconnect_after: float | None = None
        self._connect(now)

    # What the transport does

    @property
    def after(self) -> str | None:
        """What the next attempt asks for: the reach, or what the application said."""
        return self._asked if self.inbox.reach is None else str(self.inbox.reach)

    @property
    def is_open(self) -> bool:
        """Whether the server has greeted the present connection."""
        return self.state in (State.REPLAYING, State.LIVE)

    @property
    def awaits_answer(self) -> bool:
        """Whether something was asked that only reading on can answer."""
        return len(self.commands) > 0 or self._probed_at is not None or self.reports.is_awaited

    @property
    def may_read(self) -> bool:
        """Whether the transport should read on. If not, the log and TCP hold the rest."""
        inbox, limits = self.inbox, self._limits
        has_room = (
            inbox.waiting_frames < limits.ahead_frames and inbox.waiting_bytes < limits.ahead_bytes
        )
        return has_room or self.awaits_answer

    def receive(self, raw: bytes | str, now: float) -> None:
        """Take one message of the server. A fault ends the connection."""
        if self.state in (State.WAITING, State.CLOSED):
            return
        self.heard(now)
        try:
            self._receive(raw, now)
        except ProtocolError as error:
            self.close_reason = str(error)
            self._give_up(Disconnect.FAULT, now)
        if self._is_behind and self.is_open and not self.awaits_answer:
            self._give_up(Disconnect.BEHIND, now)

    def heard(self, now: float) -> None:
        """Record a sign of life, such as a part of a message."""
        self._heard_at = max(self._heard_at, now)
        if self._probed_at is not None:
            self._probed_at = max(self._probed_at, now)

    def connection_lost(self, code: int, now: float, reason: str = "") -> None:
        """Take the end of a connection, or of an attempt; 1006 if no code came."""
        if self.state in (State.WAITING, State.CLOSED):
            return
        self.close_reason = reason
        if code == CloseCode.TOO_BIG:
            self.commands.fail_largest()
        if 4500 <= code <= 4999:
            self._close(code)
        else:
            self._wait(now, self._reconnect_after)

    def refused(self, status: int, now: float, retry_after: float | None = None) -> None:
        """Take the HTTP answer to an attempt that was not a connection."""
        if status in _FINAL_STATUSES:
            self._close(status)
        else:
            self._wait(now, retry_after if status in _TOLD_STATUSES else None)

    def tick(self, now: float) -> None:
        """Do what is due."""
        if self.state is State.WAITING and now >= self._wait_until:
            self._connect(now)
        elif self.state is State.CONNECTING and now >= self._started_at + self._limits.attempt:
            self._give_up(Disconnect.DEADLINE, now)
        elif self.is_open:
            self._check_liveness(now)
            self._report_if_open(now)

    def next_deadline(self) -> float | None:
        """When :meth:`tick` has something to do, if nothing else happens before."""
        if self.state is State.WAITING:
            return self._wait_until
        if self.state is State.CONNECTING:
            return self._started_at + self._limits.attempt
        if not self.is_open:
            return None
        silent_at = self._heard_at + self._silence
        if self._probed_at is not None:
            silent_at = min(silent_at, self._probed_at + self._limits.probe)
        return min(silent_at, self.reports.due_at(self.inbox.position))

    @property
    def has_messages(self) -> bool:
        """Whether :meth:`messages_to_send` may bring any."""
        return bool(self._outgoing) or self.commands.has_unsent

    def messages_to_send(self) -> list[str]:
        """What to write on the present connection; to be called after every input."""
        outgoing, self._outgoing = self._outgoing + self.commands.to_send(), []
        return outgoing

    def disconnect_to_make(self) -> Disconnect | None:
        """Why the present connection must be dropped, once; else None."""
        disconnect, self._disconnect = self._disconnect, None
        return disconnect

    def errors(self) -> list[ErrorAnswer]:
        """The errors that belong to no command, since the last call."""
        errors, self._errors = self._errors, []
        return errors

    def stats(self, events: int, bytes_received: int) -> Stats:
        """What was seen so far, with what the session itself does not see."""
        inbox = self.inbox
        return Stats(
            self.attempts, self.connections, events, inbox.gaps, inbox.duplicates, bytes_received
        )

    # What the application does

    def command(self, message: Mapping[str, Any]) -> None:
        """
        Send a command until it is answered; see :meth:`Commands.outcomes`.

        Raises:
            UsageError: If its id is open.
        """
        self.commands.add(message)
        if self.state is State.CLOSED:
            self.commands.fail_all(self._closed_because)

    def handled(self, count: int, now: float) -> None:
        """
        Record that the oldest ``count`` events handed over were handled.

        Raises:
            UsageError: As :meth:`Inbox.handled` does.
        """
        self.inbox.handled(count)
        self._report_if_open(now)

    def acknowledge_gap(self, now: float) -> None:
        """
        Record that the application dealt with the gap that it was handed.

        Raises:
            UsageError: As :meth:`Inbox.acknowledge_gap` does.
        """
        self.inbox.acknowledge_gap()
        self._report_if_open(now)

    def settle(self, now: float) -> None:
        """Record that everything handed over was handled, gaps included."""
        self.inbox.settle()
        self._report_if_open(now)

    def report_now(self, now: float) -> None:
        """Report the position at once; see :class:`Reports`."""
        self.reports.demand(self.inbox.position)
        self._report_if_open(now)

    def probe(self, now: float) -> None:
        """Doubt the connection: ping it, or end a wait."""
        if self.is_open and self._probed_at is None:
            self._probed_at = now
            self._send({"type": "ping"})
        elif self.state is State.WAITING or self.close_code == CloseCode.TOO_MANY_CONNECTIONS:
            self.close_code = None
            self._connect(now)

    def authenticate(self, token: str) -> None:
        """Show a fresh token on the open connection. Without one, the next attempt will."""
        if self.is_open:
            self._send({"type": "auth", "token": token})

    def stop(self, code: int = CloseCode.NORMAL) -> None:
        """Close for good."""
        if self.state not in (State.WAITING, State.CLOSED):
            self._disconnect = Disconnect.STOPPED
        if self.state is not State.CLOSED:
            self._close(code)

    # Inside

    def _report_if_open(self, now: float) -> None:
        if self.is_open:
            position = self.reports.to_send(self.inbox.position, now)
            if position is not None:
                self._send({"type": "position", "position": str(position)})

    def _connect(self, now: float) -> None:
        self.state = State.CONNECTING
        self.attempts += 1
        self._started_at = self._heard_at = now
        self._silence = float("inf")
        self._live_at = self._probed_at = self._reconnect_after = None
        self._wait_until = now
        self._is_behind = False

    def _wait(self, now: float, told: float | None) -> None:
        if self._live_at is not None:
            has_held = now - self._live_at >= self._limits.held
            (self._backoff.reset if has_held else self._backoff.ease)()
        if told is None:
            wait = self._backoff.next_wait()
        else:
            wait = max(0.0, told)
            self._backoff.count()
        self._end_connection(State.WAITING)
        self._wait_until = now + wait

    def _close(self, code: int) -> None:
        self._end_connection(State.CLOSED)
        self.close_code = code
        self.commands.fail_all(self._closed_because)

    def _end_connection(self, state: State) -> None:
        self.state = state
        self.commands.disconnected()
        self._outgoing.clear()
        self._probed_at = None
        self.reports.disconnected()

    def _give_up(self, disconnect: Disconnect, now: float) -> None:
        self._disconnect = disconnect
        self._wait(now, 0.0 if disconnect is Disconnect.BEHIND else None)

    @property
    def _closed_because(self) -> str:
        because = f": {self.close_reason}" if self.close_reason else ""
        return f"the client is closed ({self.close_code}){because}"

    def _send(self, message: Mapping[str, Any]) -> None:
        self._outgoing.append(msgspec.json.encode(message).decode())

    def _check_liveness(self, now: float) -> None:
        if self._probed_at is not None and now >= self._probed_at + self._limits.probe:
            self._give_up(Disconnect.PROBE, now)
        elif now >= self._heard_at + self._silence:
            self._give_up(Disconnect.SILENCE, now)

    def _receive(self, raw: bytes | str, now: float) -> None:
        message = decode_message(raw)
        if isinstance(message, Connected):
            self._greet(message, now)
        elif self.state is State.CONNECTING:
            raise ProtocolError("bad_message", "something came before connected")
        elif isinstance(message, WebSocketEvent | GapNotice | Live | Heartbeat):
            self._advance(message, len(raw), now)
        else:
            self._answer(message)

    def _greet(self, connected: Connected, now: float) -> None:
        if self.state is not State.CONNECTING:
            raise ProtocolError("bad_message", "connected came twice")
        if self.inbox.reach is None:
            place = read_position(connected.after)
            self.inbox.begin(place)
            self.reports.begin(place)
        self.connected = connected
        self.connections += 1
        self.state = State.REPLAYING
        self._silence = connected.heartbeat_interval * self._limits.silence_factor
        self.commands.connected(connected.max_message_bytes)
        self._report_if_open(now)

    def _advance(
        self, message: WebSocketEvent | GapNotice | Live | Heartbeat, size_bytes: int, now: float
    ) -> None:
        if self._is_behind or self.inbox.waiting_bytes >= self._limits.answer_ahead_bytes:
            self._is_behind = True
        elif isinstance(message, WebSocketEvent):
            self.inbox.receive_event(message, size_bytes)
        elif isinstance(message, GapNotice):
            self.inbox.receive_gap(message, size_bytes)
        else:
            self.inbox.receive_place(read_position(message.position))
            if isinstance(message, Live):
                self.state = State.LIVE
                self._live_at = now

    def _answer(self, message: Control) -> None:
        match message:
            case Ack():
                self.commands.succeed(
                    Outcome(
                        message.id,
                        message.reply,
                        message.already_ended,
                        already_answered=message.already_answered,
                        answer=message.answer,
                    )
                )
            case ErrorAnswer(id=None):
                self._errors.append(message)
            case ErrorAnswer(id=str(command_id)):
                self.commands.fail(command_id, message.code, message.message)
            case Pong():
                self._probed_at = None
                self.pongs += 1
            case PositionOk():
                self.reports.confirm(read_position(message.position), self.inbox.position)
            case Closing():
                self._reconnect_after = message.reconnect_after
            case _:
                pass  # a type of a later protocol, or an answer that changes nothing
