"""What operators ask of a server over HTTP: cancel, erase, disconnect, inspect, drain."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from catenary.auth import Identity
from catenary.auth.api_keys import ApiKeys
from catenary.eventlog.model import CancelOutcome, RunInfo
from catenary.inquiries import ConnectionInfo
from catenary.serving.admission import Admission, Refusal
from catenary.serving.answers import answer, read_json
from catenary.serving.closing import close_run
from catenary.serving.producers import Producers, named_user
from catenary.serving.query import Wanted

logger = logging.getLogger("catenary.serving")

SHOWN_LIMIT = 200
"""So many of each kind one look shows; the totals are there too."""


class _Cancel(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    user_id: str | None = None
    reason: str | None = None


class _Erase(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    thread_id: str | None = None


class _Disconnect(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    session_id: str | None = None


class _Drain(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    timeout: float | None = None


class Operators:
    """The endpoints of operators; a user may cancel runs of their own."""

    def __init__(self, admission: Admission, keys: ApiKeys, producers: Producers) -> None:
        self._admission = admission
        self._factory = admission.factory
        self._keys = keys
        self._check_key = producers.check_key
        self._draining: asyncio.Task[None] | None = None

    async def cancel(self, request: Request) -> Response:
        """``POST /api/runs/{run_id}/cancel``: answered once the request is stored."""
        run_id = request.path_params["run_id"]
        is_operator = self._keys.accepts(request)
        identity = None if is_operator else await self._admission.require(request)
        asked = await read_json(request, _Cancel)
        if identity is None:
            log_id, by = asked.user_id or await self._log_of(run_id), "api"
        else:
            log_id, by = await self._own_log(identity, asked.user_id), "user"
        outcome = await self._factory.log.request_cancel(log_id, run_id, reason=asked.reason, by=by)
        if outcome is CancelOutcome.NOT_FOUND:
            raise _no_run()
        logger.info("a cancel was asked for", extra={"run_id": run_id, "user_id": log_id})
        return answer({"run_id": run_id, "already_ended": outcome is CancelOutcome.ALREADY_ENDED})

    async def close(self, request: Request) -> Response:
        """``POST /api/runs/{run_id}/close``: end a run at once, without its agent."""
        self._check_key(request)
        run_id = request.path_params["run_id"]
        asked = await read_json(request, _Cancel)
        log_id = asked.user_id or await self._log_of(run_id)
        is_closed = await close_run(self._factory.log, log_id, run_id, asked.reason)
        if not is_closed and not await self._is_known(log_id, run_id):
            raise _no_run()
        if is_closed:
            logger.info("a run was closed", extra={"run_id": run_id, "user_id": log_id})
        return answer({"run_id": run_id, "already_ended": not is_closed})

    async def _is_known(self, log_id: str, run_id: str) -> bool:
        return any(run.log_id == log_id for run in await self._factory.log.find_run(run_id))

    async def _own_log(self, identity: Identity, log_id: str | None) -> str:
        wanted = Wanted(after="now", log_id=log_id, thread_ids=None)
        admitted = await self._admission.admit(identity, wanted)
        if not admitted.may_write:
            raise Refusal(403, "forbidden", "this log may only be read")
        return admitted.log_id

    async def _log_of(self, run_id: str) -> str:
        found = await self._factory.log.find_run(run_id)
        if not found:
            raise _no_run()
        if len(found) > 1:
            text = f"{len(found)} users have a run of this id; name the user_id"
            raise Refusal(409, "ambiguous", text)
        return found[0].log_id

    async def erase(self, request: Request) -> Response:
        """``POST /api/users/{user_id}/erase``: all that the log holds, or one thread."""
        self._check_key(request)
        user_id = named_user(request)
        asked = await read_json(request, _Erase)
        count = await self._factory.erase(user_id, asked.thread_id)
        logger.info("erased %d events", count, extra={"user_id": user_id})
        return answer({"erased": count})

    async def disconnect(self, request: Request) -> Response:
        """``POST /api/users/{user_id}/disconnect``: all connections, or one session's."""
        self._check_key(request)
        user_id = named_user(request)
        asked = await read_json(request, _Disconnect)
        count = await self._factory.manager.disconnect(user_id, asked.session_id)
        return answer({"disconnected": count})

    async def drain(self, request: Request) -> Response:
        """``POST /api/drain``: begin to leave in order; the answer does not wait for the end."""
        self._check_key(request)
        asked = await read_json(request, _Drain)
        if self._draining is None or self._draining.done():
            self._draining = asyncio.ensure_future(self._drain(asked.timeout))
        return answer(
            {"draining": True, "connections": self._factory.manager.connection_count}, 202
        )

    async def _drain(self, timeout: float | None) -> None:
        try:
            await self._factory.drain(timeout)
        except Exception:
            logger.exception("the drain failed; the server goes on as it is")

    # Looking

    async def inspect(self, request: Request) -> Response:
        """``GET /api/inspect``: a user, a run or a thread; without any, all that the nodes have."""
        self._check_key(request)
        user = request.query_params.get("user")
        run_id = request.query_params.get("run")
        thread = request.query_params.get("thread")
        runs = await self._runs(user, run_id, thread)
        if run_id is not None and not runs:
            raise _no_run()
        logs = {run.log_id for run in runs} if run_id is not None else {user} if user else None
        everywhere = await self._factory.manager.everywhere()
        connections = [
            info
            for info in everywhere.connections
            if (logs is None or info.log_id in logs or info.user_id in logs)
            and (thread is None or any(run.log_id == info.log_id for run in runs))
        ]
        handlers = [
            {"user_id": log_id, "message_id": message_id}
            for log_id, message_id in everywhere.handlers
            if logs is None or log_id in logs
        ]
        now = self._factory.log.now_ms() / 1000
        return answer(
            {
                "ready": self._admission.problem() is None,
                "problem": self._factory.problem(),
                "draining": self._factory.is_draining,
                "totals": {
                    "runs": len(runs),
                    "connections": len(connections),
                    "handlers": len(handlers),
                },
                "runs": [_shown_run(run, now) for run in runs[:SHOWN_LIMIT]],
                "connections": [_shown_connection(info, now) for info in connections[:SHOWN_LIMIT]],
                "handlers": handlers[:SHOWN_LIMIT],
            }
        )

    async def _runs(
        self, user: str | None, run_id: str | None, thread: str | None
    ) -> list[RunInfo]:
        log = self._factory.log
        if run_id is not None:
            found = await log.find_run(run_id)
        elif user is not None:
            found = await log.runs(user, only_open=True)
        else:
            found = await log.open_runs()
        return [
            run
            for run in found
            if (user is None or run.log_id == user) and (thread is None or run.thread_id == thread)
        ]


