"""Accounts of quantities whose trades are not all one unit: sized ones, in exact integers; for compound ones see there.

Fills happen at the same bars and prices in every account. So the book runs first and logs its fills; the account then
processes this log. The sums have the fields of a Summary: money in 10^-24, which is quantity (10^-8) times price
(10^-8) times 10^-8 (`FINE`) for rates. Nothing is rounded.
"""

from typing import Final

from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns
from candlemill.engine.compound import DAY_SHARES, run_compound
from candlemill.engine.fills import TAKE, Curve, Fills
from candlemill.engine.position import MILLION, SCALE, ExecutionRules
from candlemill.engine.signals import PositionChanges, first_at_least
from candlemill.engine.simulate import run
from candlemill.engine.stretches import at_or_far, crossed_gap, deepest_fall, extremes
from candlemill.engine.summary import CLOSED, FINE, THROUGH, CarriedState, Summary

FIXED: Final = 0
NOTIONAL: Final = 1
COMPOUND: Final = 2
FEE: Final = FINE // MILLION  # money units per (quantity times price times ppm)


class Sizing:
    """Size of a trade.

    `quantity` and `notional` are scaled by 10^8. `volume_share` (ppm, 0: no limit) limits a trade to a share of the
    volume of the entry bar; that volume is in units of 1 / `volume_scale`.
    """

    def __init__(
        self, kind: int, quantity: int = 0, notional: int = 0, volume_share: int = 0, volume_scale: int = 0
    ) -> None:
        self.kind: int = kind
        self.quantity: int = quantity
        self.notional: int = notional
        self.volume_share: int = volume_share
        self.volume_scale: int = volume_scale

    def at_entry(self, candles: CandleColumns, bar: i64, price: i64) -> int:
        """Return the quantity of a trade that is entered in `bar` at `price`; 0 if no trade is possible."""
        quantity = self.quantity
        if self.kind == NOTIONAL:
            quantity = self.notional * SCALE // max(1, int(price))
        if self.volume_share != 0:
            quantity = min(
                quantity, int(candles.volume[bar]) * self.volume_share * SCALE // (MILLION * self.volume_scale)
            )
        return quantity


def run_account(
    candles: CandleColumns,
    changes: PositionChanges,
    rules: ExecutionRules,
    sizing: Sizing,
    start: CarriedState,
    lo: int,
    hi: int,
    log: Fills | None = None,
) -> tuple[Summary, CarriedState, list[int]]:
    """Run as `simulate.run` does, for the account of `sizing`.

    The daily list is in the account's unit; for a compound account it has the `DAY_SHARES` of each day in a row.
    """
    if lo >= hi:
        return Summary(), start, []
    if log is None:
        log = Fills()
    curve, log.curve = log.curve, None  # the account draws this curve, not the book
    unit, state, _ = run(candles, changes, rules, start, lo, hi, log)
    log.curve = curve
    if sizing.kind == COMPOUND:
        total, daily = run_compound(candles, rules, log, curve, start, lo, hi)
    else:
        account = _Sized(candles, rules, sizing, start, lo, hi, curve)
        account.walk(log)
        total, daily = account.total, account.daily
        if state.side != 0:
            state.quantity = account.quantity
    total.bars, total.exposure, total.ambiguous = unit.bars, unit.exposure, unit.ambiguous
    total.first, total.last = unit.first, unit.last
    total.count_days(daily[:: len(DAY_SHARES)] if sizing.kind == COMPOUND else daily)
    return total, state, daily


