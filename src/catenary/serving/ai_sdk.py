"""``/ai-sdk``: chats of the AI SDK over HTTP, for ``DefaultChatTransport``."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from catenary.serving.admission import Refusal
from catenary.serving.answers import answer, decoded
from catenary.serving.turn_store import Begun
from catenary.serving.turn_transport import EventStream, TurnResponse
from catenary.serving.turns import Asker, Turns, command_id
from catenary.wires.ai_sdk import ASK_TOOL, AiSdkTurn
from catenary.wires.translation import Translation

HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
"""By which clients know the protocol."""


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
    """What a client sends to get an answer."""

    id: str
    messages: list[UiMessage]
    trigger: str = "submit-message"
    messageId: str | None = None  # noqa: N815 - the wire's word


class AiSdkStream(EventStream):
    """A turn as the AI SDK reads it over HTTP."""

    async def _finish(self) -> None:
        await self._put(_last(b"data: [DONE]\n\n"))

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
        return await self._streamed(asker, *await sent(self._turns, asker, text))

    async def resume(self, request: Request) -> Response:
        """Stream the chat's turn from its beginning; 204 when there is none at work."""
        asker = await self._turns.asker(request)
        chat = request.path_params["chat"]
        if not await self._turns.may_use(asker, chat):
            return Response(status_code=204)
        found = await self._turns.active(asker, chat)
        if found is None:
            return Response(status_code=204)
        begun, turn = found
        translation = Translation(AiSdkTurn(begun.turn()), stops_from=turn.next_stop)
        return await self._streamed(asker, begun, translation, None)

    async def stop(self, request: Request) -> Response:
        """Cancel what answers in the chat; what was said so far stays."""
        asker = await self._turns.asker(request)
        stopped = await self._turns.stop(asker, request.path_params["chat"])
        return answer({"stopped": stopped})

    async def _streamed(
        self, asker: Asker, begun: Begun, translation: Translation, after: str | None
    ) -> Response:
        connection = await self._turns.open(asker, begun, after)
        return TurnResponse(
            self._turns,
            asker,
            begun,
            connection,
            translation,
            transport=AiSdkStream,
            headers=HEADERS,
        )


async def sent(turns: Turns, asker: Asker, text: str) -> tuple[Begun, Translation, str | None]:
    """
    Do what a client sent; return the turn, its translation, and where to read on.

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


async def _begun(
    turns: Turns, asker: Asker, asked: Sent, text: str
) -> tuple[Begun, Translation, str | None]:
    message = next((one for one in reversed(asked.messages) if one.role == "user"), None)
    if message is None:
        raise Refusal(400, "bad_message", "there is no message of the user to answer")
    nonce = "" if asked.trigger == "submit-message" else secrets.token_hex(8)
    begun = await turns.begin(
        asker,
        thread_id=asked.id,
        command_id=command_id("ai", asked.id, message.id, message.parts, nonce),
        data={
            "content": message.text,
            "message_id": message.id,
            "parts": message.parts,
            "messages": msgspec.json.decode(text)["messages"],
            "trigger": asked.trigger,
            "wire": "ai-sdk",
        },
    )
    turn = await turns.seen(asker, begun)
    return begun, Translation(AiSdkTurn(begun.turn()), stops_from=turn.next_stop), None


# Answers come as parts of the message that asked


async def _answered(
    turns: Turns, asker: Asker, asked: Sent, message: UiMessage
) -> tuple[Begun, Translation, str | None]:
    answers = dict(filter(None, map(_answer_in, message.parts)))
    if not answers:
        raise Refusal(400, "bad_message", "the last message is the agent's, and answers nothing")
    command = command_id("ai", asked.id, answers)
    begun, through = await turns.answer(asker, asked.id, answers, command)
    turn = await turns.seen(asker, begun)
    encoder = AiSdkTurn(begun.turn())
    place = await turns.read(asker, begun, encoder.take, through)
    encoder.reopen()
    return begun, Translation(encoder, stops_from=turn.next_stop), str(place)


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
