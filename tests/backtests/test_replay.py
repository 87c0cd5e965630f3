"""A run in full is the run that the result tells of: the same sums, trade by trade and mark by mark."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
import pytest
from candlemill.backtests.replay import Replay, replay_of
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import COLUMNS
from candlemill.errors import CandlemillError, TooLarge
from candlemill.strategies import build
from hypothesis import HealthCheck, given, settings
from order_jobs import cash_order_jobs, known, order_jobs
from test_single import cash_jobs
from world import Market, World, jobs

BRIEF = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def strategies() -> Iterator[None]:
    with known():
        yield


def traced(world: World, spec: Spec, result: dict[str, Any]) -> Replay:
    window = world.runtime.candles.window(spec, spec.start, spec.end, 0, COLUMNS)
    if spec.funding:
        funding = world.funding("X")
        window.candles.add_funding(funding.t, funding.rate)
    return replay_of(spec, window.candles, build(spec.strategy, dict(spec.params)), result)


def runs(job: tuple[Market, Spec]) -> Iterator[tuple[dict[str, Any], Replay]]:
    """The job's result, cut into slices, and its replay; nothing if the job is refused."""
    market, spec = job
    world = market.world()
    try:
        (result,) = world.run(spec)
    except CandlemillError:
        return  # refused: beyond 64 bits
    with suppress(TooLarge):
        yield result, traced(world, msgspec.convert(result["spec"], Spec), result)


@given(jobs())
@BRIEF
def test_a_trace_adds_up_to_its_result(job: tuple[Market, Spec]) -> None:
    for result, found in runs(job):
        adds_up(result, found)


@given(cash_jobs())
@BRIEF
def test_a_trace_of_real_money_adds_up_to_its_result(job: tuple[Market, Spec]) -> None:
    for result, found in runs(job):
        adds_up(result, found)
        exactly(result, found)


@given(st.one_of(order_jobs(), cash_order_jobs()))
@BRIEF
def test_a_trace_of_orders_adds_up_to_its_result(job: tuple[Market, Spec]) -> None:
    for result, found in runs(job):
        adds_up(result, found, ordered=True)
        if found.spec.account == "cash":
            exactly(result, found)


def exactly(result: dict[str, Any], found: Replay) -> None:
    """In an account of real money every flow is a whole number, so trades add up without a rest."""
    profit = found.trades.profit
    assert int(profit[profit > 0].sum()) == result["gross_profit"]
    assert -int(profit[profit <= 0].sum()) == result["gross_loss"]
    assert int((profit > 0).sum()) == result["wins"]
    if not result["open_position"]:
        assert int(found.trades.fees.sum()) == result["fees"]
        assert int(found.trades.funding.sum()) == result["funding"]
        assert int(found.trades.borrow.sum()) == result["borrow"]


def adds_up(result: dict[str, Any], found: Replay, ordered: bool = False) -> None:
    spec, trades = found.spec, found.trades
    assert len(found.t) == result["bars"] and len(found.days) == result["days"]
    assert found.capital == result["capital"]
    assert int(found.daily.sum()) == result["total_pnl"]
    assert len(trades) == result["trades"]
    assert int((found.position != 0).sum()) == result["exposure_bars"]
    if not result["unfilled"] and not result["rejected_orders"] and not ordered:
        assert int(trades.ambiguous.sum()) == result["ambiguous_bars"]
    assert int(trades.gap.sum()) <= result["trades_over_gaps"] <= int(trades.gap.sum()) + 1
    assert (trades.mae <= 0).all() and (trades.mfe >= 0).all()
    tolerance = 0
    if spec.sizing == "compound":  # a day's marks are multiples of what the day began with, which is rounded down
        growth = (found.capital + result["total_pnl"]) // max(1, found.capital + int(found.daily[:-1].sum()))
        tolerance = 2 + growth + found.capital // 10**10
    assert abs(int(found.equity[-1]) - result["total_pnl"]) <= tolerance
    if spec.sizing == "compound":
        return
    assert int((trades.profit > 0).sum()) <= result["wins"]
    peak = np.maximum.accumulate(np.maximum(found.equity, 0))
    assert abs(int((peak - found.equity).max()) - result["max_drawdown"]) <= 1
    # A trade's figures are rounded down each, the sums of them once.
    won, lost = int(trades.profit[trades.profit > 0].sum()), -int(trades.profit[trades.profit <= 0].sum())
    assert 0 <= result["gross_profit"] - won <= result["wins"]
    assert 0 <= lost - result["gross_loss"] <= result["trades"] - result["wins"]
    assert not len(trades) or int(trades.fees.sum()) <= result["fees"] or min(spec.fee, spec.maker_fee or 0) < 0
