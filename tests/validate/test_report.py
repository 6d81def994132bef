"""The report shows every row, in four forms, and what became worse."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from catenary.errors import ConfigError
from catenary.validate.report import compare, read_report, write_report
from catenary.validate.report.page import page
from catenary.validate.results import (
    Better,
    Evidence,
    Figure,
    Happening,
    Outcome,
    Report,
    Track,
    Verdict,
    quantile,
)
from catenary.validate.surroundings import surroundings


def outcome(row: str, verdict: Verdict = Verdict.HOLDS, **about: object) -> Outcome:
    fields = {"suite": "sample", "asked": "asked <of> it", "measured": "5 of 5 & more", **about}
    return Outcome(row=row, verdict=verdict, **fields)  # type: ignore[arg-type]


def report(*outcomes: Outcome) -> Report:
    return Report(
        started_at=1795222800.0,
        seconds=12.5,
        seed="seed-7",
        scale="quick",
        bridge="memory://",
        surroundings=surroundings(),
        outcomes=list(outcomes),
    )


def figure(name: str, value: float, better: Better = Better.LOWER) -> Figure:
    return Figure(name=name, value=value, unit="ms", better=better)


EVIDENCE = Evidence(
    latencies=[0.001, 0.002, 0.004],
    reconnects=[0.05, 0.1],
    tracks=[Track(client="phone", points=[(0.1, 1), (0.2, 2)])],
    happenings=[Happening(at=0.15, what="cut")],
)

FULL = report(
    outcome("one", evidence=EVIDENCE, figures=[figure("p99", 1.0)]),
    outcome("two", Verdict.FALLS_SHORT, faults=["a <hole> at 7"], slow=["took long"]),
    outcome("three", Verdict.LEFT_OUT, faults=["it needs another bridge"]),
    outcome("four", evidence=Evidence(arrivals=[0.1, 0.2, 0.3])),
)


def test_the_files_are_written_and_the_json_can_be_read_again(tmp_path: Path) -> None:
    shown = write_report(FULL, tmp_path / "report")
    assert sorted(path.name for path in shown.parent.iterdir()) == [
        "junit.xml", "report.html", "report.json",
    ]  # fmt: skip
    assert read_report(shown.parent / "report.json") == FULL


def test_the_page_shows_every_row_and_needs_no_network() -> None:
    text = page(FULL)
    for shown in ("one", "two", "three", "asked &lt;of&gt; it", "5 of 5 &amp; more", "seed-7"):
        assert shown in text
    assert "a &lt;hole&gt; at 7" in text
    assert "took long" in text
    assert "1 row falls short" in text
    own = text.partition("</script>")[2]
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", own)
    for chart in ("Latency", "Throughput", "Reconnects", "Timeline: sample: one"):
        assert f"<h2>{chart}</h2>" in own


def test_a_page_without_evidence_has_no_charts() -> None:
    own = page(report(outcome("one"))).partition("</script>")[2]
    assert "Every row holds" in own
    assert "<h2>Latency</h2>" not in own


def test_junit_has_a_case_for_each_row(tmp_path: Path) -> None:
    write_report(FULL, tmp_path)
    root = ET.fromstring((tmp_path / "junit.xml").read_text())
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert set(cases) == {"one", "two", "three", "four"}
    failure = cases["two"].find("failure")
    assert failure is not None
    assert failure.get("message") == "a <hole> at 7; took long"
    assert cases["three"].find("skipped") is not None
    assert cases["one"].find("failure") is None
    assert "measured: 5 of 5 & more" in (cases["one"].findtext("system-out") or "")


@pytest.mark.parametrize(
    ("before", "after", "texts"),
    [
        (outcome("one"), outcome("one"), []),
        (outcome("one"), outcome("one", Verdict.FALLS_SHORT), ["it held, and now it falls short"]),
        (outcome("one"), outcome("one", Verdict.LEFT_OUT), ["it held, and now it is left out"]),
        (outcome("one", Verdict.FALLS_SHORT), outcome("one", Verdict.FALLS_SHORT), []),
        (outcome("other"), outcome("one", Verdict.FALLS_SHORT), []),
        (
            outcome("one", figures=[figure("p99", 10)]),
            outcome("one", figures=[figure("p99", 13.1)]),
            ["p99 was 10 ms, now 13.1"],
        ),
        (
            outcome("one", figures=[figure("p99", 10)]),
            outcome("one", figures=[figure("p99", 12.9)]),
            [],
        ),
        (
            outcome("one", figures=[figure("rate", 100, Better.HIGHER)]),
            outcome("one", figures=[figure("rate", 69, Better.HIGHER)]),
            ["rate was 100 ms, now 69"],
        ),
        (
            outcome("one", figures=[figure("rate", 100, Better.HIGHER)]),
            outcome("one", figures=[figure("rate", 300, Better.HIGHER)]),
            [],
        ),
    ],
)
def test_what_is_worse_than_before_is_found(
    before: Outcome, after: Outcome, texts: list[str]
) -> None:
    regressions = compare(report(before), report(after))
    assert [regression.text for regression in regressions] == texts


def test_regressions_are_marked_on_the_page(tmp_path: Path) -> None:
    earlier = report(outcome("one"), outcome("two"))
    shown = write_report(FULL, tmp_path, earlier=earlier)
    text = shown.read_text()
    assert "Worse than before" in text
    assert text.count('<tr class="regressed">') == 1


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no report"):
        read_report(tmp_path / "report.json")
    (tmp_path / "report.json").write_bytes(msgspec.json.encode({"seed": 7}))
    with pytest.raises(ConfigError, match="is no report"):
        read_report(tmp_path / "report.json")


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(FULL, tmp_path / "file")


def test_quantiles_are_nearest_ranks() -> None:
    values = [float(number) for number in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1.0)) == (50, 99, 100)
    assert quantile([3.0], 0.01) == 3.0
    with pytest.raises(ValueError, match="nothing"):
        quantile([], 0.5)
