"""Strategies that are wrong on purpose, one way each; `candlemill.check` must find them all."""

import os
import random
import struct
import time
from datetime import UTC, datetime
from typing import Any, ClassVar

import numpy as np
from candlemill.engine.candles import Bars
from candlemill.strategies import (
    Bar,
    Book,
    BookArrays,
    Order,
    OrderStrategy,
    PositionView,
    Stateful,
    Strategy,
    Weighted,
    Windowed,
    WindowedOrders,
)
from numpy.lib.stride_tricks import sliding_window_view

HOUR = 3_600_000


def last_rows(keys: Any) -> Any:
    """For each bar the last bar with the same key."""
    return np.searchsorted(keys, keys, side="right") - 1


def means(close: Any, n: int) -> Any:
    """The mean of the last `n` closes, exactly; 0 before there are as many."""
    out = np.zeros(len(close), dtype=np.int64)
    if len(close) >= n:
        out[n - 1 :] = sliding_window_view(close, n).sum(axis=1) // n
    return out


# -- look-ahead ----------------------------------------------------------------------------------------------------


class LastClose(Windowed, frozen=True):
    """Compares with the last close of the range."""

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        return bars.close < bars.close[-1]


class CentredWindow(Windowed, frozen=True):
    """A moving average around the bar instead of behind it."""

    n: int = 11

    def lookback(self) -> int:
        return self.n

    def positions(self, bars: Bars) -> Any:
        return bars.close > np.convolve(bars.close / 1e8, np.ones(self.n) / self.n, mode="same") * 1e8


class WholeSeriesNorm(Windowed, frozen=True):
    """Scales by the lowest and highest close of the whole series."""

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        low, high = bars.close.min(), bars.close.max()
        return (bars.close - low) / max(1, high - low) > 0.5


class WholeSeriesZScore(Windowed, frozen=True):
    """Mean and deviation of the whole series."""

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        x = bars.close.astype(np.float64)
        return np.where(x > x.mean() + x.std(), -1, 0).astype(np.int8)


