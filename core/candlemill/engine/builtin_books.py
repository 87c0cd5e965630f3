"""Native books of the built-in order strategies. SEMANTICS-2 section 14.

On minute bars, each strategy skips in one loop the bars on which its book cannot fill. It states the book only for the
last of these bars, because the next bar depends on nothing else.
"""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.books import ORDER_LIMIT, WHOLE
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
LEVEL_KEYS: Final = [f"buy{level}" for level in range(1, ORDER_LIMIT)]


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


class PullbackBooks(NativeSource):
    """`pullback_limit`: in a rise, a limit buy below the price with a bracket; exit after `hold` minute bars."""

    def __init__(
        self,
        candles: CandleColumns,
        ranges: Ranges,
        bars: Bars,
        first: int,
        lookback: int,
        depth: int,
        stop: int,
        take: int,
        hold: int,
    ) -> None:
        super().__init__(bars, first, lookback)
        self.close: vec[i64] = self.column(candles.close, bars.close)
        self.ranges: Ranges = ranges
        self.depth: i64 = depth
        self.stop: i64 = stop
        self.take: i64 = take
        self.hold: i64 = hold

    def state_bar(self, engine: MinuteEngine, i: i64, j: i64) -> None:
        now = engine.now
        orders = engine.new_orders()
        if now.exposure != 0:
            entry: i64 = now.entry
            stop: i64 = entry - part_of(entry, self.stop)
            engine.replace(orders, i, now.held < self.hold, 0, stop, entry + part_of(entry, self.take))
            return
        close: i64 = self.close[j]
        if j >= self.lookback and engine.has_no_fills() and close > self.close[j - self.lookback]:
            price: i64 = close - part_of(close, self.depth)
            stop = price - part_of(price, self.stop)
            orders.put("entry", BUY, LIMIT, price, UNIT, 0, 0, stop, price + part_of(price, self.take))
        engine.replace(orders, i, True, 0, 0, 0)

    def first_event(self, engine: MinuteEngine, i: i64, end: i64) -> i64:
        now = engine.now
        if now.exposure != 0:
            return engine.first_touch(i, min(end, i + self.hold - now.held))
        close, back, last = self.close, self.lookback, end - 1
        j: i64 = self.ranges.next_fall(close, max(i, back), last, self.depth)
        while j < last and close[j] <= close[j - back]:
            j = self.ranges.next_fall(close, j + 1, last, self.depth)
        return min(j + 1, end)


class BreakoutBooks(NativeSource):
    """`breakout_stop`: stop orders at the highest high and the lowest low of the last `entry` bars.

    A fill of one cancels the other. Each has a bracket with a target twice as far as the stop.
    """

    def __init__(self, candles: CandleColumns, ranges: Ranges, bars: Bars, first: int, entry: int, risk: int) -> None:
        super().__init__(bars, first, entry)
        self.risk: i64 = risk
        self.window: i64 = entry
        if not self.minutes:
            ranges = Ranges(self.column(candles.high, bars.high), self.column(candles.low, bars.low))
        self.ranges: Ranges = ranges

    def state_bar(self, engine: MinuteEngine, i: i64, j: i64) -> None:
        now = engine.now
        orders = engine.new_orders()
        stop: i64 = 0
        take: i64 = 0
        if now.exposure != 0:
            side: i64 = 1
            if now.exposure < 0:
                side = -1
            risk: i64 = part_of(now.entry, self.risk)
            stop = now.entry - side * risk
            take = max(1, now.entry + 2 * side * risk)
        elif j >= self.window:
            up: i64 = self.ranges.highest(j - self.window + 1, j + 1)
            risk = part_of(up, self.risk)
            orders.put("up", BUY, STOP, up, UNIT, 0, 1, up - risk, up + 2 * risk)
            down: i64 = self.ranges.lowest(j - self.window + 1, j + 1)
            risk = part_of(down, self.risk)
            orders.put("down", SELL, STOP, down, UNIT, 0, 1, down + risk, max(1, down - 2 * risk))
        engine.replace(orders, i, True, 0, stop, take)

    def first_event(self, engine: MinuteEngine, i: i64, end: i64) -> i64:
        if engine.now.exposure != 0:
            return engine.first_touch(i, end)
        return self.ranges.first_breakout(max(i + 1, self.window + 1), end, self.window)


class GridBooks(NativeSource):
    """`grid`: limit buys below a reference close, and one order that sells everything above the first buy's price.

    The reference is the last close at which the position was flat. The memory is that close and one bit for each level
    that has filled since.
    """

    def __init__(
        self,
        candles: CandleColumns,
        ranges: Ranges,
        bars: Bars,
        first: int,
        levels: int,
        spacing: int,
        size: int,
        anchor: int,
        filled: int,
    ) -> None:
        super().__init__(bars, first, 0)
        self.close: vec[i64] = self.column(candles.close, bars.close)
        self.ranges: Ranges = ranges
        self.levels: i64 = levels
        self.spacing: i64 = spacing
        self.size: i64 = size
        self.anchor: i64 = anchor
        self.filled: i64 = filled

    def state_bar(self, engine: MinuteEngine, i: i64, j: i64) -> None:
        now = engine.now
        self.note_fills(engine)
        if now.exposure == 0:
            self.anchor = self.close[j]
            self.filled = 0
        orders = engine.new_orders()
        level: i64 = 0
        while level < self.levels:
            if (self.filled >> level) & 1 == 0:
                price: i64 = self.anchor - part_of(self.anchor, self.spacing * (level + 1))
                orders.put(LEVEL_KEYS[level], BUY, LIMIT, price, self.size, 0, 0, 0, 0)
            level += 1
        if now.exposure != 0:
            price = now.entry + part_of(now.entry, self.spacing)
            orders.put("out", SELL, LIMIT, price, 0, WHOLE, 0, 0, 0)
        engine.replace(orders, i, True, 0, 0, 0)

    def note_fills(self, engine: MinuteEngine) -> None:
        """Update which levels have filled since the last decision. The book states the other levels in order."""
        if engine.filled == 0:
            return
        place: i64 = 0
        level: i64 = 0
        before: i64 = self.filled
        while level < self.levels:
            if (before >> level) & 1 == 0:
                if (engine.filled >> place) & 1 != 0:
                    self.filled |= 1 << level
                place += 1
            level += 1

    def first_event(self, engine: MinuteEngine, i: i64, end: i64) -> i64:
        if engine.now.exposure != 0:
            return engine.first_touch(i, end)
        return self.ranges.next_fall(self.close, i, end - 1, self.spacing) + 1
