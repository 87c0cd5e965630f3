"""Breaking out of a channel."""

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from candlemill.engine.signals import Desired, latch, rolling_max, rolling_min
from candlemill.engine.tape import Bars
from candlemill.strategies.base import Length, Strategy


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
        n = bars.n
        enter, leave = np.zeros(n, dtype=np.bool_), np.zeros(n, dtype=np.bool_)
        if n > first:
            close = bars.close[first:]
            enter[first:] = close > rolling_max(bars.high[:-1], self.entry)[first - self.entry :]
            leave[first:] = close < rolling_min(bars.low[:-1], self.exit)[first - self.exit :]
        desired = latch(enter[lo:hi], leave[lo:hi], memory == b"1")
        if lo >= hi:
            return desired, memory
        return desired, b"1" if desired[-1] else b""
