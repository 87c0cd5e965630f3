"""Position of one symbol with its fills, stops and marks, exact. SEMANTICS sections 4 to 6.

The loop runs over *regions* instead of bars. A region is a stretch of bars with the same desired position. Between two
fills the equity is a constant plus or minus the close, so a region needs one pass for its stop and one for its marks.
Shorts use the same code with prices multiplied by -1, which reverses every comparison.
"""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import BLOCK, MINUTE_MS, CandleColumns, bar_origin, native, view
from candlemill.engine.fills import BOTH, LATE, SIGNAL, STOP, TAKE, Fills
from candlemill.engine.signals import PositionChanges, first_at_least
from candlemill.engine.summary import CLOSED, FINE, THROUGH, CarriedState

MILLION: Final = 1_000_000
SCALE: Final = 100_000_000
FAR: Final = 1 << 62


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


class Position:
    """Position, its marks and the counts so far, while the loop runs.

    Money is per unit of base and relative to the equity at the last mark before bar `lo`. It is exact: each amount in
    10^-8, rounded down, has a `rest` in 10^-8 of that unit. Prices are integers, so the rest of the equity changes only
    with a fee or funding. `log`, if given, records every fill.
    """

    def __init__(
        self, candles: CandleColumns, rules: ExecutionRules, start: CarriedState, lo: i64, hi: i64, log: Fills | None
    ) -> None:
        self.candles: CandleColumns = candles
        self.rules: ExecutionRules = rules
        self.lo: i64 = lo
        self.hi: i64 = hi
        self.log: Fills | None = log
        # position
        self.side: i64 = start.side
        self.entry: i64 = start.entry
        self.extreme: i64 = start.extreme
        self.locked: bool = start.locked
        self.wanted: i64 = start.desired
        self.base: i64 = 0  # equity = base + side * close, and the rest
        self.rest: i64 = 0
        self.inherited: bool = start.side != 0
        self.over_gap: bool = False
        self.entry_base: i64 = 0  # `base` before the position was opened
        self.entry_rest: i64 = 0
        # needed by the Summary
        self.peak: i64 = 0
        self.peak_rest: i64 = 0
        self.low: i64 = 0
        self.low_rest: i64 = 0
        self.drawdown: i64 = 0
        self.drawdown_rest: i64 = 0
        self.funding: i64 = 0
        self.funding_rest: i64 = 0  # a sum, like the next two rests
        self.turnover: i64 = 0
        self.maker_turnover: i64 = 0  # the part of the turnover that pays the maker's fee
        self.fills: i64 = 0
        self.trades: i64 = 0
        self.wins: i64 = 0
        self.gross_profit: i64 = 0
        self.profit_rest: i64 = 0
        self.gross_loss: i64 = 0
        self.loss_rest: i64 = 0
        self.exposure: i64 = 0
        self.ambiguous: i64 = 0
        self.over_gaps: i64 = 0
        self.gap_profit: i64 = 0  # from closes before missing minutes to opens after them
        self.head: i64 = 0
        self.head_cash: i64 = 0
        self.head_rest: i64 = 0
        self.head_gap: bool = False
        # cursors
        self.gap: i64 = first_at_least(candles.gaps, lo)
        self.day: i64 = first_at_least(candles.day_ends, lo)
        self.first_day: i64 = self.day
        last_day: i64 = first_at_least(candles.day_ends, hi)
        self.day_equity: vec[i64] = vec[i64](np.zeros(last_day - self.day, dtype=np.int64))
        self.day_rest: vec[i64] = vec[i64](np.zeros(last_day - self.day, dtype=np.int64))
        self.next_day: i64 = at_or_far(candles.day_ends, self.day)
        self.next_gap: i64 = at_or_far(candles.gaps, self.gap)
        self.instant: i64 = first_at_least(candles.funding_bars, lo)
        self.next_funding: i64 = at_or_far(candles.funding_bars, self.instant)
        self.exit_price: i64 = 0
        self.exit_reason: i64 = 0
        if self.side != 0:
            self.head = THROUGH
            self.base = self.entry_base = -self.side * candles.close[lo - 1]
            if self.next_gap == lo:
                self.cross_gap(lo)

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

    def spend(self, amount: i64, rest: i64) -> None:
        self.base -= amount
        self.rest -= rest
        if self.rest < 0:
            self.base -= 1
            self.rest += FINE

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
        self.entry_base, self.entry_rest = self.base, self.rest
        self.pay(bar, raw, side, side, reason)
        self.side = side
        self.extreme = raw
        self.inherited = False
        self.over_gap = False
        if self.log is not None:
            self.log.draw(bar, self.base, self.rest, side)

    def close_position(self, bar: i64, raw: i64, reason: i64) -> None:
        self.pay(bar, raw, -self.side, 0, reason)
        self.side = 0
        if self.log is not None:
            self.log.draw(bar, self.base, self.rest, 0)
        profit, rest = self.since_entry()
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

    def since_entry(self) -> tuple[i64, i64]:
        """Return the cash received since the position was opened, or since bar `lo`: an amount and its rest."""
        cash: i64 = self.base - self.entry_base
        rest: i64 = self.rest - self.entry_rest
        if rest < 0:
            return cash - 1, rest + FINE
        return cash, rest

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
        if begin >= end:
            return
        if not self.rules.marked:
            if self.side != 0 and self.next_gap <= end:
                self.see_gaps(begin, end)
            return
        if self.side == 0:
            self.see(self.base, self.base)
        else:
            self.exposure += end - begin
            if self.next_gap <= end:
                self.see_gaps(begin, end)
            self.mark_held(begin, end)
        if self.next_day < end:
            self.mark_days(end)

    def see(self, high: i64, low: i64) -> None:
        """Update with the highest and the lowest equity of a stretch, both with the present rest, and the fall from the
        earlier peak.
        """
        rest: i64 = self.rest
        fall: i64 = self.peak - low
        fall_rest: i64 = self.peak_rest - rest
        if fall_rest < 0:
            fall -= 1
            fall_rest += FINE
        if fall > self.drawdown or (fall == self.drawdown and fall_rest > self.drawdown_rest):
            self.drawdown, self.drawdown_rest = fall, fall_rest
        if high > self.peak or (high == self.peak and rest > self.peak_rest):
            self.peak, self.peak_rest = high, rest
        if low < self.low or (low == self.low and rest < self.low_rest):
            self.low, self.low_rest = low, rest

    def mark_held(self, begin: i64, end: i64) -> None:
        """Mark bars with a position.

        The two extremes are enough, unless a deep fall from a new peak can lie between them.
        """
        highest, lowest = extremes(self.candles, begin, end)
        high: i64 = self.base + highest
        low: i64 = self.base + lowest
        if self.side < 0:
            high = self.base - lowest
            low = self.base - highest
        if high >= self.peak and high - low > self.drawdown:
            fall: i64 = deepest_fall(self.candles.close, self.side, begin, end)
            if fall > self.drawdown:
                self.drawdown, self.drawdown_rest = fall, 0
        self.see(high, low)

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


