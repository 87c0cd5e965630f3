"""What is kept of jobs, and what a handler may touch of the world."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.model import Spec
from candlemill.plan import Day, Plan
from candlemill.reduce import Repair
from candlemill.work import Window

GUESS, EXACT, DONE = "guess", "exact", "done"

# A job's states in the order that they come in; those of FINISHED end an attempt. A later one is never taken back.
RANKS = {"accepted": 0, "planned": 1, "repairing": 2, "merging": 3, "cancelled": 4, "failed": 5, "done": 6}
FINISHED = frozenset({"cancelled", "failed", "done"})


class Partial(msgspec.Struct, frozen=True):
    """One row of `backtest_slices`, the log of a job's finished tasks: their outcomes are elsewhere. `task` ends, from
    its first slash on, in what rows that belong together share."""

    job_id: str
    batch: int
    kind: str
    slice: int
    task: str


class OutcomeRow(msgspec.Struct, frozen=True):
    """One row of `slice_outcomes`: what a parameter set made of a slice from a start state.

    Its address is `set_key`, `code`, `slice_key` and `start_state`, the digest of that state. `first_ms` is where what
    the set looks back at begins. Lists are JSON; `days` are runs of UTC days, as in `daily`.
    """

    set_key: str
    code: str
    slice_key: str
    start_state: str
    first_ms: int
    start_ms: int
    end_ms: int
    guessed: bool  # or handed over by the slice before
    end_state: str
    summary: str
    daily: str
    days: str

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return 256 + len(self.end_state) + len(self.summary) + len(self.daily)


class KnownSlice(msgspec.Struct, frozen=True):
    """A slice of which some parameter sets have outcomes, from whatever start."""

    key: str
    first_ms: int
    start_ms: int
    end_ms: int
    sets: set[str]


class JobRow(msgspec.Struct, frozen=True):
    """One row of `backtest_jobs`: what a job is in one state. Of a job's rows that with the highest `order` counts."""

    job_id: str
    state: str
    spec: str
    plan: str  # "" until the job is planned
    data_digest: str
    started_ms: int  # when its tasks were last asked for
    reason: str = ""
    figures: str = ""  # of a finished sweep: its guards, as JSON; of a walk-forward what it has chosen
    kind: str = "backtest"  # or "sweep", "portfolio", "walk_forward"
    attempt: int = 0  # when this attempt was asked for, in ms; an ended job that is asked for again has another one
    request: str = ""  # the data of the event that asks for this attempt

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


class JobFilter(msgspec.Struct, frozen=True):
    """What a listing is limited to; empty texts limit nothing."""

    state: str = ""
    kind: str = ""
    symbol: str = ""
    strategy: str = ""
    whole: bool = False  # without those that campaigns have asked for as parts of themselves


class Progress(msgspec.Struct, frozen=True):
    """How many of a job's tasks are done, and how many repairs were."""

    done: int
    total: int
    repairs: int


class ResultRow(msgspec.Struct, frozen=True):
    """One row of `backtest_results`; `result` is the whole result as JSON, `daily` its daily profits (see `daily`)."""

    job_id: str
    strategy_id: str
    total_pnl: int
    sharpe_ratio: int
    max_drawdown: int
    execution_time_ms: int
    sweep_id: str
    result: str
    daily: str = ""


class Ledger(Protocol):
    """Where jobs, their tasks, outcomes and results are kept: the store, or the local home's memory before it."""

    def job(self, job_id: str) -> JobRow | None: ...
    def job_rows(self, job_ids: Sequence[str]) -> dict[str, JobRow]: ...
    def put_job(self, job: JobRow) -> None: ...
    def job_history(self, job_id: str) -> list[tuple[int, JobRow]]: ...
    def waiting_for(self, job_id: str) -> list[JobRow]: ...
    def unfinished_jobs(self) -> list[JobRow]: ...
    def last_activity_ms(self, job_id: str) -> int: ...
    def partials(self, job_id: str, batch: int | None = None) -> list[Partial]: ...
    def put_partials(self, partials: Sequence[Partial]) -> None: ...
    def count_partials(self, job_id: str, kind: str, ending: str, batch: int | None = None) -> int: ...
    def has_result(self, job_id: str) -> bool: ...
    def results(self, job_ids: Sequence[str]) -> list[ResultRow]: ...
    def put_results(self, results: Sequence[ResultRow]) -> None: ...
    def sweep_scores(self, sweep_id: str) -> dict[str, int] | None: ...  # None where no results are kept
    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]: ...

    # Outcomes by their addresses; `code` is `model.code_key`.
    def known_slices(self, set_keys: Sequence[str], code: str) -> list[KnownSlice]:
        """What is known of these sets."""

    def other_code(self, set_keys: Sequence[str], code: str) -> bool:
        """Whether other code has outcomes of one of these sets."""

    def outcomes(self, set_keys: Sequence[str], code: str, slice_keys: Sequence[str]) -> list[OutcomeRow]:
        """The outcomes of these sets in these slices, from whatever start."""

    def put_outcomes(self, rows: Sequence[OutcomeRow]) -> None: ...

    def release(self, set_keys: Sequence[str]) -> None:
        """The batch of these sets is merged: nobody is about to ask for their outcomes."""


class Funding(msgspec.Struct, frozen=True):
    """A symbol's funding rates (times 10^8) and their instants in ms, ascending."""

    t: NDArray[np.int64]
    rate: NDArray[np.int64]


NO_FUNDING = Funding(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


class Index(Protocol):
    """The metadata index: which symbols and days have candles. A symbol's days are the same object while unchanged."""

    def symbols(self) -> list[str]: ...
    def days(self, symbol: str) -> Sequence[Day]: ...
    def volume_scale(self, symbol: str) -> int: ...
    def funding(self, symbol: str) -> Funding: ...


class TapeSource(Protocol):
    """Where a slice's bars come from."""

    def window(self, spec: Spec, start: int, end: int, context: int, columns: Sequence[str]) -> Window: ...


def _untold(what: str, found: int, missing: int) -> None:
    """Nobody listens."""


class Runtime(msgspec.Struct, frozen=True):
    """What a handler is given. It tells `looked` how much of what it looked for was there. `merge` is who else merges
    a batch, see `service.merge_here`; `spread` applies a function to parts, as `map` does, and may have others help."""

    ledger: Ledger
    index: Index
    tapes: TapeSource
    clock_ms: Callable[[], int]
    looked: Callable[[str, int, int], None] = _untold  # what for, how many were found, how many were not
    merge: "Merge | None" = None
    spread: Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]] = map


class MergedSets(msgspec.Struct, frozen=True):
    """What came of merging some parameter sets: their results, or where there are any, the repairs that come first."""

    results: list[ResultRow]
    repairs: list[Repair]
    set_keys: list[str]


# Of a job's plan so many grid points from the first one on. None: it is under way, and the event is to come again.
Merge = Callable[[JobRow, Plan, int, int], MergedSets | None]
