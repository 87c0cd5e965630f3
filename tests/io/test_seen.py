"""What is certain not to be in the tables is not asked for; all that is, is found."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candlemill.errors import StoreDown
from candlemill.io.seen import Keys, Seen
from candlemill.io.store import Store
from candlemill.ledger import JobRow, OutcomeRow, Partial, ResultRow
from hypothesis import given, settings
from hypothesis import strategies as st

KEYS = st.sets(st.integers(0, 2**64 - 1).map(lambda n: f"{n:016x}" + "0" * 16), max_size=20)


@given(KEYS, KEYS, KEYS)
def test_no_key_is_missed(stored: set[str], noted: set[str], others: set[str]):
    keys = Keys()
    assert keys.perhaps(others) == list(others)  # nothing is known before they are read
    keys.note(noted)
    keys.are(np.array([int(key[:16], 16) for key in stored], dtype=np.uint64))
    assert set(keys.perhaps(stored | noted | others)) == stored | noted


def test_a_store_that_knows_its_keys(tmp_path: Path, monkeypatch: Any):
    old, new, none = "f" * 32, "1" * 32, "2" * 32
    monkeypatch.setattr("candlemill.io.seen.NOTED_LIMIT", 0)
    with Store(f"chdb://{tmp_path}/db") as store:
        store.put_job(row := JobRow(old, "done", "", "", "", 5, attempt=5))
        store.put_outcomes([outcome(old)])
        store.seen = Seen()
        store.put_outcomes([outcome(new)])
        assert store.job(old) == row
        store.learn_keys()
        asked = asking(store, monkeypatch)
        assert (store.job(none), store.known_slices([none], "code"), store.other_code([none], "c")) == (None, [], False)
        assert not asked
        store.put_job(JobRow(new, "planned", "", "", "", 5, attempt=5))
        assert set(store.job_rows([old, new, none])) == {old, new}
        assert [sorted(one.sets) for one in store.known_slices([old, new, none], "code")] == [sorted([old, new])]
        assert len(asked) == 2


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
def test_what_is_known_of_jobs_is_what_the_database_has(database: Store, deeds: list[Any]):
    """Rows are written, by insertions that fail before or after they are in, too; and jobs are removed."""
    ids = [name * 32 for name in "123"]
    database.seen = None
    for name in ids:
        database.delete_job(name)
    database.seen = Seen()
    database.put_job(JobRow(ids[0], "planned", "", "", "", 5, attempt=1))
    database.learn_keys()
    for deed in deeds:
        match deed:
            case JobRow():
                database.put_job(deed)
            case (JobRow() as row, bool() as after):
                fail_to_put(database, row, after)
            case str():
                database.delete_job(deed * 32)
        known = database.job_rows(ids)
        database.seen, seen = None, database.seen
        assert known == database.job_rows(ids)
        database.seen = seen


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store(f"chdb://{tmp_path_factory.mktemp('seen')}/db") as store:
        yield store


def fail_to_put(store: Store, row: JobRow, after: bool) -> None:
    insert = store._insert

    def broken(table: str, rows: Any) -> None:
        if after:
            insert(table, rows)
        raise StoreDown("broken off")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(StoreDown):
        patch.setattr(store, "_insert", broken)
        store.put_job(row)


def test_a_store_that_knows_its_tasks_and_results(database: Store, monkeypatch: Any):
    job = "9" * 32
    database.seen = Seen()
    database.learn_keys()
    asked = asking(database, monkeypatch)
    assert (database.partials(job), database.has_result(job)) == ([], False)
    assert not asked
    database.put_partials([task := Partial(job, 0, "done", 0, "/1x1")])
    database.put_results([ResultRow(job, "sma_cross", 1, 2, 3, 4, "", "{}", "")])
    assert (database.partials(job), database.has_result(job)) == ([task], True)


def outcome(key: str) -> OutcomeRow:
    return OutcomeRow(key, "code", "slice", "start", 0, 0, 1, True, "end", "[]", "[]", "")


def asking(store: Store, monkeypatch: Any) -> list[str]:
    """The questions to the database from now on."""
    asked: list[str] = []
    rows = store._rows
    monkeypatch.setattr(store, "_rows", lambda sql, bound: asked.append(sql) or rows(sql, bound))
    return asked
