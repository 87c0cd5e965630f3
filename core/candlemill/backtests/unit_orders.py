"""Books and weights of one symbol in account units: shares of one quantity, equity from 0, no intermediate rounding.

A quantity is `exposure * quantity // 10^6`, so amounts are whole numbers of 10^-24. Compiled code does most runs;
Python integers do the others and those that are recorded, with one step for each fill. Between two fills equity is
linear in the closes, so the extremes of a stretch are enough to mark it.
"""

import math
from typing import Any

import numpy as np

from candlemill.backtests.account_log import AccountLog
from candlemill.backtests.gaps import bars_at, gap_bars
from candlemill.backtests.recording import Recording
from candlemill.engine.account_events import BEFORE_OPEN, FUNDING
from candlemill.engine.candles import CandleColumns, Column
from candlemill.engine.fill_tape import FillTape
from candlemill.engine.summary import CLOSED, THROUGH, Summary
from candlemill.engine.unit_book import UnitBook
from candlemill.engine.wide import MILLION, SCALE

FINEST = SCALE * SCALE  # parts of 10^-8
ROOM = 2.0**59  # for amounts per share and their sums
NO_FILL = -1  # number of an event that is no fill


def units_for_orders(
    candles: CandleColumns,
    fills: FillTape,
    quantity: int,
    exposure: int,
    lo: int,
    hi: int,
    record: Recording | None = None,
) -> tuple[Summary, list[int]]:
    """Settle the fills of bars `lo` to `hi - 1`; return the Summary and the daily profits, in 10^-24.

    `exposure` (ppm) is the position before them.
    """
    if record is None and (quick := _compiled(candles, fills, quantity, exposure, lo, hi)) is not None:
        return quick
    run = _Units(candles, quantity, exposure, lo, hi)
    given = fills.columns()
    bars = bars_at(run.columns, given["minute"]).tolist()
    funding = run.funding()
    rows = zip(bars, *(given[name].tolist() for name in ("before", "after", "price", "rate")), strict=True)
    for bar, before, after, price, rate in rows:
        while funding and funding[-1][0] <= bar:
            run.pay_funding(*funding.pop())
        run.fill(bar, before, after, price, rate)
    while funding:
        run.pay_funding(*funding.pop())
    ambiguous = fills.ambiguous()["minute"]
    run.total.ambiguous = len(ambiguous)
    if record is not None:
        record.account = run.log(fills, np.searchsorted(run.columns["t"], ambiguous))
    return run.summary()


def _compiled(
    candles: CandleColumns, fills: FillTape, quantity: int, exposure: int, lo: int, hi: int
) -> tuple[Summary, list[int]] | None:
    """Do the same with 64-bit integers in compiled code; None where these might not be enough.

    Positions are counted in shares: with exposures of 1,000,000 each is 1 or -1.
    """
    given, columns = fills.columns(), candles.columns()
    found = _shares(np.append(exposure, given["after"]), quantity)
    if found is None:
        return None
    position, share = found
    most = int(np.abs(position).max())
    traded = float((np.abs(np.diff(position)) * given["price"].astype(np.float64)).sum())  # `@` would use all cores
    if 2 * traded + (4 + 2 * len(columns["funding_bars"])) * float(most) * int(candles.top) > ROOM:
        return None
    book = UnitBook(candles, lo, hi, int(position[0]), exposure != 0)
    bars = bars_at(columns, given["minute"])
    book.settle(bars, given["before"], given["after"], position[1:], given["price"], given["rate"])
    total, daily = book.summary(share)
    total.ambiguous = len(fills.ambiguous()["minute"])
    return total, daily


