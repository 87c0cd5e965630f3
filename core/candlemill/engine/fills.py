"""Every fill of a run, for whoever needs more than its sums: sized and compound accounts, traces."""

from typing import Final

from librt.vecs import append, vec
from mypy_extensions import i64

# Why a fill happened. The order is that of `trace.Reason`.
SIGNAL: Final = 0
STOP: Final = 1
TAKE: Final = 2


class Fills:
    """Columns of fills in order: tape bar, position after it, price after slippage, reason.

    Whether it happened at the bar's open, inside it or at its close makes no difference to its mark.
    """

    def __init__(self) -> None:
        self.bar: vec[i64] = vec[i64]()
        self.side: vec[i64] = vec[i64]()
        self.price: vec[i64] = vec[i64]()
        self.reason: vec[i64] = vec[i64]()

    def add(self, bar: i64, side: i64, price: i64, reason: i64) -> None:
        self.bar = append(self.bar, bar)
        self.side = append(self.side, side)
        self.price = append(self.price, price)
        self.reason = append(self.reason, reason)
