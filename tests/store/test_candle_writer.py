"""Several writers of the same day: a digest always matches the stored rows, wherever a writer is killed."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candlemill.config import DSN_VARIABLE
from candlemill.pipeline.context import Unchanged
from candlemill.store import candle_writer
from candlemill.store.base import PRICES
from candlemill.store.candle_writer import (
    Columns,
    Written,
    count_days,
    current_days,
    open_writer,
    recount,
    touched_days,
    write,
)
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.writers import has_ended
from conftest import environment, run_cli

MIDNIGHT = 1_709_164_800_000
DAY_MS = 86_400_000
MINUTE_MS = 60_000


def part(first: int, length: int, price: int = 10**10) -> Columns:
    t = MIDNIGHT + MINUTE_MS * np.arange(first, first + length, dtype=np.int64)
    columns: Columns = {name: np.full(length, price, np.int64) for name in PRICES}
    return {"t": t, **columns, "volume": np.arange(length, dtype=np.uint64)}


class Writer:
    """The single steps of one process: open, mark, insert, close, count."""

    def __init__(self, store: ClickHouseStore, name: str, rows: Columns) -> None:
        self.store, self.name, self.rows = store, name, rows
        self.steps = self._steps()

    def _steps(self) -> Iterator[None]:
        days = touched_days({"X": self.rows})
        with as_writer(self.name):
            opened = candle_writer.open_writer(self.store, days, MIDNIGHT, MIDNIGHT + DAY_MS - 1)
        stages = stage_calls(self.store, opened)
        yield from stages(self.name)
        self.store.insert_rows([("X", self.rows)])
        yield
        with as_writer(self.name):
            opened.__exit__(None, None, None)
        yield
        yield from counting(self.store, self.name, days)

    def go(self) -> bool:
        return next(self.steps, "end") != "end"


class as_writer:
    """Act as another writer in the block."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(candle_writer, "WRITER", self.name)

    def __exit__(self, *_: object) -> None:
        self.patch.undo()


def stage_calls(store: ClickHouseStore, opened: object) -> Callable[[str], Iterator[None]]:
    """Open, with a pause before the marks."""

    def run(name: str) -> Iterator[None]:
        done: list[Callable[[], None]] = []
        real_put = store.put_days
        with as_writer(name), pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "put_days", lambda found, versions: done.append(lambda: real_put(found, versions)))
            opened.__enter__()  # type: ignore[attr-defined]
        yield
        done[0]()
        yield

    return run


def later(done: list[Callable[[], None]], real: Callable[..., None]) -> Callable[..., None]:
    """Return a function that makes the call later."""
    return lambda *arguments: done.append(lambda: real(*arguments))


def counting(store: ClickHouseStore, name: str, days: dict[str, list[int]]) -> Iterator[None]:
    """Count, with a pause between reading the rows and writing the digest."""
    done: list[Callable[[], None]] = []
    real_put = store.put_days
    with as_writer(name), pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "put_days", later(done, real_put))
        recount(store, days)
    yield
    for put in done:
        put()


def true(store: ClickHouseStore) -> None:
    """Check that every digest that is not empty matches the stored rows."""
    columns = store.read_columns("X", MIDNIGHT, MIDNIGHT + DAY_MS, candle_writer.CANDLE_COLUMNS[1:])
    counted = {day.start: day for day in count_days(columns)}
    for day in store.days("X"):
        assert not day.digest or counted.get(day.start) == day


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClickHouseStore]:
    """Embedded store that behaves like a server with several writers."""
    with ClickHouseStore(f"chdb://{tmp_path_factory.mktemp('writers') / 'db'}") as store:
        monkeypatch.setattr(store, "embedded", False)
        monkeypatch.setattr(store, "_insert", lambda table, rows: plain_insert(store, table, rows))
        yield store


def plain_insert(store: ClickHouseStore, table: str, rows: object) -> None:
    store.embedded = True
    try:
        ClickHouseStore._insert(store, table, rows)  # type: ignore[arg-type]
    finally:
        store.embedded = False


