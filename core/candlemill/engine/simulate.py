"""Run decisions over a stretch of bars: passes that cannot exceed 64 bits, joined into one Summary."""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns, view
from candlemill.engine.fills import Fills
from candlemill.engine.position import MILLION, SCALE, ExecutionRules, Position
from candlemill.engine.signals import PositionChanges
from candlemill.engine.summary import FINE, CarriedState, Summary, count_equity
from candlemill.engine.unit_run import exact
from candlemill.engine.unstopped import is_unstopped, run_unstopped

EQUITY_LIMIT: Final = 1 << 61  # no money amount of one pass may reach it
TAKE_LIMIT: Final = 1 << 62  # the same for a target's distance from the entry


def run(
    candles: CandleColumns,
    changes: PositionChanges,
    rules: ExecutionRules,
    start: CarriedState,
    lo: int,
    hi: int,
    log: Fills | None = None,
) -> tuple[Summary, CarriedState, list[int]]:
    """Trade `changes` over bars `lo` to `hi - 1` from `start`.

    Returns the Summary, the state before the next bar, and the profit of each UTC day that ends in these bars. `log`
    records the fills.

    Pure: the same bars, changes, rules and state give the same bits on any machine. Raises OverflowError where even a
    single pass over a few changes could exceed 64 bits.
    """
    if lo >= hi:
        return Summary(), start, []
    step = _changes_per_pass(candles, rules)
    count = len(changes.at)
    if count <= step and log is None and is_unstopped(candles, rules, start):
        return run_unstopped(candles, changes, rules, start, lo, hi)
    if count <= step:
        return _settle([_pass(candles, changes, rules, start, lo, hi, log)])
    passes: list[Position] = []
    at, value = view(changes.at), view(changes.value)
    for first in range(0, count, step):
        piece = PositionChanges(vec[i64](at[first : first + step]), vec[i64](value[first : first + step]))
        last = first + step >= count
        stop = hi if last else int(at[first + step - 1]) + 1
        passes.append(_pass(candles, piece, rules, start, lo, stop, log))
        start, lo = _state(passes[-1]), stop
        if log is not None:
            log.before += passes[-1].equity(passes[-1].side)
    return _settle(passes)


def check_limits(candles: CandleColumns, rules: ExecutionRules) -> None:
    """Raise OverflowError where even a single pass over a few changes could exceed 64 bits."""
    _changes_per_pass(candles, rules)


def _changes_per_pass(candles: CandleColumns, rules: ExecutionRules) -> int:
    """Return how many changes one pass can process without a sum above 64 bits: each change is at most two fills."""
    top = int(candles.top)
    fill = top + top * int(rules.slippage) // MILLION + 1
    fill += fill * max(abs(int(rules.fee)), abs(int(rules.maker_fee))) // MILLION
    funding = 0
    if len(candles.funding_rates) != 0:
        funding = int(np.abs(view(candles.funding_rates)).sum()) * top // SCALE
    take = (top // MILLION + 1) * int(rules.take_profit)
    step = (EQUITY_LIMIT - funding) // max(1, fill) // 2 - 3
    if step < 1 or take > TAKE_LIMIT:
        raise OverflowError(f"prices up to {top} (scaled) with these costs and stops do not fit 64 bits")
    return step


def _pass(
    candles: CandleColumns,
    changes: PositionChanges,
    rules: ExecutionRules,
    start: CarriedState,
    lo: int,
    hi: int,
    log: Fills | None,
) -> Position:
    book = Position(candles, rules, start, lo, hi, log)
    book.walk(changes)
    return book


def _state(book: Position) -> CarriedState:
    held = book.side != 0
    return CarriedState(
        book.side,
        book.wanted,
        book.locked,
        book.entry if held and (book.rules.needs_entry or (book.rules.short_entries and book.side < 0)) else 0,
        book.extreme if held and book.rules.trailing_stop != 0 else 0,
    )


def _settle(passes: list[Position]) -> tuple[Summary, CarriedState, list[int]]:
    """Join consecutive passes into one Summary and the daily profits; a day may be in several passes."""
    total = _summary(passes[0])
    for book in passes[1:]:
        total = total.merge(_summary(book))
    last = passes[-1]
    if len(passes) == 1:
        return total, _state(last), count_equity(total, last.day_equity, last.day_rest)
    offset = before = 0
    daily: list[int] = []
    for book in passes:
        for equity, rest in zip(view(book.day_equity).tolist(), view(book.day_rest).tolist(), strict=True):
            after = offset + equity * FINE + rest
            daily.append(after - before)
            before = after
        offset += book.equity(book.side)
    total.count_days(daily)
    return total, _state(last), daily


def _summary(book: Position) -> Summary:
    taken, made = int(book.turnover - book.maker_turnover), int(book.maker_turnover)
    out = book.totals(book.side, book.side != 0)
    out.fees = (taken * int(book.rules.fee) + made * int(book.rules.maker_fee)) * (FINE // MILLION)
    out.funding = exact(book.funding, book.funding_rest)
    out.ambiguous = int(book.ambiguous)
    return out
