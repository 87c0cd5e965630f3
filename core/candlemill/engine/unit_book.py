"""Account `units` of fills that are decided already: positions of any size, marks and counts, exact and compiled.

All quantities of a run are whole numbers of *shares*, their greatest common divisor. Money is per share, as in
`position`: an amount in 10^-8, rounded down, and a `rest` in 10^-8 of that. Between two fills equity is linear in the
closes, so the two extremes of a stretch are enough to mark it, unless a deep fall from a new peak can lie between them.
"""

from librt.vecs import append, vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns, Column, native
from candlemill.engine.position import at_or_far, deepest_fall, extremes, fee_of, funding_of
from candlemill.engine.signals import first_at_least
from candlemill.engine.summary import CLOSED, FINE, THROUGH, Summary, count_equity


class UnitBook:
    """The account while its fills are settled. `shares` is the signed position, `exposed` whether there is one.

    An exposure whose quantity rounds to 0 is a position without shares.
    """

    def __init__(self, candles: CandleColumns, lo: i64, hi: i64, shares: i64, exposed: bool) -> None:
        self.candles: CandleColumns = candles
        self.lo: i64 = lo
        self.hi: i64 = hi
        self.shares: i64 = shares
        self.exposed: bool = exposed
        self.base: i64 = 0  # equity = base + shares * close, and the rest
        self.rest: i64 = 0
        if lo > 0:
            self.base = -shares * candles.close[lo - 1]
        self.at: i64 = lo  # the first bar that is not marked yet
        self.peak: i64 = 0
        self.peak_rest: i64 = 0
        self.low: i64 = 0
        self.low_rest: i64 = 0
        self.drawdown: i64 = 0
        self.drawdown_rest: i64 = 0
        self.fees: i64 = 0
        self.fees_rest: i64 = 0
        self.funding: i64 = 0
        self.funding_rest: i64 = 0
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
        self.gap_profit: i64 = 0
        self.inherited: bool = exposed  # whether the open trade began before the slice
        self.head: i64 = 0
        self.head_cash: i64 = 0
        self.head_rest: i64 = 0
        self.head_gap: bool = False
        self.entry_base: i64 = self.base  # before the open trade's first fill
        self.entry_rest: i64 = 0
        self.over_gap: bool = False  # whether a minute was missing since then
        self.day_equity: vec[i64] = vec[i64]()
        self.day_rest: vec[i64] = vec[i64]()
        # cursors
        self.day: i64 = first_at_least(candles.day_ends, lo)
        self.next_day: i64 = at_or_far(candles.day_ends, self.day)
        self.gap: i64 = first_at_least(candles.gaps, max(lo, 1))
        self.next_gap: i64 = at_or_far(candles.gaps, self.gap)
        self.instant: i64 = first_at_least(candles.funding_bars, lo)
        self.next_funding: i64 = at_or_far(candles.funding_bars, self.instant)
        self.pass_gaps(lo)

    # -- fills -----------------------------------------------------------------------------------------------------

    def settle(
        self, bars: Column, before: Column, after: Column, shares: Column, prices: Column, rates: Column
    ) -> None:
        """Settle all fills and mark all bars. `shares` is the position after each fill, exposures are ppm."""
        bar, exposed, opens = native(bars), native(after), native(before)
        held, price, rate = native(shares), native(prices), native(rates)
        n: i64 = len(bar)
        k: i64 = 0
        while k < n:
            self.fund(bar[k])
            self.mark(bar[k])
            if opens[k] == 0:
                self.inherited = False
                self.over_gap = False
                self.entry_base, self.entry_rest = self.base, self.rest
            if held[k] != self.shares:
                self.trade(held[k] - self.shares, price[k], rate[k])
                self.shares = held[k]
            self.exposed = exposed[k] != 0
            if not self.exposed:
                self.end_trade()
            k += 1
        self.fund(self.hi - 1)
        self.mark(self.hi)

    def trade(self, change: i64, price: i64, rate: i64) -> None:
        size: i64 = change if change > 0 else -change
        fee, rest = fee_of(size * price, rate)
        self.spend(change * price + fee, rest)
        self.fees += fee
        self.fees_rest += rest
        self.turnover += size * price
        self.fills += 1

    def spend(self, amount: i64, rest: i64) -> None:
        self.base -= amount
        self.rest -= rest
        if self.rest < 0:
            self.base -= 1
            self.rest += FINE

    def fund(self, bar: i64) -> None:
        """Settle funding up to `bar` on the close before each instant's bar; a long pays a positive rate."""
        candles = self.candles
        while self.next_funding <= bar:
            if self.exposed:
                self.mark(self.next_funding)
                value: i64 = self.shares * candles.close[self.next_funding - 1]
                due, rest = funding_of(value, candles.funding_rates[self.instant])
                self.spend(due, rest)
                self.funding += due
                self.funding_rest += rest
            self.instant += 1
            self.next_funding = at_or_far(candles.funding_bars, self.instant)

    def end_trade(self) -> None:
        cash, rest = self.since_entry()
        if self.inherited:
            self.inherited = False
            self.head, self.head_cash, self.head_rest = CLOSED, cash, rest
            self.head_gap = self.over_gap
            return
        self.trades += 1
        if self.over_gap:
            self.over_gaps += 1
        if cash > 0 or (cash == 0 and rest > 0):
            self.wins += 1
            self.gross_profit += cash
            self.profit_rest += rest
        else:
            self.gross_loss -= cash
            self.loss_rest -= rest

    def since_entry(self) -> tuple[i64, i64]:
        """Return the cash received since the trade began, or since bar `lo`: an amount and its rest."""
        cash: i64 = self.base - self.entry_base
        rest: i64 = self.rest - self.entry_rest
        if rest < 0:
            return cash - 1, rest + FINE
        return cash, rest

    # -- marks -----------------------------------------------------------------------------------------------------

    def mark(self, end: i64) -> None:
        """Mark the bars before `end` with the current position."""
        begin: i64 = self.at
        if begin >= end:
            return
        self.at = end
        if self.exposed:
            self.exposure += end - begin
        shares: i64 = self.shares
        high: i64 = self.base
        low: i64 = self.base
        if shares != 0:
            highest, lowest = extremes(self.candles, begin, end)
            high += shares * highest if shares > 0 else shares * lowest
            low += shares * lowest if shares > 0 else shares * highest
            if high >= self.peak and high - low > self.drawdown:
                side: i64 = 1 if shares > 0 else -1
                fall: i64 = side * shares * deepest_fall(self.candles.close, side, begin, end)
                if fall > self.drawdown:
                    self.drawdown, self.drawdown_rest = fall, 0
        self.see(high, low)
        while self.next_day < end:
            self.day_equity = append(self.day_equity, self.base + shares * self.candles.close[self.next_day])
            self.day_rest = append(self.day_rest, self.rest)
            self.day += 1
            self.next_day = at_or_far(self.candles.day_ends, self.day)
        self.pass_gaps(end)

    def see(self, high: i64, low: i64) -> None:
        """Update with the highest and the lowest equity of a stretch, both with the present rest."""
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

    def pass_gaps(self, bar: i64) -> None:
        """Add the profit before the opens of bars up to `bar` that follow missing minutes."""
        candles = self.candles
        while self.next_gap <= bar and self.next_gap < self.hi:
            if self.exposed:
                self.over_gap = True
            self.gap_profit += self.shares * (candles.open[self.next_gap] - candles.close[self.next_gap - 1])
            self.gap += 1
            self.next_gap = at_or_far(candles.gaps, self.gap)

    # -- the result ------------------------------------------------------------------------------------------------

    def summary(self, share: int) -> tuple[Summary, list[int]]:
        """Return the Summary and the daily profits in 10^-24; a share is `share` * 10^-8 units of base."""
        total = Summary()
        total.bars = int(self.hi - self.lo)
        equity: i64 = self.base
        if self.hi > self.lo:
            equity += self.shares * self.candles.close[self.hi - 1]
            total.first, total.last = int(self.candles.open[self.lo]), int(self.candles.close[self.hi - 1])
        total.profit = money(equity, self.rest, share)
        total.peak = money(self.peak, self.peak_rest, share)
        total.low = money(self.low, self.low_rest, share)
        total.drawdown = money(self.drawdown, self.drawdown_rest, share)
        total.fees = money(self.fees, self.fees_rest, share)
        total.funding = money(self.funding, self.funding_rest, share)
        total.turnover = money(self.turnover, 0, share)
        total.gross_profit = money(self.gross_profit, self.profit_rest, share)
        total.gross_loss = money(self.gross_loss, self.loss_rest, share)
        total.gap_profit = money(self.gap_profit, 0, share)
        total.fills, total.trades, total.wins = int(self.fills), int(self.trades), int(self.wins)
        total.exposure, total.over_gaps = int(self.exposure), int(self.over_gaps)
        total.head, total.head_gap = int(self.head), int(self.head_gap)
        total.head_cash = money(self.head_cash, self.head_rest, share)
        if self.exposed:
            cash, rest = self.since_entry()
            if self.inherited:
                total.head, total.head_cash, total.head_gap = THROUGH, money(cash, rest, share), int(self.over_gap)
            else:
                total.tail, total.tail_cash, total.tail_gap = 1, money(cash, rest, share), int(self.over_gap)
        daily = count_equity(total, self.day_equity, self.day_rest)
        total.squares *= share * share
        total.loss_squares *= share * share
        return total, [profit * share for profit in daily]


def money(amount: i64, rest: i64, share: int) -> int:
    """Return an amount per share and its rest as money in 10^-24."""
    return (int(amount) * FINE + int(rest)) * share
