"""The books of `dca` over flat bars: purchases, their mean, the sale of all, and the next round."""

import hypothesis.strategies as st
from candlemill.engine.position import ExecutionRules
from candlemill.strategies.builtin.orders import Dca
from candlemill.strategies.orders import decide_fills
from hypothesis import example, given, settings
from order_candles import candle_columns, short_fills
from reference.orders_strategies import d

SIZE = 100_000
Fill = tuple[int, str, str, int, int, int]


def expected(prices: list[int], every: int, steps: int, take: int) -> list[Fill]:
    """The fills, as far as no purchase and sale come at the same open."""
    fills: list[Fill] = []
    bought: list[int] = []
    span, limit, rests, buys = -1, 0, False, False
    for minute, price in enumerate(prices):
        held = len(bought) * SIZE
        sells = bool(bought) and price > limit  # at the limit itself others may come first
        if buys and sells:
            break
        if buys:
            bought.append(price)
            fills.append((minute, "open", "target", held, held + SIZE, price))
        elif sells:
            bought = []
            fills.append((minute, "open", "out", held, 0, limit if rests else price))
        buys, span = minute // every != span and len(bought) < steps, minute // every
        before, limit = limit, 0
        if bought:
            mean = sum(bought) // len(bought)
            limit = mean + d(mean, take)
        rests = limit == before
    return fills


@given(
    st.lists(st.integers(995, 1_010), min_size=2, max_size=60),
    st.integers(1, 5),
    st.integers(1, 4),
    st.sampled_from([1, 2_000, 5_000]),
)
@example([1_000, 1_001, 1_002, 1_003, 1_000, 1_000, 1_001, 1_002, 1_001], 3, 2, 1)
@settings(max_examples=200, deadline=None)
def test_purchases_and_sales(prices: list[int], every: int, steps: int, take: int) -> None:
    strategy = Dca(every=every, size=SIZE, steps=steps, take=take)
    candles = candle_columns([(price, price, price, price) for price in prices])
    fills, _ = decide_fills(candles, 1, strategy, ExecutionRules(0, maker_fee=0), b"", 0, len(prices))
    wanted = expected(prices, every, steps, take)
    assert short_fills(fills)[: len(wanted)] == wanted
