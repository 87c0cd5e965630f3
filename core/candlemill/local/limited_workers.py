"""Worker processes for strategies from files: killed when they break their limits, and restarted once."""

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing.process import BaseProcess
from typing import Any

from candlemill.errors import BadStrategy, CandlemillError
from candlemill.local.strategy_limits import FALLS, START_SECONDS, Limits, report_of
from candlemill.local.worker_pool import start_processes, submit_to

EXIT_SECONDS = 1.0


class LimitedWorkers:
    """Workers with limits. Futures of `begin` fail with BrokenProcessPool when a worker has ended; then call
    `recover`."""

    def __init__(self, count: int, limits: Limits, started: ProcessPoolExecutor | None = None) -> None:
        self._count = count
        self.limits = limits
        self.executor = started or start_processes(count)
        self._processes: set[BaseProcess] = set()
        self._until: dict[Future[Any], float] = {}  # deadlines of running calls, in monotonic seconds
        self._longest = 0.0
        self._deaths = 0
        self._is_overdue = self._is_down = False

    def begin(self, work: Callable[..., Any], *arguments: object, seconds: float) -> Future[Any]:
        """Submit a call to a worker; it gets `seconds` as its last argument, and ends its process after them."""
        future: Future[Any]
        if self._is_down:
            self._restart()
        try:
            future = submit_to(self.executor, work, *arguments, seconds)
        except CandlemillError:
            future = Future()
            future.set_exception(BrokenProcessPool())
        self._processes |= set((getattr(self.executor, "_processes", None) or {}).values())
        self._until[future] = time.monotonic() + seconds + START_SECONDS
        future.add_done_callback(lambda done: self._until.pop(done, None))
        self._longest = max(self._longest, seconds)
        return future

    def finish(self, work: Callable[..., Any], *arguments: object, seconds: float) -> Any:
        """Run a call in a worker and wait for it. Raises BadStrategy if the worker process dies twice."""
        self._deaths = 0
        while True:
            future = self.begin(work, *arguments, seconds=seconds)
            try:
                return future.result(seconds + START_SECONDS)
            except (BrokenProcessPool, TimeoutError):
                self.recover(is_late=not future.done())

    def kill_overdue(self) -> None:
        """Kill all workers if one exceeds its time; a strategy can disable the worker's own timer."""
        if any(time.monotonic() > until for until in list(self._until.values())):
            self._is_overdue = True
            self.kill()

    def recover(self, is_late: bool = False) -> None:
        """Replace workers that have ended. Raises BadStrategy if they were too slow, or had ended before."""
        codes = self._exit_codes()
        self.kill()
        report = report_of(self.limits, codes)
        self._deaths += 1
        name, at = self.limits.strategy, f" ({report.place})" if report.place else ""
        seconds = self._longest
        is_late, self._is_down = is_late or self._is_overdue or report.is_late, True
        if is_late:
            raise BadStrategy(
                f"{name}: took longer than {seconds:g} s for a task{at}: --strategy-seconds gives it more"
            )
        if self._deaths >= FALLS:
            raise BadStrategy(f"{name}: took its worker process down {FALLS} times: {report.how}{at}")
        self._restart()

    def _exit_codes(self) -> list[int | None]:
        """Return the exit codes of processes that have ended by themselves.
        The system reports an end shortly after it is noticed here."""
        until = time.monotonic() + EXIT_SECONDS
        while True:
            codes = [process.exitcode for process in self._processes]
            if any(code is not None for code in codes) or time.monotonic() > until:
                return codes
            time.sleep(0.005)

    def _restart(self) -> None:
        self.executor = start_processes(self._count)
        self._processes, self._until = set(), {}
        self._longest, self._is_overdue, self._is_down = 0.0, False, False

    def kill(self) -> None:
        """Kill all workers."""
        for process in self._processes:
            with suppress(OSError, ValueError):
                process.kill()
            with suppress(OSError, TypeError):
                os.killpg(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        self.executor.shutdown(cancel_futures=True)
