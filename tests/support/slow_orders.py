"""The built-in order strategies beyond those of the reference, a second time: slow, plain, from docs/strategies.md.

They see what the reference's strategies see, and share no code with the engine.
"""

from itertools import pairwise

from reference.books import KEEP, Book, Order, View
from reference.candles import PPM
from reference.orders_strategies import d, limit


class AtrBracket:
    """A buy stop at the highest high; the bracket is in mean true ranges of the last decision while flat."""

    def __init__(self, entry: int, atr: int, stop: int, take: int) -> None:
        self.entry, self.length, self.stop, self.take = entry, atr, stop, take
        self.mean = 0

    def levels(self, price: int) -> dict[str, int]:
        return {
            "stop": max(0, price - self.mean * self.stop // 100),
            "take": price + self.mean * self.take // 100,
        }

    def decide(self, view: View) -> Book:
        if view.side:
            return Book(None, (), **self.levels(view.entry))
        if view.i < max(self.entry, self.length):
            return KEEP
        last = view.bars[-self.length - 1 :]
        ranges = [
            max(bar.high - bar.low, abs(bar.high - before.close), abs(bar.low - before.close))
            for before, bar in pairwise(last)
        ]
        self.mean = sum(ranges) // self.length
        if self.mean == 0:
            return KEEP
        top = max(bar.high for bar in view.bars[-self.entry :])
        return Book(None, (Order("up", 1, "stop", top, size=PPM, **self.levels(top)),))


class BreakEven:
    """Long by a target after a rise; the stop moves once, the time ends it."""

    def __init__(self, lookback: int, rise: int, stop: int, arm: int, lock: int, hold: int) -> None:
        self.lookback, self.rise, self.stop = lookback, rise, stop
        self.arm, self.lock, self.hold = arm, lock, hold

    def decide(self, view: View) -> Book:
        if view.side:
            entry = view.entry
            stop = entry - d(entry, self.stop)
            if view.best >= entry + d(entry, self.arm):
                stop = entry + d(entry, self.lock)
            return Book(0 if view.held >= self.hold else None, (), stop)
        close = view.bars[-1].close
        if view.i < self.lookback or view.filled:
            return KEEP
        before = view.bars[view.i - self.lookback].close
        if close <= before + d(before, self.rise):
            return KEEP
        return Book(PPM, (), close - d(close, self.stop))


class Dca:
    """One purchase in each span of minutes, one limit sale of all above their mean price."""

    def __init__(self, every: int, size: int, steps: int, take: int) -> None:
        self.every, self.size, self.steps, self.take = every, size, steps, take
        self.span = -1
        self.prices: list[int] = []

    def decide(self, view: View) -> Book:
        for key, price in view.filled:
            self.prices = [*self.prices, price] if key == "target" else []
        span = view.bars[-1].t // (self.every * 60_000)
        new, self.span = span != self.span, span
        out = ()
        if self.prices:
            mean = sum(self.prices) // len(self.prices)
            out = limit("out", -1, mean + d(mean, self.take), part=PPM)
        target = view.exposure + self.size if new and len(self.prices) < self.steps else None
        return Book(target, out)


SLOW = {"atr_bracket": AtrBracket, "break_even": BreakEven, "dca": Dca}
