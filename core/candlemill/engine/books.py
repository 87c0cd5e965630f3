"""Orders of a book as columns, and a strategy's view of its position. SEMANTICS-2 section 9."""

from operator import index
from typing import Any, Final

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.book import Order
from candlemill.engine.candles import PRICE_LIMIT

LIMIT: Final = "limit"
STOP: Final = "stop"
ORDER_LIMIT: Final = 16  # orders of a book
KEY_LIMIT: Final = 32  # characters
EXPOSURE_LIMIT: Final = 100_000_000  # ppm
WHOLE: Final = 1_000_000  # ppm
OCO_LIMIT: Final = 1_000_000_000
RESERVED: Final = ("target", "stop", "take", "liquidation")


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
        self.keys: list[str] = ["order"] * ORDER_LIMIT
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

    def put_orders(self, stated: tuple[Any, ...]) -> None:
        """Put the orders of a strategy's book. Raises ValueError."""
        count = len(stated)
        if count > ORDER_LIMIT:
            raise ValueError(f"a book of {count} orders, the limit is {ORDER_LIMIT}: state those nearest to the market")
        for order in stated:
            self.put_order(order)
        if count > 1:
            keys = {order.key for order in stated}
            if len(keys) < count:
                double = next(order.key for order in stated if sum(o.key == order.key for o in stated) > 1)
                raise ValueError(f"order key {double!r} is in the book twice: give each order its own")

    def put_order(self, order: Any) -> None:
        if not isinstance(order, Order):
            raise ValueError(f"{order!r:.80} in a book is no Order")
        one: Any = order
        key: Any = one.key
        if key is not self.keys[self.count]:  # the last book's key in this place was checked
            check_key(key)
        side: object = one.side
        if side != 1 and side != -1:
            raise ValueError(f"order {key!r}: side {side!r}, expected 1 (buys) or -1 (sells)")
        kind: object = one.kind
        if kind != LIMIT and kind != STOP:
            raise ValueError(f"order {key!r}: kind {kind!r}, expected 'limit' or 'stop'")
        price = within(key, "price", one.price, 1, PRICE_LIMIT)
        size = within(key, "size", one.size, 0, EXPOSURE_LIMIT)
        part = within(key, "part", one.part, 0, WHOLE)
        if (size == 0) == (part == 0):
            raise ValueError(f"order {key!r}: size {size} and part {part}, expected one of the two above 0")
        self.put(
            key,
            1 if side == 1 else -1,
            1 if kind == LIMIT else 0,
            price,
            size,
            part,
            within(key, "oco", one.oco, 0, OCO_LIMIT),
            within(key, "stop", one.stop, 0, PRICE_LIMIT),
            within(key, "take", one.take, 0, PRICE_LIMIT),
        )

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


def check_key(key: object) -> None:
    """Raise ValueError unless `key` can name an order."""
    if not isinstance(key, str) or not 1 <= len(key) <= KEY_LIMIT or not key.isprintable():
        raise ValueError(f"order key {key!r:.80} is not a printable text of 1 to {KEY_LIMIT} characters")
    if key in RESERVED:
        raise ValueError(f"order key {key!r} is reserved: {', '.join(RESERVED)} name other fills")


def within(key: str, name: str, value: object, low: int, high: int) -> int:
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
