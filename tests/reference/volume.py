"""Orders that a bar's volume fills in part, in the account `cash` of one symbol: docs/orders.md, not the specification.

How much fills depends on money, so each fill is settled while it is decided, on each walk of a minute by itself.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .books import Book, Order
from .candles import PPM, SCALE, Bar
from .cash import Account, Event, Run
from .minute import Symbol
from .options import Options
from .units import Fill

NAME = "X"
UNLIMITED = ("stop", "take", "liquidation")


class VolumeSymbol(Symbol):
    """The symbol's decisions, with its money beside them. Without `volume_share` nothing is limited.

    `by_change`: the strategy states positions or weights, which are books at their changes only.
    """

    by_change = False

    def __init__(self, options: Options, money: Account) -> None:
        super().__init__(options)
        self.money = money
        self.left = 0  # of the bar's volume
        self.rests: dict[str, int] = {}  # of orders that have filled in part: what is left of `size` or `part`
        self.spent: set[str] = set()  # orders that are through with this bar
        self.triggered: set[str] = set()  # stop orders that go on at the next open
        self.begun = False  # the target has filled in part
        self.exited = False  # in this bar a level or a liquidation has ended a position

    def __copy__(self) -> "VolumeSymbol":
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.rests, new.spent, new.triggered = dict(self.rests), set(self.spent), set(self.triggered)
        new.money = copied(self.money)
        return new

    @property
    def is_limited(self) -> bool:
        return bool(self.options.volume_share)

    def fill(
        self, stage: str, key: str, kind: str, raw: int, after: int, levels: tuple[int, int] = (0, 0), part: int = 0
    ) -> list[Fill]:
        """Settle what fills. Of an order or a target that is as much as the bar's volume has left."""
        self.exited |= kind in UNLIMITED
        if not self.is_limited or kind in UNLIMITED:
            fills = self.settled(super().fill(stage, key, kind, raw, after, levels, part))
            self.tell_once()
            return fills
        fills = []
        for step in [0, after] if self.w * after < 0 else [after]:
            reach = self.reach(key, kind, step, part)
            if reach is None:
                break
            before = self.money.held.get(NAME, 0)
            one = super().fill(stage, key, kind, raw, reach[0], levels, reach[1])
            fills += self.settled([dataclasses.replace(one[0], rest=reach[2])])
            self.left = max(0, self.left - abs(self.money.held.get(NAME, 0) - before))
            if self.w != step:
                break
        self.tell_once()
        return fills

    def tell_once(self) -> None:
        """An order that fills in parts is reported with its first one."""
        if self.is_limited:
            first: dict[str, int] = {}
            for key, price in self.filled:
                first.setdefault(key, price)
            self.filled = list(first.items())

    def settled(self, fills: list[Fill]) -> list[Fill]:
        for fill in fills:
            self.money.settle({NAME: [fill]})
        return fills

    def reach(self, key: str, kind: str, after: int, part: int) -> tuple[int, int, bool] | None:
        """(exposure, part, whether its minimums are judged already) of the fill that the volume allows, if any."""
        begun = self.begun if kind == "target" else key in self.rests
        held = abs(self.money.held.get(NAME, 0))
        adds = abs(after) > abs(self.w)
        wanted = self.amount(key, kind, after, part, begun)
        if wanted <= self.left:
            return after, part, begun
        if not adds:
            part = self.left * PPM // held
            change = abs(after - self.w) * self.left // wanted
            after = self.w + change if after > self.w else self.w - change
        elif kind == "target":
            size = abs(after) * (held + self.left) // (held + wanted)
            after = size if after > 0 else -size
            if size <= abs(self.w):
                return None
        else:
            change = (abs(after) - abs(self.w)) * self.left // wanted
            after = self.w + change if after > 0 else self.w - change
        if after == self.w or (not adds and part == 0) or self.amount(key, kind, after, part, True) == 0:
            return None
        return after, part, True

    def amount(self, key: str, kind: str, after: int, part: int, rest: bool) -> int:
        """The quantity that a fill would trade, were there volume for it."""
        fill = Fill(self.now, "", key, kind, self.w, after, 0, 0, 0, part, self.basis, rest)
        if abs(after) > abs(self.w):
            return copied(self.money).addition(NAME, Event(NAME, fill))
        return self.money.reduction(NAME, fill)

    def fill_order(self, order: Order, stage: str, kind: str, raw: int, at: int) -> list[Fill]:
        if not self.is_limited:
            return super().fill_order(order, stage, kind, raw, at)
        part = self.rests.get(order.key, order.part) if order.part else 0
        size = abs(self.w) * part // PPM if part else self.rests.get(order.key, order.size)
        before, wanted = self.w, self.w + order.side * size
        fills = self.fill(stage, order.key, kind, raw, wanted, (order.stop, order.take), part)
        own = [fill for fill in fills if fill.key == order.key]
        if not own or own[-1].after != wanted:
            self.spent.add(order.key)
            if order.kind == "stop":
                self.triggered.add(order.key)
        if not own:
            return fills
        if own[-1].after == wanted:
            self.cancel({order.key})
        elif part:
            self.rests[order.key] = (part - own[0].part) * PPM // (PPM - own[0].part)
        else:
            self.rests[order.key] = size - abs(own[-1].after - before)
        if order.oco is not None:
            self.cancel({other.key for other in self.book.orders if other.oco == order.oco} - {order.key})
        if fills[-1].before == 0:
            self.opened(at)
            fills = fills + self.protect(stage, at)
        return fills

    def cancel(self, keys: set[str]) -> None:
        self.alive = [key for key in self.alive if key not in keys]

    def act(self, target: int, stage: str, price: int) -> list[Fill]:
        """What of the target the volume does not fill stays to be traded."""
        if not self.is_limited or target == self.w:
            self.begun = False
            return super().act(target, stage, price)
        fills = self.fill(stage, "target", "target", price, target, (self.book.stop, self.book.take))
        if fills:
            self.begun = fills[-1].after != target
            self.acted = None if self.begun else target
            if fills[-1].before == 0:
                self.opened(price)
        return fills

    def orders(self) -> list[Order]:
        return [order for order in super().orders() if order.key not in self.spent]

    def beyond(self, order: Order, price: int) -> bool:  # type: ignore[override]
        """A stop order that was met is so from then on."""
        return order.key in self.triggered or Symbol.beyond(order, price)

    def at_open(self, bar: Bar) -> list[Fill]:
        self.spent, self.exited = set(), False
        if self.is_limited:
            self.left = bar.volume * self.options.volume_share * SCALE // (PPM * self.options.volume_scale)
        return super().at_open(bar)

    def in_range(self, bar: Bar) -> list[Fill]:
        fills = super().in_range(bar)
        if self.is_limited and self.exited and self.book.target is not None:
            self.acted, self.begun = self.book.target, False
        return fills

    def state_book(self, book: Book, basis: Any, close: int) -> list[Fill]:
        if self.is_limited and self.by_change and book.target == self.book.target:
            return []
        self.rests, self.triggered, self.begun = {}, set(), False
        return super().state_book(book, basis, close)


