"""Exact equity of an account at each minute, from the cash and quantities between the events of settlement.

Equity is `cash + sum of quantity * close / 10^8`, stored as whole (10^-8) and rest (10^-16). For one symbol, the
highest and lowest close describe a stretch between two events; several symbols are added minute by minute.
"""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns, Column, native, view
from candlemill.engine.position import deepest_fall, extremes
from candlemill.engine.wide import SCALE, below_limit, product, size_of

NO_BAR: Final = -1


class Marks:
    """Results of the marks so far.

    Peak, low and drawdown include the equity at the start. Also the equity at each day's last mark, the number of marks
    with a position, and the first mark with an equity of 0 or less (`ruin`, NO_BAR).
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
        self.see_fall(self.peak - low, self.peak_rest - low_rest)
        if high > self.peak or (high == self.peak and high_rest > self.peak_rest):
            self.peak, self.peak_rest = high, high_rest
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

    def days(self) -> list[int]:
        """Return the equity at each day's last mark, in 10^-16."""
        pairs = zip(view(self.day).tolist(), view(self.day_rest).tolist(), strict=True)
        return [whole * SCALE + rest for whole, rest in pairs]


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
    day_ends: Column,
) -> Marks:
    """Mark bars `lo` to `hi - 1` of one symbol.

    From bar `at[k]` on, the account has `cash[k]` and the quantity `held[k]`; `at[0]` is `lo`. `whole` and `rest` are
    the equity before. Stops at the first equity of 0 or less, unless the account is `ruined` already.
    """
    marks = Marks(whole, rest, ruined)
    mark_steps(marks, candles, hi, native(at), native(cash), native(held), native(day_ends))
    return marks


def mark_steps(
    marks: Marks, candles: CandleColumns, hi: i64, bars: vec[i64], amounts: vec[i64], units: vec[i64], ends: vec[i64]
) -> None:
    """Do the same as `mark_symbol` with marks that have begun."""
    days: i64 = len(ends)
    marks.day = native(np.zeros(int(days), dtype=np.int64))
    marks.day_rest = native(np.zeros(int(days), dtype=np.int64))
    close = candles.close
    n: i64 = len(bars)
    day: i64 = 0
    k: i64 = 0
    while k < n:
        begin: i64 = bars[k]
        end: i64 = hi
        if k + 1 < n:
            end = bars[k + 1]
        if begin < end:
            mark_stretch(marks, candles, begin, end, amounts[k], units[k])
            while day < days and ends[day] < end:
                one, fine = product(units[k], close[ends[day]])
                marks.day[day], marks.day_rest[day] = amounts[k] + one, fine
                day += 1
            if marks.ruin != NO_BAR:
                return
        k += 1
    if n != 0 and hi > bars[0]:
        one, fine = product(units[n - 1], close[hi - 1])
        marks.last, marks.last_rest = amounts[n - 1] + one, fine


def mark_stretch(marks: Marks, candles: CandleColumns, begin: i64, end: i64, cash: i64, held: i64) -> None:
    """Mark bars `begin` to `end - 1`, which have the same cash and position."""
    high: i64 = cash
    high_rest: i64 = 0
    low: i64 = cash
    low_rest: i64 = 0
    if held != 0:
        marks.exposure += end - begin
        top, bottom = extremes(candles, begin, end)
        if held < 0:
            top, bottom = bottom, top
        one, high_rest = product(held, top)
        high = below_limit(cash + one)
        one, low_rest = product(held, bottom)
        low = below_limit(cash + one)
        above = high > marks.peak or (high == marks.peak and high_rest > marks.peak_rest)
        if above and high - low >= marks.fall:
            fall: i64 = deepest_fall(candles.close, 1 if held > 0 else -1, begin, end)
            one, fine = product(held if held > 0 else -held, fall)
            marks.see_fall(one, fine)
    marks.see(high, high_rest, low, low_rest)
    if not marks.ruined and (low < 0 or (low == 0 and low_rest == 0)):
        bar: i64 = begin
        while bar < end:
            one, fine = product(held, candles.close[bar])
            if cash + one < 0 or (cash + one == 0 and fine == 0):
                marks.ruin = bar
                return
            bar += 1


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

    def add(self, t: Column, close: Column, last: i64, at: Column, held: Column) -> None:
        """Add a symbol with candles at `t` and the earlier close `last`.

        From minute number `at[k]` on the quantity is `held[k]`.
        """
        minutes, times, closes = self.t, native(t), native(close)
        whole, rest, holding = self.whole, self.rest, self.holding
        bars, units = native(at), native(held)
        n: i64 = len(bars)
        count: i64 = len(times)
        all: i64 = len(minutes)
        j: i64 = 0  # candles at or before the minute
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
                price: i64 = last
                if j > 0:
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
