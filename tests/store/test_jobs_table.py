"""Jobs in the store: states, lists and deletion; on a server, embedded and in memory."""

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from candlemill.backtests.plan import Plan
from candlemill.pipeline.rows import (
    DONE,
    EXACT,
    GUESS,
    MERGED_BATCH,
    RANKS,
    JobFilter,
    JobRow,
    Progress,
    ResultRow,
    TaskRecord,
)
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.store.connection import connect
from candlemill.store.memory import MemoryStore

PLAN = Plan(cuts=[0, 1, 2, 3], batch=10, points=25, bars=9)  # three slices of three batches


@pytest.fixture(params=["database", "memory"])
def jobs(request: pytest.FixtureRequest, store: ClickHouseStore) -> ClickHouseStore:
    return store if request.param == "database" else MemoryStore([])


def job(state: str, job_id: str = "j", attempt: int = 1, **more: Any) -> JobRow:
    spec = {"symbol": more.pop("symbol", "X"), "strategy": more.pop("strategy", "s")}
    return JobRow(job_id, state, msgspec.json.encode(spec).decode(), "{}", "digest", 5, attempt=attempt, **more)


def test_the_latest_state_of_the_latest_attempt_is_valid_in_any_order(jobs: ClickHouseStore) -> None:
    assert jobs.job("j") is None and jobs.job_history("j") == []
    rows = [job(state, attempt=attempt) for attempt in (7, 9) for state in RANKS if (attempt, state) != (9, "done")]
    doubled = [*rows, *rows[::3]]
    random.Random(5).shuffle(doubled)
    for row in doubled:
        jobs.put_job(row)
    jobs.put_job(job("planned", "other"))
    assert jobs.job("j") == job("failed", attempt=9)
    assert [row for _, row in jobs.job_history("j")] == rows
    assert jobs.job_rows(["j", "k"]) == {"j": job("failed", attempt=9)}


def test_the_newest_of_equal_states_is_valid(jobs: ClickHouseStore) -> None:
    jobs.put_jobs([job("planned", reason="a"), job("planned", reason="b")], [2_000, 1_000])
    jobs.put_jobs([job("failed", reason="c")], [500])
    if not isinstance(jobs, MemoryStore):
        assert jobs.job_history("j") == [(2_000, job("planned", reason="a")), (500, job("failed", reason="c"))]
        assert jobs.last_activity_ms("j") == 2_000
    assert jobs.last_activity_ms("unknown") == 0


