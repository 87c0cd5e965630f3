"""The store in ClickHouse: on a server, or embedded in this process."""

import numpy as np
from numpy.typing import NDArray

from candlemill.store.base import CandleStore
from candlemill.store.candles import CandleTable
from candlemill.store.column_cache import ColumnCache
from candlemill.store.feed import FeedTables
from candlemill.store.jobs import JobTable
from candlemill.store.known_keys import LETTERS, LIMIT, KnownKeys
from candlemill.store.notes import NoteTable
from candlemill.store.outcomes import OutcomeTable
from candlemill.store.paper import PaperTables
from candlemill.store.results import ResultTable


class ClickHouseStore(
    CandleTable, JobTable, OutcomeTable, ResultTable, NoteTable, FeedTables, PaperTables, CandleStore
):
    """Connection to one database with all its tables, a context manager."""

    def keep(self) -> None:
        if self.columns is not None:
            return
        self.columns = ColumnCache()
        if self.embedded:
            self.known_keys = KnownKeys()
            self.load_known_keys()
            self.keep_days()
            self.keep_inserter()

    def load_known_keys(self) -> None:
        """Load `known_keys`, which all writers of this embedded database share."""
        if self.known_keys is not None:
            self.known_keys.jobs.load(self._numbers("backtest_jobs", "job_id"))
            self.known_keys.tasks.load(self._numbers("backtest_slices", "job_id"))
            self.known_keys.results.load(self._numbers("backtest_results", "job_id"))
            self.known_keys.sets.load(self._numbers("slice_outcomes", "set_key"))

    def _numbers(self, table: str, key: str) -> NDArray[np.uint64]:
        number = f"reinterpretAsUInt64(reverse(unhex(substring({key}, 1, {LETTERS}))))"
        sql = f"SELECT DISTINCT {number} FROM {table} LIMIT {LIMIT + 1}"  # noqa: S608
        blocks = [np.asarray(block[0], dtype=np.uint64) for block in self._blocks(sql)]
        return np.concatenate(blocks) if blocks else np.empty(0, dtype=np.uint64)
