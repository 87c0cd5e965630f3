"""Crosses of averages."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from msgspec import Meta

from candlemill.engine.candles import Bars
from candlemill.engine.indicators import Buffer, exponential, smooth, smooth_gap
from candlemill.engine.signals import Bits, Desired, average_cross, average_crosses
from candlemill.strategies.base import Length, RecursiveLength, Stateful, Strategy, padded
from candlemill.strategies.builtin.common import EXPONENTIAL_WARM_UP, TILE, signs, tiles


class SmaCross(Strategy, frozen=True):
    """Long while the fast simple moving average of closes is above the slow one; optionally short while below."""

    fast: Annotated[Length, Meta(description="bars of the fast average")] = 10
    slow: Annotated[Length, Meta(description="bars of the slow average")] = 50
    allow_short: Annotated[bool, Meta(description="hold a short while the fast average is below")] = False

    def __post_init__(self) -> None:
        if self.fast >= self.slow:
            raise ValueError(f"fast={self.fast} must be less than slow={self.slow}")

    def lookback(self) -> int:
        return self.slow

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        cross = average_cross(bars, self.fast, self.slow, self.allow_short)
        return padded(cross, self.slow - 1, lo, hi), b""

    @classmethod
    def decide_together(cls, sets: Sequence["Strategy"], bars: Bars, lo: int, hi: int) -> tuple[Bits, Bits] | None:
        crosses = [one for one in sets if isinstance(one, SmaCross)]
        short = any(one.allow_short for one in crosses)
        found = average_crosses(bars, [(one.fast, one.slow) for one in crosses], lo, hi, short)
        if found is not None and short:
            found[1][[not one.allow_short for one in crosses]] = 0
        return found


class EmaCross(Stateful, frozen=True):
    """Long while the fast exponential moving average of closes is above the slow one; optionally short while below.

    The cross of two averages is in R. Donchian's and in W. Brock, J. Lakonishok, B. LeBaron, "Simple Technical Trading
    Rules and the Stochastic Properties of Stock Returns", Journal of Finance 47 (1992); exponential ones in G. Appel,
    "Technical Analysis: Power Tools for Active Investors" (2005).
    """

    fast: Annotated[RecursiveLength, Meta(description="bars of the fast average")] = 12
    slow: Annotated[RecursiveLength, Meta(description="bars of the slow average")] = 26
    allow_short: Annotated[bool, Meta(description="hold a short while the fast average is below")] = False

    def __post_init__(self) -> None:
        if self.fast >= self.slow:
            raise ValueError(f"fast={self.fast} must be less than slow={self.slow}")

    def warm_up(self) -> int:
        return EXPONENTIAL_WARM_UP * self.slow

    def start(self) -> tuple[int, float, int, float]:
        return 0, 0.0, 0, 0.0

    def advance(self, state: tuple[int, float, int, float], bars: Bars, first: int) -> tuple[Desired, object]:
        fast, slow = exponential(self.fast, *state[:2]), exponential(self.slow, *state[2:])
        out = np.empty(bars.n - first, dtype=np.int8)
        gap = Buffer(TILE)
        for a, b in tiles(first, bars.n):
            gap.array[: b - a] = bars.close[a:b]
            smooth_gap(gap, b - a, fast, slow)
            signs(gap.array[: b - a], self.allow_short, out[a - first : b - first])
        return out, (fast.count, fast.value, slow.count, slow.value)


class Macd(Stateful, frozen=True):
    """Long while the MACD line is above its signal line; optionally short while below.

    G. Appel, "The Moving Average Convergence-Divergence Method" (1979). The line is the fast exponential moving average
    of closes less the slow one, the signal line an exponential moving average of that.
    """

    fast: Annotated[RecursiveLength, Meta(description="bars of the fast average")] = 12
    slow: Annotated[RecursiveLength, Meta(description="bars of the slow average")] = 26
    signal: Annotated[RecursiveLength, Meta(description="bars of the signal line")] = 9
    allow_short: Annotated[bool, Meta(description="hold a short while the line is below its signal")] = False

    def __post_init__(self) -> None:
        if self.fast >= self.slow:
            raise ValueError(f"fast={self.fast} must be less than slow={self.slow}")

    def warm_up(self) -> int:
        return EXPONENTIAL_WARM_UP * (self.slow + self.signal)

    def start(self) -> tuple[int, float, int, float, int, float]:
        return self.fast - self.slow, 0.0, 0, 0.0, 0, 0.0  # both averages begin at the same bar

    def advance(
        self, state: tuple[int, float, int, float, int, float], bars: Bars, first: int
    ) -> tuple[Desired, object]:
        fast, slow = exponential(self.fast, *state[:2]), exponential(self.slow, *state[2:4])
        signal = exponential(self.signal, *state[4:])
        out = np.empty(bars.n - first, dtype=np.int8)
        gap, line = Buffer(TILE), np.empty(TILE)
        for a, b in tiles(first, bars.n):
            gap.array[: b - a] = bars.close[a:b]
            smooth_gap(gap, b - a, fast, slow)
            line[:] = gap.array
            smooth(gap, b - a, signal)
            line -= gap.array
            signs(line[: b - a], self.allow_short, out[a - first : b - first])
        return out, (fast.count, fast.value, slow.count, slow.value, signal.count, signal.value)
