"""The charts of a report, as pieces of HTML that need no network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from catenary.validate.results import Outcome, quantile

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

BINS = 60
FINEST_BIN = 0.01
TICKS = [value * 10**power for power in range(-2, 5) for value in (1, 2, 5)]
HEIGHT = 420
CDF_POINTS = 200
COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#ef4444", "#14b8a6", "#eab308", "#64748b")


class Chart(NamedTuple):
    """One chart: its title, what it shows in a sentence, and its HTML."""

    title: str
    about: str
    html: str


def charts(outcomes: Sequence[Outcome]) -> list[Chart]:
    """Return the charts that the rows have evidence for."""
    made = [_latencies(outcomes), _throughput(outcomes), _reconnects(outcomes)]
    made += [_timeline(outcome) for outcome in outcomes if outcome.evidence.tracks]
    return [chart for chart in made if chart is not None]


def _latencies(outcomes: Sequence[Outcome]) -> Chart | None:
    rows = [outcome for outcome in outcomes if outcome.evidence.latencies]
    if not rows:
        return None
    figure = _figure("ms, from the call of the verb to its reader", "share of the events")
    for outcome in rows:
        shares = [step / CDF_POINTS for step in range(CDF_POINTS + 1)]
        values = [quantile(outcome.evidence.latencies, share) * 1000 for share in shares]
        figure.add_scatter(x=values, y=shares, name=outcome.name, mode="lines")
    figure.update_xaxes(type="log", tickvals=TICKS, ticktext=[f"{tick:g}" for tick in TICKS])
    figure.update_yaxes(tickformat=".0%")
    return _chart(figure, "Latency", "The share of the events that were there within so long.")


def _throughput(outcomes: Sequence[Outcome]) -> Chart | None:
    rows = [o for o in outcomes if o.evidence.arrivals and not o.evidence.tracks]
    if not rows:
        return None
    figure = _figure("seconds since the first receipt", "events a second")
    for outcome in rows:
        arrivals = outcome.evidence.arrivals
        begin = min(arrivals)
        width = max(FINEST_BIN, (max(arrivals) - begin) / BINS)
        bins = Counter(math.floor((at - begin) / width) for at in arrivals)
        numbers = range(max(bins) + 2)
        figure.add_scatter(
            x=[round(number * width, 3) for number in numbers],
            y=[bins[number] / width for number in numbers],
            name=outcome.name,
            mode="lines",
            line={"shape": "hv"},
        )
    return _chart(figure, "Throughput", "How many events all readers of a row received a second.")


def _reconnects(outcomes: Sequence[Outcome]) -> Chart | None:
    rows = [outcome for outcome in outcomes if outcome.evidence.reconnects]
    if not rows:
        return None
    figure = _figure("ms, from the loss of a connection to live", "reconnects")
    for suite in dict.fromkeys(outcome.suite for outcome in rows):
        values = [
            seconds * 1000
            for outcome in rows
            if outcome.suite == suite
            for seconds in outcome.evidence.reconnects
        ]
        figure.add_histogram(x=values, name=suite, nbinsx=60)
    figure.update_layout(barmode="stack")
    return _chart(figure, "Reconnects", "How long readers were away after a connection was lost.")


def _timeline(outcome: Outcome) -> Chart:
    figure = _figure("seconds since the row began", "the client's position")
    for number, track in enumerate(outcome.evidence.tracks):
        figure.add_scatter(
            x=[at for at, _ in track.points],
            y=[seq for _, seq in track.points],
            name=_short(track.client, number),
            mode="lines+markers",
            line={"shape": "hv", "width": 1.2},
            marker={"size": 3},
        )
    tops = max((seq for track in outcome.evidence.tracks for _, seq in track.points), default=1)
    happenings = outcome.evidence.happenings
    figure.add_scatter(
        x=[happening.at for happening in happenings],
        y=[tops * 1.06] * len(happenings),
        text=[happening.what for happening in happenings],
        hovertemplate="%{x:.2f} s: %{text}<extra></extra>",
        name="what was done",
        mode="markers",
        marker={"symbol": "triangle-down", "size": 8, "color": "#ef4444"},
    )
    about = "Where each client stood, and what was done to the network or the server."
    return _chart(figure, f"Timeline: {outcome.name}", about)


def _short(client: str, number: int) -> str:
    return client if len(client) <= 24 else f"client {number + 1}"


def _figure(x: str, y: str) -> Figure:
    import plotly.graph_objects as go  # noqa: PLC0415 - an extra, and slow to load

    axis = {"gridcolor": "rgba(128,128,128,0.2)", "zeroline": False}
    return go.Figure(
        layout={
            "height": HEIGHT,
            "margin": {"l": 64, "r": 16, "t": 16, "b": 56},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            # Grey reads on a light page and on a dark one.
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#8b949e"},
            "colorway": list(COLOURS),
            "legend": {"orientation": "h", "y": -0.2},
            "xaxis": {"title": {"text": x}, **axis},
            "yaxis": {"title": {"text": y}, **axis},
        }
    )


def _chart(figure: Figure, title: str, about: str) -> Chart:
    html = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"displaylogo": False, "responsive": True, "displayModeBar": False},
    )
    return Chart(title, about, html)
