"""A task that was given up may belong to no job that was ever asked for: nobody knows what it was to compute."""

from pathlib import Path

from candlemill.io.gateway import jobs
from candlemill.io.gateway.world import World
from candlemill.io.store import Store
from candlemill.ledger import JobFilter, JobRow


def test_a_job_without_a_spec_is_told_and_listed(tmp_path: Path):
    name = "a" * 32
    with Store(f"chdb://{tmp_path}/db") as store:
        store.put_job(JobRow(name, "failed", "", "", "", 5, "execute answered 422: nonsense", attempt=5))
        world = World(store, lambda events: None)
        row = store.job(name)
        shown = jobs._job(world, name, row)
        (line,) = jobs._jobs(world, JobFilter(), None, 10).items
    assert (shown.state, shown.reason, shown.spec) == ("failed", "execute answered 422: nonsense", {})
    assert (line.job_id, line.state, line.symbol) == (name, "failed", "")