class _Sized:
    """Stretch of bars of a sized account: each trade has its own quantity."""

    def __init__(
        self,
        candles: CandleColumns,
        rules: ExecutionRules,
        sizing: Sizing,
        start: CarriedState,
        lo: i64,
        hi: i64,
        curve: Curve | None,
    ) -> None:
        self.candles: CandleColumns = candles
        self.fee: int = int(rules.fee) * FEE  # money units per (quantity times price)
        self.maker_fee: int = int(rules.maker_fee) * FEE
        self.curve: Curve | None = curve
        self.sizing: Sizing = sizing
        self.lo: i64 = lo
        self.hi: i64 = hi
        self.total: Summary = Summary()
        self.daily: list[int] = []
        self.side: i64 = start.side
        self.quantity: int = start.quantity
        self.inherited: bool = start.side != 0 and self.quantity != 0
        self.entry_bar: i64 = lo - 1
        self.cash: int = 0  # of the trade so far
        self.base: int = 0  # equity = base + holding * close
        self.holding: int = int(self.side) * self.quantity * FINE
        self.yesterday: int = 0
        self.at: i64 = lo  # the next bar to mark
        self.day: i64 = first_at_least(candles.day_ends, lo)
        self.instant: i64 = first_at_least(candles.funding_bars, lo)
        if self.inherited:
            self.base = -self.holding * int(candles.close[lo - 1])
            self.total.head = THROUGH

    def walk(self, log: Fills) -> None:
        k: i64 = 0
        n: i64 = len(log.bar)
        while k < n:
            bar: i64 = log.bar[k]
            self.mark(bar)
            self.fund(bar)
            if self.side != 0:
                self.leave(bar, int(log.price[k]), log.reason[k])
            if log.side[k] != 0:
                self.enter(bar, int(log.price[k]), log.side[k])
            self.draw(bar)
            k += 1
        self.mark(self.hi)
        total = self.total
        total.profit = self.base + (self.holding * int(self.candles.close[self.hi - 1]) if self.holding != 0 else 0)
        gap = crossed_gap(self.candles, max(self.entry_bar + 1, self.lo), self.hi - 1)
        if self.inherited:
            total.head_cash, total.head_gap = self.cash, gap
        elif self.holding != 0:
            total.tail, total.tail_cash, total.tail_gap = 1, self.cash, gap

    def draw(self, bar: i64) -> None:
        if self.curve is not None:
            self.curve.add(int(bar), self.base, self.holding)

    def enter(self, bar: i64, price: int, side: i64) -> None:
        self.side = side
        self.entry_bar = bar
        self.cash = 0
        self.quantity = self.sizing.at_entry(self.candles, bar, price)
        if self.quantity == 0:
            self.total.unfilled += 1
            return
        self.holding = int(side) * self.quantity * FINE
        self.pay(side, price, self.fee)

    def leave(self, bar: i64, price: int, reason: i64) -> None:
        side: i64 = self.side
        self.side = 0
        if self.quantity == 0:
            return
        self.holding = 0
        self.pay(-side, price, self.maker_fee if reason == TAKE else self.fee)
        gap = crossed_gap(self.candles, max(self.entry_bar + 1, self.lo), bar)
        if self.inherited:
            self.inherited = False
            self.total.head, self.total.head_cash, self.total.head_gap = CLOSED, self.cash, gap
        else:
            self.total.count_trade(self.cash, gap)

    def pay(self, side: i64, price: int, fee_rate: int) -> None:
        """Pay for a fill that buys (1) or sells (-1) the trade's quantity."""
        value = self.quantity * price
        fee = value * fee_rate
        value *= FINE
        cash = -value - fee if side > 0 else value - fee
        self.base += cash
        self.cash += cash
        self.total.fees += fee
        self.total.turnover += value
        self.total.fills += 1

    def fund(self, bar: i64) -> None:
        """Settle the funding of all instants up to `bar` with the current position."""
        candles = self.candles
        while at_or_far(candles.funding_bars, self.instant) <= bar:
            at: i64 = candles.funding_bars[self.instant]
            if self.holding != 0:
                due = (
                    int(self.side)
                    * self.quantity
                    * int(candles.close[at - 1])
                    * int(candles.funding_rates[self.instant])
                )
                self.base -= due
                self.cash -= due
                self.total.funding += due
                self.draw(at)
            self.instant += 1

    def mark(self, end: i64) -> None:
        """Mark the bars before `end`; funding is settled before the mark of its bar."""
        funding = self.candles.funding_bars
        while at_or_far(funding, self.instant) < end:
            bar: i64 = funding[self.instant]
            self.mark_stretch(bar)
            self.fund(bar)
        self.mark_stretch(end)

    def mark_stretch(self, end: i64) -> None:
        begin: i64 = self.at
        if begin >= end:
            return
        self.at = end
        if self.holding == 0:
            self.see(self.base, self.base, begin, end)
        else:
            top, bottom = extremes(self.candles, begin, end)
            at_top, at_bottom = self.base + self.holding * int(top), self.base + self.holding * int(bottom)
            if self.side > 0:
                self.see(at_top, at_bottom, begin, end)
            else:
                self.see(at_bottom, at_top, begin, end)
        if at_or_far(self.candles.day_ends, self.day) < end:
            self.mark_days(end)

    def see(self, high: int, low: int, begin: i64, end: i64) -> None:
        """Update the peak, low and drawdown with bars `begin` to `end - 1`.

        The highest and the lowest equity are enough, unless a deep fall from a new peak can lie between them.
        """
        total = self.total
        fall = total.peak - low
        if high > total.peak:
            total.peak = high
            fall = 0 if high - low <= total.drawdown else self.deepest_fall(begin, end, fall)
        if fall > total.drawdown:
            total.drawdown = fall
        if low < total.low:
            total.low = low

    def deepest_fall(self, begin: i64, end: i64, from_before: int) -> int:
        return max(from_before, int(deepest_fall(self.candles.close, self.side, begin, end)) * abs(self.holding))

    def mark_days(self, end: i64) -> None:
        ends = self.candles.day_ends
        while at_or_far(ends, self.day) < end:
            equity = self.base + (self.holding * int(self.candles.close[ends[self.day]]) if self.holding != 0 else 0)
            self.daily.append(equity - self.yesterday)
            self.yesterday = equity
            self.day += 1
