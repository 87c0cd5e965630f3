"""Indicators: exact integers where a window bounds them, floats with a fixed order of operations where none does.

A recursive mean depends on every bar since the job's first one. It is carried from slice to slice by its exact bits,
begins as TA-Lib's does, with the plain mean of the first `length` values, and is computed with `+ - * /` on doubles in
the order that is written here, never fused. That is the same on every machine. Functions on `vec[float]` work in place
on the caller's own copy.
"""

from math import gcd
from typing import Final

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
UNSURE: Final = 1e-14  # a few times what rounding can have done to a score
HUNDRED: Final = 100  # multiples of a deviation or range are given in hundredths


def floats(column: NDArray[np.generic]) -> vec[float]:
    """A flat copy as doubles, each correctly rounded."""
    return vec[float](np.ascontiguousarray(column, dtype=np.float64))


def float_view(column: vec[float]) -> Floats:
    """`column` as an array, without copying."""
    if len(column) == 0:
        return np.empty(0)
    return np.frombuffer(memoryview(column), dtype=np.float64)


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


def exponential(length: int, count: int = 0, value: float = 0.0) -> Mean:
    """The exponential moving average of `length`: gain 2 / (length + 1)."""
    gain = 2.0 / (length + 1)
    return Mean(length, 1.0 - gain, gain, count, value)


def wilder(length: int, count: int = 0, value: float = 0.0) -> Mean:
    """Wilder's smoothing (1978): gain 1 / length."""
    return Mean(length, (length - 1) / length, 1.0 / length, count, value)


def smooth(values: vec[float], mean: Mean) -> None:
    """Each value becomes the mean after it; NaN before there is one. Leading NaN values are passed over."""
    n: i64 = len(values)
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


def smooth_two(first: vec[float], second: vec[float], a: Mean, b: Mean) -> None:
    """`smooth` for two columns whose means have the same length and began together."""
    n: i64 = len(first)
    i: i64 = 0
    while i < n and a.count < a.length:
        seeded = a.seed(first[i])
        b.seed(second[i])
        first[i] = a.value if seeded else NAN
        second[i] = b.value if seeded else NAN
        i += 1
    keep, gain, x, y = a.keep, a.gain, a.value, b.value
    while i < n:
        x = keep * x + gain * first[i]
        y = keep * y + gain * second[i]
        first[i] = x
        second[i] = y
        i += 1
    a.value = x
    b.value = y


def smooth_gap(values: vec[float], fast: Mean, slow: Mean) -> None:
    """Each value becomes the fast mean after it less the slow one; NaN before there are both."""
    n: i64 = len(values)
    i: i64 = 0
    while i < n and (fast.count < fast.length or slow.count < slow.length):
        x = values[i]
        if fast.count < fast.length:
            fast.seed(x)
        else:
            fast.value = fast.keep * fast.value + fast.gain * x
        if slow.count < slow.length:
            slow.seed(x)
        else:
            slow.value = slow.keep * slow.value + slow.gain * x
        both = fast.count == fast.length and slow.count == slow.length
        values[i] = fast.value - slow.value if both else NAN
        i += 1
    keep, gain, value = fast.keep, fast.gain, fast.value
    slow_keep, slow_gain, slow_value = slow.keep, slow.gain, slow.value
    while i < n:
        value = keep * value + gain * values[i]
        slow_value = slow_keep * slow_value + slow_gain * values[i]
        values[i] = value - slow_value
        i += 1
    fast.value = value
    slow.value = slow_value


def moves(close: Column) -> tuple[vec[float], vec[float]]:
    """How far each close but the first is above the one before it, and how far below; 0 where it is not."""
    change = np.diff(close)
    return floats(np.maximum(change, 0)), floats(np.maximum(-change, 0))


def true_range(high: Column, low: Column, close: Column) -> vec[float]:
    """Wilder's true range of every bar but the first: what the bar and the close before it span."""
    before = close[:-1]
    return floats(np.maximum(high[1:], before) - np.minimum(low[1:], before))


