"""Concurrency: many sessions, threads and loops at once, on one bridge."""

from __future__ import annotations

import asyncio
import gc

from catenary.validate.agents import FIVE_EVENTS, five_events
from catenary.validate.audience import Audience
from catenary.validate.crowd import crowd, together
from catenary.validate.field import Field
from catenary.validate.rows import Need, Suite
from catenary.validate.suites.expectations import until_ended

concurrency = Suite("concurrency", "Everything at once changes nothing for anybody.")


async def _sessions(field: Field, count: int) -> str:
    async with field.audience() as audience:
        users = field.some_users(count)
        readers = await audience.join(users)

        async def work(user_id: str) -> None:
            async with field.own.emitter(user_id).run(agent_name="worker") as run:
                run.set_result(await five_events(run, user_id))

        await together(work(user_id) for user_id in users)
        for reader in readers:
            await until_ended(reader, 1)
            types = tuple(arrival.event.type for arrival in reader.arrivals)
            field.expect(types == FIVE_EVENTS, f"{reader.name} received {types}")
        field.judge(audience)
        return f"{audience.events_received} of {count * 5} events, five types each, in order"


@concurrency.row(
    "25 sessions",
    asked="25 sessions × 5 event types: each receives its five, in order",
    needs=(Need.OWN_BRIDGE,),
)
async def sessions_25(field: Field) -> str:
    return await _sessions(field, 25)


@concurrency.row(
    "30 sessions",
    asked="30 sessions × 5 event types: each receives its five, in order",
    needs=(Need.OWN_BRIDGE,),
)
async def sessions_30(field: Field) -> str:
    return await _sessions(field, 30)


def _emit_ten(audience: Audience, user_id: str, number: int) -> None:
    for message in range(10):
        audience.emit(user_id, f"{number}-{message}")


@concurrency.row(
    "50 threads without a loop",
    asked="50 threads × 10 messages, no loop in any of them: 500 of 500",
)
async def threads_without_a_loop(field: Field) -> str:
    async with field.audience() as audience:
        await audience.join(field.some_users(1))
        await crowd(50, lambda number: _emit_ten(audience, field.user(), number))
        await audience.settle()
        field.judge(audience)
        field.expect(audience.events_received == 500, "not every message came")
        return f"{audience.events_received} of 500 messages"


@concurrency.row(
    "50 threads with loops",
    asked="50 threads × 10 messages, each thread with its own loop: 500 of 500",
)
async def threads_with_loops(field: Field) -> str:
    async with field.audience() as audience:
        await audience.join(field.some_users(1))

        async def work(number: int) -> None:
            for message in range(10):
                audience.emit(field.user(), f"{number}-{message}")
                await asyncio.sleep(0)

        await crowd(50, work)
        await audience.settle()
        field.judge(audience)
        field.expect(audience.events_received == 500, "not every message came")
        return f"{audience.events_received} of 500 messages"


@concurrency.row(
    "receipts on other loops",
    asked="20 threads with loops of their own await each receipt: all positions come, all distinct",
    needs=(Need.OWN_BRIDGE,),
)
async def receipts_on_other_loops(field: Field) -> str:
    async with field.audience() as audience:
        user_id = field.user()
        await audience.join([user_id])
        emitter = field.own.emitter(user_id)

        async def work(number: int) -> list[int]:
            places = []
            for message in range(10):
                marker = f"{number}-{message}"
                place = await emitter.custom("validate.note", {"marker": marker})
                audience.acknowledged(user_id, place, marker)
                places.append(place.seq)
            return places

        members = await crowd(20, work)
        await audience.settle()
        field.judge(audience)
        places = [seq for own in members.results.values() for seq in own]
        field.expect(sorted(places) == list(range(1, 201)), "positions are not 1 to 200, each once")
        field.expect(
            all(own == sorted(own) for own in members.results.values()),
            "a sender's positions do not rise",
        )
        return f"{len(places)} of 200 receipts, positions 1 to {max(places)}"


