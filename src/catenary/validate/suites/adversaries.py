"""Adversaries: one user shows what belongs to another, and gets nothing by it."""

from __future__ import annotations

import asyncio
import gc
from collections import deque
from collections.abc import Iterator, Mapping
from types import FrameType, FunctionType, ModuleType

from catenary.client.messages import ErrorAnswer
from catenary.validate.agents import five_events
from catenary.validate.audience import Audience
from catenary.validate.field import Field
from catenary.validate.reader import Reader
from catenary.validate.rows import Need
from catenary.validate.suites.expectations import ends_of, expect_own, markers_of, until_ended
from catenary.validate.suites.isolation import isolation


async def _secret_of_b(field: Field, audience: Audience) -> tuple[str, str, Reader]:
    """Return two users, and the reader of the second one, who has three events."""
    a, b = field.some_users(2)
    (reader,) = await audience.join([b])
    for number in range(3):
        audience.emit(b, f"{b} {number}", thread_id=f"{b}-thread", run_id=f"{b}-run")
    await audience.settle()
    return a, b, reader


def _expect_nothing_of(field: Field, reader: Reader, other: str) -> None:
    seen = [marker for marker in markers_of(reader) if marker.startswith(f"{other} ")]
    field.expect(not seen, f"{reader.name} saw {seen[:3]} of the other user")


@isolation.row("another's user id", asked="A asks for B's log by its id: refused, nothing seen")
async def anothers_user_id(field: Field) -> str:
    async with field.audience() as audience:
        a, b, _ = await _secret_of_b(field, audience)
        reader = audience.reader(a, url=f"{field.bridge.websocket_url}?log={b}", name="adversary")
        reader.begin()
        await reader.until(lambda: reader.close_codes or reader.statuses, what="refused")
        _expect_nothing_of(field, reader, b)
        field.expect(not reader.lives, "the connection to another's log was accepted")
        return f"refused with {reader.close_codes or reader.statuses}; 0 events seen"


@isolation.row("another's thread", asked="A reads only B's thread: sees nothing")
async def anothers_thread(field: Field) -> str:
    async with field.audience() as audience:
        a, b, _ = await _secret_of_b(field, audience)
        reader = audience.reader(a, name="adversary", thread_ids=[f"{b}-thread"])
        await reader.start()
        sent = audience.emit(b, f"{b} late", thread_id=f"{b}-thread")
        await asyncio.to_thread(sent.result, 10)
        audience.emit(a, f"{a} own", thread_id=f"{b}-thread")
        await reader.until(lambda: reader.arrivals, what="told of its own event")
        _expect_nothing_of(field, reader, b)
        expect_own(field, reader, 1)
        return "0 events of the other user, its own one came"


@isolation.row(
    "another's run",
    asked="A cancels B's run, on the wire and over HTTP: not found, and the run goes on",
    needs=(Need.OWN_BRIDGE,),
)
async def anothers_run(field: Field) -> str:
    async with field.audience() as audience:
        a, b = field.some_users(2)
        mine, theirs = await audience.join([a, b])
        run = field.own.emitter(b).run(run_id=f"{b}-run")
        async with run, field.bridge.http(field.bridge.token(a)) as http:
            answer = await mine.ask({"type": "cancel_run", "id": "1", "run_id": run.run_id})
            code = answer.code if isinstance(answer, ErrorAnswer) else "ack"
            field.expect(code == "not_found", f"the wire answered {code}")
            status = (await http.post(f"/api/runs/{run.run_id}/cancel", json={})).status_code
            field.expect(status == 404, f"HTTP answered {status}")
            field.expect(not run.cancelled, "the run was cancelled by another user")
        await until_ended(theirs, 1)
        field.expect(
            ends_of(theirs) == ["agent_completed"], f"the run ended with {ends_of(theirs)}"
        )
        return "not_found on the wire, 404 over HTTP; the run completed"


@isolation.row(
    "another's connection id",
    asked="A posts a message that names B's connection: B's connection hears nothing of it",
)
async def anothers_connection_id(field: Field) -> str:
    async with field.audience() as audience:
        a, _, theirs = await _secret_of_b(field, audience)
        assert theirs.connected is not None
        connection_id = theirs.connected.connection_id
        before = len(theirs.answers)
        async with field.bridge.http(field.bridge.token(a)) as http:
            position = str(theirs.place)
            response = await http.post(
                "/api/messages",
                json={"type": "position", "position": position, "connection_id": connection_id},
            )
        await theirs.ask({"type": "ping", "id": "1"})
        field.expect(
            len(theirs.answers) == before + 1, "the other user's connection was answered on"
        )
        expect_own(field, theirs, 3)
        return f"HTTP {response.status_code}; B's connection answered only its own ping"


@isolation.row(
    "another's position",
    asked="A resumes at B's position: gets its own events or a gap, never B's",
)
async def anothers_position(field: Field) -> str:
    async with field.audience() as audience:
        a, b, theirs = await _secret_of_b(field, audience)
        audience.emit(a, f"{a} 1")
        reader = audience.reader(a, name="adversary", after=str(theirs.place))
        await reader.start()
        audience.emit(a, f"{a} 2")
        await reader.until(lambda: f"{a} 2" in markers_of(reader), what="told of its own event")
        _expect_nothing_of(field, reader, b)
        field.judge(audience, losses_are_told=True)
        return f"{len(reader.gaps)} gap told, {len(reader.arrivals)} own events, 0 of B's"


