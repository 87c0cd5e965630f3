"""The contract of stores: what jobs need of a store of candles and results, and what writers of candles need.

A backend implements `Store`, so that jobs run on its candles and keep their results in it, or `CandleStore`, so that
candles can be written to it too. The pipeline needs less: `JobStore` in `pipeline.interfaces`, which local job stores
implement as buffers before a store.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.tiers import TierTable
from candlemill.pipeline.aggregate import progress
from candlemill.pipeline.job_state import WORKFLOWS, is_done, steps_of
from candlemill.pipeline.rows import (
    BatchState,
    JobEntry,
    JobFilter,
    JobRow,
    KnownSlice,
    Notes,
    OutcomeRow,
    Progress,
    ResultRow,
    Scores,
    TaskRecord,
)
from candlemill.store.column_cache import ColumnCache
from candlemill.stored_days import Day, Funding

PRICES: Final = ("open", "high", "low", "close")
ID_LETTERS: Final = 6  # minimum length of an abbreviated job id
NEWEST: Mapping[tuple[str, int], int] = {}
EVERY_JOB: Final = JobFilter()
_COUNTS = Progress.__struct_fields__


class Store(ABC):
    """Candles and their days to read; jobs, task records, outcomes and results to read and write. A context manager.

    `dsn` is its address. `embedded`: whether only this process has it open. `columns`: candles that several readers
    share, or None.
    """

    dsn: str
    embedded: bool
    columns: ColumnCache | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None: ...

    def keep(self) -> None:  # noqa: B027
        """Keep candles and keys in memory from now on, for many jobs one after the other, if the store has any use for
        it."""

    @abstractmethod
    def now_ns(self) -> int:
        """Return the time (ns) of the store's clock, which all its users share. Raises StoreDown without an answer."""

    # -- candles -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Candles of `start <= t < end` (ms) as contiguous columns in time order, one row per minute.

        The columns `names` and `t` (ms); int64, but `volume` uint64. The last inserted duplicate is used.
        """

    @abstractmethod
    def volume_scale(self, symbol: str) -> int | None:
        """Volume scale of a symbol; None if the symbol is not stored."""

    @abstractmethod
    def symbols(self) -> list[str]:
        """Symbols that have candles."""

    @abstractmethod
    def days(self, symbol: str, start: int | None = None, end: int | None = None) -> Sequence[Day]:
        """Metadata index of `symbol`, ascending; with `start` or `end`, only days that overlap `start <= t < end`."""

    @abstractmethod
    def funding(self, symbol: str) -> Funding:
        """All funding rates of a symbol; the last inserted duplicate is used."""

    @abstractmethod
    def margin_tiers(self, symbol: str) -> list[TierTable]:
        """All tables of a symbol's maintenance tiers, in order of their dates; the last inserted of a date is used."""

    # -- jobs and their tasks ------------------------------------------------------------------------------------------

    def put_job(self, job: JobRow, at_ms: int | None = None) -> None:
        self.put_jobs([job], [] if at_ms is None else [at_ms])

    def job(self, job_id: str) -> JobRow | None:
        return self.job_rows([job_id]).get(job_id)

    @abstractmethod
    def put_jobs(self, jobs: Sequence[JobRow], at_ms: Sequence[int] = ()) -> None:
        """Append states of jobs, with the times `at_ms` at which they were reached; default: now."""

    @abstractmethod
    def job_rows(self, job_ids: Sequence[str]) -> dict[str, JobRow]:
        """Jobs of these ids, if they exist."""

    @abstractmethod
    def job_history(self, job_id: str) -> list[tuple[int, JobRow]]:
        """States of a job in their order, with their times in ms; the last one is valid."""

    @abstractmethod
    def jobs(
        self, job_filter: JobFilter = EVERY_JOB, after: tuple[int, str] | None = None, limit: int = 100
    ) -> list[JobEntry]:
        """Jobs, the latest request first. `after`: attempt and id of the last job of the previous page."""

    @abstractmethod
    def unfinished_jobs(self) -> list[JobRow]:
        """Return the jobs that may go on."""

    @abstractmethod
    def waiting_for(self, job_id: str) -> list[JobRow]:
        """Unfinished workflows that have this job as a step."""

    @abstractmethod
    def last_activity_ms(self, job_id: str) -> int:
        """Time (ms) of the last state of the job, or of the last record of its tasks; 0 for an unknown job."""

    @abstractmethod
    def put_task_records(self, partials: Sequence[TaskRecord]) -> None:
        """Store records of tasks."""

    @abstractmethod
    def partials(self, job_id: str, batch: int | None = None) -> list[TaskRecord]:
        """Return the records of a job's tasks, of all batches or of one."""

    @abstractmethod
    def tasks_done(self, job_id: str) -> int:
        """Number of different records of a job's tasks."""

    @abstractmethod
    def batch_state(self, job_id: str, batch: int, tasks: str, merged: str, enough: int) -> BatchState:
        """State of a batch by records whose names end with `tasks` and `merged`; with names from `enough` tasks on."""

    @abstractmethod
    def sweep_parts(self, job_id: str, merged: str) -> dict[int, str]:
        """What the records of merged batches, whose names end with `merged`, have for a sweep's guards, by batch."""

    @abstractmethod
    def task_counts(self, job_id: str) -> dict[tuple[int, str, str], int]:
        """Number of a job's tasks that have records, by batch, kind and ending; a merged batch has one of kind DONE."""

    @abstractmethod
    def delete_job(self, job_id: str) -> None:
        """Delete a job: its states, notes, task records, results, and results of its parameter sets."""

    @abstractmethod
    def put_notes(self, notes: Notes) -> None:
        """Store a job's notes, in place of those before, whatever the clock shows."""

    @abstractmethod
    def notes(self, job_ids: Sequence[str]) -> dict[str, Notes]:
        """Return the notes of those of these jobs that have some."""

    @abstractmethod
    def tags(self, limit: int = 1_000) -> list[tuple[str, int]]:
        """Return the tags in use with their numbers of jobs, the most used first."""

    def progress_of(self, job_id: str) -> Progress:
        """Progress of a job; 0 of 1 task for an unknown job."""
        row = self.job(job_id)
        return Progress(0, 1, 0) if row is None else self.progress(row)

    def progress(self, row: JobRow) -> Progress:
        """Progress of a job: a portfolio counts its jobs, a walk-forward the tasks of its jobs."""
        if row.kind in WORKFLOWS and row.kind != "walk_forward" and not row.finished:
            steps = steps_of(row)
            children = self.job_rows([step.job_id for step in steps]) if steps else {}
            return Progress(sum(is_done(s, children.get(s.job_id)) for s in steps), max(1, len(steps)), 0)
        if row.kind == "walk_forward" and not row.finished:
            found = [self.progress_of(step.job_id) for step in steps_of(row)]
            not_started = (not found) + (not row.figures)
            return Progress(
                *(sum(getattr(one, name) for one in found) + not_started * (name == "total") for name in _COUNTS)
            )
        return progress(row, {} if row.finished else self.task_counts(row.job_id))

    # -- outcomes of slices --------------------------------------------------------------------------------------------

    @abstractmethod
    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        """Return the known slices of these sets; `code` is `identity.code_key`."""

    @abstractmethod
    def other_code(self, set_keys: Sequence[str], code: str) -> bool:
        """Return whether outcomes of one of these sets exist from other code."""

    @abstractmethod
    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        """Return the outcomes of these sets in these slices, from any start state."""

    @abstractmethod
    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        """Store outcomes of slices."""

    def release(self, set_keys: Sequence[str]) -> None:  # noqa: B027 - most backends keep none
        """Release the outcomes of these sets from memory, if any are kept there: their batch is merged."""

    # -- results -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def put_results(self, results: Sequence[ResultRow]) -> None:
        """Store results."""

    @abstractmethod
    def has_result(self, job_id: str) -> bool:
        """Return whether a job has a result."""

    @abstractmethod
    def results(self, job_ids: Sequence[str]) -> list[ResultRow]:
        """Newest result row of each job id, if it has one."""

    @abstractmethod
    def result_rows(self, job_id: str) -> list[ResultRow]:
        """All result rows of a job; several if it was computed again or is part of sweeps."""

    @abstractmethod
    def recent_results(self, limit: int) -> list[tuple[str, ResultRow]]:
        """Newest results, one per job id, with their times of creation; without the sets of sweeps."""

    @abstractmethod
    def recent_sweeps(self, limit: int) -> list[tuple[str, str]]:
        """The newest sweeps with results: when the last of them was stored, and the sweep's job id."""

    @abstractmethod
    def complete_id(self, start: str) -> str:
        """Complete an abbreviated id of a job or of a sweep's set; returns `start` if none or several ids match."""

    @abstractmethod
    def count_sweep(self, sweep_id: str) -> int:
        """Return the number of a sweep's parameter sets that have results."""

    @abstractmethod
    def sweep_results(
        self, sweep_id: str, sort: Sequence[str], descending: bool, limit: int | None, offset: int = 0
    ) -> Iterator[str]:
        """Yield the results of a sweep's parameter sets as JSON, sorted by the figure at the path `sort`.

        Undefined figures come last in both directions; equal ones are sorted by number. An empty path sorts by number.
        Reads ids first, then rows in groups, so that memory does not grow with the sweep. Figures may exceed 64 bits;
        such numbers are in quotes in the JSON.
        """

    @abstractmethod
    def best_figures(self, job_ids: Sequence[str]) -> dict[str, tuple[int, int, int, int]]:
        """Profit, Sharpe ratio, drawdown and number of parameter sets of finished jobs; of a sweep those of its best
        set."""

    @abstractmethod
    def sweep_figures(self, sweep_id: str, path: Sequence[str]) -> list[tuple[str, dict[str, Any], int | None]]:
        """Job id, parameters and the figure at `path` of each parameter set of a sweep, by number."""

    @abstractmethod
    def sweep_scores(self, sweep_id: str) -> Scores:
        """Sharpe ratios of a sweep's parameter sets as columns, by number. Not for sweeps of earlier releases."""

    def merges_paused(self) -> AbstractContextManager[None]:
        """Return a context for a large job's writes, in which the store puts off what can be done later."""
        return nullcontext()

    @abstractmethod
    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]:
        """Daily figures of parameter sets of a sweep, by job id, see `candlemill.backtests.daily`."""


