"""Decisions from decision bars, in exact integers.

Every function here gives the same answer wherever its window of bars begins: sums are differences of integer
prefix sums (which may wrap, as long as the sum itself fits), never running floats.
"""

from collections.abc import Callable
from math import gcd, lcm
from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64, u8
from numpy.typing import NDArray

from candlemill.engine.tape import Bars, Column, native, view

Desired = NDArray[np.int8]
Mask = NDArray[np.bool_]
Means = NDArray[np.float64]
Bits = NDArray[np.uint8]  # rows of whole 32-bit words, little-endian

TILE: Final = 1 << 16  # bars a pass works on at a time: long enough for a call to pay, short enough for the cache
CROSS_TILE: Final = 1 << 13  # the same, with the means of dozens of windows
INT64_MAX: Final = (1 << 63) - 1


def prefix_sums(bars: Bars) -> Column:
    """`p[i]` = sum of the first `i` closes, modulo 2^64."""
    if bars.sums is None:
        sums = np.empty(bars.n + 1, dtype=np.int64)
        sums[0] = 0
        np.cumsum(bars.close, out=sums[1:])
        bars.sums = sums
    return bars.sums


def average_cross(bars: Bars, fast: int, slow: int, short: bool) -> Desired:
    """+1 where the mean of the last `fast` closes is above that of the last `slow`; with `short`, -1 where below.

    Element `j` is bar `slow - 1 + j`. Raises OverflowError where the sum of `slow` closes can leave 64 bits.
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


def average_crosses(
    bars: Bars, pairs: list[tuple[int, int]], lo: int, hi: int, short: bool
) -> tuple[Bits, Bits] | None:
    """Whether the fast mean is above (and, with `short`, below) the slow one, for many (fast, slow) pairs at once.

    Bit `j` of row `k` is pair `k` at bar `lo + j`; bars without enough before them are 0. Tile by tile, each window's
    mean is made once and compared with all its partners while it is in the cache. None where that would not be exact.
    """
    windows = sorted({window for pair in pairs for window in pair})
    _check_sums(bars, windows[-1])
    if not _means_compare_exactly(bars, pairs):
        return None
    shape = (len(pairs), (hi - lo + 31) // 32 * 4)
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
            group.compare(means[:, :m], mask[: len(group.members), :m], a, above, at, False)
            if short:
                group.compare(means[:, :m], mask[: len(group.members), :m], a, below, at, True)
    return above, below


class _Group:
    """Pairs that have one window in common: `row` is its row of means, `rows` those of its partners."""

    def __init__(self, row: int, rows: list[int], members: list[int], slows: list[int], common_is_slow: bool) -> None:
        self.row = row
        in_a_row = rows == list(range(rows[0], rows[0] + len(rows)))
        self.rows = slice(rows[0], rows[-1] + 1) if in_a_row else np.array(rows)
        self.members = np.array(members)
        self.slows = np.array(slows)
        self.common_is_slow = common_is_slow

    def compare(self, means: Means, mask: Mask, a: int, out: Bits, at: int, below: bool) -> None:
        """Write the bits of bars `a`, `a + 1`… of every pair: fast above slow, or below it."""
        if self.common_is_slow != below:
            np.greater(means[self.rows], means[self.row], out=mask)
        else:
            np.less(means[self.rows], means[self.row], out=mask)
        for k in np.flatnonzero(self.slows - 1 > a):  # at the job's start only: too few bars for the slow mean
            mask[k, : self.slows[k] - 1 - a] = False
        packed = np.packbits(mask, axis=1, bitorder="little")
        out[self.members, at : at + packed.shape[1]] = packed


def _partners(pairs: list[tuple[int, int]], windows: list[int]) -> list[_Group]:
    """The pairs by the window that fewer of them differ in: few groups with many partners each."""
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
    """Whether means as floats compare as the exact fractions do.

    Sums of prices in ticks are whole numbers below 2^53, so they and their differences are exact. Two different means
    F/fast and S/slow are at least 1/lcm(fast, slow) apart; a correctly rounded quotient is off by at most the mean
    times 2^-53, so they keep their order if that is less than half of it. Equal means are the same float.
    """
    top = bars.top // tick_of(bars)
    widest = max(lcm(fast, slow) for fast, slow in pairs)
    return top * bars.n < 1 << 53 and top * widest < 1 << 51


def tick_of(bars: Bars) -> int:
    """The largest power of ten that divides every close: prices in ticks are small numbers."""
    if bars.tick == 0:
        tick = 1
        while tick < 10**8 and bars.n and not (bars.close % (tick * 10)).any():
            tick *= 10
        bars.tick = tick
    return bars.tick


def tick_sums(bars: Bars) -> Means:
    """`p[i]` = sum of the first `i` closes in ticks, as floats: exact below 2^53."""
    if bars.tick_sums is None:
        bars.tick_sums = np.concatenate((np.zeros(1), np.cumsum(bars.close // tick_of(bars), dtype=np.float64)))
    return bars.tick_sums


def _means(bars: Bars, window: int, a: int, out: Means) -> None:
    """The means, in ticks, of the windows that end at bars `a`, `a + 1`…; 0 where too few bars."""
    sums = tick_sums(bars)
    first = min(max(a, window - 1), a + len(out))
    out[: first - a] = 0
    tile = out[first - a :]
    b = first + len(tile)
    np.subtract(sums[first + 1 : b + 1], sums[first + 1 - window : b + 1 - window], out=tile)
    np.divide(tile, window, out=tile)


def rolling_max(column: Column, window: int) -> Column:
    """`out[i]` = max of `column[i : i + window]`."""
    return _rolling(np.maximum, column, window)


def rolling_min(column: Column, window: int) -> Column:
    """`out[i]` = min of `column[i : i + window]`."""
    return _rolling(np.minimum, column, window)


def _rolling(pick: Callable[[Column, Column], Column], column: Column, window: int) -> Column:
    """The extreme of each window, by doubling: two windows of half the width make one of the whole."""
    width, out = 1, column
    while 2 * width <= window:
        out = pick(out[:-width], out[width:])
        width *= 2
    rest = window - width
    return pick(out[:-rest], out[rest:]) if rest else out


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
    at = set_bits(native(np.packbits(differs, bitorder="little").view(np.uint32)), count)
    value = native(desired[view(at)])
    return Changes(_tape_bars(at, first_bar, last), value)


def changes_of_bits(above: Bits, below: Bits | None, n: int, first_bar: int, last: Column | None) -> Changes:
    """As `changes_of` from 0, for the first `n` bits of a row of packed decisions: +1 above, -1 below."""
    words = above.view(np.uint32)
    turns = _turns(words)
    if below is not None:
        turns |= _turns(below.view(np.uint32))
    if n % 32:
        turns[-1] &= np.uint32((1 << (n % 32)) - 1)
    count = int(np.bitwise_count(turns).sum())
    at = set_bits(native(turns), count)
    if below is None:
        value = np.arange(1, count + 1) & 1  # from 0 to 1 and back
    else:
        value = _bits_at(words, view(at)) - _bits_at(below.view(np.uint32), view(at))
    return Changes(_tape_bars(at, first_bar, last), native(value))


def _turns(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Bits that differ from the bit before them; before the first is 0."""
    turns = words ^ (words << np.uint32(1))
    turns[1:] ^= words[:-1] >> np.uint32(31)
    return turns


def _bits_at(words: NDArray[np.uint32], at: Column) -> Column:
    found: Column = (words[at >> 5].astype(np.int64) >> (at & 31)) & 1
    return found


def _tape_bars(at: vec[i64], first_bar: int, last: Column | None) -> vec[i64]:
    """Tape bars of decision bars that are counted from `first_bar`."""
    if last is not None:
        return native(last[view(at) + first_bar])
    return native(view(at) + first_bar) if first_bar else at


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
