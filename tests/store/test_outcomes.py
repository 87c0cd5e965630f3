"""Outcomes in the store and in local runs; reads of a job whose outcomes are partly known."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.local import outcomes as local_outcomes
from candlemill.local.broker import Broker
from candlemill.local.job_stores import BufferedJobStore
from candlemill.local.outcomes import LocalOutcomes
from candlemill.local.runner import JobRunner, Options, run_one
from candlemill.pipeline import events, execute
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.pipeline.rows import KnownSlice, OutcomeRow
from candlemill.store import outcomes as outcome_table
from candlemill.store.candle_writer import recount, touched_days, write
from candlemill.store.clickhouse import ClickHouseStore
from conftest import DAY_MS, Columns, days

APRIL = 91  # the day of 2024 on which the calendar cuts a sweep
FIRST = 1_704_067_200_000 + (APRIL - 5) * DAY_MS


def row(set_key: str = "s", slice_key: str = "k", start: str = "0", code: str = "c", **rest: Any) -> OutcomeRow:
    found = OutcomeRow(
        set_key, code, slice_key, start, 1, 2, 3, True, "0,0,0,0,0,0|é'\n", "[1,-2]", f"[{2**70}]", "5:3"
    )
    return msgspec.structs.replace(found, **rest)


def test_outcomes_are_found_by_their_keys(store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(), row(start="1"), row(slice_key="l"), row("t", slice_key="l"), row("t", code="d"), row("u", code="d")]
    store.put_outcomes([])
    for some in (rows, rows[:2]):  # a task may run twice
        store.put_outcomes(some)
    found = store.outcomes(["s", "t"], "c", ["k", "l", "m"])
    assert set(found) == set(rows[:4])
    assert store.outcomes(["t"], "c", ["k"]) == store.outcomes([], "c", ["k"]) == store.outcomes(["s"], "c", []) == []
    monkeypatch.setattr(outcome_table, "SLICES_PER_QUERY", 1)
    assert sorted(store.outcomes(["s", "t"], "c", ["k", "l", "m"]), key=str) == sorted(found, key=str)
    known = store.known_slices(["t", "s", "v"], "c")
    assert {one.key: one for one in known} == {
        "k": KnownSlice("k", 1, 2, 3, {"s"}),
        "l": KnownSlice("l", 1, 2, 3, {"s", "t"}),
    }
    assert store.known_slices([], "c") == store.known_slices(["v"], "c") == []
    assert [store.other_code([name], "c") for name in "stuv"] == [False, True, True, False]


def test_the_keys_of_a_large_batch_fit_in_a_query(store: ClickHouseStore) -> None:
    """The maximum number of keys in the URL of one query."""
    sets, slices = (
        [f"{kind}{k:031x}" for k in range(count)] for kind, count in (("a", 512), ("b", outcome_table.SLICES_PER_QUERY))
    )
    store.put_outcomes([row(sets[-1], slices[-1])])
    assert store.outcomes(sets, "c", slices) == [row(sets[-1], slices[-1])]
    assert [one.sets for one in store.known_slices(sets, "c")] == [{sets[-1]}]


# -- local runs --------------------------------------------------------------------------------------------------------


class Recorder:
    """A store that records its writes."""

    def __init__(self) -> None:
        self.written: list[list[OutcomeRow]] = []

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        self.written.append(list(rows))

    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        return [KnownSlice("k", 1, 2, 3, {"s"})]

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        assert list(slice_keys) == ["k"], "keys that the store lacks are not queried"
        return [row(start="from the store")]


def test_outcomes_are_written_in_few_inserts(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Recorder()
    local = LocalOutcomes(store, True)  # type: ignore[arg-type]
    for k in range(10):
        local.put_outcomes([row(start=f"{k}")])
    assert not store.written
    monkeypatch.setattr(local_outcomes, "WRITE_BYTES", 1)
    local.put_outcomes([row(start="10")])
    assert [len(rows) for rows in store.written] == [11]
    monkeypatch.undo()
    monkeypatch.setattr(local_outcomes, "WRITE_SECONDS", -1)
    local.put_outcomes([row("t")])
    assert [len(rows) for rows in store.written] == [11, 1]
    monkeypatch.undo()
    assert len(local.outcomes(["s"], "c", ["k"])) == 11
    local.put_outcomes([row("t", start="1")])
    local.release(["s", "t"])
    assert [len(rows) for rows in store.written] == [11, 1, 1]
    assert local.outcomes(["s", "t"], "c", ["k"]) == []


def test_outcomes_of_the_store_are_read_after_their_keys() -> None:
    local = LocalOutcomes(Recorder(), True)  # type: ignore[arg-type]
    local.put_outcomes([row("s", "l")])
    assert local.outcomes(["s"], "c", ["k", "l"]) == [row("s", "l")]
    assert {one.key for one in local.known_slices(["s"], "c")} == {"k", "l"}
    assert {one.start_state for one in local.outcomes(["s"], "c", ["k", "l"])} == {"0", "from the store"}


def test_a_run_without_cache_writes_no_outcomes() -> None:
    store = Recorder()
    local = LocalOutcomes(store, False)  # type: ignore[arg-type]
    assert local.known_slices(["s"], "c") == []
    local.put_outcomes([row()])
    assert local.outcomes(["s"], "c", ["k"]) == [row()]
    local.release(["s"])
    assert not store.written


# -- jobs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def runner(store: ClickHouseStore) -> JobRunner:
    """Ten days around 1 April."""
    store.add_symbol("X", 10**8)
    ingest(store, days(1, APRIL - 5, 10))
    return JobRunner(store)


def ingest(store: ClickHouseStore, candles: Columns) -> None:
    write(store, {"X": candles})
    recount(store, touched_days({"X": candles}))


def sweep(length: int, **rest: Any) -> Spec:
    grid: dict[str, list[object]] = {"fast": [10, 20], "slow": [50]}
    return resolve(
        symbol="X",
        strategy="sma_cross",
        span=(FIRST, FIRST + length * DAY_MS),
        params={},
        grid=grid,
        **{"account": "units"} | rest,
    )


def run(store: ClickHouseStore, spec: Spec, **options: Any) -> None:
    run_one(JobRunner(store), spec, Options(**options), lambda done, known: None)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Record the spans that are read, and the slices that are computed."""
    notes: dict[str, list[Any]] = {"read": [], "run": []}
    read, run_task = ClickHouseStore.read_columns, execute.run_slice

    def reading(self: ClickHouseStore, symbol: str, start: int, end: int, names: Sequence[str]) -> Columns:
        notes["read"].append(((start - FIRST) // DAY_MS, (end - FIRST) // DAY_MS))
        return read(self, symbol, start, end, names)

    def running(*arguments: Any) -> Any:
        done = run_task(*arguments)
        notes["run"].append(len(done.outcomes))
        return done

    monkeypatch.setattr(ClickHouseStore, "read_columns", reading)
    monkeypatch.setattr(execute, "run_slice", running)
    return notes


def test_only_the_candles_of_missing_slices_are_read(runner: JobRunner, seen: dict[str, list[Any]]) -> None:
    store = runner.store
    run(store, sweep(9))
    assert seen == {"read": [(-26, 35)], "run": [2, 2]}  # March and April
    seen["read"].clear(), seen["run"].clear()
    run(store, sweep(10))
    assert seen == {"read": [(5, 35)], "run": [2]}  # April: its last day and its warm-up
    seen["read"].clear(), seen["run"].clear()
    run(store, sweep(10, quantity=3))
    assert seen == {"read": [], "run": []}
    run(store, sweep(10), fresh=True)
    assert seen["run"] == [2, 2]


def test_too_many_outcomes_are_neither_stored_nor_read(
    runner: JobRunner, seen: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candlemill.pipeline.reuse.OUTCOMES_KEPT", 3)
    for quantity in (1, 2):
        run(runner.store, sweep(9, quantity=quantity))
    assert seen["run"] == [2, 2, 2, 2]
    assert runner.store._rows("SELECT count() FROM slice_outcomes", {}) == [(0,)]


def test_a_repair_without_shared_columns_runs_in_the_parent() -> None:
    """Workers have the columns of the missing slices only; a repair may need others."""

    class Pool:
        workers, whole = 2, "no"

        def submit(self, event: Event) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(LookupError("the shared columns lack a month of the task"))
            return future

        def close(self) -> None:
            closed.append(True)

    closed: list[bool] = []
    store = BufferedJobStore.__new__(BufferedJobStore)
    store.job = lambda job_id: None  # type: ignore[method-assign, assignment]
    broker = Broker(HandlerContext(store, None, None, lambda: 0), lambda tasks: Pool())  # type: ignore[arg-type, return-value]
    done: list[Event] = []
    broker._deliver = lambda event, attempt: done.append(event)  # type: ignore[method-assign, assignment]
    task = Event(id="1", source="/t", type=events.SLICE_REQUESTED, data=b"{}")
    broker._last = task
    broker.run(task)
    assert (done, closed) == ([task], [True])
