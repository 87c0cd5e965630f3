"""Strategies over many symbols beside `xs_momentum`, exact in whole numbers."""

from math import isqrt
from typing import Annotated, Any, Final

import numpy as np
from msgspec import Meta

from candlemill.engine.candles import Column
from candlemill.engine.panel_targets import KEEP
from candlemill.errors import BadInput, BadStrategy
from candlemill.strategies.base import DeviationLength, Length, Multiple
from candlemill.strategies.panels import MILLION, Panel, PanelStrategy

HALF: Final = MILLION // 2
RATIO: Final = 10**9  # a ratio of prices is a whole number of billionths
FINE: Final = 10**6  # a deviation counts in 10^-6 ppm, so that weights of quiet symbols are right too
INVERSE: Final = 10**30
SMALL: Final = 1 << 43  # differences of prices below it times 10^6 fit 64 bits


class PairReversion(PanelStrategy, frozen=True):
    """Short one of two symbols and long the other while the ratio of their closes is far from its mean.

    E. Gatev, W. Goetzmann, K. Rouwenhorst, "Pairs Trading: Performance of a Relative-Value Arbitrage Rule" (2006),
    applied to a rolling mean and deviation. Half of the equity is on each side.
    """

    length: Annotated[DeviationLength, Meta(description="rows that mean and deviation are of, this one included")] = 120
    entry: Annotated[Multiple, Meta(description="distance from the mean to enter, in hundredths of a deviation")] = 200
    exit: Annotated[Multiple, Meta(description="distance at which both are sold, in hundredths of a deviation")] = 50

    def __post_init__(self) -> None:
        if self.exit >= self.entry:
            raise BadInput(f"exit={self.exit} must be less than entry={self.entry}")

    def lookback(self) -> int:
        return self.length

    def positions(self, panel: Panel) -> Column:
        if len(panel.names) != 2:
            raise BadStrategy(f"pair_reversion trades two symbols, not {len(panel.names)}: give a pair")
        out = np.full(panel.present.shape, KEEP, dtype=np.int64)
        both = np.flatnonzero(panel.present.all(axis=1))
        first, second = panel.close[both, 0].tolist(), panel.close[both, 1].tolist()
        ratios = [a * RATIO // b for a, b in zip(first, second, strict=True)]
        begin = total = squares = 0
        for k, row in enumerate(both.tolist()):
            total += ratios[k]
            squares += ratios[k] * ratios[k]
            while both[begin] <= row - self.length:
                total -= ratios[begin]
                squares -= ratios[begin] * ratios[begin]
                begin += 1
            if row >= self.length - 1:
                n = k - begin + 1
                target = self._target(n * ratios[k] - total, n * squares - total * total)
                if target is not None:
                    out[row] = target, -target
        return out

    def _target(self, distance: int, variance: int) -> int | None:
        """Return the first symbol's target; None between the two limits. Both arguments are for n ratios: times n and
        times n squared."""
        square = distance * distance * 10_000
        if variance and square >= self.entry * self.entry * variance:
            return -HALF if distance > 0 else HALF
        return 0 if square <= self.exit * self.exit * variance else None


class InverseVolatility(PanelStrategy, frozen=True):
    """Hold all symbols, each with a weight in inverse proportion to the volatility of its returns.

    C. Asness, A. Frazzini, L. Pedersen, "Leverage Aversion and Risk Parity" (2012). Volatility is the standard
    deviation of the returns over `length` bars of the symbol's own; a symbol with fewer, or that does not move, is not
    held.
    """

    length: Annotated[DeviationLength, Meta(description="bars of its own that a symbol's volatility is of")] = 1440
    every: Annotated[Length, Meta(description="bars between two choices of weights, counted from 1970")] = 1440
    gross: Annotated[int, Meta(ge=1, le=100 * MILLION, description="sum of all weights in ppm")] = MILLION

    def lookback(self) -> int:
        return self.length

    def positions(self, panel: Panel) -> Column:
        out = np.full(panel.present.shape, KEEP, dtype=np.int64)
        chosen = np.flatnonzero(panel.numbers % self.every == 0)
        inverses = [self._inverses(panel.close[:, k], panel.present[:, k], chosen) for k in range(len(panel.names))]
        for number, row in enumerate(chosen.tolist()):
            members = panel.member[row].tolist()
            parts = [one[number] if inside else 0 for one, inside in zip(inverses, members, strict=True)]
            total = sum(parts)
            out[row] = [self.gross * part // total if part else 0 for part in parts]
        return out

    def _inverses(self, close: Column, present: Any, chosen: Column) -> list[int]:
        """Return the inverse volatility at each of the rows `chosen`; 0 where there is none."""
        own = np.flatnonzero(present)
        returns = _returns(close[own])
        last = np.searchsorted(own, chosen)  # the bar of the row, if the symbol is present
        out = []
        for row, at in zip(chosen.tolist(), last.tolist(), strict=True):
            inverse = 0
            if at < len(own) and own[at] == row and at >= self.length:
                window = returns[at - self.length : at].tolist()
                total, squares = sum(window), sum(one * one for one in window)
                deviation = isqrt((self.length * squares - total * total) * FINE * FINE)
                inverse = INVERSE // deviation if deviation else 0
            out.append(inverse)
        return out


def _returns(close: Column) -> Column:
    """Return the relative change of each close but the first in ppm, rounded down."""
    change, before = np.diff(close), close[:-1]
    if len(change) and int(np.abs(change).max()) >= SMALL:
        found = [int(d) * MILLION // int(b) for d, b in zip(change, before, strict=True)]
        return np.array(found, dtype=object)
    found_: Column = change * MILLION // before
    return found_
