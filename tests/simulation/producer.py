"""What speaks in a simulated world: one user's and thread's emitter, its runs and its agents."""

from __future__ import annotations

import asyncio

from catenary import Run, RunFailed, UserWebSocketContext
from catenary.errors import CatenaryError
from catenary.eventlog.receipt import Receipt
from tests.simulation.bridge import Bridge
from tests.simulation.ledger import Ledger
from tests.simulation.schedule import Step, What

PAD = 'é"\\\n\u2028 '
"""Characters that take more in JSON than in a string, and some bytes each."""

BIG_BYTES = 12_000
HUGE_BYTES = 70_000
AT_ONCE_BYTES = 360_000
"""More than a tail holds."""

_WITHIN_RUNS = {What.DELTA, What.BIG_DELTA, What.THINKING}
_PADS = {What.BIG_NOTE: BIG_BYTES, What.BIG_DELTA: BIG_BYTES, What.HUGE_NOTE: HUGE_BYTES}


class Producer:
    """Emits for one user in one thread, in the process of a bridge."""

    def __init__(self, bridge: Bridge, ledger: Ledger, user_id: str, thread_id: str) -> None:
        self.user_id = user_id
        self.thread_id = thread_id
        self._bridge = bridge
        self._ledger = ledger
        context = UserWebSocketContext(user_id=user_id, thread_id=thread_id)
        self.emitter = bridge.factory.get_user_emitter(context)
        self._begun: set[str] = set()

    @property
    def run_id(self) -> str:
        """The latest run that verbs began."""
        return self.emitter.run_id

    @property
    def open_runs(self) -> set[str]:
        """The runs that verbs began and that have not ended."""
        runs = self.emitter.stream.runs
        return {run_id for run_id in self._begun if run_id in runs and runs[run_id].is_open}

    def _begin_run(self) -> None:
        self.emitter.agent_started("writer")
        self._begun.add(self.run_id)

    def _say(
        self, receipt: Receipt, marker: str, text: str | None = None, size_bytes: int = 0
    ) -> None:
        self._ledger.say(
            receipt,
            marker,
            log_id=self.user_id,
            thread_id=self.thread_id,
            text=text,
            size_bytes=500 + size_bytes,
        )

    # Events

    def emit(self, what: What, count: int) -> None:
        """Emit events in one go; what the log refuses now is not said."""
        try:
            if what in _WITHIN_RUNS and self.run_id not in self.open_runs:
                self._begin_run()
            for _ in range(min(count, AT_ONCE_BYTES // _PADS.get(what, 1))):
                self._emit(what)
        except CatenaryError:
            return

    def _emit(self, what: What) -> None:
        marker, emitter = self._ledger.marker(), self.emitter
        size = _PADS.get(what, 0)
        pad = PAD + "x" * size
        if what in {What.DELTA, What.BIG_DELTA}:
            text = f"{marker} {pad} "
            self._say(emitter.agent_delta(text), marker, text, size)
        elif what is What.THINKING:
            self._say(emitter.agent_thinking(marker), marker)
        elif what is What.PROGRESS:
            self._say(emitter.custom("sim.progress", {"marker": marker}, "progress"), marker)
        elif what is What.KEYED_NOTE:
            first, second = (
                emitter.custom("sim.note", {"marker": marker}, idempotency_key=marker)
                for _ in range(2)
            )
            self._say(first, marker)
            self._ledger.repeats.append((first, second))
        else:
            data = {"marker": marker, "pad": pad}
            self._say(emitter.custom("sim.note", data), marker, size_bytes=size)

    # Runs

    def advance(self, step: Step) -> None:
        """Take a step in the life of a run; what its grammar forbids is refused."""
        emitter = self.emitter
        try:
            if step is Step.START:
                self._begin_run()
            elif step is Step.TOOL:
                emitter.tool_executing("search", {"q": "bridges"})
            elif step is Step.TOOL_ENDS:
                emitter.tool_completed("search", ["a bridge"])
            elif step is Step.COMPLETE:
                emitter.agent_completed({"answer": 42})
            else:
                emitter.agent_error("it did not work")
        except CatenaryError:
            return

    # Agents

    def start_agent(self, script: int) -> None:
        """Let a supervised agent begin, if the bridge takes one now."""
        scripts = (self._quick, self._slow, self._failing, self._family, self._endless)
        chosen = scripts[script % len(scripts)]
        self._bridge.loop.call_soon(self._start, chosen)

    def _start(self, agent: object) -> None:
        try:
            self.emitter.start_run(agent, agent_name="agent", timeout=20.0)  # type: ignore[arg-type]
        except CatenaryError:
            return

    def _delta(self, run: Run) -> None:
        marker = self._ledger.marker()
        text = f"{marker} {PAD} "
        self._say(run.delta(text), marker, text)

    async def _quick(self, run: Run) -> str:
        for _ in range(3):
            self._delta(run)
        return "done"

    async def _slow(self, run: Run) -> str:
        async with run.tool("search", {"q": "bridges"}) as tool:
            await asyncio.sleep(0.5)
            tool.set_result(["a bridge"])
        for _ in range(5):
            self._delta(run)
            await asyncio.sleep(0.2)
        return "done"

    async def _failing(self, run: Run) -> None:
        self._delta(run)
        async with run.tool("search"):
            raise RunFailed("there is no bridge")

    async def _family(self, run: Run) -> None:
        self._delta(run)
        async with run.child(agent_name="child") as child:
            await asyncio.sleep(0.3)
            self._delta(child)
        self._delta(run)

    async def _endless(self, run: Run) -> None:
        self._delta(run)
        await run.wait_cancelled()
        await asyncio.sleep(3600)
