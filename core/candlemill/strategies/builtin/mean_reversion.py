"""Trading against a move that went too far."""

from typing import Annotated

import numpy as np
from msgspec import Meta

from candlemill.engine.candles import Bars
from candlemill.engine.deviations import Deviations
from candlemill.engine.indicators import Buffer, hold, moves, smooth_two, wilder
from candlemill.engine.signals import Desired
from candlemill.strategies.base import DeviationLength, Multiple, RecursiveLength, Stateful
from candlemill.strategies.builtin.common import TILE, WILDER_WARM_UP, tiles

Percent = Annotated[int, Meta(ge=0, le=100)]


class RsiReversion(Stateful, frozen=True):
    """Long from an RSI below `low` until one above `exit`; optionally short from one above `high` until one below it.

    J. W. Wilder, "New Concepts in Technical Trading Systems" (1978). Where no price moved there is no RSI and no
    signal.
    """

    length: Annotated[RecursiveLength, Meta(description="bars of the average gain and loss")] = 14
    low: Annotated[Percent, Meta(description="RSI below which a long begins")] = 30
    exit: Annotated[Percent, Meta(description="RSI beyond which a position ends")] = 50
    high: Annotated[Percent, Meta(description="RSI above which a short begins")] = 70
    allow_short: Annotated[bool, Meta(description="hold a short after a rise")] = False

    def __post_init__(self) -> None:
        if not self.low <= self.exit <= self.high:
            raise ValueError(f"low={self.low}, exit={self.exit} and high={self.high} must ascend")

    def lookback(self) -> int:
        return 1

    def warm_up(self) -> int:
        return WILDER_WARM_UP * self.length

    def start(self) -> tuple[int, float, float, int]:
        return 0, 0.0, 0.0, 0

    def advance(self, state: tuple[int, float, float, int], bars: Bars, first: int) -> tuple[Desired, object]:
        count, gain, loss, held = state
        up, down = wilder(self.length, count, gain), wilder(self.length, count, loss)
        out = np.empty(bars.n - first, dtype=np.int8)
        gains, losses, room = Buffer(TILE), Buffer(TILE), np.empty(TILE)
        for a, b in tiles(first, bars.n):
            moves(bars.close[a - 1 : b], gains, losses)
            smooth_two(gains, losses, b - a, up, down)
            part, whole, level = gains.array[: b - a], losses.array[: b - a], room[: b - a]
            whole += part
            part *= 100.0
            enter = part < np.multiply(whole, self.low, out=level)
            enter_short = part > np.multiply(whole, self.high, out=level) if self.allow_short else None
            leave = part > np.multiply(whole, self.exit, out=level)
            shorts = None if enter_short is None else (enter_short, part < level)
            out[a - first : b - first] = hold(enter, leave, shorts, held)
            held = int(out[b - first - 1])
        return out, (up.count, up.value, down.value, held)


class ZscoreReversion(Stateful, frozen=True):
    """Long from a close more than `entry` deviations below its rolling mean until it is less than `exit` below;
    optionally short likewise above.

    E. P. Chan, "Algorithmic Trading: Winning Strategies and Their Rationale" (2013), chapter 3, on one symbol's price.
    The deviation is that of the population; comparisons are exact.
    """

    length: Annotated[DeviationLength, Meta(description="bars of the mean and of the deviation")] = 60
    entry: Annotated[Multiple, Meta(description="hundredths of a deviation at which a position begins")] = 200
    exit: Annotated[Multiple, Meta(description="hundredths of a deviation at which it ends")] = 50
    allow_short: Annotated[bool, Meta(description="hold a short far above the mean")] = False

    def __post_init__(self) -> None:
        if self.exit > self.entry:
            raise ValueError(f"exit={self.exit} must not be more than entry={self.entry}")

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
            shorts = (apart.above(self.entry), apart.below(-self.exit)) if self.allow_short else None
            out[a - first : b - first] = hold(apart.below(self.entry), apart.above(-self.exit), shorts, held)
            held = int(out[b - first - 1])
        return out, (held,)
