"""Desired positions of one symbol in an account of real money: the book decides, then its fills are settled and marked.

The result equals that of `marks.account_of` for an account of one symbol, but this is fast enough for sweeps: bars are
identified by their numbers, and stretches between fills are marked by their extremes. The account is part of the state
between slices. Trades over several slices are completed when their summaries are merged.
"""

import numpy as np

from candlemill.backtests.account import (
    CARRIED,
    NEVER,
    AccountRules,
    AccountState,
    Columns,
    Entries,
    Holding,
    in_order,
    midnights_of,
    opened,
    plain_events,
    settle_events,
    turns_of,
)
from candlemill.backtests.account_log import AccountLog
from candlemill.backtests.gaps import gap_bars, held_over_gaps
from candlemill.backtests.marks import steps_of, summarised
from candlemill.backtests.recording import Recording
from candlemill.engine.account_events import AFTER_CLOSE, BEFORE_OPEN, BORROW, ENDING, FUNDING
from candlemill.engine.candles import CandleColumns, Column
from candlemill.engine.cash import CashRun, is_plain
from candlemill.engine.fill_tape import AT_CLOSE, AT_OPEN, IN_RANGE, STOP, TAKE, TARGET
from candlemill.engine.fills import BOTH, LATE, SIGNAL, Fills
from candlemill.engine.fills import TAKE as TAKEN
from candlemill.engine.mark import NO_BAR, Marks, mark_symbol
from candlemill.engine.position import MILLION, SCALE, ExecutionRules
from candlemill.engine.quotes import quotes_of, quotes_on
from candlemill.engine.settle import Settler
from candlemill.engine.signals import PositionChanges
from candlemill.engine.simulate import check_limits, run
from candlemill.engine.summary import CLOSED, THROUGH, CarriedState, Summary

SYMBOL = "-"  # in an account of one symbol, the name has no effect


def run_cash(
    candles: CandleColumns,
    changes: PositionChanges,
    rules: ExecutionRules,
    account: AccountRules,
    start: CarriedState,
    lo: int,
    hi: int,
    record: Recording | None = None,
) -> tuple[Summary, CarriedState, list[int]]:
    """Run as `simulate.run` does, for an account of real money: the summary and the daily profits are in 10^-16.

    `rules` must have marks off. The account is that of `start`, or a new one.
    """
    if lo >= hi:
        return Summary(), start, []
    if record is None and not account.borrow and is_plain(candles, rules, start):
        check_limits(candles, rules)
        plain = CashRun(candles, changes, rules, account.of([SYMBOL]), account.capital, lo, hi)
        if not plain.is_ruined:
            return _plain_outcome(candles, plain, hi)
    log = Fills()
    unit, state, _ = run(candles, changes, rules, start, lo, hi, log)
    before = AccountState.from_bytes(start.account) if start.account else opened(account, [SYMBOL])
    slice_ = AccountSlice(candles, account, before, lo, hi)
    last = slice_.account_for(fills_of(candles, rules, log, int(start.side)))
    total, daily = slice_.summary()
    total.ambiguous = _ambiguous(log, last) if unit.ambiguous else 0
    total.first, total.last = unit.first, unit.last
    state.account = slice_.after().to_bytes()
    if record is not None:
        fills = log.columns()
        record.account = slice_.log(fills["bar"][fills["reason"] == BOTH])
    return total, state, daily


def _plain_outcome(candles: CandleColumns, plain: CashRun, hi: int) -> tuple[Summary, CarriedState, list[int]]:
    """Return what `run_cash` returns."""
    columns, account = candles.columns(), plain.account
    last, close = int(columns["t"][hi - 1]), int(columns["close"][hi - 1])
    own = int(account.held), plain.exposure(), last, close, int(account.trade_cash), int(account.is_filled)
    whole, rest = divmod(plain.marks.totals()["last"], SCALE)
    state = plain.state()
    state.account = AccountState(int(account.cash), (whole, rest), last, False, {SYMBOL: Holding(*own)}).to_bytes()
    total, daily = plain.summary()
    return total, state, daily


