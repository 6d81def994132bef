"""What an acknowledged event survives in a JetStream, as it is set."""

from __future__ import annotations

import httpx

from catenary.errors import ConfigError
from catenary.eventlog.model import Durability
from catenary.eventlog.nats.address import Address, Storage
from catenary.eventlog.nats.store import Store
from catenary.eventlog.shared.durability import InForce

_MONITOR_TIMEOUT = 3.0


def in_force(store: Store, address: Address, required: Durability | None) -> InForce:
    """
    Look how the events are kept, and how the servers sync where that can be read.

    Raises:
        ConfigError: If it is less than the URL asks for or is required.
    """
    found = _row(store, address)
    found.check(
        address.durability,
        required,
        shown=address.shown,
        advice="Keep the stream in files, and set sync_interval: always for power, which "
        "monitor= lets a log read; or ask for less",
    )
    return found


def _row(store: Store, address: Address) -> InForce:
    storage, replicas = store.placed
    copies = (
        "there is one copy of it"
        if replicas == 1
        else f"the loss of {(replicas - 1) // 2} of {replicas} servers"
    )
    if storage is Storage.MEMORY:
        text = "the end of every bridge, not the end of JetStream, which keeps it in memory"
        return InForce(Durability.MEMORY, f"{text}; {copies}")
    if not address.monitor:
        unknown = "how often it syncs is unknown without monitor=, every 2 minutes by default"
        return InForce(Durability.PROCESS, f"the end of JetStream; {copies}; {unknown}")
    slowest = max(map(_sync_seconds, address.monitor))
    if slowest == 0:
        text = "a loss of power (sync_interval: always)"
        return InForce(Durability.POWER, f"{text}; {copies}")
    lost = f"a loss of power takes up to the last {slowest:.0f} s"
    return InForce(Durability.PROCESS, f"the end of JetStream; {lost}; {copies}")


def _sync_seconds(monitor: str) -> float:
    """Return after how long a server syncs at the latest; 0 if it always does."""
    try:
        answer = httpx.get(f"{monitor.rstrip('/')}/varz", timeout=_MONITOR_TIMEOUT)
        config = answer.raise_for_status().json()["jetstream"]["config"]
        return 0.0 if config.get("sync_always") else config["sync_interval"] / 1e9
    except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"monitor={monitor}: the settings of JetStream cannot be read there: {error!r}"
        ) from None
