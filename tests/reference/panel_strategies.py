"""Built-in strategies of a panel (SEMANTICS-2 §14, docs/strategies.md): targets of many symbols, from closes alone.

Each has `decide_all(number, views) -> {symbol: Book}`: `number` is that of the k-bar, `views` are of the symbols that
have a bar in it. `universe` are the symbols that may be held; none: all.
"""

from collections.abc import Mapping
from itertools import pairwise
from math import isqrt

from .books import KEEP, Book, View
from .candles import PPM


class XsMomentum:
    """Panel: at a calendar of k-bars hold the `top` symbols with the highest ratio of closes over `lookback` bars."""

    def __init__(self, lookback: int = 1440, top: int = 3, every: int = 1440) -> None:
        self.lookback, self.top, self.every = lookback, top, every
        self.universe: set[str] | None = None

    def decide_all(self, number: int, views: Mapping[str, View]) -> dict[str, Book]:
        if number % self.every:
            return dict.fromkeys(views, KEEP)
        rising: list[tuple[str, int, int]] = []
        for symbol, view in views.items():
            if view.i >= self.lookback and (self.universe is None or symbol in self.universe):
                now, before = view.bars[-1].close, view.bars[view.i - self.lookback].close
                if now > before:
                    rising.append((symbol, now, before))
        chosen: list[str] = []
        while rising and len(chosen) < self.top:
            best = rising[0]
            for other in rising[1:]:
                left, right = other[1] * best[2], best[1] * other[2]  # other's ratio against the best's
                if left > right or (left == right and other[0] < best[0]):
                    best = other
            rising.remove(best)
            chosen.append(best[0])
        return {symbol: Book(PPM // self.top if symbol in chosen else 0) for symbol in views}


class PairReversion:
    """Panel of two: short the dear one, long the other, while the ratio of their closes is far from its mean.

    The ratio is that of the first name's close to the second's, in billionths, rounded down. Mean and deviation are of
    the ratios in the last `length` rows of the panel, this one included; a row in which one of the two is absent has
    none.
    """

    def __init__(self, length: int = 120, entry: int = 200, exit: int = 50) -> None:
        self.length, self.entry, self.exit = length, entry, exit
        self.universe: set[str] | None = None
        self.rows: list[int | None] = []  # the ratio of each

    def decide_all(self, number: int, views: Mapping[str, View]) -> dict[str, Book]:
        if len(views) < 2:
            self.rows.append(None)
            return dict.fromkeys(views, KEEP)
        first, second = sorted(views)
        self.rows.append(views[first].bars[-1].close * 10**9 // views[second].bars[-1].close)
        if len(self.rows) < self.length:
            return dict.fromkeys(views, KEEP)
        side = self.side([ratio for ratio in self.rows[-self.length :] if ratio is not None])
        if side is None:
            return dict.fromkeys(views, KEEP)
        return {first: Book(side * PPM // 2), second: Book(-side * PPM // 2)}

    def side(self, ratios: list[int]) -> int | None:
        """The side of the first name after these ratios; None: what is held stays."""
        n, total = len(ratios), sum(ratios)
        distance = n * ratios[-1] - total  # n · (ratio − mean)
        variance = n * sum(ratio * ratio for ratio in ratios) - total * total  # n² · variance
        far = distance * distance * 10_000
        if variance and far >= self.entry * self.entry * variance:
            return -1 if distance > 0 else 1
        return 0 if far <= self.exit * self.exit * variance else None


class InverseVolatility:
    """Panel: at a calendar of k-bars hold all symbols, each in inverse proportion to the deviation of its returns.

    A return is a whole number of ppm, `length` times a deviation one of 10^-6 ppm, the inverse of that one of
    10^-30, a weight one of ppm; each is rounded down.
    """

    def __init__(self, length: int = 1440, every: int = 1440, gross: int = PPM) -> None:
        self.length, self.every, self.gross = length, every, gross
        self.universe: set[str] | None = None

    def decide_all(self, number: int, views: Mapping[str, View]) -> dict[str, Book]:
        if number % self.every:
            return dict.fromkeys(views, KEEP)
        inverse = {}
        for symbol, view in views.items():
            variance = self.variance([bar.close for bar in view.bars])
            if variance > 0 and (self.universe is None or symbol in self.universe):
                inverse[symbol] = 10**30 // isqrt(variance * 10**12)
        total = sum(inverse.values())
        return {s: Book(self.gross * inverse[s] // total if s in inverse else 0) for s in views}

    def variance(self, closes: list[int]) -> int:
        """length² · variance of the last `length` returns; 0 where there are fewer."""
        if len(closes) <= self.length:
            return 0
        last = closes[-self.length - 1 :]
        returns = [(after - before) * PPM // before for before, after in pairwise(last)]
        return self.length * sum(r * r for r in returns) - sum(returns) ** 2
