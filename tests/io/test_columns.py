"""Columns that several readers share: bounded, and each months' content once."""

import numpy as np
from candlemill.io.columns import Columns, Key


def key(month: int, digest: str = "d") -> Key:
    return "BTCUSDT", month, digest, "close"


def test_the_ones_used_last_stay_within_the_limit() -> None:
    columns = Columns(limit=240)
    everything = np.arange(100)
    for month in range(3):
        columns.keep(key(month), everything[10 * month : 10 * month + 10])
    assert columns.get(key(0)) is not None  # used: the next one goes
    columns.keep(key(3), everything[:10])
    assert columns.get(key(1)) is None
    found = columns.get(key(2))
    assert found is not None
    assert found.tolist() == list(range(20, 30))


def test_what_is_kept_is_nobodys_to_change_and_holds_nothing_else() -> None:
    columns = Columns()
    everything = np.arange(100)
    columns.keep(key(0), everything[:10])
    everything[:] = 0
    found = columns.get(key(0))
    assert found is not None
    assert (found.base, found.flags.writeable, found.tolist()) == (None, False, list(range(10)))


def test_other_content_is_another_column() -> None:
    columns = Columns()
    columns.keep(key(0, "before"), np.array([1]))
    assert columns.get(key(0, "after")) is None
