"""Where the price stands against its own past; the time of day; and always long, for comparison."""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from candlemill.engine.candles import DAY_MS, MINUTE_MS, Bars
from candlemill.engine.indicators import check_products
from candlemill.engine.signals import Desired, Mask, parts_per_million
from candlemill.strategies.base import RATE_LIMIT, Length, Strategy, Windowed, padded
from candlemill.strategies.builtin.common import tiles

Minute = Annotated[int, Meta(ge=0, le=1439)]


class Momentum(Strategy, frozen=True):
    """Long while the close is above the close `lookback` bars ago by more than the threshold."""

    lookback_bars: Annotated[Length, Meta(description="bars to look back")] = msgspec.field(
        default=1440, name="lookback"
    )
    threshold: Annotated[int, Meta(ge=0, le=RATE_LIMIT, description="least move, in ppm of the earlier close")] = 0
    allow_short: Annotated[bool, Meta(description="hold a short after a fall of more than the threshold")] = False

    def lookback(self) -> int:
        return self.lookback_bars

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        back = self.lookback_bars
        before = bars.close[:-back]
        move = bars.close[back:] - before
        if (bars.top // 1_000_000 + 1) * self.threshold >= 1 << 62:
            raise OverflowError(f"threshold={self.threshold} ppm of prices up to {bars.top} does not fit 64 bits")
        least: NDArray[np.int64] | int = parts_per_million(before, self.threshold) if self.threshold else 0
        desired = (move > least).view(np.int8)
        if self.allow_short:
            desired = desired - (-move > least).view(np.int8)
        return padded(desired, back, lo, hi), b""


class BuyAndHold(Strategy, frozen=True):
    """Long from the first bar on."""

    def lookback(self) -> int:
        return 0

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        return np.ones(hi - lo, dtype=np.int8), b""


class DualMomentum(Windowed, frozen=True):
    """Long while the close is above the one `slow` bars ago and moved more per bar over `fast` bars than over `slow`.

    G. Antonacci, "Dual Momentum Investing" (2014), asks for absolute momentum (a rise) and for relative momentum (the
    strongest of several assets). With one symbol, the relative part compares its recent pace with its own longer one.
    """

    fast: Annotated[Length, Meta(description="bars of the recent move")] = 1440
    slow: Annotated[Length, Meta(description="bars of the longer move")] = 10_080

    def __post_init__(self) -> None:
        if self.fast >= self.slow:
            raise ValueError(f"fast={self.fast} must be less than slow={self.slow}")

    def lookback(self) -> int:
        return self.slow

    def positions(self, bars: Bars) -> Mask:
        check_products(bars.top, self.slow)
        out = np.zeros(bars.n, dtype=np.bool_)
        for a, b in tiles(self.slow, bars.n):
            now = bars.close[a:b]
            longer = now - bars.close[a - self.slow : b - self.slow]
            recent = now - bars.close[a - self.fast : b - self.fast]
            recent *= self.slow
            np.greater(longer, 0, out=out[a:b])
            longer *= self.fast
            out[a:b] &= recent > longer
        return out


class TimeOfDay(Windowed, frozen=True):
    """Long after bars that open from minute `start` of the UTC day until before minute `end`, past midnight if it must.

    M. Padyšák, R. Vojtko, "Seasonality, Trend-following, and Mean reversion in Bitcoin" (2022), find the hours from 22
    UTC on the best ones. Fills at the next bar's open come one bar later than the times given.
    """

    start: Annotated[Minute, Meta(description="minute of the UTC day that begins it")] = 1320
    end: Annotated[Minute, Meta(description="minute of the UTC day that ends it")] = 0

    def __post_init__(self) -> None:
        if self.start == self.end:
            raise ValueError(f"start={self.start} and end={self.end} must differ")

    def lookback(self) -> int:
        return 0

    def positions(self, bars: Bars) -> Mask:
        out = np.empty(bars.n, dtype=np.bool_)
        begin, stop = self.start * MINUTE_MS, self.end * MINUTE_MS
        for a, b in tiles(0, bars.n):
            time = bars.t[a:b] % DAY_MS
            if begin < stop:
                out[a:b] = (time >= begin) & (time < stop)
            else:
                out[a:b] = (time >= begin) | (time < stop)
        return out
