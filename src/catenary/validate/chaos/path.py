"""A connection's way through a network, sans I/O: when which bytes arrive, and how it ends."""

from __future__ import annotations

from catenary.validate.chaos.faults import Ending, Fate, Faults, Seed, Way, seeded
from catenary.validate.chaos.journal import Incident
from catenary.validate.chaos.link import Link, Mark


class Path:
    """
    Both directions of one connection, and its fate.

    Feed it what each peer sends, and ask for what is to be sent on when
    :meth:`next_due` has come. Once :attr:`ending` is set both sockets are to be
    closed so. The same seed, number, faults, bytes and times give the same
    again. ``now`` is a monotonic time in seconds, given with every call.
    """

    def __init__(self, *, seed: Seed, number: int, faults: Faults, now: float) -> None:
        self.number = number
        self.is_silent = False
        """Whether nothing arrives any more, and nobody is told."""
        self.ending: Ending | None = None
        """How both sockets are to be closed; None while the connection is open."""
        self._incidents: list[tuple[Incident, str]] = []
        self._fate = Fate.draw(seed, number)
        self._links = {way: Link(way, faults, seeded(seed, number, way.value)) for way in Way}
        self._ended_by: set[Way] = set()
        self._arrived: set[Way] = set()
        self._opened = self._heard = now
        self._loss: tuple[float, Way] | None = None
        self._lag = 0.0
        self._held_since: float | None = None
        self._room_bytes: int | None = None
        """What still passes before it breaks; None if it does not."""
        self._note(Incident.OPENED)
        self.change(faults)
        if self._fate.is_refused(faults):
            self.refuse()

    # What the network is like

    @property
    def is_moving(self) -> bool:
        """Whether something can arrive: it is open, not silent and not held."""
        return self.ending is None and not self.is_silent and self._held_since is None

    def refuse(self) -> None:
        """Drop it as it is made."""
        if self.ending is None:
            self.ending = Ending.RESET
            self._note(Incident.REFUSED)

    def change(self, faults: Faults) -> None:
        """
        Have other faults hold from now on.

        What is under way arrives as it would have. Where the connection breaks
        is counted anew from here.
        """
        self._faults = faults
        for link in self._links.values():
            link.faults = faults
        breaks = self._fate.is_cut(faults) or self._fate.goes_silent(faults)
        self._room_bytes = self._fate.place_bytes(faults) if breaks else None

    def hold(self, now: float) -> None:
        """Let time stand still on this path. Idempotent."""
        if self._held_since is None:
            self._held_since = now

    def release(self, now: float) -> None:
        """Let time go on. Idempotent."""
        if self._held_since is not None:
            self._lag += now - self._held_since
            self._held_since = None

    def silence(self) -> None:
        """Let nothing arrive any more."""
        if self.ending is None and not self.is_silent:
            self.is_silent = True
            self._note(Incident.HALF_OPEN)
            self._end_if_deserted()

    def cut(self, ending: Ending, detail: str = "") -> None:
        """Break it now; what is under way is lost. Of one that is silent nobody can be told."""
        if self.ending is None and not self.is_silent:
            self.ending = ending
            self._note(Incident.RESET if ending is Ending.RESET else Incident.CUT, detail)

    # What the peers do

    def receive_refusal(self, reason: str) -> None:
        """Take that the server cannot be reached."""
        if self.ending is None:
            self.ending = Ending.RESET
            self._note(Incident.UNREACHABLE, reason)

    def receive_data(self, way: Way, data: bytes, now: float) -> None:
        """Take what the peer at the beginning of a way sent."""
        if self.ending is not None:
            return
        link, now = self._links[way], self._local(now)
        self._heard = now
        link.receive_data(data[: self._room_bytes], now)
        if self._room_bytes is not None:
            self._room_bytes -= len(data)
            if self._room_bytes < 0:
                self._room_bytes = None
                is_cut = self._fate.is_cut(self._faults)
                link.receive_mark(Mark.CUT if is_cut else Mark.SILENCE, now)
        for incident in link.incidents:
            self._note(incident, way.value)
        link.incidents.clear()

    def receive_eof(self, way: Way, now: float) -> None:
        """Take that the peer at the beginning of a way has ended its sending."""
        if self.ending is None:
            self._ended_by.add(way)
            self._links[way].receive_mark(Mark.EOF, self._local(now))
            self._end_if_deserted()

    def receive_loss(self, way: Way, now: float) -> None:
        """
        Take that the peer at the beginning of a way is gone.

        The other one hears of it when it has been given what is due by then: a
        reset does not wait for a peer that does not read.
        """
        if self.ending is None:
            self._ended_by.add(way)
            arrival = self._links[way].arrival(self._local(now))
            if self._loss is None or arrival < self._loss[0]:
                self._loss = (arrival, way)
            self._end_if_deserted()

    def _end_if_deserted(self) -> None:
        """Nobody can notice any more that a silent path is not there."""
        if self.is_silent and len(self._ended_by) == len(Way):
            self.ending = Ending.END

    # What arrives

    def data_to_send(self, way: Way, now: float) -> bytes:
        """
        Return what is due at the end of a way, for one write.

        More may be due at once: see :meth:`next_due`. Afterwards
        :attr:`ending` or :meth:`is_at_end` may hold.
        """
        if not self.is_moving:
            return b""
        now, link = self._local(now), self._links[way]
        data = link.take(now)
        mark = link.take_mark(now)
        if mark is Mark.EOF:
            self._arrived.add(way)
            if len(self._arrived) == len(Way):
                self.ending = Ending.END
                self._note(Incident.ENDED)
        elif mark is Mark.CUT:
            self.cut(self._fate.ending(self._faults), way.value)
        elif mark is Mark.SILENCE:
            self.silence()
        return data

    def advance(self, now: float) -> None:
        """
        End what is to end by now: a peer was lost, or it was idle or open for too long.

        Call it when what is due was sent on.
        """
        if not self.is_moving:
            return
        now = self._local(now)
        if self._loss is not None and self._loss[0] <= now:
            self.ending = Ending.RESET
            self._note(Incident.VANISHED, self._loss[1].value)
        for deadline, reason in self._deadlines:
            if deadline <= now:
                self.cut(self._fate.ending(self._faults), reason)

    def is_at_end(self, way: Way) -> bool:
        """Whether the end of the sending has arrived, so that nothing more will."""
        return way in self._arrived

    def next_due(self, *ways: Way) -> float | None:
        """When something is to be done at the end of these ways, or to the path; else None."""
        if not self.is_moving:
            return None
        dues = [due for way in ways if (due := self._links[way].next_due) is not None]
        dues += [deadline for deadline, _ in self._deadlines]
        if self._loss is not None:
            dues.append(self._loss[0])
        return min(dues) + self._lag if dues else None

    def held_bytes(self, way: Way) -> int:
        """How many bytes are under way."""
        return self._links[way].held_bytes

    def take_incidents(self) -> list[tuple[Incident, str]]:
        """Return what happened since the last call, each with a word of detail."""
        incidents, self._incidents = self._incidents, []
        return incidents

    # Inside

    def _local(self, now: float) -> float:
        """Return the time on this path, which stands still while it is held."""
        return (now if self._held_since is None else self._held_since) - self._lag

    @property
    def _deadlines(self) -> list[tuple[float, str]]:
        idle, lifetime = self._faults.idle_timeout, self._faults.lifetime
        deadlines = [] if idle is None else [(self._heard + idle, "idle")]
        return (
            deadlines if lifetime is None else [*deadlines, (self._opened + lifetime, "lifetime")]
        )

    def _note(self, incident: Incident, detail: str = "") -> None:
        self._incidents.append((incident, detail))