def test_jobs_are_listed_newest_first_in_pages_and_by_filters(jobs: ClickHouseStore) -> None:
    for k in range(20):
        kind, symbol = ("backtest", "sweep")[k % 2], "XYZ"[k % 3]
        jobs.put_jobs([job("planned", f"id{k:02}", k // 2 + 1, kind=kind, symbol=symbol)], [1_000 + k])
        if k % 5:
            jobs.put_jobs([job("done", f"id{k:02}", k // 2 + 1, kind=kind, symbol=symbol)], [2_000 + k])
    pages, after = [], None
    while page := jobs.jobs(limit=7, after=after):
        pages += page
        after = (page[-1].row.attempt, page[-1].row.job_id)
    assert [entry.row.job_id for entry in pages] == [f"id{k:02}" for k in range(19, -1, -1)]
    assert {(entry.created_ms, entry.updated_ms) for entry in pages[:4]} == {
        (1_000 + k, 2_000 + k) for k in range(16, 20)
    }

    def found(**fields: str) -> list[int]:
        return [int(entry.row.job_id[2:]) for entry in jobs.jobs(JobFilter(**fields))]

    assert (
        found(state="planned") == [15, 10, 5, 0] == sorted(int(row.job_id[2:]) for row in jobs.unfinished_jobs())[::-1]
    )
    assert found(kind="sweep", symbol="Y") == [k for k in range(19, -1, -1) if k % 2 and k % 3 == 1]
    assert found(strategy="other") == [] and len(found(strategy="s", state="done")) == 16


def test_deleting_a_job_keeps_the_rows_of_others(jobs: ClickHouseStore) -> None:
    def result(job_id: str, sweep_id: str) -> ResultRow:
        return ResultRow(job_id, "s", 0, 0, 0, 0, sweep_id, "{}")

    for one in ("alone", "sweep", "other"):
        jobs.put_jobs([job("planned", one), job("done", one)])
        jobs.put_task_records([TaskRecord(one, 0, GUESS, 0, "0-1/0+1")])
    jobs.put_results([result("alone", ""), result("alone", "other"), result("set", "sweep"), result("set", "other")])
    jobs.delete_job("sweep")
    assert jobs.job("sweep") is None and jobs.count_sweep("sweep") == 0 and jobs.partials("sweep") == []
    assert jobs.count_sweep("other") == 2 and jobs.has_result("set")
    jobs.delete_job("alone")
    assert jobs.job("alone") is None and [row.sweep_id for row in jobs.result_rows("alone")] == ["other"]
    jobs.delete_job("other")
    assert not jobs.has_result("alone") and not jobs.has_result("set") and jobs.jobs() == []


def test_progress_counts_the_tasks_of_the_plan(store: ClickHouseStore) -> None:
    store.put_job(msgspec.structs.replace(job("planned"), plan=msgspec.json.encode(PLAN).decode()))
    assert store.progress_of("j") == Progress(0, 9, 0)
    tasks = [("0-1/0+10", 0, GUESS), ("1-2/0+10", 0, GUESS), ("0-1/10+10", 1, GUESS), ("1-2/abc", 1, EXACT)]
    other = [("0-3/0+25", 0, GUESS), ("0-1/0+10@77", 0, GUESS), ("/1x25", MERGED_BATCH, DONE)]
    store.put_task_records([TaskRecord("j", batch, kind, int(task[0] == "1"), task) for task, batch, kind in tasks])
    store.put_task_records([TaskRecord("j", batch, kind, 0, task) for task, batch, kind in other])
    assert store.progress_of("j") == Progress(3, 9, 1)
    store.put_task_records([TaskRecord("j", MERGED_BATCH, DONE, 0, "/3x10")])
    assert store.progress_of("j") == Progress(4, 9, 1)
    assert store.last_activity_ms("j") > 0
    assert store.progress_of("unknown") == Progress(0, 1, 0)


OLD = """
    CREATE TABLE backtest_jobs (job_id String, state LowCardinality(String), spec String, plan String,
        data_digest String, started_ms Int64, reason String, figures String, updated_at DateTime64(6) DEFAULT now64(6))
    ENGINE = ReplacingMergeTree(updated_at) ORDER BY (job_id)
"""


def test_jobs_of_a_release_without_job_history(new_dsn: Callable[[], str]) -> None:
    """Its table had one row per job."""
    dsn = new_dsn()
    ClickHouseStore(dsn).close()
    client = connect(dsn)
    client.command("DROP TABLE backtest_jobs")
    client.command(OLD)
    rows = [("a", "running", "{}"), ("a", "failed", "{}"), ("a", "done", '{"grid":{"x":[1]}}'), ("b", "running", "{}")]
    for job_id, state, spec in rows:
        row = {"job_id": job_id, "state": state, "spec": spec, "started_ms": 5}
        client.raw_insert("backtest_jobs", insert_block=msgspec.json.encode(row), fmt="JSONEachRow")
    client.close()
    for _ in range(2):
        with ClickHouseStore(dsn) as store:
            found = store.job_rows(["a", "b"])
            assert {one: (row.state, row.kind, row.attempt) for one, row in found.items()} == {
                "a": ("done", "sweep", 5),
                "b": ("planned", "backtest", 5),
            }
            assert [row.job_id for row in store.unfinished_jobs()] == ["b"]
            store._apply_schema()
    with ClickHouseStore(dsn) as store:
        store.put_job(job("accepted", "a", attempt=6))
        store._command("OPTIMIZE TABLE backtest_jobs FINAL", {})
        assert [row.state for _, row in store.job_history("a")][-2:] == ["done", "accepted"]
        assert len(store.jobs()) == 2


def test_a_set_of_a_sweep_that_is_a_job_too_has_its_figures_beside_the_sweep(jobs: ClickHouseStore) -> None:
    jobs.put_results([ResultRow(f"set{k}", "s", 10 * k, k, k + 1, 0, "sweep", "{}", number=k) for k in range(3)])
    jobs.put_results([ResultRow("alone", "s", 7, 8, 9, 0, "", "{}")])
    wanted = {"sweep": (20, 2, 3, 3), "set1": (10, 1, 2, 1), "alone": (7, 8, 9, 1)}
    assert jobs.best_figures(list(wanted)) == wanted
    assert jobs.best_figures(["set1"]) == {"set1": (10, 1, 2, 1)}
