"""Strategies that are right in ways that look suspicious; `candlemill.check` must accuse none of them."""

from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
from candlemill.engine.candles import Bars
from candlemill.strategies import Bar, Length, Stateful, Strategy, Windowed
from msgspec import Meta
from numpy.lib.stride_tricks import sliding_window_view


def before(column: Any, n: int) -> Any:
    """The value `n` bars ago; the first one where there is none."""
    return np.concatenate((np.repeat(column[:1], n), column))[: len(column)]


class FloatWindow(Windowed, frozen=True):
    """Bollinger bands in floats, each window summed by itself."""

    n: Length = 20
    width: Annotated[float, Meta(gt=0, le=10)] = 1.5

    def lookback(self) -> int:
        return self.n - 1

    def positions(self, bars: Bars) -> Any:
        out = np.zeros(bars.n, dtype=np.int8)
        if bars.n >= self.n:
            windows = sliding_window_view(bars.close / 1e8, self.n)
            middle, spread = windows.mean(axis=1), windows.std(axis=1)
            close = bars.close[self.n - 1 :] / 1e8
            out[self.n - 1 :] = (close > middle + self.width * spread).astype(np.int8)
            out[self.n - 1 :] -= close < middle - self.width * spread
        return out


class HourOfDay(Windowed, frozen=True):
    """Knows what time it is from the bars."""

    first: Annotated[int, Meta(ge=0, le=23)] = 8

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        return bars.t // 3_600_000 % 24 >= self.first


class HourBefore(Windowed, frozen=True):
    """Hours of its own making, but only finished ones: the close at which the hour before ended, in 120 minutes."""

    def lookback(self) -> int:
        return 120

    def positions(self, bars: Bars) -> Any:
        hours = bars.t // 3_600_000
        first = np.searchsorted(hours, hours)
        rows = np.arange(bars.n)
        known = (first > 0) & (rows - first < 120)
        return known & (bars.close > bars.close[np.maximum(first - 1, 0)])


class VolumeSurge(Windowed, frozen=True):
    """Several times the volume of some bars ago, on an up bar."""

    reads: ClassVar[frozenset[str]] = frozenset({"volume"})

    n: Length = 5
    factor: Annotated[int, Meta(ge=1, le=100)] = 3

    def lookback(self) -> int:
        return self.n

    def positions(self, bars: Bars) -> Any:
        return (bars.volume // self.factor > before(bars.volume, self.n)) & (bars.close > bars.open)


class AfterGap(Windowed, frozen=True):
    """Stays out of the bar after a gap: it sees the gap when it has ended."""

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        return bars.t - before(bars.t, 1) <= 60_000


@lru_cache(maxsize=64)
def _signs(closes: bytes, opens: bytes) -> Any:
    return np.frombuffer(closes, dtype=np.int64) > np.frombuffer(opens, dtype=np.int64)


class PureCache(Windowed, frozen=True):
    """A cache whose key is all that the value depends on is no state."""

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        return _signs(bars.close.tobytes(), bars.open.tobytes())


class SeededByTime(Windowed, frozen=True):
    """Noise, but of the bar's own time: the same wherever the candles begin."""

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        mixed = (bars.t // 60_000).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        return (mixed >> np.uint64(61)).astype(np.int64) == 0


class FixedPrice(Windowed, frozen=True):
    """Not scale-free: a price that somebody remembers."""

    level: Annotated[int, Meta(ge=1)] = 3_000_000_000_000

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Any:
        return bars.close > self.level


class EmaState(Stateful, frozen=True):
    """Two exponential averages, carried with all their bits."""

    fast: Annotated[int, Meta(ge=1, le=1000)] = 5
    slow: Annotated[int, Meta(ge=2, le=1000)] = 20

    def start(self) -> Any:
        return (0.0, 0.0, 0)

    def step(self, state: Any, bar: Bar) -> tuple[int, Any]:
        fast, slow, n = state
        fast += (bar.close - fast) / self.fast if n else bar.close
        slow += (bar.close - slow) / self.slow if n else bar.close
        return (fast > slow) - (fast < slow) if n == 30 else 0, (fast, slow, min(n + 1, 30))


class TrailingStop(Stateful, frozen=True):
    """In on a rise over the lookback, out below the best close since by some ppm."""

    n: Length = 10
    drop: Annotated[int, Meta(ge=1, le=500_000)] = 5_000

    def lookback(self) -> int:
        return self.n

    def start(self) -> Any:
        return (0, 0)

    def advance(self, state: Any, bars: Bars, first: int) -> tuple[Any, Any]:
        held, best = state
        closes, out = bars.close.tolist(), []
        for j in range(first, bars.n):
            if held:
                best = max(best, closes[j])
                held = int(closes[j] > best - best * self.drop // 1_000_000)
            elif closes[j] > closes[j - self.n]:
                held, best = 1, closes[j]
            best = best if held else 0
            out.append(held)
        return out, (held, best)


class RawLatch(Strategy, frozen=True):
    """The engine's own contract: text as memory."""

    stateful: ClassVar[bool] = True
    reads: ClassVar[frozenset[str]] = frozenset({"high", "low"})

    def lookback(self) -> int:
        return 1

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Any, bytes]:
        side, out = int(memory or b"0"), np.zeros(hi - lo, dtype=np.int8)
        for j in range(max(lo, 1), hi):
            if bars.close[j] > bars.high[j - 1]:
                side = 1
            elif bars.close[j] < bars.low[j - 1]:
                side = -1
            out[j - lo] = side
        return out, b"%d" % side if hi > lo else memory


class Careful(Windowed, frozen=True):
    """Refuses what it cannot carry, as the engine's own strategies do."""

    def lookback(self) -> int:
        return 1

    def positions(self, bars: Bars) -> Any:
        if bars.top > 2**62 // 1000:
            raise OverflowError(f"a thousand times {bars.top} does not fit 64 bits")
        return bars.close * 1000 > before(bars.close, 1) * 999


HONEST = [
    kind
    for kind in list(vars().values())
    if isinstance(kind, type) and issubclass(kind, Strategy) and kind.__module__ == __name__
]
