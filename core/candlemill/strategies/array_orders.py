"""Books as arrays: a windowed strategy that places orders without a loop over bars. SEMANTICS-2 section 9."""

from typing import Any, ClassVar

import numpy as np

from candlemill.engine.array_books import ArraySource
from candlemill.engine.books import (
    EXPOSURE_LIMIT,
    KEY_LIMIT,
    LIMIT,
    OCO_LIMIT,
    ORDER_LIMIT,
    RESERVED,
    STOP,
    WHOLE,
)
from candlemill.engine.candles import PRICE_LIMIT, Bars, CandleColumns, Column
from candlemill.engine.decide import BookSource
from candlemill.engine.ranges import Ranges
from candlemill.errors import BadStrategy
from candlemill.strategies.base import between
from candlemill.strategies.orders import OrderStrategy

AMOUNTS = ("sizes", "parts", "ocos", "stops", "takes")


class BookArrays:
    """Books of `n` decision bars, at first without target, orders and protective prices.

    Every value is an array with one element for each bar, or one number for all. Prices are times 10^8; floats are
    rounded to whole numbers once, half to even, and a price that is 0, negative or NaN is none.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.keys: list[str] = []
        self.sides: list[int] = []
        self.limits: list[int] = []
        self._orders: dict[str, list[Column]] = {name: [] for name in ("prices", *AMOUNTS)}
        self._target: Column = np.zeros(n, dtype=np.int64)
        self._keep: Column = np.ones(n, dtype=np.int64)
        self._stop: Column = np.zeros(n, dtype=np.int64)
        self._take: Column = np.zeros(n, dtype=np.int64)

    def target(self, exposure: Any) -> "BookArrays":
        """Set the exposure to hold: whole numbers in ppm, or floats where 1.0 is 1,000,000 ppm and NaN keeps what is
        held."""
        given = self._array("target", exposure)
        ppm = np.rint(given * float(WHOLE)) if given.dtype.kind == "f" else given
        keep = np.isnan(ppm) if ppm.dtype.kind == "f" else np.zeros(self.n, dtype=np.bool_)
        known = np.where(keep, 0, ppm)
        _check_range("target", known, -EXPOSURE_LIMIT, EXPOSURE_LIMIT)
        self._target, self._keep = known.astype(np.int64), keep.astype(np.int64)
        return self

    def limit(self, key: str, side: int, price: Any, **rest: Any) -> "BookArrays":
        """Add a limit order that buys (`side` 1) or sells (-1) at `price`, at each bar where `when` is true.

        `rest`: `size` (ppm of exposure) or `part` (ppm of the position that is held), `oco` (a group's number), `stop`
        and `take` (a bracket), `when` (default: everywhere).
        """
        return self._add(key, side, LIMIT, price, **rest)

    def stop(self, key: str, side: int, price: Any, **rest: Any) -> "BookArrays":
        """Add a stop order; see `limit`."""
        return self._add(key, side, STOP, price, **rest)

    def protect(self, stop: Any = 0, take: Any = 0) -> "BookArrays":
        """Set the prices that protect what is held at a decision and what its target opens."""
        self._stop, self._take = self._prices("stop", stop), self._prices("take", take)
        return self

    def _add(
        self,
        key: str,
        side: int,
        kind: str,
        price: Any,
        size: Any = 0,
        part: Any = 0,
        oco: Any = 0,
        stop: Any = 0,
        take: Any = 0,
        when: Any = True,
    ) -> "BookArrays":
        if not isinstance(key, str) or not 1 <= len(key) <= KEY_LIMIT or not key.isprintable() or key in RESERVED:
            raise ValueError(
                f"order key {key!r:.80} is reserved, or not a printable text of 1 to {KEY_LIMIT} characters"
            )
        if key in self.keys:
            raise ValueError(f"order key {key!r} is in the books twice: give each order its own")
        if len(self.keys) >= ORDER_LIMIT:
            raise ValueError(f"more than {ORDER_LIMIT} orders in a book: state those nearest to the market")
        if side not in (1, -1):
            raise ValueError(f"order {key!r}: side {side!r}, expected 1 (buys) or -1 (sells)")
        prices = np.where(self._array("when", when).astype(np.bool_), self._prices(f"{key} price", price), 0)
        amounts = {
            "sizes": self._whole(f"{key} size", size, EXPOSURE_LIMIT),
            "parts": self._whole(f"{key} part", part, WHOLE),
            "ocos": self._whole(f"{key} oco", oco, OCO_LIMIT),
            "stops": self._prices(f"{key} stop", stop),
            "takes": self._prices(f"{key} take", take),
        }
        stated = prices > 0
        if (stated & ((amounts["sizes"] > 0) == (amounts["parts"] > 0))).any():
            raise ValueError(f"order {key!r}: give either a size above 0 or a part above 0 wherever it has a price")
        self.keys.append(key)
        self.sides.append(side)
        self.limits.append(1 if kind == LIMIT else 0)
        for name, column in (("prices", prices), *amounts.items()):
            self._orders[name].append(column)
        return self

    def _array(self, what: str, given: Any) -> Any:
        """Return `given` with one element for each bar."""
        array = np.asarray(given)
        if array.shape not in ((), (self.n,)):
            raise ValueError(f"{what} of shape {array.shape}, expected ({self.n},): one for each bar")
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{what} of type {array.dtype}, expected numbers")
        return np.broadcast_to(array, (self.n,))

    def _prices(self, what: str, given: Any) -> Column:
        array = self._array(what, given)
        if array.dtype.kind == "f":
            array = np.rint(np.nan_to_num(array, nan=0.0, posinf=float(2 * PRICE_LIMIT), neginf=0.0))
        array = np.maximum(array, 0)
        _check_range(what, array, 0, PRICE_LIMIT)
        found: Column = array.astype(np.int64)
        return found

    def _whole(self, what: str, given: Any, limit: int) -> Column:
        array = self._array(what, given)
        if array.dtype.kind == "f":
            raise ValueError(f"{what}: floats, expected whole numbers from 0 to {limit:,}")
        _check_range(what, array, 0, limit)
        found: Column = array.astype(np.int64)
        return found

    def columns(self) -> dict[str, Column]:
        """Return the columns as the engine takes them."""
        empty = np.zeros(0, dtype=np.int64)
        joined = {name: np.concatenate(parts) if parts else empty for name, parts in self._orders.items()}
        return {"keep": self._keep, "target": self._target, "stop": self._stop, "take": self._take, **joined}


def _check_range(what: str, array: Any, low: int, high: int) -> None:
    wrong = ~((array >= low) & (array <= high))
    if wrong.any():
        raise ValueError(f"{what} {array[wrong][0]} is not from {low:,} to {high:,}")


class WindowedOrders(OrderStrategy, frozen=True):
    """A strategy that states the books of all bars at once: implement `lookback` and `orders`.

    It does not see its position; brackets, `part` orders and protective prices do what depends on it.
    """

    stateful: ClassVar[bool] = False

    def lookback(self) -> int:
        raise TypeError(f"{type(self).__name__} does not say its lookback")

    def orders(self, bars: Bars) -> BookArrays:
        """Return the books of the `bars.n` bars.

        Element `j` may depend on bars `j - lookback()` to `j` only. The first `lookback()` books are not used.
        """
        raise TypeError(f"{type(self).__name__} has no orders()")

    def books(self, candles: CandleColumns, ranges: Ranges, bars: Bars, first: int, state: Any) -> BookSource:
        back = self.lookback()
        begin = max(first, back)
        n = max(0, bars.n - begin)
        given = BookArrays(0) if n == 0 else self.orders(between(bars, begin - back, bars.n))
        if not isinstance(given, BookArrays) or (n and given.n != n + back):
            raise BadStrategy(f"{type(self).__name__}: orders() returned {given!r:.80}, expected BookArrays(bars.n)")
        columns = given.columns()
        skipped = given.n - n
        kept = {
            name: column.reshape(-1, given.n)[:, skipped:].ravel() if given.n else column
            for name, column in columns.items()
        }
        return ArraySource(bars, first, begin, n, given.keys, given.sides, given.limits, kept)

    def state_after(self, source: Any) -> Any:
        return ()
