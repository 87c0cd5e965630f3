"""Panels whose parameters change at set times, and panels whose decisions see the candles before their start."""

import random
from typing import Any

import msgspec
from candlemill.backtests.grid import parameters_of
from candlemill.backtests.spec import Leg, Spec
from candlemill.errors import CandlemillError
from candlemill.strategies import build
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from panel_world import PanelWorld
from panels import panels
from world import DAY, MINUTE

SAME = ("total_pnl", "max_drawdown", "trades", "wins", "gross_profit", "gross_loss", "fees", "turnover", "fills",
        "exposure_bars", "open_position", "ambiguous_bars", "gap_profit", "borrow", "cut_orders", "rejected_orders",
        "symbols")  # fmt: skip


def outcome(candles: dict[str, Any], spec: Spec, slices: int | None = 1, seed: int = 0) -> dict[str, Any]:
    try:
        (found,) = PanelWorld(candles).run(spec, slices, random.Random(seed))
    except CandlemillError as error:
        assert error.code == "too_large" or "does not fit" in str(error), error
        reject()
    return found


@given(panels(), st.data(), st.integers(2, 9), st.integers(0, 99))
@settings(max_examples=60)
def test_no_cut_changes_a_schedule(case: Any, data: st.DataObject, slices: int, seed: int) -> None:
    candles, spec = case
    starts = sorted(data.draw(st.sets(st.integers(0, spec.minutes - 1), min_size=1, max_size=3)))
    every = data.draw(st.lists(st.integers(1, 4), min_size=len(starts), max_size=len(starts)))
    legs = [
        Leg(spec.start + m * MINUTE, parameters_of(build("inverse_volatility", {"length": 2 + k, "every": k})))
        for m, k in zip(starts, every, strict=True)
    ]
    spec = msgspec.structs.replace(spec, strategy="inverse_volatility", params={}, schedule=legs)
    whole, cut = outcome(candles, spec), outcome(candles, spec, slices, seed)
    assert (cut["result_digest"], cut["daily"]) == (whole["result_digest"], whole["daily"])


@given(panels())
@settings(max_examples=40)
def test_a_schedule_of_one_set_is_that_set_alone(case: Any) -> None:
    candles, spec = case
    alone = outcome(candles, spec)
    one = outcome(candles, msgspec.structs.replace(spec, params={}, schedule=[Leg(spec.start, spec.params)]))
    assert {name: one[name] for name in SAME} == {name: alone[name] for name in SAME}
    assert one["daily"] == alone["daily"]


@given(panels(), st.integers(1, 4 * 1440), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=80)
def test_a_warm_start_is_the_part_of_a_longer_job_that_begins_to_trade_then(
    case: Any, minutes: int, slices: int, seed: int
) -> None:
    candles, spec = case
    start = spec.start + minutes * MINUTE
    assume(any(start <= bar.t < spec.end for bars in candles.values() for bar in bars))
    warm = msgspec.structs.replace(spec, start=start, warm_up="stored")
    longer = msgspec.structs.replace(spec, params={}, schedule=[Leg(start, spec.params)])
    own, other = outcome(candles, warm, slices, seed), outcome(candles, longer)
    assert {name: own[name] for name in SAME} == {name: other[name] for name in SAME}


@given(panels(), st.integers(1, 3))
@settings(max_examples=30)
def test_candles_before_a_warm_start_are_part_of_its_identity(case: Any, days: int) -> None:
    candles, spec = case
    start = spec.start + days * DAY
    assume(any(start <= bar.t < spec.end for bars in candles.values() for bar in bars))
    name = next((name for name, bars in sorted(candles.items()) if any(bar.t < start for bar in bars)), None)
    assume(name is not None)
    warm = msgspec.structs.replace(spec, start=start, warm_up="stored")
    fewer = {one: [bar for bar in bars if one != name or bar.t >= start] for one, bars in candles.items()}
    assert outcome(candles, warm)["job_id"] != outcome(fewer, warm)["job_id"]
    cold = msgspec.structs.replace(spec, start=start)
    assert outcome(candles, cold)["job_id"] == outcome(fewer, cold)["job_id"]
