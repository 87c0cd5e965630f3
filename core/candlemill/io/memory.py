"""A store in this process's memory: candles of one's own, and the results made of them.

It stands in for the database wherever a job runs at home, so that a job on one's own candles is the same job: the same
plan, the same handlers, the same addresses.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.errors import BadInput
from candlemill.io.clock import clock_ms
from candlemill.io.jobtable import EVERY_JOB
from candlemill.io.store import ID_LETTERS, Store
from candlemill.ledger import (
    NO_FUNDING,
    Funding,
    JobEntry,
    JobFilter,
    JobRow,
    KnownSlice,
    OutcomeRow,
    Partial,
    ResultRow,
)
from candlemill.owndata import Tape
from candlemill.plan import Day
from candlemill.states import request_of, steps_of

TEXTS = ("state", "kind", "symbol", "strategy")


class MemoryStore(Store):
    """Everything of a Store that jobs need. Candles never change; results live as long as this does."""

    def __init__(self, tapes: Sequence[Tape]) -> None:
        self.dsn = "memory"
        self.embedded = True
        self._tapes = {tape.symbol: tape for tape in tapes}
        self._history: dict[str, dict[tuple[int, int], tuple[int, JobRow]]] = {}
        self._results: dict[str, ResultRow] = {}
        if len(self._tapes) < len(tapes):
            raise BadInput("two tapes have the same symbol: give each its own")

    def close(self) -> None:
        """Nothing to close: the next call goes on with what is known."""

    # -- candles ---------------------------------------------------------------------------------------------------

    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        tape = self._tapes[symbol]
        rows = slice(*np.searchsorted(tape.columns["t"], [start, end]).tolist())
        return {name: tape.columns[name][rows] for name in ("t", *names)}

    def insert_candles(self, symbol: str, parts: Iterable[dict[str, NDArray[Any]]]) -> None:
        raise BadInput(f"{symbol}: a tape's candles are what they were made of: make another tape")

    def volume_scale(self, symbol: str) -> int | None:
        return self._tapes[symbol].volume_scale if symbol in self._tapes else None

    def add_symbol(self, symbol: str, volume_scale: int) -> None:
        raise BadInput(f"{symbol}: make a tape of it")

    def symbols(self) -> list[str]:
        return sorted(self._tapes)

    def days(self, symbol: str, start: int | None = None, end: int | None = None) -> list[Day]:
        return self._tapes[symbol].days if symbol in self._tapes else []

    def put_days(self, found: Mapping[str, Sequence[Day]], version: int | None = None) -> None:
        raise BadInput(f"{', '.join(found)}: a tape's days are those of its candles")

    def funding(self, symbol: str) -> Funding:
        return NO_FUNDING

    def put_funding(self, symbol: str, funding: Funding) -> None:
        raise BadInput(f"{symbol}: a tape of one's own has no funding rates")

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
        self, wanted: JobFilter = EVERY_JOB, after: tuple[int, str] | None = None, limit: int = 100
    ) -> list[JobEntry]:
        found = []
        for history in map(self.job_history, self._history):
            row, times = history[-1][1], [ms for ms, _ in history]
            spec = json.loads(row.spec or "{}")
            told = JobFilter(row.state, row.kind, spec.get("symbol", ""), spec.get("strategy", ""))
            if (request := request_of(row)) is not None and wanted.symbol in request.weights:
                told = msgspec.structs.replace(told, symbol=wanted.symbol)
            fits = all(getattr(wanted, name) in ("", getattr(told, name)) for name in TEXTS)
            if wanted.whole and request is not None and request.parent:
                continue
            if fits and (after is None or (row.attempt, row.job_id) < after):
                found.append(JobEntry(row, min(times), max(times)))
        return sorted(found, key=lambda entry: (entry.row.attempt, entry.row.job_id), reverse=True)[:limit]

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
        mine = [key for key, row in self._results.items() if job_id == (row.sweep_id or row.job_id)]
        for key in mine:
            del self._results[key]

    def put_partials(self, partials: Sequence[Partial]) -> None:
        """A job's own memory of them is enough: nothing here outlives the process."""

    def partials(self, job_id: str, batch: int | None = None) -> list[Partial]:
        return []

    def count_partials(self, job_id: str, kind: str, ending: str, batch: int | None = None) -> int:
        return 0

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        """Nor are outcomes: in the memory of a notebook they would only grow."""

    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        return []

    def other_code(self, set_keys: Sequence[str], code: str) -> bool:
        return False

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        return []

    def put_results(self, results: Sequence[ResultRow]) -> None:
        for row in results:
            self._results[f"{row.sweep_id}/{row.job_id}"] = row

    def _newest(self) -> dict[str, ResultRow]:
        return {row.job_id: row for row in self._results.values()}

    def _of_sweep(self, sweep_id: str) -> list[ResultRow]:
        return [row for row in self._results.values() if row.sweep_id == sweep_id]

    def has_result(self, job_id: str) -> bool:
        return any(row.job_id == job_id for row in self._results.values())

    def results(self, job_ids: Sequence[str]) -> list[ResultRow]:
        found = self._newest()
        return [found[job_id] for job_id in job_ids if job_id in found]

    def result_rows(self, job_id: str) -> list[ResultRow]:
        return [row for row in self._results.values() if row.job_id == job_id]

    def recent_results(self, limit: int) -> list[tuple[str, ResultRow]]:
        return [("", row) for row in list(self._newest().values())[: -limit - 1 : -1]]

    def complete_id(self, start: str) -> str:
        known = {
            name for row in self._results.values() for name in (row.job_id, row.sweep_id) if name.startswith(start)
        }
        return known.pop() if len(start) >= ID_LETTERS and len(known) == 1 else start

    def count_sweep(self, sweep_id: str) -> int:
        return len(self._of_sweep(sweep_id))

    def sweep_results(
        self, sweep_id: str, sort: Sequence[str], descending: bool, limit: int | None, offset: int = 0
    ) -> Iterator[str]:
        def key(row: ResultRow) -> tuple[int, str]:
            found = json.loads(row.result)
            for name in sort:
                found = (found or {}).get(name)
            return -int(found or 0) if descending else int(found or 0), row.job_id

        return iter([row.result for row in sorted(self._of_sweep(sweep_id), key=key)[offset:][:limit]])

    def best_figures(self, job_ids: Sequence[str]) -> dict[str, tuple[int, int, int, int]]:
        found: dict[str, tuple[int, int, int, int]] = {}
        for job_id in job_ids:
            rows = self._of_sweep(job_id) or self.results([job_id])
            if rows:
                best = max(rows, key=lambda row: row.sharpe_ratio)
                found[job_id] = (best.total_pnl, best.sharpe_ratio, best.max_drawdown, len(rows))
        return found

    def sweep_figures(self, sweep_id: str, path: Sequence[str]) -> list[tuple[str, dict[str, Any], int | None]]:
        told = []
        for row in sorted(self._of_sweep(sweep_id), key=lambda row: row.job_id):
            result = json.loads(row.result)
            figure = result
            for name in path:
                figure = (figure or {}).get(name)
            told.append((row.job_id, result["params"], figure))
        return told

    def sweep_scores(self, sweep_id: str) -> dict[str, int]:
        return {row.job_id: row.sharpe_ratio for row in self._of_sweep(sweep_id)}

    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]:
        wanted = set(job_ids)
        return {row.job_id: row.daily for row in self._of_sweep(sweep_id) if row.job_id in wanted}
