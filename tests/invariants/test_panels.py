"""A panel has the same bits however it is cut, whatever the order of its symbols and events."""

import random
from typing import Any

import hypothesis.strategies as st
import msgspec
from candlemill.backtests.grid import parameters_of
from candlemill.backtests.spec import Spec
from candlemill.errors import CandlemillError
from candlemill.strategies import build
from candlemill.units import SCALE
from hypothesis import given, reject, settings
from panel_world import PanelWorld
from panels import panels
from slow_engine import Bar
from world import DAY

START = 1_609_459_200_000  # ms, 2021-01-01


def outcome(candles: dict[str, Any], spec: Spec, slices: int | None, seed: int) -> dict[str, Any]:
    try:
        (found,) = PanelWorld(candles).run(spec, slices, random.Random(seed))
    except CandlemillError as error:
        assert error.code == "too_large" or "does not fit" in str(error), error
        reject()
    return found


@given(panels(), st.integers(2, 9), st.integers(0, 99))
@settings(max_examples=80)
def test_no_cut_and_no_order_of_events_changes_a_panel(case: Any, slices: int, seed: int) -> None:
    candles, spec = case
    whole, cut = outcome(candles, spec, 1, 0), outcome(candles, spec, slices, seed)
    assert (cut["result_digest"], cut["daily"]) == (whole["result_digest"], whole["daily"])


@given(panels(), st.integers(1, 5), st.integers(0, 5), st.sampled_from([None, 3]))
@settings(max_examples=60)
def test_what_is_stored_of_a_panel_is_found_again_and_right(
    case: Any, days: int, later: int, slices: int | None
) -> None:
    """A range that ends or begins elsewhere, in a world that knows the first one: an outcome has one address, and one
    address one outcome (World asserts that)."""
    candles, spec = case
    world = PanelWorld(candles)
    try:
        world.run(spec, slices)
        end = min(spec.start + days * DAY, spec.end)
        other = msgspec.structs.replace(spec, start=min(spec.start + later * DAY, end - DAY), end=end)
        world.run(other, slices)
    except CandlemillError as error:
        assert error.code in ("too_large", "no_data") or "does not fit" in str(error), error
        reject()
    found = [one for one in world.results.values() if one["end"] == end and one["start"] == other.start]
    assert [one["result_digest"] for one in found] == [outcome(candles, other, 1, 0)["result_digest"]]


def test_a_symbol_that_comes_back_is_traded_at_the_target_that_it_had_before_it_ended() -> None:
    """Its end forgets the target that waited, so the same one stated again is a new one."""
    closes = {0: 20, 1: 20, 2: 20, 3: 20, 4: 30, 1_440: 30, 1_441: 30}
    back = [Bar(START + minute * 60_000, close, close, close, close, 0) for minute, close in closes.items()]
    clock = [Bar(START + minute * 60_000, 1, 1, 1, 1, 0) for minute in (0, 9)]
    spec = Spec(
        symbol="AAA,BBB", strategy="inverse_volatility", start=START, end=START + 2 * DAY, account="cash",
        params=parameters_of(build("inverse_volatility", {"length": 3, "every": 2})), capital=10**12, delist_after=5,
    )  # fmt: skip
    whole, cut = (outcome({"AAA": clock, "BBB": back}, spec, slices, 1) for slices in (1, 2))
    assert cut["result_digest"] == whole["result_digest"]
    assert (whole["fills"], whole["symbols"]["BBB"]["exposure_bars"]) == (1, 1)


def test_a_position_over_a_gap_between_slices_has_its_profit() -> None:
    """All capital is in one symbol from 20 to 50, which it opens at after a day without candles."""
    closes = {0: 20, 1: 21, 2: 20, 3: 21, 4: 20, 5: 20, 1_440: 50, 1_441: 50}
    rows = [(START + minute * 60_000, close * SCALE) for minute, close in closes.items()]
    gap = [Bar(t, close, close, close, close, 0) for t, close in rows]
    clock = [Bar(START + minute * 60_000, SCALE, SCALE, SCALE, SCALE, 0) for minute in (0, 9)]
    spec = Spec(
        symbol="AAA,BBB", strategy="inverse_volatility", start=START, end=START + 2 * DAY, account="cash", fee=0,
        params=parameters_of(build("inverse_volatility", {"length": 3, "every": 2})), capital=10_000 * SCALE,
        delist_after=1_500,
    )  # fmt: skip
    for slices in (1, 2):
        found = outcome({"AAA": clock, "BBB": gap}, spec, slices, 1)
        assert (found["gap_profit"], found["total_pnl"]) == (15_000 * SCALE, 15_000 * SCALE)
