"""Implementations of `DayIndex`, the metadata index of stored days."""

import threading
from collections.abc import Callable, Sequence
from functools import partial

from candlemill.backtests.tiers import TierTable
from candlemill.store.base import CandleStore, Store
from candlemill.store.candle_writer import settled_days
from candlemill.store.integrity import check_complete
from candlemill.stored_days import Day, Funding
from candlemill.units import SCALE


class RequestIndex:
    """Index that is read once per request; each request has its own thread.

    It is not kept for the next request, which may need newer candles, and not read twice, so that it is constant during
    a request. Equal days of a symbol stay the same object. A request that knows the digest of its candles may `recall`
    what earlier ones have read, and `renew` where that is another.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._latest: dict[str, Sequence[Day]] = {}
        self._latest_funding: dict[str, Funding] = {}
        self._request = threading.local()

    def renew(self) -> None:
        self._request.days, self._request.funding = {}, {}

    def recall(self) -> None:
        self._request.days, self._request.funding = dict(self._latest), dict(self._latest_funding)

    def symbols(self) -> list[str]:
        return self._store.symbols()

    def days(self, symbol: str) -> Sequence[Day]:
        known: dict[str, Sequence[Day]] = self._request.days
        if symbol not in known:
            now = self._store.days(symbol)
            latest = self._latest.get(symbol)
            self._latest[symbol] = known[symbol] = latest if latest is not None and latest == now else now
        return known[symbol]

    def volume_scale(self, symbol: str) -> int:
        return self._store.volume_scale(symbol) or SCALE

    def funding(self, symbol: str) -> Funding:
        known: dict[str, Funding] = self._request.funding
        if symbol not in known:
            self._latest_funding[symbol] = known[symbol] = self._store.funding(symbol)
        return known[symbol]

    def margin_tiers(self, symbol: str) -> Sequence[TierTable]:
        return self._store.margin_tiers(symbol)


class FrozenIndex:
    """Index as of the job's start: the days of a symbol stay the same object."""

    def __init__(
        self,
        store: Store,
        days: Callable[[str], Sequence[Day]] | None = None,
        complete: dict[str, Sequence[Day]] | None = None,
    ) -> None:
        """`days`: returns the current days of a symbol; by default they are read from the store. `complete` notes the
        days of symbols that were found complete, for further indexes of a store that no other process writes."""
        self._store = store
        self._complete = {} if complete is None else complete
        self._current = days or partial(settled_days, store)
        self._days: dict[str, Sequence[Day]] = {}
        self._funding: dict[str, Funding] = {}
        self._tiers: dict[str, Sequence[TierTable]] = {}

    def symbols(self) -> list[str]:
        return self._store.symbols()

    def days(self, symbol: str) -> Sequence[Day]:
        if symbol not in self._days:
            days = self._current(symbol)
            if isinstance(self._store, CandleStore) and self._complete.get(symbol) != days:
                check_complete(self._store, symbol, days)
                self._complete[symbol] = days
            self._days[symbol] = days
        return self._days[symbol]

    def volume_scale(self, symbol: str) -> int:
        return self._store.volume_scale(symbol) or SCALE

    def funding(self, symbol: str) -> Funding:
        if symbol not in self._funding:
            self._funding[symbol] = self._store.funding(symbol)
        return self._funding[symbol]

    def margin_tiers(self, symbol: str) -> Sequence[TierTable]:
        if symbol not in self._tiers:
            self._tiers[symbol] = self._store.margin_tiers(symbol)
        return self._tiers[symbol]
