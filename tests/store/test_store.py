"""The store, on the embedded engine and on a server."""

import socket
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
from candlemill.pipeline.rows import DONE, EXACT, GUESS, MERGED_BATCH, BatchState, ResultRow, TaskRecord
from candlemill.store import connection, feed
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.stored_days import Day
from conftest import environment, run_cli
from msgspec.structs import replace

MINUTE = 60_000
MIDNIGHT = 1_706_659_200_000  # 2024-01-31
NAMES = ("open", "high", "low", "close", "volume")


def candles(minutes: Any, base: int = 1000) -> dict[str, Any]:
    """Candles at these minutes after MIDNIGHT; prices and volumes contain the minute and `base`."""
    at = np.asarray(minutes, dtype=np.int64)
    prices = {name: base + 10 * at + k for k, name in enumerate(NAMES[:4])}
    return {"t": MIDNIGHT + MINUTE * at, **prices, "volume": (base + at).astype(np.uint64)}


def read(store: ClickHouseStore, symbol: str = "XUSDT", minutes: int = 10**7) -> dict[str, list[int]]:
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
def test_tables_have_the_columns_of_the_architecture(store: ClickHouseStore, table: str) -> None:
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
    with ClickHouseStore(dsn) as store:
        before = store._rows(sql, {})
        store.insert_candles("XUSDT", [candles([1])])
        store._apply_schema()
    with ClickHouseStore(dsn) as store, ClickHouseStore(dsn) as second:
        assert store._rows(sql, {}) == before and len(before) >= 7
        assert read(second) == as_lists(candles([1]))


def test_a_store_of_an_earlier_release_gets_the_codecs_and_keeps_its_rows(new_dsn: Callable[[], str]) -> None:
    dsn = new_dsn()
    rows = [ResultRow(f"{k:032x}", "s", k, k, k, 0, "sweep", f"[{k}]", number=k) for k in range(1_500)]
    codec = """SELECT compression_codec FROM system.columns
        WHERE database = currentDatabase() AND table = 'backtest_results' AND name = 'result'"""
    with ClickHouseStore(dsn) as store:
        store._command("ALTER TABLE backtest_results MODIFY COLUMN result REMOVE CODEC", {})
        store.put_results(rows)
        assert store._rows(codec, {})[0][0] == ""
    with ClickHouseStore(dsn) as store:
        assert store._rows(codec, {})[0][0] == "CODEC(ZSTD(1))"
        found = list(store.sweep_results("sweep", ("total_pnl",), False, None))
        assert found == [row.result for row in rows]
        blocks = store._rows("SELECT DISTINCT _part FROM backtest_results", {})
        assert len(blocks) == 1  # however many blocks an insert has


# --- candles ----------------------------------------------------------------------------------------------------------


def test_candles_keep_all_64_bits(store: ClickHouseStore) -> None:
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


def test_a_range_excludes_its_end_and_has_only_the_requested_columns(store: ClickHouseStore) -> None:
    store.insert_candles("XUSDT", [candles(range(10))])
    found = store.read_columns("XUSDT", MIDNIGHT + 3 * MINUTE, MIDNIGHT + 6 * MINUTE, ("close",))
    assert as_lists(found) == {"t": candles([3, 4, 5])["t"].tolist(), "close": candles([3, 4, 5])["close"].tolist()}
    assert as_lists(store.read_columns("OTHER", 0, 2**42, ("volume",))) == {"t": [], "volume": []}


def test_the_last_inserted_duplicate_is_used(store: ClickHouseStore) -> None:
    """With interleaved and nested parts, months in reverse order, and one minute three times."""
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


