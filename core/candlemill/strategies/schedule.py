"""A sequence of strategies on the same bars, used to trade the choices of a walk-forward."""

from typing import Any, ClassVar

import numpy as np

from candlemill.engine.candles import MINUTE_MS, Bars, CandleColumns, Column
from candlemill.engine.decide import BookSource
from candlemill.engine.ranges import Ranges
from candlemill.engine.scheduled_books import BEFORE, ScheduledBooks
from candlemill.engine.signals import Desired
from candlemill.strategies.base import Strategy
from candlemill.strategies.orders import OrderStrategy, Weighted
from candlemill.strategies.panels import Panel, PanelStrategy


def firsts_of(bars: Bars, timeframe: int, starts: tuple[int, ...]) -> list[int]:
    """Return the first bar that ends after each start."""
    ends = bars.t + timeframe * MINUTE_MS
    return [int(bar) for bar in np.searchsorted(ends, np.array(starts), side="right")]


class Scheduled(Strategy, frozen=True):
    """A strategy that uses `strategies[k]` from the first bar that ends after `starts[k]` (ms, ascending).

    The position is 0 before the first of them. A position is kept at a change if both strategies hold it. A strategy
    with a memory starts with an empty one, `warm_up()` bars before its first decision.
    """

    stateful: ClassVar[bool] = True  # the memory contains the index of the active strategy

    timeframe: int  # minutes
    starts: tuple[int, ...]
    strategies: tuple[Strategy, ...]

    def needs(self) -> frozenset[str]:
        return frozenset().union(*(strategy.needs() for strategy in self.strategies))

    def lookback(self) -> int:
        return max(strategy.lookback() + strategy.warm_up() for strategy in self.strategies)

    def warm_up(self) -> int:
        return max(strategy.warm_up() for strategy in self.strategies)

    def decide(self, bars: Bars, lo: int, hi: int, memory: bytes) -> tuple[Desired, bytes]:
        firsts = firsts_of(bars, self.timeframe, self.starts)
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
        """Return the memory with which a strategy starts its part."""
        if not strategy.stateful:
            return b""
        begin = max(0, first - strategy.warm_up())
        return strategy.decide(bars, begin, first, b"")[1]


class ScheduledWeights(Weighted, frozen=True):
    """The same for strategies that state weights: the exposure is 0 before the first start."""

    timeframe: int  # minutes
    starts: tuple[int, ...]
    strategies: tuple[Weighted, ...]

    def needs(self) -> frozenset[str]:
        return frozenset().union(*(strategy.needs() for strategy in self.strategies))

    def lookback(self) -> int:
        return max(strategy.lookback() for strategy in self.strategies)

    def targets(self, bars: Bars, lo: int, hi: int) -> Column:
        firsts = firsts_of(bars, self.timeframe, self.starts)
        out = np.zeros(hi - lo, dtype=np.int64)
        for strategy, first, end in zip(self.strategies, firsts, [*firsts[1:], hi], strict=True):
            a, b = max(lo, first), min(hi, end)
            if a < b:
                out[a - lo : b - lo] = strategy.targets(bars, a, b)
        return out


class ScheduledOrders(OrderStrategy, frozen=True):
    """The same for strategies that place orders.

    No set takes over what another one holds: at its first bar its book is the target 0 while there is a position, and
    at the first decision without one it begins. The state is the turn, whether it waits for that, and the set's own.
    """

    timeframe: int  # minutes
    starts: tuple[int, ...]
    strategies: tuple[OrderStrategy, ...]

    def needs(self) -> frozenset[str]:
        return frozenset().union(*(strategy.needs() for strategy in self.strategies))

    def lookback(self) -> int:
        return max(strategy.lookback() for strategy in self.strategies)

    def warm_up(self) -> int:
        return max(strategy.warm_up() for strategy in self.strategies)

    def remembered(self, memory: bytes) -> tuple[int, bool, Any]:
        if not memory:
            return BEFORE, False, self.strategies[0].start()
        turn, closing, inner = memory.split(b";", 2)
        return int(turn), closing == b"1", self._set(int(turn)).remembered(inner)

    def memory_of(self, state: tuple[int, bool, Any]) -> bytes:
        turn, is_closing, inner = state
        if turn == BEFORE:
            return b""
        return b"%d;%d;%b" % (turn, is_closing, self._set(turn).memory_of(inner))

    def _set(self, turn: int) -> OrderStrategy:
        return self.strategies[max(turn, 0)]

    def books(self, candles: CandleColumns, ranges: Ranges, bars: Bars, first: int, state: Any) -> BookSource:
        def make(k: int, bar: int) -> BookSource:
            strategy = self.strategies[k]
            return strategy.books(candles, ranges, bars, bar, strategy.start())

        turn, is_closing, inner = state
        current = self._set(turn).books(candles, ranges, bars, first, inner)
        firsts = np.array(firsts_of(bars, self.timeframe, self.starts), dtype=np.int64)
        return ScheduledBooks(bars.last, first, firsts, make, turn, is_closing, current)

    def state_after(self, source: Any) -> tuple[int, bool, Any]:
        turn, is_closing = int(source.turn), bool(source.is_closing)
        strategy = self._set(turn)
        # While it waits, nothing of the set before has an influence.
        inner = strategy.start() if is_closing or turn == BEFORE else strategy.state_after(source.current)
        return turn, is_closing, inner


def scheduled(timeframe: int, starts: tuple[int, ...], strategies: tuple[Strategy, ...]) -> Strategy:
    """Return the strategy that uses each of `strategies`, which are of one class, from its start on."""
    kinds: tuple[tuple[type, Any], ...] = ((OrderStrategy, ScheduledOrders), (Weighted, ScheduledWeights))
    kind = next((made for base, made in kinds if isinstance(strategies[0], base)), Scheduled)
    found: Strategy = kind(timeframe, starts, strategies)
    return found


class ScheduledPanel(PanelStrategy, frozen=True):
    """A panel strategy that uses `strategies[k]` from the first bar that ends after `starts[k]` (ms, ascending).

    Targets are 0 before the first of them. What is held at a change stays until the next strategy states a target.
    """

    starts: tuple[int, ...]
    strategies: tuple[PanelStrategy, ...]

    def needs(self) -> frozenset[str]:
        return frozenset().union(*(strategy.needs() for strategy in self.strategies))

    def lookback(self) -> int:
        return max(strategy.lookback() for strategy in self.strategies)

    def positions(self, panel: Panel) -> Column:
        turns = np.searchsorted(self.starts, panel.t + panel.k * MINUTE_MS) - 1
        out = np.zeros(panel.present.shape, dtype=np.int64)
        for turn in np.unique(turns[turns >= 0]).tolist():
            rows = turns == turn
            out[rows] = self.strategies[turn].targets(panel)[rows]
        return out
