"""The shared column cache: its bound, its copies and its keys."""

import numpy as np
from candlemill.store.column_cache import ColumnCache, Key


def key(month: int, digest: str = "d") -> Key:
    return "BTCUSDT", month, digest, "close"


def test_the_least_recently_used_columns_are_removed() -> None:
    columns = ColumnCache(limit=240)
    everything = np.arange(100)
    for month in range(3):
        columns.put(key(month), everything[10 * month : 10 * month + 10])
    assert columns.get(key(0)) is not None  # used: the next one is removed
    columns.put(key(3), everything[:10])
    assert columns.get(key(1)) is None
    found = columns.get(key(2))
    assert found is not None
    assert found.tolist() == list(range(20, 30))


def test_cached_columns_are_read_only_copies() -> None:
    columns = ColumnCache()
    everything = np.arange(100)
    columns.put(key(0), everything[:10])
    everything[:] = 0
    found = columns.get(key(0))
    assert found is not None
    assert (found.base, found.flags.writeable, found.tolist()) == (None, False, list(range(10)))


def test_other_content_has_another_key() -> None:
    columns = ColumnCache()
    columns.put(key(0, "before"), np.array([1]))
    assert columns.get(key(0, "after")) is None
