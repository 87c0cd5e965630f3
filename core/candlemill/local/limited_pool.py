"""Worker processes of a job whose strategy is from a file."""

from concurrent.futures import Future, ProcessPoolExecutor
from tempfile import TemporaryDirectory
from typing import Any

from candlemill.backtests.order_chart import OrderChart
from candlemill.backtests.plan import Plan
from candlemill.backtests.replay import Replay
from candlemill.backtests.spec import Spec
from candlemill.engine.candles import MINUTE_MS
from candlemill.local import worker_pool
from candlemill.local.limited_workers import LimitedWorkers
from candlemill.local.strategy_limits import limits_of
from candlemill.local.worker_pool import Pool, SymbolIndex, Work
from candlemill.pipeline import events
from candlemill.pipeline.context import MergedSets
from candlemill.pipeline.events import Event
from candlemill.pipeline.rows import JobRow, OutcomeRow
from candlemill.store.candle_reader import CandleReader
from candlemill.strategies import loader
from candlemill.telemetry import instrument


class LimitedPool(Pool):
    """A `Pool` whose workers have limits, see `LimitedWorkers`."""

    def __init__(
        self,
        workers: int,
        candles: CandleReader,
        index: SymbolIndex,
        spec: Spec,
        seconds: float | None = None,
        started: ProcessPoolExecutor | None = None,
    ) -> None:
        """`seconds` is the limit for a task of the job `spec`; None: depends on its number of bars."""
        self._folder = TemporaryDirectory(prefix="candlemill-")
        self._limits = limits_of(spec.strategy, seconds, workers, self._folder.name)
        super().__init__(workers, candles, index, loader.reference(spec.strategy), started, self._limits)
        self._limited = LimitedWorkers(workers, self._limits, self._pool)

    def submit(self, event: Event) -> Future[instrument.Timed[Work]]:
        """Submit a task to a worker."""
        task = events.read(event, events.SliceRequested)
        seconds = self._limits.seconds_for((task.cuts[-1] - task.cuts[0]) // MINUTE_MS * task.count)
        return self._limited.begin(worker_pool._work, self._worker_data, event, seconds=seconds)

    def merge(self, job: JobRow, plan: Plan, first: int, count: int, rows: list[OutcomeRow]) -> Future[MergedSets]:
        arguments = (self._worker_data, job, plan, first, count, rows)
        return self._limited.begin(worker_pool._merge, *arguments, seconds=self._limits.seconds_for(count))

    def replay(self, spec: Spec, result: dict[str, Any]) -> Replay:
        """Run a whole job without slices. Raises BadStrategy."""
        seconds = self._limits.seconds_for(spec.minutes)
        found: Replay = self._limited.finish(worker_pool._replay, self._worker_data, spec, result, seconds=seconds)
        return found

    def orders(self, spec: Spec, start: int, end: int) -> OrderChart:
        """Compute the chart of a job's orders in `start <= t < end` (ms). Raises BadStrategy."""
        seconds = self._limits.seconds_for(spec.minutes)
        found: OrderChart = self._limited.finish(
            worker_pool._orders, self._worker_data, spec, start, end, seconds=seconds
        )
        return found

    def kill_overdue(self) -> None:
        self._limited.kill_overdue()

    def recover(self) -> None:
        """Replace workers that have ended. Raises BadStrategy if none can be started."""
        try:
            self._limited.recover()
        finally:
            self._pool = self._limited.executor

    def kill(self) -> None:
        self._limited.kill()

    def close(self) -> None:
        self.kill()  # do not wait for an endless computation
        super().close()
        self._folder.cleanup()
