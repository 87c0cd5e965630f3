"""Decisions from decision bars, in exact integers.

Every function here gives the same answer wherever its window of bars begins: sums are differences of integer
prefix sums (which may wrap, as long as the sum itself fits), never running floats.
"""

from math import gcd, lcm
from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64, u8
from numpy.typing import NDArray

from candlemill.engine.tape import Bars, Column, native, view

Desired = NDArray[np.int8]
Mask = NDArray[np.bool_]

TILE: Final = 1 << 13  # bars a pass works on at a time: three columns stay in the second-level cache
MEMO_BYTES: Final = 96 << 20
INT64_MAX: Final = (1 << 63) - 1


def prefix_sums(bars: Bars) -> Column:
    """`p[i]` = sum of the first `i` closes, modulo 2^64."""
    kept = bars.memo.get("prefix")
    if kept is None:
        kept = np.empty(bars.n + 1, dtype=np.int64)
        kept[0] = 0
        np.cumsum(bars.close, out=kept[1:])
        bars.memo["prefix"] = kept
    return kept


def average_cross(bars: Bars, fast: int, slow: int, short: bool, shared: bool = False) -> Desired:
    """+1 where the mean of the last `fast` closes is above that of the last `slow`; with `short`, -1 where below.

    Element `j` is bar `slow - 1 + j`. `shared` keeps what other parameter sets on the same bars can use.
    Raises OverflowError where the sum of `slow` closes can leave 64 bits.
    """
    if bars.top * slow > INT64_MAX:
        raise OverflowError(f"the sum of {slow} closes of up to {bars.top} (scaled) does not fit 64 bits")
    if bars.n < slow:
        return np.empty(0, dtype=np.int8)
    fraction = _fraction_bits(bars, fast, slow) if shared else -1
    if fraction >= 0:
        f = _fixed_point_average(bars, fast, fraction)[slow - fast :]
        s = _fixed_point_average(bars, slow, fraction)
        return _sign(np.greater(f, s), np.less(f, s) if short else None)
    if bars.top * lcm(fast, slow) > INT64_MAX:
        return _cross_by_division(bars, fast, slow, short)
    return _cross_by_products(bars, fast, slow, short)


def _sign(above: Mask, below: Mask | None) -> Desired:
    desired = above.view(np.int8)
    return desired if below is None else desired - below.view(np.int8)


def _cross_by_products(bars: Bars, fast: int, slow: int, short: bool) -> Desired:
    """F * slow > S * fast with the common factor taken out, tile by tile."""
    sums = prefix_sums(bars)
    common = gcd(fast, slow)
    f_times, s_times = slow // common, fast // common
    m = bars.n - slow + 1
    above = np.empty(m, dtype=np.bool_)
    below = np.empty(m, dtype=np.bool_) if short else None
    left, right = np.empty(TILE, dtype=np.int64), np.empty(TILE, dtype=np.int64)
    for a in range(0, m, TILE):
        b = min(a + TILE, m)
        f, s = left[: b - a], right[: b - a]
        ends = sums[a + slow : b + slow]
        np.subtract(ends, sums[a + slow - fast : b + slow - fast], out=f)
        np.subtract(ends, sums[a:b], out=s)
        np.multiply(f, f_times, out=f)
        if s_times != 1:
            np.multiply(s, s_times, out=s)
        np.greater(f, s, out=above[a:b])
        if below is not None:
            np.less(f, s, out=below[a:b])
    return _sign(above, below)


def _cross_by_division(bars: Bars, fast: int, slow: int, short: bool) -> Desired:
    """F / fast > S / slow by whole part and remainder, where the products would not fit."""
    f_whole, f_rest = np.divmod(window_sums(bars, fast)[slow - fast :], fast)
    s_whole, s_rest = np.divmod(window_sums(bars, slow), slow)
    f_rest *= slow
    s_rest *= fast
    same = f_whole == s_whole
    above = (f_whole > s_whole) | (same & (f_rest > s_rest))
    return _sign(above, (f_whole < s_whole) | (same & (f_rest < s_rest)) if short else None)


def window_sums(bars: Bars, window: int) -> Column:
    """`out[i]` = sum of closes `i` to `i + window - 1`."""
    sums = prefix_sums(bars)
    out: Column = sums[window:] - sums[:-window]
    return out


