"""Every fill of a run, and the line that its equity follows between them: for sized accounts and for traces."""

from typing import Final

from librt.vecs import append, vec
from mypy_extensions import i64

from candlemill.engine.tape import Column, view

# Why a fill happened.
SIGNAL: Final = 0
STOP: Final = 1
TAKE: Final = 2
BOTH: Final = 3  # the bar touched stop and target: the stop counts


class Curve:
    """Equity from bar `at[k]` on, until the next element: `base[k] + holding[k] * close`, in the account's unit.

    Of a compound account the numbers are floats, equity is 1 at each day's start, and `filled` is what it is after each
    fill.
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
    """Columns of fills in order: tape bar, position after it, price after slippage, reason.

    Whether it happened at the bar's open, inside it or at its close makes no difference to its mark.
    """

    def __init__(self, curve: Curve | None = None) -> None:
        self.bar: vec[i64] = vec[i64]()
        self.side: vec[i64] = vec[i64]()
        self.price: vec[i64] = vec[i64]()
        self.reason: vec[i64] = vec[i64]()
        self.curve: Curve | None = curve
        self.before: int = 0  # the book's equity when its present pass began

    def columns(self) -> dict[str, Column]:
        """All columns as arrays, without copying; see `Tape.columns`."""
        return {
            "bar": view(self.bar),
            "side": view(self.side),
            "price": view(self.price),
            "reason": view(self.reason),
        }

    def add(self, bar: i64, side: i64, price: i64, reason: i64) -> None:
        self.bar = append(self.bar, bar)
        self.side = append(self.side, side)
        self.price = append(self.price, price)
        self.reason = append(self.reason, reason)

    def draw(self, bar: i64, base: i64, side: i64) -> None:
        """The book's equity is `base + side * close` from `bar` on."""
        if self.curve is not None:
            self.curve.add(int(bar), self.before + int(base), int(side))
