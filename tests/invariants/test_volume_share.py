"""Orders of real money that a bar's volume fills in part: the engine agrees with the reference, under any cut."""

import dataclasses
import random
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from candlemill.backtests import spec_rules
from candlemill.backtests.grid import parameters_of
from candlemill.backtests.spec import Spec
from candlemill.backtests.tiers import TierTable
from candlemill.errors import CandlemillError
from candlemill.pipeline import prepare
from candlemill.strategies import build
from hypothesis import event, given, settings
from order_jobs import cash_order_jobs, known, reference_bars, reference_of, reference_options
from reference.margin import Tier
from reference.volume import run_volume
from slow_engine import Bar
from slow_margin import run_margin
from test_margin import FIGURES, PLAIN, tables
from world import FIRST_DAY, Market

SCALE = 10**8


@pytest.fixture(autouse=True, scope="module")
def strategies() -> Iterator[None]:
    with known():
        yield


@pytest.fixture(autouse=True)
def warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_rules, "WARM_UP_BARS", 3)


@st.composite
def limited_jobs(draw: Any, margins: tuple[str, ...] = ("none",)) -> tuple[Market, Spec]:
    """A job whose bars have about as much volume as its orders want: none, a little, nearly all, plenty."""
    market, spec = draw(cash_order_jobs())
    kind = draw(st.integers(0, 3))
    if kind:  # rests stay longest where books are stated rarely, and where targets change rarely
        name, params = draw(st.sampled_from(PLAIN))
        if kind > 1:
            tick = max(1, min(abs(bar.close) for bar in market.bars) // 50)
            name, params = (
                "random_books",
                {"seed": draw(st.integers(0, 10**6)), "shrink": draw(st.sampled_from([1, tick]))},
            )
        spec = msgspec.structs.replace(
            spec, strategy=name, params=parameters_of(build(name, params)), limit_through=0,
            timeframe=draw(st.sampled_from([1, 7, 60])), step=draw(st.sampled_from([1, 10**5])), capital=10**12,
        )  # fmt: skip
    rng, share = draw(st.randoms(use_true_random=False)), draw(st.sampled_from([1_000_000, 300_000, 7]))
    price = max(1, market.bars[0].close)
    quantity = (spec.quantity if spec.size == "units" else (spec.capital or 1) * SCALE // price) or 1
    bars = []
    for bar in market.bars:
        taken = quantity * rng.choice([0, 1, 100, 300, 900, 5000]) // 1000
        volume = min(taken * 1_000_000 // share * market.volume_scale // SCALE, 2**61)
        bars.append(dataclasses.replace(bar, volume=volume))
    changed: dict[str, Any] = {"volume_share": share, "volume_scale": market.volume_scale}
    changed["margin"] = draw(st.sampled_from(margins))
    market = Market(bars, market.funding, market.volume_scale)
    return market, prepare.validated(msgspec.structs.replace(spec, **changed))


def result_of(
    market: Market, spec: Spec, tiers: list[TierTable], slices: int | None = None, seed: int | None = None
) -> dict[str, Any] | None:
    world = market.world()
    world.tiers = tiers
    try:
        (found,) = world.run(spec, slices, None if seed is None else random.Random(seed))
    except CandlemillError:
        return None
    return found


def expected(market: Market, spec: Spec, tiers: list[TierTable]) -> dict[str, Any]:
    options = reference_options(market, spec)
    options |= {"volume_share": spec.volume_share, "volume_scale": spec.volume_scale}
    by_change = spec.strategy in ("weights", *(name for name, _ in PLAIN))
    if spec.margin == "none":
        return run_volume(reference_bars(market), reference_of(spec), options, by_change)
    dated = {table.valid_from: [Tier(*msgspec.structs.astuple(tier)) for tier in table.tiers] for table in tiers}
    isolated = spec.margin == "isolated"
    return run_margin(reference_bars(market), reference_of(spec), options, isolated, dated, by_change=by_change)


def agree(market: Market, spec: Spec, tiers: list[TierTable]) -> dict[str, Any] | None:
    found = result_of(market, spec, tiers)
    if found is None:
        event("refused")
        return None
    wanted = expected(market, spec, tiers)
    free = result_of(market, msgspec.structs.replace(spec, volume_share=0, volume_scale=0), tiers)
    event(f"{spec.strategy}, changed by the volume: {bool(free and free['total_pnl'] != found['total_pnl'])}")
    assert {name: found[name] for name in FIGURES} == {name: wanted[name] for name in FIGURES}
    assert found["ambiguous_bars"] == wanted["ambiguous_minutes"]
    return found


def test_a_bar_may_have_more_volume_than_64_bits_hold() -> None:
    """All capital buys 4 * 10^18 units of 10^-8 in one bar, which has 10^20 of them."""
    bars = [Bar(FIRST_DAY + minute * 60_000, 25, 25, 25, 25, 10**12) for minute in range(4)]
    spec = Spec(
        symbol="X", strategy="buy_and_hold", params={}, start=bars[0].t, end=bars[-1].t + 60_000, account="cash",
        capital=10**12, fee=0, volume_share=1_000_000, volume_scale=1,
    )  # fmt: skip
    market, spec = Market(bars, [], 1), prepare.validated(spec)
    found, wanted = result_of(market, spec, []), expected(market, spec, [])
    assert found and (found["fills"], found["turnover"]) == (wanted["fills"], wanted["turnover"]) == (1, 10**12)


@given(limited_jobs())
@settings(max_examples=100, deadline=None)
def test_a_job_agrees_with_the_reference(job: tuple[Market, Spec]) -> None:
    agree(*job, [])


@given(limited_jobs(("isolated", "cross")), tables())
@settings(max_examples=40, deadline=None)
def test_a_job_with_margin_agrees_with_the_reference(job: tuple[Market, Spec], tiers: list[TierTable]) -> None:
    agree(*job, tiers)


@given(limited_jobs(("none", "cross")), tables(), st.integers(2, 8), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_any_cut_in_any_order_has_the_same_bits(
    job: tuple[Market, Spec], tiers: list[TierTable], slices: int, seed: int
) -> None:
    market, spec = job
    whole, cut = result_of(market, spec, tiers), result_of(market, spec, tiers, slices, seed)
    assert (whole and whole["result_digest"]) == (cut and cut["result_digest"])
