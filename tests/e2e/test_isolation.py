"""What belongs to one user never reaches another, whatever is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from catenary import UserWebSocketEmitter
from catenary.errors import CloseCode
from tests.e2e.support import Bridge, Reader, bridge, log_url, token_of

USERS = 20
RUNS = 5
ALICE, BOB = "user_a", "user_b"


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Both logs."""
    return log_url(request.param, tmp_path)


async def test_each_user_gets_exactly_their_own(url: str) -> None:
    """20 users with 5 runs of 3 events each, at once and with the same ids everywhere."""
    async with bridge(url) as running:
        users = [f"user_{n}" for n in range(USERS)]
        readers = [await Reader.open(running, user) for user in users]

        async def run(user: str, number: int) -> None:
            emitter = running.emitter(user, thread_id=f"t{number}", run_id=f"r{number}")
            await emitter.agent_started(agent_name=f"agent of {user}")
            await emitter.agent_thinking(f"{user} {number}")
            await emitter.agent_completed(result=user)

        await asyncio.gather(*(run(user, number) for user in users for number in range(RUNS)))
        readers += [await Reader.open(running, user) for user in users]
        for reader, user in zip(readers, users * 2, strict=True):
            await reader.until(lambda reader=reader: reader.reached == 3 * RUNS)  # type: ignore[misc]
            assert reader.faults == []
            assert {event["user_id"] for event in reader.received} == {user}
            assert {event["agent_name"] for event in reader.received} == {f"agent of {user}"}
            by_run = [
                [event["type"] for event in reader.received if event["run_id"] == f"r{number}"]
                for number in range(RUNS)
            ]
            assert by_run == [["agent_started", "agent_thinking", "agent_completed"]] * RUNS


class Pair:
    """Two users, whose threads, runs and messages have the same ids."""

    def __init__(self, running: Bridge, alice: Reader, bob: Reader) -> None:
        self.running = running
        self.alice = alice
        self.bob = bob
        self.emitter_of = {
            user: running.emitter(user, thread_id="t1", run_id="r1") for user in (ALICE, BOB)
        }

    async def settle(self) -> None:
        """Wait until both have all of theirs, and check that it is theirs."""
        for reader, user in ((self.alice, ALICE), (self.bob, BOB)):
            head = await self.running.factory.log.head(user)
            await reader.until(lambda reader=reader, head=head: reader.reached == head.seq)  # type: ignore[misc]
            assert {event["user_id"] for event in reader.received} <= {user}
            assert reader.faults == []


@pytest_asyncio.fixture
async def pair(url: str) -> AsyncIterator[Pair]:
    """Alice and Bob, both connected; each has an open run r1 in thread t1."""
    async with bridge(url) as running:

        @running.factory.on_message("app.who")
        async def who(message: Any, emitter: UserWebSocketEmitter) -> dict[str, Any]:
            await emitter.custom("app.asked", {"of": message.identity.user_id})
            return {"user_id": message.identity.user_id, "said": message.data}

        alice = await Reader.open(running, ALICE)
        bob = await Reader.open(running, BOB)
        both = Pair(running, alice, bob)
        for user, emitter in both.emitter_of.items():
            await emitter.agent_started(agent_name=f"agent of {user}")
            await emitter.agent_thinking(f"the secret of {user}")
        yield both
        await both.settle()


async def test_the_same_ids_do_not_meet(pair: Pair) -> None:
    """One user's end of run r1 is not the other's; filtering by thread t1 shows one's own."""
    await pair.emitter_of[ALICE].agent_completed()
    await pair.emitter_of[BOB].agent_thinking("still here")
    mine = await Reader.open(pair.running, ALICE, thread_id="t1")
    await mine.until(lambda: mine.live)
    assert {event["user_id"] for event in mine.received} == {ALICE}
    assert [run.status for run in await pair.running.factory.runs(BOB)] == ["running"]
    await pair.emitter_of[BOB].agent_completed()


