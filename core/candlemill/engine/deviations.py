"""Distances of closes from a rolling mean in standard deviations, exact."""

from math import gcd
from typing import Any, Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import Column, native, view
from candlemill.engine.indicators import HUNDRED, NAN, Buffer, Floats
from candlemill.engine.signals import Mask

DEVIATION_LIMIT: Final = 1 << 32  # window times range, in ticks: its square over 4 must fit an i64
FLOAT_DEVIATION_LIMIT: Final = 1 << 27  # the same for doubles
UNSURE: Final = 1e-14  # a few times the largest rounding error of a score


class Deviations:
    """Distance of closes from the mean of the window that ends with them, in standard deviations (population).

    With `d = n * x - sum(x)` and `v = n * sum(x^2) - sum(x)^2`, whole numbers of ticks, the distance is `d / sqrt(v)`.
    Scores are `d * |d| / v` in floats. A score close to a bound is compared again in integers, so equality is exact.
    """

    def __init__(self, window: int, bars: int) -> None:
        """Allocate memory for up to `bars` closes at a time."""
        self._window = window
        self._tick = 0  # not computed yet
        self._ticks = np.empty(bars + window, dtype=np.int64)
        self._floats = Buffer(bars + window)
        self._scores = Buffer(bars)
        self._m = 0

    def look(self, close: Column) -> None:
        """Compute the scores of the closes after the first `window - 1`. In a window of equal closes, no close is
        beyond a bound.
        """
        n, m = len(close), len(close) - self._window + 1
        least, most = int(close.min()), int(close.max())
        ticks = self._ticks[:n]
        self._tick = in_ticks(close, least, most, self._tick, ticks)
        self._m = m
        spread = (most - least) // self._tick * self._window
        if spread < FLOAT_DEVIATION_LIMIT:
            self._floats.array[:n] = ticks
            deviation_scores(self._floats, n, self._window, self._scores)
        elif spread < DEVIATION_LIMIT:
            found = deviations(native(ticks), self._window)
            size, v = view(found[0]).astype(np.float64), view(found[1])
            with np.errstate(invalid="ignore"):  # 0 / 0 is NaN
                self._scores.array[:m] = size * np.abs(size) / v
        else:
            self._scores.array[:m] = wide_deviation_scores(ticks.tolist(), self._window)

    def above(self, hundredths: int) -> Mask:
        """Return whether each close is more than the given hundredths of a deviation above its mean."""
        return self._beyond(hundredths, 1)

    def below(self, hundredths: int) -> Mask:
        """Return whether each close is more than the given hundredths of a deviation below its mean."""
        return self._beyond(hundredths, -1)

    def _beyond(self, hundredths: int, sign: int) -> Mask:
        square = hundredths * abs(hundredths)
        bound = sign * square / HUNDRED**2
        slack = sign * abs(bound) * UNSURE
        scores = self._scores.array[: self._m]
        beyond: Any = np.greater if sign > 0 else np.less
        found: Mask = beyond(scores, bound + slack)
        if hundredths:
            perhaps: Mask = beyond(scores, bound - slack)
            if np.count_nonzero(perhaps) != np.count_nonzero(found):
                for j in np.flatnonzero(perhaps != found).tolist():
                    d, v = self._deviation(j)
                    found[j] = sign * d * abs(d) * HUNDRED**2 > square * v
        return found

    def _deviation(self, j: int) -> tuple[int, int]:
        """Return `d` and `v` of one close."""
        part: list[int] = self._ticks[j : j + self._window].tolist()
        total = sum(part)
        return self._window * part[-1] - total, self._window * sum(x * x for x in part) - total * total


def in_ticks(close: Column, least: int, most: int, tick: int, ticks: Column) -> int:
    """Fill `ticks` with the closes relative to one close between `least` and `most`, in ticks; return the tick.

    The tick is a common divisor of the differences, usually the largest. `tick` is a guess of it, or 0.
    """
    for value in close[:: max(1, len(close) // 64)].tolist() if tick == 0 else ():
        tick = gcd(tick, value - least)
    while True:
        tick = max(1, tick)
        np.subtract(close, least + (most - least) // tick // 2 * tick, out=ticks)
        before = int(ticks.sum())
        np.floor_divide(ticks, tick, out=ticks)
        # Remainders of floor division are never negative: if their sum is 0, all of them are 0.
        left = (before - tick * int(ticks.sum())) % (1 << 64)
        if left == 0 and tick * len(close) < 1 << 64:
            return tick
        rest = (close - least) % tick
        if not rest.any():
            return tick
        tick = gcd(tick, int(rest[np.argmax(rest != 0)]))


def deviation_scores(ticks: Buffer, count: i64, window: i64, out: Buffer) -> None:
    """Compute the scores of `count` values but the first `window - 1`, if doubles hold `d`, `v` and all sums
    exactly.
    """
    x, scores = ticks.values, out.values
    n = float(int(window))
    total = 0.0
    squares = 0.0
    i: i64 = 0
    while i < window - 1:
        new = x[i]
        total += new
        squares += new * new
        i += 1
    i = window - 1
    j: i64 = 0
    while i < count:
        new = x[i]
        total += new
        squares += new * new
        d = n * new - total
        v = n * squares - total * total
        scores[j] = d * abs(d) / v if v > 0.0 else NAN
        old = x[j]
        total -= old
        squares -= old * old
        i += 1
        j += 1


def deviations(x: vec[i64], window: i64) -> tuple[vec[i64], vec[i64]]:
    """Return `d` and `v` of every value but the first `window - 1`, if 64 bits hold them and all sums."""
    m: i64 = len(x) - window + 1
    d_out, v_out = vec[i64](np.empty(m, dtype=np.int64)), vec[i64](np.empty(m, dtype=np.int64))
    total: i64 = 0
    squares: i64 = 0
    i: i64 = 0
    while i < window - 1:
        new: i64 = x[i]
        total += new
        squares += new * new
        i += 1
    i = 0
    while i < m:
        new = x[i + window - 1]
        total += new
        squares += new * new
        d_out[i] = window * new - total
        v_out[i] = window * squares - total * total
        old: i64 = x[i]
        total -= old
        squares -= old * old
        i += 1
    return d_out, v_out


def wide_deviation_scores(x: list[int], window: int) -> Floats:
    """Return the scores if 64 bits are not enough."""
    total, squares = sum(x[: window - 1]), sum(value * value for value in x[: window - 1])
    scores = []
    for old, new in zip(x, x[window - 1 :], strict=False):
        total, squares = total + new, squares + new * new
        d, v = window * new - total, window * squares - total * total
        scores.append(d * abs(d) / v if v else NAN)  # correctly rounded
        total, squares = total - old, squares - old * old
    return np.array(scores)
