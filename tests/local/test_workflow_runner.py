"""Jobs of several threads with one store: done once, stopped, cancelled, and gone on with."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec, WalkForward
from candlemill.errors import BadInput, Cancelled, CandlemillError, Stopped
from candlemill.local.runner import JobRunner
from candlemill.local.workflow_runs import workflow_result
from candlemill.local.workflows import WorkflowRunner
from candlemill.pipeline import events, execute, job_state, lifecycle, split, watchdog
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event, Requested
from candlemill.pipeline.rows import JobRow
from candlemill.pipeline.workflows import prepare_workflow
from candlemill.store.candle_reader import CandleReader
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.day_index import FrozenIndex
from candlemill.units import SCALE, clock_ms

DAY_MS = 86_400_000
SPAN = (1_706_486_400_000, 1_706_486_400_000 + 15 * DAY_MS)  # 2024-01-29 and on
WALK = WalkForward("3d", "2d")


@pytest.fixture
def store(database: Path) -> Iterator[ClickHouseStore]:
    with ClickHouseStore(f"chdb://{database}") as opened:
        yield opened


def spec(symbol: str = "AAAUSDT", **more: Any) -> Spec:
    given = {"params": {"fast": 5, "slow": 60}, "grid": {}, "span": SPAN, "symbol": symbol, **more}
    return resolve(strategy="sma_cross", **{"account": "units"} | given)


def event_of(store: ClickHouseStore, request: Requested) -> Event:
    if request.is_workflow:
        name = prepare_workflow(FrozenIndex(store), request).job_id
    else:
        name = JobRunner(store).prepare(request.spec, request.slices).job_id
    return events.make("test", events.REQUESTED, name, request)


def accepted(event: Event) -> JobRow:
    """The row that a gateway writes before it sends the event."""
    request = events.read(event, Requested)
    return job_state.accepted(event.partitionkey, request.spec, "", request, None, clock_ms() - 1)


def requested(slices: int = 4) -> list[Requested]:
    """Workflows that share jobs, and jobs that are theirs too."""
    grid = {"fast": [5, 20], "slow": [60, 240]}
    both = {"AAAUSDT": SCALE, "BBBUSDT": SCALE}
    sweep = spec(params={}, grid=grid)
    return [
        Requested(spec(), slices),
        Requested(spec(), slices, weights=both),
        Requested(spec("BBBUSDT"), slices, weights={"BBBUSDT": SCALE, "AAAUSDT": SCALE}),
        Requested(sweep, slices),
        Requested(sweep, slices, walk_forward=WALK),
    ]


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often each task was run."""
    real, seen = execute.execute, Counter[tuple[str, str]]()

    def counting(event: Event, runtime: HandlerContext) -> list[Event]:
        seen[event.partitionkey, event.id] += 1
        return real(event, runtime)

    monkeypatch.setattr(execute, "execute", counting)
    return seen


def test_threads_share_what_they_want_alike(store: ClickHouseStore, tasks: Counter[tuple[str, str]]) -> None:
    """Everything requested by three threads at once."""
    runner = WorkflowRunner(store)
    wanted = [event_of(store, request) for request in requested()] * 3
    with ThreadPoolExecutor(5) as pool:
        rows = list(pool.map(runner.run, wanted))
    assert {row.state for row in rows} == {"done"} and len({row.job_id for row in rows}) == 5
    assert tasks and set(tasks.values()) == {1}
    assert runner.at_work() == frozenset() and store.unfinished_jobs() == []
    walk = workflow_result(store, next(row for row in rows if row.kind == "walk_forward"))
    assert set(walk) == {"sweep_id", "score", "folds", "result", "guards"}
    assert sum(bool(fold["params"]) for fold in walk["folds"]) == 3
    first, second = (row for row in rows[:5] if row.kind == "portfolio")
    assert (
        workflow_result(store, first)["total_pnl"] == workflow_result(store, second)["total_pnl"]
        and first.job_id != second.job_id
    )
    assert [entry.row.kind for entry in store.jobs()].count("backtest") == 3


