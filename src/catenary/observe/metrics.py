"""Metrics for Prometheus; what each of them means is in docs/reference/metrics.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from catenary.eventlog import receipt
from catenary.observe.counters import LATENCY_BOUNDS, Latencies

if TYPE_CHECKING:
    from catenary.factory import WebSocketBridgeFactory


class BridgeMetrics(Collector):
    """
    Shows one bridge to Prometheus.

    Nothing is counted here: each scrape reads the counters of the bridge. To
    show it beside an application's own metrics, register it there::

        prometheus_client.REGISTRY.register(BridgeMetrics(factory))
    """

    def __init__(self, factory: WebSocketBridgeFactory) -> None:
        self._factory = factory

    def exposition(self) -> bytes:
        """Return every metric in Prometheus's text format."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return generate_latest(registry)

    def describe(self) -> Iterable[Metric]:
        """Describe nothing ahead: what there is shows when it is collected."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, as it is now."""
        yield from self._connections()
        yield from self._events()
        yield from self._clients()
        yield from self._runs()
        yield from self._log()
        yield from self._monitors()

    def _connections(self) -> Iterator[Metric]:
        manager = self._factory.manager
        counters = manager.counters
        lags = manager.lags()
        yield _gauge("connections", "Open connections.", len(lags))
        yield _gauge(
            "connections_waiting_for_auth",
            "Connections whose first message has not come yet.",
            manager.waiting_for_auth,
        )
        yield _counter("connections_opened", "Connections opened.", counters.connections_opened)
        yield _counter("reconnects", "Connections that named a position.", counters.reconnects)
        yield _counters("closes", "Closed connections.", "code", counters.closes)
        yield _gauge(
            "cursor_lag_events_max",
            "Events that the slowest reader is behind.",
            max(lags, default=0),
        )
        yield _gauge("cursor_lag_events_sum", "Events that all readers are behind.", sum(lags))
        yield _gauge(
            "cursors_behind", "Readers that are behind the head of their log.", sum(map(bool, lags))
        )

    def _events(self) -> Iterator[Metric]:
        counters = self._factory.manager.counters
        appended = self._factory.log.events_appended
        yield _counter("events_appended", "Events committed by this node.", appended)
        yield _counter(
            "events_delivered", "Events written to connections.", counters.events_delivered
        )
        yield _counter(
            "events_replayed",
            "Of those, the ones read back from the log.",
            counters.events_replayed,
        )
        yield _counter(
            "events_merged", "Events that reached a reader within another.", counters.events_merged
        )
        yield _counters("gaps", "Gaps told to readers.", "reason", counters.gaps)
        yield _histogram(
            "append_duration_seconds",
            "From acceptance to commit: the longest wait of each group; none in memory.",
            self._factory.log.append_seconds,
        )
        yield _histogram(
            "delivery_duration_seconds",
            "From the first commit of a turn to its write.",
            counters.delivery_seconds,
        )

    def _clients(self) -> Iterator[Metric]:
        factory = self._factory
        counters = factory.manager.counters
        yield _counters(
            "authentications", "Credentials checked.", "result", counters.authentications
        )
        yield _counters("inbound_messages", "Messages of clients.", "result", counters.inbound)
        yield _gauge(
            "handlers_in_flight", "Messages being handled.", len(factory.service.in_flight)
        )
        yield _gauge(
            "handler_threads_busy",
            "Threads of synchronous handlers, hung ones included.",
            factory.service.running_sync,
        )

    def _runs(self) -> Iterator[Metric]:
        factory = self._factory
        counters = factory.manager.counters
        yield _gauge("runs_open", "Open runs.", factory.log.statistics()["open_runs"])
        yield _gauge(
            "runs_supervised", "Open runs that start_run began here.", factory.supervisor.running
        )
        yield _counters("runs_ended", "Ended runs.", "end", counters.runs_ended)
        yield _gauge("draining", "1 while this node leaves.", int(factory.is_draining))
        yield _gauge(
            "ready", "1 while this node takes connections.", int(factory.problem() is None)
        )

    def _log(self) -> Iterator[Metric]:
        sizes: Mapping[str, Any] = self._factory.log.statistics()
        yield _gauge("log_streams", "Logs that this node holds in memory.", sizes["streams"])
        yield _gauge("log_retained_events", "Events retained in them.", sizes["events_held"])
        yield _gauge("log_retained_bytes", "Bytes retained in them.", sizes["bytes_held"])
        yield _gauge(
            "log_tail_bytes", "Bytes of frames kept for live readers.", sizes["tail_bytes"]
        )
        yield _gauge(
            "log_intake_bytes", "Bytes accepted and not yet committed.", sizes["intake_bytes"]
        )
        yield _counter(
            "receipts_unheard",
            "Refused events whose receipt nobody asked.",
            receipt.unheard_failures,
        )

    def _monitors(self) -> Iterator[Metric]:
        found = self._factory.manager.counters.monitor
        yield _gauge(
            "monitor_connections_sampled",
            "Connections that the monitors look at closely now.",
            found.connections_sampled,
        )
        yield _counter(
            "monitor_events_checked",
            "Events that were checked on sampled connections.",
            found.events_checked,
        )
        yield _counters(
            "monitor_violations",
            "What sampled connections were given that the wire does not allow.",
            "fault",
            found.violations,
        )
        yield _histogram(
            "monitor_latency_seconds",
            "From the emission of an event to its write, on sampled connections.",
            found.latency_seconds,
        )
        yield _gauge(
            "monitor_runs_silent", "Open runs that say nothing for too long.", found.runs_silent
        )
        yield _gauge(
            "monitor_drop_ratio",
            "The part of the connections that broke lately.",
            found.drop_ratio,
        )
        yield _gauge(
            "monitor_users_crowded",
            "Users with unusually many open runs or connections.",
            found.users_crowded,
        )
        yield _gauge(
            "monitor_intake_ratio",
            "How far the fullest intake is used, of a log or of all.",
            found.intake_ratio,
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"catenary_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"catenary_{name}", text, value)


def _counters(name: str, text: str, label: str, values: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(f"catenary_{name}", text, labels=[label])
    for key, value in list(values.items()):
        family.add_metric([str(key)], value)
    return family


def _histogram(name: str, text: str, latencies: Latencies) -> Metric:
    bounds = [*(str(bound) for bound in LATENCY_BOUNDS), "+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(latencies.counts)), strict=True))
    return HistogramMetricFamily(f"catenary_{name}", text, buckets, latencies.total)