def _shares(exposures: Column, quantity: int) -> tuple[Column, int] | None:
    """Return the quantities of exposures as multiples of a share, and the share, scaled; None if they are too large."""
    size = int(np.abs(exposures).max())
    share = size * quantity // MILLION
    if size and ((exposures == 0) | (exposures == size) | (exposures == -size)).all():
        return exposures // size * (share > 0), share or 1
    values, places = np.unique(exposures, return_inverse=True)
    held = [_quantity(one, quantity) for one in values.tolist()]
    share = math.gcd(*held) or 1
    if max(map(abs, held)) // share >= 1 << 40:
        return None
    return np.array([one // share for one in held], dtype=np.int64)[places], share


def _quantity(exposure: int, quantity: int) -> int:
    """Return the signed quantity of an exposure, rounded toward 0."""
    size = abs(exposure) * quantity // MILLION
    return size if exposure > 0 else -size


class _Units:
    """State of the account between fills. `equity` is its cash, relative to the mark before the slice."""

    def __init__(self, candles: CandleColumns, quantity: int, exposure: int, lo: int, hi: int) -> None:
        self.columns: dict[str, Column] = candles.columns()
        self.total = Summary()
        self._quantity, self._exposure, self._lo, self._hi = quantity, exposure, lo, hi
        self._closes: Column = self.columns["close"]
        self._cash = -self._held(exposure) * int(self._closes[lo - 1]) * SCALE if exposure else 0
        self._missing: Column = gap_bars(candles, lo, hi)
        self._over_gaps(lo, lo + 1)
        self._at = lo  # the first bar that is not marked yet
        self._ends: list[int] = self._inside("day_ends").tolist()
        self._levels: list[int] = [0]  # equity before the slice and at each day's end
        self._begun = exposure != 0  # whether the open trade began before the slice
        self._entry, self._trade_cash = lo - 1, 0
        self._fills = 0
        self._rows: list[tuple[int, ...]] = []  # of the log: bar, number of the fill or NO_FILL, moved, flow, paid

    def _held(self, exposure: int) -> int:
        return _quantity(exposure, self._quantity)

    def _inside(self, name: str) -> Column:
        column = self.columns[name]
        return column[(column >= self._lo) & (column < self._hi)]

    def funding(self) -> list[tuple[int, int]]:
        """Return the bars and rates of funding in the slice, the last one first."""
        bars, rates = self.columns["funding_bars"].tolist(), self.columns["funding_rates"].tolist()
        return [(bar, rate) for bar, rate in zip(bars, rates, strict=True) if self._lo <= bar < self._hi][::-1]

    def _pay(self, amount: int) -> None:
        self._cash += amount
        self._trade_cash += amount

    def pay_funding(self, bar: int, rate: int) -> None:
        """Settle funding on the close before the bar; a long pays a positive rate."""
        if self._exposure:
            self._mark(bar)
            amount = self._held(self._exposure) * int(self._closes[bar - 1]) * rate
            self.total.funding += amount
            self._pay(-amount)
            self._rows.append((bar, NO_FILL, 0, -amount, amount))

    def fill(self, bar: int, before: int, after: int, price: int, rate: int) -> None:
        """Trade from one exposure to another at `price`, with a fee of `rate` ppm."""
        self._mark(bar)
        if before == 0:
            self._begun, self._entry, self._trade_cash = False, bar, 0
        traded = self._held(after) - self._held(before)
        value = abs(traded) * price * SCALE
        fee = value // MILLION * rate  # SCALE is a multiple of MILLION
        flow = -traded * price * SCALE - fee
        self._rows.append((bar, self._fills, traded, flow, fee))
        self._fills += 1
        if traded:
            self._pay(flow)
            self.total.fees += fee
            self.total.turnover += value
            self.total.fills += 1
        self._exposure = after
        if after == 0:
            self._end_trade(bar)

    def log(self, fills: FillTape, ambiguous: Column) -> AccountLog:
        """Return all events for a replay; `ambiguous` are the bars in which the order of events is unknown."""
        bar, number, moved, flow, paid = zip(*self._rows, strict=True) if self._rows else ((),) * 5
        given, at = fills.columns(), np.array(number, dtype=np.int64)

        def of_fills(name: str, other: int = 0) -> Column:
            return np.append(given[name], other)[at]

        return AccountLog(
            np.array(bar, dtype=np.int64),
            of_fills("stage", BEFORE_OPEN),
            of_fills("what", FUNDING),
            of_fills("before"),
            of_fills("after"),
            np.array(moved, dtype=np.int64),
            of_fills("price"),
            np.array(flow, dtype=object),
            np.array(paid, dtype=object),
            ambiguous,
            FINEST,
        )

    def _end_trade(self, bar: int) -> None:
        gap = self._gap(bar)
        if self._begun:
            self.total.head, self.total.head_cash, self.total.head_gap = CLOSED, self._trade_cash, gap
        else:
            self.total.count_trade(self._trade_cash, gap)

    def _gap(self, upto: int) -> int:
        """Return whether a minute is missing between the trade's first bar and bar `upto`."""
        a, b = np.searchsorted(self.columns["gaps"], [self._entry, upto], side="right")
        return int(a < b)

    def _mark(self, end: int) -> None:
        """Mark the bars before `end` with the current position."""
        first, self._at = self._at, max(self._at, end)
        if first >= end:
            return
        held, total = self._held(self._exposure) * SCALE, self.total
        closes = self._closes[first:end]
        levels = [self._cash + held * int(closes.max()), self._cash + held * int(closes.min())]
        total.drawdown = max(total.drawdown, total.peak - min(levels))
        if held and max(levels) > total.peak:
            total.drawdown = max(total.drawdown, abs(held) * _deepest_fall(closes if held > 0 else -closes))
        total.peak, total.low = max(total.peak, *levels), min(total.low, *levels)
        total.exposure += end - first if self._exposure else 0
        while len(self._levels) <= len(self._ends) and self._ends[len(self._levels) - 1] < end:
            self._levels.append(self._cash + held * int(self._closes[self._ends[len(self._levels) - 1]]))
        self._over_gaps(first + 1, end + 1)
        total.profit = self._cash + held * int(closes[-1])

    def _over_gaps(self, first: int, end: int) -> None:
        """Add the profit before the opens of bars `first` to `end - 1` that follow missing minutes."""
        held = self._held(self._exposure) * SCALE
        a, b = np.searchsorted(self._missing, [first, end])
        for bar in self._missing[a:b].tolist():
            self.total.gap_profit += held * (int(self.columns["open"][bar]) - int(self._closes[bar - 1]))

    def summary(self) -> tuple[Summary, list[int]]:
        """Return the Summary of the slice and its daily profits."""
        total, last = self.total, self._hi - 1
        self._mark(self._hi)
        if self._exposure and self._begun:
            total.head, total.head_cash, total.head_gap = THROUGH, self._trade_cash, self._gap(last)
        elif self._exposure:
            total.tail, total.tail_cash, total.tail_gap = 1, self._trade_cash, self._gap(last)
        total.bars = self._hi - self._lo
        total.first, total.last = int(self.columns["open"][self._lo]), int(self._closes[last])
        daily = [after - before for before, after in zip(self._levels, self._levels[1:], strict=False)]
        total.count_days(daily)
        return total, daily


def _deepest_fall(closes: Any) -> int:
    """Return the largest fall from a close to a later close."""
    return int((np.maximum.accumulate(closes) - closes).max())
