"""Protocols of the stores and the dependencies of a handler."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from candlemill.backtests.merge import Repair
from candlemill.backtests.plan import Plan
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

if TYPE_CHECKING:
    from candlemill.pipeline.prepare import PreparedJob

UNCHANGED_KEPT = 10_000


class Waves(msgspec.Struct, frozen=True):
    """How functions hand out the tasks of a job: how many at once, and how long a task takes by estimate, in seconds,
    unless one slice takes longer."""

    tasks: int
    seconds: float


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

    def batch_state(self, job_id: str, batch: int, tasks: str, merged: str) -> BatchState:
        """Return a batch's state by records whose names end with `tasks` and `merged`. Costs the same for jobs of any
        size: it reads no records of tasks of other batches."""

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


class Unchanged:
    """Timer of unchanged states, by a monotonic clock in ms."""

    def __init__(self, monotonic_ms: Callable[[], int]) -> None:
        self._monotonic_ms = monotonic_ms
        self._since: dict[str, tuple[object, int]] = {}

    def for_ms(self, name: str, state: object) -> int:
        """Return for how many ms `name` has had this state, counted from the first call with it; 0 for a new state."""
        now = self._monotonic_ms()
        known = self._since.get(name)
        if known is None or known[0] != state:
            self._since[name] = known = (state, now)
            while len(self._since) > UNCHANGED_KEPT:
                self._since.pop(next(iter(self._since)))
        return now - known[1]


def _nothing() -> None:
    """Read nothing again (the default)."""


def _no_cache_lookup(what: str, found: int, missing: int) -> None:
    """Ignore cache lookups (the default)."""


class HandlerContext(msgspec.Struct, frozen=True):
    """Dependencies of a handler.
    `recall` has the index answer from what earlier requests have read, `renew` from the store. `on_cache_lookup` gets
    the number of hits and misses of each cache lookup. `merge` merges a batch elsewhere, see `aggregate.merge_here`;
    `spread` applies a function to parts, as `map` does, possibly in parallel."""

    store: JobStore
    index: DayIndex
    candles: CandleSource
    clock_ms: Callable[[], int]
    on_cache_lookup: Callable[[str, int, int], None] = _no_cache_lookup  # name of the lookup, hits, misses
    merge: "Merge | None" = None
    spread: Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]] = map
    recall: Callable[[], None] = _nothing
    renew: Callable[[], None] = _nothing
    waves: Waves | None = None  # None: all tasks at once, of a slice each
    unchanged: Unchanged | None = None  # only in a process that watches jobs
    prepared: "PreparedJob | None" = None  # the job that all events are of, where one process runs it


class MergedSets(msgspec.Struct, frozen=True):
    """Result of merging parameter sets: their results and the outcomes of prefixes (see `pipeline.prefix`), or the
    repairs that must come first."""

    results: list[ResultRow]
    repairs: list[Repair]
    set_keys: list[str]
    prefixes: list[OutcomeRow] = []


# Merge this many grid points of a job's plan from the first on. None: still running; deliver the event again later.
Merge = Callable[[JobRow, Plan, int, int], MergedSets | None]
