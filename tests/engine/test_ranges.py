"""Extremes by blocks are those of the bars."""

import numpy as np
import pytest
from candlemill.engine.ranges import BLOCK, Ranges, next_fall, prepare_falls, ranges_of
from hypothesis import given
from hypothesis import strategies as st
from order_candles import candle_columns


def walk(seed: int, count: int) -> tuple[list[int], list[int]]:
    """Highs and lows of a coarse random walk."""
    rng = np.random.default_rng(seed)
    close = 1000 + np.cumsum(rng.integers(-3, 4, count))
    return (close + rng.integers(0, 3, count)).tolist(), (close - rng.integers(0, 3, count)).tolist()


def ranges(highs: list[int], lows: list[int]) -> Ranges:
    return ranges_of(candle_columns([(low, high, low, high) for high, low in zip(highs, lows, strict=True)]))


@given(st.integers(0, 10**6), st.integers(1, 80 * BLOCK), st.data())
def test_extremes_and_the_first_touch(seed: int, count: int, data: st.DataObject) -> None:
    highs, lows = walk(seed, count)
    begin = data.draw(st.integers(0, count))
    end = data.draw(st.integers(begin, count))
    found = ranges(highs, lows)
    if begin < end:
        assert found.highest(begin, end) == max(highs[begin:end])
        assert found.lowest(begin, end) == min(lows[begin:end])
    lower, upper = 1000 - data.draw(st.integers(1, 40)), 1000 + data.draw(st.integers(1, 40))
    wanted = next((i for i in range(begin, end) if lows[i] <= lower or highs[i] >= upper), end)
    assert found.first_touch(begin, end, lower, upper) == wanted


@pytest.mark.parametrize("window", [1, 5, BLOCK, 2 * BLOCK + 1, 100, 2500])
@given(seed=st.integers(0, 10**6), count=st.integers(1, 8 * BLOCK), data=st.data())
def test_the_first_breakout(window: int, seed: int, count: int, data: st.DataObject) -> None:
    count += window
    highs, lows = walk(seed, count)
    begin = data.draw(st.integers(window, count))
    wanted = next(
        (
            j
            for j in range(begin, count)
            if highs[j] >= max(highs[j - window : j]) or lows[j] <= min(lows[j - window : j])
        ),
        count,
    )
    assert ranges(highs, lows).first_breakout(begin, count, window) == wanted


@given(
    st.integers(0, 10**6),
    st.integers(1, 8 * BLOCK),
    st.sampled_from([1, 999, 1000, 1001, 2000, 5000, 20_000, 999_999]),
    st.sampled_from([1, 1000, 7 * 10**11]),
    st.booleans(),
    st.data(),
)
def test_the_next_fall(seed: int, count: int, ppm: int, unit: int, bounds: bool, data: st.DataObject) -> None:
    """With or without the bounds that many sets share, at prices of units of which distances are whole or not."""
    highs, lows = ([unit * price for price in column] for column in walk(seed, count))
    candles = candle_columns([(low, high, low, high) for high, low in zip(highs, lows, strict=True)])
    found = ranges_of(candles)
    if bounds:
        prepare_falls(candles, found)
    begin = data.draw(st.integers(0, count))
    end = data.draw(st.integers(begin, count))
    falls = [j + 1 < count and lows[j + 1] < highs[j] - highs[j] * ppm // 10**6 for j in range(count)]
    assert next_fall(candles, found, begin, end, ppm) == next((j for j in range(begin, end) if falls[j]), end)
