"""Running a job at home: prepare, deliver events until it has ended, read the results."""

import json
from typing import Any

from candlemill import events
from candlemill.errors import NoData, UnknownName
from candlemill.io.coverage import current_days
from candlemill.io.local import Broker, FrozenIndex, LocalLedger, Pool, Progress, clock_ms, cores
from candlemill.io.store import Store
from candlemill.io.tapes import Tapes
from candlemill.ledger import ResultRow, Runtime
from candlemill.model import Spec, grid_points
from candlemill.plan import estimate_seconds
from candlemill.service import Prepared, days_in, prepare
from candlemill.work import needs_range

POOL_SECONDS = 2.0  # workers take half a second to start: a job shorter than this runs without


class Home:
    """One store and the index as it is now."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.index = FrozenIndex(store.symbols, lambda symbol: current_days(store, symbol))

    def full_span(self, symbol: str) -> tuple[int, int]:
        """From the first candle to the end of the last one."""
        days = self.index.days(symbol)
        if not days:
            known = self.index.symbols()
            raise UnknownName("symbol", symbol, known, "`candlemill coverage` lists what is stored")
        return days[0].first, days[-1].last + 60_000

    def prepare(self, spec: Spec, slices: int | None, max_gap: int | None = None) -> Prepared:
        """The job with its plan. Raises where there is no candle, or more minutes miss than `max_gap` allows."""
        job = prepare(self.index, spec, slices)
        days = days_in(self.index, spec)
        missing = spec.minutes - job.plan.bars
        if max_gap is not None and missing > max_gap:
            raise NoData(
                f"{spec.symbol} misses {missing:,} of {spec.minutes:,} minutes ({len(days)} days have candles), "
                f"max_gap allows {max_gap:,}: allow more, choose another range, or ingest the rest"
            )
        return job

    def run(
        self, job: Prepared, slices: int | None, workers: int | None, fresh: bool, progress: Progress
    ) -> LocalLedger:
        """Run the job to its end; results are in the store then. Raises what made it fail.

        Interrupted, it leaves what is done in the store: the same call goes on from there.
        """
        ledger = LocalLedger(self.store)
        known = None if fresh else ledger.job(job.job_id)
        if known is not None and known.state == "done":
            return ledger
        tapes = Tapes(self.index.days, self.store)
        strategies = [strategy for _, _, strategy in grid_points(job.spec, 0, 1 if not job.spec.grid else 64)]
        tapes.prefetch(job.spec, needs_range(job.spec, strategies))
        count = self._workers(job, workers)
        pool = Pool(count, tapes, job.spec.symbol, self.index.days(job.spec.symbol)) if count > 1 else None
        request = events.Requested(job.spec, slices, fresh)
        try:
            runtime = Runtime(ledger, self.index, tapes, clock_ms)
            Broker(runtime, pool, progress).run(events.make("cli", events.REQUESTED, job.job_id, request))
        except KeyboardInterrupt:
            ledger.flush()
            raise
        finally:
            if pool is not None:
                pool.close()
        return ledger

    def compute(self, job: Prepared, progress: Progress) -> dict[str, Any]:
        """The result of a job of one parameter set, computed anew."""
        ledger = self.run(job, job.plan.slices, None, True, progress)
        found: dict[str, Any] = json.loads(ledger.last_results[0].result)
        return found

    def _workers(self, job: Prepared, workers: int | None) -> int:
        if workers is not None:
            return min(workers, job.plan.tasks)
        return min(cores(), job.plan.tasks) if estimate_seconds(job.plan) > POOL_SECONDS else 1


def fetch(store: Store, job_id: str) -> ResultRow:
    """A finished job's row. Raises UnknownName with the nearest ids."""
    rows = store.results([job_id])
    if not rows:
        known = [row.job_id for _, row in store.recent_results(1000)]
        raise UnknownName("job", job_id, known, "`candlemill results` lists the newest")
    return rows[0]
