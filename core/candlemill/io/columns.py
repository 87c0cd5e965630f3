"""Columns of candles that several readers share, the latest ones used."""

import threading
from collections import OrderedDict
from typing import Any

from numpy.typing import NDArray

LIMIT_BYTES = 256 << 20

Key = tuple[str, int, str, str]  # symbol, month's start in ms, digest of the month's content, column


class Columns:
    """A month's columns under the digest of its content: what has been found once is right for ever."""

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self._limit = limit
        self._bytes = 0
        self._columns: OrderedDict[Key, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> NDArray[Any] | None:
        with self._lock:
            if key in self._columns:
                self._columns.move_to_end(key)
            return self._columns.get(key)

    def keep(self, key: Key, column: NDArray[Any]) -> None:
        own = column if column.base is None else column.copy()  # a view would keep all that was read with it
        own.flags.writeable = False
        with self._lock:
            old = self._columns.pop(key, None)
            self._bytes += own.nbytes - (old.nbytes if old is not None else 0)
            self._columns[key] = own
            while self._bytes > self._limit:
                self._bytes -= self._columns.popitem(last=False)[1].nbytes