def extremes(candles: CandleColumns, begin: i64, end: i64) -> tuple[i64, i64]:
    """Return the highest and the lowest close of bars `begin` to `end - 1`; by whole blocks if the candles have them.

    Maxima and minima are computed without branches, which the processor would often mispredict.
    """
    close = candles.close
    high: i64 = 0
    low: i64 = FAR
    i: i64 = begin
    if end - begin >= 2 * BLOCK and len(candles.block_top) != 0:
        tops, bottoms = candles.block_top, candles.block_bottom
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


def deepest_fall(close: vec[i64], side: i64, begin: i64, end: i64) -> i64:
    """Return the deepest fall of `side` times close from its earlier highest value, in bars `begin` to `end - 1`."""
    fall: i64 = 0
    top: i64 = -FAR
    i: i64 = begin
    while i < end:
        price: i64 = side * close[i]
        if price > top:
            top = price
        if top - price > fall:
            fall = top - price
        i += 1
    return fall


def first_outside(candles: CandleColumns, begin: i64, end: i64, floor: i64, ceiling: i64) -> i64:
    """Return the first bar that touches `floor` with its low or `ceiling` with its high, or `end`."""
    low, high = candles.low, candles.high
    i: i64 = begin
    while i < end:
        if low[i] <= floor or high[i] >= ceiling:
            return i
        i += 1
    return end


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


def at_or_far(column: vec[i64], index: i64) -> i64:
    """Return the element at `index`; after the last one, a bar beyond all candles."""
    if index < len(column):
        return column[index]
    return FAR
