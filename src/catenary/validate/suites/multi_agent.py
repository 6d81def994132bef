"""Many agents: supervisors and workers, tools at once, and runs that do not end well."""

from __future__ import annotations

import asyncio
import contextlib
import time

from catenary.errors import RunCancelled, RunFailed
from catenary.runs import Run
from catenary.validate.agents import FIVE_EVENTS, five_events, in_a_thread, talkative
from catenary.validate.crowd import together
from catenary.validate.field import Field
from catenary.validate.processes import BridgeProcess
from catenary.validate.reader import Reader
from catenary.validate.rows import Need, Pace, Suite
from catenary.validate.suites.expectations import events_by_run, expect_grammar, until_ended

multi_agent = Suite("multi-agent", "Every run has one start and one end, whatever becomes of it.")


async def _crowd_of_agents(field: Field, users: int, agents: int) -> str:
    async with field.audience() as audience:
        readers = await audience.join(field.some_users(users))

        async def work(reader: Reader, number: int) -> None:
            emitter = field.own.emitter(reader.user_id)
            async with emitter.run(agent_name=f"agent-{number}") as run:
                run.set_result(await five_events(run, f"{reader.user_id} {number}"))

        await together(work(reader, number) for reader in readers for number in range(agents))
        for reader in readers:
            await until_ended(reader, agents)
            runs = expect_grammar(field, reader)
            field.expect(len(runs) == agents, f"{reader.name} saw {len(runs)} of {agents} runs")
            for types in runs.values():
                field.expect(tuple(types) == FIVE_EVENTS, f"a run said {types}")
        field.judge(audience)
        return f"{users * agents} runs at once, {audience.events_received} events, all whole"


@multi_agent.row("3 × 8", asked="3 users × 8 agents: 24 runs, each whole", needs=(Need.OWN_BRIDGE,))
async def three_by_eight(field: Field) -> str:
    return await _crowd_of_agents(field, 3, 8)


@multi_agent.row(
    "12 × 8", asked="12 users × 8 agents = 96 runs at once: each whole", needs=(Need.OWN_BRIDGE,)
)
async def twelve_by_eight(field: Field) -> str:
    return await _crowd_of_agents(field, 12, 8)


@multi_agent.row(
    "3 levels",
    asked="a supervisor with 3 sub-agents, each with 2 of its own: 10 runs, parents named, children inside",
    needs=(Need.OWN_BRIDGE,),
)
async def three_levels(field: Field) -> str:
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))

        async def work(run: Run, widths: tuple[int, ...]) -> None:
            run.thinking(f"{len(widths)} levels below")
            if widths:
                await together(begin(run, number, widths) for number in range(widths[0]))

        async def begin(parent: Run, number: int, widths: tuple[int, ...]) -> None:
            async with parent.child(agent_name=f"child-{number}") as run:
                await work(run, widths[1:])

        async with field.own.emitter(field.user()).run(agent_name="supervisor") as top:
            await work(top, (3, 2))
        await until_ended(reader, 10)
        runs = expect_grammar(field, reader)
        field.expect(len(runs) == 10, f"{len(runs)} of 10 runs")
        _expect_children_inside(field, reader)
        field.judge(audience)
        return f"{len(runs)} runs on 3 levels, every child within its parent"


def _expect_children_inside(field: Field, reader: Reader) -> None:
    bounds: dict[str, list[int]] = {}
    parents: dict[str, str] = {}
    for arrival in reader.arrivals:
        event = arrival.event
        if event.run_id is not None:
            bounds.setdefault(event.run_id, []).append(event.seq)
            if event.parent_run_id is not None:
                parents[event.run_id] = event.parent_run_id
    field.expect(len(parents) == len(bounds) - 1, f"{len(parents)} runs name a parent")
    for child, parent in parents.items():
        inside = bounds[parent][0] < bounds[child][0] and bounds[child][-1] < bounds[parent][-1]
        field.expect(inside, f"run {child} is not within its parent")


@multi_agent.row(
    "5 tools at once",
    asked="3 agents, 4 bursts of 5 parallel tools each: 60 tools, each with its own end",
    needs=(Need.OWN_BRIDGE,),
)
async def five_tools_at_once(field: Field) -> str:
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))

        async def use(run: Run, number: int) -> None:
            async with run.tool("look_up", {"number": number}) as tool:
                await asyncio.sleep(field.random.uniform(0, 0.005))
                tool.set_result({"number": number})

        async def agent(name: str) -> None:
            async with field.own.emitter(field.user()).run(agent_name=name) as run:
                for burst in range(4):
                    await together(use(run, burst * 5 + number) for number in range(5))

        await together(agent(f"agent-{number}") for number in range(3))
        await until_ended(reader, 3)
        expect_grammar(field, reader)
        inputs, outputs = _tools(reader)
        field.expect(len(inputs) == 60, f"{len(inputs)} of 60 tools began")
        field.expect(inputs == outputs, "a tool's end is not that of its beginning")
        field.judge(audience)
        return f"{len(inputs)} tools began and {len(outputs)} ended, pairs matched by id"


def _tools(reader: Reader) -> tuple[dict[str, object], dict[str, object]]:
    inputs: dict[str, object] = {}
    outputs: dict[str, object] = {}
    for arrival in reader.arrivals:
        data = arrival.event.data
        if arrival.event.type == "tool_executing":
            inputs[data["tool_call_id"]] = data["tool_input"]
        elif arrival.event.type == "tool_completed":
            outputs[data["tool_call_id"]] = data.get("tool_output")
    return inputs, outputs


