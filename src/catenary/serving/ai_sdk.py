"""``/ai-sdk``: chats of the AI SDK over HTTP, for ``DefaultChatTransport``."""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from catenary.position import Position
from catenary.serving.admission import Refusal
from catenary.serving.answers import answer, decoded
from catenary.serving.sse import HEADERS as SSE_HEADERS
from catenary.serving.turn_places import going_on
from catenary.serving.turn_store import Begun
from catenary.serving.turn_transport import EventStream, TurnResponse
from catenary.serving.turns import Asker, Turns, command_id
from catenary.wires.ai_sdk import ASK_TOOL, AiSdkTurn
from catenary.wires.translation import Translation

HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
"""By which clients know the protocol."""

DONE = b"data: [DONE]\n\n"


class UiMessage(msgspec.Struct, kw_only=True):
    """A message as a client holds it. What it says is not to be trusted."""

    role: str
    id: str = ""
    parts: list[dict[str, Any]] = []

    @property
    def text(self) -> str:
        """What the message says, as text."""
        return "".join(
            part["text"]
            for part in self.parts
            if part.get("type") == "text" and isinstance(part.get("text"), str)
        )


class Sent(msgspec.Struct, kw_only=True):
    """
    What a client sends to get an answer.

    ``again`` says that it was sent before, and broken off; ``after`` what of
    the answer had come by then.
    """

    id: str
    messages: list[UiMessage]
    trigger: str = "submit-message"
    messageId: str | None = None  # noqa: N815 - the wire's word
    requestId: str = ""  # noqa: N815
    again: bool = False
    after: str | None = None


class Stream(NamedTuple):
    """A turn to be streamed: how, and after which place."""

    begun: Begun
    translation: Translation
    after: str | None = None


class AiSdkStream(EventStream):
    """A turn as the AI SDK reads it over HTTP."""

    async def _finish(self) -> None:
        await self._put(_last(DONE))

    async def _break_off(self, problem: str) -> None:
        error = msgspec.json.encode({"type": "error", "errorText": problem})
        await self._put(_last(b"data: %b\n\n" % error))


def _last(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": False}


class AiSdkEndpoint:
    """``POST /ai-sdk``, ``GET /ai-sdk/{chat}/stream`` and ``POST /ai-sdk/{chat}/stop``."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    async def send(self, request: Request) -> Response:
        """Take a message, or the answers to questions, and stream the turn."""
        asker = await self._turns.asker(request)
        self._turns.check_rate(asker)
        text = await self._turns.body(request)
        return await self._streamed(asker, await sent(self._turns, asker, text))

    async def resume(self, request: Request) -> Response:
        """Stream the chat's turn from its beginning; 204 when there is none at work."""
        asker = await self._turns.asker(request)
        chat = request.path_params["chat"]
        stream = await resumed(self._turns, asker, chat, None)
        if stream is None:
            return Response(status_code=204)
        return await self._streamed(asker, stream)

    async def stop(self, request: Request) -> Response:
        """Cancel what answers in the chat; what was said so far stays."""
        asker = await self._turns.asker(request)
        stopped = await self._turns.stop(asker, request.path_params["chat"])
        return answer({"stopped": stopped})

    async def _streamed(self, asker: Asker, stream: Stream) -> Response:
        if stream.translation.is_done:
            return Response(DONE, headers={**HEADERS, **SSE_HEADERS})
        connection = await self._turns.open(asker, stream.begun, stream.after)
        return TurnResponse(
            self._turns,
            asker,
            stream.begun,
            connection,
            stream.translation,
            transport=AiSdkStream,
            headers=HEADERS,
        )


async def resumed(turns: Turns, asker: Asker, chat: str, after: str | None) -> Stream | None:
    """
    Return a chat's turn, from its beginning or what follows a place; None when there is none.

    Raises:
        Refusal: If the place is none.
    """
    if not await turns.may_use(asker, chat):
        return None
    found = await turns.active(asker, chat)
    # Who comes back for the rest of an old turn gets it, too.
    begun = found[0] if found else await turns.store.find(asker.log_id, chat) if after else None
    return None if begun is None else await _streamed(turns, asker, begun, after)


async def _streamed(
    turns: Turns, asker: Asker, begun: Begun, after: str | None, through: Position | None = None
) -> Stream:
    encoder = AiSdkTurn(begun.turn())
    translation, place = await going_on(turns, asker, begun, encoder, after=after, through=through)
    return Stream(begun, translation, place)


async def sent(turns: Turns, asker: Asker, text: str) -> Stream:
    """
    Do what a client sent; return the turn.

    Raises:
        Refusal: If it is none that can be answered.
    """
    asked = decoded(text.encode(), Sent)
    if not asked.messages:
        raise Refusal(400, "bad_message", "a chat has at least one message")
    last = asked.messages[-1]
    if last.role == "assistant" and asked.trigger == "submit-message":
        return await _answered(turns, asker, asked, last)
    return await _begun(turns, asker, asked, text)


async def _begun(turns: Turns, asker: Asker, asked: Sent, text: str) -> Stream:
    message = next((one for one in reversed(asked.messages) if one.role == "user"), None)
    if message is None:
        raise Refusal(400, "bad_message", "there is no message of the user to answer")
    is_new = asked.trigger == "submit-message"
    nonce = "" if is_new else asked.requestId or secrets.token_hex(8)
    command = command_id("ai", asked.id, message.id, message.parts, nonce)
    begun = await turns.begun_by(asker, asked.id, command) if asked.again else None
    begun = begun or await turns.begin(
        asker,
        thread_id=asked.id,
        command_id=command,
        data={
            "content": message.text,
            "message_id": message.id,
            "parts": message.parts,
            "messages": msgspec.json.decode(text)["messages"],
            "trigger": asked.trigger,
            "wire": "ai-sdk",
        },
    )
    return await _streamed(turns, asker, begun, asked.after)


# Answers come as parts of the message that asked


async def _answered(turns: Turns, asker: Asker, asked: Sent, message: UiMessage) -> Stream:
    answers = dict(filter(None, map(_answer_in, message.parts)))
    if not answers:
        raise Refusal(400, "bad_message", "the last message is the agent's, and answers nothing")
    command = command_id("ai", asked.id, answers)
    begun, through = await turns.answer(asker, asked.id, answers, command)
    return await _streamed(turns, asker, begun, asked.after, through)


def _answer_in(part: dict[str, Any]) -> tuple[str, Any] | None:
    approval = part.get("approval")
    if (
        isinstance(approval, dict)
        and "approved" in approval
        and isinstance(approval.get("id"), str)
    ):
        given = {"approved": approval["approved"] is True}
        if isinstance(approval.get("reason"), str):
            given["reason"] = approval["reason"]
        return approval["id"], given
    is_ask = ASK_TOOL in (part.get("toolName"), str(part.get("type")).removeprefix("tool-"))
    if is_ask and part.get("state") == "output-available":
        return str(part.get("toolCallId")), part.get("output")
    return None
