"""Ordering: one order for all readers, which is that of the calls."""

from __future__ import annotations

import asyncio

from catenary.validate.audience import Audience
from catenary.validate.checker import Fault, OrderingChecker
from catenary.validate.crowd import crowd
from catenary.validate.field import Field
from catenary.validate.rows import Subject, Suite
from catenary.validate.suites.expectations import expect_senders_order
from catenary.validate.suites.planted import PLANTS, plant

ordering = Suite("ordering", "Every reader sees one order, and in it that of each sender.")


def _emit_numbered(audience: Audience, user_id: str, sender: object, count: int) -> None:
    for number in range(count):
        audience.emit(user_id, f"{sender}-{number}")


async def _senders(field: Field, senders: int, each: int) -> str:
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))
        await crowd(senders, lambda n: _emit_numbered(audience, field.user(), n, each))
        await audience.settle()
        field.judge(audience)
        expect_senders_order(field, reader, each, senders=senders)
        total = senders * each
        field.expect(len(reader.arrivals) == total, f"{len(reader.arrivals)} of {total} came")
        return f"{len(reader.arrivals)} of {total} messages, every sender in order"


@ordering.row("one sender", asked="one sender, 50 messages: in order")
async def one_sender(field: Field) -> str:
    return await _senders(field, 1, 50)


@ordering.row("5 senders", asked="5 senders × 20 messages: each sender's in its order")
async def five_senders(field: Field) -> str:
    return await _senders(field, 5, 20)


@ordering.row(
    "25 × 40 over 5 threads", asked="25 senders × 40 messages over 5 threads: 1,000 in order"
)
async def many_over_five_threads(field: Field) -> str:
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))

        def work(thread: int) -> None:
            for number in range(40):
                for sender in range(thread * 5, thread * 5 + 5):
                    audience.emit(field.user(), f"{sender}-{number}")

        await crowd(5, work)
        await audience.settle()
        field.judge(audience)
        expect_senders_order(field, reader, 40, senders=25)
        field.expect(len(reader.arrivals) == 1000, f"{len(reader.arrivals)} of 1,000 came")
        return f"{len(reader.arrivals)} of 1,000 messages of 25 senders, in order"


@ordering.row(
    "8 streams", asked="8 users × 150 messages at once: 1,200, each user's dense and in order"
)
async def eight_streams(field: Field) -> str:
    async with field.audience() as audience:
        users = field.some_users(8)
        readers = await audience.join(users)
        await crowd(8, lambda n: _emit_numbered(audience, users[n], n, 150))
        await audience.settle()
        field.judge(audience)
        for reader in readers:
            expect_senders_order(field, reader, 150)
            seqs = [arrival.event.seq for arrival in reader.arrivals]
            field.expect(
                seqs == list(range(1, 151)), f"{reader.name}: the numbers are not 1 to 150"
            )
        return f"{audience.events_received} of 1,200 messages, all dense"


@ordering.row("offline in between", asked="10 sent, 5 while offline, 10 after: 25 in order")
async def offline_in_between(field: Field) -> str:
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))
        emit = lambda begin, end: [  # noqa: E731 - three lines of a story
            audience.emit(field.user(), f"0-{number}") for number in range(begin, end)
        ]
        await asyncio.to_thread(emit, 0, 10)
        await audience.settle()
        reader.go_offline()
        await reader.until(lambda: not reader.is_live, what="offline")
        await asyncio.to_thread(emit, 10, 15)
        reader.come_back()
        await reader.until(lambda: reader.is_live, what="live again")
        await asyncio.to_thread(emit, 15, 25)
        await audience.settle()
        field.judge(audience)
        expect_senders_order(field, reader, 25)
        return f"{len(reader.arrivals)} of 25 messages, in order, with one break"


@ordering.row(
    "before anyone connects",
    asked="100 sent before the user ever connected: the first connection brings them all",
)
async def before_anyone_connects(field: Field) -> str:
    async with field.audience() as audience:
        await asyncio.to_thread(_emit_numbered, audience, field.user(), 0, 100)
        (reader,) = await audience.join(field.some_users(1))
        await audience.settle()
        field.judge(audience)
        expect_senders_order(field, reader, 100)
        return f"{len(reader.arrivals)} of 100 messages, in order"


@ordering.row(
    "during the handshake",
    asked="a sender does not pause while 10 readers connect: each sees every message, in order",
)
async def during_the_handshake(field: Field) -> str:
    async with field.audience() as audience:
        sending = asyncio.create_task(
            crowd(1, lambda _: _emit_numbered(audience, field.user(), 0, 300))
        )
        readers = await audience.join([field.user()] * 10)
        await sending
        await audience.settle()
        field.judge(audience)
        for reader in readers:
            expect_senders_order(field, reader, 300)
        return f"{len(readers)} readers, {audience.events_received} of 3,000 events"


@ordering.row(
    "one thread of the user",
    asked="a reader of one thread_id among three: only its events, their numbers rising",
)
async def one_thread_of_the_user(field: Field) -> str:
    async with field.audience() as audience:
        threads = [f"{field.user()}-thread-{number}" for number in range(3)]
        reader = audience.reader(field.user(), name="filtered", thread_ids=[threads[1]])
        await reader.start()

        def emit(number: int) -> None:
            for message in range(30):
                audience.emit(field.user(), f"{number}-{message}", thread_id=threads[number])

        await crowd(3, emit)
        await reader.until_events(30)
        seqs = [arrival.event.seq for arrival in reader.arrivals]
        seen = {arrival.event.thread_id for arrival in reader.arrivals}
        field.expect(seen == {threads[1]}, f"it saw the threads {seen}")
        field.expect(seqs == sorted(set(seqs)), "the numbers do not rise")
        expect_senders_order(field, reader, 30)
        return f"{len(seqs)} of 30 events of its thread, from numbers {seqs[0]} to {seqs[-1]}"


def _add_planted(fault: Fault) -> None:
    @ordering.row(
        f"planted: {fault}",
        asked=f"{PLANTS[fault].asked}: the checker says {fault!s}",
        subject=Subject.PACKAGE,
    )
    async def planted(field: Field) -> str:
        checker = OrderingChecker()
        found = {problem.fault for problem in checker.problems(plant(fault, checker))}
        field.expect(fault in found, f"the checker found {sorted(found) or 'nothing'}")
        return f"found: {', '.join(sorted(found))}"


for _fault in PLANTS:
    _add_planted(_fault)
