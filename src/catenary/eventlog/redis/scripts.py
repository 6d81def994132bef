"""
The scripts that run in Redis, as they are sent to one process.

Each is a ``.lua`` file beside this module, behind ``prelude.lua`` and a few
constants. One of the constants is the id of the Redis process: the script's
SHA then is unknown to every other process, so what was meant for one process
never runs on another.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import NamedTuple

import msgspec

from catenary.eventlog.model import Retention

NAMES = (
    "append",
    "read",
    "look",
    "cancel",
    "fold",
    "rewrite",
    "trim",
    "erase",
    "scrub",
    "seen",
    "term",
    "claim",
    "finish",
    "keep",
    "take",
    "lease",
    "adopt",
    "report",
    "present",
    "probe",
)

IDLE_MS = 7 * 24 * 3600 * 1000
"""After so long without an event a log's numbering and its runs are forgotten."""

KEYS_KEPT = 2000
"""So many idempotency keys of a log are kept at least; at twice as many the oldest go."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the scripts hold to, the same for all calls of one log."""

    retention: Retention
    trust_restart: bool = False


class Script(NamedTuple):
    """A script for one process."""

    text: bytes
    sha: bytes


@cache
def _source(name: str) -> str:
    return resources.files("catenary.eventlog.redis").joinpath(f"{name}.lua").read_text("utf-8")


def scripts_for(rules: Rules, process: str, *, is_sharded: bool) -> dict[str, Script]:
    """Return the scripts for the Redis process with an id; ``is_sharded`` from Redis 7 on."""
    retention = rules.retention
    constants = {
        "PROCESS": f"'{process}'",
        "TRUST": str(rules.trust_restart).lower(),
        "PUBLISH": "'SPUBLISH'" if is_sharded else "'PUBLISH'",
        "EVENTS": retention.events,
        "BYTES": retention.bytes,
        "AGE": int(retention.age * 1000),
        "OPEN_EVENTS": retention.open_events,
        "OPEN_BYTES": retention.open_bytes,
        "IDLE": max(IDLE_MS, 2 * int(retention.age * 1000)),
        "KEYS_KEPT": KEYS_KEPT,
    }
    head = "".join(f"local {name} = {value}\n" for name, value in constants.items())
    made = {}
    for name in NAMES:
        text = f"{head}{_source('prelude')}\n{_source(name)}".encode()
        made[name] = Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest().encode())
    return made
