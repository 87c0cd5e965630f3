"""Settle and mark a slice of an account, and settle it again if a mark ruins the account. SEMANTICS-2, section 12."""

from collections.abc import Mapping

import msgspec
import numpy as np

from candlemill.backtests.account import AccountRules, AccountState, Entries, Quotation, settle
from candlemill.engine.account_events import BORROW, ENDING, FUNDING
from candlemill.engine.candles import DAY_MS, Column
from candlemill.engine.fill_tape import LIQUIDATION, FillTape
from candlemill.engine.mark import NO_BAR, Marks, PanelMarks
from candlemill.engine.panel_moves import PanelMoves
from candlemill.engine.summary import Summary
from candlemill.engine.wide import SCALE


class Accounted(msgspec.Struct, frozen=True):
    """Slice of an account after settlement and marks.

    `summary` and `daily` (the profit of each of its `days`, counted from 1970) are in 10^-16 of the quote currency;
    `bars` of the summary counts the minutes in which any symbol has a candle; `marks` has the equity at each of them,
    `moves` the changes of quantities.
    """

    entries: Entries
    summary: Summary
    days: list[int]
    daily: list[int]
    end: AccountState
    marks: PanelMarks
    moves: PanelMoves


def account_of(
    fills: Mapping[str, FillTape],
    quotations: Mapping[str, Quotation],
    rules: AccountRules,
    start: AccountState,
    minutes: Column | None = None,
) -> Accounted:
    """Settle and mark a slice. `minutes`, if known, are those in which any symbol has a candle."""
    if minutes is None:
        minutes = np.unique(np.concatenate([quote.t for quote in quotations.values()]))
    day_ends = _day_ends(minutes)
    entries, end = settle(fills, quotations, rules, start)
    moves, panel, marks = _marked(minutes, day_ends, quotations, entries, start, start.ruined)
    ruin = marks.totals()["ruin"]
    if ruin != NO_BAR:
        entries, end = settle(fills, quotations, rules, start, int(minutes[ruin]))
        moves, panel, marks = _marked(minutes, day_ends, quotations, entries, start, True)
    whole, rest = start.equity
    daily = marks.profits(whole, rest)
    summary = summarised(entries, marks, whole * SCALE + rest, len(minutes))
    summary.count_days(daily)
    summary.gap_profit = _gap_profit(quotations, moves, start)
    return Accounted(entries, summary, (minutes[day_ends] // DAY_MS).tolist(), daily, end, panel, moves)


def _gap_profit(quotations: Mapping[str, Quotation], moves: PanelMoves, start: AccountState) -> int:
    """Return the profit over gaps in the candles of all symbols, in 10^-16."""
    total = 0
    for number, name in enumerate(sorted(quotations)):
        quote, before = quotations[name], start.holdings[name]
        if quote.candles is not None:
            end = quote.lo + len(quote.t)
            total += moves.gap_profit(number, quote.candles, quote.lo, end, before.t, before.close)
    return total


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
) -> tuple[PanelMoves, PanelMarks, Marks]:
    at = np.searchsorted(minutes, entries.minute)
    cash = start.cash + np.cumsum(entries.flow)
    steps, first_minutes = steps_of(at)
    panel = PanelMarks(minutes, first_minutes, np.append(start.cash, cash)[steps])
    before = [start.holdings[name] for name in entries.symbols]
    held = np.array([holding.held for holding in before], dtype=np.int64)
    moves = PanelMoves(entries.symbol, entries.what, entries.minute, entries.moved, at, held)
    moves.mark(panel, [quotations[name].quotes(one.close) for name, one in zip(entries.symbols, before, strict=True)])
    return moves, panel, panel.scan(*start.equity, ruined, day_ends)


def steps_of(at: Column, first: int = 0) -> tuple[Column, Column]:
    """Return a step function of the minutes from `first` on: the state after the last event of each minute.

    The first array has the state numbers (0 before all events, k + 1 after event k), the second the minutes from which
    they apply.
    """
    whole = np.append(first, at)
    last = np.flatnonzero(np.diff(whole, append=-1) != 0)
    return last, whole[last]
