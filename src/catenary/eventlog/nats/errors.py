"""What NATS servers say, as this package's errors, with what to do."""

from __future__ import annotations

import json
from typing import Any

from catenary.errors import CatenaryError, ConfigError, LogUnavailable

_WRONG_SEQUENCE = {10071, 10164}
_MISSING_STREAM = 10059
_TOO_LARGE = {10054}
_REFUSED = {10052, 10074}
"""A stream's settings that are not valid, or need more replicas than there are servers."""

_HOW_TO = "docs/how-to/nats.md lists what its user must be allowed"


class NoAnswer(LogUnavailable):
    """Nobody is there who could answer: the stream has no leader now, or does not exist."""


class MissingStream(LogUnavailable):
    """A stream is not there: it was deleted, or was in the memory of a server that is gone."""


class Conflict(CatenaryError):
    """Somebody else wrote first, so nothing was written. Always caught within the log."""


def said_by_server(where: str, text: str) -> CatenaryError:
    """Return what an ``-ERR`` means."""
    said = f"{where}: {text}"
    lowered = text.lower()
    if "permissions violation" in lowered:
        return ConfigError(f"{said}. {_HOW_TO}")
    if "authorization" in lowered or "authentication" in lowered or "expired" in lowered:
        return ConfigError(f"{said}. Check the user and the password, or the file of creds=")
    return LogUnavailable(f"{said}. It will be tried again")


def checked(where: str, payload: bytes) -> dict[str, Any]:
    """
    Return the answer of JetStream to a call or to what was published.

    Raises:
        Conflict: Another message was written before.
        LogUnavailable: It cannot now. ``MissingStream``: it has no such stream.
        ConfigError: It never will, as it is configured.
    """
    answer: dict[str, Any] = json.loads(payload)
    error = answer.get("error")
    if error is None:
        return answer
    code, text = error.get("err_code"), error.get("description", "?")
    if code in _WRONG_SEQUENCE:
        raise Conflict(text)
    if code == _MISSING_STREAM:
        raise MissingStream(f"{where}: {text}")
    if code in _REFUSED:
        raise ConfigError(f"{where}: {text}")
    raise LogUnavailable(f"{where}: {text} ({code}). It will be tried again")
