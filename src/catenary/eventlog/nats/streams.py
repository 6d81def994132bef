"""The streams of a log: what they must be set to, and making them."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from catenary.errors import ConfigError
from catenary.eventlog.nats.address import Address, Storage
from catenary.eventlog.nats.errors import MissingStream, checked
from catenary.eventlog.nats.link import Link, Request
from catenary.eventlog.nats.names import Names

_encode = msgspec.json.Encoder().encode


class Placed(NamedTuple):
    """What the stream of the events is kept in, and on how many servers."""

    storage: Storage
    replicas: int


def wanted(address: Address, names: Names) -> list[dict[str, Any]]:
    """Return what the streams are made with."""
    every = names.every
    common = {
        "num_replicas": address.replicas or 1,
        "allow_direct": True,
        "allow_msg_ttl": True,
    }
    events = {
        "name": names.events_stream,
        "description": "Event logs: their batches, runs and idempotency keys",
        "subjects": [every("e", "*"), *(every(kind, "*", "*") for kind in "zrnfk")],
        "storage": address.storage,
        "allow_atomic": True,
        "allow_rollup_hdrs": True,
        "republish": {"src": every("e", "*"), "dest": every("live", "{{wildcard(1)}}")},
    }
    values = {
        "name": names.values_stream,
        "description": "Claimed messages, tickets and what was seen: the last of each counts",
        "subjects": [*(every(kind, "*") for kind in "sv"), *(every(k, "*", "*") for k in "cotw")],
        "storage": address.storage,
        "max_msgs_per_subject": 1,
    }
    leases = {
        "name": names.leases_stream,
        "description": "Who lives. In memory, so that its loss tells of others",
        "subjects": [every("l", "*"), names.life, names.duty],
        "storage": Storage.MEMORY,
        "max_msgs_per_subject": 1,
    }
    return [stream | common for stream in (events, values, leases)]


def prepare(link: Link, address: Address, names: Names) -> Placed:
    """
    Make the streams that are not there, and look at how they are set.

    Raises:
        ConfigError: A stream is set otherwise than a log needs it.
        LogUnavailable: JetStream does not answer.
    """
    found = []
    for stream in wanted(address, names):
        config = _config_of(link, address, stream)
        _check(link.where, stream, config)
        found.append(Placed(Storage(config["storage"]), int(config["num_replicas"])))
    placed = found[0]
    if address.replicas is not None and placed.replicas < address.replicas:
        raise ConfigError(
            f"{link.where}: {names.events_stream} has {placed.replicas} replicas, and replicas= "
            f"asks for {address.replicas}. Change the streams with `nats stream edit`, or ask for less"
        )
    return placed


def _config_of(link: Link, address: Address, stream: dict[str, Any]) -> dict[str, Any]:
    name = stream["name"]
    try:
        answer = _call(link, f"{address.api}.STREAM.INFO.{name}", b"")
    except MissingStream:
        answer = _call(link, f"{address.api}.STREAM.CREATE.{name}", _encode(stream))
    config: dict[str, Any] = answer["config"]
    return config


def _call(link: Link, subject: str, payload: bytes) -> dict[str, Any]:
    ((answer,),) = link.ask([Request(subject.encode(), payload)])
    return checked(link.where, answer.payload)


_MUST = (
    "allow_direct",
    "allow_msg_ttl",
    "allow_atomic",
    "allow_rollup_hdrs",
    "republish",
    "max_msgs_per_subject",
)


def _check(where: str, asked: dict[str, Any], config: dict[str, Any]) -> None:
    name = asked["name"]
    for setting in _MUST:
        if setting in asked and config.get(setting) != asked[setting]:
            raise ConfigError(
                f"{where}: the stream {name} has {setting}={config.get(setting)}, and a log needs "
                f"{asked[setting]}. Delete the stream, or choose another key_prefix="
            )
    missing = set(asked["subjects"]).difference(config.get("subjects", ()))
    if missing:
        raise ConfigError(f"{where}: the stream {name} lacks the subjects {sorted(missing)}")
    is_dropping = config.get("discard") == "old" and any(
        config.get(limit, -1) > 0 for limit in ("max_msgs", "max_bytes")
    )
    if config.get("max_age") or is_dropping:
        raise ConfigError(
            f"{where}: the stream {name} may drop events on its own account. Take away its max_age, "
            "and its max_msgs and max_bytes, or set discard to new"
        )
