"""Indicators against TA-Lib's definitions, against fractions, and against themselves in pieces."""

from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import talib
from candlemill.engine.deviations import DEVIATION_LIMIT, FLOAT_DEVIATION_LIMIT, Deviations, in_ticks
from candlemill.engine.indicators import (
    Buffer,
    exponential,
    hold,
    moves,
    smooth,
    smooth_gap,
    smooth_two,
    true_range,
    wilder,
)
from data import synthetic
from hypothesis import given, settings
from numpy.typing import NDArray

BRIEF = settings(deadline=None)
BARS = 20_000
LENGTHS = [2, 3, 14, 50, 365]


@pytest.fixture(scope="module")
def candles() -> dict[str, NDArray[np.int64]]:
    return {name: column[:BARS] for name, column in synthetic.year(7, 2024, 30_000.0).items()}


def doubles(column: NDArray[np.int64]) -> NDArray[np.float64]:
    return column.astype(np.float64)


def filled(column: NDArray[np.int64]) -> Buffer:
    buffer = Buffer(len(column))
    buffer.array[:] = column
    return buffer


def agree(ours: NDArray[np.float64], theirs: NDArray[np.float64], size: float = 0.0) -> None:
    """To 1e-9 of the values (or of `size`, where values cancel), with as many bars before the first one."""
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    there = ~np.isnan(ours)
    np.testing.assert_allclose(ours[there], theirs[there], rtol=1e-9, atol=1e-9 * size)


@pytest.mark.parametrize("length", LENGTHS)
def test_exponential_mean_is_talibs(candles: dict[str, Any], length: int) -> None:
    found = filled(candles["close"])
    smooth(found, BARS, exponential(length))
    agree(found.array, talib.EMA(doubles(candles["close"]), length))


def test_macd_is_talibs(candles: dict[str, Any]) -> None:
    line = filled(candles["close"])
    smooth_gap(line, BARS, exponential(12, 12 - 26), exponential(26))
    gap = line.array.copy()
    smooth(line, BARS, exponential(9))
    theirs, signal, _ = talib.MACD(doubles(candles["close"]), 12, 26, 9)
    size = float(candles["close"].max())
    agree(line.array, signal, size)
    there = ~np.isnan(theirs)  # TA-Lib shows the line from the signal's first bar on
    agree(gap[there], theirs[there], size)


@pytest.mark.parametrize("length", LENGTHS)
def test_rsi_is_talibs(candles: dict[str, Any], length: int) -> None:
    up, down = Buffer(BARS - 1), Buffer(BARS - 1)
    moves(candles["close"], up, down)
    smooth_two(up, down, BARS - 1, wilder(length), wilder(length))
    gain, loss = up.array, down.array
    agree(100 * gain / (gain + loss), talib.RSI(doubles(candles["close"]), length)[1:], 100.0)


@pytest.mark.parametrize("length", LENGTHS)
def test_average_true_range_is_talibs(candles: dict[str, Any], length: int) -> None:
    high, low, close = (candles[name] for name in ("high", "low", "close"))
    found = Buffer(BARS - 1)
    true_range(high, low, close, found)
    theirs = talib.TRANGE(doubles(high), doubles(low), doubles(close))
    agree(found.array, theirs[1:])
    smooth(found, BARS - 1, wilder(length))
    agree(found.array, talib.ATR(doubles(high), doubles(low), doubles(close), length)[1:])


@pytest.mark.parametrize("length", LENGTHS)
def test_deviations_are_talibs_bollinger_bands(candles: dict[str, Any], length: int) -> None:
    """Where TA-Lib's running float sums are not too far off to tell."""
    close = doubles(candles["close"])
    upper, middle, lower = talib.BBANDS(close, length, 1.5, 1.5)
    found = Deviations(length, BARS)
    found.look(candles["close"])
    far = (upper - middle)[length - 1 :] > 1e-5 * close[length - 1 :]
    above, below = (close > upper)[length - 1 :], (close < lower)[length - 1 :]
    near = np.minimum(abs(close - upper), abs(close - lower))[length - 1 :] < 1e-6 * close[length - 1 :]
    sure = far & ~near
    assert np.count_nonzero(sure) > BARS // 2
    assert np.array_equal(found.above(150)[sure], above[sure])
    assert np.array_equal(found.below(150)[sure], below[sure])