class Bands:
    """The supertrend under way: the two bands, the close before, and 1 above the lower or -1 below the upper one.

    `side` is 0 before the first bar that has a range.
    """

    def __init__(self, upper: float, lower: float, before: float, side: i64) -> None:
        self.upper: float = upper
        self.lower: float = lower
        self.before: float = before
        self.side: i64 = side


def supertrend(middle: vec[float], close: vec[float], reach: vec[float], bands: Bands) -> Column:
    """1 or -1 after each bar, 0 while `reach` is NaN. Bands `reach` from the `middle` only ever close in on the price,
    until a close has passed them; a close beyond the one that it is held against turns the trend. It begins as -1."""
    n: i64 = len(close)
    out = vec[i64](np.empty(n, dtype=np.int64))
    upper, lower, before, side = bands.upper, bands.lower, bands.before, bands.side
    i: i64 = 0
    while i < n and side == 0:
        r = reach[i]
        if r == r:
            upper = middle[i] + r
            lower = middle[i] - r
            side = -1
        before = close[i]
        out[i] = side
        i += 1
    while i < n:
        up = middle[i] + reach[i]
        down = middle[i] - reach[i]
        x = close[i]
        if up < upper or before > upper:
            upper = up
        if down > lower or before < lower:
            lower = down
        if side < 0:
            if x > upper:
                side = 1
        elif x < lower:
            side = -1
        before = x
        out[i] = side
        i += 1
    bands.upper, bands.lower, bands.before, bands.side = upper, lower, before, side
    return view(out)


class Trail:
    """A stop that trails the best close since the last turn; `side` is 0 before the first bar that has a range."""

    def __init__(self, best: float, side: i64) -> None:
        self.best: float = best
        self.side: i64 = side


def trailing(close: vec[float], reach: vec[float], trail: Trail) -> Column:
    """1 or -1 after each bar, 0 while `reach` is NaN: it turns with a close more than `reach` from the best close since
    the last turn. It begins as -1."""
    n: i64 = len(close)
    out = vec[i64](np.empty(n, dtype=np.int64))
    best, side = trail.best, trail.side
    i: i64 = 0
    while i < n:
        x = close[i]
        r = reach[i]
        if side > 0:
            if x > best:
                best = x
            elif x < best - r:
                side = -1
                best = x
        elif side < 0:
            if x < best:
                best = x
            elif x > best + r:
                side = 1
                best = x
        elif r == r:
            side = -1
            best = x
        out[i] = side
        i += 1
    trail.best, trail.side = best, side
    return view(out)


# -- deviations from a rolling mean, exact -------------------------------------------------------------------------


class Deviations:
    """How far closes are from the mean of the window that ends with them, in standard deviations (population).

    With `d = n * x - sum(x)` and `v = n * sum(x^2) - sum(x)^2`, whole numbers of ticks, that is `d / sqrt(v)`. Scores
    are `d * |d| / v` in floats: what is close to a bound is compared again in integers, so a tie is a tie.
    """

    def __init__(self, close: Column, window: int) -> None:
        """`close` has `window - 1` closes before the first one that is looked at.

        Where all closes of a window are equal the score is NaN, which is beyond nothing.
        """
        least, most = int(close.min()), int(close.max())
        middle = least + (most - least) // 2
        ticks, tick = in_ticks(close, middle)
        if (most - least) // tick * window < DEVIATION_LIMIT:
            found = deviations(native(ticks), window)
            d, v = view(found[0]), view(found[1])
            size = d.astype(np.float64)
            with np.errstate(invalid="ignore"):  # where all are equal: 0 / 0, which is beyond no bound
                self.scores = size * np.abs(size) / v
            self._d: Column | list[int] = d
            self._v: Column | list[int] = v
        else:
            self._d, self._v, self.scores = wide_deviations(ticks.tolist(), window)

    def above(self, hundredths: int) -> Mask:
        """Whether each close is more than so many hundredths of a deviation above its mean."""
        return self._beyond(self.scores, hundredths, 1)

    def below(self, hundredths: int) -> Mask:
        """Whether each close is more than so many hundredths of a deviation below its mean."""
        return self._beyond(-self.scores, hundredths, -1)

    def _beyond(self, scores: Floats, hundredths: int, sign: int) -> Mask:
        bound = hundredths * abs(hundredths) / HUNDRED**2
        slack = abs(bound) * UNSURE
        found: Mask = scores > bound + slack
        if slack:
            for j in np.flatnonzero((scores > bound - slack) != found).tolist():
                d = sign * int(self._d[j])
                found[j] = d * abs(d) * HUNDRED**2 > hundredths * abs(hundredths) * int(self._v[j])
        return found


