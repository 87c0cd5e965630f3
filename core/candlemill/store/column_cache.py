"""Cache of candle columns that several readers share."""

import threading
from collections import OrderedDict
from typing import Any

from numpy.typing import NDArray

from candlemill.config import cache_bytes

LIMIT_BYTES, LIMIT_SHARE = 256 << 20, 8  # at most, and which part of the memory

Key = tuple[str, int, str, str]  # symbol, month's start in ms, digest of the month's content, column


class ColumnCache:
    """Bounded thread-safe LRU cache of month columns. Keys have the digest of the content, so entries stay valid."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = cache_bytes(LIMIT_BYTES, LIMIT_SHARE) if limit is None else limit
        self._bytes = 0
        self._columns: OrderedDict[Key, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> NDArray[Any] | None:
        with self._lock:
            if key in self._columns:
                self._columns.move_to_end(key)
            return self._columns.get(key)

    def put(self, key: Key, column: NDArray[Any]) -> None:
        own = column if column.base is None else column.copy()  # a view would keep its whole base array
        own.flags.writeable = False
        with self._lock:
            old = self._columns.pop(key, None)
            self._bytes += own.nbytes - (old.nbytes if old is not None else 0)
            self._columns[key] = own
            while self._bytes > self._limit:
                self._bytes -= self._columns.popitem(last=False)[1].nbytes
