"""Helpers for tests of strategies: bars from prices, and decisions in slices."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from candlemill.engine.candles import MINUTE_MS, Bars, CandleColumns, minute_bars
from candlemill.strategies import Strategy

SCALE = 100_000_000
BEGIN_MS = 1_704_067_200_000  # 2024-01-01


def bars_of(closes: Sequence[float], spread: float = 0.0, volume: float = 1.0) -> Bars:
    """Minute bars with these closes; each opens at the previous close, and high and low lie `spread` beyond both."""
    close = np.array([round(price * SCALE) for price in closes], dtype=np.int64)
    opened = np.concatenate((close[:1], close[:-1]))
    reach = round(spread * SCALE)
    high, low = np.maximum(opened, close) + reach, np.maximum(np.minimum(opened, close) - reach, 1)
    t = BEGIN_MS + MINUTE_MS * np.arange(len(close), dtype=np.int64)
    volumes = np.full(len(close), round(volume * SCALE), dtype=np.int64)
    return minute_bars(CandleColumns([t], [opened], [high], [low], [close], [volumes]))


def decisions(strategy: Strategy, bars: Bars, cuts: Sequence[int] = ()) -> list[int]:
    """Desired position after each bar, decided in slices that begin at `cuts`.

    Each slice has `lookback()` bars before it and none after it. An exact strategy decides the same for all cuts.
    """
    found: list[int] = []
    memory = b""
    edges = [0, *sorted(cuts), bars.n]
    for lo, hi in pairwise(edges):
        begin = max(0, lo - strategy.lookback())
        desired, memory = strategy.decide(_copy(bars, begin, hi), lo - begin, hi - begin, memory)
        found += desired.tolist()
    return found


def _copy(bars: Bars, a: int, b: int) -> Bars:
    columns = (bars.t, bars.open, bars.high, bars.low, bars.close, bars.volume)
    t, opened, high, low, close, volume = (column[a:b].copy() for column in columns)
    return Bars(None, t, opened, high, low, close, volume, bars.top)
