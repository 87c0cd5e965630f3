"""Which keys the tables are certain not to have, known without asking.

A job that is asked for is mostly a new one, of a set that is new too. Nobody but this process writes to an embedded
database, so it can know that; asking would be half of the time until the answer. Eight bytes a key are kept.
"""

import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

LETTERS = 16  # hexadecimal, from a key's start, that are kept of it
LIMIT = 4_000_000  # keys of a table: of one that has more nothing is known
NOTED_LIMIT = 50_000

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


class Seen:
    """The tables that are asked about each job."""

    def __init__(self) -> None:
        self.jobs = Keys()
        self.sets = Keys()
