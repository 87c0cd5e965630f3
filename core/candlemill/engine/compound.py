"""Compound accounts: all of the equity in each trade, in floats, day by day.

Log-returns, peaks, lows and drawdowns are in 10^-15. What each day paid and earned is a row of shares of the equity at
its start (`DAY_SHARES`), which nobody knows yet. Each day is computed in a fixed order with the float operations
+ - * / only, so its integers are the same on every machine; days are added as integers.
"""

from math import floor, frexp
from typing import Final

from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns
from candlemill.engine.fills import TAKE, Curve, Fills
from candlemill.engine.position import MILLION, ExecutionRules
from candlemill.engine.signals import first_at_least
from candlemill.engine.stretches import at_or_far, crossed_gap
from candlemill.engine.summary import CLOSED, THROUGH, CarriedState, Summary

LOG: Final = 10**15
# A day of a compound account: its return, what it paid and traded, its whole trades' gains and losses, the equity after
# the exit of the trade that the day began with, the equity before the entry of the one that it ends with (or NO_SHARE),
# and the profit over gaps. All are shares of the equity at the day's start in 10^-15.
DAY_SHARES: Final = ("returned", "fees", "funding", "turnover", "won", "lost", "closed", "opened", "over_gaps")
NO_SHARE: Final = -1
LOG_FLOAT: Final = 1e15
NOTHING_LEFT: Final = 1e-300  # a ruined account's equity: its logarithm stays finite


def run_compound(
    candles: CandleColumns,
    rules: ExecutionRules,
    log: Fills,
    curve: Curve | None,
    start: CarriedState,
    lo: i64,
    hi: i64,
) -> tuple[Summary, list[int]]:
    """Run a compound account day by day, each day from an equity of 1."""
    total = Summary()
    daily: list[int] = []
    side: i64 = start.side
    entry: i64 = start.entry
    k: i64 = 0
    begin: i64 = lo
    d: i64 = first_at_least(candles.day_ends, lo)
    while begin < hi:
        end: i64 = candles.day_ends[d] + 1
        day = CompoundDay(candles, rules, side, entry, begin, end, curve)
        k = day.walk(log, k)
        side, entry = day.side, day.entry
        total = total.merge(day.finished())
        daily += day.shares()
        begin = end
        d += 1
    return total, daily


