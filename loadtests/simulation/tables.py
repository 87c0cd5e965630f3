"""What the store has, and since when: it can be read as it was some moments ago.

Which row of a job counts, and which rows are the same, is decided as ClickHouse's tables decide it.
"""

from collections.abc import Iterable, Sequence

from candlemill.ledger import JobRow, OutcomeRow, Partial, ResultRow
from candlemill.states import CAMPAIGNS, later

from loadtests.simulation.cases import SYMBOLS, Candles, market

Address = tuple[str, str, str, str]


def address_of(row: OutcomeRow) -> Address:
    return row.set_key, row.code, row.slice_key, row.start_state


class Tables:
    """`at` is the moment of a write, or that as of which is read, in ms. Moments of writes never descend."""

    def __init__(self) -> None:
        self.jobs: dict[str, list[tuple[int, JobRow]]] = {}
        self.slices: dict[str, dict[Partial, int]] = {}
        self.outcomes: dict[Address, dict[OutcomeRow, int]] = {}
        self._touched: dict[str, list[int]] = {}
        self.results: list[tuple[int, ResultRow]] = []
        self._stages: dict[str, list[tuple[int, Candles]]] = {s: [(0, market(s).stages[0])] for s in SYMBOLS}

    # -- candles and their index -----------------------------------------------------------------------------------

    def candles(self, symbol: str, at: int) -> Candles:
        return next(candles for since, candles in reversed(self._stages[symbol]) if since <= at)

    def correct(self, symbol: str, moments: Sequence[int]) -> None:
        """From each of the moments on, the next stage of the symbol's correction."""
        self._stages[symbol] += zip(moments, market(symbol).stages[1:], strict=True)

    # -- jobs ------------------------------------------------------------------------------------------------------

    def put_job(self, row: JobRow, at: int) -> None:
        self.jobs.setdefault(row.job_id, []).append((at, row))

    def job(self, job_id: str, at: int) -> JobRow | None:
        found = None
        for when, row in self.jobs.get(job_id, ()):
            if when <= at:
                found = later(found, row)
        return found

    def history(self, job_id: str, at: int) -> list[tuple[int, JobRow]]:
        """The newest row of each attempt and state."""
        found = {row.order: (when, row) for when, row in self.jobs.get(job_id, ()) if when <= at}
        return [found[order] for order in sorted(found)]

    def unfinished(self, at: int) -> list[JobRow]:
        rows = (self.job(job_id, at) for job_id in self.jobs)
        return [row for row in rows if row is not None and not row.finished]

    def waiting_for(self, job_id: str, at: int) -> list[JobRow]:
        """The unfinished campaigns that this job is a step of."""
        rows = (row for row in self.unfinished(at) if row.kind in CAMPAIGNS)
        return [row for row in rows if job_id in row.plan]

    def last_activity(self, job_id: str, at: int) -> int:
        """A task's row that is written again is as good as new."""
        rows = (when for when, _ in self.jobs.get(job_id, ()))
        return max((when for when in (*rows, *self._touched.get(job_id, ())) if when <= at), default=0)

    def put_partials(self, rows: Sequence[Partial], at: int) -> None:
        for row in rows:
            self.slices.setdefault(row.job_id, {}).setdefault(row, at)
            self._touched.setdefault(row.job_id, []).append(at)

    def partials(self, job_id: str, batch: int | None, at: int) -> list[Partial]:
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