async def _ends_with(field: Field, audience_end: str, runs: int, reader: Reader) -> str:
    await until_ended(reader, runs)
    ended = expect_grammar(field, reader)
    wrong = [types[-1] for types in ended.values() if types[-1] != audience_end]
    field.expect(not wrong, f"ends other than {audience_end}: {wrong[:3]}")
    return f"{len(ended)} runs, each with one {audience_end}"


@multi_agent.row(
    "agents that fail",
    asked="8 agents raise in the middle of a tool: each run ends with one agent_error that says why, its tool closed",
    needs=(Need.OWN_BRIDGE,),
)
async def agents_that_fail(field: Field) -> str:
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))

        async def fail(number: int) -> None:
            with contextlib.suppress(RunFailed):
                async with (
                    field.own.emitter(field.user()).run(agent_name=f"agent-{number}") as run,
                    run.tool("break", {"number": number}),
                ):
                    raise RunFailed("the model refused")

        await together(fail(number) for number in range(8))
        measured = await _ends_with(field, "agent_error", 8, reader)
        inputs, outputs = _tools(reader)
        field.expect(inputs.keys() == outputs.keys(), "a tool stays open")
        said = {a.event.data["message"] for a in reader.arrivals if a.event.type == "agent_error"}
        field.expect(said == {"the model refused"}, f"the ends say {said}")
        field.judge(audience)
        return measured


@multi_agent.row(
    "agents that are cancelled",
    asked="6 agents, tasks and threads, are cancelled: each is interrupted, each run ends with one agent_cancelled",
    needs=(Need.OWN_BRIDGE,),
)
async def agents_that_are_cancelled(field: Field) -> str:
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))
        emitter = field.own.emitter(field.user())

        async def hang(number: int) -> None:
            with contextlib.suppress(RunCancelled):
                async with field.own.emitter(field.user()).run(
                    run_id=f"{field.user()}-{number}"
                ) as run:
                    await talkative(run, 10_000, 0.005)

        def hang_in_a_thread(number: int) -> None:
            with (
                contextlib.suppress(RunCancelled),
                field.own.emitter(field.user()).run(run_id=f"{field.user()}-{number}") as run,
            ):
                while True:
                    run.thinking("still here")
                    time.sleep(0.002)  # what a step of a real agent takes, at least

        working = [asyncio.create_task(hang(number)) for number in range(3)]
        working += [
            asyncio.create_task(asyncio.to_thread(hang_in_a_thread, number))
            for number in range(3, 6)
        ]
        await reader.until(lambda: len(events_by_run(reader)) == 6, what="told of 6 starts")
        began = time.perf_counter()
        for number in range(6):
            await emitter.cancel_run(f"{field.user()}-{number}", reason="enough")
        await together(working)
        took = time.perf_counter() - began
        # Ten seconds after a cancel that reached nobody, the bridge closes the run itself.
        field.expect(took < 8, f"the agents were at work for another {took:.1f} s")
        measured = await _ends_with(field, "agent_cancelled", 6, reader)
        field.judge(audience)
        return measured


@multi_agent.row(
    "synchronous agents",
    asked="10 synchronous agents in threads: each run whole",
    needs=(Need.OWN_BRIDGE,),
)
async def synchronous_agents(field: Field) -> str:
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))

        def work(number: int) -> None:
            with field.own.emitter(field.user()).run(agent_name=f"agent-{number}") as run:
                run.set_result(in_a_thread(run, str(number)))

        await together(asyncio.to_thread(work, number) for number in range(10))
        await until_ended(reader, 10)
        runs = expect_grammar(field, reader)
        for types in runs.values():
            field.expect(tuple(types) == FIVE_EVENTS, f"a run said {types}")
        field.judge(audience)
        return f"{len(runs)} of 10 runs, {audience.events_received} events"


@multi_agent.row(
    "a process that is killed",
    asked="4 agents are at work when their process is killed: each run ends once, with producer_lost",
    needs=(Need.PROCESS,),
    pace=Pace.PATIENT,
)
async def a_process_that_is_killed(field: Field) -> str:
    async with (
        field.log_file() as log,
        BridgeProcess.on_a_free_port(log=log) as bridge,
        field.audience(bridge) as audience,
    ):
        (reader,) = await audience.join(field.some_users(1))
        await reader.ask(
                {
                    "type": "validate.run", "id": "1",
                    "data": {"agent": "talkative", "arguments": [100_000, 0.005], "runs": 4},
                }
            )  # fmt: skip
        await reader.until_events(40)
        await bridge.kill()
        field.happened("the process is killed")
        await bridge.start()
        field.happened("the process is ready again")
        await until_ended(reader, 4)
        await reader.until(lambda: reader.is_live, what="live again")
        runs = expect_grammar(field, reader)
        codes = {
            arrival.event.data.get("code")
            for arrival in reader.arrivals
            if arrival.event.type == "agent_error"
        }
        field.expect(len(runs) == 4, f"{len(runs)} of 4 runs")
        field.expect(codes == {"producer_lost"}, f"the ends say {codes}")
        field.judge(audience)
        field.tracks(audience)
        back = max(reader.reconnects, default=0.0)
        return f"{len(runs)} runs ended with producer_lost; live again after {back:.2f} s"
