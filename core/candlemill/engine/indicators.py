"""Indicators: exact integers where a window bounds them, otherwise floats with a fixed order of operations.

A recursive mean depends on every bar since the first bar of the job. Its exact bits are passed from slice to slice. It
begins as in TA-Lib, with the plain mean of the first `length` values. It uses `+ - * /` on doubles in the order that is
written here, never fused, so the result is the same on every machine.
"""

from math import gcd
from typing import Any, Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64, mypyc_attr, u8
from numpy.typing import NDArray

from candlemill.engine.candles import Column, native, view
from candlemill.engine.signals import INT64_MAX, Desired, Mask

Floats = NDArray[np.float64]

NAN: Final = float("nan")
SHORT: Final = 255  # -1 in a byte
DEVIATION_LIMIT: Final = 1 << 32  # window times range, in ticks: its square over 4 must fit an i64
FLOAT_DEVIATION_LIMIT: Final = 1 << 27  # the same for doubles
UNSURE: Final = 1e-14  # a few times the largest rounding error of a score
HUNDRED: Final = 100  # multiples of a deviation or range are given in hundredths


@mypyc_attr(allow_interpreted_subclasses=False)
class Buffer:
    """Reusable memory for a stretch of doubles: `values` for compiled loops, `array` the same memory for NumPy.

    Strategies process candles in stretches and use the same few buffers for each stretch, because allocating new memory
    costs more time than the arithmetic.
    """

    def __init__(self, length: int) -> None:
        self.values: vec[float] = vec[float](np.zeros(length))
        self.array: Floats = np.asarray(_Writable(np.frombuffer(memoryview(self.values), dtype=np.float64)))


class _Writable:
    """Writable view that keeps its vec alive. A vec exports its memory as read-only, though its items can be set."""

    def __init__(self, shown: Floats) -> None:
        self.shown = shown
        interface = shown.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


@mypyc_attr(allow_interpreted_subclasses=False)
class Mean:
    """State of a recursive mean: `value = keep * value + gain * x`, from the plain mean of the first `length` values.

    `count` is the number of values so far, at most `length`; until then `value` is their sum. A negative count skips
    values.
    """

    def __init__(self, length: i64, keep: float, gain: float, count: i64, value: float) -> None:
        self.length: i64 = length
        self.keep: float = keep
        self.gain: float = gain
        self.count: i64 = count
        self.value: float = value

    def seed(self, x: float) -> bool:
        """Add one of the first values; return whether the mean is defined now."""
        if x != x:
            return False
        self.count += 1
        if self.count > 0:
            self.value += x
        if self.count < self.length:
            return False
        self.value = self.value / float(self.length)
        return True

    def take(self, x: float) -> None:
        """Add one value, whether or not it is one of the first."""
        if self.count < self.length:
            self.seed(x)
        else:
            self.value = self.keep * self.value + self.gain * x


def exponential(length: int, count: int = 0, value: float = 0.0) -> Mean:
    """Create the exponential moving average of `length`: gain 2 / (length + 1)."""
    gain = 2.0 / (length + 1)
    return Mean(length, 1.0 - gain, gain, count, value)


def wilder(length: int, count: int = 0, value: float = 0.0) -> Mean:
    """Create Wilder's smoothing (1978): gain 1 / length."""
    return Mean(length, (length - 1) / length, 1.0 / length, count, value)


def smooth(buffer: Buffer, n: i64, mean: Mean) -> None:
    """Replace each of the first `n` values by the mean after it; NaN until the mean is defined. Leading NaN are
    skipped.
    """
    values = buffer.values
    i: i64 = 0
    while i < n and mean.count < mean.length:
        seeded = mean.seed(values[i])
        values[i] = mean.value if seeded else NAN
        i += 1
    keep, gain, value = mean.keep, mean.gain, mean.value
    while i < n:
        value = keep * value + gain * values[i]
        values[i] = value
        i += 1
    mean.value = value


def smooth_two(first: Buffer, second: Buffer, n: i64, a: Mean, b: Mean) -> None:
    """Smooth two columns in one loop. Each mean depends only on itself, so both together take the time of one."""
    ups, downs = first.values, second.values
    i: i64 = 0
    while i < n and (a.count < a.length or b.count < b.length):
        a.take(ups[i])
        b.take(downs[i])
        ups[i] = a.value if a.count == a.length else NAN
        downs[i] = b.value if b.count == b.length else NAN
        i += 1
    keep, gain, x = a.keep, a.gain, a.value
    other_keep, other_gain, y = b.keep, b.gain, b.value
    while i < n:
        x = keep * x + gain * ups[i]
        y = other_keep * y + other_gain * downs[i]
        ups[i] = x
        downs[i] = y
        i += 1
    a.value = x
    b.value = y


