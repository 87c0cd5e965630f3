"""In-memory keys that prove a row absent, which saves a query of an embedded database.

Most requested jobs are new. Only this process writes to an embedded database, so it can remember the keys of its tables
(8 bytes each) and the states of the jobs that it started. The queries would take half of a request's time.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from candlemill.pipeline.job_state import later
from candlemill.pipeline.rows import JobRow

LETTERS = 16  # leading hexadecimal digits of a key that are stored
LIMIT = 4_000_000  # keys of a table; larger tables are always queried
ADDED_LIMIT = 50_000
ROWS_LIMIT = 2_048

Numbers = NDArray[np.uint64]


class KeySet:
    """Keys of one table. Keys that are written during `load` must be added before it."""

    def __init__(self) -> None:
        self._stored: Numbers | None = None
        self._added: set[int] = set()
        self._lock = threading.Lock()

    def load(self, stored: Numbers) -> None:
        """Set the numbers of the keys in the table."""
        with self._lock:
            self._stored = np.unique(stored) if len(stored) <= LIMIT else None

    def add(self, keys: Iterable[str]) -> None:
        """Add keys, before they are written."""
        with self._lock:
            self._add(keys)

    def add_new(self, keys: Collection[str]) -> list[str]:
        """Add keys, before they are written; return those that the table certainly did not have."""
        with self._lock:
            new = [key for key in keys if not self._contains(_number(key))]
            self._add(keys)
            return new

    def _add(self, keys: Iterable[str]) -> None:
        self._added.update(map(_number, keys))
        if self._stored is not None and len(self._added) > ADDED_LIMIT:
            more = np.fromiter(self._added, np.uint64, len(self._added))
            self._stored = np.union1d(self._stored, more) if len(self._stored) < LIMIT else None
            self._added = set()

    def may_have(self, keys: Iterable[str]) -> list[str]:
        """Return the keys that may be in the table; the others certainly are not."""
        with self._lock:
            return [key for key in keys if self._contains(_number(key))]

    def _contains(self, number: int) -> bool:
        if self._stored is None or number in self._added:
            return True
        at = int(np.searchsorted(self._stored, np.uint64(number)))
        return at < len(self._stored) and int(self._stored[at]) == number


def _number(key: str) -> int:
    """Number of a key, as computed by `ClickHouseStore.load_known_keys`."""
    return int(key[:LETTERS], 16)


class JobRowCache:
    """Valid rows of the latest jobs that this process started; other jobs must be queried."""

    def __init__(self) -> None:
        self._rows: OrderedDict[str, JobRow | None] = OrderedDict()  # None: the first row is being written
        self._lock = threading.Lock()

    def begin(self, job_ids: Iterable[str]) -> None:
        """Add new jobs, which are certainly not in the table, before their first row is written."""
        with self._lock:
            for job_id in job_ids:
                self._rows.setdefault(job_id, None)
            while len(self._rows) > ROWS_LIMIT:
                self._rows.popitem(last=False)

    def wrote(self, rows: Sequence[JobRow]) -> None:
        with self._lock:
            for row in rows:
                if row.job_id in self._rows:
                    self._rows[row.job_id] = later(self._rows[row.job_id], row)

    def forget(self, job_ids: Iterable[str]) -> None:
        """Remove jobs that were deleted, or whose write failed."""
        with self._lock:
            for job_id in job_ids:
                self._rows.pop(job_id, None)

    def of(self, job_ids: Iterable[str]) -> dict[str, JobRow]:
        with self._lock:
            return {job_id: row for job_id in job_ids if (row := self._rows.get(job_id)) is not None}


class KnownKeys:
    """Known keys of the tables that are queried for each job."""

    def __init__(self) -> None:
        self.jobs = KeySet()
        self.tasks = KeySet()  # job ids of the task records
        self.results = KeySet()
        self.sets = KeySet()
        self.rows = JobRowCache()
