"""Table of jobs: their states, history, lists and progress."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from candlemill.backtests.metric_table import path_of
from candlemill.pipeline.job_state import WORKFLOWS
from candlemill.pipeline.rows import FINISHED, MERGED_BATCH, BatchState, JobEntry, JobFilter, JobRow, TaskRecord
from candlemill.store.base import EVERY_JOB
from candlemill.store.connection import Connection
from candlemill.telemetry import instrument
from candlemill.units import clock_ms

_ORDER = "attempt * 16 + rank"  # comparing one number takes half the time of a tuple
_STATE = f"argMax(state, {_ORDER})"
_CONDITIONS = {
    "state": _STATE + " = {state:String}",
    "kind": "any(kind) = {kind:String}",
    "symbol": """(any(JSONExtractString(spec, 'symbol')) = {symbol:String}
        OR max(JSONHas(request, 'weights', {symbol:String})) = 1)""",
    "strategy": "any(JSONExtractString(spec, 'strategy')) = {strategy:String}",
    "whole": f"argMax(parent, {_ORDER}) = ''",
}


_NOTED = "job_id IN (SELECT job_id FROM job_notes FINAL WHERE {})"
_FIGURES_JOB = f"""if(any(kind) = 'walk_forward',
    JSONExtractString(argMax(figures, {_ORDER}), 'job_id'), job_id)"""


def conditions(job_filter: JobFilter) -> tuple[list[str], dict[str, object]]:
    """Return the conditions of a filter for groups of a job's rows, and the values that they bind."""
    found = [condition for name, condition in _CONDITIONS.items() if getattr(job_filter, name)]
    bound: dict[str, object] = {name: getattr(job_filter, name) for name in ("state", "kind", "symbol", "strategy")}
    if job_filter.tags:
        found.append(_NOTED.format("hasAll(tags, {tags:Array(String)})"))
        bound["tags"] = list(job_filter.tags)
    if job_filter.text:
        words = "arrayStringConcat(arrayConcat([label, note], tags), ' ')"
        found.append(_NOTED.format(f"positionCaseInsensitiveUTF8({words}, {{text:String}}) > 0"))
        bound["text"] = job_filter.text
    for name, condition in (("since_ms", ">= {since_ms:Int64}"), ("until_ms", "< {until_ms:Int64}")):
        if getattr(job_filter, name):
            found.append(f"latest {condition}")
            bound[name] = getattr(job_filter, name)
    for k, (name, value) in enumerate(job_filter.params):
        found.append(f"""(any(JSONExtractRaw(spec, 'params', {{name{k}:String}})) = {{value{k}:String}}
            OR has(any(JSONExtractArrayRaw(spec, 'grid', {{name{k}:String}})), {{value{k}:String}}))""")
        bound |= {f"name{k}": name, f"value{k}": value}
    for k, limit in enumerate(job_filter.figures):
        path = path_of(limit.key)
        names = ", ".join(f"{{path{k}_{j}:String}}" for j in range(len(path)))
        sign = ">=" if limit.is_least else "<="
        found.append(f"""{_FIGURES_JOB} IN (
            SELECT arrayJoin([job_id, sweep_id]) FROM backtest_results
            WHERE toInt256OrNull(trim(BOTH '"' FROM JSONExtractRaw(result, {names}))) {sign} {{limit{k}:Int256}})""")  # noqa: S608
        bound |= {f"path{k}_{j}": name for j, name in enumerate(path)} | {f"limit{k}": limit.value}
    return found, bound


