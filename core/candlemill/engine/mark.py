"""Exact equity of an account at each minute, from the cash and quantities between the events of settlement.

Equity is `cash + sum of quantity * close / 10^8`, stored as whole (10^-8) and rest (10^-16). For one symbol, the
highest and lowest close describe a stretch between two events; several symbols are added minute by minute.
"""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import BLOCK, CandleColumns, Column, native, view
from candlemill.engine.quotes import Quotes
from candlemill.engine.signals import first_at_least
from candlemill.engine.stretches import FAR, at_or_far, deepest_fall, extremes
from candlemill.engine.wide import SCALE, below_limit, product, size_of

NO_BAR: Final = -1
BLOCK_SHIFT: Final = 5  # bits of BLOCK
SMALL: Final = 1 << 35  # amounts whose 10^8-fold fits 62 bits
FIELDS: Final = 5  # numbers of a waiting stretch: begin, end, cash, quantity and bound


class Marks:
    """Results of the marks so far.

    Peak, low and drawdown include the equity at the start. Also the equity at each day's last mark (`day`, `day_rest`),
    the number of marks with a position, and the first mark with an equity of 0 or less (`ruin`, NO_BAR).
    """

    def __init__(self, whole: i64, rest: i64, ruined: bool) -> None:
        self.ruined: bool = ruined  # no later mark stops the account again
        self.peak: i64 = whole
        self.peak_rest: i64 = rest
        self.low: i64 = whole
        self.low_rest: i64 = rest
        self.fall: i64 = 0
        self.fall_rest: i64 = 0
        self.last: i64 = whole
        self.last_rest: i64 = rest
        self.exposure: i64 = 0
        self.ruin: i64 = NO_BAR
        self.day: vec[i64] = vec[i64]()
        self.day_rest: vec[i64] = vec[i64]()

    def see(self, high: i64, high_rest: i64, low: i64, low_rest: i64) -> None:
        """Update with the highest and lowest equity of a stretch, and the fall from the earlier peak to its lowest
        equity.
        """
        self.see_low(low, low_rest)
        if high > self.peak or (high == self.peak and high_rest > self.peak_rest):
            self.peak, self.peak_rest = high, high_rest

    def see_low(self, low: i64, low_rest: i64) -> None:
        self.see_fall(self.peak - low, self.peak_rest - low_rest)
        if low < self.low or (low == self.low and low_rest < self.low_rest):
            self.low, self.low_rest = low, low_rest

    def see_fall(self, whole: i64, rest: i64) -> None:
        if rest < 0:
            rest += SCALE
            whole -= 1
        if whole > self.fall or (whole == self.fall and rest > self.fall_rest):
            self.fall, self.fall_rest = whole, rest

    def totals(self) -> dict[str, int]:
        """Return peak, low, drawdown (`fall`) and last equity in 10^-16, `exposure` and `ruin`."""
        return {
            "peak": int(self.peak) * SCALE + int(self.peak_rest),
            "low": int(self.low) * SCALE + int(self.low_rest),
            "fall": int(self.fall) * SCALE + int(self.fall_rest),
            "last": int(self.last) * SCALE + int(self.last_rest),
            "exposure": int(self.exposure),
            "ruin": int(self.ruin),
        }

    def profits(self, before: i64, rest: i64) -> list[int]:
        """Return the profit of each day in 10^-16, from an equity of `before` and `rest` on."""
        out: list[int] = []
        k: i64 = 0
        while k < len(self.day):
            whole: i64 = self.day[k] - before
            fine: i64 = self.day_rest[k] - rest
            if -SMALL < whole < SMALL:  # most are: they need no wide integers
                profit: i64 = whole * SCALE + fine
                out.append(int(profit))
            else:
                out.append(int(whole) * SCALE + int(fine))
            before, rest = self.day[k], self.day_rest[k]
            k += 1
        return out