def copied(money: Account) -> Account:
    """An account of its own in the same state."""
    stretch = {name: dataclasses.replace(one) for name, one in money.stretch.items()}
    return dataclasses.replace(
        money, held=dict(money.held), price=dict(money.price), stretch=stretch, sums=dict(money.sums),
        counts=dict(money.counts), events=list(money.events),
    )  # fmt: skip


class VolumeRun(Run):
    """One backtest of one symbol whose fills are settled while they are decided, minute by minute."""

    def __init__(self, bars: list[Bar], strategy: Any, options: Mapping[str, Any] | Options) -> None:
        super().__init__({NAME: bars}, strategy, Options.of(options))
        self.symbol = self.new_symbol()
        self.symbols = {NAME: self.symbol}

    def new_symbol(self) -> VolumeSymbol:
        return VolumeSymbol(self.options, self.account)

    def stage(self, fills: dict[str, list[Fill]]) -> None:
        """The symbol has settled them."""

    def minute(self, t: int) -> None:
        symbol, bar = self.symbol, self.at[NAME][t]
        if self.ruined is None:
            self.charge(NAME, t)
            symbol.at_open(bar)
            symbol.in_range(bar)
        self.account = symbol.money
        self.last[NAME] = bar
        self.account.price[NAME] = bar.close
        if self.ruined is None:
            self.decide(t, {NAME: bar})
        self.mark(t)


def run_volume(bars: list[Bar], strategy: Any, options: Mapping[str, Any], by_change: bool = False) -> dict[str, Any]:
    """As `cash.run_cash` for one symbol, with `volume_share` and `volume_scale`."""
    run = VolumeRun(bars, strategy, options)
    run.symbol.by_change = by_change
    for t in run.minutes:
        run.minute(t)
    return run.result()