def smooth_gap(buffer: Buffer, n: i64, fast: Mean, slow: Mean) -> None:
    """Replace each of the first `n` values by the fast mean less the slow mean after it; NaN until both are defined."""
    values = buffer.values
    i: i64 = 0
    while i < n and (fast.count < fast.length or slow.count < slow.length):
        x = values[i]
        fast.take(x)
        slow.take(x)
        both = fast.count == fast.length and slow.count == slow.length
        values[i] = fast.value - slow.value if both else NAN
        i += 1
    keep, gain, value = fast.keep, fast.gain, fast.value
    slow_keep, slow_gain, slow_value = slow.keep, slow.gain, slow.value
    while i < n:
        x = values[i]
        value = keep * value + gain * x
        slow_value = slow_keep * slow_value + slow_gain * x
        values[i] = value - slow_value
        i += 1
    fast.value = value
    slow.value = slow_value


def moves(close: Column, up: Buffer, down: Buffer) -> None:
    """Compute the rise and the fall of each close but the first from the close before it; 0 if there is none."""
    n = len(close) - 1
    rise, fall = up.array[:n], down.array[:n]
    fall[:] = np.diff(close)
    np.maximum(fall, 0, out=rise)
    np.subtract(rise, fall, out=fall)


def true_range(high: Column, low: Column, close: Column, out: Buffer) -> None:
    """Compute Wilder's true range of every bar but the first: the range of the bar and the close before it together."""
    before = close[:-1]
    span = np.maximum(high[1:], before)
    span -= np.minimum(low[1:], before)
    out.array[: len(span)] = span


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


# -- deviations from a rolling mean, exact -------------------------------------------------------------------------


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


# -- positions that are held -----------------------------------------------------------------------------------------


def hold(enter: Mask, leave: Mask, shorts: tuple[Mask, Mask] | None, held: int) -> Desired:
    """Return 1 from a bar that enters to the bar before one that leaves, starting from `held`.

    `shorts` are the entries and exits of short positions, which give -1. A bar that leaves one side may enter the
    other.
    """
    codes = enter.view(np.uint8) | (leave.view(np.uint8) << 1)
    if shorts is not None:
        codes |= (shorts[0].view(np.uint8) << 2) | (shorts[1].view(np.uint8) << 3)
        return as_positions(_held(vec[u8](codes), held))
    return as_positions(_held_long(vec[u8](codes), 1 if held > 0 else 0))


def _held_long(codes: vec[u8], out: u8) -> vec[u8]:
    """Compute `_held` without shorts, which needs no branches."""
    n: i64 = len(codes)
    i: i64 = 0
    while i < n:
        code = codes[i]
        out = (code & 1) | (out & ((code >> 1) ^ 1))
        codes[i] = out
        i += 1
    return codes


def _after(held: int, code: int) -> int:
    """Return the position (0, 1 or SHORT) after a bar with the four bits of `hold`."""
    if (held == 1 and code & 2) or (held == SHORT and code & 8):
        held = 0
    if held == 0 and code & 5:
        held = 1 if code & 1 else SHORT
    return held


def _positions_after() -> vec[u8]:
    table = np.zeros(64, dtype=np.uint8)
    for held in (0, 1, SHORT):
        for code in range(16):
            table[(held & 3) << 4 | code] = _after(held, code)
    return vec[u8](table)


AFTER: Final = _positions_after()  # by position (two bits of it) and code: branches would often be mispredicted


def _held(codes: vec[u8], held: i64) -> vec[u8]:
    n: i64 = len(codes)
    table = AFTER
    out: i64 = held & 3
    i: i64 = 0
    while i < n:
        after: u8 = table[(out << 4) | i64(codes[i])]
        codes[i] = after
        out = i64(after) & 3
        i += 1
    return codes


def as_positions(bytes_: vec[u8]) -> Desired:
    """Return bytes as positions without copying. An empty vec has no buffer and needs a special case."""
    return np.frombuffer(memoryview(bytes_), dtype=np.int8) if len(bytes_) else np.empty(0, dtype=np.int8)


def check_products(top: int, factor: int) -> None:
    """Check that no price times `factor` can exceed 64 bits. Raises OverflowError."""
    if top * factor > INT64_MAX:
        raise OverflowError(f"{factor} times a price of up to {top} (scaled) does not fit 64 bits")
