"""Book that a strategy states at the close of a decision bar, as plain records. SEMANTICS-2 section 9.

They are checked where the engine takes them, not when they are made: a step that makes an order at each bar makes
hundreds of thousands. Not compiled: a record of msgspec takes keywords several times faster than a compiled class.
"""

from collections.abc import Sequence

import msgspec


class Order(msgspec.Struct, frozen=True, gc=False):
    """One resting order: buys (`side` 1) or sells (-1) at `price`, scaled, as a "limit" or a "stop".

    It trades `size` ppm of exposure, or `part` ppm of the position that is held, which it only reduces. The first fill
    of an `oco` group (0: none) cancels the group's other orders. `stop` and `take` (0: none) protect the position that
    this order opens until the next book.
    """

    key: str
    side: int
    kind: str
    price: int
    size: int = 0
    part: int = 0
    oco: int = 0
    stop: int = 0
    take: int = 0


class Book(msgspec.Struct, frozen=True, gc=False):
    """Target, orders and protective prices of one symbol until its next decision. `Book()` keeps the position without
    orders.

    `target` is the signed exposure in ppm; None keeps the position. `stop` and `take` (scaled prices, 0: none) protect
    the current position and the position that the target opens.
    """

    target: int | None = None
    orders: Sequence[Order] = ()
    stop: int = 0
    take: int = 0
