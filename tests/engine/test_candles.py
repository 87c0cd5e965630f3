"""Columns of bars, their gaps and days, and k-minute bars."""

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.backtests.spec_rules import COLUMNS
from candlemill.engine.candles import CandleColumns, end_of_bar, k_minute_bars, view
from hypothesis import given
from numpy.typing import NDArray
from slow_engine import DAY, MINUTE, Bar, decision_bars, rates_of_bars

FIRST = 1_609_459_200_000
MINUTES = st.sets(st.integers(0, 4 * 1440), min_size=1, max_size=80).map(sorted)


def column(values: list[int]) -> list[NDArray[np.int64]]:
    """A column in two parts."""
    array = np.array(values, dtype=np.int64)
    return [array[: len(array) // 2], array[len(array) // 2 :]]


def candle_columns(bars: list[Bar]) -> CandleColumns:
    return CandleColumns(*(column([getattr(bar, name) for bar in bars]) for name in COLUMNS))


def bars_at(minutes: list[int]) -> list[Bar]:
    return [Bar(FIRST + m * MINUTE, 10 + m % 7, 20 + m % 5, 3 + m % 3, 10 + m % 4, m % 9) for m in minutes]


@given(MINUTES)
def test_gaps_and_last_bars_of_days(minutes: list[int]) -> None:
    candles = candle_columns(bars_at(minutes))
    assert view(candles.gaps).tolist() == [i for i in range(1, len(minutes)) if minutes[i] - minutes[i - 1] != 1]
    days = [m * MINUTE // DAY for m in minutes]
    ends = [i for i in range(len(days)) if i + 1 == len(days) or days[i] != days[i + 1]]
    assert view(candles.day_ends).tolist() == ends
    last = len(minutes) - 1
    for lo, hi in ((0, last), (0, last + 1), (1, last), (last, last + 1)):
        assert candles.days_ending(lo, hi) == [(FIRST // DAY) + days[i] for i in ends if lo <= i < hi]


@given(MINUTES, st.sampled_from([1, 2, 5, 7, 60, 1440, 10_080]), st.booleans())
def test_k_minute_bars_are_those_of_the_reference(minutes: list[int], k: int, skip: bool) -> None:
    bars = bars_at(minutes)
    found = k_minute_bars(candle_columns(bars), k, skip_first=skip)
    if k == 1:
        assert found.last is None
        return
    expected = decision_bars(bars, k)[1 if skip else 0 :]
    assert found.last is not None
    for name in COLUMNS:
        assert getattr(found, name).tolist() == [getattr(bar, name) for bar, _ in expected]
    assert found.last.tolist() == [last for _, last in expected]


@pytest.mark.parametrize(("k", "first"), [(10_080, "2024-01-01"), (1440, "2024-01-02"), (5760, "2024-01-02")])
def test_weeks_begin_on_mondays(k: int, first: str) -> None:
    """As the exchanges' do: 2024-01-01 was one. Others count from 1970, and 2024-01-01 was 19,723 days later."""
    days = [Bar(1_703_980_800_000 + d * DAY, 10, 20, 3, 10, 1) for d in range(-7, 3)]  # from 2023-12-24, a Sunday
    found = k_minute_bars(candle_columns(days), k, skip_first=False)
    assert np.datetime_as_string(found.t.astype("datetime64[ms]"), unit="D")[-1] == first
    if k == 10_080:
        assert found.volume.tolist() == [1, 7, 2]
        assert [end_of_bar(t, k) for t in (int(found.t[1]), int(found.t[1]) + 1)] == found.t[1:].tolist()


@given(MINUTES, st.lists(st.tuples(st.integers(-9, 4 * 1440 * MINUTE), st.integers(-(10**8), 10**8)), max_size=30))
def test_funding_belongs_to_the_first_bar_that_opens_at_it_or_later(
    minutes: list[int], instants: list[tuple[int, int]]
) -> None:
    bars = bars_at(minutes)
    funding = sorted((FIRST + t, rate) for t, rate in instants)
    candles = candle_columns(bars)
    candles.add_funding(*(np.array([pair[k] for pair in funding], dtype=np.int64) for k in (0, 1)))
    expected = rates_of_bars(bars, funding)
    expected.pop(0, None)  # before the first bar nothing is held
    assert dict(zip(view(candles.funding_bars).tolist(), view(candles.funding_rates).tolist(), strict=True)) == expected
    assert view(candles.funding_bars).tolist() == sorted(expected)


def test_a_price_beyond_the_engine_is_refused() -> None:
    with pytest.raises(OverflowError, match=r"2\^58"):
        candle_columns([Bar(FIRST, 1, 2**58 + 1, 1, 1, 0)])


def test_a_volume_beyond_the_engine_is_refused() -> None:
    with pytest.raises(OverflowError, match="volume"):
        CandleColumns(*([np.array([value], dtype=np.uint64)] for value in (FIRST, 1, 1, 1, 1, 2**63)))  # type: ignore[arg-type]
    bars = [Bar(FIRST, 1, 1, 1, 1, 2**62), Bar(FIRST + MINUTE, 1, 1, 1, 1, 2**62)]
    with pytest.raises(OverflowError, match="volume"):
        k_minute_bars(candle_columns(bars), 5, skip_first=False)


def test_no_candles() -> None:
    candles = candle_columns([])
    assert len(candles.t) == len(candles.gaps) == len(candles.day_ends) == 0
    assert k_minute_bars(candles, 5, skip_first=True).n == 0