class SameHour(Windowed, frozen=True):
    """Builds hours itself, and decides each minute by its hour's final close: later minutes of the same k-bar."""

    def lookback(self) -> int:
        return 60

    def positions(self, bars: Bars) -> Any:
        return bars.close[last_rows(bars.t // HOUR)] > bars.open


class SameHourHigh(Strategy, frozen=True):
    """The same with the hour's high, in the engine's own contract."""

    reads: ClassVar[frozenset[str]] = frozenset({"high"})

    def lookback(self) -> int:
        return 60

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        keys = bars.t // HOUR
        first = np.searchsorted(keys, keys)
        high = np.maximum.reduceat(bars.high, np.unique(first))[np.searchsorted(np.unique(keys), keys)] if bars.n else 0
        return (bars.close >= high)[lo:hi].astype(np.int8) if bars.n else np.zeros(0, np.int8), b""


class NextClose(Strategy, frozen=True):
    """Reads bars.close[hi] where there is one."""

    def lookback(self) -> int:
        return 1

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        after = np.append(bars.close, bars.close[-1:])[lo + 1 : hi + 1]
        return (after > bars.close[lo:hi]).astype(np.int8), b""


class ShiftMinusOne(Windowed, frozen=True):
    """pandas' shift(-1), which leaves a hole at the end."""

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        after = np.append(bars.close[1:].astype(np.float64), np.nan)
        return after > bars.close


class RollWrap(Windowed, frozen=True):
    """np.roll the wrong way round: the end wraps to the beginning."""

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        return np.roll(bars.close, -1) > bars.close


class BackFilled(Windowed, frozen=True):
    """Closes without volume are filled from the next close that has some."""

    reads: ClassVar[frozenset[str]] = frozenset({"volume"})

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        rows = np.where(bars.volume > 0, np.arange(bars.n), bars.n - 1)
        return bars.close[np.minimum.accumulate(rows[::-1])[::-1]] > bars.open


class Ranked(Windowed, frozen=True):
    """The rank of a close among all closes."""

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        return np.searchsorted(np.sort(bars.close), bars.close) * 10 > bars.n * 9


class BestBar(Windowed, frozen=True):
    """Buys the lowest close of the day, as one only can at the day's end."""

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        out = np.zeros(bars.n, dtype=np.int8)
        for day in np.unique(bars.t // 86_400_000):
            rows = np.flatnonzero(bars.t // 86_400_000 == day)
            out[rows[np.argmin(bars.close[rows])]] = 1
        return out


class PeakFilter(Windowed, frozen=True):
    """A local top is a bar above both of its neighbours."""

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        tops = np.zeros(bars.n, dtype=np.bool_)
        tops[1:-1] = (bars.close[1:-1] > bars.close[:-2]) & (bars.close[1:-1] > bars.close[2:])
        return tops


class Length(Windowed, frozen=True):
    """Flat in the last hundred bars, wherever it ends."""

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        return np.arange(bars.n) < bars.n - 100


class TopOfRange(Strategy, frozen=True):
    """`bars.top` is a bound over all bars, the coming ones too."""

    def lookback(self) -> int:
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        return (bars.close[lo:hi] * 4 > bars.top * 3).astype(np.int8), b""


class NextGap(Windowed, frozen=True):
    """Leaves before a gap begins."""

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        return np.diff(bars.t, append=bars.t[-1:] + 60_000) == 60_000


# -- the past ------------------------------------------------------------------------------------------------------


class ShortByOne(Windowed, frozen=True):
    """Says a lookback of one bar less than it looks."""

    n: int = 20

    def lookback(self) -> int:
        return self.n - 1

    def positions(self, bars: Bars) -> Any:
        before = np.concatenate((np.zeros(self.n, dtype=np.int64), bars.close))[: bars.n]
        return bars.close > before


class ShortByOneStateful(Strategy, frozen=True):
    """The same beside a memory."""

    stateful: ClassVar[bool] = True

    def lookback(self) -> int:
        return 9

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        on, out = memory == b"1", np.zeros(hi - lo, dtype=np.int8)
        for j in range(lo, hi):
            on = bars.close[j] > bars.close[j - 10] if j >= 10 else on
            out[j - lo] = on
        return out, b"1" if on else b""


class RunningSum(Windowed, frozen=True):
    """Averages from a float sum that runs from the candles' start."""

    fast: int = 3
    slow: int = 6

    def __post_init__(self) -> None:
        if not 1 <= self.fast < self.slow:
            raise ValueError("fast must be less than slow")

    def lookback(self) -> int:
        return self.slow

    def positions(self, bars: Bars) -> Any:
        sums = np.concatenate(([0.0], np.cumsum(bars.close / 1e8)))
        out = np.zeros(bars.n, dtype=np.int8)
        n = bars.n + 1
        fast, slow = (sums[w:] - sums[: n - w] for w in (self.fast, self.slow))
        out[self.slow - 1 :] = fast[self.slow - self.fast :] / self.fast > slow / self.slow
        return out


class SinceStart(Windowed, frozen=True):
    """Above the mean of everything so far."""

    def lookback(self) -> int:
        return 50

    def positions(self, bars: Bars) -> Any:
        return bars.close > np.cumsum(bars.close / 1e8) / np.arange(1, bars.n + 1) * 1e8


class Ema(Windowed, frozen=True):
    """An exponential average has no end: five spans are not all it depends on."""

    def lookback(self) -> int:
        return 50

    def positions(self, bars: Bars) -> Any:
        level, out = float(bars.close[0]) if bars.n else 0.0, np.zeros(bars.n, dtype=np.int8)
        for j, close in enumerate(bars.close.tolist()):
            level += (close - level) / 10
            out[j] = close > level
        return out


class EveryTenth(Windowed, frozen=True):
    """Counts bars from wherever the candles begin."""

    def lookback(self) -> int:
        return 15

    def positions(self, bars: Bars) -> Any:
        return np.arange(bars.n) % 10 == 0


class Forgetful(Stateful, frozen=True):
    """Keeps a position, but not since when, in its state."""

    held: ClassVar[list[int]] = [0]

    def start(self) -> Any:
        return (0,)

    def step(self, state: Any, bar: Bar) -> tuple[int, Any]:
        self.held[0] = self.held[0] + 1 if state[0] else 0
        side = int(bar.close > bar.open) if not state[0] else int(self.held[0] < 7)
        return side, (side,)


class PartOnly(Strategy, frozen=True):
    """Compares with the mean of the bars that are requested together."""

    def lookback(self) -> int:
        return 5

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        part = bars.close[lo:hi]
        return (part > part[0]).astype(np.int8) if hi > lo else np.zeros(0, np.int8), b""


# -- memory --------------------------------------------------------------------------------------------------------


class Hoarder(Strategy, frozen=True):
    """Its memory grows by a byte every ten minutes."""

    stateful: ClassVar[bool] = True

    def lookback(self) -> int:
        return 1

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        ups = (bars.close[lo:hi] > bars.open[lo:hi]).astype(np.int8)
        return ups, memory + b"x" * int(np.sum(bars.t[lo:hi] % (10 * 60_000) == 0))


class NotCanonical(Strategy, frozen=True):
    """Equal states, different bytes: it notes how often it was requested."""

    stateful: ClassVar[bool] = True

    def lookback(self) -> int:
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        if lo >= hi:
            return np.zeros(0, dtype=np.int8), memory
        on, calls = (int(x) for x in (memory or b"0,0").split(b","))
        ups = (bars.close[lo:hi] > bars.open[lo:hi]).astype(np.int8)
        return ups, b"%d,%d" % (on, calls + 1)


class WindowedWithMemory(Strategy, frozen=True):
    """Returns a memory without saying that it is stateful: nobody hands it on."""

    def lookback(self) -> int:
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        on, out = memory == b"1", np.zeros(hi - lo, dtype=np.int8)
        for j in range(lo, hi):
            on = bars.close[j] >= bars.open[j] if bars.close[j] != bars.open[j] else on
            out[j - lo] = on
        return out, b"1" if on else b""


class BinaryMemory(Strategy, frozen=True):
    """Bytes that are no text: a state travels in events."""

    stateful: ClassVar[bool] = True

    def lookback(self) -> int:
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        count = (struct.unpack("<q", memory)[0] if memory else 200) + hi - lo
        return np.ones(hi - lo, dtype=np.int8), struct.pack("<q", count) if hi > lo else memory


# -- hidden state --------------------------------------------------------------------------------------------------

SEEN: list[int] = []
CACHE: dict[int, Any] = {}
SCRATCH = np.zeros(1 << 20, dtype=np.float64)


class MutableGlobal(Windowed, frozen=True):
    """A global list that every call adds to."""

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        SEEN.append(bars.n)
        return bars.close % 7 < len(SEEN) % 7


class ClassAttribute(Windowed, frozen=True):
    """The best price ever seen by any call, kept on the class."""

    best: ClassVar[list[int]] = [0]

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        self.best[0] = max(self.best[0], int(bars.close.max()) if bars.n else 0)
        return bars.close * 2 > self.best[0]


class Tired(Windowed, frozen=True):
    """Answers otherwise from the sixtieth call on."""

    calls: ClassVar[list[int]] = [0]

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        self.calls[0] += 1
        return (bars.close > bars.open) ^ (self.calls[0] >= 60)


class CachedByLength(Windowed, frozen=True):
    """A cache with too small a key."""

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        if bars.n not in CACHE:
            CACHE[bars.n] = bars.close > bars.open
        return CACHE[bars.n]


class Scratch(Strategy, frozen=True):
    """A work array that all threads share."""

    def lookback(self) -> int:
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        work = SCRATCH[: hi - lo]
        work[:] = bars.close[lo:hi]
        for _ in range(20):
            work *= 1.0
            sum(range(500))
        work -= bars.open[lo:hi]
        return (work > 0).astype(np.int8), b""


class Random(Windowed, frozen=True):
    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        return np.random.default_rng().random(bars.n) > 0.5


class SeededRandom(Windowed, frozen=True):
    """Seeded, so the same twice; but it draws by the place in the data."""

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        return np.random.default_rng(1).random(bars.n) > 0.5


class RareRandom(Windowed, frozen=True):
    """One call in ten is off by one decision."""

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        out = bars.close > bars.open
        if bars.n and random.random() < 0.1:
            out[random.randrange(bars.n)] ^= True
        return out


class Clock(Windowed, frozen=True):
    """Another answer each second."""

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        return (bars.close > bars.open) ^ (int(time.time() * 3) % 2 == 0)


class Year(Windowed, frozen=True):
    """Another answer next year."""

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        return (bars.close > bars.open) ^ (datetime.now(UTC).year % 2 == 0)


class Hash(Windowed, frozen=True):
    """The order of a set of texts is another in each process."""

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        order = [int(name.split()[1]) for name in {f"name {k}" for k in range(20)}]
        return np.array(order)[bars.close % 20] % 2


class Environment(Windowed, frozen=True):
    """A parameter in the environment."""

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        return bars.close % 7 < int(os.environ.get("DISHONEST_LEVEL", "3"))


# -- answers and inputs --------------------------------------------------------------------------------------------


class WritesToBars(Strategy, frozen=True):
    """Works in place on what it was given."""

    def lookback(self) -> int:
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        bars.close[lo:hi] -= bars.close[lo:hi] % 100
        return (bars.close[lo:hi] > bars.open[lo:hi]).astype(np.int8), b""


class Undeclared(Strategy, frozen=True):
    """Reads highs without saying so; they are there only when something else needs them."""

    def lookback(self) -> int:
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        if not len(bars.high):
            return np.zeros(hi - lo, dtype=np.int8), b""
        return (bars.high[lo:hi] == bars.close[lo:hi]).astype(np.int8), b""


class OutOfRange(Strategy, frozen=True):
    """A position of two."""

    def lookback(self) -> int:
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        return (bars.close[lo:hi] > bars.open[lo:hi]).astype(np.int8) * 2, b""


class WrongLength(Strategy, frozen=True):
    """Decisions of all bars instead of those that are requested."""

    def lookback(self) -> int:
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        return (bars.close > bars.open).astype(np.int8), b""


class WrongType(Strategy, frozen=True):
    """Floats."""

    def lookback(self) -> int:
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        return np.sign(bars.close[lo:hi] - bars.open[lo:hi]).astype(np.float64), b""


class FailsWhenShort(Windowed, frozen=True):
    """Needs more bars than there may be."""

    def lookback(self) -> int:
        return 3

    def positions(self, bars: Bars) -> Any:
        before = bars.close[bars.n - (bars.n - 10) - 10 : bars.n - 10]
        return np.concatenate((np.zeros(10, dtype=np.bool_), bars.close[10:] > before))


class FailsWithoutVolume(Windowed, frozen=True):
    """Divides by the volume, and takes the remainder of what came out as a place."""

    reads: ClassVar[frozenset[str]] = frozenset({"volume"})

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        if bars.n and not bars.volume.any():
            raise ZeroDivisionError("no volume")
        return bars.close > bars.open


# -- what is found as a warning ------------------------------------------------------------------------------------


class Wraps(Windowed, frozen=True):
    """A product of prices that leaves 64 bits."""

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        before = np.concatenate((bars.close[:1], bars.close[:-1])) if bars.n else bars.close
        return bars.close * 300_000 > before * 299_999


class FloatSumState(Stateful, frozen=True):
    """A sum from the candles' start, carried exactly: right, but every guess is wrong."""

    def start(self) -> Any:
        return (0.0, 0)

    def step(self, state: Any, bar: Bar) -> tuple[int, Any]:
        total, n = state[0] + bar.close, state[1] + 1
        return int(bar.close * n > total), (total, n)


class Leaks(Windowed, frozen=True):
    """Keeps all candles that it ever saw."""

    kept: ClassVar[list[Any]] = []

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        self.kept.append(bars.close.copy())
        return bars.close > bars.open


class Slow(Windowed, frozen=True):
    """Several calls of NumPy for every single bar."""

    def lookback(self) -> int:
        return 3

    def positions(self, bars: Bars) -> Any:
        windows = [bars.close[max(0, j - 3) : j + 1] for j in range(bars.n)]
        return np.array([window[-1] > window.mean() + window.std() for window in windows], dtype=np.bool_)


# -- orders --------------------------------------------------------------------------------------------------------


class OrdersFromTheEnd(WindowedOrders, frozen=True):
    """Buys with a limit at the lowest low of the whole range."""

    reads: ClassVar[frozenset[str]] = frozenset({"high", "low"})

    def lookback(self) -> int:
        return 1

    def orders(self, bars: Bars) -> BookArrays:
        low = int(bars.low.min()) + 1
        return BookArrays(bars.n).limit("low", 1, low, size=1_000_000, stop=low // 2, take=low * 2)


class OpenHour(WindowedOrders, frozen=True):
    """Sells above the high of the hour that has not ended: its later minutes are not known yet."""

    reads: ClassVar[frozenset[str]] = frozenset({"high", "low"})

    def lookback(self) -> int:
        return 120

    def orders(self, bars: Bars) -> BookArrays:
        hour = bars.t // HOUR
        last = last_rows(hour)
        high = np.array([bars.high[hour == one].max() for one in np.unique(hour)], dtype=np.int64)
        return BookArrays(bars.n).stop("up", 1, high[np.unique(hour, return_inverse=True)[1]], size=1_000_000).protect(
            stop=bars.close[last] * 99 // 100
        )  # fmt: skip


class ShortMemory(WindowedOrders, frozen=True):
    """Says that it looks back 5 bars, and uses 50."""

    reads: ClassVar[frozenset[str]] = frozenset({"high", "low"})

    def lookback(self) -> int:
        return 5

    def orders(self, bars: Bars) -> BookArrays:
        return BookArrays(bars.n).target(np.where(bars.close > means(bars.close, 50), 1_000_000, 0))


class KeptOutside(OrderStrategy, frozen=True):
    """Keeps what it bought at outside of its state."""

    bought: ClassVar[list[int]] = []

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        if position.side:
            type(self).bought.append(position.entry)
        last = type(self).bought[-1] if type(self).bought else bar.close
        price = max(1, min(bar.close, last))
        return Book(None, [Order("in", 1, "limit", price, size=1_000_000, take=2 * price)]), ()


class WrongHour(OrderStrategy, frozen=True):
    """Uses an hour's bar, and says that it looks back at nothing."""

    timeframes: ClassVar[tuple[str, ...]] = ("1h",)

    def lookback(self) -> int:
        return 0

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        hour = bar.at("1h")
        return Book(1_000_000 if hour is not None and bar.close > hour.close else 0), ()


class RandomOrders(OrderStrategy, frozen=True):
    """Draws the distance of its order."""

    def step(self, state: Any, bar: Any, position: PositionView) -> Any:
        price = max(1, bar.close - random.randrange(bar.close // 100 + 1))
        return Book(None if not position.side else 0, [Order("in", 1, "limit", price, size=1_000_000)]), ()


class FutureWeights(Weighted, frozen=True):
    """Holds more before the next close is higher."""

    def lookback(self) -> int:
        return 1

    def weights(self, bars: Bars) -> Any:
        return np.append(bars.close[1:] > bars.close[:-1], False) * 0.5


ORDERS = {
    OrdersFromTheEnd: {"future-cut", "future-altered"},
    OpenHour: {"future-cut", "future-altered"},
    ShortMemory: {"lookback", "resume"},
    KeptOutside: {"repeat", "resume", "future-cut", "future-altered", "lookback"},
    WrongHour: {"lookback"},
    RandomOrders: {"repeat"},
    FutureWeights: {"future-cut", "future-altered"},
}
