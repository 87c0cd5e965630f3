"""Marks of accounts, and the outlines of stretches, against sums over every bar."""

from collections.abc import Collection
from itertools import pairwise
from typing import Any, NamedTuple

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.engine.candles import BLOCK, MINUTE_MS, CandleColumns
from candlemill.engine.mark import NO_BAR, Marks, PanelMarks, mark_symbol, outlines
from candlemill.engine.quotes import Quotes
from hypothesis import example, given
from order_candles import candle_columns

SCALE = 10**8
PARTS = st.lists(st.integers(1, 6) | st.integers(1, 10**12), min_size=2, max_size=BLOCK)
CLOSES = st.builds(lambda part, times: part * times, PARTS, st.integers(1, 5))
UNITS = st.integers(-3, 3) | st.integers(-(10**9), 10**9)
STEPS = st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 10**9), UNITS), min_size=1, max_size=5)
EQUITY = st.tuples(st.integers(1, 10**9), st.sampled_from([0, 1, SCALE - 1]))


class Account(NamedTuple):
    """From bar `at` on there is the cash, and a quantity is held."""

    at: list[int]
    cash: list[int]
    held: list[int]


def candles_of(closes: list[int], day_ends: Collection[int] = ()) -> CandleColumns:
    """Candles of one minute after the other; after the bars `day_ends` it is the same minute of the next day."""
    days = [sum(end < i for end in day_ends) for i in range(len(closes))]
    return candle_columns([(close,) * 4 for close in closes], [1440 * day + i for i, day in enumerate(days)])


def array(values: list[int]) -> Any:
    return np.array(values, dtype=np.int64)


def account_of(steps: list[tuple[int, int, int]]) -> Account:
    at = np.cumsum([0, *(wait for wait, _, _ in steps[1:])]).tolist()
    return Account(at, [cash for _, cash, _ in steps], [held for _, _, held in steps])


def expected(equities: list[int], holding: list[bool], before: int, ruined: bool, ends: list[int]) -> dict[str, Any]:
    """The totals, and the equity at each day's end, in 10^-16. They end with the first equity of 0 or less."""
    ruin = next((i for i, equity in enumerate(equities) if equity <= 0 and not ruined), NO_BAR)
    peak = low = before
    fall = 0
    for equity in equities:
        fall = max(fall, peak - equity)
        peak, low = max(peak, equity), min(low, equity)
    last = equities[-1] if equities else before
    levels = [before, *(equities[end] for end in ends)]
    found = {"peak": peak, "low": low, "fall": fall, "last": last, "exposure": sum(holding), "ruin": ruin}
    return {"ruin": ruin} if ruin != NO_BAR else {**found, "profits": [b - a for a, b in pairwise(levels)]}


def shown(marks: Marks, before: tuple[int, int]) -> dict[str, Any]:
    if marks.ruin != NO_BAR:
        return {"ruin": marks.ruin}
    return {**marks.totals(), "profits": marks.profits(*before)}


@given(CLOSES, STEPS, EQUITY, st.booleans(), st.data())
def test_the_marks_of_a_symbol_are_those_of_every_bar(
    closes: list[int], steps: list[tuple[int, int, int]], before: tuple[int, int], ruined: bool, data: st.DataObject
) -> None:
    hi = data.draw(st.integers(1, len(closes)))
    lo = data.draw(st.integers(0, hi - 1))
    account = account_of(steps)
    at = [min(lo + step, hi - 1) for step in account.at]
    day_ends = {*data.draw(st.sets(st.integers(0, len(closes) - 1), max_size=3)), len(closes) - 1}
    ends = [end - lo for end in sorted(day_ends) if lo <= end < hi]
    step = np.searchsorted(at, range(lo, hi), side="right") - 1
    equities = [account.cash[k] * SCALE + account.held[k] * closes[lo + i] for i, k in enumerate(step)]
    candles = candles_of(closes, day_ends)
    if data.draw(st.booleans()):
        candles.add_blocks()
    marks = mark_symbol(candles, lo, hi, array(at), array(account.cash), array(account.held), *before, ruined)
    holding = [account.held[k] != 0 for k in step]
    own = expected(equities, holding, before[0] * SCALE + before[1], ruined, ends)
    if own["ruin"] != NO_BAR:
        own["ruin"] += lo
    assert shown(marks, before) == own


@given(st.lists(CLOSES, min_size=1, max_size=3), EQUITY, st.booleans(), st.data())
def test_the_marks_of_a_panel_are_those_of_every_minute(
    columns: list[list[int]], before: tuple[int, int], ruined: bool, data: st.DataObject
) -> None:
    """A symbol has candles at some of the minutes; in others its last close counts."""
    minutes = data.draw(st.integers(1, 12))
    t = array(list(range(1, minutes + 1))) * MINUTE_MS
    cash = account_of(data.draw(STEPS))
    at = [min(step, minutes) for step in cash.at]
    panel = PanelMarks(t, array(at), array(cash.cash))
    place = np.searchsorted(at, range(minutes), side="right") - 1
    equities, holding = [cash.cash[k] * SCALE for k in place], [False] * minutes
    for closes in columns:
        own = sorted(data.draw(st.sets(st.integers(-2, minutes + 1), max_size=len(closes))))  # some outside the minutes
        account, last = account_of(data.draw(STEPS)), data.draw(st.integers(1, 10**9))
        steps = [min(step, minutes) for step in account.at]
        times = array([minute + 1 for minute in own]) * MINUTE_MS
        panel.add(Quotes(times, array(closes[: len(own)]), last), array(steps), array(account.held))
        for i in range(minutes):
            held = account.held[int(np.searchsorted(steps, i, side="right")) - 1]
            seen = [close for minute, close in zip(own, closes, strict=False) if minute <= i]
            equities[i] += held * (seen[-1] if seen else last)
            holding[i] |= held != 0
    ends = sorted(data.draw(st.sets(st.integers(0, minutes - 1), max_size=3)))
    assert panel.equity().tolist() == [equity // SCALE for equity in equities]
    marks = panel.scan(*before, ruined, array(ends))
    assert shown(marks, before) == expected(equities, holding, before[0] * SCALE + before[1], ruined, ends)


def test_positions_of_a_panel_whose_sum_may_leave_64_bits_are_refused() -> None:
    panel = PanelMarks(array([MINUTE_MS]), array([0]), array([0]))
    large = (Quotes(array([MINUTE_MS]), array([SCALE]), 1), array([0]), array([2**59]))
    panel.add(*large)
    with pytest.raises(OverflowError, match=r"2\^60"):
        panel.add(*large)


STRETCHES = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 200), st.sampled_from([1, -1])), max_size=4)


@given(CLOSES, STRETCHES)
@example([1, 6, 5], [(0, 3, -1)])
@example([6, 1, 2], [(0, 3, 1)])
def test_outlines_are_highest_lowest_and_deepest(closes: list[int], stretches: list[tuple[int, int, int]]) -> None:
    begins = [begin % len(closes) for begin, _, _ in stretches]
    stops = [min(begin + length, len(closes)) for begin, (_, length, _) in zip(begins, stretches, strict=True)]
    sides = [side for _, _, side in stretches]
    found = outlines(candles_of(closes), array(begins), array(stops), array(sides))
    for begin, stop, side, top, bottom, fall in zip(begins, stops, sides, *(f.tolist() for f in found), strict=True):
        own = closes[begin:stop]
        falls = [side * (a - b) for k, a in enumerate(own) for b in own[k:]]
        assert (top, bottom, fall) == (max(own), min(own), max(falls))