class CandleStore(Store):
    """A store whose candles can be written; `ingest` and `feed` need it."""

    def times(self, symbol: str, start: int, end: int) -> NDArray[np.int64]:
        """Return the times (ms) of a symbol's candles in `start <= t < end`."""
        found: NDArray[np.int64] = self.read_columns(symbol, start, end, ())["t"]
        return found

    @abstractmethod
    def read_many(self, symbols: Sequence[str], start: int, end: int) -> dict[str, dict[str, NDArray[Any]]]:
        """All columns of several symbols, as in `read_columns`; without symbols that have no candles."""

    @abstractmethod
    def insert_candles(self, symbol: str, parts: Iterable[dict[str, NDArray[Any]]]) -> None:
        """Append candles (`t` in ms, four prices, `volume`), one insert per part, two in parallel, since an insert uses
        one core of the engine. The caller updates `coverage_days`."""

    @abstractmethod
    def insert_rows(self, parts: Sequence[tuple[str, dict[str, NDArray[Any]]]]) -> None:
        """Append candles of several symbols, all of one month, in one insert, which creates one part of the table.

        The caller updates `coverage_days`.
        """

    @abstractmethod
    def add_symbol(self, symbol: str, volume_scale: int) -> None:
        """Store a symbol's volume scale; the first one that is stored is valid."""

    @abstractmethod
    def days_of_candles(self, symbol: str, outside: Sequence[tuple[int, int]] = ()) -> list[int]:
        """UTC days (midnights in ms) with candles, according to the candle table.

        Days in the spans `outside` (ms, ascending, apart from each other) may be left out, which saves reading them.
        """

    @abstractmethod
    def day_versions(self, days: Mapping[str, Sequence[int]]) -> dict[tuple[str, int], int]:
        """Highest version of each of these days (midnights in ms, by symbol) in the index, 0 for none."""

    @abstractmethod
    def day_rows(self, days: Mapping[str, Sequence[int]]) -> dict[tuple[str, int], int]:
        """Number of stored rows of these days (midnights in ms, by symbol), duplicates included; without empty days."""

    @abstractmethod
    def put_days(self, found: Mapping[str, Sequence[Day]], versions: Mapping[tuple[str, int], int] = NEWEST) -> None:
        """Store days of the index. The row of a day with the highest version is valid.

        `versions`: by symbol and midnight in ms; by default higher than all stored ones.
        """

    @abstractmethod
    def put_writer(self, writer: str, version: int, is_open: bool, first: int, last: int) -> None:
        """Store that a writer of candles has opened or closed; see `candle_writer`."""

    @abstractmethod
    def open_writers(self, writer: str, first: int, last: int) -> list[tuple[str, int]]:
        """Other open writers of days that overlap `first` to `last` (ms), with their versions: the database's time (ns)
        of their opening."""

    @abstractmethod
    def put_funding(self, symbol: str, funding: Funding) -> None:
        """Append funding rates of a symbol."""

    @abstractmethod
    def put_margin_tiers(self, symbol: str, tables: Sequence[TierTable]) -> None:
        """Append tables of a symbol's maintenance tiers."""
