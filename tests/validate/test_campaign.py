"""A campaign says of each row whether it holds, and why it does not."""

from __future__ import annotations

import asyncio

import pytest

from catenary import UsageError
from catenary.errors import ConfigError, RunCancelled, ValidationFailed
from catenary.validate.bridges import RemoteBridge
from catenary.validate.campaign import Campaign, Progress, chosen_rows
from catenary.validate.field import Field
from catenary.validate.results import Outcome, Verdict
from catenary.validate.rows import Need, Pace, Scale, Subject, Suite
from catenary.validate.suites import SUITES


def suite() -> Suite:
    """Rows that end in every way that a row can end."""
    sample = Suite("sample", "Every end of a row.")

    @sample.row("holds", asked="it holds")
    async def holds(field: Field) -> str:
        field.expect(True, "never said")
        return "measured"

    @sample.row("a fault", asked="it has a fault")
    async def a_fault(field: Field) -> str:
        field.expect(False, "what does not hold")
        return "measured all the same"

    @sample.row("too slow", asked="it is slow", pace=Pace.PATIENT)
    async def too_slow(field: Field) -> str:
        field.expect_speed(False, "it took long")
        return "measured"

    @sample.row("raises", asked="it raises")
    async def raises(field: Field) -> str:
        raise ValidationFailed("where it stands")

    @sample.row("usage", asked="it misuses something")
    async def usage(field: Field) -> str:
        raise UsageError("wrongly called")

    @sample.row("hangs", asked="it hangs", timeout=0.05)
    async def hangs(field: Field) -> str:
        await asyncio.sleep(60)
        return "never"

    @sample.row("needs", asked="it needs its own", needs=(Need.OWN_BRIDGE,))
    async def needs(field: Field) -> str:
        field.own.emitter(field.user()).custom("app.note")
        return "emitted"

    return sample


async def run(*names: str) -> dict[str, Outcome]:
    rows = chosen_rows([suite()], names)
    report = await Campaign(rows, scale=Scale.QUICK, seed="7").run()
    assert [outcome.row for outcome in report.outcomes] == [row.name for row in rows]
    return {outcome.row: outcome for outcome in report.outcomes}


async def test_each_row_gets_its_verdict() -> None:
    found = await run()
    assert {name: outcome.verdict for name, outcome in found.items()} == {
        "holds": Verdict.HOLDS,
        "a fault": Verdict.FALLS_SHORT,
        "too slow": Verdict.FALLS_SHORT,
        "raises": Verdict.FALLS_SHORT,
        "usage": Verdict.FALLS_SHORT,
        "hangs": Verdict.FALLS_SHORT,
        "needs": Verdict.HOLDS,
    }
    assert found["holds"].measured == "measured"
    assert found["a fault"].faults == ["what does not hold"]
    assert (found["too slow"].faults, found["too slow"].slow) == ([], ["it took long"])
    assert found["raises"].faults == ["where it stands"]
    assert found["usage"].faults == ["UsageError: wrongly called"]
    assert found["hangs"].faults == ["it was not done within 0.05 s"]


