"""What a strategy states at the close of a decision bar, and what it may see (SEMANTICS-2 §9)."""

from dataclasses import dataclass, field

from .candles import PPM, Bar

RESERVED = ("stop", "take", "target", "liquidation")
MOST_ORDERS = 16
MOST_TARGET = 10**8


@dataclass(frozen=True)
class Order:
    """A limit or stop order. Either `size` (ppm of exposure) or `part` (ppm of what is held; it only reduces)."""

    key: str
    side: int  # +1 buys, −1 sells
    kind: str  # "limit" or "stop"
    price: int
    size: int = 0
    part: int = 0
    oco: int | None = None  # the first fill of a group cancels the group's other orders
    stop: int = 0  # bracket: levels of the position that this order opens; 0 is none
    take: int = 0

    @property
    def identity(self) -> tuple[str, int, str, int]:
        """What must be the same in two books for the order to go on resting (§10)."""
        return (self.key, self.side, self.kind, self.price)


@dataclass(frozen=True)
class Book:
    """`target` in ppm of exposure, or None for `keep`. `stop`, `take`: protection while the book rests, 0 is none."""

    target: int | None = None
    orders: tuple[Order, ...] = ()
    stop: int = 0
    take: int = 0

    def check(self) -> None:
        """Refuse what §9 does not allow: ValueError."""
        if self.target is not None and abs(self.target) > MOST_TARGET:
            raise ValueError(f"target {self.target} is beyond {MOST_TARGET}")
        if len(self.orders) > MOST_ORDERS:
            raise ValueError(f"{len(self.orders)} orders, at most {MOST_ORDERS}")
        keys = [order.key for order in self.orders]
        if len(set(keys)) != len(keys):
            raise ValueError(f"keys {keys} are not unique")
        for order in self.orders:
            if order.key in RESERVED or not 0 < len(order.key) <= 32:
                raise ValueError(f"key {order.key!r} is reserved, empty or longer than 32")
            if order.side not in (-1, 1) or order.kind not in ("limit", "stop") or order.price <= 0:
                raise ValueError(f"{order}: side ±1, kind limit or stop, price above 0")
            if (order.size > 0) == (order.part > 0) or order.size < 0 or not 0 <= order.part <= PPM:
                raise ValueError(f"{order}: either a size above 0 or a part of 1 to 1,000,000")


KEEP = Book()


@dataclass
class View:
    """What a strategy sees of one symbol at a decision: its bars so far, and its position, without any money."""

    bars: list[Bar]  # decision bars, the last one just closed
    side: int = 0
    exposure: int = 0  # ppm
    entry: int = 0  # after slippage
    held: int = 0  # minute bars
    best: int = 0  # raw price
    filled: list[tuple[str, int]] = field(default_factory=list)  # (key, price) since the last decision

    @property
    def i(self) -> int:
        """The index of the decision bar."""
        return len(self.bars) - 1
