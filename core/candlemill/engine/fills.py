"""Fills of a run, and the equity line between them: for sized accounts and for traces."""

from typing import Final

from librt.vecs import append, vec
from mypy_extensions import i64

from candlemill.engine.candles import Column, view
from candlemill.engine.summary import FINE

# Reasons of a fill.
SIGNAL: Final = 0
STOP: Final = 1
TAKE: Final = 2
BOTH: Final = 3  # the bar touched stop and target: the stop counts
LATE: Final = 4  # a decision of a cut bar under `fill = close`, filled at the next open


class Curve:
    """Equity from bar `at[k]` until the next element: `base[k] + holding[k] * close`, in the account's unit.

    For a compound account the numbers are floats, equity is 1 at the start of each day, and `filled` is the equity
    after each fill.
    """

    def __init__(self) -> None:
        self.at: list[int] = []
        self.base: list[float | int] = []
        self.holding: list[float | int] = []
        self.filled: list[float] = []

    def add(self, at: int, base: float | int, holding: float | int) -> None:
        self.at.append(at)
        self.base.append(base)
        self.holding.append(holding)


class Fills:
    """Columns of fills in order: minute bar, position after the fill, price after slippage, reason, price before
    slippage.

    The mark of a bar is the same for a fill at its open, inside it or at its close.
    """

    def __init__(self, curve: Curve | None = None) -> None:
        self.bar: vec[i64] = vec[i64]()
        self.side: vec[i64] = vec[i64]()
        self.price: vec[i64] = vec[i64]()
        self.reason: vec[i64] = vec[i64]()
        self.raw: vec[i64] = vec[i64]()
        self.curve: Curve | None = curve
        self.before: int = 0  # the book's equity when its present pass began, in the account's unit

    def columns(self) -> dict[str, Column]:
        """Return all columns as arrays without copying; see `CandleColumns.columns`."""
        return {
            "bar": view(self.bar),
            "side": view(self.side),
            "price": view(self.price),
            "reason": view(self.reason),
            "raw": view(self.raw),
        }

    def add(self, bar: i64, side: i64, price: i64, reason: i64, raw: i64) -> None:
        self.bar = append(self.bar, bar)
        self.side = append(self.side, side)
        self.price = append(self.price, price)
        self.reason = append(self.reason, reason)
        self.raw = append(self.raw, raw)

    def draw(self, bar: i64, base: i64, rest: i64, side: i64) -> None:
        """Record the book's equity from `bar` on: `base + side * close` and its `rest`."""
        if self.curve is not None:
            self.curve.add(int(bar), self.before + int(base) * FINE + int(rest), int(side) * FINE)
