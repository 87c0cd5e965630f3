"""Where the price stands against its own past, and always long for comparison."""

from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from candlemill.engine.signals import Desired, parts_per_million
from candlemill.engine.tape import Bars
from candlemill.strategies.base import RATE_LIMIT, Length, Strategy, padded


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
