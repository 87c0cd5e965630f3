"""Studies that this process runs: in threads, each trial a job that is submitted as any other."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec

from candlemill.backtests.spec import Spec
from candlemill.errors import BadInput, Cancelled, CandlemillError, Stopped, TooLarge
from candlemill.gateway.job_service import JobService, Submission
from candlemill.local.runner import JobRunner
from candlemill.pipeline.rows import JobRow, Progress, ResultRow
from candlemill.studies import study as studies
from candlemill.studies.study import PlannedStudy, StudyRequest

AT_ONCE, WAITING_LIMIT = 2, 100
FIRST_POLL_SECONDS, POLL_SECONDS = 0.005, 0.25  # doubles up to the second

log = logging.getLogger("candlemill")


class StudyRuns:
    """Runs studies, AT_ONCE at a time. What a study has done is in the store: where its process ends, the same request
    goes on with it."""

    def __init__(self, world: JobService) -> None:
        self._world = world
        world.live_study = self.live
        self._threads = ThreadPoolExecutor(AT_ONCE, "study")
        self._live: dict[str, Progress] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()

    def live(self, job_id: str) -> Progress | None:
        """Return the progress of a study that runs or waits here."""
        return self._live.get(job_id)

    def submit(self, request: StudyRequest, trials: int) -> tuple[PlannedStudy, Submission]:
        """Start a study, unless as many trials of it are done or it runs here. Blocking. Raises BadInput, UnknownName,
        NoData, and TooLarge while too many wait."""
        planned = studies.plan_study(self._home(), request, trials)
        known = self._world.store.job(planned.study_id)
        if known is not None and known.state == "done" and len(studies.study_of(known).trials) >= planned.trials:
            return planned, Submission("done")
        with self._lock:
            if planned.study_id in self._live:
                return planned, Submission("planned")
            if len(self._live) >= WAITING_LIMIT:
                raise TooLarge(f"{WAITING_LIMIT} studies run or wait already: ask again when one has ended")
            self._live[planned.study_id] = Progress(0, planned.trials, 0)
        try:
            self._world.store.put_jobs([studies.begun_row(planned, known)])
            self._world.forget(planned.study_id)
            self._threads.submit(self._run, planned)
        except BaseException:
            self._live.pop(planned.study_id, None)
            raise
        return planned, Submission("planned")

    def resume(self) -> None:
        """Go on with the studies of an earlier process. Blocking."""
        for row in self._world.store.unfinished_jobs():
            if row.kind != "study":
                continue
            try:
                self.submit(*studies.begun_of(row))
            except CandlemillError as error:
                self._fail(row, str(error))

    def close(self) -> None:
        """Stop after the trials that run now; the studies stay unfinished in the store."""
        self._ending.set()
        self._threads.shutdown(cancel_futures=True)

    # -- one study -------------------------------------------------------------------------------------------------

    def _run(self, planned: PlannedStudy) -> None:
        name, store = planned.study_id, self._world.store

        def update(done: int, total: int) -> None:
            self._live[name] = Progress(done, total, 0)
            self._check(name)

        try:
            study = studies.finish_study(planned, lambda spec: self._trial(name, spec), update)
            store.put_jobs([studies.done_row(planned, study, store.job(name))])
        except (Stopped, Cancelled):
            pass
        except Exception as error:
            if not isinstance(error, CandlemillError):
                log.exception("study %s", name)
            self._fail(store.job(name), str(error) or type(error).__name__)
        finally:
            self._live.pop(name, None)
            self._world.forget(name)

    def _trial(self, study_id: str, spec: Spec) -> ResultRow:
        """Return the result of a trial, once it has one."""
        ready = self._world.trial(spec, study_id)
        self._world.ask_now(ready)
        pause = FIRST_POLL_SECONDS
        while True:
            row = self._world.store.job(ready.job_id)
            if row is not None and row.finished:
                break
            self._check(study_id)
            time.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS)
        if row.state != "done":
            raise BadInput(f"the trial {ready.job_id} is {row.state}: {row.reason}")
        found = self._world.result(ready.job_id)
        if found is None:
            raise BadInput(f"the trial {ready.job_id} was removed while the study ran")
        return found

    def _check(self, study_id: str) -> None:
        """Raise Stopped if this process ends, Cancelled if the study was cancelled."""
        if self._ending.is_set():
            raise Stopped("the gateway stops")
        row = self._world.store.job(study_id)
        if row is None or row.finished:
            raise Cancelled("the study was cancelled")

    def _fail(self, row: JobRow | None, reason: str) -> None:
        if row is not None and not row.finished:
            self._world.store.put_jobs([msgspec.structs.replace(row, state="failed", reason=reason)])

    def _home(self) -> JobRunner:
        return JobRunner(self._world.store, self._world.index)
