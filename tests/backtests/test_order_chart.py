"""The chart of orders: every fill ends a line, lines are what the books said, and looking changes nothing."""

from collections.abc import Iterator

import numpy as np
import pytest
from candlemill.backtests.order_chart import BARS_LIMIT, order_chart
from candlemill.backtests.tiers import Tier, TierTable
from candlemill.engine.book_trace import BookTrace
from candlemill.engine.candles import DAY_MS, MINUTE_MS, CandleColumns
from candlemill.engine.position import ExecutionRules
from candlemill.errors import TooLarge
from candlemill.pipeline import prepare
from candlemill.strategies import build
from candlemill.strategies.orders import decide_fills
from candlemill.units import SCALE
from hypothesis import given, settings
from order_jobs import known, order_jobs
from world import FIRST_DAY, Market, Spec


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    with known():
        yield


def candle_columns(market: Market) -> CandleColumns:
    columns = [[np.array([getattr(bar, name) for bar in market.bars])]
               for name in ("t", "open", "high", "low", "close", "volume")]  # fmt: skip
    return CandleColumns(*columns)


@given(order_jobs())
@settings(max_examples=60, deadline=None)
def test_a_chart_shows_the_fills_and_the_orders_that_made_them(job: tuple[Market, Spec]) -> None:
    market, spec = job
    candles, strategy = candle_columns(market), build(spec.strategy, dict(spec.params))
    rules = ExecutionRules()
    plain, state = decide_fills(candles, spec.timeframe, strategy, rules, b"", 0, int(candles.n))
    traced, same = decide_fills(candles, spec.timeframe, strategy, rules, b"", 0, int(candles.n), trace=BookTrace())
    assert same == state
    assert {name: column.tolist() for name, column in traced.columns().items()} == {
        name: column.tolist() for name, column in plain.columns().items()
    }
    start, end = market.bars[0].t, market.bars[-1].t + MINUTE_MS
    spec = prepare.validated(Spec(symbol="X", strategy=spec.strategy, params=spec.params, start=start, end=end,
                                  timeframe=spec.timeframe))  # fmt: skip
    chart = order_chart(spec, candles, strategy, start, end)
    assert [(fill.t, fill.price) for fill in chart.fills] == list(
        zip(plain.columns()["minute"].tolist(), plain.columns()["price"].tolist(), strict=True)
    )
    assert chart.ambiguous == plain.ambiguous()["minute"].tolist()
    ends = {(line.key, line.end_ms - MINUTE_MS) for line in chart.lines if line.ended == "filled"}
    of_orders = {(fill.what, fill.t) for fill in chart.fills if fill.what not in ("target", "stop", "take")}
    assert {one for one in ends if one[0] not in ("stop", "take")} == of_orders
    middle = market.bars[len(market.bars) // 2].t
    half = order_chart(spec, candles, strategy, middle, end)
    assert half.fills == [fill for fill in chart.fills if fill.t >= middle]
    later = {(line.key, line.price, line.end_ms, line.ended) for line in chart.lines if line.end_ms > middle}
    assert {(line.key, line.price, line.end_ms, line.ended) for line in half.lines} == later


def test_a_chart_is_limited() -> None:
    n = BARS_LIMIT + 1
    t = FIRST_DAY + np.arange(n) * MINUTE_MS
    price = np.full(n, 1000)
    candles = CandleColumns([t], [price], [price], [price], [price], [price])
    spec = prepare.validated(
        Spec(symbol="X", strategy="grid", params={}, start=FIRST_DAY, end=FIRST_DAY + n * MINUTE_MS)
    )
    with pytest.raises(TooLarge, match="a chart of orders has at most 20,000"):
        order_chart(spec, candles, build("grid", {}), spec.start, spec.end)
    chart = order_chart(spec, candles, build("grid", {}), spec.end - DAY_MS, spec.end)
    assert {(line.key, line.kind, line.ended) for line in chart.lines} == {
        (f"buy{k}", "limit", "standing") for k in range(1, 5)
    }


def test_a_chart_of_an_account_that_is_liquidated() -> None:
    """A long at 100 with a leverage of 10 ends at 90.36 in the fourth minute; a chart from there on shows it too."""
    prices = [100, 100, 99, 80, 80, 80]
    t = FIRST_DAY + np.arange(6) * MINUTE_MS
    opened, close = np.array([100, *prices[:-1]]) * SCALE, np.array(prices) * SCALE
    columns = (t, opened, np.maximum(opened, close), np.minimum(opened, close), close, t)
    candles = CandleColumns(*([column.astype(np.int64)] for column in columns))
    spec = Spec(
        symbol="X", strategy="buy_and_hold", params={}, start=int(t[0]), end=int(t[-1]) + MINUTE_MS, account="cash",
        capital=1000 * SCALE, leverage=10_000_000, margin="isolated", tiers={"X": [TierTable(0, [Tier(0, 4_000, 0)])]},
    )  # fmt: skip
    charts = [order_chart(spec, candles, build("buy_and_hold", {}), int(start), spec.end) for start in (t[0], t[2])]
    assert [(fill.what, fill.price) for fill in charts[0].fills] == [
        ("target", 100 * SCALE),
        ("liquidation", 9_036_144_578),
    ]
    assert charts[1].fills == charts[0].fills[1:]
    (line,) = [line for line in charts[0].lines if line.key == "liquidation"]
    assert (line.kind, line.price, line.end_ms - MINUTE_MS) == ("level", 9_036_144_578, charts[0].fills[1].t)
