"""What a client asks of the server, and the answers that it waits for."""

from __future__ import annotations

import abc
import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

from catenary.client.commands import Outcome
from catenary.client.errors import CommandFailed
from catenary.client.session import Session
from catenary.errors import UsageError
from catenary.events import CONTROL_TYPES


class Calls(abc.ABC):
    """Commands and their outcomes: sent until they are answered, on whatever connection."""

    _session: Session
    _waiting: dict[str, asyncio.Future[Outcome]]

    @abc.abstractmethod
    def _pump(self) -> None:
        """Send what is to be sent; raises ``UsageError`` before the client is opened."""

    async def send(
        self,
        type: str,
        data: Any = None,
        *,
        thread_id: str | None = None,
        id: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """
        Send a message to the application on the server, and bring its reply.

        It is sent again with the same id after each reconnect, and started at
        most once. Cancelling, like a timeout, leaves the outcome unknown; send
        it again with the same ``id`` to learn it.

        Raises:
            CommandFailed: If the server answers with an error, or the client is closed.
            TimeoutError: If there is no answer within ``timeout`` seconds.
            UsageError: If the type belongs to the protocol, or the data cannot be JSON.
        """
        if type in CONTROL_TYPES:
            raise UsageError(f"{type!r} belongs to the protocol; there is a method for it")
        message = {"type": type, "id": id or secrets.token_hex(16), "thread_id": thread_id}
        message = {name: value for name, value in message.items() if value is not None}
        return (await self._command({**message, "data": data or {}}, timeout)).reply

    async def cancel_run(
        self,
        run_id: str,
        reason: str | None = None,
        *,
        timeout: float | None = None,
    ) -> bool:
        """
        Ask for a run to be cancelled; True once that is stored, False if it had ended.

        Raises:
            CommandFailed: With ``not_found``, if this user has no such run.
            TimeoutError: If there is no answer within ``timeout`` seconds.
        """
        message = {"type": "cancel_run", "id": secrets.token_hex(16), "run_id": run_id}
        if reason is not None:
            message["reason"] = reason
        return not (await self._command(message, timeout)).already_ended

    async def answer(
        self,
        request_id: str,
        answer: Any,
        *,
        id: str | None = None,
        timeout: float | None = None,
    ) -> Any:
        """
        Answer what a run asked; the answer that counts: another's, if that was first.

        Sent again after each reconnect, as :meth:`send` does.

        Raises:
            CommandFailed: With ``forbidden`` if nothing of this id was asked,
                ``not_found`` if the question is over.
            TimeoutError: If the server does not reply within ``timeout`` seconds.
        """
        command_id = id or secrets.token_hex(16)
        message = {"type": "answer", "id": command_id, "request_id": request_id, "answer": answer}
        outcome = await self._command(message, timeout)
        return outcome.answer if outcome.already_answered else answer

    async def _command(self, message: Mapping[str, Any], limit: float | None) -> Outcome:
        self._pump()
        command_id = message["id"]
        self._session.command(message)
        future = asyncio.get_running_loop().create_future()
        self._waiting[command_id] = future
        self._pump()
        try:
            async with asyncio.timeout(limit):
                outcome: Outcome = await future
        except TimeoutError:
            raise TimeoutError(
                f"no answer to {message['type']!r} within {limit} s; it may yet take effect. "
                f"Send it again with id={command_id!r} to learn the outcome."
            ) from None
        finally:
            del self._waiting[command_id]
            self._session.commands.forget(command_id)
            self._pump()
        if outcome.error is not None:
            raise CommandFailed(outcome.error, outcome.message)
        return outcome