def _no_run() -> Refusal:
    return Refusal(404, "not_found", "no such run")


def _shown_run(run: RunInfo, now: float) -> dict[str, Any]:
    """What is told of a run; times in seconds before ``now``."""
    asked = run.cancel_requested_at
    shown = {
        "run_id": run.run_id,
        "user_id": run.log_id,
        "thread_id": run.thread_id,
        "agent_name": run.agent_name,
        "parent_run_id": run.parent_run_id,
        "is_open": run.is_open,
        "end_type": run.end_type,
        "age": round(now - run.started_at / 1000, 3),
        "silent_for": round(now - run.last_at / 1000, 3),
        "first_seq": run.first_seq,
        "last_seq": run.last_seq,
        "holder": run.holder,
        "lease": run.lease,
        "cancel_asked_for": None if asked is None else round(now - asked / 1000, 3),
    }
    return {name: value for name, value in shown.items() if value is not None}


def _shown_connection(info: ConnectionInfo, now: float) -> dict[str, Any]:
    return {
        "connection_id": info.connection_id,
        "node": info.node,
        "user_id": info.user_id,
        "session_id": info.session_id,
        "log_id": info.log_id,
        "status": info.status,
        "position": str(info.position),
        "lag": info.lag,
        "silent_for": round(info.silent_for, 3),
        "age": round(now - info.opened_at, 3),
    }
