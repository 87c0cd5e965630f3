"""Highs and lows of bars by blocks, to find the first bar that reaches a price without reading every bar."""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns, Column, native, view

BLOCK: Final = 32  # bars of a block, and blocks of a large one
SHIFT: Final = 5  # bits of BLOCK
ABOVE: Final = 1 << 61  # above every price


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


def _blocks(column: Column) -> Column:
    """Return the whole blocks of a column as rows."""
    return column[: len(column) // BLOCK * BLOCK].reshape(-1, BLOCK)


def ranges_of(candles: CandleColumns) -> Ranges:
    """Return the ranges of `candles`. For interpreted code, which must not pass a vec; see `CandleColumns.columns`."""
    return Ranges(candles.high, candles.low)
