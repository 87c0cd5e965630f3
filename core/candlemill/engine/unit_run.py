"""Account `units` of one symbol while a run passes over its bars: cash, trades, marks, gaps, days.

Base of each way to run it: `position` (stops, funding, logs), `unstopped` (neither), `unit_book` (any quantities).
"""

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns, zeros
from candlemill.engine.equity_extremes import EquityExtremes
from candlemill.engine.signals import first_at_least
from candlemill.engine.stretches import at_or_far
from candlemill.engine.summary import CLOSED, FINE, THROUGH, Summary


class UnitRun:
    """A run over bars `lo` to `hi - 1` that begins with `held` units of base and, if `is_open`, with an open trade.

    Money is relative to the equity at the last mark before bar `lo`. It is exact: each amount in 10^-8, rounded down,
    has a `rest` in 10^-8 of that unit. Prices are integers, so the rest of the equity changes only with a fee or
    funding. An open trade may hold 0: its quantity was rounded to that.
    """

    def __init__(self, candles: CandleColumns, lo: i64, hi: i64, held: i64, is_open: bool) -> None:
        self.candles: CandleColumns = candles
        self.lo: i64 = lo
        self.hi: i64 = hi
        self.base: i64 = 0  # equity = base + held * close, and the rest
        self.rest: i64 = 0
        self.seen: EquityExtremes = EquityExtremes(candles)
        # the open trade
        self.entry_base: i64 = 0  # `base` before the trade began, or before bar `lo`
        self.entry_rest: i64 = 0
        self.inherited: bool = is_open  # whether it began before bar `lo`
        self.over_gap: bool = False  # whether a minute was missing since then
        # needed by the Summary
        self.turnover: i64 = 0
        self.fills: i64 = 0
        self.trades: i64 = 0
        self.wins: i64 = 0
        self.gross_profit: i64 = 0
        self.profit_rest: i64 = 0  # a sum, like the next rest
        self.gross_loss: i64 = 0
        self.loss_rest: i64 = 0
        self.exposure: i64 = 0
        self.over_gaps: i64 = 0
        self.gap_profit: i64 = 0  # from closes before missing minutes to opens after them
        self.head: i64 = 0
        self.head_cash: i64 = 0
        self.head_rest: i64 = 0
        self.head_gap: bool = False
        # cursors
        self.gap: i64 = first_at_least(candles.gaps, lo)
        self.next_gap: i64 = at_or_far(candles.gaps, self.gap)
        self.day: i64 = first_at_least(candles.day_ends, lo)
        self.next_day: i64 = at_or_far(candles.day_ends, self.day)
        self.first_day: i64 = self.day
        days: i64 = first_at_least(candles.day_ends, hi) - self.day
        self.day_equity: vec[i64] = zeros(days)
        self.day_rest: vec[i64] = zeros(days)
        if is_open:
            self.head = THROUGH
            self.base = self.entry_base = -held * candles.close[lo - 1]
            if self.next_gap == lo:
                self.cross_gap(lo, held)

    # -- trades ----------------------------------------------------------------------------------------------------

    def spend(self, amount: i64, rest: i64) -> None:
        self.base -= amount
        self.rest -= rest
        if self.rest < 0:
            self.base -= 1
            self.rest += FINE

    def begin_trade(self) -> None:
        """Begin a trade before its first fill is paid."""
        self.entry_base, self.entry_rest = self.base, self.rest
        self.inherited = False
        self.over_gap = False

    def end_trade(self) -> None:
        """Count the trade whose last fill has just been paid."""
        profit, rest = self.since_entry()
        if self.inherited:
            self.inherited = False
            self.head, self.head_cash, self.head_rest = CLOSED, profit, rest
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
        """Return the cash received since the trade began, or since bar `lo`: an amount and its rest."""
        cash: i64 = self.base - self.entry_base
        rest: i64 = self.rest - self.entry_rest
        if rest < 0:
            return cash - 1, rest + FINE
        return cash, rest

    # -- marks -----------------------------------------------------------------------------------------------------

    def mark_bars(self, begin: i64, end: i64, held: i64, is_open: bool) -> None:
        """Mark bars `begin` to `end - 1`, on all of which `held` is held."""
        if begin >= end:
            return
        if is_open:
            self.exposure += end - begin
            if self.next_gap <= end:
                self.see_gaps(begin, end, held)
        if held == 0:
            self.seen.see(self.base, self.base, self.rest)
        else:
            self.seen.see_held(begin, end, self.base, self.rest, held)
        if self.next_day < end:
            self.mark_days(end, held)

    def see_gaps(self, begin: i64, end: i64, held: i64) -> None:
        """Record missing minutes after one of the marks of bars `begin` to `end - 1`, within the bars of this run."""
        while self.next_gap <= begin:
            self.gap += 1
            self.next_gap = at_or_far(self.candles.gaps, self.gap)
        while self.next_gap <= end and self.next_gap < self.hi:
            self.cross_gap(self.next_gap, held)
            self.gap += 1
            self.next_gap = at_or_far(self.candles.gaps, self.gap)

    def cross_gap(self, bar: i64, held: i64) -> None:
        """Count the profit of the position from the close before missing minutes to the open of `bar` after them."""
        self.over_gap = True
        self.gap_profit += held * (self.candles.open[bar] - self.candles.close[bar - 1])

    def mark_days(self, end: i64, held: i64) -> None:
        """Record the equity at the last bar of each day that ends before bar `end`."""
        while self.next_day < end:
            self.day_equity[self.day - self.first_day] = self.base + held * self.candles.close[self.next_day]
            self.day_rest[self.day - self.first_day] = self.rest
            self.day += 1
            self.next_day = at_or_far(self.candles.day_ends, self.day)

    # -- the result ------------------------------------------------------------------------------------------------

    def equity(self, held: i64) -> int:
        """Return the equity after bar `hi - 1`."""
        return exact(self.base + held * self.candles.close[self.hi - 1], self.rest)

    def totals(self, held: i64, is_open: bool) -> Summary:
        """Return the Summary but for fees, funding and days; `held` is the position at its end."""
        seen = self.seen
        seen.read_waiting()
        out = Summary()
        out.bars = int(self.hi - self.lo)
        out.profit = self.equity(held)
        out.peak = exact(seen.peak, seen.peak_rest)
        out.low = exact(seen.low, seen.low_rest)
        out.drawdown = exact(seen.fall, seen.fall_rest)
        out.turnover = exact(self.turnover, 0)
        out.fills, out.trades, out.wins = int(self.fills), int(self.trades), int(self.wins)
        out.gross_profit = exact(self.gross_profit, self.profit_rest)
        out.gross_loss = exact(self.gross_loss, self.loss_rest)
        out.exposure, out.over_gaps = int(self.exposure), int(self.over_gaps)
        out.gap_profit = exact(self.gap_profit, 0)
        out.first, out.last = int(self.candles.open[self.lo]), int(self.candles.close[self.hi - 1])
        out.head, out.head_cash, out.head_gap = (
            int(self.head),
            exact(self.head_cash, self.head_rest),
            int(self.head_gap),
        )
        if is_open:
            cash, rest = self.since_entry()
            if self.inherited:
                out.head_cash, out.head_gap = exact(cash, rest), int(self.over_gap)
            else:
                out.tail, out.tail_cash, out.tail_gap = 1, exact(cash, rest), int(self.over_gap)
        return out


def exact(amount: i64, rest: i64) -> int:
    """Convert an amount and its rest to the unit of a Summary."""
    return int(amount) * FINE + int(rest)
