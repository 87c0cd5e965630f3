"""Indicators: exact integers where a window bounds them, otherwise floats with a fixed order of operations.

A recursive mean depends on every bar since the first bar of the job. Its exact bits are passed from slice to slice. It
begins as in TA-Lib, with the plain mean of the first `length` values. It uses `+ - * /` on doubles in the order that is
written here, never fused, so the result is the same on every machine.
"""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64, mypyc_attr, u8
from numpy.typing import NDArray

from candlemill.engine.candles import Column
from candlemill.engine.signals import INT64_MAX, Desired, Mask

Floats = NDArray[np.float64]

NAN: Final = float("nan")
SHORT: Final = 255  # -1 in a byte
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
