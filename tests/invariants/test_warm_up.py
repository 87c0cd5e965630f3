"""Jobs whose decisions see the candles before their start: no trade before it, the same bits under any cut."""

import random
from dataclasses import replace
from typing import Any

import msgspec
from candlemill.backtests.spec import Leg, Spec
from candlemill.errors import CandlemillError
from candlemill.local.worker_pool import replayed
from candlemill.pipeline.prepare import prepare
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from slow_engine import DAY, MINUTE, Bar
from world import FIRST_DAY, Market, markets, specs

THOROUGH = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

SAME = ("total_pnl", "max_drawdown", "trades", "wins", "gross_profit", "gross_loss", "fees", "funding", "turnover",
        "fills", "unfilled", "exposure_bars", "open_position", "ambiguous_bars", "trades_over_gaps", "gap_profit",
        "borrow", "cut_orders", "rejected_orders")  # fmt: skip


def run(market: Market, spec: Spec, slices: int = 1, seed: int | None = None) -> dict[str, Any] | None:
    """The result, or None where it is refused: a compound account may grow beyond 64 bits."""
    try:
        (result,) = market.world().run(spec, slices, None if seed is None else random.Random(seed))
    except CandlemillError:
        return None
    return result


@st.composite
def warm_jobs(draw: st.DrawFn) -> tuple[Market, Spec]:
    """A job that begins somewhere among the bars."""
    market = draw(markets())
    spec = draw(specs(market))
    start = draw(st.sampled_from(market.bars)).t
    start = draw(st.sampled_from([start, start // DAY * DAY, start - 7 * MINUTE]))
    assume(FIRST_DAY < start < spec.end)
    return market, msgspec.structs.replace(spec, start=start, warm_up="stored")


@given(warm_jobs())
@THOROUGH
def test_it_is_the_part_of_a_longer_job_that_begins_to_trade_then(job: tuple[Market, Spec]) -> None:
    """A schedule whose first set begins within its range says the same in other words."""
    market, spec = job
    assume(any(spec.start <= bar.t < spec.end for bar in market.bars))
    assume(not spec.funding or any(spec.start <= t < spec.end for t, _ in market.funding))
    later = msgspec.structs.replace(
        spec, start=FIRST_DAY, warm_up="none", params={}, schedule=[Leg(spec.start, spec.params)]
    )
    note(f"{spec}")
    own, other = run(market, spec), run(market, later)
    if own is not None and other is not None:
        assert {name: own[name] for name in SAME} == {name: other[name] for name in SAME}


@given(warm_jobs(), st.integers(2, 8), st.integers(0, 2**32))
@THOROUGH
def test_any_cut_in_any_order_equals_the_uncut_run(job: tuple[Market, Spec], slices: int, seed: int) -> None:
    market, spec = job
    assume(any(spec.start <= bar.t < spec.end for bar in market.bars))
    assume(not spec.funding or any(spec.start <= t < spec.end for t, _ in market.funding))
    cut, whole = run(market, spec, slices, seed), run(market, spec)
    assert (cut is None) == (whole is None)
    assert cut is None or whole is None or cut["result_digest"] == whole["result_digest"]


@given(warm_jobs())
@THOROUGH
def test_a_replay_adds_up_to_its_result(job: tuple[Market, Spec]) -> None:
    market, spec = job
    assume(any(spec.start <= bar.t < spec.end for bar in market.bars))
    assume(not spec.funding or any(spec.start <= t < spec.end for t, _ in market.funding))
    world = market.world()
    try:
        (result,) = world.run(spec, 3)
        found = replayed(msgspec.convert(result["spec"], Spec), result, world.runtime.candles, world)  # type: ignore[arg-type]
    except CandlemillError:
        return
    assert int(found.daily.sum()) == result["total_pnl"] and len(found.t) == result["bars"]
    assert int((found.position != 0).sum()) == result["exposure_bars"]


def rising(minutes: int) -> Market:
    closes = [1_000 + k for k in range(minutes)]
    return Market([Bar(FIRST_DAY + k * MINUTE, c, c, c, c, 1) for k, c in enumerate(closes)])


def test_a_worked_example_and_its_address() -> None:
    """Cold, the mean of 50 closes is there at the 50th bar; warm, the first bar of the range decides."""
    market, start = rising(3 * 1440), FIRST_DAY + DAY
    cold = Spec(
        symbol="X", strategy="sma_cross", params={"fast": 10, "slow": 50, "allow_short": False}, start=start,
        end=start + DAY, fee=0, account="units",
    )  # fmt: skip
    warm = msgspec.structs.replace(cold, warm_up="stored")
    cold_run, found = run(market, cold), run(market, warm)
    assert cold_run is not None and cold_run["exposure_bars"] == 1440 - 50
    assert found is not None and found["spec"]["warm_up"] == "stored"
    assert (found["exposure_bars"], found["bars"], found["missing_minutes"]) == (1440 - 1, 1440, 0)
    assert found["total_pnl"] == 1_438  # bought at the second bar's open, marked at the last close
    first = run(market, msgspec.structs.replace(warm, start=FIRST_DAY))
    assert first is not None and first["exposure_bars"] == 2 * 1440 - 50  # nothing is stored before it: as cold
    other = Market([replace(bar, close=bar.close + 1) if k == 5 else bar for k, bar in enumerate(market.bars)])
    ids = [[prepare(one.world(), spec, None).job_id for one in (market, other)] for spec in (cold, warm)]
    assert ids[0][0] == ids[0][1] and ids[1][0] != ids[1][1] and ids[0][0] != ids[1][0]
