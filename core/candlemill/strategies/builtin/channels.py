"""Breaking out of a channel."""

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from candlemill.engine.candles import Bars
from candlemill.engine.deviations import Deviations
from candlemill.engine.indicators import HUNDRED, Buffer, exponential, hold, smooth_two, true_range, wilder
from candlemill.engine.signals import Desired, latch, rolling_max, rolling_min
from candlemill.strategies.base import DeviationLength, Length, Multiple, RecursiveLength, Stateful, Strategy
from candlemill.strategies.builtin.common import EXPONENTIAL_WARM_UP, TILE, WILDER_WARM_UP, tiles


class Donchian(Strategy, frozen=True):
    """Long from a close above the highest high of `entry` bars until one below the lowest low of `exit` bars."""

    reads: ClassVar[frozenset[str]] = frozenset({"high", "low"})
    stateful: ClassVar[bool] = True

    entry: Annotated[Length, Meta(description="bars of the channel that is broken upwards")] = 480
    exit: Annotated[Length, Meta(description="bars of the channel that is broken downwards")] = 240

    def lookback(self) -> int:
        return max(self.entry, self.exit)

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        first = self.lookback()
        enter, leave = np.zeros(hi - lo, dtype=np.bool_), np.zeros(hi - lo, dtype=np.bool_)
        for a, b in tiles(max(lo, first), hi, max(TILE, 4 * first)):
            close = bars.close[a:b]
            enter[a - lo : b - lo] = close > rolling_max(bars.high[a - self.entry : b - 1], self.entry)
            leave[a - lo : b - lo] = close < rolling_min(bars.low[a - self.exit : b - 1], self.exit)
        desired = latch(enter, leave, memory == b"1")
        if lo >= hi:
            return desired, memory
        return desired, b"1" if desired[-1] else b""


class Bollinger(Stateful, frozen=True):
    """Long from a close above the upper Bollinger band until one below the middle; optionally short likewise below.

    J. Bollinger, "Bollinger on Bollinger Bands" (2001), the breakout of its method I with an exit at the average.
    The deviation is that of the population; comparisons are exact.
    """

    length: Annotated[DeviationLength, Meta(description="bars of the average and of the deviation")] = 20
    width: Annotated[Multiple, Meta(description="hundredths of a deviation from the average to a band")] = 200
    allow_short: Annotated[bool, Meta(description="hold a short from a close below the lower band")] = False

    def lookback(self) -> int:
        return self.length - 1

    def start(self) -> tuple[int]:
        return (0,)

    def advance(self, state: tuple[int], bars: Bars, first: int) -> tuple[Desired, object]:
        out = np.empty(bars.n - first, dtype=np.int8)
        held = state[0]
        tile = max(TILE, 4 * self.length)
        apart = Deviations(self.length, tile)
        for a, b in tiles(first, bars.n, tile):
            apart.look(bars.close[a - self.length + 1 : b])
            shorts = (apart.below(self.width), apart.above(0)) if self.allow_short else None
            out[a - first : b - first] = hold(apart.above(self.width), apart.below(0), shorts, held)
            held = int(out[b - first - 1])
        return out, (held,)


class Keltner(Stateful, frozen=True):
    """Long from a close above the upper Keltner channel until one below its middle; optionally short likewise below.

    C. W. Keltner, "How to Make Money in Commodities" (1960), in L. B. Raschke's form of the 1980s: an exponential
    moving average and multiples of Wilder's average true range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"high", "low"})

    length: Annotated[RecursiveLength, Meta(description="bars of the average of closes")] = 20
    range_length: Annotated[RecursiveLength, Meta(description="bars of the average true range")] = 10
    width: Annotated[Multiple, Meta(description="hundredths of it from the average to the channel's edge")] = 200
    allow_short: Annotated[bool, Meta(description="hold a short from a close below the channel")] = False

    def lookback(self) -> int:
        return 1

    def warm_up(self) -> int:
        return max(EXPONENTIAL_WARM_UP * self.length, WILDER_WARM_UP * self.range_length)

    def start(self) -> tuple[int, float, int, float, int]:
        return 0, 0.0, 0, 0.0, 0

    def advance(self, state: tuple[int, float, int, float, int], bars: Bars, first: int) -> tuple[Desired, object]:
        middle, mean = exponential(self.length, *state[:2]), wilder(self.range_length, *state[2:4])
        if middle.count == 0:  # the first bar has a close, though no true range
            middle.take(float(bars.close[first - 1]))
        out = np.empty(bars.n - first, dtype=np.int8)
        held = state[4]
        average, reach, close = Buffer(TILE), Buffer(TILE), np.empty(TILE)
        for a, b in tiles(first, bars.n):
            true_range(bars.high[a - 1 : b], bars.low[a - 1 : b], bars.close[a - 1 : b], reach)
            close[: b - a] = bars.close[a:b]
            average.array[:] = close
            smooth_two(reach, average, b - a, mean, middle)
            apart, edge = average.array[: b - a], reach.array[: b - a]
            np.subtract(close[: b - a], apart, out=apart)
            edge *= self.width / HUNDRED
            shorts = (apart < -edge, apart > 0) if self.allow_short else None
            out[a - first : b - first] = hold(apart > edge, apart < 0, shorts, held)
            held = int(out[b - first - 1])
        return out, (middle.count, middle.value, mean.count, mean.value, held)
