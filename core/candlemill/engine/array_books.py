"""Books of a strategy that states them as arrays, one element for each decision bar."""

from librt.vecs import vec
from mypy_extensions import i64

from candlemill.engine.candles import Bars, Column, native
from candlemill.engine.decide import BookSource
from candlemill.engine.minute import MinuteEngine


class ArraySource(BookSource):
    """Source of books from columns; element 0 belongs to decision bar `begin`, and before it there are no books.

    `keep` is 1 where there is no target. Columns of orders have one stretch of `n` elements for each order: an order is
    in a book where its price is above 0. `keys`, `sides` and `limits` (1: a limit order) have one element for each.
    """

    def __init__(
        self,
        bars: Bars,
        first: int,
        begin: int,
        n: int,
        keys: list[str],
        sides: list[int],
        limits: list[int],
        columns: dict[str, Column],
    ) -> None:
        super().__init__(bars.last, first, False, False)
        self.begin_bar: i64 = begin
        self.n: i64 = n
        self.keys: list[str] = keys
        self.count: i64 = len(keys)
        self.sides: vec[i64] = vec[i64](sides)
        self.limits: vec[i64] = vec[i64](limits)
        self.keep: vec[i64] = native(columns["keep"])
        self.target: vec[i64] = native(columns["target"])
        self.stop: vec[i64] = native(columns["stop"])
        self.take: vec[i64] = native(columns["take"])
        self.prices: vec[i64] = native(columns["prices"])
        self.sizes: vec[i64] = native(columns["sizes"])
        self.parts: vec[i64] = native(columns["parts"])
        self.ocos: vec[i64] = native(columns["ocos"])
        self.stops: vec[i64] = native(columns["stops"])
        self.takes: vec[i64] = native(columns["takes"])

    def state(self, engine: MinuteEngine, i: i64) -> None:
        j: i64 = self.bar - self.begin_bar
        self.bar += 1
        orders = engine.new_orders()
        if j < 0:
            engine.replace(orders, i, True, 0, 0, 0)
            return
        k: i64 = 0
        while k < self.count:
            at: i64 = k * self.n + j
            if self.prices[at] > 0:
                orders.put(
                    self.keys[k],
                    self.sides[k],
                    self.limits[k],
                    self.prices[at],
                    self.sizes[at],
                    self.parts[at],
                    self.ocos[at],
                    self.stops[at],
                    self.takes[at],
                )
            k += 1
        engine.replace(orders, i, self.keep[j] != 0, self.target[j], self.stop[j], self.take[j])
