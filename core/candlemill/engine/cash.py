"""A run of one symbol in a new account of real money, whose fills are all at opens: in one pass over its fills.

The figures are those of `backtests.single.AccountSlice`, which knows all other cases. Sweeps run mostly this one, and
each of its columns and sums is small: outside this module they cost more than the engine.
"""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns
from candlemill.engine.mark import NO_BAR, Marks, mark_steps
from candlemill.engine.position import MILLION, SCALE, ExecutionRules, distance
from candlemill.engine.settle import CUT, REJECTED, Events, Settler, SettleRules, quotes_of, zeros
from candlemill.engine.signals import PositionChanges, first_at_least
from candlemill.engine.summary import CarriedState, Summary

HALF: Final = 1 << 61  # a sum of amounts below 2^60 is moved to a Python integer from here on


def is_plain(candles: CandleColumns, rules: ExecutionRules, start: CarriedState) -> bool:
    """Return whether a `CashRun` gives the figures of these rules from this state."""
    at_opens = not rules.has_stops and not rules.at_close and not rules.short_entries
    new = start.side == 0 and start.desired == 0 and not start.locked and not start.account
    return at_opens and new and len(candles.funding_bars) == 0


class CashRun:
    """The fills of `changes` over bars `lo` to `hi - 1`, settled and marked. `settled` has the account after them."""

    def __init__(
        self,
        candles: CandleColumns,
        changes: PositionChanges,
        rules: ExecutionRules,
        settle_rules: SettleRules,
        capital: i64,
        lo: i64,
        hi: i64,
    ) -> None:
        """Raises OverflowError for amounts from 2^60 on."""
        self.candles: CandleColumns = candles
        self.rules: ExecutionRules = rules
        self.capital: i64 = capital
        self.lo: i64 = lo
        self.hi: i64 = hi
        self.side: i64 = 0
        self.wanted: i64 = 0
        self.count: i64 = 0
        self.instants: i64 = 0
        self.bar: vec[i64] = zeros(2 * len(changes.at) + 2)
        self.events: Events = Events({}, np.empty(0, dtype=np.int64))
        self.decide(changes)
        none = np.zeros(1, dtype=np.int64)
        self.settled: Settler = Settler(settle_rules, [quotes_of(candles, lo)], capital, none, none)
        self.settled.run(self.events)
        self.marks: Marks = self.marked()

    @property
    def is_ruined(self) -> bool:
        """Whether a mark has ended the account: then the run is none of this module's."""
        return self.marks.ruin != NO_BAR

    def decide(self, changes: PositionChanges) -> None:
        """Make the events of all fills."""
        room: i64 = len(self.bar)
        events = self.events
        events.minute, events.turn, events.before, events.after = zeros(room), zeros(room), zeros(room), zeros(room)
        events.price, events.raw, events.rate = zeros(room), zeros(room), zeros(room)
        events.instant, events.made_price, events.instants = zeros(room), zeros(room), zeros(room)
        at, value, opens = changes.at, changes.value, self.candles.open
        n: i64 = len(at)
        k: i64 = 0
        while k < n:
            self.wanted = value[k]
            bar: i64 = at[k] + 1
            if bar < self.hi and self.wanted != self.side:
                self.fill(bar, opens[bar])
            k += 1
        count: i64 = self.count
        events.minute, events.turn = events.minute[:count], events.turn[:count]
        events.instants = events.instants[: self.instants]
        events.stage = events.symbol = events.what = events.part = zeros(count)  # at opens, of symbol 0, targets

    def fill(self, bar: i64, raw: i64) -> None:
        """Close the open position and open the wanted one, both at the raw price."""
        direction: i64 = 1 if self.wanted > self.side else -1
        price: i64 = raw
        if self.rules.slippage != 0:
            price = max(1, raw + direction * distance(raw, self.rules.slippage))
        if self.side != 0:
            self.add(bar, self.side, 0, 0, price, raw)
            if self.wanted != 0:
                self.add(bar, 0, self.wanted, 1, price, raw)
        else:
            self.add(bar, 0, self.wanted, 0, price, raw)
        self.side = self.wanted

    def add(self, bar: i64, before: i64, after: i64, turn: i64, price: i64, raw: i64) -> None:
        k: i64 = self.count
        events, candles = self.events, self.candles
        self.bar[k] = bar
        events.minute[k] = candles.t[bar]
        events.turn[k] = turn
        events.before[k] = before * MILLION
        events.after[k] = after * MILLION
        events.price[k] = price
        events.raw[k] = raw
        events.rate[k] = self.rules.fee
        events.made_price[k] = candles.close[bar - 1]
        events.instant[k] = -1
        if after != 0:
            events.instant[k] = self.instants
            events.instants[self.instants] = candles.t[bar - 1]
            self.instants += 1
        self.count += 1

    def marked(self) -> Marks:
        """Mark all bars with the cash and the quantity after the last fill of each."""
        count: i64 = self.count
        at, cash, held = zeros(count + 1), zeros(count + 1), zeros(count + 1)
        at[0] = self.lo
        cash[0] = self.capital
        moved, flow, bars = self.settled.moved, self.settled.flow, self.bar
        steps: i64 = 0
        k: i64 = 0
        while k < count:
            amount: i64 = cash[steps] + flow[k]
            quantity: i64 = held[steps] + moved[k]
            if bars[k] != at[steps]:
                steps += 1
                at[steps] = bars[k]
            cash[steps] = amount
            held[steps] = quantity
            k += 1
        steps += 1
        ends = self.candles.day_ends
        days = ends[first_at_least(ends, self.lo) : first_at_least(ends, self.hi)]
        marks = Marks(self.capital, 0, False)
        mark_steps(marks, self.candles, self.hi, at[:steps], cash[:steps], held[:steps], days)
        return marks

    def state(self) -> CarriedState:
        return CarriedState(self.side, self.wanted)

    def exposure(self) -> int:
        """Return the exposure (ppm) of the open position."""
        return int(self.side) * MILLION

    def summary(self) -> tuple[Summary, list[int]]:
        """Return the Summary and the daily profits."""
        begin = int(self.capital) * SCALE
        totals, settled = self.marks.totals(), self.settled
        out = Summary()
        out.bars = int(self.hi - self.lo)
        out.profit, out.peak, out.low = totals["last"] - begin, totals["peak"] - begin, totals["low"] - begin
        out.drawdown, out.exposure = totals["fall"], totals["exposure"]
        out.fees = total_of(settled.paid) * SCALE
        out.turnover = total_of(settled.value) * SCALE + total_of(settled.rest)
        out.trades, out.wins = int(settled.trades[0]), int(settled.wins[0])
        out.gross_profit = int(settled.gross_profit[0]) * SCALE
        out.gross_loss = int(settled.gross_loss[0]) * SCALE
        out.first, out.last = int(self.candles.open[self.lo]), int(self.candles.close[self.hi - 1])
        self.count_orders(out)
        self.count_gaps(out)
        daily: list[int] = []
        for equity in self.marks.days():
            daily.append(equity - begin)
            begin = equity
        out.count_days(daily)
        return out, daily

    def count_orders(self, out: Summary) -> None:
        moved, status = self.settled.moved, self.settled.status
        fills: i64 = 0
        cut: i64 = 0
        rejected: i64 = 0
        k: i64 = 0
        while k < self.count:
            if moved[k] != 0:
                fills += 1
            if status[k] & CUT != 0:
                cut += 1
            if status[k] & REJECTED != 0:
                rejected += 1
            k += 1
        out.fills, out.cut, out.rejected = int(fills), int(cut), int(rejected)

    def count_gaps(self, out: Summary) -> None:
        """Count the trades over missing minutes and the profit there, and leave the open trade to the merge."""
        moved, bars, after = self.settled.moved, self.bar, self.events.after
        over: i64 = 0
        first: i64 = NO_BAR  # of the present trade's first quantity
        k: i64 = 0
        while k < self.count:
            if moved[k] != 0 and first == NO_BAR:
                first = bars[k]
            if after[k] == 0:
                if first != NO_BAR and self.has_gap(first, bars[k]):
                    over += 1
                first = NO_BAR
            k += 1
        out.over_gaps = int(over)
        if first != NO_BAR:
            out.tail = 1
            out.tail_gap = 1 if self.has_gap(first, self.hi - 1) else 0
            out.tail_cash = int(self.settled.trade_cash[0]) * SCALE
        out.gap_profit = self.gap_profit()

    def has_gap(self, begin: i64, upto: i64) -> bool:
        """Return whether a minute is missing before one of the bars after `begin`, up to `upto`."""
        gaps = self.candles.gaps
        k: i64 = first_at_least(gaps, begin + 1)
        return k < len(gaps) and gaps[k] <= upto

    def gap_profit(self) -> int:
        """Return the profit over missing minutes, from the close before them to the open after them, in 10^-16."""
        candles = self.candles
        total = 0
        held: i64 = 0
        passed: i64 = 0
        k: i64 = first_at_least(candles.gaps, max(self.lo, 1))
        while k < len(candles.gaps) and candles.gaps[k] < self.hi:
            gap: i64 = candles.gaps[k]
            while passed < self.count and self.bar[passed] < gap:
                held += self.settled.moved[passed]
                passed += 1
            total += int(held) * int(candles.open[gap] - candles.close[gap - 1])
            k += 1
        return total


def total_of(amounts: vec[i64]) -> int:
    """Return the sum of amounts below 2^60."""
    whole = 0
    part: i64 = 0
    n: i64 = len(amounts)
    k: i64 = 0
    while k < n:
        part += amounts[k]
        if part >= HALF or part <= -HALF:
            whole += int(part)
            part = 0
        k += 1
    return whole + int(part)
