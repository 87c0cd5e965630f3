"""Books as arrays fill what the same books said one by one fill, under any cut; closed bars of longer timeframes."""

from typing import Any

import numpy as np
import pytest
from candlemill.engine.candles import MINUTE_MS, Bars, CandleColumns, k_minute_bars
from candlemill.engine.position import ExecutionRules
from candlemill.errors import BadStrategy
from candlemill.strategies import Bar, Book, BookArrays, Order, OrderStrategy, PositionView, WindowedOrders
from candlemill.strategies.orders import decide_fills
from hypothesis import given, settings
from hypothesis import strategies as st
from order_candles import candle_columns, fills_of

RULES = (
    ExecutionRules(),
    ExecutionRules(slippage=300, stop_loss=20_000, take_profit=20_000, limit_through=7),
    ExecutionRules(at_close=True, trailing_stop=15_000, best_path=True, maker_fee=-50),
)


def plan(close: Any, t: Any, seed: int) -> dict[str, Any]:
    """Prices and sizes of one bar, or of all bars at once, from its close and its number."""
    number = t // MINUTE_MS + seed
    return {
        "buy": close - number % 5 * (close // 200),
        "sell": close + number % 7 * (close // 300),
        "buys": number % 3 != 0,
        "size": 1 + number % 4 * 300_000,
        "stop": close * (95 + number % 4) // 100,
        "target": np.where(number % 11 == 0, 500_000.0, np.nan) / 1_000_000,
    }


class Fast(WindowedOrders, frozen=True):
    seed: int = 0

    def lookback(self) -> int:
        return 2

    def orders(self, bars: Bars) -> BookArrays:
        said = plan(bars.close, bars.t, self.seed)
        books = BookArrays(bars.n).target(said["target"]).protect(stop=said["stop"])
        books.limit("in", 1, said["buy"], size=said["size"], stop=said["stop"], oco=1, when=said["buys"])
        return books.stop("up", 1, said["sell"] + 1, size=said["size"], oco=1).limit(
            "out", -1, said["sell"], part=600_000
        )


class Slow(OrderStrategy, frozen=True):
    seed: int = 0

    def start(self) -> Any:
        return (0,)

    def step(self, state: Any, bar: Bar, position: PositionView) -> Any:
        if state[0] < 2:
            return Book(), (state[0] + 1,)
        said = plan(bar.close, bar.t, self.seed)
        target = None if np.isnan(said["target"]) else int(said["target"] * 1_000_000)
        orders = [
            Order("up", 1, "stop", said["sell"] + 1, size=said["size"], oco=1),
            Order("out", -1, "limit", said["sell"], part=600_000),
        ]
        if said["buys"]:
            orders.insert(0, Order("in", 1, "limit", said["buy"], size=said["size"], stop=said["stop"], oco=1))
        return Book(target, orders, stop=said["stop"]), (2,)


@given(st.integers(0, 10**6), st.lists(st.integers(-30, 30), min_size=5, max_size=60), st.sampled_from(RULES),
       st.sampled_from([1, 3]), st.data())  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_arrays_fill_what_the_same_books_fill(
    seed: int, moves: list[int], rules: ExecutionRules, k: int, data: st.DataObject
) -> None:
    closes = (1_000 + np.cumsum(moves)).tolist()
    candles = candle_columns(
        [(c - m // 2, c + abs(m) + 3, c - abs(m) - 3, c) for c, m in zip(closes, moves, strict=True)]
    )
    n = len(moves)
    whole, end = decide_fills(candles, k, Fast(seed), rules, b"", 0, n)
    slow, _ = decide_fills(candles, k, Slow(seed), rules, b"", 0, n)
    assert fills_of(whole) == fills_of(slow)
    cut = data.draw(st.integers(0, n))
    first, state = decide_fills(candles, k, Fast(seed), rules, b"", 0, cut)
    second, after = decide_fills(candles, k, Fast(seed), rules, state, cut, n)
    assert (fills_of(first) + fills_of(second), after) == (fills_of(whole), end)


def test_a_price_that_is_no_number_is_no_order() -> None:
    books = BookArrays(4).limit("a", 1, np.array([np.nan, -5.0, 0.0, 99.5]), size=1)
    assert books.columns()["prices"].tolist() == [0, 0, 0, 100]
    assert books.columns()["keep"].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda books: books.limit("a", 1, 5), "either a size above 0 or a part"),
        (lambda books: books.limit("a", 1, 5, size=1, part=1), "either a size above 0 or a part"),
        (lambda books: books.limit("stop", 1, 5, size=1), "reserved"),
        (lambda books: books.limit("a", 2, 5, size=1), "side 2"),
        (lambda books: books.limit("a", 1, [5, 6], size=1), r"shape \(2,\), expected \(3,\)"),
        (lambda books: books.limit("a", 1, 5, size=1.5), "floats, expected whole numbers"),
        (lambda books: books.limit("a", 1, 1 << 60, size=1), "is not from 0 to"),
        (lambda books: books.limit("a", 1, 5, size=1).stop("a", 1, 6, size=1), "twice"),
        (lambda books: books.target(101.0), "is not from -100,000,000 to 100,000,000"),
        (lambda books: books.target(["x"] * 3), "expected numbers"),
        (lambda books: [books.limit(f"a{k}", 1, 5, size=1) for k in range(17)], "more than 16 orders"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(BookArrays(3))


def test_orders_must_return_books_of_all_bars() -> None:
    class Short(WindowedOrders, frozen=True):
        def lookback(self) -> int:
            return 0

        def orders(self, bars: Bars) -> BookArrays:
            return BookArrays(bars.n - 1)

    with pytest.raises(BadStrategy, match=r"expected BookArrays\(bars.n\)"):
        decide_fills(candle_columns([(5, 6, 4, 5)] * 3), 1, Short(), ExecutionRules(), b"", 0, 3)


# -- closed bars of longer timeframes ------------------------------------------------------------------------------


def slow_closed(rows: list[tuple[int, ...]], k: int, longer: int, instant: int) -> tuple[int, ...] | None:
    """The last bar of `longer` minutes that has closed at an instant (minutes), of minute rows (t, o, h, l, c, v)."""
    ids = sorted({row[0] // longer for row in rows if (row[0] // longer + 1) * longer <= instant})
    if not ids:
        return None
    own = [row for row in rows if row[0] // longer == ids[-1]]
    return (ids[-1] * longer, own[0][1], max(r[2] for r in own), min(r[3] for r in own), own[-1][4],
            sum(r[5] for r in own))  # fmt: skip


@given(st.lists(st.integers(1, 9), min_size=1, max_size=80), st.sampled_from([(1, 5), (1, 60), (5, 15)]),
       st.integers(0, 70), st.randoms(use_true_random=False))  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_closed_bars_are_those_that_have_closed(
    steps: list[int], frames: tuple[int, int], begin: int, rng: Any
) -> None:
    k, longer = frames
    minutes = (begin + 26_400_000 + np.cumsum(steps)).tolist()
    rows = [(m, *(rng.randint(50, 60), 70, 40, rng.randint(50, 60)), rng.randint(0, 9)) for m in minutes]
    columns = [[np.array(column)] for column in zip(*rows, strict=True)]
    columns[0] = [columns[0][0] * MINUTE_MS]
    bars = k_minute_bars(CandleColumns(*columns), k, skip_first=False)
    closed = bars.at(f"{longer}m")
    missing = -1
    for name, place in (("t", 0), ("open", 1), ("high", 2), ("low", 3), ("close", 4), ("volume", 5)):
        found = closed.latest(getattr(closed, name), missing).tolist()
        wanted = []
        for t in (bars.t // MINUTE_MS).tolist():
            one = slow_closed([row for row in rows if row[0] < t + k], k, longer, t + k)
            wanted.append(missing if one is None else one[place] * (MINUTE_MS if name == "t" else 1))
        assert found == wanted


@pytest.mark.parametrize(("given_", "message"), [("1x", "write it like 5m"), ("7m", "multiple of 5"), ("5m", "longer")])
def test_a_timeframe_that_does_not_fit_is_refused(given_: str, message: str) -> None:
    candles = candle_columns([(5, 6, 4, 5)] * 30)
    with pytest.raises(ValueError, match=message):
        k_minute_bars(candles, 5, skip_first=False).at(given_)
