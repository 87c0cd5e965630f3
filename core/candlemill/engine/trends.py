"""Recursions with a side: supertrend, and a stop that trails the best close. Floats as in `indicators`."""

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64, u8

from candlemill.engine.indicators import SHORT, Buffer, Mean, as_positions
from candlemill.engine.signals import Desired


class Bands:
    """State of the supertrend: the two bands, the previous close, and the side: 1 above the lower or -1 below the upper
    band.

    `side` is 0 before the first bar that has a range.
    """

    def __init__(self, upper: float, lower: float, before: float, side: i64) -> None:
        self.upper: float = upper
        self.lower: float = lower
        self.before: float = before
        self.side: i64 = side


def supertrend(
    middles: Buffer, closes: Buffer, ranges: Buffer, n: i64, mean: Mean, factor: float, bands: Bands
) -> Desired:
    """Compute the supertrend's side after each of `n` bars: 1 or -1, 0 while the mean of the true ranges is undefined.

    The bands are `factor` times that mean away from the middle of the bar; `middles` are twice the middles. They only
    move toward the price until a close has passed them. A close beyond the active band reverses the trend. The first
    side is -1. The mean is computed in the same loop, because both wait for their own last value.
    """
    middle, close, span = middles.values, closes.values, ranges.values
    out = vec[u8](np.zeros(n, dtype=np.uint8))
    plus: u8 = 1
    minus: u8 = SHORT
    upper, lower, before, side = bands.upper, bands.lower, bands.before, bands.side
    i: i64 = 0
    while i < n and side == 0:
        mean.take(span[i])
        if mean.count == mean.length:
            reach = mean.value * factor
            upper = middle[i] * 0.5 + reach
            lower = middle[i] * 0.5 - reach
            side = -1
            out[i] = minus
        before = close[i]
        i += 1
    keep, gain, value = mean.keep, mean.gain, mean.value
    while i < n:
        value = keep * value + gain * span[i]
        reach = value * factor
        up = middle[i] * 0.5 + reach
        down = middle[i] * 0.5 - reach
        x = close[i]
        above, below = before > upper, before < lower
        upper = up if up < upper else upper
        lower = down if down > lower else lower
        if above:
            upper = up
        if below:
            lower = down
        if side < 0:
            if x > upper:
                side = 1
        elif x < lower:
            side = -1
        before = x
        out[i] = plus if side > 0 else minus
        i += 1
    mean.value = value
    bands.upper, bands.lower, bands.before, bands.side = upper, lower, before, side
    return as_positions(out)


class Trail:
    """State of a stop that trails the best close since the last reversal; `side` is 0 before the first bar with a
    range.
    """

    def __init__(self, best: float, side: i64) -> None:
        self.best: float = best
        self.side: i64 = side


def trailing(closes: Buffer, ranges: Buffer, n: i64, mean: Mean, factor: float, trail: Trail) -> Desired:
    """Compute the side of a trailing stop after each of `n` bars: 1 or -1, 0 while the mean of the true ranges is
    undefined.

    It reverses at a close that is more than `factor` times that mean away from the best close since the last reversal.
    The first side is -1. The mean is computed in the same loop, because both wait for their own last value.
    """
    close, span = closes.values, ranges.values
    out = vec[u8](np.zeros(n, dtype=np.uint8))
    plus: u8 = 1
    minus: u8 = SHORT
    best, side = trail.best, trail.side
    i: i64 = 0
    while i < n and side == 0:
        mean.take(span[i])
        if mean.count == mean.length:
            side = -1
            best = close[i]
            out[i] = minus
        i += 1
    keep, gain, value = mean.keep, mean.gain, mean.value
    while i < n:
        value = keep * value + gain * span[i]
        reach = value * factor
        x = close[i]
        if side > 0:
            best = x if x > best else best
            if x < best - reach:
                side = -1
                best = x
        else:
            best = x if x < best else best
            if x > best + reach:
                side = 1
                best = x
        out[i] = plus if side > 0 else minus
        i += 1
    mean.value = value
    trail.best, trail.side = best, side
    return as_positions(out)
