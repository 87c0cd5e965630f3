"""Protocols of the stores."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from candlemill.backtests.slice import SliceWindow
from candlemill.backtests.spec import Spec
from candlemill.backtests.tiers import TierTable
from candlemill.pipeline.rows import (
    BatchState,
    JobRow,
    KnownSlice,
    OutcomeRow,
    ResultRow,
    Scores,
    TaskRecord,
)
from candlemill.stored_days import Day, Funding


class JobStore(Protocol):
    """Storage of jobs, their tasks, outcomes and results: the database, or a local buffer in memory before it."""

    def job(self, job_id: str) -> JobRow | None: ...
    def job_rows(self, job_ids: Sequence[str]) -> dict[str, JobRow]: ...
    def put_job(self, job: JobRow, at_ms: int | None = None) -> None: ...
    def put_jobs(self, jobs: Sequence[JobRow], at_ms: Sequence[int] = ()) -> None: ...
    def job_history(self, job_id: str) -> list[tuple[int, JobRow]]: ...
    def waiting_for(self, job_id: str) -> list[JobRow]: ...
    def unfinished_jobs(self) -> list[JobRow]: ...
    def last_activity_ms(self, job_id: str) -> int: ...
    def partials(self, job_id: str, batch: int | None = None) -> list[TaskRecord]: ...
    def put_task_records(self, partials: Sequence[TaskRecord]) -> None: ...
    def tasks_done(self, job_id: str) -> int: ...

    def batch_state(self, job_id: str, batch: int, tasks: str, merged: str, enough: int) -> BatchState:
        """Return a batch's state by records whose names end with `tasks` and `merged`; with their names from `enough`
        tasks on. Costs the same for jobs of any size: it reads no records of tasks of other batches."""

    def sweep_parts(self, job_id: str, merged: str) -> dict[int, str]:
        """Return what the records of merged batches, whose names end with `merged`, have for a sweep's guards."""

    def has_result(self, job_id: str) -> bool: ...
    def results(self, job_ids: Sequence[str]) -> list[ResultRow]: ...
    def put_results(self, results: Sequence[ResultRow]) -> None: ...
    def count_sweep(self, sweep_id: str) -> int: ...
    def sweep_scores(self, sweep_id: str) -> Scores | None: ...  # None where no results are kept
    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]: ...

    # Outcomes by their cache keys; `code` is `model.code_key`.
    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        """Return the known slices of these sets."""

    def other_code(self, set_keys: Sequence[str], code: str) -> bool:
        """Return whether outcomes of one of these sets exist from other code."""

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        """Return the outcomes of these sets in these slices, from any start state."""

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None: ...

    def release(self, set_keys: Sequence[str]) -> None:
        """Release the outcomes of these sets from memory: their batch is merged."""


class DayIndex(Protocol):
    """The metadata index: which symbols and days have candles. A symbol's days are the same object while unchanged."""

    def symbols(self) -> list[str]: ...
    def days(self, symbol: str) -> Sequence[Day]: ...
    def volume_scale(self, symbol: str) -> int: ...
    def funding(self, symbol: str) -> Funding: ...
    def margin_tiers(self, symbol: str) -> Sequence[TierTable]: ...  # in order of their dates


class CandleSource(Protocol):
    """Source of a slice's bars."""

    def window(self, spec: Spec, start: int, end: int, context: int, columns: Sequence[str]) -> SliceWindow: ...

    def turnover(self, spec: Spec, start: int, end: int) -> Mapping[int, int]:
        """Return sums of close times volume by day (its start), of the job's days from `start` on that end by `end`."""
