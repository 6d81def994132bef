"""Thread safety: one object for all, one order for all, and no two threads that wait for each other."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable

from catenary.errors import ValidationFailed
from catenary.factory import get_websocket_bridge_factory, get_websocket_manager
from catenary.runs import Run
from catenary.validate.crowd import SWITCH_SECONDS, crowd
from catenary.validate.field import Field
from catenary.validate.rows import Need, Subject, Suite
from catenary.validate.suites.expectations import expect_senders_order
from catenary.validate.threads import ThreadMonitor, ViolationKind

thread_safety = Suite("thread-safety", "Any thread, any loop, at any time.")


async def _one_object(field: Field, getter: Callable[[], object], what: str) -> str:
    members = await crowd(55, lambda _: [id(getter()) for _ in range(5)])
    seen = [one for ids in members.results.values() for one in ids]
    field.expect(len(seen) == 275, f"{len(seen)} of 275 calls returned")
    field.expect(len(set(seen)) == 1, f"{len(set(seen))} different objects")
    return f"{len(seen)} calls of {what}, {len(set(seen))} object"


@thread_safety.row(
    "one manager",
    asked="55 threads × 5 get_websocket_manager() = 275 calls: one object",
    subject=Subject.PACKAGE,
)
async def one_manager(field: Field) -> str:
    return await _one_object(field, get_websocket_manager, "get_websocket_manager()")


@thread_safety.row(
    "one factory",
    asked="55 threads × 5 get_websocket_bridge_factory() = 275 calls: one object",
    subject=Subject.PACKAGE,
)
async def one_factory(field: Field) -> str:
    return await _one_object(field, get_websocket_bridge_factory, "get_websocket_bridge_factory()")


_FIRST_CALL = """
import json, sys, threading
from catenary import {getter}
sys.setswitchinterval({switch})
barrier, seen = threading.Barrier(55), []
def call():
    barrier.wait()
    seen.extend(id({getter}()) for _ in range(5))
