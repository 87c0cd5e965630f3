"""Position of one symbol with its fills, stops and marks, exact. SEMANTICS sections 4 to 6.

The loop runs over *regions* instead of bars. A region is a stretch of bars with the same desired position. Between two
fills the equity is a constant plus or minus the close, so a region needs one pass for its stop and one for its marks.
Shorts use the same code with prices multiplied by -1, which reverses every comparison.
"""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import MINUTE_MS, CandleColumns, bar_origin, native, view
from candlemill.engine.fills import BOTH, LATE, SIGNAL, STOP, TAKE, Fills
from candlemill.engine.signals import PositionChanges, first_at_least
from candlemill.engine.stretches import FAR, at_or_far, first_outside
from candlemill.engine.summary import FINE, CarriedState
from candlemill.engine.unit_run import UnitRun

MILLION: Final = 1_000_000
SCALE: Final = 100_000_000


def distance(price: i64, ppm: i64) -> i64:
    """Return `price * ppm / 10^6` rounded up, for both >= 0: a rate above 0 never gives 0."""
    whole: i64 = price // MILLION
    return whole * ppm + ((price - whole * MILLION) * ppm + (MILLION - 1)) // MILLION


def fee_of(fill: i64, ppm: i64) -> tuple[i64, i64]:
    """Return `fill * ppm / 10^6` exactly: the amount rounded down, and the rest in 10^-8 of its unit.

    A rebate (ppm < 0) is negative.
    """
    whole: i64 = fill // MILLION
    product: i64 = (fill - whole * MILLION) * ppm
    down: i64 = product // MILLION
    return whole * ppm + down, (product - down * MILLION) * (FINE // MILLION)


def funding_of(price: i64, rate: i64) -> tuple[i64, i64]:
    """Return `price * rate / 10^8` exactly: the amount rounded down, and the rest in 10^-8 of its unit."""
    whole: i64 = price // SCALE
    product: i64 = (price - whole * SCALE) * rate
    down: i64 = product // SCALE
    return whole * rate + down, product - down * SCALE


class ExecutionRules:
    """Costs and stops in parts per million (0: none), and whether fills happen at the close of the deciding bar.

    Decision bars have `timeframe` minutes. One that missing candles have cut is known to be over only at the next
    minute there is: its decision is filled at that open, also with `at_close`.

    `fee` is the taker's fee. `maker_fee` applies to take-profit exits, which are limit orders that wait at the
    exchange. Both may be rebates (< 0). `short_entries`: whether a short's entry price is kept after its bar, as a
    compound account needs. `best_path`: whether the better of an ambiguous minute's two outcomes counts; only books
    with orders or levels have two. `marked`: whether equity is marked; if not, only the fills and the figures counted
    from them are valid. `limit_through` (a price): how far the market must go beyond a resting limit order to fill it;
    0: any.
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
        best_path: bool = False,
        marked: bool = True,
        timeframe: i64 = 1,
        limit_through: i64 = 0,
    ) -> None:
        self.timeframe: i64 = timeframe
        self.fee: i64 = fee
        self.maker_fee: i64 = maker_fee
        self.short_entries: bool = short_entries
        self.best_path: bool = best_path
        self.marked: bool = marked
        self.limit_through: i64 = limit_through
        self.slippage: i64 = slippage
        self.stop_loss: i64 = stop_loss
        self.take_profit: i64 = take_profit
        self.trailing_stop: i64 = trailing_stop
        self.at_close: bool = at_close
        self.has_stops: bool = stop_loss != 0 or take_profit != 0 or trailing_stop != 0
        self.needs_entry: bool = stop_loss != 0 or take_profit != 0


class Position(UnitRun):
    """Position, its marks and the counts so far, while the loop runs. Money is per unit of base.

    `log`, if given, records every fill.
    """

    def __init__(
        self, candles: CandleColumns, rules: ExecutionRules, start: CarriedState, lo: i64, hi: i64, log: Fills | None
    ) -> None:
        # before the base's `__init__`: mypyc then knows that they are always defined, and does not check each read
        self.rules: ExecutionRules = rules
        self.log: Fills | None = log
        self.side: i64 = start.side
        self.entry: i64 = start.entry
        self.extreme: i64 = start.extreme
        self.locked: bool = start.locked
        self.wanted: i64 = start.desired
        self.maker_turnover: i64 = 0  # the part of the turnover that pays the maker's fee
        self.funding: i64 = 0
        self.funding_rest: i64 = 0  # a sum
        self.ambiguous: i64 = 0
        self.instant: i64 = first_at_least(candles.funding_bars, lo)
        self.next_funding: i64 = at_or_far(candles.funding_bars, self.instant)
        self.exit_price: i64 = 0
        self.exit_reason: i64 = 0
        super().__init__(candles, lo, hi, start.side, start.side != 0)

    def walk(self, changes: PositionChanges) -> None:
        """Process all bars: one region up to each change of the desired position, and one after the last change."""
        at, value, lo, hi = changes.at, changes.value, self.lo, self.hi
        at_close = self.rules.at_close
        late = late_changes(self.candles, changes, self.rules) if at_close else vec[i64]()
        has_late: bool = len(late) != 0
        prices = fill_prices(self.candles, changes, at_close)
        count: i64 = len(at)
        begin: i64 = lo  # first bar whose intrabar step and mark belong to the region
        mark: i64 = lo
        entry_bar: i64 = -1
        if not self.locked and self.wanted != self.side:  # with `at_close` only after a cut bar
            self.trade(lo, self.candles.open[lo], self.wanted, LATE if at_close else SIGNAL)
            entry_bar = lo
        k: i64 = 0
        while k < count:
            j: i64 = at[k]
            if at_close and has_late and late[k] != 0:
                self.region(begin, j + 1, mark, j + 1, entry_bar)
                self.want(value[k])
                mark = j + 1
                entry_bar = -1
                if j + 1 < hi and self.wanted != self.side:
                    self.trade(j + 1, self.candles.open[j + 1], self.wanted, LATE)
                    entry_bar = j + 1
            elif at_close:
                self.region(begin, j + 1, mark, j, entry_bar)
                self.want(value[k])
                self.trade(j, prices[k], self.wanted, SIGNAL)
                mark = j
                entry_bar = -1
            else:
                self.region(begin, j + 1, mark, j + 1, entry_bar)
                self.want(value[k])
                mark = j + 1
                entry_bar = -1
                if j + 1 < hi and self.wanted != self.side:
                    self.trade(j + 1, prices[k], self.wanted, SIGNAL)
                    entry_bar = j + 1
            begin = j + 1
            k += 1
        self.region(begin, hi, mark, hi, entry_bar)

    def want(self, value: i64) -> None:
        self.wanted = value
        self.locked = False

    def region(self, begin: i64, end: i64, mark: i64, mark_end: i64, entry_bar: i64) -> None:
        """Process the range of bars `begin` to `end - 1` and mark bars `mark` to `mark_end - 1`.

        Under `fill = close` the mark of the last bar belongs to the next region, because its trade comes first.
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

    def trade(self, bar: i64, raw: i64, side: i64, reason: i64) -> None:
        """Close the open position and open `side`, both at the raw price. The earlier position pays the funding of the
        bar.
        """
        if self.side == side:
            return
        if self.next_funding <= bar:
            self.fund(bar)
        if self.side != 0:
            self.close_position(bar, raw, reason)
        if side != 0:
            self.open_position(bar, raw, side, reason)

    def pay(self, bar: i64, raw: i64, side: i64, after: i64, reason: i64) -> None:
        """Buy (side 1) or sell (side -1) one unit, after slippage, and pay the fee."""
        fill: i64 = raw
        if self.rules.slippage != 0:
            fill = max(1, raw + side * distance(raw, self.rules.slippage))
        rate: i64 = self.rules.fee
        if reason == TAKE:
            rate = self.rules.maker_fee
            self.maker_turnover += fill
        self.turnover += fill
        self.fills += 1
        self.entry = fill
        if self.log is not None:
            self.log.add(bar, after, fill, reason, raw)
        fee, rest = fee_of(fill, rate)
        self.spend(side * fill + fee, rest)

    def fund(self, bar: i64) -> None:
        """Settle the funding of all instants up to `bar` with the current position.

        A long pays a positive rate on the close before the instant; a short receives it.
        """
        candles = self.candles
        while self.next_funding <= bar:
            if self.side != 0:
                price: i64 = candles.close[self.next_funding - 1]
                due, rest = funding_of(price, self.side * candles.funding_rates[self.instant])
                self.spend(due, rest)
                self.funding += due
                self.funding_rest += rest
                if self.log is not None:
                    self.log.draw(self.next_funding, self.base, self.rest, self.side)
            self.instant += 1
            self.next_funding = at_or_far(candles.funding_bars, self.instant)

    def open_position(self, bar: i64, raw: i64, side: i64, reason: i64) -> None:
        self.begin_trade()
        self.pay(bar, raw, side, side, reason)
        self.side = side
        self.extreme = raw
        if self.log is not None:
            self.log.draw(bar, self.base, self.rest, side)

    def close_position(self, bar: i64, raw: i64, reason: i64) -> None:
        self.pay(bar, raw, -self.side, 0, reason)
        self.side = 0
        if self.log is not None:
            self.log.draw(bar, self.base, self.rest, 0)
        self.end_trade()

    def find_exit(self, begin: i64, end: i64, entry_bar: i64) -> i64:
        """Return the bar on which a stop or target closes the position, or `end`.

        Sets `exit_price` and updates the extremes. Levels and prices are multiplied by `side`, so that the stop is
        below and the target above for shorts too. A level is at least 1.
        """
        rules, side = self.rules, self.side
        stop: i64 = -FAR
        if rules.stop_loss != 0:
            stop = side * self.entry - distance(self.entry, rules.stop_loss)
            if side > 0:
                stop = max(1, stop)
        take: i64 = FAR
        if rules.take_profit != 0:
            take = side * self.entry + distance(self.entry, rules.take_profit)
            if side < 0:
                take = min(-1, take)
        bar: i64 = end
        if rules.trailing_stop != 0:
            bar, stop = self.follow(begin, end, stop, take)
        elif side > 0:
            bar = first_outside(self.candles, begin, end, stop, take)
        else:
            bar = first_outside(self.candles, begin, end, -take, -stop)
        if bar < end:
            self.exit_price = side * self.exit_level(bar, stop, take, bar == entry_bar)
        return bar

    def exit_level(self, bar: i64, stop: i64, take: i64, is_entry: bool) -> i64:
        """Return the exit price of the bar that touched the stop or the target.

        If the open is at or beyond a level, the exit is at the open, on the entry bar at the level. Later in the bar
        the stop comes first.
        """
        side: i64 = self.side
        open: i64 = side * self.candles.open[bar]
        if open <= stop:
            self.exit_reason = STOP
            return stop if is_entry else open
        if open >= take:
            self.exit_reason = TAKE
            return take if is_entry else open
        worst: i64 = side * self.candles.low[bar]
        best: i64 = side * self.candles.high[bar]
        if side < 0:
            worst, best = best, worst
        if worst > stop:
            self.exit_reason = TAKE
            return take
        self.exit_reason = STOP
        if best >= take:
            self.exit_reason = BOTH
            self.ambiguous += 1
        return stop

    def follow(self, begin: i64, end: i64, fixed: i64, take: i64) -> tuple[i64, i64]:
        """Do the same as `first_outside` with a stop that trails the best price; also return the stop at that bar."""
        side: i64 = self.side
        against, favour = self.candles.low, self.candles.high
        if side < 0:
            against, favour = favour, against
        trailing: i64 = self.rules.trailing_stop
        best: i64 = side * self.extreme
        if side > 0:
            fixed = max(1, fixed)
        stop: i64 = max(fixed, best - distance(side * best, trailing))
        i: i64 = begin
        while i < end:
            high: i64 = side * favour[i]
            if side * against[i] <= stop or high >= take:
                return i, stop
            if high > best:
                best = high
                stop = max(fixed, best - distance(side * best, trailing))
            i += 1
        self.extreme = side * best
        return end, stop

    def mark(self, begin: i64, end: i64) -> None:
        """Mark bars `begin` to `end - 1` with the current position; funding is settled before the mark of its bar."""
        while self.next_funding < end:
            bar: i64 = self.next_funding
            self.mark_stretch(begin, bar)
            self.fund(bar)
            begin = max(begin, bar)
        self.mark_stretch(begin, end)

    def mark_stretch(self, begin: i64, end: i64) -> None:
        if self.rules.marked:
            self.mark_bars(begin, end, self.side, self.side != 0)
        elif self.side != 0 and begin < end and self.next_gap <= end:
            self.see_gaps(begin, end, self.side)


def fill_prices(candles: CandleColumns, changes: PositionChanges, at_close: bool) -> vec[i64]:
    """Return the raw price at which each change trades.

    They are collected beforehand, because a single read in the loop would wait for memory.
    """
    at = view(changes.at)
    if at_close:
        return native(view(candles.close)[at])
    last = len(candles.open) - 1
    return native(view(candles.open)[np.minimum(at + 1, int(last))])


def late_changes(candles: CandleColumns, changes: PositionChanges, rules: ExecutionRules) -> vec[i64]:
    """Return 1 for each change that ends a cut decision bar, else 0; nothing if there is none."""
    if rules.timeframe == 1:
        return vec[i64]()
    width = int(rules.timeframe) * MINUTE_MS
    ends = view(candles.t)[view(changes.at)] + (MINUTE_MS - bar_origin(int(rules.timeframe)))
    cut = ends % width != 0
    return native(cut) if cut.any() else vec[i64]()
