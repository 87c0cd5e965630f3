"""A run in full is the run that the result tells of: the same sums, trade by trade and mark by mark."""

from typing import Any

import msgspec
import numpy as np
from candlemill.errors import CandlemillError, TooLarge
from candlemill.model import SCALE, Spec
from candlemill.strategies import build
from candlemill.trace import Trace, trace_of
from candlemill.work import COLUMNS, sizing_of
from hypothesis import HealthCheck, given, settings
from world import Market, World, jobs

BRIEF = settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))


def traced(world: World, spec: Spec, result: dict[str, Any]) -> Trace:
    window = world.runtime.tapes.window(spec, spec.start, spec.end, 0, COLUMNS)
    if spec.funding:
        funding = world.funding("X")
        window.tape.add_funding(funding.t, funding.rate)
    return trace_of(spec, window.tape, build(spec.strategy, dict(spec.params)), result)


@given(jobs())
@BRIEF
def test_a_trace_adds_up_to_its_result(job: tuple[Market, Spec]) -> None:
    market, spec = job
    world = market.world()
    try:
        (result,) = world.run(spec)
    except CandlemillError:
        return  # refused: beyond 64 bits
    spec = msgspec.convert(result["spec"], Spec)  # complete, with a capital
    try:
        found = traced(world, spec, result)
    except TooLarge:
        return
    trades = found.trades
    assert len(found.t) == result["bars"] and len(found.days) == result["days"]
    assert found.capital == result["capital"]
    assert int(found.daily.sum()) == result["total_pnl"]
    assert len(trades) == result["trades"]
    assert int((found.position != 0).sum()) == result["exposure_bars"]
    if not result["unfilled"]:
        assert int(trades.ambiguous.sum()) == result["ambiguous_bars"]
    assert int(trades.gap.sum()) <= result["trades_over_gaps"] <= int(trades.gap.sum()) + 1
    assert (trades.mae <= 0).all() and (trades.mfe >= 0).all()
    tolerance = 0 if spec.sizing != "compound" else 1 + found.capital // 10**10
    assert abs(int(found.equity[-1]) - result["total_pnl"]) <= tolerance
    if spec.sizing == "compound":
        return
    assert int((trades.profit > 0).sum()) <= result["wins"]
    peak = np.maximum.accumulate(np.maximum(found.equity, 0))
    assert abs(int((peak - found.equity).max()) - result["max_drawdown"]) <= 1
    if sizing_of(spec) is None and spec.quantity == SCALE:
        assert int(trades.profit[trades.profit > 0].sum()) == result["gross_profit"]
        assert -int(trades.profit[trades.profit <= 0].sum()) == result["gross_loss"]
        assert not len(trades) or int(trades.fees.sum()) <= result["fees"] or spec.fee < 0
