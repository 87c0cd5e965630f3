"""One minute of one symbol: open, range in two walks, decision (SEMANTICS-2 §10, costs of §11)."""

import copy
from typing import Any

from . import costs
from .books import KEEP, Book, Order, View
from .candles import PPM, Bar, is_over
from .options import Options
from .units import Fill


def sign(x: int) -> int:
    """−1, 0 or +1."""
    return (x > 0) - (x < 0)


class Symbol:
    """The state of one symbol (§10) and what a minute does to it. Exposures are in ppm; no quantity, no money."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.w = 0
        self.entry = 0  # after slippage
        self.best = 0
        self.held = 0
        self.levels = (0, 0)  # stop and take of the book or of the bracket that protect this position
        self.entered_by_target = False  # in this minute, at its open
        self.acted: int | None = None  # the target last acted on
        self.book: Book = KEEP
        self.basis: Any = None  # (equity, price) at the statement of the book, for the account
        self.alive: list[str] = []  # keys of the book that are neither filled nor cancelled
        self.waiting: set[str] = set()  # `part` orders that wait for the next open
        self.resting: set[tuple[str, int, str, int]] = set()
        self.filled: list[tuple[str, int]] = []
        self.ambiguous: list[int] = []
        self.now = 0  # open time of the minute

    # Fills

    def fill(
        self, stage: str, key: str, kind: str, raw: int, after: int, levels: tuple[int, int] = (0, 0), part: int = 0
    ) -> list[Fill]:
        """Bring the exposure to `after`; through 0 it is two fills, the close and the opening of the rest."""
        options = self.options
        slips = kind not in ("limit", "taker")
        rate = options.maker if kind in ("limit", "take") else options.fee
        steps = [0, after] if self.w * after < 0 else [after]
        fills = []
        for step in steps:
            before, self.w = self.w, step
            side = sign(step - before) or -sign(before)
            price = costs.slipped(raw, side, options.slippage) if slips else raw
            fills.append(Fill(self.now, stage, key, kind, before, step, raw, price, rate, part, self.basis))
            self.filled.append((key, price))
            if before == 0:
                self.entry, self.best, self.held, self.levels = price, raw, 0, levels
                self.entered_by_target = kind == "target" and stage == "open"
            if step == 0:
                self.entry = self.best = self.held = 0
                self.levels, self.entered_by_target = (0, 0), False
                parts = {order.key for order in self.book.orders if order.part}
                self.alive = [key for key in self.alive if key not in parts]
        return fills

    def fill_order(self, order: Order, stage: str, kind: str, raw: int, at: int) -> list[Fill]:
        """Fill an order of the book while the market is `at`, cancel its group, protect what it opens."""
        self.alive.remove(order.key)
        if order.oco is not None:
            group = {other.key for other in self.book.orders if other.oco == order.oco}
            self.alive = [key for key in self.alive if key not in group]
        size = abs(self.w) * order.part // PPM if order.part else order.size
        fills = self.fill(stage, order.key, kind, raw, self.w + order.side * size, (order.stop, order.take), order.part)
        if fills[-1].before == 0:
            self.opened(at)
            fills += self.protect(stage, at)
        return fills

    def opened(self, at: int) -> None:
        """`part` orders that the price is already beyond when a position opens wait for the next open."""
        for order in self.orders():
            if order.part and self.beyond(order, at):
                self.waiting.add(order.key)

    def orders(self) -> list[Order]:
        """Orders that can be met now, in the order of the book; a `part` order needs a position to reduce."""
        return [
            order
            for order in self.book.orders
            if order.key in self.alive
            and order.key not in self.waiting
            and (not order.part or order.side == -sign(self.w))
        ]

    @staticmethod
    def beyond(order: Order, price: int) -> bool:
        """Whether a price is past a limit's, or at a stop's or past it."""
        if order.kind == "limit":
            return (order.price - price) * order.side > 0
        return (price - order.price) * order.side >= 0

    # Protection

    def stop(self) -> int | None:
        """The effective stop: the nearest of the job's own and the book's or bracket's."""
        side, options = sign(self.w), self.options
        own = costs.stop_levels(side, self.entry, self.best, options.stop_loss, options.trailing_stop)
        return costs.nearest_stop(side, own + [level for level in self.levels[:1] if level])

    def take(self) -> int | None:
        """The effective target."""
        side = sign(self.w)
        own = costs.take_levels(side, self.entry, self.options.take_profit)
        return costs.nearest_take(side, own + [level for level in self.levels[1:] if level])

    def protect(self, stage: str, at: int) -> list[Fill]:
        """Exit where the price `at` is at a protective level or beyond it already; the stop first.

        The exit is at that price, but at the level itself for the job's own levels in the bar that a target entered.
        """
        if not self.w:
            return []
        side = sign(self.w)
        for key, level, theirs, direction in (
            ("stop", self.stop(), self.levels[0], -side),
            ("take", self.take(), self.levels[1], side),
        ):
            if level is not None and (at - level) * direction >= 0:
                raw = level if self.entered_by_target and level != theirs else at
                return self.fill(stage, key, key, raw, 0)
        return []

    # 1. Open

    def at_open(self, bar: Bar) -> list[Fill]:
        """Target, protection, orders that the open is beyond, in this order (§10.1)."""
        self.now = bar.t
        fills = []
        target = self.book.target
        if target is not None and target != self.acted:  # under `fill = close` only after a cut k-bar
            fills += self.act(target, "open", bar.open)
        fills += self.protect("open", bar.open)
        for order in self.book.orders:
            if order in self.orders() and self.beyond(order, bar.open):
                if order.kind == "stop":
                    kind, raw = "stop_order", bar.open
                elif order.identity in self.resting:
                    if (order.price - bar.open) * order.side < self.options.limit_through:
                        continue  # not far enough beyond it: it goes on resting
                    kind, raw = "limit", order.price
                else:
                    kind, raw = "taker", bar.open
                fills += self.fill_order(order, "open", kind, raw, bar.open)
        return fills

    def act(self, target: int, stage: str, price: int) -> list[Fill]:
        """Trade the target, and remember it as the one last acted on (§9)."""
        self.acted = target
        if target == self.w:
            return []
        fills = self.fill(stage, "target", "target", price, target, (self.book.stop, self.book.take))
        if fills[-1].before == 0:
            self.opened(price)
        return fills

    # 2. Range

    def in_range(self, bar: Bar) -> list[Fill]:
        """The walk low first or high first; where they differ, the minute is ambiguous and the path chooses (§10.2)."""
        if not self.w and not self.alive:  # nothing can be met
            self.resting = set()
            return []
        low, low_fills = self.walk(bar, (bar.low, bar.high, bar.close))
        high, high_fills = self.walk(bar, (bar.high, bar.low, bar.close))
        chosen, fills = low, low_fills
        if [(f.key, f.raw, f.kind) for f in low_fills] != [(f.key, f.raw, f.kind) for f in high_fills]:
            self.ambiguous.append(bar.t)
            low_value = value(low_fills, low.w, bar.close)
            high_value = value(high_fills, high.w, bar.close)
            if not self.alive:  # §4.2: a bar that touches stop and target loses, whatever their fees
                low_value, high_value = int(low_fills[-1].kind == "take"), int(high_fills[-1].kind == "take")
            if high_value > low_value if self.options.path == "best" else high_value < low_value:
                chosen, fills = high, high_fills
        self.__dict__.update(chosen.__dict__)
        if self.w:
            self.best = max(self.best, bar.high) if self.w > 0 else min(self.best, bar.low)
            self.held += 1
        self.entered_by_target = False
        self.waiting = set()
        self.resting = {order.identity for order in self.book.orders if order.key in self.alive}
        return fills

    def walk(self, bar: Bar, points: tuple[int, ...]) -> tuple["Symbol", list[Fill]]:
        """The state and the fills after one walk from the open through the points."""
        state = copy.copy(self)
        state.alive, state.waiting, state.filled = list(self.alive), set(self.waiting), list(self.filled)
        fills: list[Fill] = []
        price = bar.open
        for end in points:
            direction = sign(end - price)  # of the whole leg: a tie at its end is still met
            while (met := state.next_met(price, end, direction)) is not None:
                price, what = met
                if isinstance(what, Order):
                    kind = "limit" if what.kind == "limit" else "stop_order"
                    fills += state.fill_order(what, "range", kind, what.price, price)
                else:
                    fills += state.fill("range", what, what, price, 0)
            price = end
        return state, fills

    def next_met(self, start: int, end: int, direction: int) -> tuple[int, str | Order] | None:
        """What the rest of a leg, from `start` to `end`, meets first: protective stop, target, then the book's order at
        a tie."""
        met: list[tuple[int, int, int, str | Order]] = []  # (distance, rank, price, what)

        def add(rank: int, price: int, what: str | Order) -> None:
            if 0 <= (price - start) * direction <= (end - start) * direction:
                met.append((abs(price - start), rank, price, what))

        if direction == 0:
            return None
        side = sign(self.w)
        if side:
            stop, take = self.stop(), self.take()
            if stop is not None and direction == -side:
                add(-2, stop, "stop")
            if take is not None and direction == side:
                add(-1, take, "take")
        for rank, order in enumerate(self.book.orders):
            if order in self.orders():
                falling_or_rising = -order.side if order.kind == "limit" else order.side
                through = self.options.limit_through if order.kind == "limit" else 0
                if direction == falling_or_rising and (self.beyond(order, end) or through):
                    add(rank, order.price - order.side * through, order)  # where the market is when it fills
        if not met:
            return None
        _, _, price, what = min(met, key=lambda item: item[:2])
        return price, what

    # 4. Decide

    def view(self, bars: list[Bar]) -> View:
        """What the strategy may see of this symbol (§9)."""
        return View(bars, sign(self.w), self.w, self.entry, self.held, self.best, list(self.filled))

    def state_book(self, book: Book, basis: Any, close: int) -> list[Fill]:
        """Replace the book whole; under `fill = close` its target is traded now (§10.4)."""
        book.check()
        self.filled = []
        self.resting &= {order.identity for order in book.orders}
        self.book, self.basis = book, basis
        self.alive, self.waiting = [order.key for order in book.orders], set()
        if self.w:
            self.levels = (book.stop, book.take)
        if book.target is None:
            self.acted = None
        elif self.trades_at_close() and book.target != self.acted:
            fills = self.act(book.target, "close", close)
            self.waiting = set()
            return fills
        return []

    def trades_at_close(self) -> bool:
        """Whether a target stated now is traded now: its k-bar must be known to be over."""
        return self.options.fill == "close" and is_over(self.now, self.options.timeframe)

    def end(self, stage: str, key: str, raw: int) -> list[Fill]:
        """Close the position from outside (a symbol that has ended, a liquidation) and forget the book."""
        self.book, self.alive = KEEP, []
        return self.fill(stage, key, key, raw, 0) if self.w else []


def value(fills: list[Fill], w: int, close: int) -> int:
    """Cash of a walk's fills per exposure, costs included, and what is held at the close (§10.2); exact."""
    total = w * close * PPM
    for fill in fills:
        change = fill.after - fill.before
        total -= change * fill.price * PPM + abs(change) * fill.price * fill.rate
    return total
