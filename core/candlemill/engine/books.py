"""Book that a strategy states at the close of a decision bar, and its view of the position. SEMANTICS-2 section 9."""

from collections.abc import Sequence
from operator import index
from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import PRICE_LIMIT

LIMIT: Final = "limit"
STOP: Final = "stop"
ORDER_LIMIT: Final = 16  # orders of a book
KEY_LIMIT: Final = 32  # characters
EXPOSURE_LIMIT: Final = 100_000_000  # ppm
WHOLE: Final = 1_000_000  # ppm
OCO_LIMIT: Final = 1_000_000_000
RESERVED: Final = ("target", "stop", "take", "liquidation")


class Order:
    """One resting order: buys (`side` 1) or sells (-1) at `price`, scaled, as a "limit" or a "stop".

    It trades `size` ppm of exposure, or `part` ppm of the position that is held, which it only reduces. The first fill
    of an `oco` group (0: none) cancels the group's other orders. `stop` and `take` (0: none) protect the position that
    this order opens until the next book. Raises ValueError.
    """

    def __init__(
        self,
        key: str,
        side: int,
        kind: str,
        price: object,
        size: object = 0,
        part: object = 0,
        oco: object = 0,
        stop: object = 0,
        take: object = 0,
    ) -> None:
        if not isinstance(key, str) or not 1 <= len(key) <= KEY_LIMIT or not key.isprintable():
            raise ValueError(f"order key {key!r:.80} is not a printable text of 1 to {KEY_LIMIT} characters")
        if key in RESERVED:
            raise ValueError(f"order key {key!r} is reserved: {', '.join(RESERVED)} name other fills")
        if side != 1 and side != -1:
            raise ValueError(f"order {key!r}: side {side!r}, expected 1 (buys) or -1 (sells)")
        if kind != LIMIT and kind != STOP:
            raise ValueError(f"order {key!r}: kind {kind!r}, expected 'limit' or 'stop'")
        self.key: str = key
        self.side: i64 = side
        self.kind: str = kind
        self.price: i64 = _within(key, "price", price, 1, PRICE_LIMIT)
        self.size: i64 = _within(key, "size", size, 0, EXPOSURE_LIMIT)
        self.part: i64 = _within(key, "part", part, 0, WHOLE)
        if (self.size == 0) == (self.part == 0):
            raise ValueError(f"order {key!r}: size {size} and part {part}, expected one of the two above 0")
        self.oco: i64 = _within(key, "oco", oco, 0, OCO_LIMIT)
        self.stop: i64 = _within(key, "stop", stop, 0, PRICE_LIMIT)
        self.take: i64 = _within(key, "take", take, 0, PRICE_LIMIT)

    def __repr__(self) -> str:
        amount = f"size={self.size}" if self.size else f"part={self.part}"
        return f"Order({self.key!r}, {self.side}, {self.kind!r}, {self.price}, {amount})"


class Book:
    """Target, orders and protective prices of one symbol until its next decision. `Book()` keeps the position without
    orders.

    `target` is the signed exposure in ppm; None keeps the position. `stop` and `take` (scaled prices, 0: none) protect
    the current position and the position that the target opens. Raises ValueError.
    """

    def __init__(self, target: object = None, orders: Sequence[Order] = (), stop: object = 0, take: object = 0) -> None:
        self.keep: bool = target is None
        self.target: i64 = 0
        if target is not None:
            self.target = _within("", "target", target, -EXPOSURE_LIMIT, EXPOSURE_LIMIT)
        self.orders: tuple[Order, ...] = tuple(orders)
        self.stop: i64 = _within("", "stop", stop, 0, PRICE_LIMIT)
        self.take: i64 = _within("", "take", take, 0, PRICE_LIMIT)
        count = len(self.orders)
        if count == 0:
            return
        if count > ORDER_LIMIT:
            raise ValueError(f"a book of {count} orders, the limit is {ORDER_LIMIT}: state those nearest to the market")
        if count > 1:
            keys = {order.key for order in self.orders}
            if len(keys) < count:
                double = next(order.key for order in self.orders if sum(o.key == order.key for o in self.orders) > 1)
                raise ValueError(f"order key {double!r} is in the book twice: give each order its own")

    def __repr__(self) -> str:
        target = None if self.keep else self.target
        return f"Book({target}, {list(self.orders)!r}, stop={self.stop}, take={self.take})"


