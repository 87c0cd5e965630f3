"""Outcomes in the store, at home, and what of a job is read when some of it is known."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from candlemill import events, execution
from candlemill.events import Event
from candlemill.io import localoutcomes, outcometable
from candlemill.io.coverage import recount, touched_days, write
from candlemill.io.jobs import Home, Options, run_one
from candlemill.io.local import Broker, LocalLedger
from candlemill.io.localoutcomes import LocalOutcomes
from candlemill.io.store import Store
from candlemill.ledger import KnownSlice, OutcomeRow, Runtime
from candlemill.model import Spec, resolve
from conftest import DAY_MS, Columns, days

APRIL = 91  # the day of 2024 on which the calendar cuts a sweep
FIRST = 1_704_067_200_000 + (APRIL - 5) * DAY_MS


def row(set_key: str = "s", slice_key: str = "k", start: str = "0", code: str = "c", **rest: Any) -> OutcomeRow:
    found = OutcomeRow(
        set_key, code, slice_key, start, 1, 2, 3, True, "0,0,0,0,0,0|é'\n", "[1,-2]", f"[{2**70}]", "5:3"
    )
    return msgspec.structs.replace(found, **rest)


def test_outcomes_come_back_whole_by_their_addresses(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(), row(start="1"), row(slice_key="l"), row("t", slice_key="l"), row("t", code="d"), row("u", code="d")]
    store.put_outcomes([])
    for some in (rows, rows[:2]):  # a task may be done twice
        store.put_outcomes(some)
    found = store.outcomes(["s", "t"], "c", ["k", "l", "m"])
    assert set(found) == set(rows[:4])
    assert store.outcomes(["t"], "c", ["k"]) == store.outcomes([], "c", ["k"]) == store.outcomes(["s"], "c", []) == []
    monkeypatch.setattr(outcometable, "SLICES_AT_ONCE", 1)
    assert sorted(store.outcomes(["s", "t"], "c", ["k", "l", "m"]), key=str) == sorted(found, key=str)
    known = store.known_slices(["t", "s", "v"], "c")
    assert {one.key: one for one in known} == {
        "k": KnownSlice("k", 1, 2, 3, {"s"}),
        "l": KnownSlice("l", 1, 2, 3, {"s", "t"}),
    }
    assert store.known_slices([], "c") == store.known_slices(["v"], "c") == []
    assert [store.other_code([name], "c") for name in "stuv"] == [False, True, True, False]


def test_the_keys_of_a_large_batch_travel(store: Store) -> None:
    """As many as one query may have, in a request's address."""
    sets, slices = (
        [f"{kind}{k:031x}" for k in range(count)] for kind, count in (("a", 512), ("b", outcometable.SLICES_AT_ONCE))
    )
    store.put_outcomes([row(sets[-1], slices[-1])])
    assert store.outcomes(sets, "c", slices) == [row(sets[-1], slices[-1])]
    assert [one.sets for one in store.known_slices(sets, "c")] == [{sets[-1]}]


# -- at home -----------------------------------------------------------------------------------------------------------


class Recorder:
    """A store that notes what is written."""

    def __init__(self) -> None:
        self.written: list[list[OutcomeRow]] = []

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        self.written.append(list(rows))

    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        return [KnownSlice("k", 1, 2, 3, {"s"})]

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        assert list(slice_keys) == ["k"], "what the store was found not to have is not asked of it"
        return [row(start="from the store")]


