"""What Prometheus is shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from catenary import UserWebSocketEmitter, WebSocketBridgeFactory
from catenary.errors import LogUnavailable
from catenary.eventlog import receipt
from catenary.observe.counters import LATENCY_BOUNDS
from catenary.observe.metrics import BridgeMetrics
from tests.serving.bridges import bridge_on, token

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
_ROW = re.compile(r"^\| `(catenary_\w+)` \| (\w+) \| (?:`(\w+)`)? ?\|", re.MULTILINE)


class Shown:
    """The metrics of a bridge, as a scraper reads them."""

    def __init__(self, factory: WebSocketBridgeFactory) -> None:
        self.text = BridgeMetrics(factory).exposition().decode()
        self.values: dict[tuple[str, tuple[str, ...]], float] = {}
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                self.values[sample.name, tuple(sample.labels.values())] = sample.value

    def __getitem__(self, name: str) -> float:
        word, _, label = name.partition(":")
        return self.values[f"catenary_{word}", (label,) if label else ()]


async def busy(factory: WebSocketBridgeFactory) -> None:
    """Let everything with a label happen once."""
    counters = factory.manager.counters
    for counted in (counters.closes, counters.gaps, counters.authentications):
        counted["x"] += 1  # type: ignore[index]
    counters.inbound["x"] += 1
    counters.runs_ended["x"] += 1
    counters.monitor.violations["x"] += 1


async def test_the_reference_lists_exactly_what_is_shown(factory: WebSocketBridgeFactory) -> None:
    """Every metric with its kind and label, and none that is not there."""
    await busy(factory)
    written = {
        name: (kind, label or None) for name, kind, label in _ROW.findall(REFERENCE.read_text())
    }
    shown = {}
    for family in BridgeMetrics(factory).collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = set(family.samples[0].labels) - {"le"}
        shown[name] = (family.type, labels.pop() if labels else None)
        assert family.documentation.endswith(".")
    assert written == shown


async def test_connections_and_events_are_counted() -> None:
    """What happens to them shows in the next scrape."""
    async with bridge_on("fast") as bridge:
        factory = bridge.factory
        emitter = bridge.emitter()
        emitter.agent_started("scout")
        emitter.agent_delta("a")
        emitter.agent_delta("b")
        async with bridge.connected() as client:
            await client.until("live")
            await client.ask({"type": "ping"})
            await client.ask({"type": "app.none", "id": "1"})
            shown = Shown(factory)
            assert shown["connections"] == shown["connections_opened_total"] == 1
            assert shown["events_appended_total"] == 3
            assert shown["events_delivered_total"] == shown["events_replayed_total"] == 2
            assert shown["events_merged_total"] == 1
            assert shown["runs_open"] == 1
            assert shown["authentications_total:ok"] == 1
            assert shown["inbound_messages_total:answered"] == 1
            assert shown["inbound_messages_total:unknown_type"] == 1
            assert shown["ready"] == 1
            assert shown["log_retained_events"] == 3
            assert shown["log_retained_bytes"] > 0
            assert shown["cursor_lag_events_max"] == shown["cursors_behind"] == 0
            emitter.custom("app.live")
            assert (await client.receive())["seq"] == 4
            await factory.drain(0)
            assert (await client.end())[0] == 1012
        await bridge.refusal(user_id=None, headers={"authorization": "Bearer nonsense"})
        shown = Shown(factory)
        assert shown["draining"] == 1
        assert shown["ready"] == shown["connections"] == 0
        assert shown["closes_total:1012"] == 1
        assert shown["delivery_duration_seconds_count"] >= 1


async def test_gaps_and_returns_are_counted() -> None:
    """A position of another epoch is both."""
    async with bridge_on("fast") as bridge:
        bridge.emitter().custom("app.x")
        async with bridge.connected("?after=zz:5") as client:
            await client.until("live")
        shown = Shown(bridge.factory)
        assert shown["gaps_total:epoch"] == 1
        assert shown["reconnects_total"] == 1


async def test_a_histogram_adds_up(factory: WebSocketBridgeFactory) -> None:
    """Buckets are cumulative, the last holds everything, the sum is in seconds."""
    seconds = factory.log.append_seconds
    for value in (0.00005, 0.003, 0.003, 99.0):
        seconds.observe(value)
    shown = Shown(factory)
    counts = [
        shown.values["catenary_append_duration_seconds_bucket", (str(bound),)]
        for bound in LATENCY_BOUNDS
    ]
    assert counts == sorted(counts)
    assert shown["append_duration_seconds_bucket:0.0001"] == 1
    assert shown["append_duration_seconds_bucket:0.005"] == 3
    assert shown["append_duration_seconds_bucket:+Inf"] == 4
    assert shown["append_duration_seconds_count"] == 4
    assert shown["append_duration_seconds_sum"] == pytest.approx(99.00605)


async def test_refusals_that_nobody_asked_for_are_counted(
    factory: WebSocketBridgeFactory, emitter: UserWebSocketEmitter
) -> None:
    """A failed receipt that is collected unheard."""
    before = Shown(factory)["receipts_unheard_total"]
    lost = receipt.Receipt()
    lost.fail(LogUnavailable("away"))
    del lost
    assert Shown(factory)["receipts_unheard_total"] == before + 1


async def test_no_metric_names_a_user() -> None:
    """Labels are few and fixed."""
    async with bridge_on("fast") as bridge, bridge.connected() as client:
        await client.until("live")
        text = Shown(bridge.factory).text
    assert "user_123" not in text
    assert token()[:20] not in text
