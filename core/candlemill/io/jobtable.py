"""The table of jobs: what a job is, what it was, and which there are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from candlemill.io import telemetry
from candlemill.io.clock import clock_ms
from candlemill.io.table import Table
from candlemill.ledger import FINISHED, JobEntry, JobFilter, JobRow, Progress
from candlemill.service import progress
from candlemill.states import is_done, steps_of

EVERY_JOB = JobFilter()
_COUNTS = Progress.__struct_fields__
_ORDER = "attempt * 16 + rank"  # one number is compared in half the time of a tuple
_STATE = f"argMax(state, {_ORDER})"
_CHOOSING = {
    "state": _STATE + " = {state:String}",
    "kind": "any(kind) = {kind:String}",
    "symbol": """(any(JSONExtractString(spec, 'symbol')) = {symbol:String}
        OR max(JSONHas(request, 'weights', {symbol:String})) = 1)""",
    "strategy": "any(JSONExtractString(spec, 'strategy')) = {strategy:String}",
    "whole": f"argMax(parent, {_ORDER}) = ''",
}


class JobTable(Table):
    """The part of a Store that is about jobs. Of a job's rows that with the highest (attempt, rank) counts, of equal
    ones the newest: however late or often a state is written, no job goes back."""

    def put_job(self, job: JobRow) -> None:
        self.put_jobs([job])

    def put_jobs(self, jobs: Sequence[JobRow], at_ms: Sequence[int] = ()) -> None:
        """Append states of jobs, which they reached at these times: now, where none are given."""
        rows = [{**msgspec.structs.asdict(job), "rank": job.order[1]} for job in jobs]
        for row, ms in zip(rows, at_ms, strict=bool(at_ms)):
            row["updated_at"] = ms / 1000
        with self._noted(jobs):
            self._insert("backtest_jobs", rows)
        telemetry.count_states(jobs, at_ms, clock_ms())

    @contextmanager
    def _noted(self, jobs: Sequence[JobRow]) -> Iterator[None]:
        """What is known without asking stays right while rows are written."""
        if self.seen is None:
            yield
            return
        ids = {job.job_id for job in jobs}
        self.seen.rows.begin(self.seen.jobs.note_new(ids))
        try:
            yield
        except BaseException:
            self.seen.rows.forget(ids)
            raise
        self.seen.rows.wrote(jobs)

    def job(self, job_id: str) -> JobRow | None:
        return self.job_rows([job_id]).get(job_id)

    def job_rows(self, job_ids: Sequence[str]) -> dict[str, JobRow]:
        """The jobs of these ids that exist."""
        known: dict[str, JobRow] = {}
        if self.seen is not None:
            known = self.seen.rows.of(job_ids)
            job_ids = self.seen.jobs.perhaps(one for one in job_ids if one not in known)
        # Which of a job's few rows counts is chosen here: ordering and LIMIT BY take half as long again.
        chosen = "= {job:String}" if len(job_ids) == 1 else "IN {jobs:Array(String)}"
        sql = f"SELECT updated_at, {', '.join(JobRow.__struct_fields__)} FROM backtest_jobs WHERE job_id {chosen}"  # noqa: S608
        bound: dict[str, object] = {"job": job_ids[0]} if len(job_ids) == 1 else {"jobs": list(job_ids)}
        found = [(row[0], JobRow(*row[1:])) for row in self._rows(sql, bound)] if job_ids else []
        return known | {row.job_id: row for _, row in sorted(found, key=lambda one: (*one[1].order, one[0]))}

    def job_history(self, job_id: str) -> list[tuple[int, JobRow]]:
        """The states that a job went through, in their order, with their times in ms; the last one counts."""
        sql = f"""
            SELECT toUnixTimestamp64Milli(updated_at), {", ".join(JobRow.__struct_fields__)} FROM backtest_jobs
            WHERE job_id = {{job:String}} ORDER BY attempt, rank, updated_at DESC LIMIT 1 BY attempt, rank
        """  # noqa: S608
        return [(int(row[0]), JobRow(*row[1:])) for row in self._rows(sql, {"job": job_id})]

    def jobs(
        self, wanted: JobFilter = EVERY_JOB, after: tuple[int, str] | None = None, limit: int = 100
    ) -> list[JobEntry]:
        """Jobs, those asked for last first. `after` is the last one's attempt and id of the page before."""
        chosen = ["(latest, job_id) < ({attempt:Int64}, {job:String})"]
        chosen += [condition for name, condition in _CHOOSING.items() if getattr(wanted, name)]
        sql = f"""
            SELECT job_id, max(attempt) AS latest,
                toUnixTimestamp64Milli(min(updated_at)), toUnixTimestamp64Milli(max(updated_at))
            FROM backtest_jobs GROUP BY job_id HAVING {" AND ".join(chosen)}
            ORDER BY latest DESC, job_id DESC LIMIT {{limit:UInt32}}
        """  # noqa: S608
        attempt, job_id = (1 << 62, "") if after is None else after
        bound = {**msgspec.structs.asdict(wanted), "attempt": attempt, "job": job_id, "limit": limit}
        found = {str(row[0]): (int(row[2]), int(row[3])) for row in self._rows(sql, bound)}
        rows = self.job_rows(list(found)) if found else {}
        return [JobEntry(rows[one], *times) for one, times in found.items() if one in rows]

    def unfinished_jobs(self) -> list[JobRow]:
        sql = "SELECT job_id FROM backtest_jobs GROUP BY job_id HAVING " + _STATE + " NOT IN {finished:Array(String)}"  # noqa: S608
        ids = [str(row[0]) for row in self._rows(sql, {"finished": sorted(FINISHED)})]
        return list(self.job_rows(ids).values()) if ids else []

    def waiting_for(self, job_id: str) -> list[JobRow]:
        """The unfinished campaigns that this job is a step of."""
        sql = """
            SELECT DISTINCT job_id FROM backtest_jobs
            WHERE kind IN ('portfolio', 'walk_forward') AND position(plan, {job:String}) > 0
        """
        ids = [str(row[0]) for row in self._rows(sql, {"job": job_id})]
        return [row for row in self.job_rows(ids).values() if not row.finished] if ids else []

    def last_activity_ms(self, job_id: str) -> int:
        """When the job or one of its tasks was last heard of; 0 for a job that there is not."""
        sql = """
            SELECT greatest(
                (SELECT toUnixTimestamp64Milli(max(updated_at)) FROM backtest_jobs WHERE job_id = {job:String}),
                (SELECT 1000 * toInt64(max(created_at)) FROM backtest_slices WHERE job_id = {job:String})
            )
        """
        return int(self._rows(sql, {"job": job_id})[0][0])

    def task_counts(self, job_id: str) -> dict[tuple[int, str, str], int]:
        """How many of a job's tasks have rows, by batch, kind and ending."""
        sql = """
            SELECT batch, kind, substring(task, position(task, '/')) AS ending, uniqExact(slice, task)
            FROM backtest_slices WHERE job_id = {job:String} GROUP BY batch, kind, ending
        """
        return {(int(row[0]), str(row[1]), str(row[2])): int(row[3]) for row in self._rows(sql, {"job": job_id})}

    def progress_of(self, job_id: str) -> Progress:
        """How far a job is; of one that there is not, nothing of one task."""
        row = self.job(job_id)
        return Progress(0, 1, 0) if row is None else self.progress(row)

    def progress(self, row: JobRow) -> Progress:
        """How far a job is: a portfolio counts its jobs, a walk-forward the tasks of its two."""
        if row.kind == "portfolio" and not row.finished:
            steps = steps_of(row)
            children = self.job_rows([step.job_id for step in steps]) if steps else {}
            return Progress(sum(is_done(s, children.get(s.job_id)) for s in steps), max(1, len(steps)), 0)
        if row.kind == "walk_forward" and not row.finished:
            found = [self.progress_of(step.job_id) for step in steps_of(row)]
            more = 2 - len(found)
            return Progress(*(sum(getattr(one, name) for one in found) + more * (name == "total") for name in _COUNTS))
        return progress(row, {} if row.finished else self.task_counts(row.job_id))

    def delete_job(self, job_id: str) -> None:
        """Remove a job: its states, its tasks, its results and those of its sets. What other jobs found stays, also
        where it is the same."""
        bound: dict[str, object] = {"job": job_id}
        for table, mine in {
            "backtest_slices": "job_id = {job:String}",
            "backtest_results": "sweep_id = {job:String} OR (job_id = {job:String} AND sweep_id = '')",
            "backtest_jobs": "job_id = {job:String}",
        }.items():
            self._command(f"DELETE FROM {table} WHERE {mine}", bound)  # noqa: S608
        if self.seen is not None:
            self.seen.rows.forget([job_id])
