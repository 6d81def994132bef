"""Publishing and reading over HTTP: for producers in any language, and for pages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from catenary.auth.api_keys import ApiKeys
from catenary.context import check_id
from catenary.encoding import encode
from catenary.errors import (
    CatenaryError,
    LifecycleError,
    LogError,
    LogFull,
    RunClosed,
    UsageError,
)
from catenary.eventlog.receipt import Receipt
from catenary.events import EventType
from catenary.position import Position
from catenary.serving.admission import Admission, Refusal
from catenary.serving.answers import answer, decoded, raw_answer, read_body
from catenary.serving.publication import Publication, Published
from catenary.serving.query import Wanted
from catenary.wires.native import event_payload

COMMIT_TIMEOUT = 10.0
"""After so many seconds without a commit the outcome is unknown, and said to be."""

EVENTS_LIMIT = 500
"""So many events a request may publish, or one page of history holds."""

BODY_LIMIT_BYTES = 4 * 1024 * 1024
KEY_LIMIT = 200

ATTEMPTS = 3
"""So often a run over HTTP is taken back from another node that was asked about it too."""


class Producers:
    """The endpoints under ``/api/users/{user_id}`` that write and read events."""

    def __init__(
        self,
        admission: Admission,
        keys: ApiKeys,
        *,
        body_limit_bytes: int = BODY_LIMIT_BYTES,
        commit_timeout: float = COMMIT_TIMEOUT,
    ) -> None:
        self._admission = admission
        self._factory = admission.factory
        self._keys = keys
        self._body_limit_bytes = body_limit_bytes
        self._commit_timeout = commit_timeout

    # Publishing

    async def publish(self, request: Request) -> Response:
        """``POST /api/users/{user_id}/events``: one event, or a list, all or none."""
        self.check_key(request)
        user_id = named_user(request)
        log_id = self._admission.wanted(request).log_id or user_id
        if not self._factory.is_started:
            problem = f"not ready: {self._factory.problem()}"
            raise Refusal(503, "not_ready", problem, retry_after=1)
        key = _idempotency_key(request)
        events, is_list = _events(await read_body(request, self._body_limit_bytes))
        if self._factory.is_draining and any(e.type == EventType.AGENT_STARTED for e in events):
            raise Refusal(503, "not_ready", "this node is draining: no new runs", retry_after=1)

        def publication() -> Publication:
            return Publication(
                user_id,
                events,
                is_list=is_list,
                idempotency_key=key,
                redactor=self._factory._redactor,
                limit_bytes=self._factory._data_limit_bytes,
                now_ms=self._factory.log.now_ms,
            )

        positions = await self._append(publication, log_id)
        content: dict[str, Any] = (
            {"positions": [str(place) for place in positions]}
            if is_list
            else {"position": str(positions[0])}
        )
        cancelled = self._cancelled(events, log_id)
        if cancelled:
            content["cancelled"] = cancelled
        return answer(content, 201)

    async def _append(self, publication: Callable[[], Publication], log_id: str) -> list[Position]:
        attempts = ATTEMPTS if self._factory.log.is_shared else 1
        while True:
            attempts -= 1
            try:
                return await self._append_once(publication(), log_id)
            except RunClosed as error:
                # Another node may have held the run since it was looked at.
                if not attempts:
                    raise _refusal(error) from None
            except CatenaryError as error:
                raise _refusal(error) from None

    async def _append_once(self, publication: Publication, log_id: str) -> list[Position]:
        log = self._factory.log
        elsewhere = await log.adopt_runs(log_id, publication.run_ids, publication.keys)
        stream = log.stream(log_id)
        # One step: no run changes between the look at it and the append.
        with log._lock:
            prepared = publication.prepare(stream, elsewhere)
            receipts = log.append_all(stream, prepared.entries)
        positions = await _committed(receipts, self._commit_timeout)
        return [positions[index] for index in prepared.asked]

    def _cancelled(self, events: Sequence[Published], log_id: str) -> list[str]:
        runs = self._factory.log.stream(log_id).runs
        return [
            run_id
            for run_id in dict.fromkeys(event.run_id for event in events if event.run_id)
            if (run := runs.get(run_id)) is not None and run.is_open and run.is_cancel_requested
        ]

    def check_key(self, request: Request) -> None:
        """Refuse whoever does not show the API key."""
        if self._keys.is_empty:
            raise Refusal(403, "forbidden", "this server has no API key configured")
        if not self._keys.accepts(request):
            self._factory.manager.counters.authentications["api_key"] += 1
            raise Refusal(401, "unauthorized", "this needs the API key as a Bearer token")

    # Reading

    async def events(self, request: Request) -> Response:
        """``GET /api/users/{user_id}/events``: one page of history."""
        log_id, wanted = await self._readable(request)
        limit = _number(request, "limit", 100, EVENTS_LIMIT)
        log = self._factory.log
        place = await log.locate(log_id, wanted.after)
        page = await log.read(log_id, place, limit=limit, thread_ids=wanted.thread_ids)
        about: dict[str, Any] = {"position": str(page.place), "more": not page.is_at_head}
        if page.gap is not None:
            about["gap"] = {
                "after": str(page.gap.after),
                "resumes_at": str(page.gap.resumes_at),
                "reason": page.gap.reason,
            }
        events = b",".join(map(event_payload, page.records))
        return raw_answer(b'{"events":[%b],%b' % (events, encode(about)[1:]))

    async def runs(self, request: Request) -> Response:
        """``GET /api/users/{user_id}/runs``: every run that the log knows, folded."""
        log_id, wanted = await self._readable(request)
        states = await self._factory.runs(log_id)
        chosen = [
            # A field at its default is left out, and `running` is the status's.
            {"status": state.status, **msgspec.to_builtins(state)}
            for state in states
            if wanted.thread_ids is None or state.thread_id in wanted.thread_ids
        ]
        return answer({"runs": chosen})

    async def _readable(self, request: Request) -> tuple[str, Wanted]:
        """Return which log is read, with the API key or with one's own credentials."""
        wanted = self._admission.wanted(request)
        log_id = wanted.log_id or named_user(request)
        if not self._keys.accepts(request):
            identity = await self._admission.require(request)
            mine = Wanted(after=wanted.after, log_id=log_id, thread_ids=wanted.thread_ids)
            await self._admission.admit(identity, mine)
        return log_id, wanted


