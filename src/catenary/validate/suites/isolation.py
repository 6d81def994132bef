"""Isolation: what one user does, and what is done for them, is seen by nobody else."""

from __future__ import annotations

import asyncio
import contextlib
import gc

from catenary.errors import RunCancelled
from catenary.validate.agents import five_events
from catenary.validate.audience import Audience
from catenary.validate.crowd import crowd, together
from catenary.validate.field import Field
from catenary.validate.rows import Need, Suite
from catenary.validate.suites.expectations import ends_of, expect_own, until_ended

isolation = Suite("isolation", "What is for one user reaches that user and nobody else.")


@isolation.row(
    "each their own",
    asked="20 users × 5 runs × 3 events: each receives exactly its own 15",
)
async def each_their_own(field: Field) -> str:
    async with field.audience() as audience:
        users = field.some_users(20)
        readers = await audience.join(users)

        def emit(number: int) -> None:
            user_id = users[number]
            for run in range(5):
                for event in range(3):
                    run_id = f"{user_id}-run-{run}"
                    audience.emit(user_id, f"{user_id} {run} {event}", run_id=run_id)

        await crowd(len(users), emit)
        await audience.settle()
        field.judge(audience)
        for reader in readers:
            expect_own(field, reader, 15)
        return f"{audience.events_received} of 300 events, each at its own user"


@isolation.row(
    "the same ids",
    asked="two users with the same thread_id and run_id: each sees its own events only",
)
async def the_same_ids(field: Field) -> str:
    async with field.audience() as audience:
        users = field.some_users(2)
        readers = await audience.join(users)

        def emit(number: int) -> None:
            for event in range(20):
                user_id = users[number]
                audience.emit(user_id, f"{user_id} {event}", thread_id="thread_1", run_id="run_1")

        await crowd(2, emit)
        await audience.settle()
        field.judge(audience)
        for reader in readers:
            expect_own(field, reader, 20)
        return f"{audience.events_received} of 40 events, none at the other user"


@isolation.row(
    "an emitter is closed",
    asked="one user's run ends and its emitter is dropped while the others go on: they notice nothing",
    needs=(Need.OWN_BRIDGE,),
)
async def an_emitter_is_closed(field: Field) -> str:
    async with field.audience() as audience:
        users = field.some_users(3)
        readers = await audience.join(users)
        emitter = field.own.emitter(users[0])
        run = emitter.run(agent_name="first")
        async with run:
            audience.sent(users[0], run.thinking("Looking"))
            _note_all(audience, users[1:], "before", 10)
        del run, emitter
        gc.collect()
        _note_all(audience, users[1:], "after", 10)
        await audience.settle()
        field.judge(audience)
        for reader in readers[1:]:
            expect_own(field, reader, 20)
        ends = [arrival.event.type for arrival in readers[0].arrivals]
        field.expect(
            ends[-1:] == ["agent_completed"], f"the first user's run ended with {ends[-1:]}"
        )
        return f"{audience.events_received} events; the run of the first user ended, 20 each at the others"


def _note_all(audience: Audience, users: list[str], word: str, count: int) -> None:
    for number in range(count):
        for user_id in users:
            audience.emit(user_id, f"{user_id} {word} {number}")


@isolation.row(
    "a context is gone",
    asked="one user's run is cancelled while two others have theirs open: those go on and complete",
    needs=(Need.OWN_BRIDGE,),
)
async def a_context_is_gone(field: Field) -> str:
    async with field.audience() as audience:
        users = field.some_users(3)
        readers = await audience.join(users)
        emitters = [field.own.emitter(user_id) for user_id in users]
        cancelled = emitters[0].run(agent_name="cancelled", run_id=f"{users[0]}-run")
        is_gone = asyncio.Event()

        async def hang() -> None:
            with contextlib.suppress(RunCancelled):
                async with cancelled:
                    await cancelled.wait_cancelled()

        async def go_on(number: int) -> None:
            async with emitters[number].run(agent_name="other") as run:
                await is_gone.wait()
                await five_events(run, users[number])

        hanging = asyncio.create_task(hang())
        going_on = [asyncio.create_task(go_on(number)) for number in (1, 2)]
        await together(reader.until_events(1) for reader in readers)
        await emitters[0].cancel_run(cancelled.run_id, reason="the user left")
        await asyncio.wait([hanging])
        is_gone.set()
        await together(going_on)
        await together(until_ended(reader, 1) for reader in readers)
        field.judge(audience)
        ends = [ends_of(reader) for reader in readers]
        expected = [["agent_cancelled"], ["agent_completed"], ["agent_completed"]]
        field.expect(ends == expected, f"the runs ended with {ends}")
        return f"one run cancelled, {len(going_on)} others completed"


@isolation.row(
    "a connection is closed",
    asked="one user's connections are cut and closed while all are sent to: the others lose nothing",
)
async def a_connection_is_closed(field: Field) -> str:
    async with field.audience() as audience:
        users = field.some_users(5)
        readers = await audience.join(users)
        for word in ("before", "while", "after"):
            await asyncio.to_thread(_note_all, audience, users, word, 10)
            if word == "before":
                readers[0].cut()
        await audience.settle()
        field.judge(audience)
        for reader in readers:
            expect_own(field, reader, 30)
        field.expect(readers[0].reconnects, "the cut connection did not come back")
        lives = [reader.lives for reader in readers[1:]]
        field.expect(set(lives) == {1}, f"the others were connected {lives} times")
        return f"{audience.events_received} of 150 events; the cut reader resumed and has all 30"
