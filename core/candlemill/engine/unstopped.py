"""Positions without stops and funding that fill at the open: the same figures as `position.Position`, computed faster.

Most bars are marked by bounds. The extremes of whole blocks bound the equity of a stretch; its closes are read only
where these bounds allow a new peak, a new low or a deeper fall. Stretches that may hold the deepest fall from the same
peak wait until that peak is passed: the lowest of them is found first, and most of the others are then out of question.
"""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import BLOCK, CandleColumns
from candlemill.engine.position import MILLION, ExecutionRules, at_or_far, deepest_fall, distance, extremes, fee_of
from candlemill.engine.signals import PositionChanges, first_at_least
from candlemill.engine.summary import CLOSED, FINE, THROUGH, CarriedState, Summary, count_equity

SHIFT: Final = 5  # bits of BLOCK
LONG: Final = 2 * BLOCK  # bars from which the extremes of blocks are used
FIELDS: Final = 6  # numbers of a waiting stretch: begin, end, base, rest, side and bound


def zeros(count: i64) -> vec[i64]:
    return vec[i64](np.zeros(int(count), dtype=np.int64))


class EquityExtremes:
    """Peak, low and deepest fall of the equity so far, each an amount and its rest in 10^-8 of its unit.

    `waiting` stretches have not been read: their equity is below the peak, and at least `bound`.
    """

    def __init__(self, candles: CandleColumns, stretches: i64) -> None:
        self.candles: CandleColumns = candles
        self.has_blocks: bool = len(candles.block_top) != 0
        self.peak: i64 = 0
        self.peak_rest: i64 = 0
        self.low: i64 = 0
        self.low_rest: i64 = 0
        self.fall: i64 = 0
        self.fall_rest: i64 = 0
        self.waiting: i64 = 0
        room: i64 = stretches if self.has_blocks else 0
        self.waits: vec[i64] = zeros(room * FIELDS)

    def see(self, high: i64, low: i64, rest: i64) -> None:
        """Update with the highest and the lowest equity of a stretch, and the fall from the earlier peak."""
        self.see_low(low, rest)
        if high > self.peak or (high == self.peak and rest > self.peak_rest):
            if self.waiting != 0:
                self.read_waiting()
            self.peak, self.peak_rest = high, rest

    def see_low(self, low: i64, rest: i64) -> None:
        fall: i64 = self.peak - low
        fall_rest: i64 = self.peak_rest - rest
        if fall_rest < 0:
            fall -= 1
            fall_rest += FINE
        if fall > self.fall or (fall == self.fall and fall_rest > self.fall_rest):
            self.fall, self.fall_rest = fall, fall_rest
        if low < self.low or (low == self.low and rest < self.low_rest):
            self.low, self.low_rest = low, rest

    def see_held(self, begin: i64, end: i64, base: i64, rest: i64, side: i64) -> None:
        """Update with bars `begin` to `end - 1`, whose equity is `base + side * close` and the rest."""
        if self.has_blocks and end - begin >= LONG:
            tops, bottoms = self.candles.block_top, self.candles.block_bottom
            b: i64 = begin >> SHIFT
            last: i64 = min((end + BLOCK - 1) >> SHIFT, len(tops))
            if last << SHIFT >= end:
                top: i64 = tops[b]
                bottom: i64 = bottoms[b]
                b += 1
                while b < last:
                    top = max(top, tops[b])
                    bottom = min(bottom, bottoms[b])
                    b += 1
                most: i64 = base + top
                least: i64 = base + bottom
                if side < 0:
                    most, least = base - bottom, base - top
                if most < self.peak:
                    if self.may_matter(least):
                        self.wait(begin, end, base, rest, side, least)
                    return
        self.read(begin, end, base, rest, side)

    def may_matter(self, bound: i64) -> bool:
        """Return whether an equity of at least `bound` can be a new low or the deepest fall."""
        return self.peak - bound >= self.fall or bound <= self.low

    def wait(self, begin: i64, end: i64, base: i64, rest: i64, side: i64, bound: i64) -> None:
        waits = self.waits
        k: i64 = self.waiting * FIELDS
        waits[k] = begin
        waits[k + 1] = end
        waits[k + 2] = base
        waits[k + 3] = rest
        waits[k + 4] = side
        waits[k + 5] = bound
        self.waiting += 1

    def read(self, begin: i64, end: i64, base: i64, rest: i64, side: i64) -> None:
        """Do the same as `see_held` from the closes; a deep fall from a new peak can lie between the two extremes."""
        highest, lowest = extremes(self.candles, begin, end)
        high: i64 = base + highest
        low: i64 = base + lowest
        if side < 0:
            high, low = base - lowest, base - highest
        if high >= self.peak and high - low > self.fall:
            fall: i64 = deepest_fall(self.candles.close, side, begin, end)
            if fall > self.fall:
                self.fall, self.fall_rest = fall, 0
        self.see(high, low, rest)

    def read_waiting(self) -> None:
        """Read the stretches that can still matter, the last one first: a run that loses is lowest at its end."""
        waits = self.waits
        k: i64 = (self.waiting - 1) * FIELDS
        while k >= 0:
            if self.may_matter(waits[k + 5]):
                highest, lowest = extremes(self.candles, waits[k], waits[k + 1])
                low: i64 = waits[k + 2] + lowest if waits[k + 4] > 0 else waits[k + 2] - highest
                self.see_low(low, waits[k + 3])
            k -= FIELDS
        self.waiting = 0


