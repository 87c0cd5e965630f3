"""Cache of full bar-by-bar runs, which are recomputed on demand."""

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.order_chart import OrderChart
from candlemill.backtests.replay import Replay
from candlemill.config import cache_bytes
from candlemill.errors import TooLarge
from candlemill.local.runner import JobRunner
from candlemill.pipeline.interfaces import DayIndex
from candlemill.store.base import Store

CACHE_BYTES, CACHE_SHARE = 512 << 20, 8  # maximum size, and the fraction of the memory (1/8)
BARS_LIMIT = 8_000_000  # fifteen years of minutes


class ReplayCache:
    """Cache of the latest replays, by job id. Computes one at a time: each uses a core and its own memory."""

    def __init__(self, store: Store, index: DayIndex, strategy_seconds: float | None = None) -> None:
        self._runner = JobRunner(store, index, strategy_seconds=strategy_seconds)
        self._limit = cache_bytes(CACHE_BYTES, CACHE_SHARE)
        self._found: OrderedDict[str, Replay] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, result: dict[str, Any]) -> Replay:
        """Return the replay of a result. Blocking. Raises TooLarge for more than BARS_LIMIT bars, NoData if the candles
        have changed since."""
        job_id: str = result["job_id"]
        with self._lock:
            if job_id not in self._found:
                if result["bars"] > BARS_LIMIT:
                    raise TooLarge(f"{result['bars']:,} bars are too many to look at at once: run a shorter range")
                self._found[job_id] = self._runner.trace(result)
            self._found.move_to_end(job_id)
            while len(self._found) > 1 and sum(map(_size, self._found.values())) > self._limit:
                self._found.popitem(last=False)
            return self._found[job_id]

    def orders(self, result: dict[str, Any], start: int, end: int) -> OrderChart:
        """Return the chart of a result's orders in `start <= t < end` (ms). Blocking. Raises as `of`, and BadInput for
        jobs that no chart shows."""
        with self._lock:
            if result["bars"] > BARS_LIMIT:
                raise TooLarge(f"{result['bars']:,} bars are too many to look at at once: run a shorter range")
            return self._runner.order_chart(result, start, end)


def _size(trace: Replay) -> int:
    columns = [trace.t, trace.open, trace.high, trace.low, trace.close, trace.equity, trace.position]
    if trace.panel:
        columns += [trace.panel.hold, trace.panel.contribution]
    return sum(column.nbytes for column in columns)


def within(t: NDArray[np.int64], first: int, last: int) -> slice:
    """Return the slice of ascending `t` from `first` to `last`, both included."""
    a, b = int(np.searchsorted(t, first)), int(np.searchsorted(t, last, side="right"))
    return slice(a, max(a, b))
