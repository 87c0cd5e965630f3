"""Margin and liquidation: the engine agrees with a slow account to the last integer, under any cut."""

import random
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from candlemill.backtests import spec_rules
from candlemill.backtests.grid import parameters_of
from candlemill.backtests.spec import Spec
from candlemill.backtests.tiers import Tier, TierTable
from candlemill.errors import CandlemillError
from candlemill.pipeline import prepare
from candlemill.strategies import build
from hypothesis import event, given, settings
from order_jobs import cash_order_jobs, known, reference_bars, reference_of, reference_options
from reference import margin as slow
from reference.candles import MINUTE
from slow_engine import Bar
from slow_margin import run_margin
from world import FIRST_DAY, Market, World

FIGURES = (
    *("bars", "total_pnl", "max_drawdown", "sharpe_ratio", "days", "trades", "wins", "fills", "exposure_bars", "fees"),
    *("funding", "borrow", "turnover", "gross_profit", "gross_loss", "open_position", "cut_orders", "rejected_orders"),
    *("liquidations",),
)
FACTOR = 10**6  # floors are multiples of it, so amounts are whole


@st.composite
def tables(draw: Any) -> list[TierTable]:
    """One to three tables of one to three tiers; the first is in force from the start."""
    out = []
    for since in sorted({0, *draw(st.lists(st.integers(0, 7 * 1440), max_size=2))}):
        count = draw(st.integers(1, 3))
        rates = sorted(draw(st.sets(st.sampled_from([0, 1, 4_000, 100_000, 500_000]), min_size=count, max_size=count)))
        floors = sorted(draw(st.lists(st.integers(1, 10**7), min_size=count - 1, max_size=count - 1, unique=True)))
        floors = [0, *(floor * FACTOR for floor in floors)]
        steps = [floor // FACTOR * (b - a) for floor, (a, b) in zip(floors[1:], pairwise(rates), strict=True)]
        tiers = [Tier(*tier) for tier in zip(floors, rates, accumulate(steps, initial=0), strict=True)]
        out.append(TierTable(FIRST_DAY + since * MINUTE if since else 0, tiers))
    return out


PLAIN: list[tuple[str, dict[str, Any]]] = [
    ("sma_cross", {"fast": 2, "slow": 5, "allow_short": True}),
    ("momentum_v1", {"lookback": 3, "allow_short": True}),
    ("buy_and_hold", {}),
]


@st.composite
def margin_jobs(draw: Any) -> tuple[Market, Spec, list[TierTable]]:
    market, spec = draw(cash_order_jobs())
    if draw(st.booleans()):
        name, params = draw(st.sampled_from(PLAIN))
        params = parameters_of(build(name, params))
        spec = msgspec.structs.replace(spec, strategy=name, params=params, limit_through=0)
    leverage = draw(st.sampled_from([10**6, 3 * 10**6, 10**7, 50 * 10**6, 400_000]))
    if draw(st.integers(0, 3)):  # what is liquidated most
        plain = {"step": 1, "min_quantity": 0, "min_notional": 0, "notional": None, "quantity": 10**8}
        spec = msgspec.structs.replace(spec, size="equity", capital=10**12, stop_loss=0, trailing_stop=0, **plain)
    spec = msgspec.structs.replace(spec, margin=draw(st.sampled_from(["isolated", "cross"])), leverage=leverage)
    return market, prepare.validated(spec), draw(tables())


@pytest.fixture(autouse=True, scope="module")
def strategies() -> Iterator[None]:
    with known():
        yield


@pytest.fixture(autouse=True)
def warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_rules, "WARM_UP_BARS", 3)


def result_of(
    market: Market,
    spec: Spec,
    tiers: list[TierTable],
    slices: int | None = None,
    seed: int | None = None,
    marks: list[Bar] | None = None,
) -> dict[str, Any] | None:
    world = market.world()
    world.tiers = tiers
    world.marks = World(marks) if marks else None
    try:
        (found,) = world.run(spec, slices, None if seed is None else random.Random(seed))
    except CandlemillError:
        return None
    return found


def expected(market: Market, spec: Spec, tiers: list[TierTable], marks: list[Bar] | None = None) -> dict[str, Any]:
    strategy = reference_of(spec)
    dated = {table.valid_from: [slow.Tier(*msgspec.structs.astuple(tier)) for tier in table.tiers] for table in tiers}
    for one in dated.values():
        slow.check(one)
    options = reference_options(market, spec)
    isolated, bars = spec.margin == "isolated", reference_bars(market)
    return run_margin(bars, strategy, options, isolated, dated, reference_bars(Market(marks or [])))


@given(margin_jobs())
@settings(max_examples=100, deadline=None)
def test_a_job_agrees_with_the_slow_account(job: tuple[Market, Spec, list[TierTable]]) -> None:
    market, spec, tiers = job
    found = result_of(market, spec, tiers)
    if found is None:
        event("refused")
        return
    wanted = expected(market, spec, tiers)
    event(f"{spec.margin}, liquidations: {min(wanted['liquidations'], 3)}")
    assert {name: found[name] for name in FIGURES} == {name: wanted[name] for name in FIGURES}
    assert found["ambiguous_bars"] == wanted["ambiguous_minutes"]


@st.composite
def marked_jobs(draw: Any) -> tuple[Market, Spec, list[TierTable], list[Bar]]:
    """A job with mark prices that differ from the traded ones by up to a tenth, and are absent in some minutes."""
    market, spec, tiers = draw(margin_jobs())
    rng = draw(st.randoms(use_true_random=False))
    marks = []
    for bar in market.bars:
        prices = [max(1, price * rng.randint(9, 11) // 10) for price in (bar.open, bar.high, bar.low, bar.close)]
        if rng.random() < 0.9:
            marks.append(Bar(bar.t, prices[0], max(prices), min(prices), prices[3], 0))
    return market, msgspec.structs.replace(spec, symbol="BINANCE-UM:X"), tiers, marks


@given(marked_jobs(), st.integers(2, 8), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_mark_prices_trigger(job: tuple[Market, Spec, list[TierTable], list[Bar]], slices: int, seed: int) -> None:
    market, spec, tiers, marks = job
    found = result_of(market, spec, tiers, marks=marks)
    if found is None:
        event("refused")
        return
    wanted = expected(market, spec, tiers, marks)
    event(f"{spec.margin}, liquidations: {min(wanted['liquidations'], 3)}")
    assert {name: found[name] for name in FIGURES} == {name: wanted[name] for name in FIGURES}
    cut = result_of(market, spec, tiers, slices, seed, marks)
    assert cut and cut["result_digest"] == found["result_digest"]


@given(margin_jobs(), st.integers(2, 8), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_any_cut_in_any_order_has_the_same_bits(
    job: tuple[Market, Spec, list[TierTable]], slices: int, seed: int
) -> None:
    market, spec, tiers = job
    whole, cut = result_of(market, spec, tiers), result_of(market, spec, tiers, slices, seed)
    assert (whole and whole["result_digest"]) == (cut and cut["result_digest"])