def named_user(request: Request) -> str:
    """
    Return the user in the path.

    Raises:
        Refusal: 400 if no user can have this id.
    """
    user_id: str = request.path_params["user_id"]
    try:
        check_id("user_id", user_id)
    except UsageError as error:
        raise Refusal(400, "bad_request", str(error)) from None
    return user_id


def _events(body: bytes) -> tuple[Sequence[Published], bool]:
    if body.lstrip()[:1] != b"[":
        return [decoded(body, Published)], False
    pieces = decoded(body, list[msgspec.Raw])
    if not 0 < len(pieces) <= EVENTS_LIMIT:
        raise Refusal(400, "bad_request", f"a list has 1 to {EVENTS_LIMIT} events")
    return [
        decoded(bytes(piece), Published, where=f"event {index}: ")
        for index, piece in enumerate(pieces)
    ], True


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= KEY_LIMIT or not key.isascii() or not key.isprintable():
        text = f"Idempotency-Key has 1 to {KEY_LIMIT} printable ASCII characters"
        raise Refusal(400, "bad_request", text)
    return key


def _number(request: Request, name: str, default: int, limit: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= limit:
        raise Refusal(400, "bad_request", f"{name} is a number from 1 to {limit}")
    return int(text)


async def _committed(receipts: Sequence[Receipt], patience: float) -> list[Position]:
    """
    Wait until all are committed.

    Raises:
        CatenaryError: Why the first was refused that was; every outcome is heard.
        Refusal: If it takes too long.
    """
    positions: list[Position] = []
    refused: CatenaryError | None = None
    try:
        async with asyncio.timeout(patience):
            for receipt in receipts:
                try:
                    positions.append(await receipt)
                except CatenaryError as error:
                    refused = refused or error
    except TimeoutError:
        raise Refusal(
            503,
            "not_committed",
            f"the log has not committed this within {patience:g} s; whether it will is not "
            "known. Sent again with the same Idempotency-Key it is not doubled",
            retry_after=1,
        ) from None
    if refused is not None:
        raise refused
    return positions


def _refusal(error: CatenaryError) -> Refusal:
    if isinstance(error, LogFull):
        text = "the log holds all it may before it commits; try again"
        return Refusal(503, "log_full", text, retry_after=1)
    if isinstance(error, LogError):
        return Refusal(503, "log_unavailable", "the event log cannot be written", retry_after=1)
    if isinstance(error, LifecycleError):
        return Refusal(409, "lifecycle", str(error))
    if isinstance(error, RunClosed):
        return Refusal(409, "run_closed", str(error))
    if isinstance(error, UsageError):
        return Refusal(409, "idempotency_conflict", str(error))
    raise error
