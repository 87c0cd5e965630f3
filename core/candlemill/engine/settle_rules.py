"""Rules of an account of real money, as its settlement reads them. SEMANTICS-2, section 12."""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import Column, native

# `size`: how an exposure becomes a quantity.
UNITS: Final = 0
NOTIONAL: Final = 1
EQUITY: Final = 2

# `margin`: what answers for a position.
NO_MARGIN: Final = 0
ISOLATED: Final = 1  # its own margin, its value at entry divided by the leverage
CROSS: Final = 2  # the whole equity


class SettleRules:
    """Rules of an account, and the order limits of each symbol.

    `size` is UNITS, NOTIONAL or EQUITY; `quantity` and `notional` are scaled; `leverage` is in ppm. Each symbol has a
    step, a minimum quantity and a minimum notional, scaled. `margin` is NO_MARGIN, ISOLATED or CROSS.
    """

    def __init__(
        self,
        size: i64,
        quantity: i64,
        notional: i64,
        leverage: i64,
        step: Column,
        min_quantity: Column,
        min_notional: Column,
        margin: i64 = NO_MARGIN,
    ) -> None:
        self.margin: i64 = margin
        self.size: i64 = size
        self.quantity: i64 = quantity
        self.notional: i64 = notional
        self.leverage: i64 = leverage
        self.step: vec[i64] = native(step)
        self.min_quantity: vec[i64] = native(min_quantity)
        self.min_notional: vec[i64] = native(min_notional)
