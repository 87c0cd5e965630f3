"""Searches over a stretch of bars: extremes, the deepest fall, the first bar beyond two prices."""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import BLOCK, CandleColumns
from candlemill.engine.signals import first_at_least

FAR: Final = 1 << 61  # above every price and bar; mypyc boxes constants from 2^62 on


def at_or_far(column: vec[i64], index: i64) -> i64:
    """Return the element at `index`; after the last one, a bar beyond all candles."""
    if index < len(column):
        return column[index]
    return FAR


def extremes(candles: CandleColumns, begin: i64, end: i64) -> tuple[i64, i64]:
    """Return the highest and the lowest close of bars `begin` to `end - 1`; by whole blocks if the candles have them.

    Maxima and minima are computed without branches, which the processor would often mispredict.
    """
    close = candles.close
    high: i64 = 0
    low: i64 = FAR
    i: i64 = begin
    if end - begin >= 2 * BLOCK and len(candles.block_top) != 0:
        tops, bottoms = candles.block_top, candles.block_bottom
        b: i64 = (begin + BLOCK - 1) // BLOCK
        while i < b * BLOCK:
            high = max(high, close[i])
            low = min(low, close[i])
            i += 1
        while b < end // BLOCK:
            high = max(high, tops[b])
            low = min(low, bottoms[b])
            b += 1
        i = b * BLOCK
    while i < end:
        price: i64 = close[i]
        if price > high:
            high = price
        if price < low:
            low = price
        i += 1
    return high, low


def deepest_fall(close: vec[i64], side: i64, begin: i64, end: i64) -> i64:
    """Return the deepest fall of `side` times close from its earlier highest value, in bars `begin` to `end - 1`."""
    fall: i64 = 0
    top: i64 = -FAR
    i: i64 = begin
    while i < end:
        price: i64 = side * close[i]
        if price > top:
            top = price
        if top - price > fall:
            fall = top - price
        i += 1
    return fall


def first_outside(candles: CandleColumns, begin: i64, end: i64, floor: i64, ceiling: i64) -> i64:
    """Return the first bar that touches `floor` with its low or `ceiling` with its high, or `end`."""
    low, high = candles.low, candles.high
    floor += 1
    ceiling -= 1
    i: i64 = begin
    while i < end:
        if (low[i] - floor) | (ceiling - high[i]) < 0:  # one of them: a branch for each would cost more
            return i
        i += 1
    return end


def crossed_gap(candles: CandleColumns, first: i64, last: i64) -> int:
    """Return whether a minute is missing before one of the bars `first` to `last`."""
    return 1 if at_or_far(candles.gaps, first_at_least(candles.gaps, first)) <= last else 0