def test_symbols_are_separate_and_are_bound_as_parameters(store: ClickHouseStore) -> None:
    evil = "x' OR 1=1 --"
    store.insert_candles("XUSDT", [candles([1, 2])])
    assert read(store, evil)["t"] == []
    store.insert_candles(evil, [candles([5])])
    store.put_days({evil: [Day(MIDNIGHT, 1, MIDNIGHT, MIDNIGHT, "d")]})
    store.add_symbol(evil, 100)
    assert read(store, evil) == as_lists(candles([5])) and read(store) == as_lists(candles([1, 2]))
    assert (store.symbols(), store.volume_scale(evil), store.volume_scale("XUSDT")) == ([evil], 100, None)
    assert len(store.days(evil)) == 1 and store.days("x") == []


def test_the_first_volume_scale_of_a_symbol_stays(store: ClickHouseStore) -> None:
    store.add_symbol("SHIBUSDT", 100)
    time.sleep(0.01)
    store.add_symbol("SHIBUSDT", 10**8)
    assert store.volume_scale("SHIBUSDT") == 100


# --- the metadata index -----------------------------------------------------------------------------------------------


def test_later_days_replace_earlier_ones_and_are_selected_by_overlap(store: ClickHouseStore) -> None:
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


def partial(slice_: int, kind: str = GUESS, batch: int = 0, ending: str = "8") -> TaskRecord:
    return TaskRecord("j", batch, kind, slice_, f"task {slice_}/{ending}")


def result(job_id: str, sweep_id: str = "s", **figures: int | None) -> ResultRow:
    text = msgspec.json.encode({"job_id": job_id, "params": {"fees": 3}, **figures}).decode()
    return ResultRow(job_id, "sma_cross", -(2**63), 2**63 - 1, 0, 2**64 - 1, sweep_id, text)


def test_duplicate_task_records_count_once(store: ClickHouseStore) -> None:
    rows = [partial(k) for k in range(4)] + [partial(0, EXACT), partial(1, ending="9")]
    rows.append(TaskRecord("j", MERGED_BATCH, DONE, 1, "/8"))
    for chosen in (rows[:3], rows[2:], rows):
        store.put_task_records(chosen)
    store.put_task_records([])
    assert sorted(store.partials("j"), key=str) == sorted(rows, key=str)
    assert store.partials("j", MERGED_BATCH) == rows[-1:] and store.partials("k") == []
    assert store.tasks_done("j") == len(rows) and store.tasks_done("k") == 0
    places = [(batch, tasks) for batch in (0, 1) for tasks in ("/8", "/9")]
    states = {place: store.batch_state("j", *place, "/8", 2) for place in places}
    assert states == {
        (0, "/8"): BatchState(4, False, 1, frozenset(f"task {k}/8" for k in range(4))),
        (0, "/9"): BatchState(1, False, 1),
        (1, "/8"): BatchState(0, True, 1),
        (1, "/9"): BatchState(0, True, 1),
    }
    assert store.batch_state("j", 1, "/8", "/9", 2) == BatchState(0, False, 0)


def test_results_keep_all_fields(store: ClickHouseStore) -> None:
    rows = [result("a"), result("b", ""), result("c")]
    store.put_results(rows)
    store.put_results(rows[:1])  # computed again
    assert sorted(store.results(["a", "b", "nope"]), key=str) == sorted(rows[:2], key=str)
    assert (store.results(["nope"]), store.count_sweep("s"), len(store.result_rows("a"))) == ([], 2, 2)
    assert [row.job_id for _, row in store.recent_results(10)] == ["b"]  # the others are a sweep's sets
    assert [sweep for _, sweep in store.recent_sweeps(10)] == ["s"] and store.recent_sweeps(0) == []


def test_a_unique_abbreviated_id_is_completed(store: ClickHouseStore) -> None:
    store.put_results([result("abcdef01", "feedbeef"), result("abcdef02", "feedbeef")])
    assert store.complete_id("abcdef01") == store.complete_id("abcdef01"[:8]) == "abcdef01"
    assert store.complete_id("feedbe") == "feedbeef"
    for unclear in ("abcdef", "feed", "", "000000"):
        assert store.complete_id(unclear) == unclear


