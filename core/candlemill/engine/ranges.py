"""Highs and lows of bars by blocks, to find the first bar that reaches a price without reading every bar."""

from typing import Final

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns, Column, native, view
from candlemill.engine.wide import MILLION, part_of

BLOCK: Final = 32  # bars of a block, and blocks of a large one
SHIFT: Final = 5  # bits of BLOCK
ABOVE: Final = 1 << 61  # above every price
PART: Final = 1 << 14


class Ranges:
    """The columns `high` and `low`, and the extremes of each whole block and large block, computed at first use."""

    def __init__(self, high: vec[i64], low: vec[i64]) -> None:
        self.high: vec[i64] = high
        self.low: vec[i64] = low
        self.tops: vec[i64] = vec[i64]()
        self.bottoms: vec[i64] = vec[i64]()
        self.large_tops: vec[i64] = vec[i64]()
        self.large_bottoms: vec[i64] = vec[i64]()
        self.ready: bool = False
        self.falls: vec[i64] = vec[i64]()  # of each bar, more ppm than its next low is below its close
        self.large_falls: vec[i64] = vec[i64]()  # of each block

    def prepare(self) -> None:
        if self.ready:
            return
        tops = _blocks(view(self.high)).max(axis=1, initial=0)
        bottoms = _blocks(view(self.low)).min(axis=1, initial=ABOVE)
        self.tops = native(tops)
        self.bottoms = native(bottoms)
        self.large_tops = native(_blocks(tops).max(axis=1, initial=0))
        self.large_bottoms = native(_blocks(bottoms).min(axis=1, initial=ABOVE))
        self.ready = True

    def first_touch(self, begin: i64, end: i64, lower: i64, upper: i64) -> i64:
        """Return the first of bars `begin` to `end - 1` with its low at or below `lower` or its high at or above
        `upper`.

        Returns `end` if there is none.
        """
        near: i64 = min(end, begin + BLOCK)
        i: i64 = self.touch(begin, min(end, ((near + BLOCK - 1) >> SHIFT) << SHIFT), lower, upper)
        if i < near or i == end or i & (BLOCK - 1) != 0:
            return i
        self.prepare()
        tops, bottoms = self.tops, self.bottoms
        b: i64 = i >> SHIFT
        last: i64 = end >> SHIFT
        while b < last and bottoms[b] > lower and tops[b] < upper:
            b += 1
        return self.touch(b << SHIFT, end, lower, upper)

    def prepare_falls(self, close: vec[i64]) -> None:
        """Compute bounds of the falls from each close to the next low. Useful if many sets look for such falls."""
        if len(self.falls) == 0 and len(close) != 0:
            falls = _falls(view(close), view(self.low))
            self.falls = native(falls)
            self.large_falls = native(_blocks(falls).max(axis=1, initial=0))

    def next_fall(self, close: vec[i64], begin: i64, end: i64, ppm: i64) -> i64:
        """Return the first of bars `begin` to `end - 1` whose next low is below `close - close * ppm // 10^6`, or
        `end`.

        Without bounds, `close >> shift` spares most bars the division: it is never above the distance.
        """
        low, falls = self.low, self.falls
        last: i64 = min(end, len(low) - 1)
        i: i64 = begin
        if len(falls) != 0:
            while i < last:
                if i & (BLOCK - 1) == 0:
                    i = self.skip_falls(i, ppm)
                    if i >= last:
                        return end
                if falls[i] > ppm and close[i] - low[i + 1] > part_of(close[i], ppm):
                    return i
                i += 1
            return end
        shift: i64 = 0
        while (1 << shift) * ppm < MILLION:
            shift += 1
        while i < last:
            fall: i64 = close[i] - low[i + 1]
            if fall > close[i] >> shift and fall > part_of(close[i], ppm):
                return i
            i += 1
        return end

    def skip_falls(self, i: i64, ppm: i64) -> i64:
        """Return the first bar of the first block from that of bar `i` on with a fall that may be deeper than `ppm`."""
        falls = self.large_falls
        b: i64 = i >> SHIFT
        while b < len(falls) and falls[b] <= ppm:
            b += 1
        return b << SHIFT

    def touch(self, begin: i64, end: i64, lower: i64, upper: i64) -> i64:
        """Do the same as `first_touch`, bar by bar."""
        high, low = self.high, self.low
        i: i64 = begin
        while i < end:
            if low[i] <= lower or high[i] >= upper:
                return i
            i += 1
        return end

    def highest(self, begin: i64, end: i64) -> i64:
        """Return the highest high of bars `begin` to `end - 1`; 0 if there are none."""
        self.prepare()
        a: i64 = (begin + BLOCK - 1) >> SHIFT
        b: i64 = end >> SHIFT
        if a >= b:
            return top_of(self.high, begin, end)
        top: i64 = max(top_of(self.high, begin, a << SHIFT), top_of(self.high, b << SHIFT, end))
        return max(top, self.highest_block(a, b))

    def highest_block(self, begin: i64, end: i64) -> i64:
        """Return the highest high of blocks `begin` to `end - 1`; 0 if there are none."""
        a: i64 = (begin + BLOCK - 1) >> SHIFT
        b: i64 = end >> SHIFT
        if a >= b:
            return top_of(self.tops, begin, end)
        top: i64 = max(top_of(self.tops, begin, a << SHIFT), top_of(self.tops, b << SHIFT, end))
        return max(top, top_of(self.large_tops, a, b))

    def lowest(self, begin: i64, end: i64) -> i64:
        """Return the lowest low of bars `begin` to `end - 1`; ABOVE if there are none."""
        self.prepare()
        a: i64 = (begin + BLOCK - 1) >> SHIFT
        b: i64 = end >> SHIFT
        if a >= b:
            return bottom_of(self.low, begin, end)
        bottom: i64 = min(bottom_of(self.low, begin, a << SHIFT), bottom_of(self.low, b << SHIFT, end))
        return min(bottom, self.lowest_block(a, b))

    def lowest_block(self, begin: i64, end: i64) -> i64:
        """Return the lowest low of blocks `begin` to `end - 1`; ABOVE if there are none."""
        a: i64 = (begin + BLOCK - 1) >> SHIFT
        b: i64 = end >> SHIFT
        if a >= b:
            return bottom_of(self.bottoms, begin, end)
        bottom: i64 = min(bottom_of(self.bottoms, begin, a << SHIFT), bottom_of(self.bottoms, b << SHIFT, end))
        return min(bottom, bottom_of(self.large_bottoms, a, b))

    def first_breakout(self, begin: i64, end: i64, window: i64) -> i64:
        """Return the first of bars `begin` to `end - 1` that reaches the highest high or lowest low of the `window`
        bars before it.

        Returns `end` if there is none. At least `window` bars must come before `begin`. The windows of all bars of a
        block have whole blocks in common, which bound the extremes. Only bars outside these bounds are compared with
        their own window.
        """
        self.prepare()
        high, low = self.high, self.low
        j: i64 = begin
        while j < end:
            shared: i64 = j >> SHIFT
            stop: i64 = min((shared + 1) << SHIFT, end)
            first: i64 = (stop - 1 - window + BLOCK - 1) >> SHIFT
            top: i64 = self.highest_block(first, shared)
            bottom: i64 = self.lowest_block(first, shared)
            if stop - j == BLOCK and self.tops[shared] < top and self.bottoms[shared] > bottom:
                j = stop
                continue
            while j < stop:
                up: bool = high[j] >= top and high[j] >= self.highest(j - window, j)
                if up or (low[j] <= bottom and low[j] <= self.lowest(j - window, j)):
                    return j
                j += 1
        return end


