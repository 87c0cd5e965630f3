"""What is certain about the tables of an embedded database, known without asking.

A job that is asked for is mostly a new one, of a set that is new too. Nobody but this process writes to an embedded
database, so it can know that, and what has become of the jobs that began here; asking would be half of the time until
the answer. Eight bytes a key are kept.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from candlemill.ledger import JobRow
from candlemill.states import later

LETTERS = 16  # hexadecimal, from a key's start, that are kept of it
LIMIT = 4_000_000  # keys of a table: of one that has more nothing is known
NOTED_LIMIT = 50_000
ROWS_LIMIT = 2_048

Numbers = NDArray[np.uint64]


class Keys:
    """The keys of one table. What is written while they are read has to be noted already."""

    def __init__(self) -> None:
        self._stored: Numbers | None = None
        self._noted: set[int] = set()
        self._lock = threading.Lock()

    def are(self, stored: Numbers) -> None:
        """The numbers of the keys that the table has."""
        with self._lock:
            self._stored = np.unique(stored) if len(stored) <= LIMIT else None

    def note(self, keys: Iterable[str]) -> None:
        """To be called before they are written."""
        with self._lock:
            self._add(keys)

    def note_new(self, keys: Collection[str]) -> list[str]:
        """The same; those that the table was certain not to have until now."""
        with self._lock:
            new = [key for key in keys if not self._may_have(_number(key))]
            self._add(keys)
            return new

    def _add(self, keys: Iterable[str]) -> None:
        self._noted.update(map(_number, keys))
        if self._stored is not None and len(self._noted) > NOTED_LIMIT:
            more = np.fromiter(self._noted, np.uint64, len(self._noted))
            self._stored = np.union1d(self._stored, more) if len(self._stored) < LIMIT else None
            self._noted = set()

    def perhaps(self, keys: Iterable[str]) -> list[str]:
        """Those that the table may have."""
        with self._lock:
            return [key for key in keys if self._may_have(_number(key))]

    def _may_have(self, number: int) -> bool:
        if self._stored is None or number in self._noted:
            return True
        at = int(np.searchsorted(self._stored, np.uint64(number)))
        return at < len(self._stored) and int(self._stored[at]) == number


def _number(key: str) -> int:
    """As the database makes it of a key, see `Store.learn_keys`."""
    return int(key[:LETTERS], 16)


class Rows:
    """The rows that count of jobs that began here, the latest ones. Of a job that was there before, or has left this
    memory, nothing is known any more: others may have written of it."""

    def __init__(self) -> None:
        self._rows: OrderedDict[str, JobRow | None] = OrderedDict()  # None: the first one is being written
        self._lock = threading.Lock()

    def begin(self, job_ids: Iterable[str]) -> None:
        """These jobs are certain not to be there, and are about to be written."""
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
        """They were removed, or nobody knows whether they were written."""
        with self._lock:
            for job_id in job_ids:
                self._rows.pop(job_id, None)

    def of(self, job_ids: Iterable[str]) -> dict[str, JobRow]:
        with self._lock:
            return {job_id: row for job_id in job_ids if (row := self._rows.get(job_id)) is not None}


class Seen:
    """The tables that are asked about each job."""

    def __init__(self) -> None:
        self.jobs = Keys()
        self.tasks = Keys()  # ids of jobs that have some
        self.results = Keys()
        self.sets = Keys()
        self.rows = Rows()