async def test_a_defect_of_a_row_is_reported_and_does_not_end_the_campaign() -> None:
    sample = Suite("sample", "A row with a defect, and one after it.")

    @sample.row("broken", asked="it divides by nothing")
    async def broken(field: Field) -> str:
        return str(1 // 0)

    @sample.row("cancelled", asked="somebody cancels its run")
    async def cancelled(field: Field) -> str:
        raise RunCancelled("run_1", "not by the row")

    @sample.row("next", asked="it holds")
    async def next_one(field: Field) -> str:
        return "fine"

    report = await Campaign(sample.rows, scale=Scale.QUICK).run()
    assert [outcome.verdict for outcome in report.outcomes] == [
        Verdict.FALLS_SHORT, Verdict.FALLS_SHORT, Verdict.HOLDS,
    ]  # fmt: skip
    assert "ZeroDivisionError" in report.outcomes[0].faults[0]
    assert "RunCancelled" in report.outcomes[1].faults[0]
    assert not report.holds


async def test_what_a_bridge_elsewhere_does_not_allow_is_left_out() -> None:
    """And says what it needs."""
    remote = RemoteBridge("ws://127.0.0.1:1/ws", token=lambda _: "", api_key="")
    sample = suite()

    @sample.row("needs nodes", asked="it", needs=(Need.LOAD_BALANCER, Need.REDIS, Need.PROCESS))
    async def needs_nodes(field: Field) -> str:
        return "not asked"

    report = await Campaign(chosen_rows([sample], ["sample:needs"]), remote=remote).run()
    assert {outcome.verdict for outcome in report.outcomes} == {Verdict.LEFT_OUT}
    # The first reason is the one that installing something does not change.
    assert [outcome.faults for outcome in report.outcomes] == [
        [str(Need.OWN_BRIDGE)], [str(Need.PROCESS)],
    ]  # fmt: skip
    assert report.holds
    assert report.bridge == "ws://127.0.0.1:1/ws"


@pytest.mark.parametrize(
    ("url", "met"),
    [
        ("ws://127.0.0.1:1/ws", {Need.NETWORK, Need.ADDRESSES}),
        ("ws://localhost:1/ws", {Need.NETWORK, Need.ADDRESSES}),
        ("ws://bridge.example/ws", {Need.NETWORK}),
        ("wss://bridge.example/ws", set()),
        ("wss://127.0.0.1:1/ws", set()),
    ],
)
def test_a_network_that_breaks_is_put_before_what_has_no_certificate(
    url: str, met: set[Need]
) -> None:
    """And the address that one comes from is changed on loopback only."""
    remote = RemoteBridge(url, token=lambda _: "", api_key="")
    assert remote.met == met
    remote.close()


async def test_a_row_of_the_package_says_that_a_bridge_elsewhere_was_not_asked() -> None:
    sample = Suite("sample", "Rows that ask no bridge.", subject=Subject.PACKAGE)

    @sample.row("here", asked="it holds")
    async def here(field: Field) -> str:
        return "fine"

    @sample.row("there", asked="it holds too", subject=Subject.BRIDGE)
    async def there(field: Field) -> str:
        return "fine"

    remote = RemoteBridge("ws://127.0.0.1:1/ws", token=lambda _: "", api_key="")
    told = "asked of the package here, not of the bridge: fine"
    report = await Campaign(sample.rows, remote=remote).run()
    assert [outcome.measured for outcome in report.outcomes] == [told, "fine"]
    report = await Campaign(sample.rows).run()
    assert [outcome.measured for outcome in report.outcomes] == ["fine", "fine"]
    remote.close()


async def test_a_bridge_elsewhere_has_longer() -> None:
    """Its heartbeats may be rare, and each event is a round trip."""
    sample = Suite("sample", "A row that waits.")

    @sample.row("waits", asked="it is done after a while", timeout=0.05)
    async def waits(field: Field) -> str:
        await asyncio.sleep(0.1)
        return "done"

    remote = RemoteBridge("ws://127.0.0.1:1/ws", token=lambda _: "", api_key="")
    report = await Campaign(sample.rows, scale=Scale.QUICK, remote=remote).run()
    assert report.holds
    remote.close()


async def test_progress_tells_the_begin_and_the_end_of_every_row() -> None:
    told: list[Progress] = []
    rows = suite().rows
    await Campaign(rows, scale=Scale.QUICK).run(told.append)
    begun = [progress.row.name for progress in told if progress.outcome is None]
    ended = [progress.row.name for progress in told if progress.outcome is not None]
    assert sorted(begun) == sorted(ended) == sorted(row.name for row in rows)


async def test_the_same_seed_draws_the_same() -> None:
    drawn: list[float] = []
    sample = Suite("sample", "A row that draws.")

    @sample.row("draws", asked="it draws")
    async def draws(field: Field) -> str:
        drawn.append(field.random.random())
        return "drawn"

    for seed in ("7", "7", "8"):
        await Campaign(sample.rows, seed=seed, scale=Scale.QUICK).run()
    assert drawn[0] == drawn[1] != drawn[2]


def test_rows_are_chosen_by_suite_and_part() -> None:
    names = [row.name for row in chosen_rows([suite()], ["sample:HOLDS", "sample:hangs"])]
    assert names == ["holds", "hangs"]
    assert len(chosen_rows([suite()], [])) == len(suite().rows)


@pytest.mark.parametrize(
    ("name", "told"), [("nothing", "there are sample"), ("sample:nothing", "has 'nothing' in")]
)
def test_a_suite_or_row_that_is_not_there_is_named(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        chosen_rows([suite()], [name])


def test_every_suite_of_the_campaigns_is_there() -> None:
    assert [each.name for each in SUITES] == [
        "isolation", "concurrency", "thread-safety", "ordering", "chaos", "performance", "chat",
        "reliability", "multi-agent", "startup", "heartbeat", "lifecycle", "constructor",
        "failover", "mobile",
    ]  # fmt: skip


def test_every_row_has_a_name_of_its_own() -> None:
    rows = chosen_rows(SUITES, [])
    slugs = [row.slug for row in rows]
    assert len(set(slugs)) == len(slugs)
    assert all(row.asked for row in rows)
