"""Decisions in exact integers: each fast way against the obvious one."""

from fractions import Fraction

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.engine.candles import Bars, native, view
from candlemill.engine.signals import (
    BitReader,
    average_cross,
    average_crosses,
    changes_of,
    first_at_least,
    latch,
    parts_per_million,
    rolling_max,
    rolling_min,
)
from hypothesis import given, settings

EMPTY = np.empty(0, dtype=np.int64)
PRICES = st.lists(st.integers(1, 12), min_size=1, max_size=80)
BRIEF = settings(deadline=None)


def bars_of(closes: list[int], tick: int) -> Bars:
    close = np.array(closes, dtype=np.int64) * tick
    return Bars(None, EMPTY, close, EMPTY, EMPTY, close, EMPTY, int(close.max()))


def cross(closes: list[int], fast: int, slow: int, bar: int) -> int:
    """The definition, in fractions."""
    if bar < slow - 1:
        return 0
    f = Fraction(sum(closes[bar + 1 - fast : bar + 1]), fast)
    s = Fraction(sum(closes[bar + 1 - slow : bar + 1]), slow)
    return (f > s) - (f < s)


PAIRS = st.tuples(st.integers(1, 9), st.integers(1, 9)).map(lambda x: (x[0], x[0] + x[1]))


@given(PRICES, st.sampled_from([1, 10**6, 10**13, 10**16]), PAIRS, st.booleans())
@BRIEF
def test_average_cross_is_a_comparison_of_fractions(
    closes: list[int], tick: int, pair: tuple[int, int], short: bool
) -> None:
    """Ties are ties, whether the products fit 64 bits or only quotients and remainders do."""
    fast, slow = pair
    found = average_cross(bars_of(closes, tick), fast, slow, short).tolist()
    expected = [cross(closes, fast, slow, bar) for bar in range(slow - 1, len(closes))]
    assert found == (expected if short else [max(0, x) for x in expected])


@given(PRICES, st.sampled_from([1, 10**6]), st.lists(PAIRS, min_size=1, max_size=6), st.booleans(), st.integers(0, 40))
@BRIEF
def test_many_pairs_at_once_decide_as_each_alone(
    closes: list[int], tick: int, pairs: list[tuple[int, int]], short: bool, lo: int
) -> None:
    lo = min(lo, len(closes) - 1)
    n = len(closes) - lo
    found = average_crosses(bars_of(closes, tick), pairs, lo, len(closes), short)
    assert found is not None
    above, below = found
    for k, (fast, slow) in enumerate(pairs):
        expected = [cross(closes, fast, slow, bar) for bar in range(lo, len(closes))]
        desired = np.array(expected if short else [max(0, x) for x in expected], dtype=np.int8)
        changes = BitReader(n, lo, None).changes(above[k], below[k] if short else None)
        plain = changes_of(desired, 0, lo, None)
        assert view(changes.at).tolist() == view(plain.at).tolist()
        assert view(changes.value).tolist() == view(plain.value).tolist()


@given(st.integers(0, 2**32), st.integers(1, 200), st.booleans())
def test_bits_give_the_changes_of_their_positions(seed: int, n: int, short: bool) -> None:
    """In rows of one word and of several, with changes at the edges of words."""
    random = np.random.default_rng(seed)
    desired = random.integers(-1 if short else 0, 2, n).astype(np.int8)
    desired[random.random(n) < 0.5] = 0
    padded = np.concatenate([desired, np.zeros(-n % 64, dtype=np.int8)])
    above, below = (np.packbits(padded == side, bitorder="little") for side in (1, -1))
    reader = BitReader(n, 7, None)
    for _ in range(2):  # a reader is used for one row after the other
        changes = reader.changes(above, below if short else None)
        plain = changes_of(desired, 0, 7, None)
        assert view(changes.at).tolist() == view(plain.at).tolist()
        assert view(changes.value).tolist() == view(plain.value).tolist()


def test_a_reader_has_room_for_a_change_at_every_bar() -> None:
    n = 5_000
    up = np.zeros((n + 63) // 64 * 64, dtype=np.bool_)
    up[:n:2] = True
    changes = BitReader(n, 0, None).changes(np.packbits(up, bitorder="little"), None)
    assert view(changes.at).tolist() == list(range(n))
    assert view(changes.value).tolist() == [1, 0] * (n // 2)


def test_many_pairs_are_left_alone_where_floats_would_not_be_exact() -> None:
    closes = [2**45 + k % 3 for k in range(60)]
    assert average_crosses(bars_of(closes, 1), [(10, 49)], 0, 60, False) is None


def test_sums_that_cannot_fit_are_refused() -> None:
    with pytest.raises(OverflowError, match="sum of 600 closes"):
        average_cross(bars_of([2**58 - 1], 1), 10, 600, False)


@given(PRICES, st.integers(1, 30))
def test_rolling_extremes(column: list[int], window: int) -> None:
    values = np.array(column, dtype=np.int64)
    windows = [column[i : i + window] for i in range(len(column) - window + 1)]
    if windows:
        assert rolling_max(values, window).tolist() == [max(w) for w in windows]
        assert rolling_min(values, window).tolist() == [min(w) for w in windows]


@given(st.lists(st.integers(0, 2**58), max_size=20), st.integers(0, 100_000_000))
def test_parts_per_million_are_exact(values: list[int], ppm: int) -> None:
    fits = [v for v in values if (v // 10**6 + 1) * ppm < 2**62]
    assert parts_per_million(np.array(fits, dtype=np.int64), ppm).tolist() == [v * ppm // 10**6 for v in fits]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60), st.booleans())
def test_latch(steps: list[tuple[bool, bool]], on: bool) -> None:
    expected, held = [], on
    for enter, leave in steps:
        held = not leave if held else enter
        expected.append(int(held))
    enters, leaves = (np.array([step[k] for step in steps], dtype=np.bool_) for k in (0, 1))
    assert latch(enters, leaves, on).tolist() == expected


@given(st.lists(st.integers(-1, 1), max_size=200), st.integers(-1, 1), st.integers(0, 9), st.integers(0, 250))
def test_changes_split_at_a_bar(desired: list[int], before: int, first: int, bar: int) -> None:
    pairs = [(first + j, d) for j, (p, d) in enumerate(zip([before, *desired], desired, strict=False)) if p != d]
    changes = changes_of(np.array(desired, dtype=np.int8), before, first, None)
    assert list(zip(view(changes.at).tolist(), view(changes.value).tolist(), strict=True)) == pairs
    early, late = changes.split(bar)
    assert view(early.at).tolist() == [at for at, _ in pairs if at < bar]
    assert view(late.value).tolist() == [value for at, value in pairs if at >= bar]


@given(st.lists(st.integers(0, 50)).map(sorted), st.integers(-1, 51))
def test_first_at_least(column: list[int], value: int) -> None:
    assert first_at_least(native(np.array(column, dtype=np.int64)), value) == sum(x < value for x in column)