async def test_another_users_log_is_refused(pair: Pair) -> None:
    """``log=`` with another's id is forbidden on every wire, as if it did not exist."""
    for log in (BOB, "user_nobody"):
        reader = await Reader.connect(pair.running, ALICE, log=log)
        await reader.ended()
        assert (reader.status, reader.received) == (403, [])
        assert reader.body == b'{"error":"forbidden","message":"no such log"}'
        async with pair.running.http(token_of(ALICE)) as http:
            answers = [
                await http.get("/sse", params={"log": log}),
                await http.get(f"/api/users/{log}/events"),
                await http.get(f"/api/users/{log}/runs"),
                await http.get(f"/api/users/{ALICE}/events", params={"log": log}),
                await http.post("/api/messages", params={"log": log}, json={"type": "ping"}),
                await http.post("/api/runs/r1/cancel", json={"user_id": log}),
            ]
        assert {answer.status_code for answer in answers} == {403}
        assert {answer.json()["message"] for answer in answers} == {"no such log"}
    assert (await pair.running.factory.log.head("user_nobody")).seq == 0


async def test_names_that_only_look_alike_are_others(pair: Pair) -> None:
    """User ids are exact: no case, form, space, path or pattern of one is another."""
    names = ["USER_A", "user_a ", "user_a%", "user_a/../user_b", "user_?", "user_a\u0301", "*"]
    readers = [await Reader.open(pair.running, name) for name in names]
    await pair.emitter_of[ALICE].agent_thinking("for one user only")
    await pair.emitter_of[BOB].agent_thinking("for the other only")
    await pair.settle()
    for name, reader in zip(names, readers, strict=True):
        await pair.running.emitter(name).custom("app.note", {"of": name})
        await reader.until(lambda reader=reader: reader.reached == 1)  # type: ignore[misc]
        assert [event["user_id"] for event in reader.received] == [name]


async def test_another_users_run_cannot_be_cancelled(pair: Pair) -> None:
    """A foreign run is ``not_found``, as one that does not exist; the same id is one's own."""
    only_bobs = pair.running.emitter(BOB, thread_id="t2", run_id="bobs-run")
    await only_bobs.agent_started()
    answers = [
        await pair.alice.answer_to({"type": "cancel_run", "id": "c1", "run_id": run_id})
        for run_id in ("bobs-run", "no-such-run")
    ]
    assert [answer["code"] for answer in answers] == ["not_found", "not_found"]
    assert answers[0]["message"] == answers[1]["message"]
    async with pair.running.http(token_of(ALICE)) as http:
        foreign = await http.post("/api/runs/bobs-run/cancel", json={})
        unknown = await http.post("/api/runs/no-such-run/cancel", json={})
    assert (foreign.status_code, foreign.text) == (unknown.status_code, unknown.text)
    assert foreign.status_code == 404
    answer = await pair.alice.answer_to({"type": "cancel_run", "id": "c2", "run_id": "r1"})
    assert answer["type"] == "ack"
    asked = {
        (run.log_id, run.run_id)
        for user in (ALICE, BOB)
        for run in await pair.running.factory.log.runs(user)
        if run.cancel_requested_at is not None
    }
    assert asked == {(ALICE, "r1")}


async def test_another_users_position_says_nothing(pair: Pair) -> None:
    """A place in another's log is a place in one's own, or a gap."""
    bobs = pair.running.emitter(BOB)
    place = [await bobs.custom("app.note", {"n": n}) for n in range(30)][-1]
    reader = await Reader.open(pair.running, ALICE, after=str(place))
    await pair.emitter_of[ALICE].agent_thinking("one more")
    await reader.until(lambda: reader.reached == 3)
    assert {event["user_id"] for event in reader.received} == {ALICE}
    assert len(reader.gaps) == 1
    await pair.alice.answer_to({"type": "position", "position": str(place)})
    assert not await bobs.seen(place, timeout=0.05)


async def test_messages_with_the_same_id_are_two(pair: Pair) -> None:
    """Another's message id, connection id and thread give one neither reply nor effect."""
    asked = {"type": "app.who", "id": "m1", "thread_id": "t1", "data": {"n": 1}}
    answers = [await pair.alice.answer_to(asked), await pair.bob.answer_to({**asked, "data": 2})]
    assert [answer["reply"]["user_id"] for answer in answers] == [ALICE, BOB]
    assert [answer["reply"]["said"] for answer in answers] == [{"n": 1}, 2]
    forged = {
        **asked,
        "id": "m2",
        "user_id": BOB,
        "log_id": BOB,
        "connection_id": pair.bob.head["connection_id"],
        "identity": {"user_id": BOB},
    }
    assert (await pair.alice.answer_to(forged))["reply"]["user_id"] == ALICE
    other = {"type": "answer", "id": "a1", "request_id": "q1", "answer": 1}
    assert (await pair.alice.answer_to(other))["code"] == "forbidden"
    await pair.settle()
    assert [event["data"] for event in pair.bob.of_type("app.asked")] == [{"of": BOB}]