HUGE = [2**64 + 1, 2**64, 5, 0, -3, -(2**63) - 1, -(2**63) - 2, -(2**100)]


@pytest.mark.parametrize("name", ["sharpe_ratio", "fees"])
def test_a_sweep_is_sorted_by_integers_of_any_size(store: ClickHouseStore, name: str) -> None:
    store.put_results([result(f"id{k}", **{name: HUGE[k]}) for k in (3, 0, 7, 4, 1, 6, 2, 5)])
    store.put_results([result("tie", **{name: 5}), result("elsewhere", "t", **{name: 9})])

    def found(descending: bool, limit: int | None = None) -> list[int]:
        return [msgspec.json.decode(row)[name] for row in store.sweep_results("s", (name,), descending, limit)]

    assert found(True) == sorted([*HUGE, 5], reverse=True)
    assert found(False, 3) == sorted(HUGE)[:3]
    ties = [msgspec.json.decode(row)["job_id"] for row in store.sweep_results("s", (name,), True, None)]
    assert ties[2:4] == ["id2", "tie"]


def test_undefined_figures_come_last_and_ties_are_sorted_by_number(store: ClickHouseStore) -> None:
    rows = [("c", 7, 1), ("a", None, 3), ("b", 7, 0), ("d", -1, 2), ("e", None, 4)]
    store.put_results([replace(result(job_id, m=figure), number=number) for job_id, figure, number in rows])

    def found(path: tuple[str, ...], descending: bool) -> list[str]:
        return [msgspec.json.decode(row)["job_id"] for row in store.sweep_results("s", path, descending, None)]

    assert found(("m",), True) == ["b", "c", "d", "a", "e"]
    assert found(("m",), False) == ["d", "b", "c", "a", "e"]
    assert found((), False) == ["b", "c", "d", "a", "e"]
    assert [row[0] for row in store.sweep_figures("s", ("m",))] == ["b", "c", "d", "a", "e"]


