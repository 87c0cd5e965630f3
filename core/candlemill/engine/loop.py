"""Running decisions over a stretch of bars: passes that cannot leave 64 bits, joined into one Summary."""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.book import FAR, MILLION, SCALE, Book, Rules
from candlemill.engine.fills import Fills
from candlemill.engine.signals import Changes
from candlemill.engine.summary import State, Summary, square_sums
from candlemill.engine.tape import Tape, view

EQUITY_LIMIT: Final = 1 << 61  # no money figure of one pass may reach it


def run(
    tape: Tape, changes: Changes, rules: Rules, start: State, lo: int, hi: int, log: Fills | None = None
) -> tuple[Summary, State, list[int]]:
    """Trade `changes` over bars `lo` to `hi - 1` from `start`: what happened, the state that the next bar meets, and
    the profit of each UTC day that ends in these bars. `log` takes down the fills.

    Pure: the same bars, changes, rules and state give the same bits on any machine. Raises OverflowError where
    even a single pass over a few changes could leave 64 bits.
    """
    if lo >= hi:
        return Summary(), start, []
    step = _changes_per_pass(tape, rules)
    count = len(changes.at)
    if count <= step:
        return _settle([_pass(tape, changes, rules, start, lo, hi, log)])
    passes: list[Book] = []
    at, value = view(changes.at), view(changes.value)
    for first in range(0, count, step):
        piece = Changes(vec[i64](at[first : first + step]), vec[i64](value[first : first + step]))
        last = first + step >= count
        stop = hi if last else int(at[first + step - 1]) + 1
        passes.append(_pass(tape, piece, rules, start, lo, stop, log))
        start, lo = _state(passes[-1]), stop
        if log is not None:
            log.before += _equity(passes[-1])
    return _settle(passes)


def _changes_per_pass(tape: Tape, rules: Rules) -> int:
    """How many changes one pass can carry without a sum leaving 64 bits: every change is two fills at most."""
    top = int(tape.top)
    fill = top + top * int(rules.slippage) // MILLION
    fill += fill * max(abs(int(rules.fee)), abs(int(rules.maker_fee))) // MILLION
    rates = view(tape.funding_rates)
    funding = int(np.abs(rates).sum()) * top // SCALE if len(rates) else 0
    take = (top // MILLION + 1) * int(rules.take_profit)
    step = (EQUITY_LIMIT - funding) // max(1, fill) // 2 - 3
    if step < 1 or take > FAR:
        raise OverflowError(f"prices up to {top} (scaled) with these costs and stops do not fit 64 bits")
    return step


def _pass(tape: Tape, changes: Changes, rules: Rules, start: State, lo: int, hi: int, log: Fills | None) -> Book:
    book = Book(tape, rules, start, lo, hi, log)
    book.walk(changes)
    return book


def _equity(book: Book) -> int:
    equity: i64 = book.base
    if book.side != 0:
        equity += book.side * book.tape.close[book.hi - 1]
    return int(equity)


def _state(book: Book) -> State:
    held = book.side != 0
    return State(
        book.side,
        book.wanted,
        book.locked,
        book.entry if held and (book.rules.needs_entry or (book.rules.short_entries and book.side < 0)) else 0,
        book.extreme if held and book.rules.trailing_stop != 0 else 0,
    )


def _settle(passes: list[Book]) -> tuple[Summary, State, list[int]]:
    """One Summary of consecutive passes, and the daily profits; days may run across passes."""
    total = _summary(passes[0])
    for book in passes[1:]:
        total = total.merge(_summary(book))
    if len(passes) == 1:
        total.squares, total.loss_squares = square_sums(passes[0].day_equity)
        total.days = len(passes[0].day_equity)
        return total, _state(passes[0]), np.diff(view(passes[0].day_equity), prepend=0).tolist()
    offset = before = 0
    daily: list[int] = []
    for book in passes:
        for equity in view(book.day_equity).tolist():
            daily.append(offset + equity - before)
            before = offset + equity
        offset += _equity(book)
    total.count_days(daily)
    return total, _state(passes[-1]), daily


def _summary(book: Book) -> Summary:
    here = book.side != 0 and not book.inherited
    out = Summary()
    out.bars = int(book.hi - book.lo)
    out.profit = _equity(book)
    out.peak = int(book.peak)
    out.low = int(book.low)
    out.drawdown = int(book.drawdown)
    out.fees = int(book.fees)
    out.funding = int(book.funding)
    out.turnover = int(book.turnover)
    out.fills = int(book.fills)
    out.trades = int(book.trades)
    out.wins = int(book.wins)
    out.gross_profit = int(book.gross_profit)
    out.gross_loss = int(book.gross_loss)
    out.exposure = int(book.exposure)
    out.ambiguous = int(book.ambiguous)
    out.over_gaps = int(book.over_gaps)
    out.head = int(book.head)
    out.head_cash = int(book.head_cash)
    out.head_gap = int(book.over_gap if book.inherited else book.head_gap)
    out.tail = int(here)
    out.tail_cash = int(book.entry_cash) if here else 0
    out.tail_gap = int(here and book.over_gap)
    out.first = int(book.tape.open[book.lo])
    out.last = int(book.tape.close[book.hi - 1])
    return out
