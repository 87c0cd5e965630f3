"""Native books of `atr_bracket`, `break_even` and `dca`: entries with a stop order or a target, and ways to exit."""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.books import WHOLE
from candlemill.engine.candles import MINUTE_MS, Bars, CandleColumns, Column, native
from candlemill.engine.fill_tape import TARGET
from candlemill.engine.levels import FAR
from candlemill.engine.minute import MinuteEngine
from candlemill.engine.native_books import BUY, LIMIT, SELL, STOP, UNIT, BreakoutSource, NativeSource, RiseSource
from candlemill.engine.ranges import Ranges
from candlemill.engine.wide import part_of

HUNDREDTHS: Final = 100  # of a mean true range


def true_ranges(high: Column, low: Column, close: Column) -> Column:
    """Return the bars' true ranges; that of the first bar is only its own range."""
    before = np.append(close[:1], close[:-1])
    if len(close):
        before[0] = low[0]
    found: Column = np.maximum(high, before) - np.minimum(low, before)
    return found


def times_of(mean: i64, hundredths: i64) -> i64:
    """Return `mean * hundredths // 100` with intermediate values within 64 bits."""
    whole: i64 = mean // HUNDREDTHS
    return whole * hundredths + (mean - whole * HUNDREDTHS) * hundredths // HUNDREDTHS


class AtrBooks(BreakoutSource):
    """`atr_bracket`: a buy stop at the highest high, with a stop and a target in mean true ranges.

    The memory is the mean true range at the last decision without a position (0: no order was placed).
    """

    def __init__(
        self,
        candles: CandleColumns,
        ranges: Ranges,
        bars: Bars,
        first: int,
        entry: int,
        length: int,
        stop: int,
        take: int,
        mean: int,
    ) -> None:
        super().__init__(candles, ranges, bars, first, entry, max(entry, length))
        found = true_ranges(bars.high, bars.low, bars.close)
        largest = int(found.max()) if len(found) else 0
        if largest * max(length, stop // HUNDREDTHS, take // HUNDREDTHS, HUNDREDTHS) > int(FAR) // 4:
            raise OverflowError(f"sums or multiples of true ranges up to {largest} (scaled) leave 64 bits")
        self.length: i64 = length
        self.stop: i64 = stop
        self.take: i64 = take
        self.mean: i64 = mean
        # Prefix sums may wrap around; the sum of a window does not.
        self.sums: vec[i64] = native(np.append(np.zeros(1, dtype=np.int64), np.cumsum(found)))

    def state_bar(self, engine: MinuteEngine, i: i64, j: i64) -> None:
        now = engine.now
        orders = engine.new_orders()
        if now.exposure != 0:
            engine.replace(orders, i, True, 0, self.stop_of(now.entry), self.take_of(now.entry))
            return
        self.mean = 0
        if j >= self.lookback:
            self.mean = (self.sums[j + 1] - self.sums[j + 1 - self.length]) // self.length
        if self.mean != 0:
            price: i64 = self.ranges.highest(j - self.window + 1, j + 1)
            orders.put("up", BUY, STOP, price, UNIT, 0, 0, self.stop_of(price), self.take_of(price))
        engine.replace(orders, i, True, 0, 0, 0)

    def stop_of(self, price: i64) -> i64:
        return max(0, price - times_of(self.mean, self.stop))

    def take_of(self, price: i64) -> i64:
        return price + times_of(self.mean, self.take)


class BreakEvenBooks(RiseSource):
    """`break_even`: long after a rise; the stop moves to the entry once the position was far enough ahead."""

    def __init__(
        self,
        candles: CandleColumns,
        bars: Bars,
        first: int,
        lookback: int,
        rise: int,
        stop: int,
        arm: int,
        lock: int,
        hold: int,
    ) -> None:
        super().__init__(candles, bars, first, lookback, rise, stop, hold)
        self.sees_best = True
        self.high: vec[i64] = self.column(candles.high, bars.high)
        self.arm: i64 = arm
        self.lock: i64 = lock

    def state_bar(self, engine: MinuteEngine, i: i64, j: i64) -> None:
        now = engine.now
        orders = engine.new_orders()
        entry: i64 = now.entry
        if now.exposure == 0:
            enters: bool = self.enters(engine, j)
            engine.replace(orders, i, not enters, UNIT, self.stop_below(self.close[j]) if enters else 0, 0)
            return
        stop: i64 = self.stop_below(entry)
        if now.best >= entry + part_of(entry, self.arm):
            stop = entry + part_of(entry, self.lock)
        engine.replace(orders, i, now.held < self.hold, 0, stop, 0)

    def first_event(self, engine: MinuteEngine, i: i64, end: i64) -> i64:
        now = engine.now
        j: i64 = i
        if now.exposure == 0:
            j = max(i, self.lookback)
            while j + 1 < end and not self.rises(j):
                j += 1
            return min(j + 1, end)
        event: i64 = self.first_exit(engine, i, end)
        level: i64 = now.entry + part_of(now.entry, self.arm)
        if now.best < level:
            while j + 1 < event and self.high[j] < level:
                j += 1
            event = min(j + 1, event)
        return event


class DcaBooks(NativeSource):
    """`dca`: buys the same exposure once in each span of time; sells all above the mean price of the purchases.

    The memory is the span of the last decision, the number of purchases since the position was opened, and the sum of
    their prices.
    """

    def __init__(
        self,
        candles: CandleColumns,
        bars: Bars,
        first: int,
        every: int,
        size: int,
        steps: int,
        take: int,
        span: int,
        bought: int,
        paid: int,
    ) -> None:
        super().__init__(bars, first, 0)
        if int(candles.top) > int(FAR) // (4 * steps):
            raise OverflowError(f"the sum of {steps} prices up to {int(candles.top)} (scaled) leaves 64 bits")
        self.t: vec[i64] = self.column(candles.t, bars.t)
        self.width: i64 = every * MINUTE_MS
        self.size: i64 = size
        self.steps: i64 = steps
        self.take: i64 = take
        self.span: i64 = span
        self.bought: i64 = bought
        self.paid: i64 = paid

    def state_bar(self, engine: MinuteEngine, i: i64, j: i64) -> None:
        now = engine.now
        self.note_fills(engine)
        orders = engine.new_orders()
        span: i64 = self.t[j] // self.width
        buys: bool = span != self.span and self.bought < self.steps
        self.span = span
        if self.bought != 0:
            mean: i64 = self.paid // self.bought
            orders.put("out", SELL, LIMIT, mean + part_of(mean, self.take), 0, WHOLE, 0, 0, 0)
        engine.replace(orders, i, not buys, now.exposure + self.size, 0, 0)

    def note_fills(self, engine: MinuteEngine) -> None:
        """Count the purchases since the last decision. Whatever made the symbol flat begins the count anew."""
        k: i64 = 0
        while k < engine.seen_count:
            if engine.seen_what[k] == TARGET:
                self.bought += 1
                self.paid += engine.seen_price[k]
            else:
                self.bought = 0
                self.paid = 0
            k += 1

    def first_event(self, engine: MinuteEngine, i: i64, end: i64) -> i64:
        event: i64 = engine.first_touch(i, end)
        if self.bought >= self.steps:
            return event
        j: i64 = i
        while j + 1 < event and self.t[j] // self.width == self.span:
            j += 1
        return min(j + 1, event)
