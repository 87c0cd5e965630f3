"""Indicators: exact integers where a window bounds them, floats with a fixed order of operations where none does.

A recursive mean depends on every bar since the job's first one. It is carried from slice to slice by its exact bits,
begins as TA-Lib's does, with the plain mean of the first `length` values, and is computed with `+ - * /` on doubles in
the order that is written here, never fused. That is the same on every machine.
"""

from math import gcd
from typing import Any, Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64, mypyc_attr, u8
from numpy.typing import NDArray

from candlemill.engine.signals import INT64_MAX, Desired, Mask
from candlemill.engine.tape import Column, native, view

Floats = NDArray[np.float64]

NAN: Final = float("nan")
SHORT: Final = 255  # -1 in a byte
DEVIATION_LIMIT: Final = 1 << 32  # window times range, in ticks: its square over 4 must fit an i64
FLOAT_DEVIATION_LIMIT: Final = 1 << 27  # the same for doubles
UNSURE: Final = 1e-14  # a few times what rounding can have done to a score
HUNDRED: Final = 100  # multiples of a deviation or range are given in hundredths


@mypyc_attr(allow_interpreted_subclasses=False)
class Buffer:
    """Room for a stretch of doubles: `values` for compiled loops, `array` the same memory for NumPy.

    Strategies go through a tape in stretches and use the same few buffers for each: fresh memory for every stretch
    costs more than the arithmetic.
    """

    def __init__(self, length: int) -> None:
        self.values: vec[float] = vec[float](np.zeros(length))
        self.array: Floats = np.asarray(_Writable(np.frombuffer(memoryview(self.values), dtype=np.float64)))


class _Writable:
    """A vec shows its memory read-only, though its items may be set. This shows it, kept alive, as it is."""

    def __init__(self, shown: Floats) -> None:
        self.shown = shown
        interface = shown.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


@mypyc_attr(allow_interpreted_subclasses=False)
class Mean:
    """A recursive mean under way: `value = keep * value + gain * x`, from the plain mean of the first `length` values.

    `count` values have been taken, at most `length`; until then `value` is their sum. A negative count skips values.
    """

    def __init__(self, length: i64, keep: float, gain: float, count: i64, value: float) -> None:
        self.length: i64 = length
        self.keep: float = keep
        self.gain: float = gain
        self.count: i64 = count
        self.value: float = value

    def seed(self, x: float) -> bool:
        """Take one of the first values; whether there is a mean now."""
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
        """One more value, whether it is among the first or not."""
        if self.count < self.length:
            self.seed(x)
        else:
            self.value = self.keep * self.value + self.gain * x


def exponential(length: int, count: int = 0, value: float = 0.0) -> Mean:
    """The exponential moving average of `length`: gain 2 / (length + 1)."""
    gain = 2.0 / (length + 1)
    return Mean(length, 1.0 - gain, gain, count, value)


def wilder(length: int, count: int = 0, value: float = 0.0) -> Mean:
    """Wilder's smoothing (1978): gain 1 / length."""
    return Mean(length, (length - 1) / length, 1.0 / length, count, value)


def smooth(buffer: Buffer, n: i64, mean: Mean) -> None:
    """Each of the first `n` values becomes the mean after it; NaN before there is one. Leading NaN are passed over."""
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
    """`smooth` for two columns at once: each mean waits for itself, so the two together cost what one does."""
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
    """Each of the first `n` values becomes the fast mean after it less the slow one; NaN before there are both."""
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
    """How far each close but the first is above the one before it, and how far below; 0 where it is not."""
    n = len(close) - 1
    rise, fall = up.array[:n], down.array[:n]
    fall[:] = np.diff(close)
    np.maximum(fall, 0, out=rise)
    np.subtract(rise, fall, out=fall)


def true_range(high: Column, low: Column, close: Column, out: Buffer) -> None:
    """Wilder's true range of every bar but the first: what the bar and the close before it span."""
    before = close[:-1]
    span = np.maximum(high[1:], before)
    span -= np.minimum(low[1:], before)
    out.array[: len(span)] = span


class Bands:
    """The supertrend under way: the two bands, the close before, and 1 above the lower or -1 below the upper one.

    `side` is 0 before the first bar that has a range.
    """

    def __init__(self, upper: float, lower: float, before: float, side: i64) -> None:
        self.upper: float = upper
        self.lower: float = lower
        self.before: float = before
        self.side: i64 = side


def supertrend(middles: Buffer, closes: Buffer, reaches: Buffer, n: i64, bands: Bands) -> Desired:
    """1 or -1 after each of `n` bars, 0 while the reach is NaN. Bands a reach from the middle only ever close in on
    the price, until a close has passed them; a close beyond the one that it is held against turns the trend. It begins
    as -1."""
    middle, close, reach = middles.values, closes.values, reaches.values
    out = vec[u8](np.zeros(n, dtype=np.uint8))
    plus: u8 = 1
    minus: u8 = SHORT
    upper, lower, before, side = bands.upper, bands.lower, bands.before, bands.side
    i: i64 = 0
    while i < n and side == 0:
        r = reach[i]
        if r == r:
            upper = middle[i] + r
            lower = middle[i] - r
            side = -1
            out[i] = minus
        before = close[i]
        i += 1
    while i < n:
        up = middle[i] + reach[i]
        down = middle[i] - reach[i]
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
    bands.upper, bands.lower, bands.before, bands.side = upper, lower, before, side
    return as_positions(out)


class Trail:
    """A stop that trails the best close since the last turn; `side` is 0 before the first bar that has a range."""

    def __init__(self, best: float, side: i64) -> None:
        self.best: float = best
        self.side: i64 = side