class JobTable(Connection):
    """The tables of jobs and their tasks; the methods are documented in `store.base.Store`.

    The row of a job with the highest (attempt, rank) is valid, of equal ones the newest. Therefore a state that is
    written late or twice never reverts a job.
    """

    def put_jobs(self, jobs: Sequence[JobRow], at_ms: Sequence[int] = ()) -> None:
        rows = [{**msgspec.structs.asdict(job), "rank": job.order[1]} for job in jobs]
        for row, ms in zip(rows, at_ms, strict=bool(at_ms)):
            row["updated_at"] = ms / 1000
        with self._known_keys_updated(jobs):
            self._insert("backtest_jobs", rows)
        instrument.count_states(jobs, at_ms, clock_ms())

    @contextmanager
    def _known_keys_updated(self, jobs: Sequence[JobRow]) -> Iterator[None]:
        """Keep `known_keys` correct while rows are written."""
        if self.known_keys is None:
            yield
            return
        ids = {job.job_id for job in jobs}
        self.known_keys.rows.begin(self.known_keys.jobs.add_new(ids))
        try:
            yield
        except BaseException:
            self.known_keys.rows.forget(ids)
            raise
        self.known_keys.rows.wrote(jobs)

    def job_rows(self, job_ids: Sequence[str]) -> dict[str, JobRow]:
        known: dict[str, JobRow] = {}
        if self.known_keys is not None:
            known = self.known_keys.rows.of(job_ids)
            job_ids = self.known_keys.jobs.may_have(one for one in job_ids if one not in known)
        # The valid row of a job is selected here: ORDER BY and LIMIT BY take 50 % longer.
        condition = "= {job:String}" if len(job_ids) == 1 else "IN {jobs:Array(String)}"
        sql = f"SELECT updated_at, {', '.join(JobRow.__struct_fields__)} FROM backtest_jobs WHERE job_id {condition}"  # noqa: S608
        bound: dict[str, object] = {"job": job_ids[0]} if len(job_ids) == 1 else {"jobs": list(job_ids)}
        found = [(row[0], JobRow(*row[1:])) for row in self._rows(sql, bound)] if job_ids else []
        return known | {row.job_id: row for _, row in sorted(found, key=lambda one: (*one[1].order, one[0]))}

    def job_history(self, job_id: str) -> list[tuple[int, JobRow]]:
        sql = f"""
            SELECT toUnixTimestamp64Milli(updated_at), {", ".join(JobRow.__struct_fields__)} FROM backtest_jobs
            WHERE job_id = {{job:String}} ORDER BY attempt, rank, updated_at DESC LIMIT 1 BY attempt, rank
        """  # noqa: S608
        return [(int(row[0]), JobRow(*row[1:])) for row in self._rows(sql, {"job": job_id})]

    def jobs(
        self, job_filter: JobFilter = EVERY_JOB, after: tuple[int, str] | None = None, limit: int = 100
    ) -> list[JobEntry]:
        chosen, given = conditions(job_filter)
        having = ["(latest, job_id) < ({attempt:Int64}, {job:String})", *chosen]
        sql = f"""
            SELECT job_id, max(attempt) AS latest,
                toUnixTimestamp64Milli(min(updated_at)), toUnixTimestamp64Milli(max(updated_at))
            FROM backtest_jobs GROUP BY job_id HAVING {" AND ".join(having)}
            ORDER BY latest DESC, job_id DESC LIMIT {{limit:UInt32}}
        """  # noqa: S608
        attempt, job_id = (1 << 62, "") if after is None else after
        bound = given | {"attempt": attempt, "job": job_id, "limit": limit}
        found = {str(row[0]): (int(row[2]), int(row[3])) for row in self._rows(sql, bound)}
        rows = self.job_rows(list(found)) if found else {}
        return [JobEntry(rows[one], *times) for one, times in found.items() if one in rows]

    def unfinished_jobs(self) -> list[JobRow]:
        sql = "SELECT job_id FROM backtest_jobs GROUP BY job_id HAVING " + _STATE + " NOT IN {finished:Array(String)}"  # noqa: S608
        ids = [str(row[0]) for row in self._rows(sql, {"finished": sorted(FINISHED)})]
        return list(self.job_rows(ids).values()) if ids else []

    def waiting_for(self, job_id: str) -> list[JobRow]:
        sql = """
            SELECT DISTINCT job_id FROM backtest_jobs
            WHERE kind IN {kinds:Array(String)} AND position(plan, {job:String}) > 0
        """
        ids = [str(row[0]) for row in self._rows(sql, {"job": job_id, "kinds": sorted(WORKFLOWS)})]
        return [row for row in self.job_rows(ids).values() if not row.finished] if ids else []

    def last_activity_ms(self, job_id: str) -> int:
        sql = """
            SELECT greatest(
                (SELECT toUnixTimestamp64Milli(max(updated_at)) FROM backtest_jobs WHERE job_id = {job:String}),
                (SELECT 1000 * toInt64(max(created_at)) FROM backtest_slices WHERE job_id = {job:String})
            )
        """
        return int(self._rows(sql, {"job": job_id})[0][0])

    def task_counts(self, job_id: str) -> dict[tuple[int, str, str], int]:
        sql = """
            SELECT if(kind = 'done', slice, batch) AS of, kind, substring(task, position(task, '/')) AS ending,
                uniqExact(slice, task)
            FROM backtest_slices WHERE job_id = {job:String} GROUP BY of, kind, ending
        """
        return {(int(row[0]), str(row[1]), str(row[2])): int(row[3]) for row in self._rows(sql, {"job": job_id})}

    def put_task_records(self, partials: Sequence[TaskRecord]) -> None:
        if self.known_keys is not None:
            self.known_keys.tasks.add({row.job_id for row in partials})
        self._insert("backtest_slices", partials)

    def partials(self, job_id: str, batch: int | None = None) -> list[TaskRecord]:
        if self.known_keys is not None and not self.known_keys.tasks.may_have([job_id]):
            return []
        sql = """
            SELECT job_id, batch, kind, slice, task FROM backtest_slices FINAL
            WHERE job_id = {job:String} AND ({batch:Int64} < 0 OR batch = {batch:Int64})
        """
        rows = self._rows(sql, {"job": job_id, "batch": -1 if batch is None else batch})
        return [TaskRecord(*row) for row in rows]

    def tasks_done(self, job_id: str) -> int:
        sql = "SELECT uniqExact(batch, kind, slice, task) FROM backtest_slices WHERE job_id = {job:String}"
        return int(self._rows(sql, {"job": job_id})[0][0])

    def batch_state(self, job_id: str, batch: int, tasks: str, merged: str, enough: int) -> BatchState:
        sql = """
            WITH groupUniqArrayIf(task, batch = {batch:UInt32} AND kind = 'guess' AND endsWith(task, {tasks:String}))
                AS names
            SELECT
                length(names),
                if(length(names) >= {enough:Int64}, names, []),
                countIf(batch = {merged_batch:UInt32} AND slice = {batch:UInt32} AND task = {merged:String}) > 0,
                uniqExactIf(slice, batch = {merged_batch:UInt32} AND task = {merged:String})
            FROM backtest_slices
            WHERE job_id = {job:String} AND batch IN ({batch:UInt32}, {merged_batch:UInt32})
        """
        bound = {"job": job_id, "batch": batch, "merged_batch": MERGED_BATCH, "tasks": tasks, "merged": merged}
        ((found, names, is_merged, count),) = self._rows(sql, bound | {"enough": enough})
        return BatchState(int(found), bool(is_merged), int(count), frozenset(names))

    def sweep_parts(self, job_id: str, merged: str) -> dict[int, str]:
        sql = """
            SELECT slice, any(part) FROM backtest_slices
            WHERE job_id = {job:String} AND batch = {merged_batch:UInt32} AND task = {merged:String} GROUP BY slice
        """
        rows = self._rows(sql, {"job": job_id, "merged_batch": MERGED_BATCH, "merged": merged})
        return {int(row[0]): str(row[1]) for row in rows}

    def delete_job(self, job_id: str) -> None:
        bound: dict[str, object] = {"job": job_id}
        for table, condition in {
            "backtest_slices": "job_id = {job:String}",
            "backtest_results": "sweep_id = {job:String} OR (job_id = {job:String} AND sweep_id = '')",
            "backtest_jobs": "job_id = {job:String}",
            "job_notes": "job_id = {job:String}",
        }.items():
            self._command(f"DELETE FROM {table} WHERE {condition}", bound)  # noqa: S608
        if self.known_keys is not None:
            self.known_keys.rows.forget([job_id])
