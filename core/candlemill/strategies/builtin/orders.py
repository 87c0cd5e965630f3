"""The built-in strategies that place orders: entries with limits and stops, brackets, exits by time, a grid, a DCA."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from candlemill.engine.books import EXPOSURE_LIMIT
from candlemill.engine.builtin_books import BreakoutBooks, GridBooks, PullbackBooks
from candlemill.engine.candles import Bars, CandleColumns
from candlemill.engine.decide import BookSource
from candlemill.engine.exit_books import AtrBooks, BreakEvenBooks, DcaBooks
from candlemill.engine.ranges import Ranges
from candlemill.strategies.base import RATE_LIMIT, Length
from candlemill.strategies.orders import OrderStrategy

Below = Annotated[int, Meta(ge=1, le=999_999)]  # ppm below a price: something is left of it
Above = Annotated[int, Meta(ge=1, le=RATE_LIMIT)]
From0 = Annotated[int, Meta(ge=0, le=RATE_LIMIT)]
Hundredths = Annotated[int, Meta(ge=1, le=100_000)]
Minutes = Annotated[int, Meta(ge=1, le=100_000_000)]


class PullbackLimit(OrderStrategy, frozen=True):
    """While the close is above the one `lookback` bars ago, a limit buy below it with a stop and a target."""

    lookback_bars: Annotated[Length, Meta(description="bars to look back for a rise")] = msgspec.field(
        default=240, name="lookback"
    )
    depth: Annotated[Below, Meta(description="ppm from the close down to the limit")] = 3000
    stop: Annotated[Below, Meta(description="ppm from the entry down to the stop")] = 10_000
    take: Annotated[Above, Meta(description="ppm from the entry up to the target")] = 10_000
    hold: Annotated[Minutes, Meta(description="minute bars after which it is sold")] = 1440

    def lookback(self) -> int:
        return self.lookback_bars

    def books(self, candles: CandleColumns, ranges: Ranges, bars: Bars, first: int, state: Any) -> BookSource:
        return PullbackBooks(
            candles, ranges, bars, first, self.lookback_bars, self.depth, self.stop, self.take, self.hold
        )

    def state_after(self, source: Any) -> Any:
        return ()


class BreakoutStop(OrderStrategy, frozen=True):
    """A buy stop at the highest high and a sell stop at the lowest low: the first to fill cancels the other.

    The target is twice as far from the entry as the stop.
    """

    entry: Annotated[Length, Meta(description="bars of the highest high and the lowest low")] = 480
    risk: Annotated[Below, Meta(description="ppm from the entry to the stop; the target is twice as far")] = 10_000

    def lookback(self) -> int:
        return self.entry

    def books(self, candles: CandleColumns, ranges: Ranges, bars: Bars, first: int, state: Any) -> BookSource:
        return BreakoutBooks(candles, ranges, bars, first, self.entry, self.risk)

    def state_after(self, source: Any) -> Any:
        return ()


class Grid(OrderStrategy, frozen=True):
    """Limit buys in equal steps below the close; all is sold one step above the first one that filled."""

    levels: Annotated[int, Meta(ge=1, le=15, description="limit buys below the close")] = 4
    spacing: Annotated[Below, Meta(description="ppm from one level to the next, and to the exit")] = 5000
    size: Annotated[int, Meta(ge=1, le=100_000_000, description="ppm of exposure bought at each level")] = 250_000

    def __post_init__(self) -> None:
        if self.levels * self.spacing >= 1_000_000:
            raise ValueError(f"levels={self.levels} of spacing={self.spacing} ppm reach below 0: less than 10^6 in all")

    def start(self) -> Any:
        return 0, 0  # the close at the last decision while flat, and a bit for each level filled since

    def books(self, candles: CandleColumns, ranges: Ranges, bars: Bars, first: int, state: Any) -> BookSource:
        return GridBooks(candles, ranges, bars, first, self.levels, self.spacing, self.size, *state)

    def state_after(self, source: Any) -> Any:
        return int(source.anchor), int(source.filled)


class AtrBracket(OrderStrategy, frozen=True):
    """A buy stop at the highest high, with a stop and a target in mean true ranges (ATR) at the entry."""

    entry: Annotated[Length, Meta(description="bars of the highest high")] = 480
    atr: Annotated[Length, Meta(description="bars of the mean true range, a plain mean")] = 120
    stop: Annotated[Hundredths, Meta(description="hundredths of the mean true range down to the stop")] = 1000
    take: Annotated[Hundredths, Meta(description="hundredths of the mean true range up to the target")] = 2000

    def lookback(self) -> int:
        return max(self.entry, self.atr)

    def start(self) -> Any:
        return (0,)  # the mean true range at the last decision without a position; 0: no order

    def books(self, candles: CandleColumns, ranges: Ranges, bars: Bars, first: int, state: Any) -> BookSource:
        return AtrBooks(candles, ranges, bars, first, self.entry, self.atr, self.stop, self.take, *state)

    def state_after(self, source: Any) -> Any:
        return (int(source.mean),)


class BreakEven(OrderStrategy, frozen=True):
    """Long after a rise. Once the position was far enough ahead, the stop moves to the entry; sold after a time."""

    lookback_bars: Annotated[Length, Meta(description="bars to look back for a rise")] = msgspec.field(
        default=240, name="lookback"
    )
    rise: Annotated[From0, Meta(description="ppm that the close must be above the earlier one")] = 5000
    stop: Annotated[Below, Meta(description="ppm from the entry down to the stop")] = 10_000
    arm: Annotated[Above, Meta(description="ppm above the entry that the high must reach to move the stop")] = 10_000
    lock: Annotated[From0, Meta(description="ppm above the entry to which the stop moves, at most arm")] = 2000
    hold: Annotated[Minutes, Meta(description="minute bars after which it is sold")] = 1440

    def __post_init__(self) -> None:
        if self.lock > self.arm:
            raise ValueError(
                f"lock={self.lock} is above arm={self.arm}: the stop would be above the price that moves it"
            )

    def lookback(self) -> int:
        return self.lookback_bars

    def books(self, candles: CandleColumns, ranges: Ranges, bars: Bars, first: int, state: Any) -> BookSource:
        return BreakEvenBooks(
            candles, bars, first, self.lookback_bars, self.rise, self.stop, self.arm, self.lock, self.hold
        )

    def state_after(self, source: Any) -> Any:
        return ()


class Dca(OrderStrategy, frozen=True):
    """Buys the same exposure once in each span of time; sells all above the mean price of the purchases."""

    every: Annotated[Minutes, Meta(description="minutes of a span; spans are counted from 1970")] = 1440
    size: Annotated[int, Meta(ge=1, le=100_000_000, description="ppm of exposure of each purchase")] = 100_000
    steps: Annotated[int, Meta(ge=1, le=1000, description="purchases at most")] = 10
    take: Annotated[Above, Meta(description="ppm from the mean price up to the sale of all")] = 20_000

    def __post_init__(self) -> None:
        if self.steps * self.size > EXPOSURE_LIMIT:
            raise ValueError(f"steps={self.steps} of size={self.size} ppm are more than {EXPOSURE_LIMIT:,} ppm in all")

    def start(self) -> Any:
        return -1, 0, 0  # the span of the last decision, the purchases since the entry, the sum of their prices

    def books(self, candles: CandleColumns, ranges: Ranges, bars: Bars, first: int, state: Any) -> BookSource:
        return DcaBooks(candles, bars, first, self.every, self.size, self.steps, self.take, *state)

    def state_after(self, source: Any) -> Any:
        return int(source.span), int(source.bought), int(source.paid)