def trailing(closes: Buffer, reaches: Buffer, n: i64, trail: Trail) -> Desired:
    """1 or -1 after each of `n` bars, 0 while the reach is NaN: it turns with a close more than the reach from the best
    close since the last turn. It begins as -1."""
    close, reach = closes.values, reaches.values
    out = vec[u8](np.zeros(n, dtype=np.uint8))
    plus: u8 = 1
    minus: u8 = SHORT
    best, side = trail.best, trail.side
    i: i64 = 0
    while i < n:
        x = close[i]
        r = reach[i]
        if side > 0:
            best = x if x > best else best
            if x < best - r:
                side = -1
                best = x
        elif side < 0:
            best = x if x < best else best
            if x > best + r:
                side = 1
                best = x
        elif r == r:
            side = -1
            best = x
        if side != 0:
            out[i] = plus if side > 0 else minus
        i += 1
    trail.best, trail.side = best, side
    return as_positions(out)


# -- deviations from a rolling mean, exact -------------------------------------------------------------------------


class Deviations:
    """How far closes are from the mean of the window that ends with them, in standard deviations (population).

    With `d = n * x - sum(x)` and `v = n * sum(x^2) - sum(x)^2`, whole numbers of ticks, that is `d / sqrt(v)`. Scores
    are `d * |d| / v` in floats: what is close to a bound is compared again in integers, so a tie is a tie.
    """

    def __init__(self, window: int, bars: int) -> None:
        """Room for up to `bars` closes at a time."""
        self._window = window
        self._tick = 0  # not looked for yet
        self._ticks = np.empty(bars + window, dtype=np.int64)
        self._floats = Buffer(bars + window)
        self._scores = Buffer(bars)
        self._m = 0

    def look(self, close: Column) -> None:
        """Measure the closes after the first `window - 1`. Where all of a window are equal, they are beyond nothing."""
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
        """Whether each close is more than so many hundredths of a deviation above its mean."""
        return self._beyond(hundredths, 1)

    def below(self, hundredths: int) -> Mask:
        """Whether each close is more than so many hundredths of a deviation below its mean."""
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
        """`d` and `v` of one close."""
        part: list[int] = self._ticks[j : j + self._window].tolist()
        total = sum(part)
        return self._window * part[-1] - total, self._window * sum(x * x for x in part) - total * total


def in_ticks(close: Column, least: int, most: int, tick: int, ticks: Column) -> int:
    """Fill `ticks` with the closes less one in the middle of `least` and `most`, in ticks; the tick: a common divisor
    of their differences, the largest for most. `tick` is a guess of it, or 0."""
    for value in close[:: max(1, len(close) // 64)].tolist() if tick == 0 else ():
        tick = gcd(tick, value - least)
    while True:
        tick = max(1, tick)
        np.subtract(close, least + (most - least) // tick // 2 * tick, out=ticks)
        before = int(ticks.sum())
        np.floor_divide(ticks, tick, out=ticks)
        # What floor division leaves over is nowhere negative: it is nowhere where it adds up to nothing.
        left = (before - tick * int(ticks.sum())) % (1 << 64)
        if left == 0 and tick * len(close) < 1 << 64:
            return tick
        rest = (close - least) % tick
        if not rest.any():
            return tick
        tick = gcd(tick, int(rest[np.argmax(rest != 0)]))


def deviation_scores(ticks: Buffer, count: i64, window: i64, out: Buffer) -> None:
    """The scores of `count` values but the first `window - 1`, where doubles hold `d`, `v` and all sums exactly."""
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
    """`d` and `v` of every value but the first `window - 1`, where 64 bits hold them and all sums."""
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
    """The scores where 64 bits would not do."""
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
    """1 from a bar that enters to the bar before one that leaves, starting from `held`; -1 likewise for `shorts`, what
    enters and what leaves them. A bar that leaves one side may enter the other."""
    codes = enter.view(np.uint8) | (leave.view(np.uint8) << 1)
    if shorts is not None:
        codes |= (shorts[0].view(np.uint8) << 2) | (shorts[1].view(np.uint8) << 3)
        return as_positions(_held(vec[u8](codes), held))
    return as_positions(_held_long(vec[u8](codes), 1 if held > 0 else 0))


def _held_long(codes: vec[u8], out: u8) -> vec[u8]:
    """`_held` without shorts, and so without branches."""
    n: i64 = len(codes)
    i: i64 = 0
    while i < n:
        code = codes[i]
        out = (code & 1) | (out & ((code >> 1) ^ 1))
        codes[i] = out
        i += 1
    return codes


def _held(codes: vec[u8], held: i64) -> vec[u8]:
    n: i64 = len(codes)
    long: u8 = 1
    short: u8 = SHORT
    out: u8 = 0
    if held != 0:
        out = long if held > 0 else short
    i: i64 = 0
    while i < n:
        code = codes[i]
        if out == 1:
            if code & 2 != 0:
                out = 0
        elif out == short and code & 8 != 0:
            out = 0
        if out == 0 and code & 5 != 0:
            out = long if code & 1 != 0 else short
        codes[i] = out
        i += 1
    return codes


def as_positions(bytes_: vec[u8]) -> Desired:
    """Bytes as positions, without copying. An empty vec has no buffer to look at."""
    return np.frombuffer(memoryview(bytes_), dtype=np.int8) if len(bytes_) else np.empty(0, dtype=np.int8)


def check_products(top: int, factor: int) -> None:
    """Raises OverflowError where a price times `factor` can leave 64 bits."""
    if top * factor > INT64_MAX:
        raise OverflowError(f"{factor} times a price of up to {top} (scaled) does not fit 64 bits")
