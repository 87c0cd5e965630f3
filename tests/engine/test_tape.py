"""Columns of bars, their gaps and days, and k-minute bars."""

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.engine.tape import Tape, k_minute_bars, view
from candlemill.work import COLUMNS
from hypothesis import given
from numpy.typing import NDArray
from reference import DAY, MINUTE, Bar, decision_bars, rates_of_bars

FIRST = 1_609_459_200_000
MINUTES = st.sets(st.integers(0, 4 * 1440), min_size=1, max_size=80).map(sorted)


def column(values: list[int]) -> list[NDArray[np.int64]]:
    """A column in two parts."""
    array = np.array(values, dtype=np.int64)
    return [array[: len(array) // 2], array[len(array) // 2 :]]


def tape_of(bars: list[Bar]) -> Tape:
    return Tape(*(column([getattr(bar, name) for bar in bars]) for name in COLUMNS))


def bars_at(minutes: list[int]) -> list[Bar]:
    return [Bar(FIRST + m * MINUTE, 10 + m % 7, 20 + m % 5, 3 + m % 3, 10 + m % 4, m % 9) for m in minutes]


@given(MINUTES)
def test_gaps_and_last_bars_of_days(minutes: list[int]) -> None:
    tape = tape_of(bars_at(minutes))
    assert view(tape.gaps).tolist() == [i for i in range(1, len(minutes)) if minutes[i] - minutes[i - 1] != 1]
    days = [m * MINUTE // DAY for m in minutes]
    assert view(tape.day_ends).tolist() == [i for i in range(len(days)) if i + 1 == len(days) or days[i] != days[i + 1]]


@given(MINUTES, st.sampled_from([1, 2, 5, 7, 60, 1440, 10_080]), st.booleans())
def test_k_minute_bars_are_those_of_the_reference(minutes: list[int], k: int, skip: bool) -> None:
    bars = bars_at(minutes)
    found = k_minute_bars(tape_of(bars), k, skip_first=skip)
    if k == 1:
        assert found.last is None
        return
    expected = decision_bars(bars, k)[1 if skip else 0 :]
    assert found.last is not None
    for name in COLUMNS:
        assert getattr(found, name).tolist() == [getattr(bar, name) for bar, _ in expected]
    assert found.last.tolist() == [last for _, last in expected]


@given(MINUTES, st.lists(st.tuples(st.integers(-9, 4 * 1440 * MINUTE), st.integers(-(10**8), 10**8)), max_size=30))
def test_funding_belongs_to_the_first_bar_that_opens_at_it_or_later(
    minutes: list[int], instants: list[tuple[int, int]]
) -> None:
    bars = bars_at(minutes)
    funding = sorted((FIRST + t, rate) for t, rate in instants)
    tape = tape_of(bars)
    tape.add_funding(*(np.array([pair[k] for pair in funding], dtype=np.int64) for k in (0, 1)))
    expected = rates_of_bars(bars, funding)
    expected.pop(0, None)  # before the first bar nothing is held
    assert dict(zip(view(tape.funding_bars).tolist(), view(tape.funding_rates).tolist(), strict=True)) == expected
    assert view(tape.funding_bars).tolist() == sorted(expected)


def test_a_price_beyond_the_engine_is_refused() -> None:
    with pytest.raises(OverflowError, match=r"2\^58"):
        tape_of([Bar(FIRST, 1, 2**58 + 1, 1, 1, 0)])


def test_a_volume_beyond_the_engine_is_refused() -> None:
    with pytest.raises(OverflowError, match="volume"):
        Tape(*([np.array([value], dtype=np.uint64)] for value in (FIRST, 1, 1, 1, 1, 2**63)))  # type: ignore[arg-type]
    bars = [Bar(FIRST, 1, 1, 1, 1, 2**62), Bar(FIRST + MINUTE, 1, 1, 1, 1, 2**62)]
    with pytest.raises(OverflowError, match="volume"):
        k_minute_bars(tape_of(bars), 5, skip_first=False)


def test_an_empty_tape() -> None:
    tape = tape_of([])
    assert len(tape.t) == len(tape.gaps) == len(tape.day_ends) == 0
    assert k_minute_bars(tape, 5, skip_first=True).n == 0
