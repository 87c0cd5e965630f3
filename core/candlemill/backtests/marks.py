"""Settle and mark a slice of an account, and settle it again if a mark ruins the account. SEMANTICS-2, section 12."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec
import numpy as np

from candlemill.backtests.account import NEVER, AccountRules, AccountState, Columns, Entries, Holding, Quotation, settle
from candlemill.backtests.gaps import gap_bars, held_over_gaps
from candlemill.engine.candles import DAY_MS, MINUTE_MS, Column
from candlemill.engine.fill_tape import LIQUIDATION
from candlemill.engine.mark import NO_BAR, Marks, PanelMarks
from candlemill.engine.settle import BORROW, ENDING, FUNDING
from candlemill.engine.summary import Summary
from candlemill.engine.wide import SCALE


class Accounted(msgspec.Struct, frozen=True):
    """Slice of an account after settlement and marks.

    `summary` and `daily` (the profit of each of its `days`, counted from 1970) are in 10^-16 of the quote currency;
    `bars` of the summary counts the minutes in which any symbol has a candle; `marks` has the equity at each of them.
    """

    entries: Entries
    summary: Summary
    days: list[int]
    daily: list[int]
    end: AccountState
    marks: PanelMarks


def account_of(
    fills: Mapping[str, Columns],
    quotations: Mapping[str, Quotation],
    rules: AccountRules,
    start: AccountState,
    minutes: Column | None = None,
) -> Accounted:
    """Settle and mark a slice. `minutes`, if known, are those in which any symbol has a candle."""
    if minutes is None:
        minutes = union_of([quote.t for quote in quotations.values()], MINUTE_MS)
    day_ends = _day_ends(minutes)
    entries, end = settle(fills, quotations, rules, start)
    panel, marks = _marked(minutes, day_ends, quotations, entries, start, start.ruined)
    ruin = marks.totals()["ruin"]
    if ruin != NO_BAR:
        entries, end = settle(fills, quotations, rules, start, int(minutes[ruin]))
        panel, marks = _marked(minutes, day_ends, quotations, entries, start, True)
    whole, rest, names = *start.equity, entries.symbols
    daily = np.diff(np.array([whole * SCALE + rest, *marks.days()], dtype=object)).tolist()
    summary = summarised(entries, marks, whole * SCALE + rest, len(minutes))
    summary.count_days(daily)
    each = zip(names, moves_of(entries), strict=True)
    summary.gap_profit = sum(_gap_profit(quotations[name], entries, own, start.holdings[name]) for name, own in each)
    return Accounted(entries, summary, (minutes[day_ends] // DAY_MS).tolist(), daily, end, panel)


def moves_of(entries: Entries) -> list[Column]:
    """Return, for each symbol, the numbers of its entries that change the quantity held."""
    moves = np.flatnonzero(entries.moved)
    symbols = entries.symbol[moves]
    order = np.argsort(symbols, kind="stable")
    edges = np.searchsorted(symbols[order], np.arange(len(entries.symbols) + 1)).tolist()
    moves = moves[order]
    return [moves[a:b] for a, b in pairwise(edges)]


def _gap_profit(quote: Quotation, entries: Entries, own: Column, start: Holding) -> int:
    """Return a symbol's profit over gaps in its candles, in 10^-16. `own` are its entries with a quantity."""
    if quote.candles is None:
        return 0
    gaps = gap_bars(quote.candles, quote.lo, quote.lo + len(quote.t)) - quote.lo
    if quote.lo == 0 and len(quote.t) and start.t != NEVER and int(quote.t[0]) - start.t > MINUTE_MS:
        gaps = np.append(0, gaps)
    if not len(gaps):
        return 0
    held = np.append(start.held, start.held + np.cumsum(entries.moved[own]))
    before = held[np.searchsorted(entries.minute[own], quote.t[gaps])]
    opens = quote.candles.columns()["open"][quote.lo + gaps]
    return held_over_gaps(before, np.append(start.close, quote.close)[gaps], opens)