def mark_symbol(
    candles: CandleColumns,
    lo: i64,
    hi: i64,
    at: Column,
    cash: Column,
    held: Column,
    whole: i64,
    rest: i64,
    ruined: bool,
) -> Marks:
    """Mark bars `lo` to `hi - 1` of one symbol, `lo < hi`.

    From bar `at[k]` on, the account has `cash[k]` and the quantity `held[k]`; `at[0]` is `lo`. `whole` and `rest` are
    the equity before. Stops at the first equity of 0 or less, unless the account is `ruined` already.
    """
    bars, amounts, units = native(at), native(cash), native(held)
    n: i64 = len(bars)
    marks = Marks(whole, rest, ruined)
    seen = StretchMarks(marks, candles, lo, hi, n)
    k: i64 = 0
    while k < n:
        end: i64 = hi
        if k + 1 < n:
            end = bars[k + 1]
        if bars[k] < end:
            seen.stretch(bars[k], end, amounts[k], units[k])
            if marks.ruin != NO_BAR:
                return marks
        k += 1
    seen.finish(amounts[n - 1], units[n - 1])
    return marks


class StretchMarks:
    """Marks of one symbol from bar `lo` to `hi - 1`, stretch by stretch, each with its cash and position.

    Most stretches are marked by bounds: see `unstopped`. The `waiting` ones have not been read: their equity is below
    the peak, and at least their bound.
    """

    def __init__(self, marks: Marks, candles: CandleColumns, lo: i64, hi: i64, stretches: i64) -> None:
        self.marks: Marks = marks
        self.candles: CandleColumns = candles
        self.hi: i64 = hi
        self.has_blocks: bool = len(candles.block_top) != 0
        self.waiting: i64 = 0
        room: i64 = stretches if self.has_blocks else 0
        self.waits: vec[i64] = native(np.zeros(int(room * FIELDS), dtype=np.int64))
        ends = candles.day_ends
        self.first_day: i64 = first_at_least(ends, lo)
        self.day: i64 = self.first_day
        self.next_day: i64 = at_or_far(ends, self.day)
        days: i64 = first_at_least(ends, hi) - self.day
        marks.day = native(np.zeros(int(days), dtype=np.int64))
        marks.day_rest = native(np.zeros(int(days), dtype=np.int64))

    def stretch(self, begin: i64, end: i64, cash: i64, held: i64) -> None:
        """Mark bars `begin` to `end - 1`, at least one. `marks.ruin` is then the first with an equity of 0 or less."""
        if held == 0:
            self.see(cash, 0, cash, 0)
            if cash <= 0 and not self.marks.ruined:
                self.marks.ruin = begin
        else:
            self.marks.exposure += end - begin
            if not self.has_blocks or end - begin < 2 * BLOCK or not self.is_bounded(begin, end, cash, held):
                self.read(begin, end, cash, held)
        while self.next_day < end:
            self.mark_day(cash, held)

    def is_bounded(self, begin: i64, end: i64, cash: i64, held: i64) -> bool:
        """Return whether the extremes of whole blocks tell that no equity is a new peak or ruins the account.

        The stretch waits then, if it can hold a new low or the deepest fall.
        """
        marks = self.marks
        tops, bottoms = self.candles.block_top, self.candles.block_bottom
        b: i64 = begin >> BLOCK_SHIFT
        last: i64 = min((end + BLOCK - 1) >> BLOCK_SHIFT, len(tops))
        if last << BLOCK_SHIFT < end:
            return False
        top: i64 = tops[b]
        bottom: i64 = bottoms[b]
        b += 1
        while b < last:
            top = max(top, tops[b])
            bottom = min(bottom, bottoms[b])
            b += 1
        if held < 0:
            top, bottom = bottom, top
        most: i64 = below_limit(cash + product(held, top)[0])
        least: i64 = below_limit(cash + product(held, bottom)[0])
        if most >= marks.peak or (least <= 0 and not marks.ruined):
            return False
        if self.may_matter(least):
            waits = self.waits
            k: i64 = self.waiting * FIELDS
            waits[k] = begin
            waits[k + 1] = end
            waits[k + 2] = cash
            waits[k + 3] = held
            waits[k + 4] = least
            self.waiting += 1
        return True

    def may_matter(self, bound: i64) -> bool:
        """Return whether an equity of at least `bound` can be a new low or the deepest fall."""
        return self.marks.peak - bound >= self.marks.fall or bound <= self.marks.low

    def read(self, begin: i64, end: i64, cash: i64, held: i64) -> None:
        """Mark a stretch with a position by its closes."""
        marks = self.marks
        top, bottom = extremes(self.candles, begin, end)
        if held < 0:
            top, bottom = bottom, top
        one, high_rest = product(held, top)
        high: i64 = below_limit(cash + one)
        one, low_rest = product(held, bottom)
        low: i64 = below_limit(cash + one)
        above = high > marks.peak or (high == marks.peak and high_rest > marks.peak_rest)
        if above and high - low >= marks.fall:
            fall: i64 = deepest_fall(self.candles.close, 1 if held > 0 else -1, begin, end)
            one, fine = product(held if held > 0 else -held, fall)
            marks.see_fall(one, fine)
        self.see(high, high_rest, low, low_rest)
        if not marks.ruined and (low < 0 or (low == 0 and low_rest == 0)):
            marks.ruin = self.first_ruin(begin, cash, held)

    def first_ruin(self, begin: i64, cash: i64, held: i64) -> i64:
        """Return the first bar from `begin` on with an equity of 0 or less: there is one."""
        bar: i64 = begin
        while True:
            one, fine = product(held, self.candles.close[bar])
            if cash + one < 0 or (cash + one == 0 and fine == 0):
                return bar
            bar += 1

    def see(self, high: i64, high_rest: i64, low: i64, low_rest: i64) -> None:
        if self.waiting != 0 and high >= self.marks.peak:
            self.read_waiting()
        self.marks.see(high, high_rest, low, low_rest)

    def read_waiting(self) -> None:
        """Read the stretches that can still matter, the last one first: a run that loses is lowest at its end."""
        waits = self.waits
        k: i64 = (self.waiting - 1) * FIELDS
        while k >= 0:
            if self.may_matter(waits[k + 4]):
                top, bottom = extremes(self.candles, waits[k], waits[k + 1])
                held: i64 = waits[k + 3]
                one, rest = product(held, bottom if held > 0 else top)
                self.marks.see_low(waits[k + 2] + one, rest)
            k -= FIELDS
        self.waiting = 0

    def mark_day(self, cash: i64, held: i64) -> None:
        """Record the equity at the last bar of a day."""
        one, fine = product(held, self.candles.close[self.next_day])
        k: i64 = self.day - self.first_day
        self.marks.day[k], self.marks.day_rest[k] = cash + one, fine
        self.day += 1
        self.next_day = FAR
        if self.day < len(self.candles.day_ends):
            self.next_day = self.candles.day_ends[self.day]
        if self.next_day >= self.hi:
            self.next_day = FAR

    def finish(self, cash: i64, held: i64) -> None:
        """Complete the marks; `cash` and `held` are those at the last bar."""
        self.read_waiting()
        one, fine = product(held, self.candles.close[self.hi - 1])
        self.marks.last, self.marks.last_rest = cash + one, fine