def _ambiguous(log: Fills, last: int) -> int:
    """Return how many bars up to `last` touched both the stop and the target."""
    fills = log.columns()
    return int(np.count_nonzero((fills["reason"] == BOTH) & (fills["bar"] <= last)))


class AccountSlice:
    """Account over bars `lo` to `hi - 1` of its symbol.

    `decided` is the last instant in them at which orders that may wait were stated (open time of that minute), or
    NEVER: targets of -1, 0 and 1 never wait. Funding is paid on the prices `funded` of the bars before, if given.
    """

    entries: Entries
    marks: Marks
    events: Columns
    settler: Settler

    def __init__(
        self,
        candles: CandleColumns,
        rules: AccountRules,
        before: AccountState,
        lo: int,
        hi: int,
        decided: int = NEVER,
        funded: Column | None = None,
    ) -> None:
        self._decided, self._funded = decided, funded
        self._candles, self._rules, self._before, self._lo, self._hi = candles, rules, before, lo, hi
        self._start: Holding = before.holdings[SYMBOL]
        self._columns = candles.columns()
        self._t = self._columns["t"]

    def account_for(self, fills: Columns) -> int:
        """Settle and mark the slice's fills, and settle again if a mark ruins the account.

        Returns the last bar in which anything is traded: the bar of the ruin, or for a slice after a ruin the bar
        before it.
        """
        ruined = self._before.ruined
        flows = self.flows()
        events = in_order([fills, *flows]) if flows else fills
        if ruined:
            events = {name: column[:0] for name, column in events.items()}
        self.settle(events, ruined)
        if (ruin := self.marks.totals()["ruin"]) != NO_BAR:
            self.settle(self.ended(events, ruin), True)
            return int(ruin)
        return self._lo - 1 if ruined else self._hi - 1

    def flows(self) -> list[Columns]:
        """Return funding and borrow as events."""
        bars, rates = self._columns["funding_bars"], self._columns["funding_rates"]
        inside = (bars >= self._lo) & (bars < self._hi)
        found = [self._flows(FUNDING, bars[inside], rates[inside])] if inside.any() else []
        if self._rules.borrow:
            t = self._t[self._lo : self._hi]
            since = int(t[0]) if self._before.t == NEVER else self._before.t
            bars, rates = midnights_of(t, since, self._rules.borrow)
            found.append(self._flows(BORROW, bars + self._lo, rates))
        return found

    def _flows(self, what: int, bars: Column, rates: Column) -> Columns:
        return plain_events(0, self._t[bars], BEFORE_OPEN, what, rates) | {"bar": bars}

    def ended(self, events: Columns, ruin: int) -> Columns:
        """Return the events up to the bar that ruins the account, and the end of the position."""
        ending = plain_events(0, self._t[[ruin]], AFTER_CLOSE, ENDING) | {"bar": np.array([ruin])}
        kept = events["bar"] <= ruin
        return {name: np.append(column[kept], ending[name]) for name, column in events.items()}

    def settle(self, events: Columns, ruined: bool) -> None:
        """Settle and mark events that are in order."""
        start, before, bars = self._start, self._before, events["bar"]
        fresh = np.flatnonzero((events["instant"] >= 0) & (events["made"] > before.t))
        made = events["made"][fresh]
        first = np.flatnonzero(np.diff(made, prepend=NEVER))  # orders are filled in the order in which they were made
        instant = np.full(len(bars), NEVER, dtype=np.int64)
        instant[fresh] = np.repeat(np.arange(len(first)), np.diff(first, append=len(made)))
        instants = made[first]
        if self._decided != NEVER and (len(instants) == 0 or instants[-1] != self._decided):
            instants = np.append(instants, self._decided)
        # Orders made at the last close before the slice use the equity there.
        pending = before.equity if start.made == NEVER else start.made_equity
        state = start.held, start.trade_cash, start.filled, *pending, start.entry, start.margin
        held, trade_cash, *carried = (np.array([x], dtype=np.int64) for x in state)
        quotes = [quotes_of(self._candles, self._lo)]
        self.settler = Settler(self._rules.of([SYMBOL]), quotes, before.cash, held, trade_cash)
        self.settler.carry(*carried)
        if self._funded is not None:
            self.settler.funded = [quotes_on(self._candles, self._funded, self._lo)]
        self.events = events
        self.entries = settle_events(self.settler, events | {"instant": instant}, instants, [SYMBOL])
        cash = np.append(before.cash, before.cash + np.cumsum(self.entries.flow))
        quantity = np.append(start.held, start.held + np.cumsum(self.entries.moved))
        steps, at = steps_of(bars, self._lo)
        self.marks = mark_symbol(
            self._candles, self._lo, self._hi, at, cash[steps], quantity[steps], *before.equity, ruined
        )

    def summary(self) -> tuple[Summary, list[int]]:
        """Return the Summary of the slice and its daily profits."""
        whole, rest = self._before.equity
        begin = whole * SCALE + rest
        total = summarised(self.entries, self.marks, begin, self._hi - self._lo)
        daily = self.marks.profits(whole, rest)
        total.count_days(daily)
        total.gap_profit = self._gap_profit()
        self._split_trades(total)
        return total, daily

    def _gap_profit(self) -> int:
        """Return the profit over gaps in the candles, in 10^-16."""
        gaps = gap_bars(self._candles, self._lo, self._hi)
        held = np.append(self._start.held, self._start.held + np.cumsum(self.entries.moved))
        before = held[np.searchsorted(self.events["bar"], gaps)]
        return held_over_gaps(before, self._columns["close"][gaps - 1], self._columns["open"][gaps])

    def _split_trades(self, total: Summary) -> None:
        """Leave the open part of a trade over several slices to the merge, and count the trades over gaps."""
        events, entries, start = self.events, self.entries, self._start
        done = np.flatnonzero(((events["after"] == 0) & (entries.what < FUNDING)) | (entries.what == ENDING))
        if start.filled:
            end = int(done[0]) if len(done) else len(entries.flow) - 1
            cash = int(entries.flow[: end + 1].sum())
            total.head, total.head_cash = CLOSED if len(done) else THROUGH, cash * SCALE
            total.head_gap = self._gaps(self._lo - 1, int(events["bar"][end]) if len(done) else self._hi - 1)
            if len(done):
                profit = (start.trade_cash + cash) * SCALE
                total.trades -= 1
                total.wins -= profit > 0
                total.gross_profit -= max(profit, 0)
                total.gross_loss -= max(-profit, 0)
        cash = int(self.settler.of_symbols()["trade_cash"][0])
        bars, last = (events["bar"], events["after"]), self._hi - 1
        count_trades(total, entries, *bars, self._columns["gaps"], last, cash, bool(start.filled))

    def log(self, ambiguous: Column) -> AccountLog:
        """Return all events for a replay; `ambiguous` are the bars in which the order of events is unknown."""
        events, entries = self.events, self.entries
        ended = entries.what == ENDING
        return AccountLog(
            events["bar"],
            entries.stage,
            entries.what,
            events["before"],
            events["after"],
            entries.moved,
            np.where(ended, self._columns["close"][events["bar"]], events["price"]),
            entries.flow,
            entries.paid,
            ambiguous,
        )

    def _gaps(self, after: int, upto: int) -> int:
        """Return whether a minute is missing before one of the bars after `after`, up to `upto`."""
        gaps = self._columns["gaps"]
        a, b = np.searchsorted(gaps, [after, upto], side="right")
        return int(a < b)

    def after(self) -> AccountState:
        """Return the account at the start of the next slice."""
        sums, ruined = self.settler.of_symbols(), self._before.ruined or bool((self.entries.what == ENDING).any())
        last = int(self._t[self._hi - 1])
        exposures = self.events["after"][self.entries.what < FUNDING]
        exposure = int(exposures[-1]) if len(exposures) else self._start.exposure
        close = int(self._columns["close"][self._hi - 1])
        held, cash, filled, entry, margin = (int(sums[name][0]) for name in CARRIED)
        whole, rest = divmod(self.marks.totals()["last"], SCALE)
        start, decided = self._start, self._decided
        made = start.made, start.made_price, start.made_equity
        if decided != NEVER:
            equities = self.settler.equities()
            price = int(self._columns["close"][np.searchsorted(self._t, decided)])
            made = decided, price, (int(equities[0][-1]), int(equities[1][-1]))
        holding = Holding(held, 0 if ruined else exposure, last, close, cash, filled, *made, entry, margin)
        return AccountState(int(self.settler.cash), (whole, rest), last, ruined, {SYMBOL: holding})


