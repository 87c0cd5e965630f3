"""Accounts whose trades are not all one unit: sized ones in exact integers, compound ones in floats by the day.

Fills happen at the same bars and prices whatever the account; so the book walks first and logs its fills, and the
account goes over the log. What it adds up has the shape of a Summary, in units of its own:

sized     money in 10^-24: quantity (10^-8) times price (10^-8), with 10^-8 left for rates. Nothing is ever rounded.
compound  log-returns in 10^-15, peaks, lows and drawdowns too. `fees`, `funding` and `turnover` are fractions of the
          equity at their time. A day is worked out in order, in floats that only + - * / make, so its integers are the
          same on every machine; days are added as integers.
"""

from math import floor, frexp
from typing import Final

from mypy_extensions import i64

from candlemill.engine.book import MILLION, SCALE, Rules, at_or_far, deepest_fall, extremes
from candlemill.engine.fills import TAKE, Curve, Fills
from candlemill.engine.loop import run
from candlemill.engine.signals import Changes, first_at_least
from candlemill.engine.summary import CLOSED, THROUGH, State, Summary
from candlemill.engine.tape import Tape

FIXED: Final = 0
NOTIONAL: Final = 1
COMPOUND: Final = 2
FINE: Final = 10**8  # money units per (quantity times price)
FEE: Final = 100  # money units per (quantity times price times ppm)
LOG: Final = 10**15
LOG_FLOAT: Final = 1e15
NOTHING_LEFT: Final = 1e-300  # a ruined account's equity: its logarithm stays finite