def _fraction_bits(bars: Bars, fast: int, slow: int) -> int:
    """How many fraction bits make `floor(mean * 2^bits)` compare exactly as the means do; -1 where they don't fit.

    Two different means F/fast and S/slow are at least 1/(fast * slow) apart, so with 2^bits >= fast * slow their
    floors differ too, and equal means have equal floors. Rounded up to a multiple of four, so that many pairs share.
    """
    bits = -(-(fast * slow - 1).bit_length() // 4) * 4
    top = bars.top // tick_of(bars)
    return bits if (top * slow) << bits <= INT64_MAX else -1


def tick_of(bars: Bars) -> int:
    """The largest power of ten that divides every close: prices in ticks are small numbers."""
    kept = bars.memo.get("tick")
    if kept is None:
        tick = 1
        while tick < 10**8 and bars.n and not (bars.close % (tick * 10)).any():
            tick *= 10
        kept = np.array([tick], dtype=np.int64)
        bars.memo["tick"] = kept
    return int(kept[0])


def _fixed_point_average(bars: Bars, window: int, fraction: int) -> Column:
    """`floor(mean * 2^fraction)` of each window of closes, in ticks; kept for the next pair while there is room."""
    key = (window, fraction)
    kept = bars.memo.get(key)
    if kept is None:
        kept = _average_tiles(bars, window, fraction)
        if bars.memo_bytes + kept.nbytes > MEMO_BYTES:
            for other in [k for k in bars.memo if isinstance(k, tuple)]:
                del bars.memo[other]
            bars.memo_bytes = 0
        bars.memo[key] = kept
        bars.memo_bytes += kept.nbytes
    return kept


def _average_tiles(bars: Bars, window: int, fraction: int) -> Column:
    sums = prefix_sums(bars)
    divisor = window * tick_of(bars)
    m = bars.n - window + 1
    out = np.empty(m, dtype=np.int64)
    for a in range(0, m, TILE):
        b = min(a + TILE, m)
        tile = out[a:b]
        np.subtract(sums[a + window : b + window], sums[a:b], out=tile)
        if divisor != window:
            np.floor_divide(tile, divisor // window, out=tile)
        np.left_shift(tile, fraction, out=tile)
        np.floor_divide(tile, window, out=tile)
    return out


def rolling_max(column: Column, window: int) -> Column:
    """`out[i]` = max of `column[i : i + window]`, by doubling."""
    width, out = 1, column
    while 2 * width <= window:
        out = np.maximum(out[:-width], out[width:])
        width *= 2
    rest = window - width
    return np.maximum(out[:-rest], out[rest:]) if rest else out


def rolling_min(column: Column, window: int) -> Column:
    """`out[i]` = min of `column[i : i + window]`, by doubling."""
    width, out = 1, column
    while 2 * width <= window:
        out = np.minimum(out[:-width], out[width:])
        width *= 2
    rest = window - width
    return np.minimum(out[:-rest], out[rest:]) if rest else out


def parts_per_million(column: Column, ppm: int) -> Column:
    """`column * ppm // 10^6` for non-negative values, without leaving 64 bits on the way."""
    whole, rest = np.divmod(column, 1_000_000)
    out: Column = whole * ppm + rest * ppm // 1_000_000
    return out


def latch(enter: Mask, leave: Mask, on: bool) -> Desired:
    """1 from a bar that enters to the bar before one that leaves, starting as `on`."""
    n: i64 = len(enter)
    if n == 0:
        return np.empty(0, dtype=np.int8)
    ups = vec[u8](np.ascontiguousarray(enter).view(np.uint8))
    downs = vec[u8](np.ascontiguousarray(leave).view(np.uint8))
    i: i64 = 0
    held: u8 = 0
    if on:
        held = 1
    while i < n:
        if held == 0:
            held = ups[i]
        elif downs[i] != 0:
            held = 0
        ups[i] = held
        i += 1
    return np.frombuffer(memoryview(ups), dtype=np.int8)


class Changes:
    """Run-length form of decisions: from tape bar `at[k]` on, `value[k]` is desired."""

    def __init__(self, at: vec[i64], value: vec[i64]) -> None:
        self.at: vec[i64] = at
        self.value: vec[i64] = value

    def split(self, bar: i64) -> "tuple[Changes, Changes]":
        """The changes before tape bar `bar`, and those from it on."""
        k: i64 = first_at_least(self.at, bar)
        return Changes(self.at[:k], self.value[:k]), Changes(self.at[k:], self.value[k:])


def first_at_least(column: vec[i64], value: i64) -> i64:
    """The first index of the ascending `column` whose value is at least `value`."""
    a: i64 = 0
    b: i64 = len(column)
    while a < b:
        middle: i64 = (a + b) >> 1
        if column[middle] < value:
            a = middle + 1
        else:
            b = middle
    return a


def changes_of(desired: Desired, before: int, first_bar: int, last: Column | None) -> Changes:
    """Where `desired` differs from the value before it (`before` for the first one).

    Bar `j` of `desired` is decision bar `first_bar + j`; `last` maps decision bars to tape bars (None: the same).
    """
    n = len(desired)
    if n == 0:
        return Changes(vec[i64](), vec[i64]())
    differs = np.zeros((n + 63) // 64 * 64, dtype=np.bool_)
    differs[0] = desired[0] != before
    np.not_equal(desired[1:], desired[:-1], out=differs[1:n])
    count = int(np.count_nonzero(differs))
    words = np.packbits(differs, bitorder="little").view(np.uint32)
    at = set_bits(native(words), count)
    found = view(at)
    value = native(desired[found])
    if last is not None:
        return Changes(native(last[found + first_bar]), value)
    return Changes(native(found + first_bar) if first_bar else at, value)


# A de Bruijn sequence: its product with a power of two below 2^32 has the power's index in bits 27 to 31.
DE_BRUIJN: Final = 0x077CB531


def _bit_index() -> vec[i64]:
    table = np.zeros(32, dtype=np.int64)
    for k in range(32):
        table[((DE_BRUIJN << k) >> 27) & 31] = k
    return vec[i64](table)


BIT_INDEX: Final = _bit_index()


def set_bits(words: vec[i64], count: int) -> vec[i64]:
    """The positions of the `count` set bits of little-endian 32-bit `words`, ascending."""
    out = vec[i64](np.empty(count, dtype=np.int64))
    table = BIT_INDEX
    n: i64 = len(words)
    w: i64 = 0
    k: i64 = 0
    while w < n:
        word: i64 = words[w]
        while word != 0:
            lowest: i64 = word & -word
            out[k] = (w << 5) + table[((lowest * DE_BRUIJN) >> 27) & 31]
            k += 1
            word ^= lowest
        w += 1
    return out
