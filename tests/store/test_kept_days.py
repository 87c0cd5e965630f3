"""A store that stays open keeps its day index, and follows every write of its process."""

from pathlib import Path

import pytest
from candlemill.engine.candles import DAY_MS
from candlemill.errors import StoreError
from candlemill.pipeline.rows import JobRow
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.stored_days import Day


def days(*numbers: int) -> list[Day]:
    return [Day(k * DAY_MS, 5, k * DAY_MS, k * DAY_MS + 60_000, f"{k:064x}") for k in numbers]


def test_a_kept_index_equals_the_table_whoever_writes_it(tmp_path: Path):
    folder = tmp_path / "db"
    with ClickHouseStore(f"chdb://{folder}") as kept, ClickHouseStore(f"chdb://{folder}/../db") as other:
        kept.keep()
        other.put_days({"X": days(100, 101, 103)})
        first = kept.days("X")
        assert first == days(100, 101, 103)
        assert kept.days("X") is first
        for writer, number in ((other, 104), (kept, 105), (other, 102)):
            writer.put_days({"X": days(number), "Y": days(number)})
            assert kept.days("X") == other.days("X")
            assert kept.days("Y") == other.days("Y")
        edges = [None, *(k * DAY_MS + shift for k in (100, 102, 105, 106) for shift in (-1, 0, 1))]
        for start in edges:
            for end in edges:
                assert kept.days("X", start, end) == other.days("X", start, end), (start, end)


def test_rows_that_a_kept_store_inserts_are_those_of_others(tmp_path: Path):
    rows = [JobRow(k * 32, "done", '{"a": "é\\n"}', "", "", 5, attempt=5) for k in "12"]
    with ClickHouseStore(f"chdb://{tmp_path}/db") as store:
        store.put_jobs(rows[:1], [1_734_567_890_123])
        store.keep()
        store.put_jobs(rows[1:], [1_734_567_890_123])
        assert [store.job_history(row.job_id) for row in rows] == [[(1_734_567_890_123, row)] for row in rows]
        with pytest.raises(StoreError, match="nothing_like_it"):
            store._insert("nothing_like_it", [{"a": 1}])
        store.put_job(rows[1])  # the handle is free again