def count_trades(
    total: Summary,
    entries: Entries,
    bar: Column,
    after: Column,
    gaps: Column,
    last: int,
    cash: int,
    inherited: bool = False,
) -> None:
    """Count the trades over gaps, and leave the last one that is open to the merge.

    `bar` and `after` (exposure) are those of the events, `gaps` the bars before which a minute is missing, `last` the
    last bar, `cash` that of the open trade. A trade that was `inherited` from the slice before is left out.
    """
    done = np.flatnonzero(((after == 0) & (entries.what < FUNDING)) | (entries.what == ENDING))
    real = np.flatnonzero((entries.moved != 0) & (entries.what < FUNDING))
    trades, at = np.unique(np.searchsorted(done, real), return_index=True)  # by how many ended before
    own = trades >= (1 if inherited else 0)
    trades, at = trades[own], at[own]
    closed = trades < len(done)
    first, end = bar[real[at]], np.append(bar[done], last)[trades]
    over = np.searchsorted(gaps, first, side="right") < np.searchsorted(gaps, end, side="right")
    total.over_gaps = int(np.count_nonzero(over & closed))
    if len(trades) and not closed[-1]:
        total.tail, total.tail_gap, total.tail_cash = 1, int(over[-1]), cash * SCALE


def fills_of(candles: CandleColumns, rules: ExecutionRules, log: Fills, side: int) -> Columns:
    """Return the fills of a book that began with a position of `side` as events; `bar` is the bar number of each."""
    fills, columns = log.columns(), candles.columns()
    bar, after, reason, raw = fills["bar"], fills["side"], fills["reason"], fills["raw"]
    n = len(bar)
    zeros = np.zeros(n, dtype=np.int64)
    before = np.append(side, after)[:n]
    now = (reason != LATE) & rules.at_close
    made = np.where(now, bar, bar - 1)
    stage, what, rate = np.where(now, AT_CLOSE, AT_OPEN), zeros + TARGET, zeros + int(rules.fee)
    if rules.has_stops:
        # An exit at or beyond the open happens at the open: a long's stop is not below it, its target not above.
        ahead = before * (raw - columns["open"][bar])
        taken = reason == TAKEN
        at_open = np.where(taken, ahead <= 0, ahead >= 0)
        decided = (reason == SIGNAL) | (reason == LATE)
        stage = np.where(decided, stage, np.where(at_open, AT_OPEN, IN_RANGE))
        what = np.where(decided, TARGET, np.where(taken, TAKE, STOP))
        rate[taken] = int(rules.maker_fee)
    return {
        "minute": columns["t"][bar],
        "stage": stage,
        "turn": turns_of(bar, stage),
        "symbol": zeros,
        "what": what,
        "before": before * MILLION,
        "after": after * MILLION,
        "part": zeros,
        "price": fills["price"],
        "raw": raw,
        "rate": rate,
        "made": columns["t"][made],
        "instant": np.where(after != 0, 0, NEVER),
        "made_price": columns["close"][made],
        "bar": bar,
    }