def top_of(column: vec[i64], begin: i64, end: i64) -> i64:
    """Return the largest of elements `begin` to `end - 1`; 0 if there are none."""
    top: i64 = 0
    i: i64 = begin
    while i < end:
        top = max(top, column[i])
        i += 1
    return top


def bottom_of(column: vec[i64], begin: i64, end: i64) -> i64:
    """Return the smallest of elements `begin` to `end - 1`; ABOVE if there are none."""
    bottom: i64 = ABOVE
    i: i64 = begin
    while i < end:
        bottom = min(bottom, column[i])
        i += 1
    return bottom


def _falls(close: Column, low: Column) -> Column:
    """Return for each bar a whole number above the ppm by which the next low is below its close; 0 for the last bar.

    A quotient of floats is off by far less than the 1 that is added. By parts that stay in the cache.
    """
    found: Column = np.zeros(len(close), dtype=np.int64)
    for begin in range(0, len(close) - 1, PART):
        end = min(begin + PART, len(close) - 1)
        price = close[begin:end]
        found[begin:end] = (price - low[begin + 1 : end + 1]) / price * MILLION + 2
    return found


def _blocks(column: Column) -> Column:
    """Return the whole blocks of a column as rows."""
    return column[: len(column) // BLOCK * BLOCK].reshape(-1, BLOCK)


def ranges_of(candles: CandleColumns) -> Ranges:
    """Return the ranges of `candles`. For interpreted code, which must not pass a vec; see `CandleColumns.columns`."""
    return Ranges(candles.high, candles.low)


def prepare_falls(candles: CandleColumns, ranges: Ranges) -> None:
    """Call `Ranges.prepare_falls` for interpreted code."""
    ranges.prepare_falls(candles.close)


def next_fall(candles: CandleColumns, ranges: Ranges, begin: int, end: int, ppm: int) -> int:
    """Call `Ranges.next_fall` for interpreted code."""
    return int(ranges.next_fall(candles.close, begin, end, ppm))
