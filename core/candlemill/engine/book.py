"""The account while bars go by: one position, its fills, stops and marks. SEMANTICS sections 4 to 6, exact.

It is walked by *regions*, the stretches of bars on which the same position is wanted, instead of bars: between two
fills the equity is a constant plus or minus the close, so a region needs one pass for its stop and one for its marks.
Shorts run through the same code with prices multiplied by -1, which mirrors every comparison.
"""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.fills import BOTH, SIGNAL, STOP, TAKE, Fills
from candlemill.engine.signals import Changes, first_at_least
from candlemill.engine.summary import CLOSED, THROUGH, State
from candlemill.engine.tape import BLOCK, Tape, native, view

MILLION: Final = 1_000_000
SCALE: Final = 100_000_000
FAR: Final = 1 << 62


def share(amount: i64, ppm: i64) -> i64:
    """`amount * ppm // 10^6` for amount >= 0, without leaving 64 bits on the way."""
    whole: i64 = amount // MILLION
    return whole * ppm + (amount - whole * MILLION) * ppm // MILLION


def funding_due(price: i64, rate: i64) -> i64:
    """`price * rate // 10^8`, without leaving 64 bits on the way."""
    whole: i64 = price // SCALE
    return whole * rate + (price - whole * SCALE) * rate // SCALE


class Rules:
    """Costs and stops in parts per million (0: none), and whether fills happen at the deciding bar's close.

    `fee` is the taker's; `maker_fee` is that of take-profit exits, which wait in the book. Both may be rebates (< 0).
    `short_entries` tells that a short's entry price outlives its bar: what a compound account needs.
    """

    def __init__(
        self,
        fee: i64 = 1000,
        slippage: i64 = 0,
        stop_loss: i64 = 0,
        take_profit: i64 = 0,
        trailing_stop: i64 = 0,
        at_close: bool = False,
        maker_fee: i64 = 1000,
        short_entries: bool = False,
    ) -> None:
        self.fee: i64 = fee
        self.maker_fee: i64 = maker_fee
        self.short_entries: bool = short_entries
        self.slippage: i64 = slippage
        self.stop_loss: i64 = stop_loss
        self.take_profit: i64 = take_profit
        self.trailing_stop: i64 = trailing_stop
        self.at_close: bool = at_close
        self.has_stops: bool = stop_loss != 0 or take_profit != 0 or trailing_stop != 0
        self.needs_entry: bool = stop_loss != 0 or take_profit != 0


