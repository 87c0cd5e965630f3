"""A run of one symbol in a new account of real money, whose fills are all at opens: settled and marked as decided.

The figures are those of `backtests.single.AccountSlice`, which knows all other cases. Sweeps run mostly this one.
"""

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns
from candlemill.engine.mark import NO_BAR, Marks, StretchMarks
from candlemill.engine.position import MILLION, ExecutionRules, distance
from candlemill.engine.settle_rules import SettleRules
from candlemill.engine.signals import PositionChanges, first_at_least
from candlemill.engine.single_account import SingleAccount
from candlemill.engine.stretches import at_or_far
from candlemill.engine.summary import CarriedState, Summary
from candlemill.engine.unstopped import opens_after


def is_plain(candles: CandleColumns, rules: ExecutionRules, start: CarriedState) -> bool:
    """Return whether a `CashRun` gives the figures of these rules from this state."""
    at_opens = not rules.has_stops and not rules.at_close and not rules.short_entries
    new = start.side == 0 and start.desired == 0 and not start.locked and not start.account
    return at_opens and new and len(candles.funding_bars) == 0


class CashRun:
    """Run over bars `lo` to `hi - 1`. `account` has the account after them, `marks` its marks."""

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
        self.lo: i64 = lo
        self.hi: i64 = hi
        self.side: i64 = 0
        self.wanted: i64 = 0
        self.account: SingleAccount = SingleAccount(settle_rules, capital)
        self.marks: Marks = Marks(capital, 0, False)
        self.seen: StretchMarks = StretchMarks(self.marks, candles, lo, hi, len(changes.at) + 2)
        self.gap: i64 = first_at_least(candles.gaps, max(lo, 1))
        self.next_gap: i64 = at_or_far(candles.gaps, self.gap)
        self.walk(changes)

    @property
    def is_ruined(self) -> bool:
        """Whether a mark has ended the account: then the run is none of this module's."""
        return self.marks.ruin != NO_BAR

    def walk(self, changes: PositionChanges) -> None:
        """Process all bars: a stretch up to the fill of each change, and one after the last."""
        at, value, hi = changes.at, changes.value, self.hi
        opens, closes = opens_after(self.candles.open, at), closes_of(self.candles.close, at)
        count: i64 = len(at)
        begin: i64 = self.lo
        k: i64 = 0
        while k < count:
            bar: i64 = at[k] + 1
            self.wanted = value[k]
            if bar < hi and self.wanted != self.side:
                self.mark(begin, bar)
                if self.marks.ruin != NO_BAR:
                    return
                self.fill(opens[k], closes[k])
                begin = bar
            k += 1
        self.mark(begin, hi)
        self.seen.finish(self.account.cash, self.account.held)

    def mark(self, begin: i64, end: i64) -> None:
        """Mark bars `begin` to `end - 1`, and hold the position over missing minutes up to bar `end`."""
        account = self.account
        while self.next_gap <= end and self.next_gap < self.hi:
            account.cross_gap(self.candles.close[self.next_gap - 1], self.candles.open[self.next_gap])
            self.gap += 1
            self.next_gap = at_or_far(self.candles.gaps, self.gap)
        if begin < end:
            self.seen.stretch(begin, end, account.cash, account.held)

    def fill(self, raw: i64, made_price: i64) -> None:
        """Close the open position and open the wanted one, both at the raw price; `made_price` is the close before."""
        account, rules = self.account, self.rules
        price: i64 = raw
        if rules.slippage != 0:
            direction: i64 = 1 if self.wanted > self.side else -1
            price = max(1, raw + direction * distance(raw, rules.slippage))
        if self.wanted != 0:
            account.note(made_price)
        if self.side != 0:
            account.leave(price, rules.fee)
        if self.wanted != 0:
            account.enter(self.wanted, price, rules.fee, made_price)
        self.side = self.wanted

    def state(self) -> CarriedState:
        return CarriedState(self.side, self.wanted)

    def exposure(self) -> int:
        """Return the exposure (ppm) of the open position."""
        return int(self.side) * MILLION

    def summary(self) -> tuple[Summary, list[int]]:
        """Return the Summary and the daily profits."""
        out, daily = self.account.summary(self.marks, int(self.hi - self.lo))
        out.first, out.last = int(self.candles.open[self.lo]), int(self.candles.close[self.hi - 1])
        return out, daily


def closes_of(closes: vec[i64], at: vec[i64]) -> vec[i64]:
    """Return the closes of bars `at`, collected beforehand as in `opens_after`."""
    out = vec[i64](np.empty(len(at), dtype=np.int64))
    count: i64 = len(at)
    k: i64 = 0
    while k < count:
        out[k] = closes[at[k]]
        k += 1
    return out
