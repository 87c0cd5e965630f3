"""Rows of the job tables."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.errors import StoreDown

T = TypeVar("T")

# The scores of a sweep's sets: their numbers (see `ResultRow`), ascending, and their Sharpe ratios times 10^8.
Scores = tuple[NDArray[np.int64], NDArray[np.int64]]

GUESS, EXACT, DONE = "guess", "exact", "done"
MERGED_BATCH = 2**32 - 1  # `batch` of all records of merged batches, so that they are counted without those of tasks

# A job's states in their order; those of FINISHED end an attempt. A job never goes back to an earlier state.
RANKS = {"accepted": 0, "planned": 1, "repairing": 2, "merging": 3, "cancelled": 4, "failed": 5, "done": 6}
FINISHED = frozenset({"cancelled", "failed", "done"})


class TaskRecord(msgspec.Struct, frozen=True):
    """One row of `backtest_slices`, the log of a job's finished tasks; outcomes are stored elsewhere.
    Tasks that belong together have the same ending of `task`, from its first slash on. The record of a merged batch
    (kind DONE) has `batch` MERGED_BATCH, the batch's number as `slice`, and of a sweep the `part` of `sweep_figures`,
    which is not read with the log."""

    job_id: str
    batch: int
    kind: str
    slice: int
    task: str
    part: str = ""


class BatchState(msgspec.Struct, frozen=True):
    """Number of a batch's tasks with records, whether it is merged, and the number of merged batches of the job;
    `names` are those of the tasks, where they are enough."""

    tasks: int
    is_merged: bool
    merged: int
    names: frozenset[str] = frozenset()


class OutcomeRow(msgspec.Struct, frozen=True):
    """One row of `slice_outcomes`: the result of a parameter set on a slice from a start state.

    Its key is `set_key`, `code`, `slice_key` and `start_state`, the digest of that state. `first_ms` is the start of
    the data that the set reads before the slice. Lists are JSON; `days` are runs of UTC days, as in `daily`.
    """

    set_key: str
    code: str
    slice_key: str
    start_state: str
    first_ms: int
    start_ms: int
    end_ms: int
    guessed: bool  # false: the start state is the end state of the slice before
    end_state: str
    summary: str
    daily: str
    days: str

    @property
    def size(self) -> int:
        """Return the approximate size in bytes."""
        return 256 + len(self.end_state) + len(self.summary) + len(self.daily)


class KnownSlice(msgspec.Struct, frozen=True):
    """A slice with outcomes of some parameter sets, from any start state."""

    key: str
    first_ms: int
    start_ms: int
    end_ms: int
    sets: set[str]


class JobRow(msgspec.Struct, frozen=True):
    """One row of `backtest_jobs`: a job in one state. The row with the highest `order` is the current one."""

    job_id: str
    state: str
    spec: str
    plan: str  # "" until the job is planned
    data_digest: str
    started_ms: int  # when its tasks were last requested
    reason: str = ""
    figures: str = ""  # of a finished sweep its guards, as JSON; of a walk-forward its choices
    kind: str = "backtest"  # or "sweep", "portfolio", "walk_forward", "sweeps", "walk_forwards", "study"
    attempt: int = 0  # when this attempt was requested, in ms; a new request for an ended job starts another attempt
    request: str = ""  # the data of the event that requests this attempt

    @property
    def finished(self) -> bool:
        return self.state in FINISHED

    @property
    def order(self) -> tuple[int, int]:
        return self.attempt, RANKS.get(self.state, 0)


class JobEntry(msgspec.Struct, frozen=True):
    """A job in a listing; the times are those of its first and its last state."""

    row: JobRow
    created_ms: int
    updated_ms: int


class Notes(msgspec.Struct, frozen=True):
    """One row of `job_notes`: what users have written about a job."""

    job_id: str
    label: str = ""
    note: str = ""
    tags: list[str] = []


class FigureLimit(msgspec.Struct, frozen=True):
    """Limit of a figure in a search: at least (or at most) `value`, in the figure's integers."""

    key: str
    is_least: bool
    value: int


class JobFilter(msgspec.Struct, frozen=True):
    """Filter of a job listing; what is empty does not filter.

    `params` are names and values as JSON, of the parameters or of an axis of the grid. Of a sweep one set suffices that
    has the `figures`. `since_ms` and `until_ms` are times of the request.
    """

    state: str = ""
    kind: str = ""
    symbol: str = ""
    strategy: str = ""
    whole: bool = False  # without jobs that workflows requested as their steps
    tags: tuple[str, ...] = ()
    text: str = ""  # in the label, the note or a tag
    params: tuple[tuple[str, str], ...] = ()
    figures: tuple[FigureLimit, ...] = ()
    since_ms: int = 0
    until_ms: int = 0


class Progress(msgspec.Struct, frozen=True):
    """Number of a job's tasks that are done, and number of finished repairs."""

    done: int
    total: int
    repairs: int


class ResultRow(msgspec.Struct, frozen=True):
    """One row of `backtest_results`.
    `result` is the whole result as JSON, `daily` its daily profits (see `daily`), `number` the index of a sweep's
    parameter set among the points of the grid."""

    job_id: str
    strategy_id: str
    total_pnl: int
    sharpe_ratio: int
    max_drawdown: int
    execution_time_ms: int
    sweep_id: str
    result: str
    daily: str = ""
    number: int = 0


class PaperRunRow(msgspec.Struct, frozen=True):
    """One row of `paper_runs`: `spec` is the run's spec as JSON, `since_ms` the first minute that is published."""

    run_id: str
    request_key: str
    symbol: str
    strategy: str
    spec: str
    since_ms: int


class PaperLogRow(msgspec.Struct, frozen=True):
    """One row of `paper_log`. `seq` counts the rows of a run from 1 on; times are ms.

    `minute`: the candle of minute `t` was used, after which the run is in `state` (empty for minutes before the first
    that is published). `inputs`: so were the candles in `state`, by name, of a run that reads those of several names.
    `facts`: from here on the run uses these rates and tiers. `replay`: all rows of minute `t` and later ones are void,
    because candles have changed. `day`: the UTC day that begins at `t` is over; `state` has its digest and its outcome.
    `event` is the type of what is published with the row, `data` its data, `attempt` its number; all empty if nothing
    is.
    """

    run_id: str
    seq: int
    kind: Literal["minute", "inputs", "replay", "day", "facts"]
    t: int
    open: int = 0
    high: int = 0
    low: int = 0
    close: int = 0
    volume: int = 0
    state: str = ""
    event: str = ""
    attempt: int = 0
    data: str = ""
    claim: int = 0


def scores_of(rows: Iterable[ResultRow]) -> Scores:
    """Return the scores of a sweep's rows; a row that was written twice counts once."""
    found = {row.number: row.sharpe_ratio for row in rows}
    numbers = sorted(found)
    return np.array(numbers, dtype=np.int64), np.array([found[k] for k in numbers], dtype=np.int64)


def require_all(ids: Sequence[str], found: Mapping[str, T]) -> Mapping[str, T]:
    """Return `found` if it has every id. Raises StoreDown otherwise: a replica may lag behind the end of a job."""
    if missing := [own for own in ids if own not in found]:
        raise StoreDown(f"{len(missing):,} of {len(ids):,} results are not in the store yet, such as {missing[0]}")
    return found
