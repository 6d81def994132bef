"""Chat: the events that a person waits for, and the messages that they send."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import httpx

from catenary.client.messages import Ack, Control, ErrorAnswer
from catenary.emitter import UserWebSocketEmitter
from catenary.eventlog.base import EventLog
from catenary.inbound import Message
from catenary.validate.agents import FIVE_EVENTS, five_events, talkative
from catenary.validate.bridges import ServedBridge
from catenary.validate.crowd import together
from catenary.validate.field import Field
from catenary.validate.processes import BridgeProcess
from catenary.validate.reader import Reader
from catenary.validate.rows import Need, Pace, Suite
from catenary.validate.suites.expectations import expect_grammar, until_ended

SWEEPS = 200
"""So often a log is swept at the most; each time it does a little of what is due."""

chat = Suite("chat", "A question is handled once, and its answer comes back whole.")


async def _conversations(field: Field, users: int) -> str:
    async with field.audience() as audience:
        readers = await audience.join(field.some_users(users))

        async def answer(reader: Reader) -> None:
            async with field.own.emitter(reader.user_id).run(agent_name="assistant") as run:
                run.set_result(await five_events(run, reader.user_id))

        await together(answer(reader) for reader in readers)
        for reader in readers:
            await until_ended(reader, 1)
            types = tuple(arrival.event.type for arrival in reader.arrivals)
            field.expect(types == FIVE_EVENTS, f"{reader.name} saw {types}")
            result = reader.arrivals[-1].event.data.get("result", {})
            field.expect(result.get("marker") == reader.user_id, f"{reader.name}: result {result}")
        field.judge(audience)
        return f"{users} users, {audience.events_received} of {users * 5} events, in order"


@chat.row("the five events", asked="one run: its five events, in order", needs=(Need.OWN_BRIDGE,))
async def the_five_events(field: Field) -> str:
    return await _conversations(field, 1)


@chat.row("10 users", asked="10 users: five events each, in order", needs=(Need.OWN_BRIDGE,))
async def ten_users(field: Field) -> str:
    return await _conversations(field, 10)


@chat.row("25 users", asked="25 users: five events each, in order", needs=(Need.OWN_BRIDGE,))
async def twenty_five_users(field: Field) -> str:
    return await _conversations(field, 25)


# Questions


def answering(bridge: ServedBridge) -> Counter[tuple[str, str]]:
    """Let a bridge answer questions; return how often each (user, id) reached the handler."""
    handled: Counter[tuple[str, str]] = Counter()

    @bridge.factory.on_message("user_message")
    async def answer(message: Message, emitter: UserWebSocketEmitter) -> dict[str, Any]:
        handled[message.identity.user_id, message.id] += 1
        await asyncio.sleep(0.01)  # so that a repeat can come while it is at work
        handle = emitter.start_run(five_events, str(message.data["content"]), agent_name="chat")
        return {"run_id": handle.run_id, "content": message.data["content"]}

    return handled


def question(number: int, content: str) -> dict[str, Any]:
    """Return a question as a client sends it."""
    return {
        "type": "user_message", "id": f"question-{number}", "thread_id": "thread_1",
        "data": {"content": content},
    }  # fmt: skip


def _reply(answer: Control) -> Any:
    return answer.reply if isinstance(answer, Ack) else answer


@chat.row(
    "6 users × 10",
    asked="6 users ask 10 questions each: 60 handled once, 60 replies, 60 whole runs",
    needs=(Need.OWN_BRIDGE,),
)
async def six_users_ten_questions(field: Field) -> str:
    async with field.served() as bridge, field.audience(bridge) as audience:
        handled = answering(bridge)
        readers = await audience.join(field.some_users(6))

        async def talk(reader: Reader) -> None:
            for number in range(10):
                content = f"{reader.user_id} asks {number}"
                reply = _reply(await reader.ask(question(number, content)))
                is_own = isinstance(reply, dict) and reply["content"] == content
                field.expect(is_own, f"{reader.name} was answered {reply}")

        await together(talk(reader) for reader in readers)
        for reader in readers:
            await until_ended(reader, 10)
            runs = expect_grammar(field, reader)
            field.expect(len(runs) == 10, f"{reader.name} saw {len(runs)} of 10 runs")
        field.expect(set(handled.values()) == {1}, "a question reached the handler more than once")
        field.expect(len(handled) == 60, f"{len(handled)} of 60 questions reached the handler")
        field.judge(audience)
        return f"{len(handled)} of 60 questions handled once and answered"


@chat.row(
    "a question sent again",
    asked="a question is sent 5 times over 2 connections, 3 of them at once: handled once, one reply",
    needs=(Need.OWN_BRIDGE,),
)
async def a_question_sent_again(field: Field) -> str:
    async with field.served() as bridge, field.audience(bridge) as audience:
        handled = answering(bridge)
        first, second = await audience.join([field.user()] * 2)
        asked = question(1, "Which bridge?")
        for reader in (first, second, first):
            reader.say(asked)
        await first.until(lambda: len(first.answers) == 2, what="answered twice")
        await second.until(lambda: second.answers, what="answered")
        replies = [_reply(answer) for answer in (*first.answers, *second.answers)]
        first.cut()
        await first.until(lambda: first.lives == 2, what="live again")
        replies.append(_reply(await first.ask(asked)))
        replies.append(_reply(await second.ask(asked)))
        field.expect(all(reply == replies[0] for reply in replies), f"replies differ: {replies}")
        field.expect(sum(handled.values()) == 1, f"handled {sum(handled.values())} times")
        await until_ended(second, 1)
        questions = [a.event for a in second.arrivals if a.event.type == "user_message"]
        field.expect(len(questions) == 1, f"the log shows the question {len(questions)} times")
        field.judge(audience)
        return f"{len(replies)} sent, {sum(handled.values())} handled, one reply to all"


@chat.row(
    "another tab sees it",
    asked="a question of one tab is seen by two others, before its answer",
    needs=(Need.OWN_BRIDGE,),
)
async def another_tab_sees_it(field: Field) -> str:
    async with field.served() as bridge, field.audience(bridge) as audience:
        answering(bridge)
        readers = await audience.join([field.user()] * 3)
        await readers[0].ask(question(1, "Which bridge?"))
        for reader in readers:
            await until_ended(reader, 1)
            types = [arrival.event.type for arrival in reader.arrivals]
            field.expect(types == ["user_message", *FIVE_EVENTS], f"{reader.name} saw {types}")
        field.judge(audience)
        return f"{len(readers)} tabs saw the question and its {len(FIVE_EVENTS)} events"


@chat.row(
    "through a reconnect",
    asked="the connection is cut 3 times in an answer of 300 words: every word once, in order",
    needs=(Need.OWN_BRIDGE,),
)
async def through_a_reconnect(field: Field) -> str:
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))
        async with field.own.emitter(field.user()).run(agent_name="talker", run_id="run_1") as run:
            talking = asyncio.create_task(talkative(run, 300, 0.002))
            for words in (50, 120, 200):
                await reader.until(lambda n=words: _said(reader).count(" ") >= n)  # type: ignore[misc]
                reader.cut()
            await talking
        await until_ended(reader, 1)
        said = _said(reader)
        expected = "".join(f"run_1-{number} " for number in range(300))
        field.expect(said == expected, "the words that came are not those that were said")
        field.judge(audience)
        field.tracks(audience)
        return f"{len(said.split())} of 300 words over {reader.lives} connections"


@chat.row(
    "back after the end",
    asked="away from the middle of an answer until it ended and the log made one event of it: the rest comes, no word twice",
    needs=(Need.OWN_BRIDGE,),
)
async def back_after_the_end(field: Field) -> str:
    log = field.own.factory.log
    async with field.audience() as audience:
        (reader,) = await audience.join(field.some_users(1))
        async with field.own.emitter(field.user()).run(agent_name="talker", run_id="run_1") as run:
            for number in range(60):
                await run.delta(f"run_1-{number} ")
                if number == 29:
                    await reader.until(lambda: _said(reader).count(" ") == 30, what="told the half")
                    reader.go_offline()
        for _ in range(SWEEPS):
            await log.sweep()
            if await _events_held(log, field.user()) < 10:
                break
        else:
            field.expect(condition=False, text="the log did not make one event of the words")
        reader.come_back()
        await until_ended(reader, 1)
        expected = "".join(f"run_1-{number} " for number in range(60))
        field.expect(_said(reader) == expected, f"the words that came are {_said(reader)!r:.300}")
        field.judge(audience)
        return f"{len(_said(reader).split())} of 60 words, 30 of them from the middle of one event"


async def _events_held(log: EventLog, log_id: str) -> int:
    page = await log.read(log_id, await log.locate(log_id, "start"))
    return len(page.records)


def _said(reader: Reader) -> str:
    return "".join(str(arrival.event.data.get("delta", "")) for arrival in reader.arrivals)


@chat.row(
    "history after a restart",
    asked="20 questions and answers are there after the server was restarted (SQLite)",
    needs=(Need.PROCESS,),
    pace=Pace.PATIENT,
)
async def history_after_a_restart(field: Field) -> str:
    async with (
        field.log_file() as log,
        BridgeProcess.on_a_free_port(log=log) as bridge,
        field.audience(bridge) as audience,
    ):
        (reader,) = await audience.join(field.some_users(1))
        wish = {"agent": "five_events", "arguments": ["bridges"], "runs": 20}
        await reader.ask({"type": "validate.run", "id": "1", "data": wish})
        await until_ended(reader, 20)
        await bridge.stop()
        await bridge.start()
        (late,) = await audience.join([field.user()], name="after the restart")
        await until_ended(late, 20)
        before = [arrival.event.id for arrival in reader.arrivals]
        after = [arrival.event.id for arrival in late.arrivals]
        field.expect(before == after, "the history differs from what was seen before")
        expect_grammar(field, late)
        async with bridge.http(bridge.token(field.user())) as http:
            runs = (await http.get(f"/api/users/{field.user()}/runs")).json()["runs"]
        field.expect(len(runs) == 20, f"{len(runs)} of 20 runs over HTTP")
        return f"{len(after)} of 100 events and {len(runs)} runs after the restart"


@chat.row(
    "100 connects",
    asked="100 connects, half of them left in order and half cut: nothing is left behind",
    needs=(Need.OWN_BRIDGE,),
)
async def hundred_connects(field: Field) -> str:
    def left() -> int:
        return sum(len(field.own.factory.manager.connections(user)) for user in field.users)

    for batch in range(10):
        async with field.audience() as audience:
            readers = await audience.join(field.some_users(10))
            for reader in readers[batch % 2 :: 2]:
                reader.go_offline()
    for _ in range(200):
        if not left():
            break
        await asyncio.sleep(0.01)
    field.expect(not left(), f"{left()} connections are left")
    watched = [u for u in field.users if field.own.factory.log.stream(u).watchers]
    field.expect(not watched, f"{len(watched)} logs are still watched")
    return f"100 connects, {left()} connections and {len(watched)} watched logs left"


# Malformed messages


def _nested(depth: int) -> str:
    return '{"type":"x","id":"1","data":' + "[" * depth + "]" * depth + "}"


MALFORMED: dict[str, tuple[str | bytes, str]] = {
    "no JSON": ("hello {", "bad_json"),
    "an array": ("[1, 2, 3]", "bad_message"),
    "no type": ('{"id":"1","data":{}}', "bad_message"),
    "a type that is no string": ('{"type":7,"id":"1"}', "bad_message"),
    "a type that nothing handles": ('{"type":"nobody.knows","id":"1"}', "unknown_type"),
    "no id": ('{"type":"validate.any","data":{}}', "bad_message"),
    "an id of control characters": ('{"type":"validate.any","id":"\\u0000"}', "bad_message"),
    "binary": (b"\x00\x01\x02", "bad_message"),
    "nested too deep": (_nested(200), "bad_message"),
    "too large": ('{"type":"x","id":"1","data":"' + "x" * 70_000 + '"}', "too_large"),
    "an event's own type": ('{"type":"agent_started","id":"1","data":{}}', "unknown_type"),
    "a position that is none": ('{"type":"position","position":"x"}', "bad_message"),
}


def _add_malformed(name: str, message: str | bytes, code: str) -> None:
    @chat.row(
        f"malformed: {name}",
        asked=f"answered {code}; the connection stays healthy and brings the next event",
    )
    async def malformed(field: Field) -> str:
        async with field.audience() as audience:
            (reader,) = await audience.join(field.some_users(1))
            answer = await reader.ask(message)
            said = answer.code if isinstance(answer, ErrorAnswer) else type(answer).__name__
            field.expect(said == code, f"answered {said}")
            await reader.ask({"type": "ping", "id": "2"})
            audience.emit(field.user(), "after")
            await audience.settle()
            field.judge(audience)
            field.expect(reader.lives == 1, "the connection was lost")
            return f"answered {said}; pinged and served on the same connection"


for _name, (_message, _code) in MALFORMED.items():
    _add_malformed(_name, _message, _code)


@chat.row(
    "over HTTP",
    asked="a question posted over HTTP is answered there, and its events reach the user's tab",
    needs=(Need.OWN_BRIDGE,),
)
async def over_http(field: Field) -> str:
    async with field.served() as bridge, field.audience(bridge) as audience:
        handled = answering(bridge)
        (reader,) = await audience.join(field.some_users(1))
        async with bridge.http(bridge.token(field.user())) as http:
            answers = [
                await http.post("/api/messages", json=question(1, "Which bridge?"))
                for _ in range(2)
            ]
        codes = [answer.status_code for answer in answers]
        field.expect(codes == [httpx.codes.OK] * 2, f"answered {codes}")
        field.expect(answers[0].json() == answers[1].json(), "the repeat has another reply")
        await until_ended(reader, 1)
        field.expect(sum(handled.values()) == 1, f"handled {sum(handled.values())} times")
        field.judge(audience)
        return f"answered {codes}, handled once, {len(reader.arrivals)} events at the tab"
