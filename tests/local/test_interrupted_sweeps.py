"""Sweeps of many batches that are killed, and go on where they were."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from candlemill.config import DSN_VARIABLE
from conftest import environment

# A sweep of ten batches with two workers. It kills itself when so many tasks are done, and tells what it computed.
SWEEP = """
import json, os, signal, sys
from candlemill.backtests import plan
from candlemill.backtests.resolve import resolve
from candlemill.local import job_stores
from candlemill.local.runner import JobRunner, Options, run_job
from candlemill.store.clickhouse import ClickHouseStore

if __name__ == "__main__":
    plan.BATCH_SETS, job_stores.RESULT_SECONDS = 8, 0.0
    ends, how, fresh = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "fresh"
    start = 1_706_486_400_000
    spec = resolve(
        symbol="AAAUSDT", strategy="sma_cross", span=(start, start + 8 * 86_400_000), params={},
        grid={"fast": list(range(2, 12)), "slow": list(range(20, 28))},
    )
    seen = []

    def progress(done, known):
        seen.append((done, known))
        if done >= ends:
            os.kill(os.getpid(), how)

    with ClickHouseStore(os.environ["CANDLEMILL_CLICKHOUSE_DSN"]) as store:
        job, _ = run_job(JobRunner(store), spec, Options(workers=2, fresh=fresh), progress)
        rows = [json.loads(row) for row in store.sweep_results(job.job_id, ("sharpe_ratio",), True, None)]
        figures = json.loads(store.job(job.job_id).figures)
        count = store.count_sweep(job.job_id)
        stored = sum(len(store.result_rows(row["job_id"])) for row in rows[:20])
    print(json.dumps({"seen": seen, "rows": [(r["job_id"], r["result_digest"]) for r in rows], "figures": figures,
                      "count": count, "stored": stored}))
"""


def sweep(ends: int = 1_000, how: int = 0, fresh: str = "") -> tuple[int, dict[str, object] | None]:
    command = [sys.executable, "-c", SWEEP, str(ends), str(how), fresh]
    env = environment(**{DSN_VARIABLE: os.environ[DSN_VARIABLE]})
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else None


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill-9", "ctrl-c"])
def test_a_killed_sweep_goes_on_where_it_was(database: Path, how: int) -> None:
    status, _ = sweep(4, how)
    assert status in (1, -how)
    status, found = sweep()
    assert status == 0 and found is not None
    done, known = found["seen"][-1]  # type: ignore[index]
    assert done == known and known <= 10 - 3, "what was done before is not done again"
    assert found["count"] == 80 and found["stored"] == 20, "no result twice"
    if how == signal.SIGINT:
        return
    _, again = sweep(fresh="fresh")
    assert again is not None
    assert (again["rows"], again["figures"]) == (found["rows"], found["figures"])
    assert again["seen"][-1] == [10, 10]  # type: ignore[index]
