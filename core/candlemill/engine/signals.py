"""Decisions from decision bars, in exact integers.

Every function gives the same result wherever its window of bars begins: sums are differences of integer prefix sums
(which may wrap around if the sum itself fits), never running floats.
"""

from collections.abc import Callable
from math import gcd, lcm
from typing import Any, Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64, u8
from numpy.typing import NDArray

from candlemill.engine.candles import Bars, Column, doubled, native, view, zeros

Desired = NDArray[np.int8]
Mask = NDArray[np.bool_]
Means = NDArray[np.float64]
Bits = NDArray[np.uint8]  # rows of whole 64-bit words, little-endian

TILE: Final = 1 << 16  # bars per pass: long enough to make the call overhead small, short enough for the cache
CROSS_TILE: Final = 1 << 13  # the same for the means of dozens of windows
ROOM: Final = 1024  # changes that a reader has room for at first
INT64_MAX: Final = (1 << 63) - 1


def prefix_sums(bars: Bars) -> Column:
    """Return the prefix sums of closes: `p[i]` is the sum of the first `i` closes, modulo 2^64."""
    if bars.sums is None:
        sums = np.empty(bars.n + 1, dtype=np.int64)
        sums[0] = 0
        np.cumsum(bars.close, out=sums[1:])
        bars.sums = sums
    return bars.sums


def average_cross(bars: Bars, fast: int, slow: int, short: bool) -> Desired:
    """Return +1 where the mean of the last `fast` closes is above that of the last `slow`; with `short`, -1 where
    below.

    Element `j` is bar `slow - 1 + j`. Raises OverflowError if the sum of `slow` closes can exceed 64 bits.
    """
    _check_sums(bars, slow)
    if bars.n < slow:
        return np.empty(0, dtype=np.int8)
    if bars.top * lcm(fast, slow) > INT64_MAX:
        return _cross_by_division(bars, fast, slow, short)
    return _cross_by_products(bars, fast, slow, short)


def _check_sums(bars: Bars, window: int) -> None:
    if bars.top * window > INT64_MAX:
        raise OverflowError(f"the sum of {window} closes of up to {bars.top} (scaled) does not fit 64 bits")


def _sign(above: Mask, below: Mask | None) -> Desired:
    desired = above.view(np.int8)
    return desired if below is None else desired - below.view(np.int8)


def _cross_by_products(bars: Bars, fast: int, slow: int, short: bool) -> Desired:
    """Compare F * slow > S * fast, divided by the common factor, tile by tile."""
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
    """Compare F / fast > S / slow by integer part and remainder, where the products would not fit."""
    f_whole, f_rest = np.divmod(window_sums(bars, fast)[slow - fast :], fast)
    s_whole, s_rest = np.divmod(window_sums(bars, slow), slow)
    f_rest *= slow
    s_rest *= fast
    same = f_whole == s_whole
    above = (f_whole > s_whole) | (same & (f_rest > s_rest))
    return _sign(above, (f_whole < s_whole) | (same & (f_rest < s_rest)) if short else None)


def window_sums(bars: Bars, window: int) -> Column:
    """Return window sums: `out[i]` is the sum of closes `i` to `i + window - 1`."""
    sums = prefix_sums(bars)
    out: Column = sums[window:] - sums[:-window]
    return out