class CompoundDay:
    """One UTC day of a compound account: equity = constant + slope * price while a position is held."""

    def __init__(
        self,
        candles: CandleColumns,
        rules: ExecutionRules,
        side: i64,
        entry: i64,
        begin: i64,
        end: i64,
        curve: Curve | None,
    ) -> None:
        self.curve: Curve | None = curve
        self.candles: CandleColumns = candles
        self.rules: ExecutionRules = rules
        self.side: i64 = side
        self.entry: i64 = entry
        self.begin: i64 = begin
        self.end: i64 = end
        self.at: i64 = begin
        self.equity: float = 1.0
        self.constant: float = 0.0
        self.slope: float = 0.0
        self.peak: float = 1.0
        self.low: float = 1.0
        self.fall_peak: float = 1.0
        self.fall_low: float = 1.0
        self.before_entry: float = 1.0
        self.entry_bar: i64 = begin - 1
        self.inherited: bool = side != 0
        self.instant: i64 = first_at_least(candles.funding_bars, begin)
        self.gap: i64 = first_at_least(candles.gaps, max(begin, 1))
        self.total: Summary = Summary()
        self.fees: float = 0.0
        self.funding: float = 0.0
        self.turnover: float = 0.0
        self.won: float = 0.0
        self.lost: float = 0.0
        self.closed: float = -1.0
        self.over_gaps: float = 0.0
        if side != 0:
            self.hold(candles.close[begin - 1])
            self.total.head = THROUGH
        self.draw(begin)

    def draw(self, bar: i64) -> None:
        """Record the line that the equity follows from `bar` on."""
        if self.curve is not None:
            if self.side == 0:
                self.curve.add(int(bar), self.equity, 0.0)
            else:
                self.curve.add(int(bar), self.constant, self.slope)

    def hold(self, price: i64) -> None:
        """Set the position so that it is worth the whole equity at `price`."""
        if self.side > 0:
            self.constant = 0.0
            self.slope = self.equity / float(int(price))
        elif self.lost_at(price):
            self.constant, self.slope = NOTHING_LEFT, 0.0
        else:
            entry = float(int(self.entry))
            size = self.equity / (2.0 - float(int(price)) / entry)
            self.constant, self.slope = 2.0 * size, -size / entry

    def lost_at(self, price: i64) -> bool:
        """Return whether a short has lost all equity at `price`. The loss is final, whatever the later prices."""
        return self.side < 0 and price >= 2 * self.entry

    def value(self, price: i64) -> float:
        if self.lost_at(price):
            return NOTHING_LEFT
        return max(NOTHING_LEFT, self.constant + self.slope * float(int(price)))

    def walk(self, log: Fills, k: i64) -> i64:
        """Process the day's fills from number `k` on; return the number of the next day's first fill."""
        n: i64 = len(log.bar)
        while k < n:
            bar: i64 = log.bar[k]
            if bar >= self.end:
                break
            self.mark(bar)
            self.cross_gaps(bar)
            self.fund(bar)
            if self.side != 0:
                self.leave(bar, log.price[k], log.reason[k])
            if log.side[k] != 0:
                self.enter(bar, log.price[k], log.side[k])
            self.draw(bar)
            k += 1
        self.mark(self.end)
        return k

    def cross_gaps(self, bar: i64) -> None:
        """Add the profit over gaps before the bars up to `bar`, from the close before each to the open after it."""
        while at_or_far(self.candles.gaps, self.gap) <= bar:
            after: i64 = self.candles.gaps[self.gap]
            if self.side != 0:
                self.over_gaps += self.value(self.candles.open[after]) - self.value(self.candles.close[after - 1])
            self.gap += 1

    def enter(self, bar: i64, price: i64, side: i64) -> None:
        self.before_entry = self.equity
        self.entry_bar = bar
        self.entry = price
        self.side = side
        self.pay(self.rules.fee)
        self.hold(price)

    def leave(self, bar: i64, price: i64, reason: i64) -> None:
        self.equity = self.value(price)
        self.side = 0
        self.pay(self.rules.maker_fee if reason == TAKE else self.rules.fee)
        gap = crossed_gap(self.candles, max(self.entry_bar + 1, self.begin), bar)
        if self.inherited:
            self.inherited = False
            self.total.head, self.total.head_cash, self.total.head_gap = CLOSED, to_fixed(ln(self.equity)), gap
            self.closed = self.equity
        else:
            profit: float = self.equity - self.before_entry
            if profit > 0.0:
                self.won += profit
            else:
                self.lost -= profit
            self.total.count_trade(to_fixed(ln(self.equity / self.before_entry)), gap)

    def pay(self, ppm: i64) -> None:
        self.fees += self.equity * (float(int(ppm)) / 1e6)
        self.turnover += self.equity
        self.equity = max(NOTHING_LEFT, self.equity * (float(int(MILLION - ppm)) / 1e6))
        if self.curve is not None:
            self.curve.filled.append(self.equity)
        self.total.fills += 1

    def fund(self, bar: i64) -> None:
        """Settle the funding of all instants up to `bar`. It is paid from the position, which becomes smaller."""
        candles = self.candles
        while at_or_far(candles.funding_bars, self.instant) <= bar:
            if self.side != 0:
                price: i64 = candles.close[candles.funding_bars[self.instant] - 1]
                self.equity = self.value(price)
                rate = float(int(candles.funding_rates[self.instant])) / 1e8
                due = self.slope * float(int(price)) * rate
                self.funding += due
                self.equity = max(NOTHING_LEFT, self.equity - due)
                self.hold(price)
                self.draw(bar)
            self.instant += 1

    def mark(self, end: i64) -> None:
        funding = self.candles.funding_bars
        while at_or_far(funding, self.instant) < end:
            bar: i64 = funding[self.instant]
            self.mark_stretch(bar)
            self.cross_gaps(bar)
            self.fund(bar)
        self.mark_stretch(end)

    def mark_stretch(self, end: i64) -> None:
        """Update peak, low and deepest fall from a peak with the equity at the closes of the bars up to `end - 1`."""
        i: i64 = self.at
        if i >= end:
            return
        self.at = end
        self.cross_gaps(end - 1)
        if self.side == 0:
            self.see(self.equity)
            return
        while i < end:
            price: i64 = self.candles.close[i]
            self.see(self.value(price))
            if self.lost_at(price):
                self.constant, self.slope = NOTHING_LEFT, 0.0
                self.draw(i)
            i += 1
        self.equity = self.value(self.candles.close[end - 1])

    def see(self, equity: float) -> None:
        if equity > self.peak:
            self.peak = equity
        if equity < self.low:
            self.low = equity
        if equity * self.fall_peak < self.fall_low * self.peak:
            self.fall_low, self.fall_peak = equity, self.peak

    def finished(self) -> Summary:
        total = self.total
        total.bars = int(self.end - self.begin)
        total.profit = to_fixed(ln(self.equity))
        total.peak = to_fixed(ln(self.peak))
        total.low = to_fixed(ln(self.low))
        total.drawdown = to_fixed(ln(self.fall_peak / self.fall_low))
        gap = crossed_gap(self.candles, max(self.entry_bar + 1, self.begin), self.end - 1)
        if self.inherited:
            total.head_cash, total.head_gap = total.profit, gap
        elif self.side != 0:
            total.tail, total.tail_cash, total.tail_gap = 1, to_fixed(ln(self.equity / self.before_entry)), gap
        return total

    def shares(self) -> list[int]:
        """Return the day's `DAY_SHARES`."""
        opened = NO_SHARE if self.side == 0 or self.inherited else to_fixed(self.before_entry)
        closed = NO_SHARE if self.closed < 0.0 else to_fixed(self.closed)
        sums = [to_fixed(x) for x in (self.equity - 1.0, self.fees, self.funding, self.turnover, self.won, self.lost)]
        return [*sums, closed, opened, to_fixed(self.over_gaps)]


def to_fixed(x: float) -> int:
    return floor(x * LOG_FLOAT + 0.5)


ROOT_HALF: Final = 0.7071067811865476
LN_2_HIGH: Final = 0.6931471803691238  # its last 33 bits are 0, so a whole number of up to 33 bits times it is exact
LN_2_LOW: Final = 1.9082149292705877e-10


def ln(x: float) -> float:
    """Natural logarithm of a positive number, with an error of at most 5 * 10^-16 of the result.

    The last bit of the C library's logarithm differs between machines. This function uses + - * / only: the series of 2
    artanh(s), with s = (m - 1) / (m + 1) for the mantissa m between the roots of 1/2 and 2.
    """
    exponent = 0
    if x < ROOT_HALF or x > 2.0 * ROOT_HALF:
        x, exponent = frexp(x)
        if x < ROOT_HALF:
            x, exponent = 2.0 * x, exponent - 1
    s = (x - 1.0) / (x + 1.0)
    z = s * s
    series = 0.0
    for odd in range(23, 1, -2):
        series = (series + 1.0 / odd) * z
    near = 2.0 * s + 2.0 * s * series
    return exponent * LN_2_HIGH + (near + exponent * LN_2_LOW)
