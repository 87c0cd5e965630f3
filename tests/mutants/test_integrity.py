"""What candles that are read are compared by, without a database."""

import numpy as np
from candlemill.engine.candles import DAY_MS
from candlemill.store.candle_writer import CANDLE_COLUMNS, count_days
from candlemill.store.integrity import differs_from
from candlemill.stored_days import Day

T = 20_000 * DAY_MS + 60_000 * np.arange(3 * 1440, dtype=np.int64)
COLUMNS = {"t": T, "volume": np.full(len(T), 7, np.uint64)}
COLUMNS |= {name: np.full(len(T), 7, np.int64) for name in CANDLE_COLUMNS if name not in ("symbol", *COLUMNS)}


def test_days_differ_by_rows_bounds_and_content() -> None:
    days = count_days(COLUMNS)
    assert differs_from(COLUMNS, days) == []
    some = {name: COLUMNS[name] for name in ("t", "close")}
    for gone in (0, 100, 1439, 1440):  # the first, one in the middle, the last of a day, the first of the next
        less = {name: np.delete(column, gone) for name, column in some.items()}
        assert [(one.start, one.stored_rows) for one in differs_from(less, days)] == [(days[gone // 1440].start, 1439)]
    other = COLUMNS | {"close": COLUMNS["close"] + (T[2000] == T)}
    assert [one.start for one in differs_from(other, days)] == [days[1].start]
    assert differs_from({name: other[name] for name in ("t", "close")}, days) == []


def test_days_that_are_being_written_are_not_compared() -> None:
    days = count_days(COLUMNS)
    written = [days[0], Day(days[1].start, 0, days[1].first, days[1].first, ""), days[2]]
    assert differs_from(COLUMNS, written) == []
    assert differs_from(COLUMNS, days[:2])[0].start == days[2].start, "of a day that the index does not have"
