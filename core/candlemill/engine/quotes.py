"""Closes of one symbol, read forward in time by the settlement and the marks of an account."""

import numpy as np
from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import CandleColumns, Column, native


class Quotes:
    """Closes of one symbol, read forward in time; `last` is the close before the first of them, 0 if there is none."""

    def __init__(self, t: Column, close: Column, last: i64) -> None:
        self.t: vec[i64] = native(t)
        self.close: vec[i64] = native(close)
        self.last: i64 = last
        self.passed: i64 = 0  # bars at or before the last instant

    def at(self, time: i64) -> i64:
        """Return the close of the last minute that opens at `time` or before it; `time` must never decrease between
        calls.
        """
        t = self.t
        n: i64 = len(t)
        i: i64 = self.passed
        if i < n and t[i] <= time:
            step: i64 = 1
            while i + step <= n and t[i + step - 1] <= time:
                i += step
                step += step
            while step > 1:
                step >>= 1
                if i + step <= n and t[i + step - 1] <= time:
                    i += step
            self.passed = i
            self.last = self.close[i - 1]
        return self.last


def quotes_of(candles: CandleColumns, lo: i64) -> Quotes:
    """Return the quotes from bar `lo` on, without copying."""
    quotes = Quotes(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), 0)
    quotes.t = candles.t
    quotes.close = candles.close
    quotes.passed = lo
    if lo > 0:
        quotes.last = candles.close[lo - 1]
    return quotes


def quotes_on(candles: CandleColumns, prices: Column, lo: int) -> Quotes:
    """Return other prices of the candles' bars, from bar `lo` on."""
    quotes = quotes_of(candles, lo)
    quotes.close = native(prices)
    if lo > 0:
        quotes.last = quotes.close[lo - 1]
    return quotes
