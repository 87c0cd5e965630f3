"""Orders and levels that are in force after each minute bar, recorded for charts."""

from typing import Final

from librt.vecs import append, vec
from mypy_extensions import i64

from candlemill.engine.candles import Column, view
from candlemill.engine.levels import FAR
from candlemill.engine.minute import MinuteEngine

LEVEL_STOP: Final = -1  # `key` of the protective stop of the position
LEVEL_TAKE: Final = -2  # of its target
LEVEL_LIQUIDATION: Final = -3  # of its liquidation


class BookTrace:
    """Rows of what stands after a minute bar, in order of time, and the exposure after each bar.

    `bar` is the bar's number, `key` an index into `keys`, or one of the LEVEL constants. `side` is 1 for a buy and -1
    for a sale, `limit` 1 for a limit order and 0 for a stop order; both are 0 for levels.
    """

    def __init__(self) -> None:
        self.bar: vec[i64] = vec[i64]()
        self.key: vec[i64] = vec[i64]()
        self.side: vec[i64] = vec[i64]()
        self.limit: vec[i64] = vec[i64]()
        self.price: vec[i64] = vec[i64]()
        self.exposure: vec[i64] = vec[i64]()
        self.keys: list[str] = []
        self._indices: dict[str, int] = {}

    def note(self, engine: MinuteEngine, i: i64) -> None:
        """Record what stands after bar `i`."""
        now = engine.now
        orders = now.orders
        self.exposure = append(self.exposure, now.exposure)
        k: i64 = 0
        while k < orders.count:
            if (now.alive >> k) & 1 != 0:
                self.add(i, self.key_index(orders.keys[k]), orders.side[k], orders.limit[k], orders.price[k])
            k += 1
        if now.exposure == 0:
            return
        now.set_levels()
        if 0 < now.stop_level < FAR:
            self.add(i, LEVEL_STOP, 0, 0, now.stop_level)
        if 0 < now.take_level < FAR:
            self.add(i, LEVEL_TAKE, 0, 0, now.take_level)
        if engine.account is not None and 0 < now.liquidation < FAR:
            self.add(i, LEVEL_LIQUIDATION, 0, 0, now.liquidation)

    def add(self, bar: i64, key: i64, side: i64, limit: i64, price: i64) -> None:
        self.bar = append(self.bar, bar)
        self.key = append(self.key, key)
        self.side = append(self.side, side)
        self.limit = append(self.limit, limit)
        self.price = append(self.price, price)

    def key_index(self, key: str) -> int:
        index = self._indices.get(key)
        if index is None:
            index = len(self.keys)
            self._indices[key] = index
            self.keys.append(key)
        return index

    def columns(self) -> dict[str, Column]:
        """Return the columns as arrays without copying; `exposure` has one element for each bar."""
        return {
            "bar": view(self.bar),
            "key": view(self.key),
            "side": view(self.side),
            "limit": view(self.limit),
            "price": view(self.price),
            "exposure": view(self.exposure),
        }