async def test_another_users_connection_is_not_reached(pair: Pair) -> None:
    """Events made for another's connection id, and ends of one user's connections, stay apart."""
    bobs = pair.bob.head["connection_id"]
    alices = pair.running.emitter(ALICE, connection_id=bobs)
    await alices.custom("app.note", {"of": ALICE})
    assert await pair.running.factory.manager.disconnect(ALICE) == 1
    assert await pair.alice.ended() == CloseCode.FORBIDDEN
    answer = await pair.bob.answer_to({"type": "ping", "id": "p"})
    assert answer["type"] == "pong"
    assert not pair.bob.of_type("app.note")
    pair.alice = await Reader.open(pair.running, ALICE)


async def test_a_ticket_opens_its_users_log_once(pair: Pair) -> None:
    """A ticket is its user's, whoever else's token comes with it, and works once."""
    async with pair.running.http(token_of(BOB)) as http:
        ticket = (await http.post("/api/tickets", json={"purpose": "ws"})).json()["ticket"]
        spoiled = [ticket[:-1] + ("A" if ticket[-1] != "A" else "B"), ticket.swapcase(), "x"]
    for wrong in spoiled:
        reader = await Reader.connect(pair.running, None, ticket=wrong)
        await reader.ended()
        assert reader.status == 401
    both = await Reader.connect(pair.running, ALICE, ticket=ticket)
    await both.ended()
    assert both.status == 400, "two credentials are one too many"
    foreign = await Reader.connect(pair.running, None, ticket=ticket, log=ALICE)
    await foreign.ended()
    assert foreign.status == 403
    async with pair.running.http(token_of(BOB)) as http:
        ticket = (await http.post("/api/tickets", json={"purpose": "ws"})).json()["ticket"]
    own = await Reader.open(pair.running, None, ticket=ticket)
    assert own.head["user_id"] == BOB
    again = await Reader.connect(pair.running, None, ticket=ticket)
    await again.ended()
    assert again.status == 401


async def test_idempotency_keys_are_each_users_own(pair: Pair) -> None:
    """The same key for two users makes two events, each in its own log."""
    event = {"type": "app.paid", "thread_id": "t1", "data": {"amount": 1}}
    places = []
    async with pair.running.http() as http:
        for user in (ALICE, BOB, ALICE, BOB):
            answer = await http.post(
                f"/api/users/{user}/events", json=event, headers={"idempotency-key": "k1"}
            )
            assert answer.status_code == 201
            places.append((user, answer.json()["position"]))
    assert places[:2] == places[2:]
    await pair.settle()
    assert len(pair.alice.of_type("app.paid")) == len(pair.bob.of_type("app.paid")) == 1
    async with pair.running.http(token_of(ALICE)) as http:
        for path in (f"/api/users/{ALICE}/events", f"/api/users/{BOB}/events"):
            assert (await http.post(path, json=event)).status_code == 401
        for path in (f"/api/users/{BOB}/erase", f"/api/users/{BOB}/disconnect", "/api/drain"):
            assert (await http.post(path, json={})).status_code == 401
        assert (await http.get("/api/inspect", params={"user": BOB})).status_code == 401
        assert (await http.get("/metrics")).status_code == 401


async def test_history_over_http_is_ones_own(pair: Pair) -> None:
    """The path names the log; whatever else names another is refused or without effect."""
    async with pair.running.http(token_of(ALICE)) as http:
        for user, status in (
            (ALICE, 200),
            (BOB, 403),
            (f"{ALICE}/../{BOB}", 403),
            ("%75ser_b", 403),
        ):
            answer = await http.get(f"/api/users/{user}/events")
            assert answer.status_code == status, user
        answer = await http.get(f"/api/users/{BOB}/events", params={"log": ALICE})
        assert answer.status_code == 200
        assert {event["user_id"] for event in answer.json()["events"]} == {ALICE}
        runs = (await http.get(f"/api/users/{ALICE}/runs")).json()["runs"]
        assert {run["agent_name"] for run in runs} == {f"agent of {ALICE}"}
