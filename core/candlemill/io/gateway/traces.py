"""Runs in full, computed again for whoever looks at them, and kept while they do."""

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candlemill.errors import TooLarge
from candlemill.io.jobs import Home
from candlemill.io.store import Store
from candlemill.ledger import Index
from candlemill.trace import Trace

CACHE_BYTES = 512 << 20
BARS_LIMIT = 8_000_000  # fifteen years of minutes


class Traces:
    """Traces by job id, the latest ones. One is made at a time: each takes a core and its own memory."""

    def __init__(self, store: Store, index: Index) -> None:
        self._store, self._index = store, index
        self._found: OrderedDict[str, Trace] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, result: dict[str, Any]) -> Trace:
        """Blocking. Raises TooLarge for more bars than are kept, NoData where the candles have changed since."""
        job_id: str = result["job_id"]
        with self._lock:
            if job_id not in self._found:
                if result["bars"] > BARS_LIMIT:
                    raise TooLarge(f"{result['bars']:,} bars are too many to look at at once: run a shorter range")
                self._found[job_id] = Home(self._store, self._index).trace(result)
            self._found.move_to_end(job_id)
            while len(self._found) > 1 and sum(map(_size, self._found.values())) > CACHE_BYTES:
                self._found.popitem(last=False)
            return self._found[job_id]


def _size(trace: Trace) -> int:
    columns = (trace.t, trace.open, trace.high, trace.low, trace.close, trace.equity, trace.position)
    return sum(column.nbytes for column in columns)


def within(t: NDArray[np.int64], first: int, last: int) -> slice:
    """The elements of ascending `t` from `first` to `last`, both included."""
    a, b = int(np.searchsorted(t, first)), int(np.searchsorted(t, last, side="right"))
    return slice(a, max(a, b))
