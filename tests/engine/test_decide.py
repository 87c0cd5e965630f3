"""The tape of fills is the same however a run is cut, and whether bars are passed at once or one by one."""

import random
from typing import Any

import numpy as np
import pytest
from candlemill.engine.book import Book, Order
from candlemill.engine.books import PositionView
from candlemill.engine.candles import CandleColumns, minute_bars
from candlemill.engine.position import ExecutionRules
from candlemill.errors import BadInput, BadStrategy
from candlemill.strategies import Bar, Strategy, build
from candlemill.strategies.orders import OrderStrategy, Weighted, decide_fills
from hypothesis import given
from hypothesis import strategies as st
from order_candles import FULL, RandomBooks, Scripted, candle_columns, fills_of, random_rows, run_books

RATES = st.builds(
    ExecutionRules,
    fee=st.sampled_from([0, 1000, -50]),
    slippage=st.sampled_from([0, 1, 1000, 30_000]),
    stop_loss=st.sampled_from([0, 0, 20_000, 60_000]),
    take_profit=st.sampled_from([0, 0, 20_000, 60_000]),
    trailing_stop=st.sampled_from([0, 0, 40_000]),
    at_close=st.booleans(),
    maker_fee=st.sampled_from([0, 300]),
    best_path=st.booleans(),
)


class TargetsBarByBar(OrderStrategy, frozen=True):
    """States what a strategy of -1, 0, 1 wants as a target, bar by bar."""

    fast: int = 3

    def start(self) -> Any:
        return (0.0,)

    def step(self, state: tuple[float], bar: Bar, position: PositionView) -> tuple[Book, Any]:
        mean = state[0] + (bar.close - state[0]) / self.fast
        return Book(FULL if bar.close > mean else -FULL if bar.close < mean - 1 else 0), (mean,)


def cut_run(
    candles: CandleColumns, timeframe: int, strategy: Strategy, rules: ExecutionRules, cuts: list[int]
) -> tuple[list[Any], list[int], bytes]:
    """The rows and ambiguous minutes of consecutive stretches, and the last state."""
    rows: list[Any] = []
    ambiguous: list[int] = []
    state = b""
    for lo, hi in zip([0, *cuts], [*cuts, int(candles.n)], strict=True):
        fills, state = decide_fills(candles, timeframe, strategy, rules, state, lo, hi)
        rows += fills_of(fills)
        ambiguous += fills.ambiguous()["minute"].tolist()
    return rows, ambiguous, state


def strategies() -> st.SearchStrategy[Strategy]:
    return st.one_of(
        st.builds(RandomBooks, st.integers(0, 10_000), st.sampled_from([1, 1, 1000])),
        st.builds(TargetsBarByBar),
        st.sampled_from(
            [
                build("pullback_limit", {"lookback": 3, "depth": 20_000, "stop": 30_000, "take": 30_000, "hold": 4}),
                build("breakout_stop", {"entry": 4, "risk": 30_000}),
                build("grid", {"levels": 3, "spacing": 20_000}),
                build("sma_cross", {"fast": 2, "slow": 4, "allow_short": True}),
                build("donchian", {"entry": 3, "exit": 2}),
            ]
        ),
    )


@given(
    st.integers(0, 10**6),
    st.integers(2, 90),
    strategies(),
    RATES,
    st.sampled_from([1, 1, 3]),
    st.lists(st.integers(1, 89), max_size=6),
)
def test_any_cut_gives_the_fills_of_the_uncut_run(
    seed: int, count: int, strategy: Strategy, rules: ExecutionRules, timeframe: int, cuts: list[int]
) -> None:
    shrink = strategy.shrink if isinstance(strategy, RandomBooks) else 1
    candles = candle_columns(*random_rows(random.Random(seed), count, shrink=shrink))
    whole = cut_run(candles, timeframe, strategy, rules, [])
    assert cut_run(candles, timeframe, strategy, rules, sorted({cut for cut in cuts if cut < count})) == whole
    assert cut_run(candles, timeframe, strategy, rules, list(range(1, count))) == whole


