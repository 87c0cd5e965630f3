"""Native books of `pullback_limit`, `breakout_stop` and `grid`: entries with a bracket, and a ladder of limits."""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.books import ORDER_LIMIT, WHOLE
from candlemill.engine.candles import Bars, CandleColumns
from candlemill.engine.minute import MinuteEngine
from candlemill.engine.native_books import BUY, LIMIT, SELL, STOP, UNIT, BreakoutSource, NativeSource, RiseSource
from candlemill.engine.ranges import Ranges
from candlemill.engine.wide import part_of

LEVEL_KEYS: Final = [f"buy{level}" for level in range(1, ORDER_LIMIT)]


class PullbackBooks(RiseSource):
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
        super().__init__(candles, bars, first, lookback, 0, stop, hold)
        self.ranges: Ranges = ranges
        self.depth: i64 = depth
        self.take: i64 = take

    def state_bar(self, engine: MinuteEngine, i: i64, j: i64) -> None:
        now = engine.now
        orders = engine.new_orders()
        if now.exposure != 0:
            entry: i64 = now.entry
            engine.replace(orders, i, now.held < self.hold, 0, self.stop_below(entry), self.take_above(entry))
            return
        if self.enters(engine, j):
            close: i64 = self.close[j]
            price: i64 = close - part_of(close, self.depth)
            orders.put("entry", BUY, LIMIT, price, UNIT, 0, 0, self.stop_below(price), self.take_above(price))
        engine.replace(orders, i, True, 0, 0, 0)

    def take_above(self, price: i64) -> i64:
        return price + part_of(price, self.take)

    def first_event(self, engine: MinuteEngine, i: i64, end: i64) -> i64:
        if engine.now.exposure != 0:
            return self.first_exit(engine, i, end)
        last = end - 1
        j: i64 = self.ranges.next_fall(self.close, max(i, self.lookback), last, self.depth)
        while j < last and not self.rises(j):
            j = self.ranges.next_fall(self.close, j + 1, last, self.depth)
        return min(j + 1, end)


class BreakoutBooks(BreakoutSource):
    """`breakout_stop`: stop orders at the highest high and the lowest low of the last `entry` bars.

    A fill of one cancels the other. Each has a bracket with a target twice as far as the stop.
    """

    def __init__(self, candles: CandleColumns, ranges: Ranges, bars: Bars, first: int, entry: int, risk: int) -> None:
        super().__init__(candles, ranges, bars, first, entry, entry)
        self.risk: i64 = risk

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