def test_outcomes_are_written_in_few_inserts(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Recorder()
    local = LocalOutcomes(store, True)  # type: ignore[arg-type]
    for k in range(10):
        local.put_outcomes([row(start=f"{k}")])
    assert not store.written
    monkeypatch.setattr(localoutcomes, "WRITE_BYTES", 1)
    local.put_outcomes([row(start="10")])
    assert [len(rows) for rows in store.written] == [11]
    monkeypatch.undo()
    monkeypatch.setattr(localoutcomes, "WRITE_SECONDS", -1)
    local.put_outcomes([row("t")])
    assert [len(rows) for rows in store.written] == [11, 1]
    monkeypatch.undo()
    assert len(local.outcomes(["s"], "c", ["k"])) == 11
    local.put_outcomes([row("t", start="1")])
    local.release(["s", "t"])
    assert [len(rows) for rows in store.written] == [11, 1, 1]
    assert local.outcomes(["s", "t"], "c", ["k"]) == []


def test_what_the_store_has_is_asked_of_it_once_it_is_known() -> None:
    local = LocalOutcomes(Recorder(), True)  # type: ignore[arg-type]
    local.put_outcomes([row("s", "l")])
    assert local.outcomes(["s"], "c", ["k", "l"]) == [row("s", "l")]
    assert {one.key for one in local.known_slices(["s"], "c")} == {"k", "l"}
    assert {one.start_state for one in local.outcomes(["s"], "c", ["k", "l"])} == {"0", "from the store"}


def test_a_run_that_keeps_nothing_writes_nothing() -> None:
    store = Recorder()
    local = LocalOutcomes(store, False)  # type: ignore[arg-type]
    assert local.known_slices(["s"], "c") == []
    local.put_outcomes([row()])
    assert local.outcomes(["s"], "c", ["k"]) == [row()]
    local.release(["s"])
    assert not store.written


# -- jobs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(store: Store) -> Home:
    """Ten days around the first of April."""
    store.add_symbol("X", 10**8)
    ingest(store, days(1, APRIL - 5, 10))
    return Home(store)


def ingest(store: Store, candles: Columns) -> None:
    write(store, {"X": candles})
    recount(store, touched_days({"X": candles}))


def sweep(length: int, **rest: Any) -> Spec:
    grid: dict[str, list[object]] = {"fast": [10, 20], "slow": [50]}
    return resolve(
        symbol="X", strategy="sma_cross", span=(FIRST, FIRST + length * DAY_MS), params={}, grid=grid, **rest
    )


def run(store: Store, spec: Spec, **options: Any) -> None:
    run_one(Home(store), spec, Options(**options), lambda done, known: None)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """The spans that are read, and the slices that are computed."""
    notes: dict[str, list[Any]] = {"read": [], "run": []}
    read, run_task = Store.read_columns, execution.run_task

    def reading(self: Store, symbol: str, start: int, end: int, names: Sequence[str]) -> Columns:
        notes["read"].append(((start - FIRST) // DAY_MS, (end - FIRST) // DAY_MS))
        return read(self, symbol, start, end, names)

    def running(*arguments: Any) -> Any:
        done = run_task(*arguments)
        notes["run"].append(len(done.outcomes))
        return done

    monkeypatch.setattr(Store, "read_columns", reading)
    monkeypatch.setattr(execution, "run_task", running)
    return notes


def test_only_the_candles_of_missing_slices_are_read(home: Home, seen: dict[str, list[Any]]) -> None:
    store = home.store
    run(store, sweep(9))
    assert seen == {"read": [(-26, 35)], "run": [2, 2]}  # March and April
    seen["read"].clear(), seen["run"].clear()
    run(store, sweep(10))
    assert seen == {"read": [(5, 35)], "run": [2]}  # April: its last day, and what it warms up on
    seen["read"].clear(), seen["run"].clear()
    run(store, sweep(10, quantity=3))
    assert seen == {"read": [], "run": []}
    run(store, sweep(10), fresh=True)
    assert seen["run"] == [2, 2]


def test_too_many_outcomes_are_neither_kept_nor_looked_for(
    home: Home, seen: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candlemill.reuse.OUTCOMES_KEPT", 3)
    for quantity in (1, 2):
        run(home.store, sweep(9, quantity=quantity))
    assert seen["run"] == [2, 2, 2, 2]
    assert home.store._rows("SELECT count() FROM slice_outcomes", {}) == [(0,)]


def test_a_repair_that_workers_are_not_prepared_for_is_done_here() -> None:
    """Their shared columns are those of the slices that were missing; a chain may break elsewhere."""

    class Pool:
        workers = 2

        def submit(self, event: Event) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(LookupError("the shared columns lack a month of the task"))
            return future

        def close(self) -> None:
            closed.append(True)

    closed: list[bool] = []
    ledger = LocalLedger.__new__(LocalLedger)
    ledger.job = lambda job_id: None  # type: ignore[method-assign, assignment]
    broker = Broker(Runtime(ledger, None, None, lambda: 0), lambda tasks: Pool())  # type: ignore[arg-type, return-value]
    done: list[Event] = []
    broker._deliver = lambda event, attempt: done.append(event)  # type: ignore[method-assign, assignment]
    task = Event(id="1", source="/t", type=events.SLICE_REQUESTED, data=b"{}")
    broker._last = task
    broker.run(task)
    assert (done, closed) == ([task], [True])