class UnstoppedRun:
    """One run over bars `lo` to `hi - 1`: `position.Position` without what stops, funding and logs need."""

    def __init__(self, candles: CandleColumns, rules: ExecutionRules, start: CarriedState, lo: i64, hi: i64) -> None:
        self.candles: CandleColumns = candles
        self.rules: ExecutionRules = rules
        self.start: CarriedState = start
        self.lo: i64 = lo
        self.hi: i64 = hi
        self.side: i64 = start.side
        self.wanted: i64 = start.desired
        self.entry: i64 = start.entry
        self.base: i64 = 0  # equity = base + side * close, and the rest
        self.rest: i64 = 0
        self.entry_base: i64 = 0
        self.entry_rest: i64 = 0
        self.inherited: bool = start.side != 0
        self.over_gap: bool = False
        self.gap_profit: i64 = 0
        self.turnover: i64 = 0
        self.fills: i64 = 0
        self.trades: i64 = 0
        self.wins: i64 = 0
        self.gross_profit: i64 = 0
        self.profit_rest: i64 = 0
        self.gross_loss: i64 = 0
        self.loss_rest: i64 = 0
        self.exposure: i64 = 0
        self.over_gaps: i64 = 0
        self.head: i64 = 0
        self.head_cash: i64 = 0
        self.head_rest: i64 = 0
        self.head_gap: bool = False
        self.gap: i64 = first_at_least(candles.gaps, lo)
        self.next_gap: i64 = at_or_far(candles.gaps, self.gap)
        self.day: i64 = first_at_least(candles.day_ends, lo)
        self.first_day: i64 = self.day
        self.next_day: i64 = at_or_far(candles.day_ends, self.day)
        days: i64 = first_at_least(candles.day_ends, hi) - self.day
        self.day_equity: vec[i64] = zeros(days)
        self.day_rest: vec[i64] = zeros(days)

    def walk(self, changes: PositionChanges) -> EquityExtremes:
        """Process all bars: a stretch up to the fill of each change, and one after the last. Return the extremes."""
        at, value, lo, hi = changes.at, changes.value, self.lo, self.hi
        opens = opens_after(self.candles.open, at)
        count: i64 = len(at)
        seen = EquityExtremes(self.candles, count + 2)
        if self.side != 0:
            self.head = THROUGH
            self.base = self.entry_base = -self.side * self.candles.close[lo - 1]
            if self.next_gap == lo:
                self.cross_gap(lo)
        if self.wanted != self.side:
            self.trade(self.candles.open[lo], self.wanted)
        begin: i64 = lo
        k: i64 = 0
        while k < count:
            end: i64 = at[k] + 1
            self.wanted = value[k]
            if end < hi and self.wanted != self.side:
                self.mark(begin, end, seen)
                self.trade(opens[k], self.wanted)
                begin = end
            k += 1
        self.mark(begin, hi, seen)
        seen.read_waiting()
        return seen

    def mark(self, begin: i64, end: i64, seen: EquityExtremes) -> None:
        """Mark bars `begin` to `end - 1` with the current position."""
        if begin >= end:
            return
        if self.side == 0:
            seen.see(self.base, self.base, self.rest)
        else:
            self.exposure += end - begin
            if self.next_gap <= end:
                self.see_gaps(begin, end)
            seen.see_held(begin, end, self.base, self.rest, self.side)
        if self.next_day < end:
            self.mark_days(end)

    def trade(self, raw: i64, side: i64) -> None:
        """Close the open position and open `side`, both at the raw price."""
        was: i64 = self.side
        direction: i64 = 1 if side > was else -1
        fill: i64 = raw
        if self.rules.slippage != 0:
            fill = max(1, raw + direction * distance(raw, self.rules.slippage))
        fee, rest = fee_of(fill, self.rules.fee)
        amount: i64 = direction * fill + fee
        if was != 0:
            self.spend(fill, amount, rest)
            self.close_position()
        if side != 0:
            self.entry_base, self.entry_rest = self.base, self.rest
            self.spend(fill, amount, rest)
            self.inherited = False
            self.over_gap = False
        self.side = side
        self.entry = fill

    def spend(self, fill: i64, amount: i64, rest: i64) -> None:
        self.turnover += fill
        self.fills += 1
        self.base -= amount
        self.rest -= rest
        if self.rest < 0:
            self.base -= 1
            self.rest += FINE

    def close_position(self) -> None:
        """Count the trade that has just been closed."""
        profit: i64 = self.base - self.entry_base
        rest: i64 = self.rest - self.entry_rest
        if rest < 0:
            profit -= 1
            rest += FINE
        if self.inherited:
            self.inherited = False
            self.head = CLOSED
            self.head_cash, self.head_rest = profit, rest
            self.head_gap = self.over_gap
            return
        self.trades += 1
        if self.over_gap:
            self.over_gaps += 1
        if profit > 0 or (profit == 0 and rest > 0):
            self.wins += 1
            self.gross_profit += profit
            self.profit_rest += rest
        else:
            self.gross_loss -= profit
            self.loss_rest -= rest

    def see_gaps(self, begin: i64, end: i64) -> None:
        """Record missing minutes after one of the marks of bars `begin` to `end - 1`, within the bars of this run."""
        while self.next_gap <= begin:
            self.gap += 1
            self.next_gap = at_or_far(self.candles.gaps, self.gap)
        while self.next_gap <= end and self.next_gap < self.hi:
            self.cross_gap(self.next_gap)
            self.gap += 1
            self.next_gap = at_or_far(self.candles.gaps, self.gap)

    def cross_gap(self, bar: i64) -> None:
        """Count the profit of the position from the close before missing minutes to the open of `bar` after them."""
        self.over_gap = True
        self.gap_profit += self.side * (self.candles.open[bar] - self.candles.close[bar - 1])

    def mark_days(self, end: i64) -> None:
        """Record the equity at the last bar of each day that ends before bar `end`."""
        while self.next_day < end:
            equity: i64 = self.base
            if self.side != 0:
                equity += self.side * self.candles.close[self.next_day]
            self.day_equity[self.day - self.first_day] = equity
            self.day_rest[self.day - self.first_day] = self.rest
            self.day += 1
            self.next_day = at_or_far(self.candles.day_ends, self.day)

    def summary(self, seen: EquityExtremes) -> Summary:
        equity: i64 = self.base
        if self.side != 0:
            equity += self.side * self.candles.close[self.hi - 1]
        here = self.side != 0 and not self.inherited
        since_entry = 0
        if self.side != 0:
            since_entry = (int(self.base) - int(self.entry_base)) * FINE + int(self.rest) - int(self.entry_rest)
        out = Summary()
        out.bars = int(self.hi - self.lo)
        out.profit = int(equity) * FINE + int(self.rest)
        out.peak = int(seen.peak) * FINE + int(seen.peak_rest)
        out.low = int(seen.low) * FINE + int(seen.low_rest)
        out.drawdown = int(seen.fall) * FINE + int(seen.fall_rest)
        out.fees = int(self.turnover) * int(self.rules.fee) * (FINE // MILLION)
        out.turnover = int(self.turnover) * FINE
        out.fills = int(self.fills)
        out.trades = int(self.trades)
        out.wins = int(self.wins)
        out.gross_profit = int(self.gross_profit) * FINE + int(self.profit_rest)
        out.gross_loss = int(self.gross_loss) * FINE + int(self.loss_rest)
        out.exposure = int(self.exposure)
        out.over_gaps = int(self.over_gaps)
        out.head = int(self.head)
        out.head_cash = since_entry if self.inherited else int(self.head_cash) * FINE + int(self.head_rest)
        out.head_gap = int(self.over_gap if self.inherited else self.head_gap)
        out.tail = int(here)
        out.tail_cash = since_entry if here else 0
        out.tail_gap = int(here and self.over_gap)
        out.first = int(self.candles.open[self.lo])
        out.last = int(self.candles.close[self.hi - 1])
        out.gap_profit = int(self.gap_profit) * FINE
        return out

    def state(self) -> CarriedState:
        keeps_entry = self.rules.short_entries and self.side < 0
        return CarriedState(self.side, self.wanted, False, self.entry if keeps_entry else 0)


def opens_after(opens: vec[i64], at: vec[i64]) -> vec[i64]:
    """Return the open of the bar after each of bars `at`; of the last bar, its own.

    They are collected beforehand, because a single read in the loop would wait for memory.
    """
    out = vec[i64](np.empty(len(at), dtype=np.int64))
    last: i64 = len(opens) - 1
    count: i64 = len(at)
    k: i64 = 0
    while k < count:
        out[k] = opens[min(at[k] + 1, last)]
        k += 1
    return out


def is_unstopped(candles: CandleColumns, rules: ExecutionRules, start: CarriedState) -> bool:
    """Return whether `run_unstopped` gives the figures of these rules from this state."""
    simple = not rules.has_stops and not rules.at_close and rules.marked
    return simple and not start.locked and len(candles.funding_bars) == 0


def run_unstopped(
    candles: CandleColumns, changes: PositionChanges, rules: ExecutionRules, start: CarriedState, lo: int, hi: int
) -> tuple[Summary, CarriedState, list[int]]:
    """Do the same as `simulate.run` in one pass, for `lo < hi` and where `is_unstopped`. Sums must fit 64 bits."""
    one = UnstoppedRun(candles, rules, start, lo, hi)
    total = one.summary(one.walk(changes))
    return total, one.state(), count_equity(total, one.day_equity, one.day_rest)


def state_after(changes: PositionChanges, hi: int) -> CarriedState:
    """Return the state before bar `hi` of a run that began flat and where `is_unstopped`, without its figures.

    The position at bar `hi - 1` is the last decision made before that bar.
    """
    at, value = changes.at, changes.value
    count: i64 = len(at)
    if count == 0:
        return CarriedState()
    wanted: i64 = value[count - 1]
    held: i64 = wanted
    if at[count - 1] == hi - 1:
        held = value[count - 2] if count > 1 else 0
    return CarriedState(held, wanted)