@concurrency.row("20 users", asked="20 users × 15 messages at once: 300 of 300")
async def users_20(field: Field) -> str:
    async with field.audience() as audience:
        users = field.some_users(20)
        await audience.join(users)

        def work(number: int) -> None:
            for message in range(15):
                audience.emit(users[number], f"{users[number]} {message}")

        await crowd(20, work)
        await audience.settle()
        field.judge(audience)
        field.expect(audience.events_received == 300, "not every message came")
        return f"{audience.events_received} of 300 messages"


@concurrency.row("one shared user", asked="25 workers × 5 messages for one user: 125 of 125")
async def one_shared_user(field: Field) -> str:
    async with field.audience() as audience:
        await audience.join(field.some_users(1))

        def work(number: int) -> None:
            for message in range(5):
                audience.emit(field.user(), f"{number}-{message}")

        await crowd(25, work)
        await audience.settle()
        field.judge(audience)
        field.expect(audience.events_received == 125, "not every message came")
        return f"{audience.events_received} of 125 messages"


@concurrency.row(
    "several tabs", asked="5 tabs of one user while 10 threads emit: all tabs see the same order"
)
async def several_tabs(field: Field) -> str:
    async with field.audience() as audience:
        readers = await audience.join([field.user()] * 5)
        await crowd(10, lambda number: _emit_ten(audience, field.user(), number))
        await audience.settle()
        field.judge(audience)
        orders = {
            tuple(arrival.event.data["marker"] for arrival in reader.arrivals) for reader in readers
        }
        field.expect(len(orders) == 1, f"the tabs saw {len(orders)} different orders")
        return f"{len(readers)} tabs, {len(orders)} order, {audience.events_received} of 500 events"


@concurrency.row(
    "cleanup while sending",
    asked="connections leave and emitters are dropped while others send: those who stay lose nothing",
)
async def cleanup_while_sending(field: Field) -> str:
    async with field.audience() as audience:
        users = field.some_users(10)
        await audience.join(users)
        leaving = [audience.reader(user_id, name=f"leaving {user_id}") for user_id in users]
        await together(reader.start() for reader in leaving)

        def work(number: int) -> None:
            for message in range(20):
                audience.emit(users[number], f"{users[number]} {message}")
                if message == 10:
                    gc.collect()

        sending = asyncio.create_task(crowd(10, work))
        for reader in leaving:
            audience.readers.remove(reader)
            await reader.stop()
        await sending
        await audience.settle()
        field.blame(fault for fault in audience.faults() if "leaving" not in fault)
        field.expect(audience.events_received == 200, "not every message came")
        lives = [reader.lives for reader in audience.readers]
        field.expect(set(lives) == {1}, f"those who stay were connected {lives} times")
        return f"{len(leaving)} readers left meanwhile; {audience.events_received} of 200 messages"


@concurrency.row(
    "coming and going",
    asked="20 users connect and leave 5 times each while they are sent to: every connection is whole",
)
async def coming_and_going(field: Field) -> str:
    async with field.audience() as audience:
        users = field.some_users(20)

        def work(number: int) -> None:
            for message in range(30):
                audience.emit(users[number], f"{users[number]} {message}")

        sending = asyncio.create_task(crowd(20, work))

        async def come_and_go(user_id: str) -> None:
            for visit in range(5):
                reader = audience.reader(user_id, name=f"{user_id} visit {visit}")
                await reader.start()
                if visit < 4:
                    await reader.stop()
                    audience.readers.remove(reader)

        await together(come_and_go(user_id) for user_id in users)
        await sending
        await audience.settle()
        last = {reader.name for reader in audience.readers}
        field.blame(
            str(problem)
            for problem in audience.problems()
            if problem.reader in last or problem.fault not in {"lost", "behind"}
        )
        field.expect(audience.events_received == 600, "the last visits did not see every message")
        return f"100 visits; the last ones saw {audience.events_received} of 600 messages"