def average_crosses(
    bars: Bars, pairs: list[tuple[int, int]], lo: int, hi: int, short: bool
) -> tuple[Bits, Bits] | None:
    """Return whether the fast mean is above (and, with `short`, below) the slow one, for many (fast, slow) pairs at
    once.

    Bit `j` of row `k` is pair `k` at bar `lo + j`; the bit is 0 if the bar has too few bars before it. In each tile,
    the mean of each window is computed once and compared with all its partners while it is in the cache. Returns None
    where the result would not be exact.
    """
    windows = sorted({window for pair in pairs for window in pair})
    _check_sums(bars, windows[-1])
    if not _means_compare_exactly(bars, pairs):
        return None
    shape = (len(pairs), (hi - lo + 63) // 64 * 8)
    above, below = np.zeros(shape, dtype=np.uint8), np.zeros(shape if short else (0, 0), dtype=np.uint8)
    groups = _partners(pairs, windows)
    means = np.empty((len(windows), CROSS_TILE))
    mask = np.empty((len(pairs), CROSS_TILE), dtype=np.bool_)
    for a in range(lo, hi, CROSS_TILE):
        m = min(CROSS_TILE, hi - a)
        for row, window in enumerate(windows):
            _means(bars, window, a, means[row, :m])
        at = (a - lo) // 8
        for group in groups:
            group.compare(means[:, :m], mask[: group.count, :m], a, above, at, False)
            if short:
                group.compare(means[:, :m], mask[: group.count, :m], a, below, at, True)
    return above, below


class _Group:
    """Pairs with one window in common: `row` is the row of its means, `rows` the rows of its partners' means."""

    def __init__(self, row: int, rows: list[int], members: list[int], slows: list[int], common_is_slow: bool) -> None:
        self.row = row
        self.rows = _evenly(rows)
        self.members = _evenly(members)
        self.count = len(members)
        self.slows = np.array(slows)
        self.slowest = max(slows)
        self.common_is_slow = common_is_slow

    def compare(self, means: Means, mask: Mask, a: int, out: Bits, at: int, below: bool) -> None:
        """Write the bits of bars `a`, `a + 1`… of every pair: fast above slow, or below it."""
        if self.common_is_slow != below:
            np.greater(means[self.rows], means[self.row], out=mask)
        else:
            np.less(means[self.rows], means[self.row], out=mask)
        if a < self.slowest - 1:  # at the job's start only: too few bars for the slow mean
            for k in np.flatnonzero(self.slows - 1 > a):
                mask[k, : self.slows[k] - 1 - a] = False
        packed = np.packbits(mask, axis=1, bitorder="little")
        out[self.members, at : at + packed.shape[1]] = packed


def _evenly(numbers: list[int]) -> Any:
    """Return ascending numbers as an index: a slice, which is faster, where they are evenly spaced."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    whole = range(numbers[0], numbers[-1] + 1, step) if step > 0 else range(0)
    return slice(numbers[0], numbers[-1] + 1, step) if list(whole) == numbers else np.array(numbers)


def _partners(pairs: list[tuple[int, int]], windows: list[int]) -> list[_Group]:
    """Group the pairs by fast or slow window, whichever has fewer values: few groups with many partners each."""
    row_of = {window: row for row, window in enumerate(windows)}
    by_slow = len({slow for _, slow in pairs}) <= len({fast for fast, _ in pairs})
    found: dict[int, list[tuple[int, int, int]]] = {}
    for k, (fast, slow) in enumerate(pairs):
        common, other = (slow, fast) if by_slow else (fast, slow)
        found.setdefault(row_of[common], []).append((row_of[other], k, slow))
    groups = []
    for row, members in found.items():
        members.sort()
        groups.append(_Group(row, [m[0] for m in members], [m[1] for m in members], [m[2] for m in members], by_slow))
    return groups


def _means_compare_exactly(bars: Bars, pairs: list[tuple[int, int]]) -> bool:
    """Return whether means in floats have the same order as the exact fractions.

    Sums of prices in ticks are integers below 2^53, so they and their differences are exact. Two different means F/fast
    and S/slow differ by at least 1/lcm(fast, slow). The error of a correctly rounded quotient is at most the mean times
    2^-53, so the order is correct if that is less than half of the difference. Equal means are the same float.
    """
    top = bars.top // tick_of(bars)
    widest = max(lcm(fast, slow) for fast, slow in pairs)
    return top * bars.n < 1 << 53 and top * widest < 1 << 51


def tick_of(bars: Bars) -> int:
    """Return the largest power of ten that divides every close, so that prices in ticks are small numbers."""
    if bars.tick == 0:
        tick = 10**8 if bars.n else 1
        for column in (bars.close[:64], bars.close):  # few closes leave hardly a choice for all of them
            while tick > 1 and (column % tick).any():
                tick //= 10
        bars.tick = tick
    return bars.tick


def tick_sums(bars: Bars) -> Means:
    """Return prefix sums of closes in ticks, as floats: exact below 2^53."""
    if bars.tick_sums is None:
        sums = np.empty(bars.n + 1)
        sums[0] = 0
        np.cumsum(bars.close // tick_of(bars), dtype=np.float64, out=sums[1:])
        bars.tick_sums = sums
    return bars.tick_sums


def _means(bars: Bars, window: int, a: int, out: Means) -> None:
    """Compute the means, in ticks, of the windows that end at bars `a`, `a + 1`…; 0 where there are too few bars."""
    sums = tick_sums(bars)
    first = min(max(a, window - 1), a + len(out))
    out[: first - a] = 0
    tile = out[first - a :]
    b = first + len(tile)
    np.subtract(sums[first + 1 : b + 1], sums[first + 1 - window : b + 1 - window], out=tile)
    np.divide(tile, window, out=tile)


def rolling_max(column: Column, window: int) -> Column:
    """Return the rolling maximum: `out[i]` is the maximum of `column[i : i + window]`."""
    return _rolling(np.maximum, column, window)


def rolling_min(column: Column, window: int) -> Column:
    """Return the rolling minimum: `out[i]` is the minimum of `column[i : i + window]`."""
    return _rolling(np.minimum, column, window)


def _rolling(pick: Callable[[Column, Column], Column], column: Column, window: int) -> Column:
    """Return the extreme of each window, by doubling: two windows of half the width give one of the full width."""
    width, out = 1, column
    while 2 * width <= window:
        out = pick(out[:-width], out[width:])
        width *= 2
    rest = window - width
    return pick(out[:-rest], out[rest:]) if rest else out


def parts_per_million(column: Column, ppm: int) -> Column:
    """Return `column * ppm // 10^6` for non-negative values, with intermediate values within 64 bits."""
    whole, rest = np.divmod(column, 1_000_000)
    out: Column = whole * ppm + rest * ppm // 1_000_000
    return out


def latch(enter: Mask, leave: Mask, on: bool) -> Desired:
    """Return 1 from a bar that enters to the bar before one that leaves; the state before the first bar is `on`."""
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


class PositionChanges:
    """Decisions in run-length form: from minute bar `at[k]` on, the desired position is `value[k]`."""

    def __init__(self, at: vec[i64], value: vec[i64]) -> None:
        self.at: vec[i64] = at
        self.value: vec[i64] = value

    def split(self, bar: i64) -> "tuple[PositionChanges, PositionChanges]":
        """Return the changes before minute bar `bar`, and those from it on."""
        k: i64 = first_at_least(self.at, bar)
        return PositionChanges(self.at[:k], self.value[:k]), PositionChanges(self.at[k:], self.value[k:])


def first_at_least(column: vec[i64], value: i64) -> i64:
    """Return the first index of the ascending `column` whose value is at least `value`."""
    a: i64 = 0
    b: i64 = len(column)
    while a < b:
        middle: i64 = (a + b) >> 1
        if column[middle] < value:
            a = middle + 1
        else:
            b = middle
    return a


def changes_of(desired: Desired, before: int, first_bar: int, last: Column | None) -> PositionChanges:
    """Return the changes where `desired` differs from the value before it (`before` for the first one).

    Bar `j` of `desired` is decision bar `first_bar + j`; `last` maps decision bars to minute bars (None: the same).
    """
    n = len(desired)
    if n == 0:
        return PositionChanges(vec[i64](), vec[i64]())
    differs = np.zeros((n + 63) // 64 * 64, dtype=np.bool_)
    differs[0] = desired[0] != before
    np.not_equal(desired[1:], desired[:-1], out=differs[1:n])
    count = int(np.count_nonzero(differs))
    at = set_bits(native(np.packbits(differs, bitorder="little").view(np.int64)), count)
    value = native(desired[view(at)])
    return PositionChanges(_minute_bars(at, first_bar, last), value)


class BitReader:
    """Changes of rows of packed decisions over the same `n` decision bars from `first_bar` on, row after row.

    The bars before the first one have no decision. `last` maps decision bars to minute bars (None: the same).
    """

    def __init__(self, n: int, first_bar: int, last: Column | None) -> None:
        self.n: i64 = n
        self.first_bar: i64 = first_bar
        self.mapped: bool = last is not None
        self.last: vec[i64] = vec[i64]() if last is None else native(last)
        self.at: vec[i64] = zeros(ROOM)  # room for the changes of any row so far
        self.value: vec[i64] = zeros(ROOM)

    def changes(self, above: Bits, below: Bits | None) -> PositionChanges:
        """Return the changes of a row: +1 where `above` has a bit, -1 where `below` has one."""
        ups = native(above.view(np.int64))
        downs = ups if below is None else native(below.view(np.int64))
        count = self.scan(ups, downs, below is not None)
        return PositionChanges(self.at[:count], self.value[:count])

    def scan(self, ups: vec[i64], downs: vec[i64], has_downs: bool) -> i64:
        """Write the row's changes to `at` and `value`; return how many there are."""
        at, value, table = self.at, self.value, BIT_INDEX
        low_63: i64 = LOW_63  # a boxed constant: it is read once
        words: i64 = (self.n + 63) >> 6
        rest: i64 = self.n & 63
        kept: i64 = low_63 >> (63 - rest)  # of the last word; `1 << rest` would be shifted in 32 bits
        k: i64 = 0
        before: i64 = 0  # the bit before the word, in all bits
        before_down: i64 = 0
        w: i64 = 0
        while w < words:
            up: i64 = ups[w]
            down: i64 = downs[w]
            if up == before and (not has_downs or down == before_down):  # most words have no change
                w += 1
                continue
            turns: i64 = up ^ (((up & LOW_62) << 1) | (before & 1))  # bits that differ from the bit before them
            top: i64 = (up >> 63) ^ (up >> 62)  # the same for bit 63, the sign
            before = up >> 63
            if has_downs:
                turns |= down ^ (((down & LOW_62) << 1) | (before_down & 1))
                top |= (down >> 63) ^ (down >> 62)
                before_down = down >> 63
            turns &= low_63
            top &= 1
            if w == words - 1 and rest != 0:
                turns &= kept
                top = 0
            if k + 64 > len(at):
                at = self.at = doubled(at)
                value = self.value = doubled(value)
            first: i64 = self.first_bar + (w << 6)
            while turns != 0:
                lowest: i64 = turns & -turns
                bit: i64 = table[((lowest * DE_BRUIJN) >> 58) & 63]
                turns ^= lowest
                at[k] = first + bit
                value[k] = (up >> bit) & 1
                if has_downs:
                    value[k] -= (down >> bit) & 1
                k += 1
            if top != 0:
                at[k] = first + 63
                value[k] = before & 1
                if has_downs:
                    value[k] -= before_down & 1
                k += 1
            w += 1
        if self.mapped:
            self.to_minutes(k)
        return k

    def to_minutes(self, count: i64) -> None:
        """Replace the first `count` decision bars in `at` by their minute bars."""
        at, last = self.at, self.last
        k: i64 = 0
        while k < count:
            at[k] = last[at[k]]
            k += 1


def _minute_bars(at: vec[i64], first_bar: int, last: Column | None) -> vec[i64]:
    """Return the minute bars of decision bars that are counted from `first_bar`."""
    if last is not None:
        return native(last[view(at) + first_bar])
    return native(view(at) + first_bar) if first_bar else at


# A de Bruijn sequence: its product with a power of two below 2^64 has the power's index in bits 58 to 63.
DE_BRUIJN: Final = 0x03F79D71B4CB0A89
LOW_63: Final = (1 << 63) - 1
LOW_62: Final = (1 << 62) - 1


def _bit_index() -> vec[i64]:
    table = np.zeros(64, dtype=np.int64)
    for k in range(64):
        table[((DE_BRUIJN << k) >> 58) & 63] = k
    return vec[i64](table)


BIT_INDEX: Final = _bit_index()


def set_bits(words: vec[i64], count: int) -> vec[i64]:
    """Return the positions of the `count` set bits of little-endian 64-bit `words`, ascending."""
    out = zeros(count)
    table = BIT_INDEX
    low_63: i64 = LOW_63
    n: i64 = len(words)
    w: i64 = 0
    k: i64 = 0
    while w < n:
        word: i64 = words[w] & low_63
        while word != 0:
            lowest: i64 = word & -word
            out[k] = (w << 6) + table[((lowest * DE_BRUIJN) >> 58) & 63]
            k += 1
            word ^= lowest
        if words[w] < 0:  # the sign is bit 63
            out[k] = (w << 6) + 63
            k += 1
        w += 1
    return out
