"""The store: the same behaviour on the embedded engine and on a server."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from candlemill.errors import BadInput, DatabaseLocked, StoreDown, StoreError
from candlemill.io.store import Store
from candlemill.ledger import DONE, EXACT, GUESS, Partial, ResultRow
from candlemill.plan import Day
from conftest import environment, run_cli

MINUTE = 60_000
MIDNIGHT = 1_706_659_200_000  # 2024-01-31
NAMES = ("open", "high", "low", "close", "volume")


def candles(minutes: Any, base: int = 1000) -> dict[str, Any]:
    """Candles at these minutes after MIDNIGHT; prices and volumes tell the minute and `base`."""
    at = np.asarray(minutes, dtype=np.int64)
    prices = {name: base + 10 * at + k for k, name in enumerate(NAMES[:4])}
    return {"t": MIDNIGHT + MINUTE * at, **prices, "volume": (base + at).astype(np.uint64)}


def read(store: Store, symbol: str = "XUSDT", minutes: int = 10**7) -> dict[str, list[int]]:
    columns = store.read_columns(symbol, MIDNIGHT, MIDNIGHT + minutes * MINUTE, NAMES)
    return {name: column.tolist() for name, column in columns.items()}


def as_lists(columns: dict[str, Any]) -> dict[str, list[int]]:
    return {name: column.tolist() for name, column in columns.items()}


# --- the schema -------------------------------------------------------------------------------------------------------

COLUMNS = {
    "market_data_1m": [
        ("symbol", "LowCardinality(String)"),
        ("timestamp", "DateTime64(3)"),
        ("open", "UInt64"),
        ("high", "UInt64"),
        ("low", "UInt64"),
        ("close", "UInt64"),
        ("volume", "UInt64"),
    ],
    "backtest_results": [
        ("job_id", "String"),
        ("strategy_id", "String"),
        ("total_pnl", "Int64"),
        ("sharpe_ratio", "Int64"),
        ("max_drawdown", "Int64"),
        ("execution_time_ms", "UInt64"),
        ("created_at", "DateTime"),
    ],
}
TABLES = {
    "market_data_1m": ("ReplacingMergeTree", "toYYYYMM(timestamp)", "symbol, timestamp"),
    "backtest_results": ("MergeTree", "", "job_id"),
}


@pytest.mark.parametrize("table", sorted(COLUMNS))
def test_tables_are_as_the_architecture_fixes_them(store: Store, table: str) -> None:
    found = store._rows(
        "SELECT name, type, default_expression FROM system.columns "
        "WHERE database = currentDatabase() AND table = {table:String} ORDER BY position",
        {"table": table},
    )
    assert [(name, kind) for name, kind, _ in found][: len(COLUMNS[table])] == COLUMNS[table]
    assert table != "backtest_results" or found[6][2] == "now()"
    (row,) = store._rows(
        "SELECT engine, partition_key, sorting_key FROM system.tables "
        "WHERE database = currentDatabase() AND name = {table:String}",
        {"table": table},
    )
    assert (row[0], row[1], row[2].strip("()")) == TABLES[table]


def test_opening_again_changes_nothing(new_dsn: Callable[[], str]) -> None:
    dsn = new_dsn()
    sql = "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY name"
    with Store(dsn) as store:
        before = store._rows(sql, {})
        store.insert_candles("XUSDT", [candles([1])])
        store._apply_schema()
    with Store(dsn) as store, Store(dsn) as second:
        assert store._rows(sql, {}) == before and len(before) >= 7
        assert read(second) == as_lists(candles([1]))


# --- candles ----------------------------------------------------------------------------------------------------------


def test_candles_come_back_as_they_went_in_with_all_64_bits(store: Store) -> None:
    given = candles(range(2000))
    given["volume"][:3] = [0, 2**63, 2**64 - 1]
    given["close"][7] = 2**62
    store.insert_candles("XUSDT", [given])
    found = store.read_columns("XUSDT", MIDNIGHT, MIDNIGHT + 2000 * MINUTE, NAMES)
    assert as_lists(found) == as_lists(given)
    assert {name: str(column.dtype) for name, column in found.items()} == {
        "t": "int64", **dict.fromkeys(NAMES[:4], "int64"), "volume": "uint64"
    }  # fmt: skip
    assert all(column.flags["C_CONTIGUOUS"] for column in found.values())


def test_a_range_includes_its_start_and_not_its_end_and_only_the_columns_asked_for(store: Store) -> None:
    store.insert_candles("XUSDT", [candles(range(10))])
    found = store.read_columns("XUSDT", MIDNIGHT + 3 * MINUTE, MIDNIGHT + 6 * MINUTE, ("close",))
    assert as_lists(found) == {"t": candles([3, 4, 5])["t"].tolist(), "close": candles([3, 4, 5])["close"].tolist()}
    assert as_lists(store.read_columns("OTHER", 0, 2**42, ("volume",))) == {"t": [], "volume": []}


def test_of_duplicates_the_last_inserted_wins_across_parts_months_and_orders(store: Store) -> None:
    """The second month first, parts that interleave, one that lies inside another, one minute three times."""
    month = 1440  # minutes to 1 February
    expected: dict[int, int] = {}
    parts = [range(month, month + 100), range(0, 60, 2), range(1, 60, 2), range(10, 20), [15], range(50, month + 5, 7)]
    for base, part in enumerate(parts):
        for piece in ([m for m in part if m < month], [m for m in part if m >= month]):
            if piece:
                store.insert_candles("XUSDT", [candles(piece, base=10**6 * (base + 1))])
        expected |= dict.fromkeys(part, base)
    found = read(store)
    assert found["t"] == [MIDNIGHT + m * MINUTE for m in sorted(expected)]
    assert [value // 10**6 - 1 for value in found["close"]] == [expected[m] for m in sorted(expected)]


def test_symbols_do_not_mix_and_are_bound_never_spliced(store: Store) -> None:
    evil = "x' OR 1=1 --"
    store.insert_candles("XUSDT", [candles([1, 2])])
    assert read(store, evil)["t"] == []
    store.insert_candles(evil, [candles([5])])
    store.put_days({evil: [Day(MIDNIGHT, 1, MIDNIGHT, MIDNIGHT, "d")]})
    store.add_symbol(evil, 100)
    assert read(store, evil) == as_lists(candles([5])) and read(store) == as_lists(candles([1, 2]))
    assert (store.symbols(), store.volume_scale(evil), store.volume_scale("XUSDT")) == ([evil], 100, None)
    assert len(store.days(evil)) == 1 and store.days("x") == []


def test_a_volume_scale_is_the_first_ever_given(store: Store) -> None:
    store.add_symbol("SHIBUSDT", 100)
    time.sleep(0.01)
    store.add_symbol("SHIBUSDT", 10**8)
    assert store.volume_scale("SHIBUSDT") == 100


# --- the metadata index -----------------------------------------------------------------------------------------------


def test_days_are_replaced_by_later_ones_and_chosen_by_what_they_touch(store: Store) -> None:
    day = 86_400_000
    days = [
        Day(MIDNIGHT + k * day, 1440, MIDNIGHT + k * day, MIDNIGHT + (k + 1) * day - MINUTE, f"d{k}") for k in (0, 1, 3)
    ]
    store.put_days({"XUSDT": [msgspec.structs.replace(d, digest="") for d in days]})
    assert [d.digest for d in store.days("XUSDT")] == ["", "", ""]
    store.put_days({"XUSDT": days[::-1]})
    assert store.days("XUSDT") == days
    assert store.days("XUSDT", MIDNIGHT + day - 1, MIDNIGHT + day + 1) == days[:2]
    assert store.days("XUSDT", MIDNIGHT + day, MIDNIGHT + day + 1) == days[1:2]
    assert store.days("XUSDT", MIDNIGHT + 2 * day, MIDNIGHT + 3 * day) == []
    assert store.symbols() == ["XUSDT"]


# --- jobs -------------------------------------------------------------------------------------------------------------


def partial(slice_: int, kind: str = GUESS, batch: int = 0, ending: str = "8") -> Partial:
    return Partial("j", batch, kind, slice_, f"task {slice_}/{ending}")


def result(job_id: str, sweep_id: str = "s", **figures: int) -> ResultRow:
    text = msgspec.json.encode({"job_id": job_id, "params": {"fees": 3}, **figures}).decode()
    return ResultRow(job_id, "sma_cross", -(2**63), 2**63 - 1, 0, 2**64 - 1, sweep_id, text)


def test_partials_are_counted_by_task_however_often_they_arrive(store: Store) -> None:
    rows = [partial(k) for k in range(4)] + [partial(0, EXACT), partial(1, ending="9"), partial(0, DONE, batch=1)]
    for chosen in (rows[:3], rows[2:], rows):
        store.put_partials(chosen)
    store.put_partials([])
    assert sorted(store.partials("j"), key=str) == sorted(rows, key=str)
    assert store.partials("j", 1) == rows[-1:] and store.partials("k") == []
    counts = {
        (kind, batch): store.count_partials("j", kind, "/8", batch)
        for kind in (GUESS, EXACT, DONE)
        for batch in (None, 0)
    }
    assert store.count_partials("j", GUESS, "/9") == 1 and store.count_partials("j", GUESS, "") == 5
    assert counts == {(GUESS, None): 4, (GUESS, 0): 4, (EXACT, None): 1, (EXACT, 0): 1, (DONE, None): 1, (DONE, 0): 0}


def test_results_come_back_whole(store: Store) -> None:
    rows = [result("a"), result("b", ""), result("c")]
    store.put_results(rows)
    store.put_results(rows[:1])  # computed again
    assert sorted(store.results(["a", "b", "nope"]), key=str) == sorted(rows[:2], key=str)
    assert (store.results(["nope"]), store.count_sweep("s"), len(store.result_rows("a"))) == ([], 2, 2)
    assert [row.job_id for _, row in store.recent_results(10)] == ["a", "b", "c"]
    assert len(store.recent_results(2)) == 2


def test_an_id_is_completed_from_its_first_letters_where_only_one_has_them(store: Store) -> None:
    store.put_results([result("abcdef01", "feedbeef"), result("abcdef02", "feedbeef")])
    assert store.complete_id("abcdef01") == store.complete_id("abcdef01"[:8]) == "abcdef01"
    assert store.complete_id("feedbe") == "feedbeef"
    for unclear in ("abcdef", "feed", "", "000000"):
        assert store.complete_id(unclear) == unclear


HUGE = [2**64 + 1, 2**64, 5, 0, -3, -(2**63) - 1, -(2**63) - 2, -(2**100)]


@pytest.mark.parametrize("name", ["sharpe_ratio", "fees"])
def test_a_sweep_is_sorted_by_integers_of_any_size(store: Store, name: str) -> None:
    store.put_results([result(f"id{k}", **{name: HUGE[k]}) for k in (3, 0, 7, 4, 1, 6, 2, 5)])
    store.put_results([result("tie", **{name: 5}), result("elsewhere", "t", **{name: 9})])

    def found(descending: bool, limit: int | None = None) -> list[int]:
        return [msgspec.json.decode(row)[name] for row in store.sweep_results("s", (name,), descending, limit)]

    assert found(True) == sorted([*HUGE, 5], reverse=True)
    assert found(False, 3) == sorted(HUGE)[:3]
    ties = [msgspec.json.decode(row)["job_id"] for row in store.sweep_results("s", (name,), True, None)]
    assert ties[2:4] == ["id2", "tie"]


# --- failures, in one line --------------------------------------------------------------------------------------------


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Another process that has the folder open; its id."""
    code = "import sys; from candlemill.io.store import Store; s = Store(sys.argv[1]); print(1, flush=True); input()"
    command = [sys.executable, "-c", code, f"chdb://{folder}"]
    process = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def test_a_folder_that_another_process_has_open_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with held(tmp_path / "db") as owner:
        with pytest.raises(DatabaseLocked, match=f"{tmp_path}/db is open in process {owner}: .*`candlemill db`"):
            Store(f"chdb://{tmp_path / 'db'}")
        done = run_cli("coverage", CANDLEMILL_CLICKHOUSE_DSN=f"chdb://{tmp_path / 'db'}")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    Store(f"chdb://{tmp_path / 'db'}").close()


