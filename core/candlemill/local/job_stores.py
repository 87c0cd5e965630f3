"""Job stores that buffer rows before the database."""

import time
from collections import Counter
from collections.abc import Callable, Sequence

from candlemill.local.outcomes import LocalOutcomes
from candlemill.pipeline.job_state import WORKFLOWS, later
from candlemill.pipeline.rows import (
    DONE,
    GUESS,
    MERGED_BATCH,
    BatchState,
    JobRow,
    ResultRow,
    Scores,
    TaskRecord,
)
from candlemill.store.base import Store
from candlemill.units import clock_ms

FLUSH_SECONDS = 5.0
RESULT_SECONDS = 1.0  # a crash loses the batches of so long
RESULT_BYTES = 8_000_000  # of results in memory
LOOK_SECONDS = 1.0  # interval of checks in the store whether another process has ended a job


class BufferedJobStore(LocalOutcomes):
    """A log of tasks in memory, written to the store every few seconds.
    So a crash loses only seconds, and a MergeTree does not get a part for each task. Outcomes are written in the
    same way if they are `kept`. With `fresh`, rows of an earlier process are ignored: everything is computed again."""

    def __init__(self, store: Store, fresh: bool = False, kept: bool = True) -> None:
        super().__init__(store, kept and not fresh)
        self._fresh = fresh
        self._jobs: dict[str, JobRow] = {}
        self._rows: dict[str, dict[int, _Batch]] = {}
        self._states: list[tuple[int, JobRow]] = []  # not written yet, with their times in ms
        self._unwritten: list[TaskRecord] = []
        self._results: list[ResultRow] = []  # not written yet
        self._result_bytes = 0
        self._looked: dict[str, float] = {}
        self.last_result: ResultRow | None = None
        self._daily: dict[str, str] = {}  # of the best set of each batch
        self._written_at = time.monotonic()

    def job(self, job_id: str) -> JobRow | None:
        """Return the job's current row; a cancellation by another process appears within a second."""
        known = self._jobs.get(job_id)
        if known is None:
            stored = self._store.job(job_id)
            if stored is None:
                self._rows.setdefault(job_id, {})  # a job that does not exist has no tasks
            return stored
        now = time.monotonic()
        if not known.finished and now - self._looked.setdefault(job_id, now) > LOOK_SECONDS:
            self._looked[job_id] = now
            stored = self._store.job(job_id)
            if stored is not None and stored.attempt == known.attempt:
                known = self._jobs[job_id] = later(stored, known)
        return known

    def job_rows(self, job_ids: Sequence[str]) -> dict[str, JobRow]:
        return self._store.job_rows(job_ids)

    def waiting_for(self, job_id: str) -> list[JobRow]:
        return self._store.waiting_for(job_id)

    def job_history(self, job_id: str) -> list[tuple[int, JobRow]]:
        return self._store.job_history(job_id)

    def unfinished_jobs(self) -> list[JobRow]:
        return self._store.unfinished_jobs()

    def last_activity_ms(self, job_id: str) -> int:
        return self._store.last_activity_ms(job_id)

    def put_job(self, job: JobRow, at_ms: int | None = None) -> None:
        self._jobs[job.job_id] = later(self._jobs.get(job.job_id), job)
        self._states.append((clock_ms() if at_ms is None else at_ms, job))
        if job.finished:
            self.flush()
        elif job.kind in WORKFLOWS:  # other processes look for a workflow's next step in the store
            self._write_states()

    def put_jobs(self, jobs: Sequence[JobRow], at_ms: Sequence[int] = ()) -> None:
        """Write rows of jobs that other processes run, without buffering."""
        self._store.put_jobs(jobs, at_ms)

    def _write_states(self) -> None:
        if self._states:
            self._store.put_jobs([job for _, job in self._states], [ms for ms, _ in self._states])
        self._states = []

    def partials(self, job_id: str, batch: int | None = None) -> list[TaskRecord]:
        batches = self._batches(job_id)
        chosen = batches.values() if batch is None else [batches.get(batch, _Batch())]
        return [row for found in chosen for row in found.rows.values()]

    def _batches(self, job_id: str) -> "dict[int, _Batch]":
        """Return the job's rows by batch; rows of an earlier process are read from the store once."""
        if job_id not in self._rows:
            self._rows[job_id] = {}
            for row in [] if self._fresh else self._store.partials(job_id):
                self._add(row)
        return self._rows[job_id]

    def _add(self, row: TaskRecord) -> None:
        self._rows[row.job_id].setdefault(row.batch, _Batch()).add(row)

    def put_task_records(self, partials: Sequence[TaskRecord]) -> None:
        for row in partials:
            batches = self._batches(row.job_id)
            if row.kind == DONE:
                batches.pop(row.slice, None)
                merged = (row.job_id, row.slice)
                self._unwritten = [other for other in self._unwritten if (other.job_id, other.batch) != merged]
            self._add(row)
            self._unwritten.append(row)
        self._flush_sometimes()

    def _flush_sometimes(self) -> None:
        seconds = RESULT_SECONDS if self._results else FLUSH_SECONDS
        if self._result_bytes >= RESULT_BYTES or time.monotonic() - self._written_at > seconds:
            self.flush()

    def tasks_done(self, job_id: str) -> int:
        return sum(len(found.rows) for found in self._batches(job_id).values())

    def batch_state(self, job_id: str, batch: int, tasks: str, merged: str, enough: int) -> BatchState:
        found, done = (self._batches(job_id).get(one, _Batch()) for one in (batch, MERGED_BATCH))
        count = found.counts[GUESS, tasks]
        names = frozenset(row.task for row in found.rows.values()) if count >= enough else frozenset[str]()
        return BatchState(count, (DONE, batch, merged) in done.rows, done.counts[DONE, merged], names)

    def sweep_parts(self, job_id: str, merged: str) -> dict[int, str]:
        rows = self._batches(job_id).get(MERGED_BATCH, _Batch()).rows.values()
        return {row.slice: row.part for row in rows if row.kind == DONE and row.task == merged}

    def has_result(self, job_id: str) -> bool:
        return self._store.has_result(job_id)

    def results(self, job_ids: Sequence[str]) -> list[ResultRow]:
        self._write_results()
        return self._store.results(job_ids)

    def put_results(self, results: Sequence[ResultRow]) -> None:
        self._results += results
        self._result_bytes += sum(len(row.result) + len(row.daily) for row in results)
        if results:
            self.last_result = results[0]
            best = max(results, key=_sharpe_ratio)  # the first of equal ones, as a sweep's guards choose
            self._daily[best.job_id] = best.daily

    def _write_results(self) -> None:
        if self._results:
            self._store.put_results(self._results)
        self._results, self._result_bytes = [], 0

    def count_sweep(self, sweep_id: str) -> int:
        self._write_results()
        return self._store.count_sweep(sweep_id)

    def sweep_scores(self, sweep_id: str) -> Scores | None:
        self._write_results()
        return self._store.sweep_scores(sweep_id)

    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]:
        if not self._daily.keys() >= set(job_ids):
            self._write_results()
            return self._store.sweep_daily(sweep_id, job_ids)
        return {job_id: self._daily[job_id] for job_id in job_ids}

    def flush(self) -> None:
        """Write the rows that are not in the store yet. Results go first: a job or a batch that is done has them."""
        self._write_results()
        self._write_states()
        self.write_outcomes()
        self._store.put_task_records([row for row in self._unwritten if self._matters(row)])
        self._unwritten = []
        self._written_at = time.monotonic()

    def _matters(self, row: TaskRecord) -> bool:
        """Return whether a record is for a process that resumes the job: nobody resumes one that is done, and a task
        without stored outcomes is not done for others."""
        job = self._jobs.get(row.job_id)
        return (job is None or job.state != "done") and (self._kept or row.kind == DONE)


