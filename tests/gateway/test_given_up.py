"""A task that was given up may belong to no job that was ever requested: nobody knows what it was to compute."""

from pathlib import Path

import msgspec
from candlemill.backtests.plan import Plan
from candlemill.gateway.job_service import JobService
from candlemill.gateway.routes import jobs
from candlemill.pipeline.rows import JobFilter, JobRow, Progress
from candlemill.store.clickhouse import ClickHouseStore


def test_a_job_without_a_spec_is_reported_and_listed(tmp_path: Path):
    name = "a" * 32
    with ClickHouseStore(f"chdb://{tmp_path}/db") as store:
        store.put_job(JobRow(name, "failed", "", "", "", 5, "execute answered 422: nonsense", attempt=5))
        world = JobService(store, lambda events: None)
        row = store.job(name)
        shown = jobs._job(world, name, row)
        (line,) = jobs._jobs(world, JobFilter(), None, 10).items
    assert (shown.state, shown.reason, shown.spec) == ("failed", "execute answered 422: nonsense", {})
    assert (line.job_id, line.state, line.symbol) == (name, "failed", "")


class NothingRuns:
    """The jobs of a process whose last one has just ended."""

    def live(self, job_id: str) -> None:
        return None

    def at_rest(self, job_id: str, seconds: float) -> bool:
        return True


def test_a_job_that_has_just_ended_does_not_go_back(tmp_path: Path):
    """Its row was read before it ended, what is reported of it while it runs after that."""
    name = "b" * 32
    plan = msgspec.json.encode(Plan(cuts=[0, 1, 2], batch=1, points=1, bars=2)).decode()
    read = JobRow(name, "planned", "", plan, "", 5, attempt=5)
    with ClickHouseStore(f"chdb://{tmp_path}/db") as store:
        world = JobService(store, lambda events: None, NothingRuns())
        store.put_job(read)
        assert world.progress(read) == Progress(0, 2, 0)
        store.put_job(msgspec.structs.replace(read, state="done"))
        assert world.progress(read) == Progress(2, 2, 0)