# --- failures ---------------------------------------------------------------------------------------------------------


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Open the folder in another process; yields its id."""
    code = "import sys; from candlemill.store.clickhouse import ClickHouseStore as S; s = S(sys.argv[1])"
    code += "; print(1, flush=True); input()"
    command = [sys.executable, "-c", code, f"chdb://{folder}"]
    process = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def test_the_error_of_a_locked_folder_names_the_way_out(tmp_path: Path) -> None:
    with held(tmp_path / "db") as owner:
        with pytest.raises(DatabaseLocked, match=f"{tmp_path}/db is open in process {owner}: .*`candlemill db`"):
            ClickHouseStore(f"chdb://{tmp_path / 'db'}")
        done = run_cli("coverage", CANDLEMILL_CLICKHOUSE_DSN=f"chdb://{tmp_path / 'db'}")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    ClickHouseStore(f"chdb://{tmp_path / 'db'}").close()


@pytest.mark.parametrize("dsn", ["http://user:secret@127.0.0.1:1/default", "clickhouse://no.such.host.invalid/x"])
def test_an_unreachable_server_fails_at_once(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def looked_up(host: str, *more: Any, **options: Any) -> Any:
        tries.append(host)
        if host.endswith(".invalid"):  # the name server of a machine may be slow
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return lookup(host, *more, **options)

    lookup = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    with pytest.raises(StoreDown) as caught:
        ClickHouseStore(dsn)
    assert len(tries) <= 2, "one attempt and one retry"
    assert "does not answer" in str(caught.value) and "CANDLEMILL_CLICKHOUSE_DSN" in str(caught.value)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "dsn", ["chdb:", "chdb://relative", "chdb:///a?b", "garbage", "ftp://h", "http://u:secret@h:x/"]
)
def test_an_invalid_dsn_is_rejected(dsn: str) -> None:
    with pytest.raises(BadInput, match="CANDLEMILL_CLICKHOUSE_DSN") as caught:
        ClickHouseStore(dsn)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["a b", "it's", "50%20", "x#y", "ü"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    with ClickHouseStore(f"chdb://{tmp_path / name}") as store:
        store.insert_candles("XUSDT", [candles([1])])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with ClickHouseStore(f"chdb://{tmp_path / name}") as store:
        assert read(store) == as_lists(candles([1]))


def test_a_file_instead_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=f"{tmp_path}/file"):
        ClickHouseStore(f"chdb://{tmp_path / 'file'}")


def test_errors_of_the_database_have_one_line(store: ClickHouseStore) -> None:
    with pytest.raises(StoreError, match=r"the database refused: .*nonsense") as caught:
        store._rows("SELECT nonsense\nFROM\nnowhere", {})
    assert "\n" not in str(caught.value) and not caught.value.retryable


def test_the_last_digest_of_a_file_is_valid_although_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as store:
        now = 1_700_000_000_000
        for k, sha in enumerate(("old", "corrected", "again")):
            monkeypatch.setattr(feed, "clock_ms", lambda k=k: now - k * 3_600_000)
            store.put_archive_files({"X-1m-2024-01.zip": sha, f"Y-{k}.zip": sha})
            assert store.archive_files(["X-1m-2024-01.zip"]) == {"X-1m-2024-01.zip": sha}
        store.put_archive_files({})


def test_days_of_candles_outside_spans_are_all_found(store: ClickHouseStore) -> None:
    """However many spans there are, of which one statement bounds only some; those inside may be listed too."""
    day = 1440
    store.insert_candles("GAPS", [candles([0, 2 * day - 1, 2 * day, 400 * day])])
    every_other = [(MIDNIGHT + k * day * MINUTE, MIDNIGHT + (k + 1) * day * MINUTE) for k in range(0, 200, 2)]
    days = [MIDNIGHT + k * day * MINUTE for k in (0, 1, 2, 400)]
    assert store.days_of_candles("GAPS") == days
    assert set(days) >= set(store.days_of_candles("GAPS", every_other)) >= {days[1], days[3]}
    assert store.days_of_candles("GAPS", [(days[0], days[2] + day * MINUTE)]) == [days[3]]
    assert store.days_of_candles("GAPS", [(days[0], days[0] + 1_000 * day * MINUTE)]) == []


@pytest.mark.parametrize("symbols", [1, 300])
def test_rows_of_many_symbols_in_one_insert(store: ClickHouseStore, symbols: int) -> None:
    """The dictionary of a block's symbols has places of one byte or of two."""
    parts = {f"M{symbols}X{k}": candles([k, k + 1], base=1000 + k) for k in range(symbols)}
    store.insert_rows(list(parts.items()))
    for symbol in [*parts][:1] + [*parts][-2:]:
        assert read(store, symbol) == as_lists(parts[symbol])
    count = "SELECT uniqExact(symbol) FROM market_data_1m WHERE startsWith(symbol, {start:String})"
    assert store._rows(count, {"start": f"M{symbols}X"}) == [(symbols,)]


def test_a_long_job_merges_its_results_before_there_are_too_many_parts(
    store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "UNMERGED_LIMIT", 20)
    parts = (
        "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 'backtest_results' AND active"
    )
    before = store._rows(parts, {})[0][0]
    with store.merges_paused():
        for k in range(20):
            store.put_results([ResultRow(f"{k:032x}", "s", k, k, k, 0, "long", "[]", number=k)])
        assert not store.embedded or store._rows(parts, {})[0][0] == before + 20  # a server merges as it likes
        store.put_results([ResultRow(f"{20:032x}", "s", 20, 20, 20, 0, "long", "[]", number=20)])
        end = time.monotonic() + 300
        while store._rows(parts, {})[0][0] > before + 12 and time.monotonic() < end:
            time.sleep(0.05)
        assert store._rows(parts, {})[0][0] <= before + 12
    assert store.count_sweep("long") == 21
