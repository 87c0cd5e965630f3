"""Workers that merge: the same results as without, whatever was guessed; processes that are started early."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from candlemill.backtests import spec_rules
from candlemill.backtests.plan import Plan
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.errors import CandlemillError, TooLarge
from candlemill.guards.overfitting import overfitting
from candlemill.local import worker_pool
from candlemill.local.runner import TIMES, JobRunner, Options, run_job
from candlemill.pipeline.context import MergedSets
from candlemill.pipeline.events import Event
from candlemill.pipeline.rows import JobRow, OutcomeRow, ResultRow
from candlemill.store.candle_reader import CandleReader
from candlemill.store.clickhouse import ClickHouseStore
from conftest import DAY_MS, environment

START = 1_704_067_200_000 + 28 * DAY_MS
DESK = b"here"


def sweep() -> Spec:
    """74 sets of 80: the others are not valid."""
    grid: dict[str, list[object]] = {"fast": list(range(2, 10)), "slow": list(range(7, 17))}
    params: dict[str, Any] = {"allow_short": True}
    span = (START, START + 8 * DAY_MS)
    return resolve(
        symbol="AAAUSDT", strategy="sma_cross", span=span, params=params, grid=grid, stop_loss=4000, account="units"
    )


class Here:
    """A pool whose workers are this process: what it is given goes through what the real ones run."""

    workers = 2
    pools: list["Here"]
    takes_batches = False

    def __init__(
        self, count: int, candles: CandleReader, index: Any, strategy: str, started: object = None, whole: str = "no"
    ) -> None:
        self.whole = whole if self.takes_batches else "no"
        self.batches: list[int] = []
        self.merged: list[tuple[int, int]] = []
        self.repairs = 0
        self.pools.append(self)

    def submit(self, event: Event) -> "Future[Any]":
        return done(worker_pool._work, DESK, event)

    def submit_batch(self, event: Event, job: JobRow, plan: Plan, batch: int) -> "Future[Any]":
        self.batches.append(batch)
        return done(worker_pool._batch, DESK, event, job, plan, batch, self.whole == "outcomes")

    def merge(self, job: JobRow, plan: Plan, first: int, count: int, rows: list[OutcomeRow]) -> "Future[MergedSets]":
        future = done(worker_pool._merge, DESK, job, plan, first, count, rows)
        self.merged.append((first, count))
        self.repairs += len(future.result().repairs) if not future.exception() else 0
        return future

    def spread(self, work: Callable[[Any], Any], parts: list[Any]) -> list[Any]:
        return [work(part) for part in parts]

    def close(self) -> None:
        pass


def done(work: Callable[..., Any], *arguments: Any) -> "Future[Any]":
    future: Future[Any] = Future()
    try:
        future.set_result(work(*arguments))
    except Exception as error:
        future.set_exception(error)
    return future


@pytest.fixture
def runner(database: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    with ClickHouseStore(f"chdb://{database}") as store:
        made = JobRunner(store)
        Here.pools = []
        monkeypatch.setattr("candlemill.local.runner.Pool", Here)
        monkeypatch.setattr(
            worker_pool, "_worker_context", lambda worker_data: (CandleReader(made.index.days, store), made.index)
        )
        yield made


def results(runner: JobRunner, **options: Any) -> tuple[dict[str, Any], str]:
    """What a sweep's rows say, and its figures; what may differ between equal results apart."""
    rows: list[ResultRow] = []
    put = runner.store.put_results
    runner.store.put_results = lambda some: (rows.extend(some), put(some))  # type: ignore[method-assign, assignment, func-returns-value]
    job, _ = run_job(runner, sweep(), Options(**{"fresh": True, **options}), lambda done, known: None)
    runner.store.put_results = put  # type: ignore[method-assign]
    stored = runner.store.job(job.job_id)
    assert stored is not None and stored.state == "done"
    return {row.job_id: (figures(row), row.daily, row.sharpe_ratio) for row in rows}, stored.figures


def figures(row: ResultRow) -> dict[str, Any]:
    return {name: value for name, value in json.loads(row.result).items() if name not in TIMES}