threads = [threading.Thread(target=call) for _ in range(55)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps([len(seen), len(set(seen))]))
"""


async def _first_call(field: Field, getter: str) -> str:
    """In a process of its own, where nobody has called it before."""
    code = _FIRST_CALL.format(getter=getter, switch=SWITCH_SECONDS)
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, timeout=30,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise ValidationFailed(f"the process failed: {done.stderr[-300:]}")
    calls, objects = json.loads(done.stdout)
    field.expect((calls, objects) == (275, 1), f"{calls} calls gave {objects} objects")
    return f"{calls} calls, the first of the process among them: {objects} object"


@thread_safety.row(
    "one manager, first call",
    asked="275 calls of 55 threads, the process's first: one manager",
    subject=Subject.PACKAGE,
)
async def one_manager_first(field: Field) -> str:
    return await _first_call(field, "get_websocket_manager")


@thread_safety.row(
    "one factory, first call",
    asked="275 calls of 55 threads, the process's first: one factory",
    subject=Subject.PACKAGE,
)
async def one_factory_first(field: Field) -> str:
    return await _first_call(field, "get_websocket_bridge_factory")


@thread_safety.row(
    "30 threads append",
    asked="30 threads × 20 appends to one user: numbers 1 to 600, each thread's own in its order",
)
async def thirty_threads_append(field: Field) -> str:
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))

        def work(number: int) -> None:
            for message in range(20):
                audience.emit(field.user(), f"{number}-{message}")

        await crowd(30, work)
        await audience.settle()
        field.judge(audience)
        seqs = [arrival.event.seq for arrival in reader.arrivals]
        field.expect(seqs == list(range(1, 601)), "the numbers are not 1 to 600")
        expect_senders_order(field, reader, 20, senders=30)
        return f"numbers {seqs[0]} to {seqs[-1]}, {len(seqs)} events"


@thread_safety.row(
    "two emitters in opposite order",
    asked="25 threads, two emitters each, opposite order, 10 rounds: done within 10 s",
    needs=(Need.OWN_BRIDGE,),
)
async def opposite_order(field: Field) -> str:
    users = field.some_users(2)
    emitters = [field.own.emitter(user_id) for user_id in users]

    def work(number: int) -> None:
        mine = emitters if number % 2 else emitters[::-1]
        for round_ in range(10):
            for emitter in mine:
                emitter.custom("validate.note", {"marker": f"{number}-{round_}"}).result(10)

    members = await crowd(25, work, timeout=10.0)
    field.expect_speed(members.seconds < 10, f"it took {members.seconds:.1f} s")
    field.figure("rounds_seconds", members.seconds, "s")
    return f"500 acknowledged emits in {members.seconds:.2f} s, nobody waits for anybody"


@thread_safety.row(
    "20 senders",
    asked="20 senders × 25 = 500: dense and in order, timestamps not decreasing per sender",
)
async def twenty_senders(field: Field) -> str:
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))

        def work(number: int) -> None:
            for message in range(25):
                audience.emit(field.user(), f"{number}-{message}")

        await crowd(20, work)
        await audience.settle()
        field.judge(audience)
        expect_senders_order(field, reader, 25, senders=20)
        last: dict[str, int] = {}
        for arrival in reader.arrivals:
            sender = str(arrival.event.data["marker"]).partition("-")[0]
            at = arrival.event.timestamp
            field.expect(at >= last.get(sender, 0), f"sender {sender} went back in time")
            last[sender] = at
        seqs = [arrival.event.seq for arrival in reader.arrivals]
        field.expect(seqs == list(range(1, 501)), "the numbers are not 1 to 500")
        return f"{len(seqs)} of 500, dense, timestamps rise for {len(last)} senders"


@thread_safety.row(
    "1,000 hops",
    asked="one sequence that hops 1,000 times over 8 threads and loops keeps its order",
)
async def thousand_hops(field: Field) -> str:
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))
        await asyncio.to_thread(_hop, audience.emit, field.user(), 1000, 8)
        await audience.settle()
        field.judge(audience)
        got = [str(arrival.event.data["marker"]) for arrival in reader.arrivals]
        field.expect(got == [f"hop-{n}" for n in range(1000)], "the order of the hops is lost")
        return f"{len(got)} of 1,000 hops over 8 threads, in order"


def _hop(emit: Callable[[str, str], object], user_id: str, hops: int, threads: int) -> None:
    """Hand one sequence round a ring of threads, every second one with a loop of its own."""
    turns = [threading.Semaphore(0) for _ in range(threads)]

    async def emit_on_a_loop(number: int) -> None:
        emit(user_id, f"hop-{number}")

    def work(index: int) -> None:
        for number in range(index, hops, threads):
            turns[index].acquire(timeout=10)
            if index % 2:
                asyncio.run(emit_on_a_loop(number))
            else:
                emit(user_id, f"hop-{number}")
            turns[(index + 1) % threads].release()

    members = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for member in members:
        member.start()
    turns[0].release()
    for member in members:
        member.join(20)


@thread_safety.row(
    "state agrees",
    asked="30 threads look at one run's state while it goes on: text only grows; all see the same end",
    needs=(Need.OWN_BRIDGE,),
)
async def state_agrees(field: Field) -> str:
    emitter = field.own.emitter(field.user())
    words = 200
    expected = "".join(f"{number} " for number in range(words))

    async with emitter.run(agent_name="talker") as run:
        run.delta("0 ")
        halfway = threading.Event()

        def look(number: int) -> str:
            before = 0
            for _ in range(30):
                length = len(_text(run))
                if length < before:
                    raise ValidationFailed(f"thread {number} saw the text shrink")
                before = length
            halfway.wait(10)
            return _text(run)

        looking = asyncio.create_task(crowd(30, look))
        for number in range(1, words):
            run.delta(f"{number} ")
            await asyncio.sleep(0)
        halfway.set()
        members = await looking
        seen = set(members.results.values())
        field.expect(seen == {expected}, f"{len(seen)} different texts were seen")
    return f"30 threads looked 30 times each, and saw one text of {words} words at the end"


@thread_safety.row(
    "the monitor on a live bridge",
    asked="30 threads emit for 5 watched users, under the monitor of threads: no violation; contention reported",
    needs=(Need.OWN_BRIDGE,),
)
async def the_monitor_on_a_live_bridge(field: Field) -> str:
    monitor = ThreadMonitor()
    async with field.served() as bridge, field.audience(bridge) as audience:
        users = field.some_users(5)
        with monitor.watching(bridge.factory):
            await audience.join(users)

            def work(number: int) -> None:
                for message in range(10):
                    audience.emit(users[number % 5], f"{number}-{message}")

            await crowd(30, work)
            await audience.settle()
        field.judge(audience)
    field.blame(map(str, monitor.violations))
    waited = sum(lock.waits for lock in monitor.contention())
    taken = sum(lock.acquisitions for lock in monitor.contention())
    longest = max(lock.longest for lock in monitor.contention())
    field.figure("longest_wait", longest * 1000, "ms")
    return (
        f"{monitor.violation_count} violations; the log's lock was taken {taken} times, waited for "
        f"{waited} times, {longest * 1000:.1f} ms at the longest"
    )


@thread_safety.row(
    "the monitor finds what is planted",
    asked="a guarded object used without its lock, a confined one on another thread, two threads in one section: each found with thread, place and time",
    subject=Subject.PACKAGE,
)
async def the_monitor_finds_what_is_planted(field: Field) -> str:
    monitor = ThreadMonitor()
    lock = monitor.lock(threading.Lock(), "planted")
    guarded = monitor.guarded({"count": 0}, by=lock, name="guarded")
    numbers: list[int] = []
    confined = monitor.confined(numbers, to=threading.current_thread(), name="confined")
    barrier = threading.Barrier(2)

    def work(number: int) -> None:
        guarded["count"] = number
        confined.append(number)
        with monitor.exclusive("section"):
            barrier.wait(10)

    await crowd(2, work, name="planted")
    kinds = {violation.kind for violation in monitor.violations}
    expected = {ViolationKind.UNGUARDED, ViolationKind.FOREIGN_THREAD, ViolationKind.TOGETHER}
    field.expect(expected <= kinds, f"only {sorted(kinds)} were found")
    for violation in monitor.violations:
        is_told = violation.thread.startswith("planted-") and violation.place and violation.at
        field.expect(is_told, f"{violation} does not say thread, place and time")
    return f"{monitor.violation_count} violations found: {', '.join(sorted(kinds))}"


def _text(run: Run) -> str:
    return "".join(message.text for message in run.state.messages)
