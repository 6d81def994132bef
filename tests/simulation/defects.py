"""Defects to be planted in a copy of the source, each of which some schedule must find."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Defect(NamedTuple):
    """A change of one place in one module; ``old`` stands there once or more, the first is changed."""

    name: str
    module: str
    old: str
    new: str

    def plant(self, source: Path) -> None:
        """
        Put it into a copy of the package.

        Raises:
            LookupError: If the module has changed, so that it must be planted in another way.
        """
        file = source / "catenary" / self.module
        text = file.read_text()
        if self.old not in text:
            raise LookupError(f"{self.name!r}: {self.module} reads otherwise now; plant it anew")
        file.write_text(text.replace(self.old, self.new, 1))


DEFECTS = [
    # The hub and its connections
    Defect(
        "the hub's turn ends and forgets who is left",
        "hub.py",
        "                    self.loop.call_soon(self._turn)\n                return",
        "                return",
    ),
    Defect(
        "a wake-up during a turn is lost",
        "hub.py",
        "        self.is_awake = False\n        for connection in self.connections:",
        "        for connection in self.connections:",
    ),
    Defect(
        "a second connection takes the first one's place",
        "hub.py",
        "        subscription.connections = (*subscription.connections, connection)",
        "        subscription.connections = (connection,)",
    ),
    Defect(
        "the last reader leaves its watcher",
        "hub.py",
        "            watching.add_done_callback(lambda _: self._unwatch(subscription))\n"
        "            self._unwatch(subscription)",
        "            watching.add_done_callback(lambda _: None)",
    ),
    Defect(
        "a cursor writes to a socket that is full",
        "connection.py",
        "or self._is_replaying or self.transport.is_paused:",
        "or self._is_replaying:",
    ),
    Defect(
        "a cursor does not go on when its socket drains",
        "connection.py",
        "            self.transport.resume_reading()\n        self.pump()",
        "            self.transport.resume_reading()\n            self.pump()",
    ),
    Defect(
        "a heartbeat says the head, not the cursor",
        "connection.py",
        "heartbeat_frame(self.place,",
        "heartbeat_frame(self.stream.position,",
    ),
    Defect(
        "no heartbeat comes",
        "connection.py",
        "self._quiet_ticks >= ticks and",
        "self._quiet_ticks >= 100 * ticks and",
    ),
    Defect(
        "a dead peer is kept",
        "connection.py",
        "> 2.5 * interval:",
        "> 250 * interval:",
    ),
    Defect(
        "a peer is dead too early",
        "connection.py",
        "> 2.5 * interval:",
        "> 0.5 * interval:",
    ),
    Defect(
        "a connection that is gone stays subscribed",
        "connection.py",
        "        self.hub.unsubscribe(self.log_id, self)\n        self.hub.counters.closes",
        "        self.hub.counters.closes",
    ),
    Defect(
        "a gap is not told",
        "connection.py",
        "            self._tell_gap(page.gap)",
        "            pass",
    ),
    # The hand-over from pages to the tail
    Defect(
        "a cursor behind the tail goes on where the tail begins",
        "eventlog/tail.py",
        "        if start < 0:\n            return None",
        "        if start < 0:\n            start, seq = 0, first - 1",
    ),
    Defect(
        "a trimmed tail keeps its first number",
        "eventlog/tail.py",
        "self._held = (first + drop, frames[drop:], threads[drop:])",
        "self._held = (first, frames[drop:], threads[drop:])",
    ),
    Defect(
        "a filtered turn passes over one event",
        "eventlog/tail.py",
        "                return taken, count\n",
        "                return taken, count + 1\n",
    ),
    Defect(
        "what was read last is not followed by a turn",
        "connection.py",
        "            self._is_replaying = False\n        self.pump()",
        "            self._is_replaying = False",
    ),
    Defect(
        "a log that is away is not asked again",
        "replay.py",
        "            if hub.loop.time() > patience_ends:\n"
        "                _give_up(connection, CloseCode.LOG_UNAVAILABLE, error)\n"
        "                return",
        "            logger.info('%s', error)\n            return",
    ),
    Defect(
        "a filtered page ends at its last own event",
        "eventlog/paging.py",
        "        reached = record.seq\n    place",
        "            reached = record.seq\n    place",
    ),
    # Merging
    Defect(
        "a merged range begins one number too late",
        "record.py",
        "        from_seq=first.first_seq,\n        cuts=",
        "        from_seq=first.first_seq + 1,\n        cuts=",
    ),
    Defect(
        "the rest of a merged delta is cut one place too early",
        "record.py",
        "    begin = record.cuts[seq - record.from_seq]",
        "    begin = record.cuts[max(0, seq - record.from_seq - 1)]",
    ),
    Defect(
        "a place inside a merged range gets all of it again",
        "eventlog/paging.py",
        "rest_after(record, reached) if record.first_seq <= reached else record",
        "record",
    ),
    Defect(
        "events of different keys are merged",
        "record.py",
        "        and record.merge == last.merge\n",
        "        and last.merge is not None\n",
    ),
    Defect(
        "compaction loses an event",
        "eventlog/memory_stream.py",
        "        merged = list(merge_adjacent(part))",
        "        merged = list(merge_adjacent(part))[:-1] or list(part)",
    ),
    # Retention, terms, erasing
    Defect(
        "retention forgets to say where the log begins",
        "eventlog/memory_stream.py",
        "        self.terms.first = self.records[0].first_seq if self.records else self.head + 1",
        "",
    ),
    Defect(
        "retention drops more than it must",
        "eventlog/memory.py",
        "            stream.drop(drop)\n",
        "            stream.drop(drop + 1)\n",
    ),
    Defect(
        "a trim of the file leaves what is counted",
        "eventlog/sqlite/keeping.py",
        "        state.terms.first = dropped[-1].seq + 1",
        "        state.terms.first = dropped[0].seq + 1",
    ),
    Defect(
        "former terms are forgotten",
        "eventlog/terms.py",
        "[-TERMS_KEPT:]",
        "[-1:]",
    ),
    Defect(
        "the end of a former term is passed without a gap",
        "eventlog/terms.py",
        "if place.seq == last and place.epoch != self.epoch:",
        "if place.seq > last and place.epoch != self.epoch:",
    ),
    Defect(
        "a position beyond the head begins no term",
        "eventlog/memory.py",
        "            if terms.is_future(place):",
        "            if terms.is_future(place) and place.seq > 1 << 50:",
    ),
    Defect(
        "a new term wakes no reader",
        "eventlog/stream.py",
        "            for watcher in self.watchers:\n                watcher.wake()\n\n    def cancel",
        "\n    def cancel",
    ),
    Defect(
        "an erased thread stays in the tail",
        "eventlog/memory_stream.py",
        "        if self.tail is not None:\n            self.tail.clear()\n        if found:",
        "        if found:",
    ),
    Defect(
        "what is erased closes the runs that begin",
        "eventlog/sqlite/log.py",
        "            if run.first_seq and (",
        "            if (",
    ),
    # The writer of the file
    Defect(
        "readers are shown what is not committed",
        "eventlog/committer/log.py",
        "                outcome = self._commit(group)\n",
        "                for batch in group.batches:\n"
        "                    for entry in batch.entries:\n"
        "                        if batch.stream.is_loaded and not entry.receipt.is_settled:\n"
        "                            s = batch.stream\n"
        "                            s.publish(entry.to_record(s.epoch, s.head + 1, 0))\n"
        "                            s.head -= 1\n"
        "                outcome = self._commit(group)\n",
    ),
    Defect(
        "a receipt is settled before the commit",
        "eventlog/committer/log.py",
        "                outcome = self._commit(group)\n",
        "                for batch in group.batches:\n"
        "                    for n, entry in enumerate(batch.entries, 1):\n"
        "                        s = batch.stream\n"
        "                        if s.is_loaded and not entry.receipt.is_settled:\n"
        "                            entry.receipt.commit(s.epoch, s.head + n)\n"
        "                outcome = self._commit(group)\n",
    ),
    Defect(
        "a commit that was not answered is made again",
        "eventlog/sqlite/writer.py",
        "                if is_stored(self._writing, unsure, self._producer):\n"
        "                    unsure",
        "                if not unsure:\n                    unsure",
    ),
    Defect(
        "a commit that failed is given up",
        "eventlog/committer/log.py",
        "                group = Group(group.batches, self._take_works() if group.batches else [])",
        "                group = Group([], [])",
    ),
    Defect(
        "what waits for the retry of a batch is forgotten",
        "eventlog/committer/log.py",
        "left = [work for work in group.works if not work.future.done()]",
        "left: list[Work[Any]] = []",
    ),
    Defect(
        "a killed process leaves its runs open",
        "eventlog/sqlite/writer.py",
        "        lost = [run for run in runs if run.lease is None]",
        "        lost = runs[:0]",
    ),
    # Runs and commands
    Defect(
        "a run goes on after its end",
        "grammar.py",
        "        self.stage = RunStage.ENDED\n\n    def close",
        "        self.open_tools.clear()\n\n    def close",
    ),
    Defect(
        "the tools of a run that fails stay open",
        "eventlog/closing.py",
        "return [*closed, run_entry(",
        "return [run_entry(",
    ),
    Defect(
        "an idempotency key is not remembered",
        "eventlog/accepting.py",
        "        entry.receipt = known[1]\n        return True",
        "        return False",
    ),
    Defect(
        "a message is claimed again and again",
        "eventlog/commands.py",
        "            self._claims[command_id] = (digest, now, None)\n",
        "",
    ),
    Defect(
        "a message that is handled now is handled twice",
        "eventlog/handlings.py",
        "found = self._at_work.setdefault(key, handling)",
        "found = self._at_work[key] = handling",
    ),
    Defect(
        "the reply to a message is not stored",
        "inbound.py",
        "        await log.finish_command(*key, reply)\n",
        "",
    ),
    # The client
    Defect(
        "a client comes back one event too early",
        "client/session.py",
        "else str(self.inbox.reach)",
        'else f"{self.inbox.reach.epoch}:{max(0, self.inbox.reach.seq - 1)}"',
    ),
    Defect(
        "a client comes back one event too late",
        "client/session.py",
        "else str(self.inbox.reach)",
        'else f"{self.inbox.reach.epoch}:{self.inbox.reach.seq + self.attempts % 2}"',
    ),
    Defect(
        "a client goes on beyond a gap",
        "client/inbox.py",
        "Position(resumes_at.epoch, max(0, resumes_at.seq - 1))",
        "Position(resumes_at.epoch, resumes_at.seq)",
    ),
    Defect(
        "a client does not send again what was not answered",
        "client/commands.py",
        "        self._unsent = deque(self._open)\n",
        "",
    ),
    Defect(
        "a client does not notice silence",
        "client/session.py",
        "        elif now >= self._heard_at + self._silence:",
        "        elif now >= self._heard_at + 1e9:",
    ),
    Defect(
        "a client reads nothing before it is greeted",
        "client/driver.py",
        "        if session.may_read or not session.is_open:",
        "        if session.may_read and session.is_open:",
    ),
]