def outlines(candles: CandleColumns, begins: Column, ends: Column, sides: Column) -> tuple[Column, Column, Column]:
    """Return the highest and the lowest close of each stretch of bars, and the deepest fall between two of them.

    For a side of -1 it is the deepest rise. A stretch has the bars `begins[k]` to `ends[k] - 1`, one at least.
    """
    first, end, side, close = native(begins), native(ends), native(sides), candles.close
    n: i64 = len(first)
    top: vec[i64] = native(np.zeros(int(n), dtype=np.int64))
    bottom: vec[i64] = native(np.zeros(int(n), dtype=np.int64))
    fall: vec[i64] = native(np.zeros(int(n), dtype=np.int64))
    k: i64 = 0
    while k < n:
        high: i64 = close[first[k]]
        low: i64 = high
        down: i64 = 0
        up: i64 = 0
        i: i64 = first[k] + 1
        while i < end[k]:
            price: i64 = close[i]
            if price > high:
                high = price
            elif high - price > down:
                down = high - price
            if price < low:
                low = price
            elif price - low > up:
                up = price - low
            i += 1
        top[k], bottom[k], fall[k] = high, low, down if side[k] > 0 else up
        k += 1
    return view(top), view(bottom), view(fall)


class PanelMarks:
    """Equity at every minute in which any of several symbols has a candle: cash is added first, then each symbol."""

    def __init__(self, t: Column, at: Column, cash: Column) -> None:
        """Begin with cash. `t` are the minutes; from minute number `at[k]` on there is `cash[k]`; `at[0]` is 0."""
        self.t: vec[i64] = native(t)
        self.whole: vec[i64] = native(np.repeat(cash, np.diff(np.append(at, len(t)))))
        self.rest: vec[i64] = native(np.zeros(len(t), dtype=np.int64))
        self.holding: vec[i64] = native(np.zeros(len(t), dtype=np.int64))
        self.bound: i64 = 0  # upper bound of the value of all positions

    def add(self, quotes: Quotes, at: Column, held: Column) -> None:
        """Add a symbol with new quotes. From minute number `at[k]` on the quantity is `held[k]`."""
        self.hold(quotes, native(at), native(held), len(at))

    def hold(self, quotes: Quotes, bars: vec[i64], units: vec[i64], n: i64) -> None:
        """Do the same with native columns, whose first `n` elements count."""
        minutes, times, closes = self.t, quotes.t, quotes.close
        whole, rest, holding = self.whole, self.rest, self.holding
        count: i64 = len(times)
        all: i64 = len(minutes)
        j: i64 = quotes.passed  # candles at or before the minute
        most: i64 = 0
        k: i64 = 0
        while k < n:
            i: i64 = bars[k]
            end: i64 = all
            if k + 1 < n:
                end = bars[k + 1]
            quantity: i64 = units[k]
            if quantity != 0 and i < end:
                q: i64 = quantity // SCALE
                r: i64 = quantity - q * SCALE
                low: i64 = j  # the first candle after minute i
                high: i64 = count
                while low < high:
                    middle: i64 = (low + high) >> 1
                    if times[middle] <= minutes[i]:
                        low = middle + 1
                    else:
                        high = middle
                j = low
                price: i64 = quotes.last
                if j > quotes.passed:
                    price = closes[j - 1]
                top: i64 = price
                while i < end:
                    if j < count and times[j] == minutes[i]:
                        price = closes[j]
                        j += 1
                        if price > top:
                            top = price
                    p: i64 = price // SCALE
                    whole[i] += q * price + r * p
                    rest[i] += r * (price - p * SCALE)
                    holding[i] = 1
                    i += 1
                most = max(most, product(size_of(quantity), top)[0] + 1)  # raises OverflowError above the limit
            k += 1
        self.bound = below_limit(self.bound + most)  # so no sum of any minute can exceed 64 bits

    def equity(self) -> Column:
        """Return the equity at each minute, rounded down."""
        found: Column = view(self.whole) + view(self.rest) // SCALE
        return found

    def scan(self, whole: i64, rest: i64, ruined: bool, day_ends: Column) -> Marks:
        """Compute all marks after an equity of `whole` and `rest`. Stops as `mark_symbol` does."""
        marks = Marks(whole, rest, ruined)
        ends = native(day_ends)
        days: i64 = len(ends)
        marks.day = native(np.zeros(int(days), dtype=np.int64))
        marks.day_rest = native(np.zeros(int(days), dtype=np.int64))
        n: i64 = len(self.t)
        day: i64 = 0
        i: i64 = 0
        while i < n:
            carry: i64 = self.rest[i] // SCALE
            fine: i64 = self.rest[i] - carry * SCALE
            equity: i64 = below_limit(self.whole[i] + carry)
            marks.see(equity, fine, equity, fine)
            marks.exposure += self.holding[i]
            if day < days and ends[day] == i:
                marks.day[day], marks.day_rest[day] = equity, fine
                day += 1
            if not ruined and (equity < 0 or (equity == 0 and fine == 0)):
                marks.ruin = i
                return marks
            marks.last, marks.last_rest = equity, fine
            i += 1
        return marks
