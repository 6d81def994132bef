"""The driver's errors as this package's, with what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from redis import exceptions as driver

from catenary.errors import ConfigError, LogUnavailable

_ADVICE = {
    "OOM": "It is full: give it more memory (maxmemory), or keep less",
    "READONLY": "It is a replica: name the primary, or use ?sentinel=",
    "MISCONF": "It cannot save to its disk and refuses writes: make room there",
    "NOREPLICAS": "Too few replicas are in sync for min-replicas-to-write",
    "LOADING": "It is loading its data",
    "BUSY": "It runs a long script of somebody else's",
    "MASTERDOWN": "Its primary is away",
    "CLUSTERDOWN": "A part of the cluster is away",
    "TRYAGAIN": "A slot is being moved to another node",
    "UNBLOCKED": "It changed its role",
}
_WORDS = re.compile(rf"\b({'|'.join(_ADVICE)})\b")
_CLASSES = {
    driver.OutOfMemoryError: "OOM",
    driver.ReadOnlyError: "READONLY",
    driver.BusyLoadingError: "LOADING",
    driver.MasterDownError: "MASTERDOWN",
    driver.ClusterDownError: "CLUSTERDOWN",
    driver.TryAgainError: "TRYAGAIN",
}


class Moved(LogUnavailable):
    """Another node of the cluster has the slot; a fresh map of it helps."""


def explained(where: str, error: driver.RedisError | OSError) -> Exception:
    """Return what an error means here: the error itself where it is a defect of ours."""
    text = f"{where}: {error}".removesuffix(".")
    is_denied = "NOPERM" in text or "The user executing the script can't" in text
    if isinstance(error, driver.NoPermissionError) or is_denied:
        return ConfigError(f"{text}. docs/how-to/redis.md lists what its user must be allowed")
    if "unknown command 'SENTINEL'" in text:
        return ConfigError(f"{where} are no sentinels: sentinel= is for URLs that name sentinels")
    if "cluster support disabled" in text:
        return ConfigError(f"{where} is no cluster: leave cluster=1 out of the URL")
    if isinstance(error, driver.AuthenticationError):
        return ConfigError(f"{text}. Check the user and the password in the URL")
    if isinstance(error, driver.AskError):
        return Moved(f"{text}. The slot is on another node")
    known = _CLASSES.get(type(error))
    if known is None and (found := _WORDS.search(text)):
        known = found[1]
    if known is not None:
        return LogUnavailable(f"{text}. {_ADVICE[known]}")
    if isinstance(error, driver.ConnectionError | driver.TimeoutError | OSError):
        return LogUnavailable(f"{text}. It will be tried again")
    return error


@contextmanager
def errors_of(where: str) -> Iterator[None]:
    """
    Turn the driver's errors into this package's; ``where`` names the server.

    Raises:
        LogUnavailable: It cannot now. ``Moved``: ask the cluster who has the slot.
        ConfigError: It never will, as it is configured.
    """
    try:
        yield
    except (driver.RedisError, OSError) as error:
        meant = explained(where, error)
        if meant is error:
            raise
        raise meant from error