def test_a_stopped_bus_leaves_jobs_that_the_next_one_ends(store: ClickHouseStore) -> None:
    stops = 0
    for event in [event_of(store, request) for request in requested()]:
        for _ in range(100):
            runner = WorkflowRunner(store)
            try:
                row = runner.run(event, progress=lambda done, known, runner=runner: runner.stop())  # type: ignore[misc]
            except Stopped:
                stops += 1
                continue
            assert row.state == "done"
            break
    assert stops > 5 and store.unfinished_jobs() == []


def test_what_a_dead_process_left_is_found_and_ended(store: ClickHouseStore) -> None:
    """Rows as a process that was killed leaves them: accepted, planned, a workflow with some of its jobs."""
    runtime = HandlerContext(store, FrozenIndex(store), CandleReader(store.days, store), clock_ms)
    for request in requested():
        for event in split.split(event_of(store, request), runtime)[:1]:
            if event.type == events.REQUESTED:
                split.split(event, runtime)
    runner = WorkflowRunner(store)
    left = watchdog.resume(runtime)
    assert len(left) >= 3
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(runner.run, left))
    while left := watchdog.resume(runtime):  # workflows whose jobs were under way
        for event in left:
            runner.run(event)
    assert {entry.row.state for entry in store.jobs()} == {"done"}


@pytest.mark.parametrize("kind", ["job", "portfolio"])
def test_cancelled_from_elsewhere_it_stops_soon(
    store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("candlemill.local.job_stores.LOOK_SECONDS", 0.0)
    event = event_of(store, requested(8)[kind == "portfolio"])
    seen: list[int] = []

    def cancelling(done: int, known: int) -> None:
        seen.append(done)
        if len(seen) == 3:
            thread = threading.Thread(target=lifecycle.cancel, args=(event.partitionkey, store))
            thread.start()
            thread.join()

    store.put_job(accepted(event))
    with pytest.raises(Cancelled):
        WorkflowRunner(store).run(event, progress=cancelling)
    assert len(seen) == 3
    assert {entry.row.state for entry in store.jobs()} == {"cancelled"}
    assert WorkflowRunner(store).run(event).state == "done"


def test_a_part_that_fails_fails_the_whole_with_what_it_failed_of(
    store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = execute.execute

    def failing(event: Event, runtime: HandlerContext) -> list[Event]:
        if events.read(event, events.SliceRequested).spec.symbol == "BBBUSDT":
            raise BadInput("no such luck")
        return real(event, runtime)

    event = event_of(store, requested()[1])
    with monkeypatch.context() as patch:
        patch.setattr(execute, "execute", failing)
        with pytest.raises(BadInput, match="no such luck"):
            WorkflowRunner(store).run(event)
    row = store.job(event.partitionkey)
    assert row is not None and row.state == "failed" and row.reason.startswith("its backtest of BBBUSDT, job ")
    assert WorkflowRunner(store).run(event).state == "done"


def test_how_far_it_is_can_be_looked_at_meanwhile(store: ClickHouseStore) -> None:
    runner, event, seen = WorkflowRunner(store), event_of(store, requested()[1]), []

    def looking(done: int, known: int) -> None:
        found = runner.live(event.partitionkey)
        seen.append((done, known, found, len(runner.at_work())))

    runner.run(event, progress=looking)
    assert [done for done, _, _, _ in seen] == sorted(done for done, _, _, _ in seen)
    assert all(found is not None and (found.done, found.total) == (done, known) for done, known, found, _ in seen)
    assert {count for _, _, _, count in seen} == {2} and runner.live(event.partitionkey) is None


def test_candles_that_have_changed_since_fail_the_job_that_was_requested(store: ClickHouseStore) -> None:
    event = event_of(store, requested()[0])
    store.put_job(accepted(event))
    store.put_days({"AAAUSDT": [msgspec.structs.replace(store.days("AAAUSDT")[0], digest="0" * 64)]})
    with pytest.raises(CandlemillError, match="have changed since"):
        WorkflowRunner(store).run(event)
    row = store.job(event.partitionkey)
    assert row is not None and row.state == "failed"
