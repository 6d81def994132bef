"""Bodies of HTTP requests and answers, and what a refusal looks like."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from catenary.encoding import encode
from catenary.errors import LogError
from catenary.serving.admission import Refusal, unreadable

logger = logging.getLogger("catenary.serving")

BODY_TIMEOUT = 30.0
"""So many seconds a body may take to arrive."""

T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]


def answer(content: Any, status: int = 200, **headers: str) -> Response:
    """Return ``content`` as JSON that nobody keeps; underscores in header names become hyphens."""
    return raw_answer(encode(content), status, **headers)


def raw_answer(body: bytes, status: int = 200, **headers: str) -> Response:
    """Return JSON that is there already."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(
        body,
        status,
        {"cache-control": "no-store", **named},
        media_type="application/json",
    )


def refused(refusal: Refusal) -> Response:
    """Return a refusal as the answer that every endpoint gives."""
    response = answer({"error": refusal.error, "message": refusal.message}, refusal.status)
    response.headers.update(refusal.headers)
    return response


def answered(endpoint: Endpoint) -> Endpoint:
    """Let an endpoint refuse by raising, whatever application it is part of."""

    @functools.wraps(endpoint)
    async def answering(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Refusal as refusal:
            return refused(refusal)
        except LogError as error:
            logger.warning("%s %s: %s", request.method, endpoint.__name__, error)
            return refused(unreadable())
        except ClientDisconnect:
            return Response(status_code=499)

    return answering


def route(path: str, endpoint: Endpoint, method: str) -> Route:
    """Return the route of an endpoint that may refuse by raising."""
    return Route(path, endpoint=answered(endpoint), methods=[method])


async def http_error(request: Request, error: Exception) -> Response:  # noqa: ARG001 - a handler
    """Answer what no endpoint did: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    word = status.phrase.lower().replace(" ", "_")
    response = answer({"error": word, "message": f"{status.description or status.phrase}"}, status)
    response.headers.update(error.headers or {})
    return response


async def defect(request: Request, error: Exception) -> Response:  # noqa: ARG001 - a handler
    """Answer a defect of ours, without its text; the server logs it."""
    return answer({"error": "internal", "message": "the server failed; it is logged there"}, 500)


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """
    Return the body of a request.

    Raises:
        Refusal: 413 if it is over the limit, as soon as that is known; 408 if
            it does not come within 30 s.
    """
    too_large = Refusal(413, "too_large", f"a body has at most {limit_bytes:,} bytes here")
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > limit_bytes:
        raise too_large
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for piece in request.stream():
                size += len(piece)
                if size > limit_bytes:
                    raise too_large
                pieces.append(piece)
    except TimeoutError:
        raise Refusal(408, "timeout", "the body did not arrive in time") from None
    return b"".join(pieces)


async def read_json(request: Request, type: type[T], *, limit_bytes: int = 64 * 1024) -> T:
    """
    Return the body as ``type``; an absent one as an empty object.

    Raises:
        Refusal: 400 with what is wrong, 413 if it is over the limit.
    """
    return decoded(await read_body(request, limit_bytes) or b"{}", type)


def decoded(body: bytes, type: type[T], *, where: str = "") -> T:
    """
    Return JSON as ``type``.

    Raises:
        Refusal: 400 with what is wrong, after ``where``.
    """
    try:
        return msgspec.json.decode(body, type=type)
    except msgspec.ValidationError as error:
        text = str(error)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        text = "this is not JSON"
    raise Refusal(400, "bad_request", f"{where}{text}")
