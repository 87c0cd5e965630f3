"""What the store has, and since when: it can be read as it was some moments ago.

Which row of a job counts, and which rows are the same, is decided as ClickHouse's tables decide it.
"""

from collections.abc import Iterable, Sequence

from candlemill.pipeline.job_state import WORKFLOWS, later
from candlemill.pipeline.rows import JobRow, OutcomeRow, ResultRow, TaskRecord

from loadtests.fault_simulation.cases import SYMBOLS, Candles, market

Address = tuple[str, str, str, str]


def address_of(row: OutcomeRow) -> Address:
    return row.set_key, row.code, row.slice_key, row.start_state


class Tables:
    """`at` is the moment of a write, or that as of which is read, in ms. Moments of writes never descend; their stamps,
    what the store's clock showed then, may."""

    def __init__(self) -> None:
        self.jobs: dict[str, list[tuple[int, int, JobRow]]] = {}  # moments, stamps, rows
        self.slices: dict[str, dict[TaskRecord, int]] = {}
        self.outcomes: dict[Address, dict[OutcomeRow, int]] = {}
        self._touched: dict[str, list[tuple[int, int]]] = {}  # moments, stamps
        self.results: list[tuple[int, ResultRow]] = []
        self._stages: dict[str, list[tuple[int, Candles]]] = {s: [(0, market(s).stages[0])] for s in SYMBOLS}

    # -- candles and their index -----------------------------------------------------------------------------------

    def candles(self, symbol: str, at: int) -> Candles:
        return next(candles for since, candles in reversed(self._stages[symbol]) if since <= at)

    def correct(self, symbol: str, moments: Sequence[int]) -> None:
        """From each of the moments on, the next stage of the symbol's correction."""
        self._stages[symbol] += zip(moments, market(symbol).stages[1:], strict=True)

    # -- jobs ------------------------------------------------------------------------------------------------------

    def put_job(self, row: JobRow, at: int, stamp: int | None = None) -> None:
        self.jobs.setdefault(row.job_id, []).append((at, at if stamp is None else stamp, row))

    def job(self, job_id: str, at: int) -> JobRow | None:
        found = None
        for _, row in self._in_order(job_id, at):
            found = later(found, row)
        return found

    def _in_order(self, job_id: str, at: int) -> list[tuple[int, JobRow]]:
        """A job's rows by their stamps."""
        rows = [(stamp, row) for when, stamp, row in self.jobs.get(job_id, ()) if when <= at]
        return sorted(rows, key=lambda one: one[0])

    def history(self, job_id: str, at: int) -> list[tuple[int, JobRow]]:
        """The newest row of each attempt and state."""
        found = {row.order: (stamp, row) for stamp, row in self._in_order(job_id, at)}
        return [found[order] for order in sorted(found)]

    def unfinished(self, at: int) -> list[JobRow]:
        rows = (self.job(job_id, at) for job_id in self.jobs)
        return [row for row in rows if row is not None and not row.finished]

    def waiting_for(self, job_id: str, at: int) -> list[JobRow]:
        """The unfinished workflows that this job is a step of."""
        rows = (row for row in self.unfinished(at) if row.kind in WORKFLOWS)
        return [row for row in rows if job_id in row.plan]

    def last_activity(self, job_id: str, at: int) -> int:
        """A task's row that is written again is as good as new."""
        rows = ((when, stamp) for when, stamp, _ in self.jobs.get(job_id, ()))
        return max((stamp for when, stamp in (*rows, *self._touched.get(job_id, ())) if when <= at), default=0)

    def put_task_records(self, rows: Sequence[TaskRecord], at: int, stamp: int) -> None:
        for row in rows:
            self.slices.setdefault(row.job_id, {}).setdefault(row, at)
            self._touched.setdefault(row.job_id, []).append((at, stamp))

    def partials(self, job_id: str, batch: int | None, at: int) -> list[TaskRecord]:
        found = self.slices.get(job_id, {}).items()
        return [row for row, when in found if when <= at and batch in (None, row.batch)]

    def put_outcomes(self, rows: Sequence[OutcomeRow], at: int) -> None:
        for row in rows:
            self.outcomes.setdefault(address_of(row), {}).setdefault(row, at)

    def outcomes_at(self, at: int) -> Iterable[OutcomeRow]:
        """Rows of one address, guessed and handed over, come side by side."""
        return (row for rows in self.outcomes.values() for row, when in rows.items() if when <= at)

    def put_results(self, rows: Sequence[ResultRow], at: int) -> None:
        self.results += ((at, row) for row in rows)

    def results_at(self, at: int) -> Iterable[ResultRow]:
        """Rows that were written twice come twice."""
        return (row for when, row in self.results if when <= at)