class Book:
    """The account while the loop runs: one position, its marks, and what has been counted so far.

    Money is per unit of base and relative to the equity at the last mark before bar `lo`. `log`, where given, takes
    down every fill.
    """

    def __init__(self, tape: Tape, rules: Rules, start: State, lo: i64, hi: i64, log: Fills | None) -> None:
        self.tape: Tape = tape
        self.rules: Rules = rules
        self.lo: i64 = lo
        self.hi: i64 = hi
        self.log: Fills | None = log
        # position
        self.side: i64 = start.side
        self.entry: i64 = start.entry
        self.extreme: i64 = start.extreme
        self.locked: bool = start.locked
        self.wanted: i64 = start.desired
        self.base: i64 = 0  # equity = base + side * close
        self.inherited: bool = start.side != 0
        self.over_gap: bool = False
        self.entry_cash: i64 = 0
        # what the Summary needs
        self.peak: i64 = 0
        self.low: i64 = 0
        self.drawdown: i64 = 0
        self.fees: i64 = 0
        self.funding: i64 = 0
        self.turnover: i64 = 0
        self.fills: i64 = 0
        self.trades: i64 = 0
        self.wins: i64 = 0
        self.gross_profit: i64 = 0
        self.gross_loss: i64 = 0
        self.exposure: i64 = 0
        self.ambiguous: i64 = 0
        self.over_gaps: i64 = 0
        self.head: i64 = 0
        self.head_cash: i64 = 0
        self.head_gap: bool = False
        # cursors
        self.gap: i64 = first_at_least(tape.gaps, lo)
        self.day: i64 = first_at_least(tape.day_ends, lo)
        self.first_day: i64 = self.day
        last_day: i64 = first_at_least(tape.day_ends, hi)
        self.day_equity: vec[i64] = vec[i64](np.zeros(last_day - self.day, dtype=np.int64))
        self.next_day: i64 = at_or_far(tape.day_ends, self.day)
        self.next_gap: i64 = at_or_far(tape.gaps, self.gap)
        self.instant: i64 = first_at_least(tape.funding_bars, lo)
        self.next_funding: i64 = at_or_far(tape.funding_bars, self.instant)
        self.exit_price: i64 = 0
        self.exit_reason: i64 = 0
        if self.side != 0:
            self.head = THROUGH
            self.base = -self.side * tape.close[lo - 1]
            self.over_gap = self.next_gap == lo

    def walk(self, changes: Changes) -> None:
        """Run all bars: one region up to each change of the wanted position, and one after the last."""
        at, value, lo, hi = changes.at, changes.value, self.lo, self.hi
        at_close = self.rules.at_close
        prices = fill_prices(self.tape, changes, at_close)
        count: i64 = len(at)
        begin: i64 = lo  # first bar whose intrabar step and mark belong to the region
        mark: i64 = lo
        entry_bar: i64 = -1
        if not at_close and not self.locked and self.wanted != self.side:
            self.trade(lo, self.tape.open[lo], self.wanted)
            entry_bar = lo
        k: i64 = 0
        while k < count:
            j: i64 = at[k]
            if at_close:
                self.region(begin, j + 1, mark, j, entry_bar)
                self.want(value[k])
                self.trade(j, prices[k], self.wanted)
                mark = j
            else:
                self.region(begin, j + 1, mark, j + 1, entry_bar)
                self.want(value[k])
                mark = j + 1
                entry_bar = -1
                if j + 1 < hi and self.wanted != self.side:
                    self.trade(j + 1, prices[k], self.wanted)
                    entry_bar = j + 1
            begin = j + 1
            k += 1
        self.region(begin, hi, mark, hi, entry_bar)

    def want(self, value: i64) -> None:
        self.wanted = value
        self.locked = False

    def region(self, begin: i64, end: i64, mark: i64, mark_end: i64, entry_bar: i64) -> None:
        """Intrabar steps of bars `begin` to `end - 1` and marks of bars `mark` to `mark_end - 1`.

        Under `fill = close` the last bar's mark belongs to the next region: its trade comes first.
        """
        out: i64 = end
        if self.side != 0 and self.rules.has_stops and begin < end:
            out = self.find_exit(begin, end, entry_bar)
        if out < end:
            self.mark(mark, out)
            if self.next_funding <= out:
                self.fund(out)
            self.close_position(out, self.exit_price, self.exit_reason)
            self.locked = True
            mark = out
        self.mark(mark, mark_end)

    def trade(self, bar: i64, raw: i64, side: i64) -> None:
        """Close what is open and open `side`, both at the raw price. Whoever held before the bar pays its funding."""
        if self.side == side:
            return
        if self.next_funding <= bar:
            self.fund(bar)
        if self.side != 0:
            self.close_position(bar, raw, SIGNAL)
        if side != 0:
            self.open_position(bar, raw, side)

    def pay(self, bar: i64, raw: i64, side: i64, after: i64, reason: i64) -> i64:
        """Buy (side 1) or sell (side -1) one unit: the cash that comes in, after slippage and fee."""
        fill: i64 = raw
        if self.rules.slippage != 0:
            fill += side * share(raw, self.rules.slippage)
        rate: i64 = self.rules.fee
        if reason == TAKE:
            rate = self.rules.maker_fee
        fee: i64 = share(fill, rate)
        self.fees += fee
        self.turnover += fill
        self.fills += 1
        self.entry = fill
        if self.log is not None:
            self.log.add(bar, after, fill, reason)
        return -side * fill - fee

    def fund(self, bar: i64) -> None:
        """Settle the funding of all instants up to `bar` with the position as it is: a long pays a positive rate on
        the close before it, a short receives it."""
        tape = self.tape
        while self.next_funding <= bar:
            if self.side != 0:
                price: i64 = tape.close[self.next_funding - 1]
                due: i64 = funding_due(price, self.side * tape.funding_rates[self.instant])
                self.base -= due
                self.funding += due
                if self.inherited:
                    self.head_cash -= due
                else:
                    self.entry_cash -= due
                if self.log is not None:
                    self.log.draw(self.next_funding, self.base, self.side)
            self.instant += 1
            self.next_funding = at_or_far(tape.funding_bars, self.instant)

    def open_position(self, bar: i64, raw: i64, side: i64) -> None:
        cash: i64 = self.pay(bar, raw, side, side, SIGNAL)
        self.base += cash
        self.side = side
        self.entry_cash = cash
        self.extreme = raw
        self.inherited = False
        self.over_gap = False
        if self.log is not None:
            self.log.draw(bar, self.base, side)

    def close_position(self, bar: i64, raw: i64, reason: i64) -> None:
        cash: i64 = self.pay(bar, raw, -self.side, 0, reason)
        self.base += cash
        self.side = 0
        if self.log is not None:
            self.log.draw(bar, self.base, 0)
        if self.inherited:
            self.inherited = False
            self.head = CLOSED
            self.head_cash += cash
            self.head_gap = self.over_gap
            return
        self.trades += 1
        if self.over_gap:
            self.over_gaps += 1
        profit: i64 = self.entry_cash + cash
        if profit > 0:
            self.wins += 1
            self.gross_profit += profit
        else:
            self.gross_loss -= profit

    def find_exit(self, begin: i64, end: i64, entry_bar: i64) -> i64:
        """The bar that a stop or target ends, or `end`; sets `exit_price` and takes the extremes in.

        Levels and prices are times `side`, so that the stop is below and the target above for shorts too.
        """
        rules, side = self.rules, self.side
        stop: i64 = -FAR
        if rules.stop_loss != 0:
            stop = side * self.entry - share(self.entry, rules.stop_loss)
        take: i64 = FAR
        if rules.take_profit != 0:
            take = side * self.entry + share(self.entry, rules.take_profit)
        bar: i64 = end
        if rules.trailing_stop != 0:
            bar, stop = self.follow(begin, end, stop, take)
        elif side > 0:
            bar = first_outside(self.tape, begin, end, stop, take)
        else:
            bar = first_outside(self.tape, begin, end, -take, -stop)
        if bar < end:
            self.exit_price = side * self.exit_level(bar, stop, take, bar == entry_bar)
        return bar

    def exit_level(self, bar: i64, stop: i64, take: i64, is_entry: bool) -> i64:
        """What the bar that touched the stop or the target pays: the stop first, and an open beyond it at the open."""
        side: i64 = self.side
        open: i64 = side * self.tape.open[bar]
        worst: i64 = side * self.tape.low[bar]
        best: i64 = side * self.tape.high[bar]
        if side < 0:
            worst, best = best, worst
        if worst <= stop:
            self.exit_reason = STOP
            if best >= take:
                self.exit_reason = BOTH
                self.ambiguous += 1
            return stop if is_entry else min(open, stop)
        self.exit_reason = TAKE
        return take if is_entry else max(open, take)

    def follow(self, begin: i64, end: i64, fixed: i64, take: i64) -> tuple[i64, i64]:
        """As `first_outside` with a stop that trails the best price; also tells the stop at that bar."""
        side: i64 = self.side
        against, favour = self.tape.low, self.tape.high
        if side < 0:
            against, favour = favour, against
        trailing: i64 = self.rules.trailing_stop
        best: i64 = side * self.extreme
        stop: i64 = max(fixed, best - share(side * best, trailing))
        i: i64 = begin
        while i < end:
            high: i64 = side * favour[i]
            if side * against[i] <= stop or high >= take:
                return i, stop
            if high > best:
                best = high
                stop = max(fixed, best - share(side * best, trailing))
            i += 1
        self.extreme = side * best
        return end, stop

    def mark(self, begin: i64, end: i64) -> None:
        """Mark bars `begin` to `end - 1` with the position as it is; funding comes before its bar's mark."""
        while self.next_funding < end:
            bar: i64 = self.next_funding
            self.mark_stretch(begin, bar)
            self.fund(bar)
            begin = max(begin, bar)
        self.mark_stretch(begin, end)

    def mark_stretch(self, begin: i64, end: i64) -> None:
        if begin >= end:
            return
        if self.side == 0:
            equity: i64 = self.base
            self.see(equity, equity, self.peak - equity)
        else:
            self.exposure += end - begin
            if self.next_gap <= end:
                self.see_gaps(begin, end)
            self.mark_held(begin, end)
        if self.next_day < end:
            self.mark_days(end)

    def see(self, high: i64, low: i64, fall: i64) -> None:
        """Take in the highest and the lowest equity of a stretch and its deepest fall from the running peak."""
        if high > self.peak:
            self.peak = high
        if low < self.low:
            self.low = low
        if fall > self.drawdown:
            self.drawdown = fall

    def mark_held(self, begin: i64, end: i64) -> None:
        """Marks with a position. Two extremes tell all, unless a new peak and then a deep fall lie between them."""
        highest, lowest = extremes(self.tape, begin, end)
        high: i64 = self.base + highest
        low: i64 = self.base + lowest
        if self.side < 0:
            high = self.base - lowest
            low = self.base - highest
        fall: i64 = 0
        if high <= self.peak:
            fall = self.peak - low
        elif high - low > self.drawdown:
            fall = deepest_fall(self.tape.close, self.side, begin, end, self.peak - self.base)
        self.see(high, low, fall)

    def see_gaps(self, begin: i64, end: i64) -> None:
        """Whether a minute is missing after one of the marks, as far as this run's bars tell."""
        while self.next_gap <= begin:
            self.gap += 1
            self.next_gap = at_or_far(self.tape.gaps, self.gap)
        if self.next_gap <= end and self.next_gap < self.hi:
            self.over_gap = True

    def mark_days(self, end: i64) -> None:
        """Equity at the last bar of each day that ends before bar `end`."""
        while self.next_day < end:
            equity: i64 = self.base
            if self.side != 0:
                equity += self.side * self.tape.close[self.next_day]
            self.day_equity[self.day - self.first_day] = equity
            self.day += 1
            self.next_day = at_or_far(self.tape.day_ends, self.day)


