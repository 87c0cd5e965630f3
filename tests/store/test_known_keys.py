"""Known keys: absent rows need no query, and all stored rows are found."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from candlemill.errors import StoreDown
from candlemill.pipeline.rows import JobRow, OutcomeRow, ResultRow, TaskRecord
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.known_keys import KeySet, KnownKeys
from hypothesis import given, settings
from hypothesis import strategies as st

KEYS = st.sets(st.integers(0, 2**64 - 1).map(lambda n: f"{n:016x}" + "0" * 16), max_size=20)


@given(KEYS, KEYS, KEYS)
def test_may_have_finds_every_key(stored: set[str], noted: set[str], others: set[str]):
    keys = KeySet()
    assert keys.may_have(others) == list(others)  # before `load`, all keys are possible
    keys.add(noted)
    keys.load(np.array([int(key[:16], 16) for key in stored], dtype=np.uint64))
    assert set(keys.may_have(stored | noted | others)) == stored | noted


def test_a_store_with_known_keys(database: ClickHouseStore, monkeypatch: Any):
    store, old, new, none = database, "f" * 32, "e" * 32, "d" * 32
    monkeypatch.setattr("candlemill.store.known_keys.ADDED_LIMIT", 0)
    store.put_job(row := JobRow(old, "done", "", "", "", 5, attempt=5))
    store.put_outcomes([outcome(old)])
    store.known_keys = KnownKeys()
    store.put_outcomes([outcome(new)])
    assert store.job(old) == row
    store.load_known_keys()
    queries = recorded_queries(store, monkeypatch)
    assert (store.job(none), store.known_slices([none], "code"), store.other_code([none], "c")) == (None, [], False)
    assert not queries
    store.put_job(JobRow(new, "planned", "", "", "", 5, attempt=5))
    assert set(store.job_rows([old, new, none])) == {old, new}
    assert [sorted(one.sets) for one in store.known_slices([old, new, none], "code")] == [sorted([old, new])]
    assert len(queries) == 2


STATES = st.sampled_from(["accepted", "planned", "done", "failed"])
ROW = st.builds(
    lambda job, attempt, state: JobRow(job * 32, state, "", "", "", 5, attempt=attempt),
    st.sampled_from("123"),
    st.integers(1, 2),
    STATES,
)
DEEDS = st.lists(ROW | st.sampled_from("123") | st.tuples(ROW, st.booleans()), max_size=12)


@settings(max_examples=15)
@given(DEEDS)
def test_known_job_rows_equal_the_database(database: ClickHouseStore, deeds: list[Any]):
    """Rows are written, also by inserts that fail before or after the write; jobs are deleted."""
    ids = [name * 32 for name in "123"]
    database.known_keys = None
    for name in ids:
        database.delete_job(name)
    database.known_keys = KnownKeys()
    database.put_job(JobRow(ids[0], "planned", "", "", "", 5, attempt=1))
    database.load_known_keys()
    for deed in deeds:
        match deed:
            case JobRow():
                database.put_job(deed)
            case (JobRow() as row, bool() as after):
                fail_to_put(database, row, after)
            case str():
                database.delete_job(deed * 32)
        known = database.job_rows(ids)
        database.known_keys, seen = None, database.known_keys
        assert known == database.job_rows(ids)
        database.known_keys = seen


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStore]:
    with ClickHouseStore(f"chdb://{tmp_path_factory.mktemp('seen')}/db") as store:
        yield store


def fail_to_put(store: ClickHouseStore, row: JobRow, after: bool) -> None:
    insert = store._insert

    def broken(table: str, rows: Any) -> None:
        if after:
            insert(table, rows)
        raise StoreDown("broken off")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoreDown):
        patch.setattr(store, "_insert", broken)
        store.put_job(row)


def test_a_store_with_known_tasks_and_results(database: ClickHouseStore, monkeypatch: Any):
    job = "9" * 32
    database.known_keys = KnownKeys()
    database.load_known_keys()
    queries = recorded_queries(database, monkeypatch)
    assert (database.partials(job), database.has_result(job)) == ([], False)
    assert not queries
    database.put_task_records([task := TaskRecord(job, 0, "done", 0, "/1x1")])
    database.put_results([ResultRow(job, "sma_cross", 1, 2, 3, 4, "", "{}", "")])
    assert (database.partials(job), database.has_result(job)) == ([task], True)


def outcome(key: str) -> OutcomeRow:
    return OutcomeRow(key, "code", "slice", "start", 0, 0, 1, True, "end", "[]", "[]", "")


def recorded_queries(store: ClickHouseStore, monkeypatch: Any) -> list[str]:
    """Queries of the database from now on."""
    queries: list[str] = []
    rows = store._rows
    monkeypatch.setattr(store, "_rows", lambda sql, bound: queries.append(sql) or rows(sql, bound))
    return queries