PRICES = st.lists(st.integers(1, 60), min_size=2, max_size=60)


@given(PRICES, st.integers(2, 9), st.sampled_from([1, 7, 10**6, 2**55]), st.sampled_from([-100, 0, 50, 100, 141, 200]))
@BRIEF
def test_deviations_compare_as_fractions(prices: list[int], window: int, tick: int, hundredths: int) -> None:
    """Ties are ties, on any tick, whether 64 bits hold the variance or not."""
    window = min(window, len(prices))
    for far in (0, FLOAT_DEVIATION_LIMIT, DEVIATION_LIMIT):  # each way to make scores
        closes = [*prices[:-1], prices[-1] + far // 2]
        if closes[-1] * tick >= 2**62:
            continue
        found = Deviations(window, len(closes))
        found.look(np.array(closes, dtype=np.int64) * tick)
        bound = Fraction(hundredths * abs(hundredths), 10_000)
        above, below = [], []
        for i in range(window, len(closes) + 1):
            part = closes[i - window : i]
            mean = Fraction(sum(part), window)
            variance = sum((x - mean) ** 2 for x in part) / window
            score = (part[-1] - mean) * abs(part[-1] - mean) / variance if variance else None
            above.append(score is not None and score > bound)
            below.append(score is not None and -score > bound)
        assert found.above(hundredths).tolist() == above
        assert found.below(hundredths).tolist() == below


@given(PRICES, st.integers(1, 10**9), st.integers(0, 10**9))
def test_ticks_lose_nothing(prices: list[int], unit: int, guess: int) -> None:
    close = np.array(prices, dtype=np.int64) * unit
    ticks = np.empty_like(close)
    tick = in_ticks(close, int(close.min()), int(close.max()), guess, ticks)
    assert tick >= 1
    assert (np.diff(ticks) * tick).tolist() == np.diff(close).tolist()
    assert guess or tick % unit == 0 or len(set(prices)) == 1  # what never moves has no tick


@given(st.lists(st.integers(1, 10**12), max_size=60), st.integers(1, 9), st.integers(0, 60))
def test_a_mean_goes_on_where_it_was_left(values: list[int], length: int, cut: int) -> None:
    """By its exact bits, as text between processes does."""
    whole = filled(np.array(values, dtype=np.int64))
    smooth(whole, len(values), exponential(length))
    parts = []
    state: tuple[int, float] = (0, 0.0)
    for part in (values[:cut], values[cut:]):
        mean = exponential(length, state[0], float.fromhex(state[1].hex()))
        piece = filled(np.array(part, dtype=np.int64))
        smooth(piece, len(part), mean)
        parts.append(piece.array)
        state = (mean.count, mean.value)
    assert np.concatenate(parts).tobytes() == whole.array.tobytes()


@given(st.lists(st.tuples(*[st.booleans()] * 4), max_size=60), st.integers(-1, 1), st.booleans())
def test_hold(steps: list[tuple[bool, ...]], held: int, both: bool) -> None:
    enter, leave, enter_short, leave_short = (np.array([s[k] for s in steps], dtype=np.bool_) for k in range(4))
    held = held if both else max(0, held)
    expected, position = [], held
    for long_in, long_out, short_in, short_out in steps:
        if (position == 1 and long_out) or (position == -1 and short_out):
            position = 0
        if position == 0:
            position = 1 if long_in else -1 if both and short_in else 0
        expected.append(position)
    assert hold(enter, leave, (enter_short, leave_short) if both else None, held).tolist() == expected