def extremes(tape: Tape, begin: i64, end: i64) -> tuple[i64, i64]:
    """The highest and the lowest close of bars `begin` to `end - 1`; whole blocks at once where the tape has them.

    Maxima and minima without branches: those would be guessed wrong.
    """
    close = tape.close
    high: i64 = 0
    low: i64 = FAR
    i: i64 = begin
    if end - begin >= 2 * BLOCK and len(tape.block_top) != 0:
        tops, bottoms = tape.block_top, tape.block_bottom
        b: i64 = (begin + BLOCK - 1) // BLOCK
        while i < b * BLOCK:
            high = max(high, close[i])
            low = min(low, close[i])
            i += 1
        while b < end // BLOCK:
            high = max(high, tops[b])
            low = min(low, bottoms[b])
            b += 1
        i = b * BLOCK
    while i < end:
        price: i64 = close[i]
        if price > high:
            high = price
        if price < low:
            low = price
        i += 1
    return high, low


def deepest_fall(close: vec[i64], side: i64, begin: i64, end: i64, top: i64) -> i64:
    """The deepest fall of `side` times close from the highest before it, or from `top`."""
    fall: i64 = 0
    i: i64 = begin
    while i < end:
        price: i64 = side * close[i]
        if price > top:
            top = price
        if top - price > fall:
            fall = top - price
        i += 1
    return fall


def first_outside(tape: Tape, begin: i64, end: i64, floor: i64, ceiling: i64) -> i64:
    """The first bar that touches `floor` with its low or `ceiling` with its high, or `end`."""
    low, high = tape.low, tape.high
    i: i64 = begin
    while i < end:
        if low[i] <= floor or high[i] >= ceiling:
            return i
        i += 1
    return end


def fill_prices(tape: Tape, changes: Changes, at_close: bool) -> vec[i64]:
    """The raw price at which each change trades. Gathered beforehand: alone, each would be a wait for memory."""
    at = view(changes.at)
    if at_close:
        return native(view(tape.close)[at])
    last = len(tape.open) - 1
    return native(view(tape.open)[np.minimum(at + 1, int(last))])


def at_or_far(column: vec[i64], index: i64) -> i64:
    """The element at `index`, or a bar beyond every tape after the last one."""
    if index < len(column):
        return column[index]
    return FAR