@pytest.mark.parametrize("seed", range(3))
def test_two_writers_in_any_order_with_a_kill_at_any_step(shared: ClickHouseStore, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(6):
        shared._client.command("TRUNCATE TABLE market_data_1m")
        shared._client.command("TRUNCATE TABLE coverage_days")
        shared._client.command("TRUNCATE TABLE candle_writers")
        writers = [Writer(shared, "A", part(0, 5)), Writer(shared, "B", part(3, 6, price=2 * 10**10))]
        dies = int(rng.integers(0, 2)) if rng.random() < 0.5 else -1
        life = int(rng.integers(1, 6))
        steps = [0, 0]
        alive = [0, 1]
        while alive:
            k = alive[int(rng.integers(0, len(alive)))]
            if k == dies and steps[k] >= life:
                alive.remove(k)
                continue
            steps[k] += 1
            if not writers[k].go():
                alive.remove(k)
            if not (dies >= 0 and dies not in alive):
                true_unless_under_way(shared)
        true(shared)
        # Jobs get correct days, and so does the index after the lease of a killed writer.
        days = list(current_days(shared, "X"))
        columns = shared.read_columns("X", MIDNIGHT, MIDNIGHT + DAY_MS, candle_writer.CANDLE_COLUMNS[1:])
        assert days == count_days(columns)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(candle_writer, "LEASE_NS", 0)
            current_days(shared, "X")
        assert shared.days("X") == count_days(columns)


def true_unless_under_way(store: ClickHouseStore) -> None:
    """Check at each step that a digest of a day with new rows already has a lower version than a mark."""
    true(store)


def test_days_stay_uncounted_until_another_writer_closes(shared: ClickHouseStore) -> None:
    other = Writer(shared, "B", part(10, 5))
    other.go()
    write(shared, {"X": part(0, 5)})
    assert not recount(shared, {"X": [MIDNIGHT]}).kept
    assert [day.digest for day in shared.days("X")] == [""]
    assert current_days(shared, "X")[0].rows == 5
    while other.go():
        pass
    assert current_days(shared, "X")[0].rows == 10 and shared.days("X")[0].rows == 10


def test_an_embedded_database_has_no_other_writers(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Only one process opens it, so other open writers are dead."""
    with ClickHouseStore(f"chdb://{tmp_path_factory.mktemp('one') / 'db'}") as store:
        store.put_writer("dead", store.now_ns(), True, MIDNIGHT, MIDNIGHT + DAY_MS)
        write(store, {"X": part(0, 5), "Y": part(2, 3)})
        assert recount(store, {"X": [MIDNIGHT], "Y": [MIDNIGHT]}).kept
        assert [day.rows for name in ("X", "Y") for day in store.days(name)] == [5, 3]


def test_a_write_of_many_symbols_creates_one_part_per_month(tmp_path_factory: pytest.TempPathFactory) -> None:
    with ClickHouseStore(f"chdb://{tmp_path_factory.mktemp('parts') / 'db'}") as store:
        parts = {f"S{k}USDT": part(0, 3) for k in range(200)}
        parts["LATE"] = part(1439, 3)  # across the end of February
        write(store, parts)
        sql = "SELECT count() FROM system.parts WHERE active AND table = 'market_data_1m' AND rows > 0"
        assert store._rows(sql, {})[0][0] == 2
        found = store.read_many(list(parts), 0, 1 << 42)
        assert all((found[name][c] == column).all() for name, rows in parts.items() for c, column in rows.items())
        write(store, {"S0USDT": part(1, 1, price=5)})
        assert store.read_many(["S0USDT", "none"], 0, 1 << 42)["S0USDT"]["open"].tolist() == [10**10, 5, 10**10]


# -- changed clocks ------------------------------------------------------------------------------------------------

HOUR_NS = 3_600 * 10**9


class SetClock:
    """Shifts the clocks of the database and of this process by some ns."""

    def __init__(self, patch: pytest.MonkeyPatch, store: ClickHouseStore) -> None:
        self.shift_ns = 0
        real, real_ns = store.now_ns, time.time_ns
        patch.setattr(store, "now_ns", lambda: real() + self.shift_ns)
        patch.setattr(time, "time_ns", lambda: real_ns() + self.shift_ns)


@pytest.fixture
def set_clock(shared: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> SetClock:
    monkeypatch.setattr(candle_writer, "_versions", candle_writer._Versions())
    return SetClock(monkeypatch, shared)


def written(store: ClickHouseStore, rows: Columns) -> None:
    write(store, {"X": rows})
    assert recount(store, touched_days({"X": rows})).kept


@pytest.mark.parametrize("hours", [-72, -1, 1, 72])
@pytest.mark.parametrize("embedded", [True, False])
def test_a_correction_is_valid_although_the_clock_was_set_back(
    shared: ClickHouseStore, set_clock: SetClock, hours: int, embedded: bool
) -> None:
    shared.embedded = embedded
    for k in range(3):
        written(shared, part(0, 5, price=10**10 + k))
        true(shared)
        assert shared.days("X")[0].digest == count_days(part(0, 5, price=10**10 + k))[0].digest
        set_clock.shift_ns += hours * HOUR_NS
        shared.embedded = False
        shared._client.command("OPTIMIZE TABLE coverage_days FINAL")
        true(shared)
        shared.embedded = embedded


@pytest.mark.parametrize("seed", range(4))
def test_two_writers_in_any_order_with_a_changing_clock(
    shared: ClickHouseStore, set_clock: SetClock, seed: int
) -> None:
    """The clock is set back before any step, and forward only while neither writes: a forward change of more than the
    rest of a lease makes a living writer look dead, see docs/operations.md."""
    rng = np.random.default_rng(seed)
    for round_ in range(4):
        price = 10**10 + 10 * round_
        alive = [Writer(shared, "A", part(0, 5, price)), Writer(shared, "B", part(3, 6, price + 1))]
        while alive:
            writer = alive[int(rng.integers(0, len(alive)))]
            if not writer.go():
                alive.remove(writer)
            true(shared)
            set_clock.shift_ns -= int(rng.choice([0, 0, 1, 72])) * HOUR_NS // int(rng.choice([1, 60]))
        set_clock.shift_ns += 96 * HOUR_NS
        columns = shared.read_columns("X", MIDNIGHT, MIDNIGHT + DAY_MS, candle_writer.CANDLE_COLUMNS[1:])
        assert list(current_days(shared, "X")) == count_days(columns)


def test_a_writer_with_a_future_version_blocks_no_longer_than_a_lease(
    shared: ClickHouseStore, set_clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed, then the clock was set back by three days, so the clock does not show its age."""
    steady = [0]
    monkeypatch.setattr(candle_writer, "_unchanged", Unchanged(lambda: steady[0]))
    other = Writer(shared, "B", part(10, 5))
    for _ in range(3):
        other.go()
    set_clock.shift_ns -= 72 * HOUR_NS
    assert not recount(shared, {"X": [MIDNIGHT]}).kept
    steady[0] += candle_writer.LEASE_NS // 10**6 + 1
    assert recount(shared, {"X": [MIDNIGHT]}).kept and current_days(shared, "X")[0].rows == 5


# -- killed writers on `candlemill db` -----------------------------------------------------------------------------

DYING = """
import os, sys
sys.path[:0] = sys.argv[2:]
from candlemill.store.candle_writer import open_writer, touched_days
from candlemill.store.clickhouse import ClickHouseStore
from test_candle_writer import DAY_MS, MIDNIGHT, part
with ClickHouseStore(sys.argv[1]) as store:
    rows = part(0, 1000)
    with open_writer(store, touched_days({"X": rows}), MIDNIGHT, MIDNIGHT + DAY_MS - 1):
        store.insert_rows([("X", rows)])
        print("written", flush=True)
        if "stays" in sys.argv:
            sys.stdin.read()
        os._exit(9)
"""
TESTS = Path(__file__).parents[1]


def start_writer(dsn: str, *more: str) -> "subprocess.Popen[str]":
    command = [
        sys.executable,
        "-c",
        DYING,
        dsn,
        str(TESTS),
        str(TESTS / "store"),
        str(TESTS / "support"),
        str(TESTS.parent / "benchmarks"),
        *more,
    ]
    process = subprocess.Popen(
        command, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "written\n"
    return process


@pytest.fixture
def served(server: str) -> Iterator[str]:
    """DSN of an empty database of a running `candlemill db`."""
    import clickhouse_connect

    with clickhouse_connect.get_client(dsn=f"{server}/default", autogenerate_session_id=False) as client:
        client.command("DROP DATABASE IF EXISTS dying")
        client.command("CREATE DATABASE dying")
    dsn = f"{server}/dying"
    with ClickHouseStore(dsn) as store:
        store.add_symbol("X", 10**8)
        write(store, {"X": part(0, 500)})
        recount(store, {"X": [MIDNIGHT]})
    yield dsn


BACKTEST = ("backtest", "--symbol", "X", "--strategy", "buy_and_hold", "--range", "2024-02-29", "--json")


def test_days_of_a_killed_writer_are_used_at_once(served: str) -> None:
    """The job counts them and compares them with the candles that it reads; the index stays uncounted until the end of
    the lease."""
    start_writer(served).communicate(timeout=300)
    done = run_cli(*BACKTEST, **{DSN_VARIABLE: served})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bars"] == 1000
    with ClickHouseStore(served) as store:
        assert [day.digest for day in store.days("X")] == [""], "it did not wait for the end of the lease"
        assert list(candle_writer.settled_days(store, "X")) == count_days(part(0, 1000))


def test_a_job_waits_for_a_live_writer_and_logs_it(served: str, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(candle_writer, "WAIT_SECONDS", 0.05)
    writer = start_writer(served, "stays")
    with ClickHouseStore(served) as store, ThreadPoolExecutor(1) as pool:
        found = pool.submit(candle_writer.settled_days, store, "X")
        for _ in range(600):
            if waits := re.search(r"X is being written: waiting, (\d+) s at most", caplog.text):
                break
            time.sleep(0.1)
        assert waits and 0 < int(waits[1]) <= 180 and not found.done()
        writer.communicate("", timeout=300)
        assert list(found.result(300)) == count_days(part(0, 1000))


def test_has_ended_is_true_only_for_processes_of_this_machine(served: str) -> None:
    assert not any(map(has_ended, (candle_writer.WRITER, "host:12:ab", "A", "")))
    machine, pid, started, token = candle_writer.WRITER.split("|")
    assert has_ended("|".join((machine, pid, str(int(started) - 1), token))), "its number is another process's now"
    assert not has_ended("|".join(("elsewhere", pid, "1", token)))


@pytest.mark.parametrize("other", ["nothing", "a writer", "rows"])
def test_written_days_are_read_back_only_where_something_else_was_stored(
    shared: ClickHouseStore, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    rows = part(0, 5)
    days = touched_days({"X": rows})
    with open_writer(shared, days, MIDNIGHT, MIDNIGHT + DAY_MS - 1) as marks:
        shared.insert_rows([("X", rows)])
    if other == "a writer":
        write(shared, {"X": part(2, 1, price=7)})
    if other == "rows":
        shared.insert_rows([("X", part(9, 1))])
    reads: list[object] = []
    read_many = shared.read_many

    def read(*requested: Any) -> Any:
        reads.append(requested)
        return read_many(*requested)

    monkeypatch.setattr(shared, "read_many", read)
    shared.embedded = True
    assert recount(shared, days, Written({"X": count_days(rows)}, marks)).kept
    assert len(reads) == (other != "nothing")
    assert [day.digest != "" for day in shared.days("X")] == [True]
    true(shared)