class SlowPullback(OrderStrategy, frozen=True):
    """`pullback_limit` bar by bar, as SEMANTICS-2 section 14 says it; it keeps the closes in its state."""

    lookback_bars: int = 3
    depth: int = 20_000
    stop: int = 30_000
    take: int = 30_000
    hold: int = 4

    def start(self) -> Any:
        return (0,) * self.lookback_bars + (0,)

    def step(self, state: tuple[int, ...], bar: Bar, position: PositionView) -> tuple[Book, Any]:
        *closes, i = state
        after = (*closes[1:], bar.close, i + 1)
        if position.side:
            entry = position.entry
            levels = entry - entry * self.stop // 10**6, entry + entry * self.take // 10**6
            return Book(0 if position.held >= self.hold else None, [], *levels), after
        if i < self.lookback_bars or position.fills or bar.close <= closes[0]:
            return Book(), after
        price = bar.close - bar.close * self.depth // 10**6
        bracket = {"stop": price - price * self.stop // 10**6, "take": price + price * self.take // 10**6}
        return Book(None, [Order("entry", 1, "limit", price, FULL, **bracket)]), after


class SlowBreakout(OrderStrategy, frozen=True):
    """`breakout_stop` bar by bar."""

    entry: int = 4
    risk: int = 30_000

    def start(self) -> Any:
        return (0,) * (2 * self.entry) + (0,)

    def step(self, state: tuple[int, ...], bar: Bar, position: PositionView) -> tuple[Book, Any]:
        *columns, i = state
        highs, lows = [*columns[1 : self.entry], bar.high], [*columns[self.entry + 1 :], bar.low]
        after = (*highs, *lows, i + 1)
        if position.side:
            risk = position.side * (position.entry * self.risk // 10**6)
            return Book(None, [], position.entry - risk, max(1, position.entry + 2 * risk)), after
        if i < self.entry:
            return Book(), after
        up, down = max(highs), min(lows)
        above, below = up * self.risk // 10**6, down * self.risk // 10**6
        orders = [
            Order("up", 1, "stop", up, FULL, oco=1, stop=up - above, take=up + 2 * above),
            Order("down", -1, "stop", down, FULL, oco=1, stop=down + below, take=max(1, down - 2 * below)),
        ]
        return Book(None, orders), after


class SlowGrid(OrderStrategy, frozen=True):
    """`grid` bar by bar: a price for each level that has not filled since the last decision while flat."""

    levels: int = 3
    spacing: int = 20_000
    size: int = 250_000

    def start(self) -> Any:
        return (0,) * self.levels

    def step(self, state: tuple[int, ...], bar: Bar, position: PositionView) -> tuple[Book, Any]:
        filled = {name for name, _ in position.fills}
        if position.side == 0:
            prices = tuple(bar.close - bar.close * self.spacing * j // 10**6 for j in range(1, self.levels + 1))
        else:
            prices = tuple(0 if f"buy{j + 1}" in filled else price for j, price in enumerate(state))
        orders = [Order(f"buy{j + 1}", 1, "limit", p, self.size) for j, p in enumerate(prices) if p]
        if position.side:
            out = position.entry + position.entry * self.spacing // 10**6
            orders.append(Order("out", -1, "limit", out, part=FULL))
        return Book(None, orders), prices


PAIRS: list[tuple[Strategy, Strategy]] = [
    (
        build("pullback_limit", {"lookback": 3, "depth": 20_000, "stop": 30_000, "take": 30_000, "hold": 4}),
        SlowPullback(),
    ),
    (build("breakout_stop", {"entry": 4, "risk": 30_000}), SlowBreakout()),
    (build("breakout_stop", {"entry": 70, "risk": 60_000}), SlowBreakout(70, 60_000)),
    (build("grid", {"levels": 3, "spacing": 20_000}), SlowGrid()),
]


@pytest.mark.parametrize(("native", "slow"), PAIRS)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(2, 400),
    rules=RATES,
    timeframe=st.sampled_from([1, 1, 3]),
    shrink=st.sampled_from([1, 1000]),
)
def test_native_sources_equal_the_same_strategy_bar_by_bar(
    native: Strategy, slow: Strategy, seed: int, count: int, rules: ExecutionRules, timeframe: int, shrink: int
) -> None:
    candles = candle_columns(*random_rows(random.Random(seed), count, start=100, shrink=shrink))
    found, wanted = (cut_run(candles, timeframe, strategy, rules, [])[:2] for strategy in (native, slow))
    assert found == wanted


class Held(OrderStrategy, frozen=True, dict=True):
    """Says as targets what a vectorised strategy wants."""

    def start(self) -> Any:
        return (0,)

    def step(self, state: tuple[int], bar: Bar, position: PositionView) -> tuple[Book, Any]:
        return Book(int(self.__dict__["desired"][state[0]]) * FULL), (state[0] + 1,)


@given(
    seed=st.integers(0, 10**6),
    count=st.integers(2, 120),
    rules=RATES,
    timeframe=st.sampled_from([1, 1, 3]),
)
def test_positions_of_arrays_equal_targets_bar_by_bar(
    seed: int, count: int, rules: ExecutionRules, timeframe: int
) -> None:
    chance = random.Random(seed)
    candles = candle_columns(*random_rows(chance, count))

    class Wanted(Strategy, frozen=True):
        def lookback(self) -> int:
            return 0

        def decide(self, bars: Any, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
            return desired[lo:hi], b""

    desired = np.array([chance.choice([-1, 0, 1, 1]) for _ in range(count)], dtype=np.int8)
    desired[1::2] = desired[::2][: len(desired[1::2])]
    bar_by_bar = Held()
    bar_by_bar.__dict__["desired"] = desired
    found, wanted = (cut_run(candles, timeframe, strategy, rules, [])[:2] for strategy in (Wanted(), bar_by_bar))
    assert found == wanted


def test_a_later_slice_needs_no_more_than_the_lookback() -> None:
    rows, minutes = random_rows(random.Random(5), 600, start=100)
    for native, _ in PAIRS:
        for timeframe in (1, 3):
            whole = cut_run(candle_columns(rows, minutes), timeframe, native, ExecutionRules(), [])
            first, state = decide_fills(candle_columns(rows, minutes), timeframe, native, ExecutionRules(), b"", 0, 300)
            begin = 300 - (native.lookback() + 1) * timeframe - 1
            later = candle_columns(rows[begin:], minutes[begin:])
            second, end = decide_fills(
                later, timeframe, native, ExecutionRules(), state, 300 - begin, 600 - begin, cold=False
            )
            assert (fills_of(first) + fills_of(second), end) == (whole[0], whole[2])


def test_flat_is_one_state_whatever_was_held_before() -> None:
    strategy = build("sma_cross", {"fast": 1, "slow": 2})
    state: dict[str, bytes] = {}
    for name, closes in {"never": [9, 8, 7, 6], "once": [9, 10, 8, 7]}.items():
        candles = candle_columns([(c, c, c, c) for c in closes])
        fills, state[name] = decide_fills(candles, 1, strategy, ExecutionRules(), b"", 0, len(closes))
        assert fills.n == (2 if name == "once" else 0)
    assert state["never"] == state["once"]


class Ramp(Weighted, frozen=True):
    """Holds more of what has risen more; short of what fell."""

    whole: bool = False

    def lookback(self) -> int:
        return 2

    def weights(self, bars: Any) -> Any:
        move = np.zeros(bars.n)
        move[2:] = (bars.close[2:] - bars.close[:-2]) / 4
        return np.rint(move * 10**6).astype(np.int64) if self.whole else move


class RampByTargets(OrderStrategy, frozen=True):
    def start(self) -> Any:
        return (0, 0, 0)

    def step(self, state: tuple[int, int, int], bar: Bar, position: PositionView) -> tuple[Book, Any]:
        before, last, i = state
        return Book((bar.close - before) * 250_000 if i >= 2 else 0), (last, bar.close, i + 1)


@given(seed=st.integers(0, 10**6), count=st.integers(2, 100), rules=RATES, timeframe=st.sampled_from([1, 3]))
def test_weights_equal_targets_bar_by_bar(seed: int, count: int, rules: ExecutionRules, timeframe: int) -> None:
    candles = candle_columns(*random_rows(random.Random(seed), count))
    wanted = cut_run(candles, timeframe, RampByTargets(), rules, [])[:2]
    for whole in (False, True):
        found = cut_run(candles, timeframe, Ramp(whole), rules, [])
        assert found[:2] == wanted
        assert cut_run(candles, timeframe, Ramp(whole), rules, [count // 2]) == found


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([0.5], "weights of shape (1,), expected (2,): one for each bar"),
        ([True, False], "weights of type bool, expected floats, or whole numbers in ppm"),
        ([0.0, float("nan")], "weight nan, expected at most 100"),
        ([0, -100_000_001], "weight -100000001, expected at most 100"),
    ],
)
def test_weights_are_checked(weights: Any, words: str) -> None:
    class Given(Weighted, frozen=True):
        def lookback(self) -> int:
            return 0

        def weights(self, bars: Any) -> Any:
            return weights

    with pytest.raises(BadStrategy) as caught:
        decide_fills(candle_columns([(5, 5, 5, 5)] * 2), 1, Given(), ExecutionRules(), b"", 0, 2)
    assert words in str(caught.value)


def test_the_accounts_of_positions_refuse_orders_and_weights() -> None:
    for strategy in (build("grid", {}), Ramp()):
        with pytest.raises(BadInput, match="which the account of -1, 0 and 1 does not know"):
            strategy.decide(minute_bars(candle_columns([(5, 5, 5, 5)])), 0, 1, b"")


def test_targets_without_stops_read_neither_highs_nor_lows() -> None:
    full = candle_columns(*random_rows(random.Random(8), 60))
    columns = full.columns()
    bare = CandleColumns([columns["t"]], [columns["open"]], [], [], [columns["close"]], [])
    strategy = build("sma_cross", {"fast": 2, "slow": 4, "allow_short": True})
    for rules in (ExecutionRules(), ExecutionRules(at_close=True)):
        found, wanted = (cut_run(candles, 1, strategy, rules, [20]) for candles in (bare, full))
        assert found == wanted
        assert len(found[0]) > 10


def test_what_step_returns_is_checked() -> None:
    class Wrong(OrderStrategy, frozen=True, dict=True):
        def step(self, state: Any, bar: Bar, position: PositionView) -> Any:
            return self.__dict__["said"]

    strategy = Wrong()
    for said, words in [
        (1, "expected a Book and the state"),
        ((1, ()), "expected a Book and the state"),
        ((Book(), (), ()), "expected a Book and the state"),
        ((Book(), (1,)), "has not the types"),
    ]:
        strategy.__dict__["said"] = said
        with pytest.raises(BadStrategy, match=words):
            decide_fills(candle_columns([(1, 1, 1, 1)]), 1, strategy, ExecutionRules(), b"", 0, 1)


def test_a_state_that_is_none_is_refused() -> None:
    for state in (b"1,2", b"x,0,0,0,0,0,0,0,0,-,-", b"0,0,0,0,0,0,0,0,0,-,-\no1,2", b"0,0,0,0,0,0,0,0,0,-,-\nz"):
        with pytest.raises((ValueError, BadStrategy), match="not a state"):
            decide_fills(candle_columns([(1, 1, 1, 1)]), 1, Scripted(), ExecutionRules(), state + b"\t0", 0, 1)


def test_the_largest_state_fits_an_event() -> None:
    orders = [
        Order(f"{'k' * 30}{k:02}", 1, "stop", 2**58 - k, 10**8, oco=10**9, stop=2**58, take=2**58) for k in range(16)
    ]
    strategy = Scripted()
    strategy.__dict__["script"] = [Book(10**8, orders, 2**58, 2**58)]
    _, state = decide_fills(candle_columns([(5, 5, 5, 5)]), 1, strategy, ExecutionRules(), b"", 0, 1)
    assert len(state) < 4096


def test_a_slippage_beyond_64_bits_is_refused() -> None:
    with pytest.raises(OverflowError, match="leave 64 bits"):
        run_books([(2**58, 2**58, 2**58, 2**58)], [], ExecutionRules(slippage=100_000_000))