@pytest.mark.parametrize("dsn", ["http://user:secret@127.0.0.1:1/default", "clickhouse://no.such.host.invalid/x"])
def test_a_server_that_does_not_answer_is_down_at_once(dsn: str) -> None:
    began = time.monotonic()
    with pytest.raises(StoreDown) as caught:
        Store(dsn)
    assert time.monotonic() - began < 5
    assert "does not answer" in str(caught.value) and "CANDLEMILL_CLICKHOUSE_DSN" in str(caught.value)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "dsn", ["chdb:", "chdb://relative", "chdb:///a?b", "garbage", "ftp://h", "http://u:secret@h:x/"]
)
def test_a_dsn_that_cannot_be_meant_is_refused(dsn: str) -> None:
    with pytest.raises(BadInput, match="CANDLEMILL_CLICKHOUSE_DSN") as caught:
        Store(dsn)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["a b", "it's", "50%20", "x#y", "ü"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    with Store(f"chdb://{tmp_path / name}") as store:
        store.insert_candles("XUSDT", [candles([1])])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with Store(f"chdb://{tmp_path / name}") as store:
        assert read(store) == as_lists(candles([1]))


def test_a_file_in_the_folder_s_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=f"{tmp_path}/file"):
        Store(f"chdb://{tmp_path / 'file'}")


def test_what_the_database_refuses_is_told_in_one_line(store: Store) -> None:
    with pytest.raises(StoreError, match=r"the database refused: .*nonsense") as caught:
        store._rows("SELECT nonsense\nFROM\nnowhere", {})
    assert "\n" not in str(caught.value) and not caught.value.retryable
