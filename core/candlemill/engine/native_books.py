"""Bases of the native books of built-in order strategies. SEMANTICS-2 section 14.

On minute bars, each strategy skips in one loop the bars on which its book cannot fill. It states the book only for the
last of these bars, because the next bar depends on nothing else.
"""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import Bars, CandleColumns
from candlemill.engine.decide import BookSource
from candlemill.engine.minute import MinuteEngine
from candlemill.engine.ranges import Ranges
from candlemill.engine.wide import part_of

BUY: Final = 1
SELL: Final = -1
LIMIT: Final = 1
STOP: Final = 0
UNIT: Final = 1_000_000  # ppm of exposure


class NativeSource(BookSource):
    """Base of the native sources: skips quiet minutes and states the book on the last two of them."""

    def __init__(self, bars: Bars, first: int, lookback: i64) -> None:
        super().__init__(bars.last, first, True, False)
        self.lookback: i64 = lookback

    def state(self, engine: MinuteEngine, i: i64) -> None:
        j: i64 = self.bar
        self.bar = j + 1
        self.state_bar(engine, i, j)

    def state_bar(self, engine: MinuteEngine, i: i64, j: i64) -> None:
        """State the book of decision bar `j` at the close of minute `i`."""
        raise NotImplementedError

    def first_event(self, engine: MinuteEngine, i: i64, end: i64) -> i64:
        """Return the first bar from `i` on which something may happen, or `end`.

        The caller has checked that nothing happens on bar `i` and that decision bars are minutes. An event is a fill,
        or a book that differs from what the following bars would state by their prices alone.
        """
        raise NotImplementedError

    def skip(self, engine: MinuteEngine, i: i64, end: i64) -> i64:
        if not self.minutes or i + 2 >= end or not engine.has_no_fills() or not engine.is_quiet(i):
            return i
        event: i64 = self.first_event(engine, i, end)
        if event - i < 2:
            return i
        engine.pass_bars(i, event - 1)
        engine.clear_fills()
        self.state_bar(engine, event - 2, event - 2)
        return event - 1


class RiseSource(NativeSource):
    """Base of sources that enter when the close has risen by more than `rise` ppm over the last `lookback` bars.

    The stop is `stop` ppm below a price; a position is held for at most `hold` minute bars.
    """

    def __init__(
        self, candles: CandleColumns, bars: Bars, first: int, lookback: i64, rise: i64, stop: i64, hold: i64
    ) -> None:
        super().__init__(bars, first, lookback)
        self.close: vec[i64] = self.column(candles.close, bars.close)
        self.rise: i64 = rise
        self.stop: i64 = stop
        self.hold: i64 = hold

    def enters(self, engine: MinuteEngine, j: i64) -> bool:
        """Return whether the book of decision bar `j` may enter: not in the bar in which another position ended."""
        return j >= self.lookback and engine.has_no_fills() and self.rises(j)

    def rises(self, j: i64) -> bool:
        before: i64 = self.close[j - self.lookback]
        return self.close[j] > before + part_of(before, self.rise)

    def stop_below(self, price: i64) -> i64:
        return price - part_of(price, self.stop)

    def first_exit(self, engine: MinuteEngine, i: i64, end: i64) -> i64:
        """Return the first bar from `i` on that touches a level or is the last one to hold, or `end`."""
        return engine.first_touch(i, min(end, i + self.hold - engine.now.held))


class BreakoutSource(NativeSource):
    """Base of sources that enter where a bar leaves the range of the last `window` bars."""

    def __init__(
        self, candles: CandleColumns, ranges: Ranges, bars: Bars, first: int, window: i64, lookback: i64
    ) -> None:
        super().__init__(bars, first, lookback)
        self.window: i64 = window
        if not self.minutes:
            ranges = Ranges(self.column(candles.high, bars.high), self.column(candles.low, bars.low))
        self.ranges: Ranges = ranges

    def first_event(self, engine: MinuteEngine, i: i64, end: i64) -> i64:
        if engine.now.exposure != 0:
            return engine.first_touch(i, end)
        return self.ranges.first_breakout(max(i + 1, self.lookback + 1), end, self.window)
