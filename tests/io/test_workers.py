"""Workers that merge: the same results as without, whatever was guessed; processes that are started early."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from candlemill import work
from candlemill.errors import CandlemillError, TooLarge
from candlemill.events import Event
from candlemill.guards.overfitting import overfitting
from candlemill.io import jobs, workers
from candlemill.io.jobs import Home, Options, run_job
from candlemill.io.store import Store
from candlemill.io.tapes import Tapes
from candlemill.ledger import JobRow, MergedSets, OutcomeRow, ResultRow
from candlemill.model import Spec, resolve
from candlemill.plan import Plan
from conftest import DAY_MS, environment

START = 1_704_067_200_000 + 28 * DAY_MS
DESK = b"here"


def sweep() -> Spec:
    """74 sets of 80: the others are not valid."""
    grid: dict[str, list[object]] = {"fast": list(range(2, 10)), "slow": list(range(7, 17))}
    params: dict[str, Any] = {"allow_short": True}
    span = (START, START + 8 * DAY_MS)
    return resolve(symbol="AAAUSDT", strategy="sma_cross", span=span, params=params, grid=grid, stop_loss=4000)


class Here:
    """A pool whose workers are this process: what it is given goes through what the real ones run."""

    workers = 2
    pools: list["Here"]

    def __init__(self, count: int, tapes: Tapes, index: Any, strategy: str, started: object = None) -> None:
        self.merged: list[tuple[int, int]] = []
        self.repairs = 0
        self.pools.append(self)

    def submit(self, event: Event) -> "Future[Any]":
        return done(workers._work, DESK, event)

    def merge(self, job: JobRow, plan: Plan, first: int, count: int, rows: list[OutcomeRow]) -> "Future[MergedSets]":
        future = done(workers._merge, DESK, job, plan, first, count, rows)
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
def home(database: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    with Store(f"chdb://{database}") as store:
        made = Home(store)
        Here.pools = []
        monkeypatch.setattr(jobs, "Pool", Here)
        monkeypatch.setattr(workers, "_at_desk", lambda desk: (Tapes(made.index.days, store), made.index))
        yield made


def results(home: Home, **options: Any) -> tuple[dict[str, Any], str]:
    """What a sweep's rows say, and its figures; what may differ between equal results apart."""
    rows: list[ResultRow] = []
    put = home.store.put_results
    home.store.put_results = lambda some: (rows.extend(some), put(some))  # type: ignore[method-assign, assignment, func-returns-value]
    job, _ = run_job(home, sweep(), Options(fresh=True, **options), lambda done, known: None)
    home.store.put_results = put  # type: ignore[method-assign]
    stored = home.store.job(job.job_id)
    assert stored is not None and stored.state == "done"
    return {row.job_id: (figures(row), row.daily, row.sharpe_ratio) for row in rows}, stored.figures


def figures(row: ResultRow) -> dict[str, Any]:
    return {name: value for name, value in json.loads(row.result).items() if name not in jobs.TIMES}


@pytest.mark.parametrize("warm_up", [4320, 10])
def test_workers_merge_what_would_be_merged_here(home: Home, monkeypatch: pytest.MonkeyPatch, warm_up: int) -> None:
    monkeypatch.setattr(work, "WARM_UP_BARS", warm_up)
    monkeypatch.setattr("candlemill.plan.BATCH_SETS", 45)
    alone = results(home, slices=1, workers=1)
    together = results(home, slices=6, workers=2)
    assert alone == together and len(alone[0]) == 74
    (pool,) = Here.pools
    assert set(pool.merged) == {(0, 22), (22, 23), (45, 17), (62, 18)}
    assert (pool.repairs > 0) == (warm_up == 10), "wrong guesses are told by whoever merges, and repaired"


def test_what_cannot_be_merged_fails_the_job(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*arguments: object) -> None:
        raise TooLarge("a day's profit (scaled) does not fit 64 bits: use a smaller quantity")

    monkeypatch.setattr(workers, "_merge", too_large)
    with pytest.raises(CandlemillError, match="use a smaller quantity"):
        results(home, slices=3, workers=2)


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
from candlemill.io import workers
with workers.start_processes(2) as pool:
    assert pool.submit(os.getppid).result() == os.getpid()
    print(pool._mp_context.get_start_method())
"""
THREAD = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"


@pytest.mark.skipif(not workers.THREADS.is_dir(), reason="elsewhere nothing tells how many threads there are")
@pytest.mark.parametrize(("before", "method"), [("", "fork"), (THREAD, "spawn")], ids=["one", "two"])
def test_processes_are_forked_only_where_there_is_one_thread(before: str, method: str) -> None:
    env = environment(OPENBLAS_NUM_THREADS="1")
    command = [sys.executable, "-c", before + EARLY]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{method}\n", "")
