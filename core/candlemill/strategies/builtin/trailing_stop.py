"""Following a trend with a stop that trails it by a multiple of the average true range."""

from typing import Annotated, ClassVar

import numpy as np
from msgspec import Meta

from candlemill.engine.candles import Bars
from candlemill.engine.indicators import HUNDRED, Buffer, true_range, wilder
from candlemill.engine.signals import Desired
from candlemill.engine.trends import Bands, Trail, supertrend, trailing
from candlemill.strategies.base import Multiple, RecursiveLength, Stateful
from candlemill.strategies.builtin.common import TILE, WILDER_WARM_UP, sides, tiles


class Supertrend(Stateful, frozen=True):
    """Long while the supertrend is below the price; optionally short while it is above.

    O. Seban, "Tout le monde mérite d'être riche" (2008). Wilder's average true range; begins as a downtrend.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"high", "low"})

    length: Annotated[RecursiveLength, Meta(description="bars of the average true range")] = 10
    multiple: Annotated[Multiple, Meta(description="hundredths of it from the bar's middle to a band")] = 300
    allow_short: Annotated[bool, Meta(description="hold a short while the supertrend is above")] = False

    def lookback(self) -> int:
        return 1

    def warm_up(self) -> int:
        return WILDER_WARM_UP * self.length

    def start(self) -> tuple[int, float, float, float, float, int]:
        return 0, 0.0, 0.0, 0.0, 0.0, 0

    def advance(
        self, state: tuple[int, float, float, float, float, int], bars: Bars, first: int
    ) -> tuple[Desired, object]:
        mean, bands = wilder(self.length, *state[:2]), Bands(*state[2:])
        out = np.empty(bars.n - first, dtype=np.int8)
        middle, close, spans = Buffer(TILE), Buffer(TILE), Buffer(TILE)
        for a, b in tiles(first, bars.n):
            true_range(bars.high[a - 1 : b], bars.low[a - 1 : b], bars.close[a - 1 : b], spans)
            np.add(bars.high[a:b], bars.low[a:b], out=middle.array[: b - a], casting="unsafe")
            close.array[: b - a] = bars.close[a:b]
            turned = supertrend(middle, close, spans, b - a, mean, self.multiple / HUNDRED, bands)
            sides(turned, self.allow_short, out[a - first : b - first])
        return out, (mean.count, mean.value, bands.upper, bands.lower, bands.before, bands.side)


class AtrStop(Stateful, frozen=True):
    """Turns long with a close more than a multiple of the average true range above the lowest close since it was last
    long, and back with a close as far below the highest one since; optionally short between.

    J. W. Wilder, "New Concepts in Technical Trading Systems" (1978), the volatility system. Begins as a downtrend.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"high", "low"})

    length: Annotated[RecursiveLength, Meta(description="bars of the average true range")] = 7
    multiple: Annotated[Multiple, Meta(description="hundredths of it from the best close to the stop")] = 300
    allow_short: Annotated[bool, Meta(description="hold a short in a downtrend")] = False

    def lookback(self) -> int:
        return 1

    def warm_up(self) -> int:
        return WILDER_WARM_UP * self.length

    def start(self) -> tuple[int, float, float, int]:
        return 0, 0.0, 0.0, 0

    def advance(self, state: tuple[int, float, float, int], bars: Bars, first: int) -> tuple[Desired, object]:
        mean, trail = wilder(self.length, *state[:2]), Trail(*state[2:])
        out = np.empty(bars.n - first, dtype=np.int8)
        close, spans = Buffer(TILE), Buffer(TILE)
        for a, b in tiles(first, bars.n):
            true_range(bars.high[a - 1 : b], bars.low[a - 1 : b], bars.close[a - 1 : b], spans)
            close.array[: b - a] = bars.close[a:b]
            turned = trailing(close, spans, b - a, mean, self.multiple / HUNDRED, trail)
            sides(turned, self.allow_short, out[a - first : b - first])
        return out, (mean.count, mean.value, trail.best, trail.side)