class PositionView:
    """Position as a strategy sees it at a decision. Immutable.

    `side` is -1, 0 or 1; `exposure` the signed ppm as ordered; `entry` the price of the opening fill after slippage;
    `held` the number of minute bars since the entry, without the entry bar if the entry was at its close; `best` the
    best raw price since the entry. All are 0 while flat. `fills` are the fills since the last decision: an order's key,
    "target", "stop", "take" or "liquidation", each with its price after slippage.
    """

    def __init__(
        self,
        exposure: i64 = 0,
        entry: i64 = 0,
        held: i64 = 0,
        best: i64 = 0,
        fills: tuple[tuple[str, int], ...] = (),
    ) -> None:
        self.exposure: i64 = exposure
        self.entry: i64 = entry
        self.held: i64 = held
        self.best: i64 = best
        self.fills: tuple[tuple[str, int], ...] = fills
        side: i64 = 0
        if exposure > 0:
            side = 1
        elif exposure < 0:
            side = -1
        self.side: i64 = side


class Orders:
    """Orders of a book as columns, in the order of the book."""

    def __init__(self) -> None:
        zeros = [0] * ORDER_LIMIT
        self.count: i64 = 0
        self.keys: list[str] = [""] * ORDER_LIMIT
        self.side: vec[i64] = vec[i64](zeros)
        self.limit: vec[i64] = vec[i64](zeros)  # 1: a limit order, 0: a stop order
        self.price: vec[i64] = vec[i64](zeros)
        self.size: vec[i64] = vec[i64](zeros)
        self.part: vec[i64] = vec[i64](zeros)
        self.oco: vec[i64] = vec[i64](zeros)
        self.stop: vec[i64] = vec[i64](zeros)
        self.take: vec[i64] = vec[i64](zeros)
        self.parts: i64 = 0  # one bit for each order with a part

    def clear(self) -> None:
        self.count = 0
        self.parts = 0

    def put(
        self, key: str, side: i64, limit: i64, price: i64, size: i64, part: i64, oco: i64, stop: i64, take: i64
    ) -> None:
        k: i64 = self.count
        self.keys[k] = key
        self.side[k] = side
        self.limit[k] = limit
        self.price[k] = price
        self.size[k] = size
        self.part[k] = part
        self.oco[k] = oco
        self.stop[k] = stop
        self.take[k] = take
        if part != 0:
            self.parts |= 1 << k
        self.count = k + 1

    def put_order(self, order: Order) -> None:
        limit: i64 = 1 if order.kind == LIMIT else 0
        self.put(order.key, order.side, limit, order.price, order.size, order.part, order.oco, order.stop, order.take)

    def standing_in(self, before: "Orders", alive: i64) -> i64:
        """Return one bit for each order that also is in `before` (with its bit set in `alive`): same side, kind and
        price.
        """
        found: i64 = 0
        if alive == 0:
            return 0
        k: i64 = 0
        while k < self.count:
            j: i64 = 0
            while j < before.count:
                if (
                    self.price[k] == before.price[j]
                    and self.side[k] == before.side[j]
                    and self.limit[k] == before.limit[j]
                    and self.keys[k] == before.keys[j]
                    and (alive >> j) & 1 != 0
                ):
                    found |= 1 << k
                j += 1
            k += 1
        return found


def _within(key: str, name: str, value: object, low: int, high: int) -> int:
    """Return `value` as an integer from `low` to `high`. Raises ValueError."""
    if isinstance(value, int):
        number: int = value
    else:
        try:
            number = index(value)  # type: ignore[arg-type]
        except TypeError:
            number = low - 1
    if not low <= number <= high or isinstance(value, bool):
        owner = f"order {key!r}" if key else "book"
        raise ValueError(f"{owner}: {name} {value!r:.40} is not a whole number from {low} to {high}")
    return number