class Sizing:
    """How much a trade is of. `quantity` and `notional` are scaled by 10^8; `volume_share` (ppm, 0: no limit) is of the
    volume, in units of 1 / `volume_scale`, of the bar that an entry happens in."""

    def __init__(
        self, kind: int, quantity: int = 0, notional: int = 0, volume_share: int = 0, volume_scale: int = 0
    ) -> None:
        self.kind: int = kind
        self.quantity: int = quantity
        self.notional: int = notional
        self.volume_share: int = volume_share
        self.volume_scale: int = volume_scale

    def at_entry(self, tape: Tape, bar: i64, price: i64) -> int:
        """The quantity of a trade that is entered in `bar` at `price`; 0 where none can be had."""
        quantity = self.quantity
        if self.kind == NOTIONAL:
            quantity = self.notional * SCALE // max(1, int(price))
        if self.volume_share != 0:
            quantity = min(quantity, int(tape.volume[bar]) * self.volume_share * SCALE // (MILLION * self.volume_scale))
        return quantity


def run_account(
    tape: Tape,
    changes: Changes,
    rules: Rules,
    sizing: Sizing,
    start: State,
    lo: int,
    hi: int,
    log: Fills | None = None,
) -> tuple[Summary, State, list[int]]:
    """As `loop.run`, for the account that `sizing` says. The daily list is in the account's unit; of a compound one it
    is the days' returns in 10^-15."""
    if lo >= hi:
        return Summary(), start, []
    if log is None:
        log = Fills()
    curve, log.curve = log.curve, None  # it is this account's to draw, not the book's
    unit, state, _ = run(tape, changes, rules, start, lo, hi, log)
    log.curve = curve
    if sizing.kind == COMPOUND:
        total, daily = _compound(tape, rules, log, curve, start, lo, hi)
    else:
        account = _Sized(tape, rules, sizing, start, lo, hi, curve)
        account.walk(log)
        total, daily = account.total, account.daily
        if state.side != 0:
            state.quantity = account.quantity
    total.bars, total.exposure, total.ambiguous = unit.bars, unit.exposure, unit.ambiguous
    total.first, total.last = unit.first, unit.last
    total.count_days(daily)
    return total, state, daily


def crossed_gap(tape: Tape, first: i64, last: i64) -> int:
    """Whether a minute is missing before one of the bars `first` to `last`."""
    return 1 if at_or_far(tape.gaps, first_at_least(tape.gaps, first)) <= last else 0


class _Sized:
    """One stretch of bars of an account whose trades have quantities of their own."""

    def __init__(
        self, tape: Tape, rules: Rules, sizing: Sizing, start: State, lo: i64, hi: i64, curve: Curve | None
    ) -> None:
        self.tape: Tape = tape
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
        self.day: i64 = first_at_least(tape.day_ends, lo)
        self.instant: i64 = first_at_least(tape.funding_bars, lo)
        if self.inherited:
            self.base = -self.holding * int(tape.close[lo - 1])
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
        total.profit = self.base + (self.holding * int(self.tape.close[self.hi - 1]) if self.holding != 0 else 0)
        gap = crossed_gap(self.tape, max(self.entry_bar + 1, self.lo), self.hi - 1)
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
        self.quantity = self.sizing.at_entry(self.tape, bar, price)
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
        gap = crossed_gap(self.tape, max(self.entry_bar + 1, self.lo), bar)
        if self.inherited:
            self.inherited = False
            self.total.head, self.total.head_cash, self.total.head_gap = CLOSED, self.cash, gap
        else:
            self.total.count_trade(self.cash, gap)

    def pay(self, side: i64, price: int, fee_rate: int) -> None:
        """A fill that buys (1) or sells (-1) the trade's quantity."""
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
        """Settle the funding of all instants up to `bar` with the position as it is."""
        tape = self.tape
        while at_or_far(tape.funding_bars, self.instant) <= bar:
            at: i64 = tape.funding_bars[self.instant]
            if self.holding != 0:
                due = int(self.side) * self.quantity * int(tape.close[at - 1]) * int(tape.funding_rates[self.instant])
                self.base -= due
                self.cash -= due
                self.total.funding += due
                self.draw(at)
            self.instant += 1

    def mark(self, end: i64) -> None:
        """Mark the bars before `end`; funding comes before its bar's mark."""
        funding = self.tape.funding_bars
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
            top, bottom = extremes(self.tape, begin, end)
            at_top, at_bottom = self.base + self.holding * int(top), self.base + self.holding * int(bottom)
            if self.side > 0:
                self.see(at_top, at_bottom, begin, end)
            else:
                self.see(at_bottom, at_top, begin, end)
        if at_or_far(self.tape.day_ends, self.day) < end:
            self.mark_days(end)

    def see(self, high: int, low: int, begin: i64, end: i64) -> None:
        """Take in the highest and the lowest equity of bars `begin` to `end - 1` and the deepest fall. Two extremes
        tell all, unless a new peak and then a deep fall lie between them."""
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
        least: i64 = -(1 << 62)
        return max(from_before, int(deepest_fall(self.tape.close, self.side, begin, end, least)) * abs(self.holding))

    def mark_days(self, end: i64) -> None:
        ends = self.tape.day_ends
        while at_or_far(ends, self.day) < end:
            equity = self.base + (self.holding * int(self.tape.close[ends[self.day]]) if self.holding != 0 else 0)
            self.daily.append(equity - self.yesterday)
            self.yesterday = equity
            self.day += 1


# -- compound ------------------------------------------------------------------------------------------------------


def _compound(
    tape: Tape, rules: Rules, log: Fills, curve: Curve | None, start: State, lo: i64, hi: i64
) -> tuple[Summary, list[int]]:
    """Day by day, each from an equity of 1."""
    total = Summary()
    daily: list[int] = []
    side: i64 = start.side
    entry: i64 = start.entry
    k: i64 = 0
    begin: i64 = lo
    d: i64 = first_at_least(tape.day_ends, lo)
    while begin < hi:
        end: i64 = tape.day_ends[d] + 1
        day = _Day(tape, rules, side, entry, begin, end, curve)
        k = day.walk(log, k)
        side, entry = day.side, day.entry
        total = total.merge(day.finished())
        daily.append(to_fixed(day.equity - 1.0))
        begin = end
        d += 1
    return total, daily


class _Day:
    """One UTC day of a compound account: equity = constant + slope * price while a position is held."""

    def __init__(
        self, tape: Tape, rules: Rules, side: i64, entry: i64, begin: i64, end: i64, curve: Curve | None
    ) -> None:
        self.curve: Curve | None = curve
        self.tape: Tape = tape
        self.rules: Rules = rules
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
        self.instant: i64 = first_at_least(tape.funding_bars, begin)
        self.total: Summary = Summary()
        if side != 0:
            self.hold(tape.close[begin - 1])
            self.total.head = THROUGH
        self.draw(begin)

    def draw(self, bar: i64) -> None:
        """The line that the equity follows from `bar` on."""
        if self.curve is not None:
            if self.side == 0:
                self.curve.add(int(bar), self.equity, 0.0)
            else:
                self.curve.add(int(bar), self.constant, self.slope)

    def hold(self, price: i64) -> None:
        """Have the position be worth all of the equity at `price`."""
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
        """Whether a short has lost everything at `price`. It stays so, wherever the price goes."""
        return self.side < 0 and price >= 2 * self.entry

    def value(self, price: i64) -> float:
        if self.lost_at(price):
            return NOTHING_LEFT
        return max(NOTHING_LEFT, self.constant + self.slope * float(int(price)))

    def walk(self, log: Fills, k: i64) -> i64:
        """Take in the day's fills, the first of which is number `k`; returns the number of the next day's first."""
        n: i64 = len(log.bar)
        while k < n:
            bar: i64 = log.bar[k]
            if bar >= self.end:
                break
            self.mark(bar)
            self.fund(bar)
            if self.side != 0:
                self.leave(bar, log.price[k], log.reason[k])
            if log.side[k] != 0:
                self.enter(bar, log.price[k], log.side[k])
            self.draw(bar)
            k += 1
        self.mark(self.end)
        return k

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
        gap = crossed_gap(self.tape, max(self.entry_bar + 1, self.begin), bar)
        if self.inherited:
            self.inherited = False
            self.total.head, self.total.head_cash, self.total.head_gap = CLOSED, to_fixed(ln(self.equity)), gap
        else:
            self.total.count_trade(to_fixed(ln(self.equity / self.before_entry)), gap)

    def pay(self, ppm: i64) -> None:
        self.equity = max(NOTHING_LEFT, self.equity * (float(int(MILLION - ppm)) / 1e6))
        if self.curve is not None:
            self.curve.filled.append(self.equity)
        self.total.fees += int(ppm) * (LOG // MILLION)
        self.total.turnover += LOG
        self.total.fills += 1

    def fund(self, bar: i64) -> None:
        """Settle the funding of all instants up to `bar`: it is paid out of the position, which shrinks by it."""
        tape = self.tape
        while at_or_far(tape.funding_bars, self.instant) <= bar:
            if self.side != 0:
                price: i64 = tape.close[tape.funding_bars[self.instant] - 1]
                self.equity = self.value(price)
                rate = float(int(tape.funding_rates[self.instant])) / 1e8
                due = self.slope * float(int(price)) * rate
                self.total.funding += to_fixed(due / self.equity)
                self.equity = max(NOTHING_LEFT, self.equity - due)
                self.hold(price)
                self.draw(bar)
            self.instant += 1

    def mark(self, end: i64) -> None:
        funding = self.tape.funding_bars
        while at_or_far(funding, self.instant) < end:
            bar: i64 = funding[self.instant]
            self.mark_stretch(bar)
            self.fund(bar)
        self.mark_stretch(end)

    def mark_stretch(self, end: i64) -> None:
        """Equity at the closes of the bars up to `end - 1`: its peak, its low, its deepest fall from a peak."""
        i: i64 = self.at
        if i >= end:
            return
        self.at = end
        if self.side == 0:
            self.see(self.equity)
            return
        while i < end:
            price: i64 = self.tape.close[i]
            self.see(self.value(price))
            if self.lost_at(price):
                self.constant, self.slope = NOTHING_LEFT, 0.0
                self.draw(i)
            i += 1
        self.equity = self.value(self.tape.close[end - 1])

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
        gap = crossed_gap(self.tape, max(self.entry_bar + 1, self.begin), self.end - 1)
        if self.inherited:
            total.head_cash, total.head_gap = total.profit, gap
        elif self.side != 0:
            total.tail, total.tail_cash, total.tail_gap = 1, to_fixed(ln(self.equity / self.before_entry)), gap
        return total


def to_fixed(x: float) -> int:
    return floor(x * LOG_FLOAT + 0.5)


ROOT_HALF: Final = 0.7071067811865476
LN_2_HIGH: Final = 0.6931471803691238  # its last 33 bits are 0, so a whole number of up to 33 bits times it is exact
LN_2_LOW: Final = 1.9082149292705877e-10


def ln(x: float) -> float:
    """The natural logarithm of a positive number, to within 5 * 10^-16 of itself.

    The C library's differs from machine to machine in the last bit. This one is + - * / only: 2 artanh(s) by its
    series, with s = (m - 1) / (m + 1) for the mantissa m between the roots of 1/2 and 2.
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
