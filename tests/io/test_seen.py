"""What is certain not to be in the tables is not asked for; all that is, is found."""

from pathlib import Path
from typing import Any

import numpy as np
from candlemill.io.seen import Keys, Seen
from candlemill.io.store import Store
from candlemill.ledger import JobRow, OutcomeRow
from hypothesis import given
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
        assert (store.job(none), store.known_slices([none], "code")) == (None, [])
        assert not asked
        store.put_job(JobRow(new, "planned", "", "", "", 5, attempt=5))
        assert set(store.job_rows([old, new, none])) == {old, new}
        assert [sorted(one.sets) for one in store.known_slices([old, new, none], "code")] == [sorted([old, new])]
        assert len(asked) == 2


def outcome(key: str) -> OutcomeRow:
    return OutcomeRow(key, "code", "slice", "start", 0, 0, 1, True, "end", "[]", "[]", "")


def asking(store: Store, monkeypatch: Any) -> list[str]:
    """The questions to the database from now on."""
    asked: list[str] = []
    rows = store._rows
    monkeypatch.setattr(store, "_rows", lambda sql, bound: asked.append(sql) or rows(sql, bound))
    return asked
