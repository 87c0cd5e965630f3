"""Store in memory, for jobs on the user's own candles.

It replaces the database in local runs, so that such a job has the same plan, handlers and cache keys as any other.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.metric_table import order_of
from candlemill.backtests.tiers import TierTable
from candlemill.errors import BadInput
from candlemill.pipeline.job_search import matches
from candlemill.pipeline.job_state import request_of, steps_of
from candlemill.pipeline.rows import (
    BatchState,
    JobEntry,
    JobFilter,
    JobRow,
    KnownSlice,
    Notes,
    OutcomeRow,
    ResultRow,
    Scores,
    TaskRecord,
    scores_of,
)
from candlemill.store.base import EVERY_JOB, ID_LETTERS, Store
from candlemill.stored_days import NO_FUNDING, Day, Funding
from candlemill.units import clock_ms

OUTCOME_BYTES = 32_000_000
TEXT_FIELDS = ("state", "kind", "symbol", "strategy")


class SymbolCandles(Protocol):
    """Candles of one symbol in memory (`candlemill.Candles`): read-only int64 columns by name, and their days."""

    symbol: str
    volume_scale: int
    columns: dict[str, NDArray[np.int64]]
    days: list[Day]


class MemoryStore(Store):
    """Store in the memory of this process. Candles never change; results exist as long as this object."""

    def __init__(self, candles: Sequence[SymbolCandles]) -> None:
        self.dsn = "memory"
        self.embedded = True
        self._candles = {one.symbol: one for one in candles}
        self._notes: dict[str, Notes] = {}
        self._history: dict[str, dict[tuple[int, int], tuple[int, JobRow]]] = {}
        self._results: dict[str, ResultRow] = {}
        self._outcomes = _Outcomes()
        if len(self._candles) < len(candles):
            raise BadInput("two sets of candles have the same symbol: give each its own")

    def close(self) -> None:
        """Do nothing: the store stays usable."""

    def now_ns(self) -> int:
        return time.time_ns()

    # -- candles ---------------------------------------------------------------------------------------------------

    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        columns = self._candles[symbol].columns
        rows = slice(*np.searchsorted(columns["t"], [start, end]).tolist())
        return {name: columns[name][rows] for name in ("t", *names)}

    def volume_scale(self, symbol: str) -> int | None:
        return self._candles[symbol].volume_scale if symbol in self._candles else None

    def symbols(self) -> list[str]:
        return sorted(self._candles)

    def days(self, symbol: str, start: int | None = None, end: int | None = None) -> list[Day]:
        days = self._candles[symbol].days if symbol in self._candles else []
        if start is None and end is None:
            return days
        return [day for day in days if day.last >= (start or 0) and (end is None or day.first < end)]

    def funding(self, symbol: str) -> Funding:
        return NO_FUNDING

    def margin_tiers(self, symbol: str) -> list[TierTable]:
        return []

    # -- jobs ------------------------------------------------------------------------------------------------------

    def put_jobs(self, jobs: Sequence[JobRow], at_ms: Sequence[int] = ()) -> None:
        for job, ms in zip(jobs, at_ms or [clock_ms()] * len(jobs), strict=True):
            self._history.setdefault(job.job_id, {})[job.order] = (ms, job)

    def job_rows(self, job_ids: Sequence[str]) -> dict[str, JobRow]:
        return {one: self.job_history(one)[-1][1] for one in job_ids if one in self._history}

    def job_history(self, job_id: str) -> list[tuple[int, JobRow]]:
        known = self._history.get(job_id, {})
        return [known[order] for order in sorted(known)]

    def jobs(
        self, job_filter: JobFilter = EVERY_JOB, after: tuple[int, str] | None = None, limit: int = 100
    ) -> list[JobEntry]:
        found = []
        for history in map(self.job_history, self._history):
            row, times = history[-1][1], [ms for ms, _ in history]
            spec = json.loads(row.spec or "{}")
            fields = JobFilter(row.state, row.kind, spec.get("symbol", ""), spec.get("strategy", ""))
            if (request := request_of(row)) is not None and job_filter.symbol in request.weights:
                fields = msgspec.structs.replace(fields, symbol=job_filter.symbol)
            is_alike = all(getattr(job_filter, name) in ("", getattr(fields, name)) for name in TEXT_FIELDS)
            if job_filter.whole and request is not None and request.parent:
                continue
            is_alike = is_alike and self._is_found(row, spec, job_filter)
            if is_alike and (after is None or (row.attempt, row.job_id) < after):
                found.append(JobEntry(row, min(times), max(times)))
        return sorted(found, key=lambda entry: (entry.row.attempt, entry.row.job_id), reverse=True)[:limit]

    def _is_found(self, row: JobRow, spec: dict[str, Any], job_filter: JobFilter) -> bool:
        if row.attempt < job_filter.since_ms or (job_filter.until_ms and row.attempt >= job_filter.until_ms):
            return False
        of = json.loads(row.figures)["job_id"] if row.kind == "walk_forward" and row.figures else row.job_id
        rows = self._of_sweep(of) or self.results([of])
        notes = self._notes.get(row.job_id, Notes(row.job_id))
        return matches(spec, [json.loads(one.result) for one in rows], notes, job_filter)

    def put_notes(self, notes: Notes) -> None:
        self._notes[notes.job_id] = notes

    def notes(self, job_ids: Sequence[str]) -> dict[str, Notes]:
        found = {one: self._notes[one] for one in job_ids if one in self._notes}
        return {one: notes for one, notes in found.items() if notes != Notes(one)}

    def tags(self, limit: int = 1_000) -> list[tuple[str, int]]:
        found = Counter(tag for notes in self._notes.values() for tag in notes.tags)
        return sorted(found.items(), key=lambda one: (-one[1], one[0]))[:limit]

    def unfinished_jobs(self) -> list[JobRow]:
        return [row for row in self.job_rows(list(self._history)).values() if not row.finished]

    def waiting_for(self, job_id: str) -> list[JobRow]:
        return [row for row in self.unfinished_jobs() if any(step.job_id == job_id for step in steps_of(row))]

    def last_activity_ms(self, job_id: str) -> int:
        return max((ms for ms, _ in self.job_history(job_id)), default=0)

    def task_counts(self, job_id: str) -> dict[tuple[int, str, str], int]:
        return {}

    def delete_job(self, job_id: str) -> None:
        self._history.pop(job_id, None)
        self._notes.pop(job_id, None)
        keys = [key for key, row in self._results.items() if job_id == (row.sweep_id or row.job_id)]
        for key in keys:
            del self._results[key]

    def put_task_records(self, partials: Sequence[TaskRecord]) -> None:
        """Do nothing: nothing here outlives the process, so a job needs no records."""

    def partials(self, job_id: str, batch: int | None = None) -> list[TaskRecord]:
        return []

    def tasks_done(self, job_id: str) -> int:
        return 0

    def batch_state(self, job_id: str, batch: int, tasks: str, merged: str, enough: int) -> BatchState:
        return BatchState(0, False, 0)

    def sweep_parts(self, job_id: str, merged: str) -> dict[int, str]:
        return {}

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        self._outcomes.put(rows)

    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        rows = self._outcomes.of(set_keys, code)
        return [KnownSlice(r.slice_key, r.first_ms, r.start_ms, r.end_ms, {r.set_key}) for r in rows]

    def other_code(self, set_keys: Sequence[str], code: str) -> bool:
        return False

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        slices = set(slice_keys)
        return [row for row in self._outcomes.of(set_keys, code) if row.slice_key in slices]

    def put_results(self, results: Sequence[ResultRow]) -> None:
        for row in results:
            self._results[f"{row.sweep_id}/{row.job_id}"] = row

    def _newest(self) -> dict[str, ResultRow]:
        return {row.job_id: row for row in self._results.values()}

    def _of_sweep(self, sweep_id: str) -> list[ResultRow]:
        """Results of a sweep, by number."""
        found = [row for row in self._results.values() if row.sweep_id == sweep_id]
        return sorted(found, key=lambda row: (row.number, row.job_id))

    def has_result(self, job_id: str) -> bool:
        return any(row.job_id == job_id for row in self._results.values())

    def results(self, job_ids: Sequence[str]) -> list[ResultRow]:
        found = self._newest()
        return [found[job_id] for job_id in job_ids if job_id in found]

    def result_rows(self, job_id: str) -> list[ResultRow]:
        return [row for row in self._results.values() if row.job_id == job_id]

    def recent_results(self, limit: int) -> list[tuple[str, ResultRow]]:
        found = {row.job_id: row for row in self._results.values() if not row.sweep_id}
        return [("", row) for row in list(found.values())[: -limit - 1 : -1]]

    def recent_sweeps(self, limit: int) -> list[tuple[str, str]]:
        found = dict.fromkeys(row.sweep_id for row in list(self._results.values())[::-1] if row.sweep_id)
        return [("", sweep_id) for sweep_id in list(found)[:limit]]

    def complete_id(self, start: str) -> str:
        known = {
            name for row in self._results.values() for name in (row.job_id, row.sweep_id) if name.startswith(start)
        } | {name for name in self._history if name.startswith(start)}
        return known.pop() if len(start) >= ID_LETTERS and len(known) == 1 else start

    def count_sweep(self, sweep_id: str) -> int:
        return len(self._of_sweep(sweep_id))

    def sweep_results(
        self, sweep_id: str, sort: Sequence[str], descending: bool, limit: int | None, offset: int = 0
    ) -> Iterator[str]:
        rows = self._of_sweep(sweep_id)
        if sort:
            rows = [rows[k] for k in order_of([_figure(json.loads(row.result), sort) for row in rows], descending)]
        return iter([row.result for row in rows[offset:][:limit]])

    def best_figures(self, job_ids: Sequence[str]) -> dict[str, tuple[int, int, int, int]]:
        found: dict[str, tuple[int, int, int, int]] = {}
        for job_id in job_ids:
            rows = self._of_sweep(job_id) or self.results([job_id])
            if rows:
                best = max(rows, key=lambda row: row.sharpe_ratio)
                found[job_id] = (best.total_pnl, best.sharpe_ratio, best.max_drawdown, len(rows))
        return found

    def sweep_figures(self, sweep_id: str, path: Sequence[str]) -> list[tuple[str, dict[str, Any], int | None]]:
        rows = [(row.job_id, json.loads(row.result)) for row in self._of_sweep(sweep_id)]
        return [(job_id, result["params"], _figure(result, path)) for job_id, result in rows]

    def sweep_scores(self, sweep_id: str) -> Scores:
        return scores_of(self._of_sweep(sweep_id))

    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]:
        ids = set(job_ids)
        return {row.job_id: row.daily for row in self._of_sweep(sweep_id) if row.job_id in ids}


def _figure(result: Any, path: Sequence[str]) -> int | None:
    for name in path:
        result = (result or {}).get(name)
    return None if result is None else int(result)


class _Outcomes:
    """The newest outcomes, as many as OUTCOME_BYTES hold: all of a sweep would fill the memory of a notebook."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str, str], OutcomeRow] = {}
        self._by_set: dict[tuple[str, str], set[tuple[str, str, str, str]]] = {}
        self._bytes = 0

    def put(self, rows: Sequence[OutcomeRow]) -> None:
        for row in rows:
            key = (row.set_key, row.code, row.slice_key, row.start_state)
            self._remove(key)
            self._rows[key] = row
            self._by_set.setdefault(key[:2], set()).add(key)
            self._bytes += row.size
        while self._bytes > OUTCOME_BYTES:
            self._remove(next(iter(self._rows)))

    def _remove(self, key: tuple[str, str, str, str]) -> None:
        row = self._rows.pop(key, None)
        if row is None:
            return
        self._bytes -= row.size
        of_set = self._by_set[key[:2]]
        of_set.remove(key)
        if not of_set:
            del self._by_set[key[:2]]

    def of(self, set_keys: Sequence[str], code: str) -> list[OutcomeRow]:
        """Return the outcomes of parameter sets, in no order."""
        return [self._rows[key] for one in set_keys for key in self._by_set.get((one, code), ())]
