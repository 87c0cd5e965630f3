"""Account `units` of fills that are decided already: positions of any size, marks and counts, exact and compiled.

All quantities of a run are whole numbers of *shares*, their greatest common divisor. Money is per share, as in
`position`: an amount in 10^-8, rounded down, and a `rest` in 10^-8 of that. Between two fills equity is linear in the
closes, so the two extremes of a stretch are enough to mark it, unless a deep fall from a new peak can lie between them.
"""

from typing import Final

from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns, Column, native
from candlemill.engine.position import fee_of, funding_of
from candlemill.engine.signals import first_at_least
from candlemill.engine.stretches import at_or_far
from candlemill.engine.summary import Summary, count_equity
from candlemill.engine.unit_run import UnitRun, exact

MONEY: Final = (
    "profit", "peak", "low", "drawdown", "fees", "funding", "turnover", "gross_profit", "gross_loss", "gap_profit",
    "head_cash", "tail_cash",
)  # fmt: skip


class UnitBook(UnitRun):
    """The account while its fills are settled. `shares` is the signed position, `exposed` whether there is one.

    An exposure whose quantity rounds to 0 is a position without shares.
    """

    def __init__(self, candles: CandleColumns, lo: i64, hi: i64, shares: i64, exposed: bool) -> None:
        # before the base's `__init__`: mypyc then knows that they are always defined, and does not check each read
        self.shares: i64 = shares
        self.exposed: bool = exposed
        self.at: i64 = lo  # the first bar that is not marked yet
        self.fees: i64 = 0
        self.fees_rest: i64 = 0
        self.funding: i64 = 0
        self.funding_rest: i64 = 0
        self.instant: i64 = first_at_least(candles.funding_bars, lo)
        self.next_funding: i64 = at_or_far(candles.funding_bars, self.instant)
        super().__init__(candles, lo, hi, shares, exposed)

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
                self.begin_trade()
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

    def mark(self, end: i64) -> None:
        """Mark the bars before `end` with the current position."""
        self.mark_bars(self.at, end, self.shares, self.exposed)
        self.at = max(self.at, end)

    def summary(self, share: int) -> tuple[Summary, list[int]]:
        """Return the Summary and the daily profits in 10^-24; a share is `share` * 10^-8 units of base."""
        total = self.totals(self.shares, self.exposed)
        total.fees = exact(self.fees, self.fees_rest)
        total.funding = exact(self.funding, self.funding_rest)
        for name in MONEY:
            setattr(total, name, getattr(total, name) * share)
        daily = count_equity(total, self.day_equity, self.day_rest)
        total.squares *= share * share
        total.loss_squares *= share * share
        return total, [profit * share for profit in daily]
