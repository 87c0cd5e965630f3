"""One strategy after another on the same bars: how the choices of a walk-forward are traded."""

from typing import ClassVar

import numpy as np

from candlemill.engine.signals import Desired
from candlemill.engine.tape import MINUTE_MS, Bars
from candlemill.strategies.base import Strategy


class Scheduled(Strategy, frozen=True):
    """From the first bar that ends after `starts[k]` (ms, ascending), `strategies[k]` decides; nothing is wanted before
    the first one.

    A position is kept over a change where both want it. A strategy with a memory begins with an empty one, `warm_up()`
    bars before its turn.
    """

    stateful: ClassVar[bool] = True  # the memory tells whose turn it is

    timeframe: int  # minutes
    starts: tuple[int, ...]
    strategies: tuple[Strategy, ...]

    def needs(self) -> frozenset[str]:
        return frozenset().union(*(strategy.reads for strategy in self.strategies))

    def lookback(self) -> int:
        return max(strategy.lookback() + strategy.warm_up() for strategy in self.strategies)

    def warm_up(self) -> int:
        return max(strategy.warm_up() for strategy in self.strategies)

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        ends = bars.t + self.timeframe * MINUTE_MS
        firsts = np.searchsorted(ends, np.array(self.starts), side="right").tolist()
        turn, _, inner = memory.partition(b";")
        known = int(turn) if turn else -1
        out = np.zeros(hi - lo, dtype=np.int8)
        for k, strategy in enumerate(self.strategies):
            end = min(hi, firsts[k + 1] if k + 1 < len(firsts) else hi)
            a = max(lo, firsts[k])
            if a >= end:
                continue
            if known != k:
                inner = self._warmed_up(strategy, bars, a) if a == firsts[k] else b""
            out[a - lo : end - lo], inner = strategy.decide(bars, a, end, inner)
            known = k
        return out, b"%d;%b" % (known, inner) if known >= 0 else b""

    def _warmed_up(self, strategy: Strategy, bars: Bars, first: int) -> bytes:
        """The memory with which a strategy's turn begins."""
        if not strategy.stateful:
            return b""
        begin = max(0, first - strategy.warm_up())
        return strategy.decide(bars, begin, first, b"")[1]