@pytest.mark.parametrize("warm_up", [4320, 10])
def test_workers_merge_what_would_be_merged_here(
    runner: JobRunner, monkeypatch: pytest.MonkeyPatch, warm_up: int
) -> None:
    monkeypatch.setattr(spec_rules, "WARM_UP_BARS", warm_up)
    monkeypatch.setattr("candlemill.backtests.plan.BATCH_SETS", 45)
    alone = results(runner, slices=1, workers=1)
    together = results(runner, slices=6, workers=2)
    assert alone == together and len(alone[0]) == 74
    (pool,) = Here.pools
    assert set(pool.merged) == {(0, 22), (22, 23), (45, 17), (62, 18)}
    assert (pool.repairs > 0) == (warm_up == 10), "wrong guesses are reported by whoever merges, and repaired"


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("warm_up", [4320, 10])
def test_whole_batches_have_the_results_of_their_tasks(
    runner: JobRunner, monkeypatch: pytest.MonkeyPatch, warm_up: int, fresh: bool
) -> None:
    monkeypatch.setattr(spec_rules, "WARM_UP_BARS", warm_up)
    monkeypatch.setattr("candlemill.backtests.plan.BATCH_SETS", 40)
    monkeypatch.setattr(Here, "takes_batches", True)
    alone = results(runner, slices=1, workers=1)
    if not fresh:  # a job that nobody has run yet, none of whose outcomes are known
        runner.store.delete_job(runner.prepare(sweep(), 6).job_id)
        monkeypatch.setattr("candlemill.local.outcomes.LocalOutcomes.known_slices", lambda *_: [])
    together = results(runner, slices=6, workers=2, fresh=fresh)
    assert together == alone and len(alone[0]) == 74
    (pool,) = Here.pools
    assert pool.whole == ("results" if fresh else "outcomes") and pool.batches == [0, 1]
    assert bool(pool.merged) == (warm_up == 10), "only wrong guesses are merged elsewhere"


def test_what_cannot_be_merged_fails_the_job(runner: JobRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*arguments: object) -> None:
        raise TooLarge("a day's profit (scaled) does not fit 64 bits: use a smaller quantity")

    monkeypatch.setattr(worker_pool, "_merge", too_large)
    with pytest.raises(CandlemillError, match="use a smaller quantity"):
        results(runner, slices=3, workers=2)


def test_overfitting_is_the_same_in_any_parts() -> None:
    matrix = np.random.default_rng(1).integers(-(10**12), 10**12, size=(40, 365))
    matrix[1] = matrix[0]
    spread: list[int] = []

    def elsewhere(work: Callable[[Any], Any], parts: Any) -> list[Any]:
        spread.extend(len(part) for part in parts)
        return [work(part) for part in parts]

    assert overfitting(matrix, elsewhere) == overfitting(matrix) is not None
    assert sum(spread) == 6435 and len(spread) > 1


EARLY = """
import os
from candlemill.local import worker_pool
with worker_pool.start_processes(2) as pool:
    assert pool.submit(os.getppid).result() == os.getpid()
    print(pool._mp_context.get_start_method())
"""
THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"


@pytest.mark.skipif(not worker_pool.THREADS.is_dir(), reason="elsewhere nothing tells how many threads there are")
def test_the_command_line_has_one_thread_until_it_opens_a_database() -> None:
    code = "import candlemill.cli.main, candlemill.local.runner, candlemill.guards, os"
    code += "; print(len(os.listdir('/proc/self/task')))"
    env = {name: value for name, value in environment().items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, timeout=300, text=True, check=True
    )
    assert done.stdout == "1\n", "NumPy was imported before its threads were switched off: workers could not be forked"


@pytest.mark.skipif(not worker_pool.THREADS.is_dir(), reason="elsewhere nothing tells how many threads there are")
@pytest.mark.parametrize(("before", "method"), [("", "fork"), (THREAD, "spawn")], ids=["one", "two"])
def test_processes_are_forked_only_where_there_is_one_thread(before: str, method: str) -> None:
    env = environment(OPENBLAS_NUM_THREADS="1")
    command = [sys.executable, "-c", before + EARLY]
    done = subprocess.run(command, env=env, capture_output=True, timeout=300, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{method}\n", "")
