"""Legs with stops, costs and a timeframe of their own: a walk-forward's run whose windows have chosen them."""

import random
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from candlemill.backtests import spec_rules
from candlemill.backtests.grid import grid_points, parameters_of
from candlemill.backtests.replay import Replay, replay_of
from candlemill.backtests.spec import Leg, Spec
from candlemill.backtests.spec_rules import COLUMNS
from candlemill.engine.position import distance
from candlemill.errors import BadInput
from candlemill.pipeline import prepare
from candlemill.strategies import build
from hypothesis import HealthCheck, given, settings
from world import DAY, FEES, FIRST_DAY, PARAMS, RATES, Market, World, daily_of, markets

BRIEF = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
SCALE = 10**8
TIMEFRAMES = st.sampled_from([1, 1, 2, 7, 60, 1440, 4_320])


@pytest.fixture(autouse=True, params=[4_320, 3], ids=["long-warm-up", "short-warm-up"])
def warm_up(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_rules, "WARM_UP_BARS", request.param)


@st.composite
def leg_jobs(draw: st.DrawFn) -> tuple[Market, Spec]:
    """A fixed quantity in an account of real money that is never short of any, so that legs do not touch each other."""
    market = draw(markets())
    name, more = draw(st.sampled_from(sorted(PARAMS))), draw(st.sets(st.integers(1, 6), max_size=3))
    days = (market.bars[-1].t - FIRST_DAY) // DAY + 1
    starts = [FIRST_DAY, *(FIRST_DAY + k * DAY for k in sorted(more) if k < days)]
    legs = []
    for start in starts:
        options = {option: draw(RATES) for option in ("slippage", "stop_loss", "trailing_stop")}
        options |= {"fee": draw(FEES), "take_profit": draw(st.sampled_from([0, 20_000, 200_000]))}
        legs.append(
            Leg(start, parameters_of(build(name, draw(PARAMS[name]))), options | {"timeframe": draw(TIMEFRAMES)})
        )
    spec = Spec(
        symbol="X", strategy=name, params={}, schedule=legs, start=FIRST_DAY, end=FIRST_DAY + days * DAY,
        size="units", quantity=10**4, capital=10**15, leverage=10**8,
        fill=draw(st.sampled_from(["next_open", "close"])),
        funding=draw(st.booleans()) and any(FIRST_DAY <= t < FIRST_DAY + days * DAY for t, _ in market.funding),
    )  # fmt: skip
    return market, prepare.validated(spec)


def traced(world: World, spec: Spec, result: dict[str, Any]) -> Replay:
    window = world.runtime.candles.window(spec, spec.start, spec.end, 0, COLUMNS)
    if spec.funding:
        funding = world.funding("X")
        window.candles.add_funding(funding.t, funding.rate)
    ((_, _, strategy),) = grid_points(spec, 0, 1)
    return replay_of(spec, window.candles, strategy, result)


def run(market: Market, spec: Spec, slices: int | None = None, rng: random.Random | None = None) -> dict[str, Any]:
    (result,) = market.world().run(spec, slices, rng)
    return result


@given(leg_jobs(), st.integers(1, 8), st.integers(0, 2**32))
@BRIEF
def test_any_cut_in_any_order_has_the_same_result(job: tuple[Market, Spec], slices: int, seed: int) -> None:
    market, spec = job
    first, cut = run(market, spec, 1), run(market, spec, slices, random.Random(seed))
    assert (first["job_id"], first["result_digest"], first["daily"]) == (
        cut["job_id"], cut["result_digest"], cut["daily"],
    )  # fmt: skip


ROW = ("entry_t", "exit_t", "side", "quantity", "entry_price", "exit_price", "profit", "fees", "funding", "reason")


def trades_of(found: Replay) -> list[tuple[int, ...]]:
    columns = (getattr(found.trades, name).tolist() for name in ROW)
    return list(zip(*columns, strict=True))


@given(leg_jobs())
@BRIEF
def test_a_leg_trades_as_a_run_of_its_own_and_hands_on_only_its_money(job: tuple[Market, Spec]) -> None:
    market, spec = job
    world = market.world()
    (result,) = world.run(spec)
    whole = traced(world, spec, result)
    assert int(whole.daily.sum()) == result["total_pnl"] and whole.daily.tolist() == daily_of(result)[1]
    ours, wanted = trades_of(whole), []
    ends = [*(leg.start for leg in spec.schedule[1:]), spec.end]
    for k, (leg, end) in enumerate(zip(spec.schedule, ends, strict=True)):
        # The same leg alone, in a job without legs that have options; it ends with the leg.
        alone = msgspec.structs.replace(spec, schedule=[Leg(leg.start, leg.params)], end=end, **leg.options)
        if alone.funding and not any(spec.start <= t < end for t, _ in market.funding):
            alone = msgspec.structs.replace(alone, funding=False)
        other = market.world()
        if not other.days("X") or other.days("X")[0].first >= end:
            continue
        (own,) = other.run(prepare.validated(alone))
        replay = traced(other, alone, own)
        in_leg = [row for row in trades_of(replay) if row[1] < end]
        wanted += in_leg
        held = int(replay.position[-1])
        after = [k for k, bar in enumerate(market.bars) if bar.t >= end]
        if held and after:  # it is sold at the next leg's first open, at that leg's costs
            bar, options = market.bars[after[0]], spec.at(market.bars[after[0]].t)
            price = max(1, bar.open - held * distance(bar.open, options.slippage)) if options.slippage else bar.open
            (sold,) = [row for row in ours if row[1] == bar.t and row[0] < end and row[2] == held and row[9] == 0]
            assert sold[5] == price and sold[0] == int(replay.fills.t[-1])
            wanted.append(sold)
    assert sorted(ours) == sorted(wanted)


def test_what_legs_cannot_change_is_refused_with_the_way_out() -> None:
    legs = [Leg(FIRST_DAY, {}, {"stop_loss": 10_000}), Leg(FIRST_DAY + DAY, {}, {"stop_loss": 0})]
    base = Spec(symbol="X", strategy="sma_cross", params={}, schedule=legs, start=FIRST_DAY, end=FIRST_DAY + 2 * DAY)
    assert [one.stop_loss for one in prepare.validated(base).variants] == [10_000, 0]
    for change, said in (
        ({"account": "units"}, "account=cash"),
        ({"path": "both"}, "path=worst"),
        ({"strategy": "pullback_limit"}, "states positions"),
        ({"schedule": [legs[0], Leg(FIRST_DAY + DAY, {})]}, "the same options"),
        ({"schedule": [legs[0], Leg(FIRST_DAY + 60_000, {}, {"stop_loss": 5})]}, "midnights"),
        ({"schedule": [Leg(FIRST_DAY, {}, {"stop_loss": 2_000_000})]}, "stop_loss=200%"),
        ({"schedule": [Leg(FIRST_DAY, {}, {"quantity": 5})]}, "the same options"),
    ):
        with pytest.raises(BadInput, match=said):
            prepare.validated(msgspec.structs.replace(base, **change))
