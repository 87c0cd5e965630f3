"""Strategies of orders and of weights in an account: the figures are the reference's, under any cut."""

import random
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from candlemill.backtests import spec_rules
from candlemill.backtests.spec import Spec
from candlemill.engine.candles import DAY_MS
from candlemill.errors import TooLarge
from candlemill.pipeline import prepare
from hypothesis import given, settings
from order_jobs import cash_order_jobs, known, order_jobs, reference_bars, reference_of, reference_options
from reference.cash import run_cash
from reference.desired import STRATEGIES
from reference.units import run_units
from slow_engine import MINUTE, Bar
from test_exactness import answer, bits, only
from world import FIRST_DAY, Market, jobs

FIGURES = (
    "bars", "missing_minutes", "total_pnl", "max_drawdown", "sharpe_ratio", "sortino_ratio", "days", "trades", "wins",
    "fills", "exposure_bars", "cut_orders", "rejected_orders", "liquidations", "fees", "funding", "borrow",
    "gross_profit", "gross_loss", "turnover", "open_position",
)  # fmt: skip


@pytest.fixture(autouse=True, params=[4_320, 3], ids=["long-warm-up", "short-warm-up"])
def warm_up(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(spec_rules, "WARM_UP_BARS", request.param)
    with known():
        yield


def result_of(market: Market, spec: Spec) -> dict[str, Any] | None:
    """The result, or None where it is too large. Any other refusal fails: a refusal of everything must not pass."""
    try:
        return only(market.world().run(spec, 1))
    except TooLarge:
        return None


def cash_reference(market: Market, spec: Spec) -> dict[str, Any]:
    """What the reference makes of the job, named as a result."""
    found = run_cash({"X": reference_bars(market)}, reference_of(spec), reference_options(market, spec))
    daily = [profit for _, profit in found["daily_profits"]]
    return {name: found[name] for name in FIGURES} | {"ambiguous_bars": found["ambiguous_minutes"], "daily": daily}


@given(cash_order_jobs())
@settings(max_examples=100, deadline=None)
def test_figures_of_real_money_are_the_references(job: tuple[Market, Spec]) -> None:
    market, spec = job
    if (result := result_of(market, spec)) is not None:
        wanted = cash_reference(market, spec)
        assert {name: result[name] for name in wanted} == wanted


@given(cash_order_jobs(), st.integers(2, 8), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_cut_in_any_order_equals_the_uncut_run(job: tuple[Market, Spec], slices: int, seed: int) -> None:
    market, spec = job
    if seed % 2:
        spec = msgspec.structs.replace(spec, path="both")
    assert bits(answer(market, spec, slices, random.Random(seed))) == bits(answer(market, spec))


UNIT_FIGURES = (
    "bars", "missing_minutes", "total_pnl", "max_drawdown", "sharpe_ratio", "sortino_ratio", "days", "trades", "wins",
    "fills", "exposure_bars", "trades_over_gaps", "unfilled", "fees", "funding", "gross_profit", "gross_loss",
    "turnover", "open_position", "ambiguous_bars",
)  # fmt: skip


@st.composite
def unit_order_jobs(draw: Any) -> tuple[Market, Spec]:
    market, spec = draw(order_jobs())
    return market, msgspec.structs.replace(spec, quantity=draw(st.sampled_from([10**8, 1, 123_456_789, 10**12])))


def units_reference(market: Market, spec: Spec) -> dict[str, Any]:
    found = run_units(reference_bars(market), reference_of(spec), reference_options(market, spec))
    return {name: found[name] for name in UNIT_FIGURES} | {"daily": [profit for _, profit in found["daily_profits"]]}


@given(unit_order_jobs())
@settings(max_examples=100, deadline=None)
def test_figures_of_units_are_the_references(job: tuple[Market, Spec]) -> None:
    market, spec = job
    if (result := result_of(market, spec)) is not None:
        wanted = units_reference(market, spec)
        assert {name: result[name] for name in wanted} == wanted


@given(unit_order_jobs(), st.integers(2, 8), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_any_cut_of_units_equals_the_uncut_run(job: tuple[Market, Spec], slices: int, seed: int) -> None:
    market, spec = job
    if seed % 2:
        spec = msgspec.structs.replace(spec, path="both")
    assert bits(answer(market, spec, slices, random.Random(seed))) == bits(answer(market, spec))


@given(jobs())
@settings(max_examples=60, deadline=None)
def test_stops_of_positions_have_a_best_path_too(job: tuple[Market, Spec]) -> None:
    """Desired positions of -1, 0 and 1: a bar that touches stop and target may have won."""
    market, spec = job
    plain = {"sizing": "fixed", "volume_share": 0, "notional": None, "capital": None, "path": "best"}
    # The reference's positions take the target; with a dearer maker fee the stop may be the better outcome.
    plain["maker_fee"] = None
    spec = msgspec.structs.replace(spec, **plain)
    if spec.strategy in STRATEGIES and (result := only(answer(market, spec))) is not None:
        wanted = units_reference(market, spec)
        assert {name: result[name] for name in wanted} == wanted


def test_profit_over_gaps_is_that_of_positions() -> None:
    """The two ways to a unit account's figures agree on what was earned while candles were missing."""
    bars = [Bar(FIRST_DAY + minute * MINUTE, 100 + price, 120 + price, 90 + price, 105 + price, 1)
            for minute, price in zip((0, 1, 2, 7, 8, 3000, 3001), (0, 3, 9, 30, 2, 50, 60), strict=True)]  # fmt: skip
    market = Market(bars)
    spec = prepare.validated(
        Spec(
            symbol="X", account="units", strategy="buy_and_hold", params={}, start=FIRST_DAY, end=FIRST_DAY + 3 * DAY_MS
        )
    )
    one, other = only(answer(market, spec)), only(answer(market, msgspec.structs.replace(spec, path="best"), 3))
    assert one is not None
    assert other is not None
    assert one["gap_profit"] == (130 - 114) + (150 - 107)
    apart = {"job_id", "spec", "result_digest", "slices", "repaired_slices"}
    assert {k: v for k, v in other.items() if k not in apart} == {k: v for k, v in one.items() if k not in apart}