def in_ticks(close: Column, origin: int) -> tuple[Column, int]:
    """The closes less `origin`, in ticks, and the tick: a common divisor of all of them, the largest for most."""
    apart = close - origin
    tick = 0
    for value in apart[:: max(1, len(apart) // 64)].tolist():
        tick = gcd(tick, value)
    while True:
        tick = max(1, tick)
        ticks = apart // tick
        rest = apart - ticks * tick
        odd = np.flatnonzero(rest)
        if len(odd) == 0:
            return ticks, tick
        tick = gcd(tick, int(rest[odd[0]]))


def deviations(x: vec[i64], window: int) -> tuple[vec[i64], vec[i64]]:
    """`d` and `v` of every value but the first `window - 1`."""
    n: i64 = window
    m: i64 = len(x) - n + 1
    d_out, v_out = vec[i64](np.empty(m, dtype=np.int64)), vec[i64](np.empty(m, dtype=np.int64))
    total: i64 = 0
    squares: i64 = 0
    i: i64 = 0
    while i < n - 1:
        total += x[i]
        squares += x[i] * x[i]
        i += 1
    i = 0
    while i < m:
        new: i64 = x[i + n - 1]
        total += new
        squares += new * new
        d_out[i] = n * new - total
        v_out[i] = n * squares - total * total
        old: i64 = x[i]
        total -= old
        squares -= old * old
        i += 1
    return d_out, v_out


def wide_deviations(x: list[int], window: int) -> tuple[list[int], list[int], Floats]:
    """`deviations` where 64 bits would not do."""
    total, squares = sum(x[: window - 1]), sum(value * value for value in x[: window - 1])
    ds, vs = [], []
    for old, new in zip(x, x[window - 1 :], strict=False):
        total, squares = total + new, squares + new * new
        ds.append(window * new - total)
        vs.append(window * squares - total * total)
        total, squares = total - old, squares - old * old
    scores = [d * abs(d) / v if v else NAN for d, v in zip(ds, vs, strict=True)]  # correctly rounded
    return ds, vs, np.array(scores)


# -- positions that are held -----------------------------------------------------------------------------------------


def hold(enter: Mask, leave: Mask, shorts: tuple[Mask, Mask] | None, held: int) -> Desired:
    """1 from a bar that enters to the bar before one that leaves, starting from `held`; -1 likewise for `shorts`, what
    enters and what leaves them. A bar that leaves one side may enter the other."""
    codes = enter.view(np.uint8) | (leave.view(np.uint8) << 1)
    if shorts is not None:
        codes |= (shorts[0].view(np.uint8) << 2) | (shorts[1].view(np.uint8) << 3)
    return np.frombuffer(memoryview(_held(vec[u8](codes), held)), dtype=np.int8) if len(codes) else codes.view(np.int8)


def _held(codes: vec[u8], held: i64) -> vec[u8]:
    n: i64 = len(codes)
    out: u8 = 1 if held > 0 else (SHORT if held < 0 else 0)
    i: i64 = 0
    while i < n:
        code = codes[i]
        if out == 1:
            if code & 2 != 0:
                out = 0
        elif out == SHORT and code & 8 != 0:
            out = 0
        if out == 0 and code & 5 != 0:
            out = 1 if code & 1 != 0 else SHORT
        codes[i] = out
        i += 1
    return codes


def check_products(top: int, factor: int) -> None:
    """Raises OverflowError where a price times `factor` can leave 64 bits."""
    if top * factor > INT64_MAX:
        raise OverflowError(f"{factor} times a price of up to {top} (scaled) does not fit 64 bits")