def union_of(times: Sequence[Column], unit: int) -> Column:
    """Return all times of ascending columns, each once, in order.

    The times are multiples of `unit` (ms), so one flag for each unit is faster than sorting.
    """
    times = [t for t in times if len(t)]
    if len(times) < 2:
        return times[0] if times else np.empty(0, dtype=np.int64)
    first, last = min(int(t[0]) for t in times), max(int(t[-1]) for t in times)
    seen = np.zeros((last - first) // unit + 1, dtype=np.bool_)
    for t in times:
        begin, count = (int(t[0]) - first) // unit, (int(t[-1]) - int(t[0])) // unit + 1
        if count == len(t):
            seen[begin : begin + count] = True
        else:
            seen[(t - first) // unit] = True
    found: Column = np.flatnonzero(seen) * unit + first
    return found


def _day_ends(minutes: Column) -> Column:
    """Return the number of each UTC day's last minute."""
    return np.flatnonzero(np.diff(minutes // DAY_MS, append=-1) != 0) if len(minutes) else minutes


def summarised(entries: Entries, marks: Marks, start: int, minutes: int) -> Summary:
    totals = marks.totals()
    out = Summary()
    out.bars = minutes
    out.profit, out.peak, out.low = totals["last"] - start, totals["peak"] - start, totals["low"] - start
    out.drawdown, out.exposure = totals["fall"], totals["exposure"]
    what, moved = entries.what, entries.moved != 0
    out.fees = _sum(entries.paid[what < FUNDING]) * SCALE
    out.funding = _sum(entries.paid[what == FUNDING]) * SCALE
    out.borrow = _sum(entries.paid[what == BORROW]) * SCALE
    out.cut, out.rejected = entries.cut_orders, entries.rejected_orders
    out.liquidations = int(np.count_nonzero(what == LIQUIDATION))
    out.turnover = _sum(entries.value) * SCALE + _sum(entries.rest)
    out.fills = int(np.count_nonzero(moved & (what < FUNDING)))
    out.exposure += int((moved & (what == ENDING)).any())  # the mark that ended it counts as one with a position
    out.trades, out.wins = int(entries.trades.sum()), int(entries.wins.sum())
    out.gross_profit, out.gross_loss = _sum(entries.gross_profit) * SCALE, _sum(entries.gross_loss) * SCALE
    return out


def _sum(column: Column) -> int:
    """Return the exact sum of amounts below 2^60."""
    most = int(np.abs(column).max()) if len(column) else 0
    return int(column.sum()) if most * len(column) < 1 << 63 else sum(column.tolist())


def _marked(
    minutes: Column,
    day_ends: Column,
    quotations: Mapping[str, Quotation],
    entries: Entries,
    start: AccountState,
    ruined: bool,
) -> tuple[PanelMarks, Marks]:
    at = np.searchsorted(minutes, entries.minute)
    cash = start.cash + np.cumsum(entries.flow)
    steps, first_minutes = steps_of(at)
    panel = PanelMarks(minutes, first_minutes, np.append(start.cash, cash)[steps])
    for symbol, own in zip(entries.symbols, moves_of(entries), strict=True):
        holding = start.holdings[symbol]
        if holding.held or len(own):
            quantities = np.append(holding.held, holding.held + np.cumsum(entries.moved[own]))
            steps, first_minutes = steps_of(at[own])
            quotes = quotations[symbol].quotes(holding.close)
            panel.add(quotes, first_minutes, quantities[steps])
    return panel, panel.scan(*start.equity, ruined, day_ends)


def steps_of(at: Column, first: int = 0) -> tuple[Column, Column]:
    """Return a step function of the minutes from `first` on: the state after the last event of each minute.

    The first array has the state numbers (0 before all events, k + 1 after event k), the second the minutes from which
    they apply.
    """
    whole = np.append(first, at)
    last = np.flatnonzero(np.diff(whole, append=-1) != 0)
    return last, whole[last]
