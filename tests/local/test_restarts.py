"""`candlemill serve` that is started again and again, while jobs wait."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from candlemill.backtests.resolve import resolve
from candlemill.errors import Stopped
from candlemill.gateway.standalone import Driver
from candlemill.local.runner import JobRunner
from candlemill.local.workflows import WorkflowRunner
from candlemill.pipeline import events, job_state
from candlemill.pipeline.rows import Progress
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.units import parse_range

STARTS = 6


@pytest.fixture
def store(database: Path) -> Iterator[ClickHouseStore]:
    with ClickHouseStore(f"chdb://{database}") as opened:
        yield opened


def test_many_starts_within_a_minute_fail_no_waiting_job(
    store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process takes some jobs, and is stopped before it has done anything of one; the last one does them all."""
    for lookback in (20, 30, 40, 50, 60):
        span = parse_range("2024-01-29..2024-02-05")
        spec = resolve(
            symbol="AAAUSDT", strategy="momentum_v1", span=span, params={"lookback": lookback}, account="units"
        )
        job = JobRunner(store).prepare(spec, None)
        request = events.Requested(job.spec)
        store.put_job(job_state.accepted(job.job_id, job.spec, job.data_digest, request, None, 1_000 + lookback))

    def stopped(self: WorkflowRunner, event: events.Event, **more: object) -> None:
        raise Stopped("the process ends")

    with monkeypatch.context() as patch:
        patch.setattr(WorkflowRunner, "run", stopped)
        for _ in range(STARTS):
            with closing(Driver(store, store.days)):
                time.sleep(0.2)
            assert [row.state for row in store.unfinished_jobs()] == ["accepted"] * 5
    with closing(Driver(store, store.days)):
        end = time.monotonic() + 300
        while store.unfinished_jobs() and time.monotonic() < end:
            time.sleep(0.1)
    assert {entry.row.state for entry in store.jobs()} == {"done"}


def test_a_job_that_has_ended_is_not_shown_as_one_that_waits(
    store: ClickHouseStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a job's end and the moment when its thread has put it away, its state is that of the store."""
    begun, over = threading.Event(), threading.Event()

    def run(self: WorkflowRunner, event: events.Event, **more: object) -> None:
        begun.set()
        assert over.wait(300)

    monkeypatch.setattr(WorkflowRunner, "run", run)
    spec = resolve(symbol="AAAUSDT", strategy="momentum_v1", span=parse_range("2024-01-29..2024-02-05"), params={})
    job = JobRunner(store).prepare(spec, None)
    request = events.make("test", events.REQUESTED, job.job_id, events.Requested(job.spec))
    with closing(Driver(store, store.days)) as driver:
        assert driver.at_rest(job.job_id, 0)
        driver.publish([request, request])  # the second one waits
        assert begun.wait(300) and driver.live(job.job_id) == Progress(0, 1, 0)
        assert not driver.at_rest(job.job_id, 0.05)
        over.set()
        assert driver.at_rest(job.job_id, 300) and driver.live(job.job_id) is None
        over.clear()
        begun.clear()
        driver.publish([request])
        assert begun.wait(300) and driver.live(job.job_id) is None and not driver.at_rest(job.job_id, 0)
        over.set()