class DryRunJobStore(BufferedJobStore):
    """A job store for verification: it reads and writes nothing and passes each batch's results to `take`."""

    def __init__(self, store: Store, take: Callable[[Sequence[ResultRow]], None]) -> None:
        super().__init__(store, fresh=True)
        self._take = take

    def job(self, job_id: str) -> JobRow | None:
        return self._jobs.get(job_id)

    def put_job(self, job: JobRow, at_ms: int | None = None) -> None:
        self._jobs[job.job_id] = job

    def has_result(self, job_id: str) -> bool:
        return False

    def put_results(self, results: Sequence[ResultRow]) -> None:
        self._take(results)

    def sweep_parts(self, job_id: str, merged: str) -> dict[int, str]:
        return dict.fromkeys(super().sweep_parts(job_id, merged), "")

    def sweep_scores(self, sweep_id: str) -> None:
        return None

    def flush(self) -> None:
        """Write nothing."""
        self._states, self._unwritten = [], []


def _sharpe_ratio(row: ResultRow) -> int:
    return row.sharpe_ratio


class _Batch:
    """One batch's rows, and their counts by kind and ending, which are needed after every task."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, int, str], TaskRecord] = {}
        self.counts: Counter[tuple[str, str]] = Counter()

    def add(self, row: TaskRecord) -> None:
        key = (row.kind, row.slice, row.task)
        self.counts[row.kind, row.task[row.task.index("/") :]] += key not in self.rows
        self.rows[key] = row