@isolation.row(
    "another's ticket",
    asked="B's ticket opens B's log once; shown a second time, by A, it opens nothing",
)
async def anothers_ticket(field: Field) -> str:
    async with field.audience() as audience:
        a, b, _ = await _secret_of_b(field, audience)
        async with field.bridge.http(field.bridge.token(b)) as http:
            answer = await http.post("/api/tickets", json={"purpose": "ws"})
            ticket = answer.json()["ticket"]
        query = [("ticket", ticket)]
        first = Reader(field.bridge.websocket_url, b, token=None, query=query, ssl=field.bridge.ssl)
        second = Reader(
            field.bridge.websocket_url, a, token=None, query=query, ssl=field.bridge.ssl
        )
        try:
            await first.start()
            second.begin()
            await second.until(lambda: second.close_codes or second.statuses, what="refused")
        finally:
            await first.stop()
            await second.stop()
        field.expect(not second.lives, "a used ticket opened a connection")
        expect_own(field, first, 3)
        _expect_nothing_of(field, second, b)
        return f"served once, then refused with {second.close_codes or second.statuses}"


@isolation.row(
    "another's idempotency key",
    asked="A publishes with the idempotency key that B used: both events are there, each once",
)
async def anothers_idempotency_key(field: Field) -> str:
    async with field.audience() as audience:
        users = field.some_users(2)
        readers = await audience.join(users)
        async with field.bridge.http() as http:
            for user_id in (*users, *users):
                event = {"type": "validate.note", "data": {"marker": f"{user_id} 1"}}
                response = await http.post(
                    f"/api/users/{user_id}/events",
                    json=event,
                    headers={"idempotency-key": "the same for both"},
                )
                field.expect(response.status_code == 201, f"answered {response.status_code}")
        for reader in readers:
            audience.emit(reader.user_id, f"{reader.user_id} last")
        await audience.settle()
        for reader in readers:
            expect_own(field, reader, 2)
        return f"{audience.events_received} of 4 events: each key counts for its own user"


@isolation.row(
    "another's history",
    asked="A reads B's history, runs and events over HTTP with its own token: refused",
)
async def anothers_history(field: Field) -> str:
    async with field.audience() as audience:
        a, b, _ = await _secret_of_b(field, audience)
        statuses = []
        async with field.bridge.http(field.bridge.token(a)) as http:
            for what in ("events", "runs"):
                response = await http.get(f"/api/users/{b}/{what}")
                statuses.append(response.status_code)
                field.expect(b not in response.text, f"{what}: the answer speaks of the other user")
        field.expect(all(status in {401, 403, 404} for status in statuses), f"answered {statuses}")
        return f"answered {statuses}"


@isolation.row(
    "another's token expired",
    asked="a token of B that has expired, shown by A: refused",
    needs=(Need.OWN_BRIDGE,),
)
async def an_expired_token(field: Field) -> str:
    async with field.audience() as audience:
        _, b, _ = await _secret_of_b(field, audience)
        token = field.own.token(b, ttl=-3600)
        reader = audience.reader(b, name="adversary", token=lambda: token)
        reader.begin()
        await reader.until(lambda: reader.close_codes or reader.statuses, what="refused")
        field.expect(not reader.lives, "an expired token opened a connection")
        return f"refused with {reader.close_codes or reader.statuses}"


@isolation.row(
    "memory",
    asked="no object of A can be reached from B's context, log or connection",
    needs=(Need.OWN_BRIDGE,),
)
async def memory(field: Field) -> str:
    async with field.served() as bridge, field.audience(bridge) as audience:
        a, b, other = field.some_users(3)
        # What there is once somebody was here is what all users share.
        await audience.join([other])
        shared = {id(one): one for one in _reachable([bridge, bridge.factory, bridge.app], {})}
        readers = await audience.join([a, b])
        for user_id in (a, b):
            async with bridge.emitter(user_id, thread_id=f"{user_id}-thread").run() as run:
                await five_events(run, f"{user_id} secret")
        for reader in readers:
            await until_ended(reader, 1)
        emitter = bridge.emitter(b)
        connections = list(bridge.factory.manager._by_user[b])
        seen = list(_reachable([emitter, emitter.context, emitter.stream, *connections], shared))
        field.expect(connections, "the connection of the second user was not found")
        field.expect(_with_text(seen, b), "the look does not even find the user's own id")
        foreign = _with_text(seen, a)
        field.expect(not foreign, f"of the other user could be reached: {foreign[:3]}")
        return f"{len(seen)} objects looked at, {len(foreign)} of the other user"


def _reachable(begins: list[object], shared: Mapping[int, object]) -> Iterator[object]:
    """Walk from some objects to all that they refer to, but not into what is shared."""
    seen: set[int] = set()
    todo = deque(begins)
    while todo:
        one = todo.popleft()
        if id(one) in seen or id(one) in shared:
            continue
        if isinstance(one, type | ModuleType | FunctionType | FrameType):
            continue
        seen.add(id(one))
        yield one
        todo.extend(gc.get_referents(one))


def _with_text(objects: list[object], text: str) -> list[str]:
    needle = text.encode()
    return [
        f"{one!r:.80}"
        for one in objects
        if (isinstance(one, str) and text in one) or (isinstance(one, bytes) and needle in one)
    ]
