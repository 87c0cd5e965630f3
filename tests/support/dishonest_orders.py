"""Order strategies that are wrong on purpose, one way each, beside an honest twin that does the same rightly."""

import math
from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np
from candlemill.engine.candles import Bars
from candlemill.strategies import Book, BookArrays, Order, OrderStrategy, PositionView, Weighted, WindowedOrders
from numpy.lib.stride_tricks import sliding_window_view

UNIT = 1_000_000


def dip(price: int, **more: Any) -> Order:
    return Order("dip", 1, "limit", max(1, price), size=UNIT, take=max(2, price * 101 // 100), **more)


def below(close: int, steps: int) -> int:
    """A price some thousandths below a close."""
    return close - close * steps // 1000


# -- the future ----------------------------------------------------------------------------------------------------


class HourStillOpen(WindowedOrders, frozen=True):
    """Takes of `bars.at("1h")` the hour that the bar lies in, which has not closed."""

    reads: ClassVar[frozenset[str]] = frozenset({"high", "low"})

    def lookback(self) -> int:
        return 180

    def orders(self, bars: Bars) -> BookArrays:
        high = self.high(bars)
        return BookArrays(bars.n).limit("out", -1, high, size=UNIT, stop=high * 2, when=high > 0)

    def high(self, bars: Bars) -> Any:
        hour = bars.at("1h")
        if not hour.n:
            return np.zeros(bars.n, dtype=np.int64)
        return hour.high[np.clip(np.searchsorted(hour.t, bars.t, side="right") - 1, 0, hour.n - 1)]


class HourClosed(HourStillOpen, frozen=True):
    def high(self, bars: Bars) -> Any:
        hour = bars.at("1h")
        return hour.latest(hour.high)


class KnowsItsFills(WindowedOrders, frozen=True):
    """Places a limit order only where the next low fills it."""

    reads: ClassVar[frozenset[str]] = frozenset({"low"})

    def lookback(self) -> int:
        return 1

    def orders(self, bars: Bars) -> BookArrays:
        price = bars.close - bars.close * 2 // 1000
        return BookArrays(bars.n).limit("dip", 1, price, size=UNIT, take=bars.close, when=self.when(bars, price))

    def when(self, bars: Bars, price: Any) -> Any:
        return np.append(bars.low[1:] < price[:-1], False) if bars.n else np.zeros(0, dtype=np.bool_)


class PlacesAll(KnowsItsFills, frozen=True):
    def when(self, bars: Bars, price: Any) -> Any:
        return np.ones(bars.n, dtype=np.bool_)


class WholeRange(Weighted, frozen=True):
    """Weighs by the highest close of the whole range."""

    def lookback(self) -> int:
        return 30

    def weights(self, bars: Bars) -> Any:
        return bars.close / bars.close.max(initial=1)


class LastThirty(WholeRange, frozen=True):
    def weights(self, bars: Bars) -> Any:
        out = np.zeros(bars.n)
        if bars.n >= 30:
            out[29:] = bars.close[29:] / sliding_window_view(bars.close, 30).max(axis=1)
        return out


class Learner(OrderStrategy, frozen=True):
    """Remembers closes of earlier runs, and so knows the next one when candles are computed again."""

    closes: ClassVar[dict[int, int]] = {}

    def start(self) -> Any:
        return (0,)

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        self.closes[bar.t] = bar.close
        after = self.closes.get(bar.t + 60_000, bar.close)
        return Book(UNIT if after > bar.close else 0), (0,)


class Follower(OrderStrategy, frozen=True):
    def start(self) -> Any:
        return (0,)

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        return Book(UNIT if bar.close > state[0] else 0), (bar.close,)


# -- state outside of `state` --------------------------------------------------------------------------------------


class CountsOutside(OrderStrategy, frozen=True):
    """Counts its steps on the class, anew at each start: right until a run goes on from a state."""

    steps: ClassVar[list[int]] = [0]

    def start(self) -> Any:
        self.steps[0] = 0
        return (0,)

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        self.steps[0] += 1
        return Book(None if position.side else self.steps[0] % 7 // 6 * UNIT, take=bar.close * 101 // 100), (0,)


class CountsInside(OrderStrategy, frozen=True):
    def start(self) -> Any:
        return (0,)

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        count = (state[0] + 1) % 7
        return Book(None if position.side else count // 6 * UNIT, take=bar.close * 101 // 100), (count,)


class SharedBook(OrderStrategy, frozen=True):
    """States one list again and again, and changes it: the orders of other runs are in it."""

    orders: ClassVar[list[Order]] = []

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        self.orders[:] = [*self.orders[-1:], Order(f"k{bar.t}", 1, "limit", below(bar.close, 1), size=UNIT)]
        return Book(0 if position.side else None, self.orders), ()


class OwnBook(OrderStrategy, frozen=True):
    def start(self) -> Any:
        return (0, 0)

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        before = [Order(f"k{state[0]}", 1, "limit", state[1], size=UNIT)] if state[0] else []
        price = below(bar.close, 1)
        orders = [*before, Order(f"k{bar.t}", 1, "limit", price, size=UNIT)]
        return Book(0 if position.side else None, orders), (bar.t, price)


class MovesAnOrder(OrderStrategy, frozen=True):
    """Writes into an order that it has stated."""

    kept: ClassVar[Order] = dip(10**10)

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        kept: Any = self.kept
        kept.price = below(bar.close, 2)
        return Book(None, [kept]), ()


class PlacesAnother(OrderStrategy, frozen=True):
    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        return Book(None, [dip(below(bar.close, 2))]), ()


class LooseState(OrderStrategy, frozen=True):
    """A state that is a whole number first and a float later: the same state has two texts."""

    def start(self) -> Any:
        return (0,)

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        return Book(UNIT if bar.close > state[0] else 0), self.kept(state[0], bar.close)

    def kept(self, mean: Any, close: int) -> Any:
        return ((mean + close) / 2,)


class WholeState(LooseState, frozen=True):
    def kept(self, mean: Any, close: int) -> Any:
        return ((mean + close) // 2,)


class Diary(OrderStrategy, frozen=True):
    """A state that grows with every bar."""

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        return Book(UNIT if bar.close > bar.open else 0), (*state, bar.close)


class NoDiary(OrderStrategy, frozen=True):
    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        return Book(UNIT if bar.close > bar.open else 0), ()


# -- where and when it is computed ---------------------------------------------------------------------------------


class EveryTenthBar(WindowedOrders, frozen=True):
    """Counts bars from wherever its slice begins."""

    def lookback(self) -> int:
        return 15

    def orders(self, bars: Bars) -> BookArrays:
        return BookArrays(bars.n).target(np.where(self.count(bars) % 10 < 3, UNIT, 0))

    def count(self, bars: Bars) -> Any:
        return np.arange(bars.n)


class EveryTenthMinute(EveryTenthBar, frozen=True):
    def count(self, bars: Bars) -> Any:
        return bars.t // 60_000


class RunningFloats(WindowedOrders, frozen=True):
    """A mean of a sum of floats that runs from the slice's first bar: its last digits depend on where that is."""

    n: ClassVar[int] = 12

    def lookback(self) -> int:
        return self.n

    def orders(self, bars: Bars) -> BookArrays:
        mean = self.mean(bars.close)
        return BookArrays(bars.n).limit("dip", 1, mean, size=UNIT, take=mean * 1.01, when=mean > 0)

    def mean(self, close: Any) -> Any:
        sums = np.append(0.0, np.cumsum(close / 3.0))
        out = np.zeros(len(close))
        out[self.n - 1 :] = (sums[self.n :] - sums[: -self.n]) * 3.0 / self.n
        return out


class RunningInts(RunningFloats, frozen=True):
    def mean(self, close: Any) -> Any:
        sums = np.append(0, np.cumsum(close))
        out = np.zeros(len(close), dtype=np.int64)
        out[self.n - 1 :] = (sums[self.n :] - sums[: -self.n]) // self.n
        return out


class FourierMean(RunningFloats, frozen=True):
    """A mean by way of a Fourier transform, whose rounding depends on the length of the range, its end too."""

    def mean(self, close: Any) -> Any:
        size = 2 * len(close) + self.n
        found = np.fft.irfft(np.fft.rfft(close / 3.0, size) * np.fft.rfft(np.full(self.n, 3.0 / self.n), size), size)
        return np.where(np.arange(len(close)) < self.n - 1, 0.0, found[: len(close)])


class WindowMean(RunningFloats, frozen=True):
    def mean(self, close: Any) -> Any:
        out = np.zeros(len(close))
        if len(close) >= self.n:
            out[self.n - 1 :] = [math.fsum(window) / self.n for window in sliding_window_view(close, self.n).tolist()]
        return out


class ThisYear(OrderStrategy, frozen=True):
    """Buys in even years of the clock on the wall."""

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        return Book(UNIT if self.year(bar) % 2 == 0 and bar.close > bar.open else 0), ()

    def year(self, bar: Any) -> int:
        return datetime.now(UTC).year


class YearOfTheBar(ThisYear, frozen=True):
    def year(self, bar: Any) -> int:
        return datetime.fromtimestamp(bar.t / 1000, UTC).year


# -- what it is given ----------------------------------------------------------------------------------------------


class UndeclaredVolume(OrderStrategy, frozen=True):
    """Reads volumes without saying so: they are 0 unless something else needs them."""

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        return Book(UNIT if bar.volume % 2 == 1 else 0), ()


class DeclaredVolume(UndeclaredVolume, frozen=True):
    reads: ClassVar[frozenset[str]] = frozenset({"volume"})


class RoundsTheBars(WindowedOrders, frozen=True):
    """Works in place on what it was given."""

    def lookback(self) -> int:
        return 0

    def orders(self, bars: Bars) -> BookArrays:
        close = self.column(bars)
        close -= close % 1000
        return BookArrays(bars.n).target(np.where(close > bars.open, UNIT, 0))

    def column(self, bars: Bars) -> Any:
        return bars.close


class RoundsACopy(RoundsTheBars, frozen=True):
    def column(self, bars: Bars) -> Any:
        return bars.close.copy()


SCRATCH = np.zeros(1 << 20, dtype=np.int64)


class SharedScratch(WindowedOrders, frozen=True):
    """A work array that all threads share."""

    def lookback(self) -> int:
        return 0

    def orders(self, bars: Bars) -> BookArrays:
        work = self.scratch(bars.n)
        work[:] = bars.close
        for _ in range(3):
            work += 1
        work -= bars.open
        return BookArrays(bars.n).target(np.where(work > 0, UNIT, 0))

    def scratch(self, n: int) -> Any:
        return SCRATCH[:n]


class OwnScratch(SharedScratch, frozen=True):
    def scratch(self, n: int) -> Any:
        return np.zeros(n, dtype=np.int64)


# Each with its twin and the tests of which at least one must find it; the twin passes all of them.
ZOO: dict[type, tuple[type, tuple[str, ...]]] = {
    HourStillOpen: (HourClosed, ("future-cut", "future-altered")),
    KnowsItsFills: (PlacesAll, ("future-cut", "future-altered")),
    WholeRange: (LastThirty, ("future-cut", "future-altered")),
    Learner: (Follower, ("repeat",)),
    CountsOutside: (CountsInside, ("resume",)),
    SharedBook: (OwnBook, ("repeat", "resume")),
    MovesAnOrder: (PlacesAnother, ("repeat",)),
    LooseState: (WholeState, ("repeat",)),
    Diary: (NoDiary, ("repeat",)),
    EveryTenthBar: (EveryTenthMinute, ("resume",)),
    RunningFloats: (RunningInts, ("resume",)),
    FourierMean: (WindowMean, ("future-cut",)),
    ThisYear: (YearOfTheBar, ("process",)),
    UndeclaredVolume: (DeclaredVolume, ("columns",)),
    RoundsTheBars: (RoundsACopy, ("inputs",)),
    SharedScratch: (OwnScratch, ("threads",)),
}
