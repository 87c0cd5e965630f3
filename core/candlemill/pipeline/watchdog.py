"""Resume or fail jobs that have stopped."""

import msgspec

from candlemill.pipeline import events
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.pipeline.interfaces import JobStore
from candlemill.pipeline.job_state import request_of, steps_of
from candlemill.pipeline.lifecycle import fail
from candlemill.pipeline.rows import JobRow

STALL_MS = 300_000  # without a change of a job; doubled after each repeated request without effect
RETRIES = 3
QUIET_MS = 900_000  # without a finished task of any job: longer than a task may take
OTHERS = "tasks of all jobs"
OTHER_RELEASE = "it was planned by another release: request it again"


def watch(runtime: HandlerContext, now: int, skip: frozenset[str] = frozenset()) -> list[Event]:
    """Request stalled jobs again, whose events were lost for any reason.
    A job that finishes no task after a few repeated requests fails. A job that only waits for other jobs' tasks does
    not fail.

    `skip` are jobs that are known to be running.
    """
    out: list[Event] = []
    for job in runtime.store.unfinished_jobs():
        request = request_of(job)
        if job.job_id in skip or job.kind == "study" or _waits(job, runtime.store):
            continue  # a study's trials are watched themselves
        if request is None:
            out += fail(job, OTHER_RELEASE, runtime.store)
        else:
            out += _retry(job, request, runtime, now)
    return out


def _waits(job: JobRow, store: JobStore) -> bool:
    """Return whether a workflow waits for a job that is running: that job is watched itself."""
    steps = steps_of(job)
    return bool(steps) and any(not child.finished for child in store.job_rows([s.job_id for s in steps]).values())


def _retry(job: JobRow, request: events.Requested, runtime: HandlerContext, now: int) -> list[Event]:
    """Request a stalled job again, or fail it after too many repetitions.
    `request.retry` counts requests without effect, `request.last_progress` the rows of the job's tasks at the last of
    them. These are counts because clocks may be changed between two rows."""
    store = runtime.store
    history = store.job_history(job.job_id)
    if not history:  # this replica lags
        return []
    silent_ms = _silent_ms(job, runtime, now)
    if silent_ms < STALL_MS:
        return []
    tasks = store.tasks_done(job.job_id)
    in_vain = min(request.retry, RETRIES) if tasks == request.last_progress else 0
    if silent_ms < STALL_MS << in_vain:
        return []
    is_queued = _in_queue(job, runtime)
    if in_vain >= RETRIES and not is_queued:
        reason = f"its tasks made no progress after {RETRIES} more requests: request the job again to continue"
        return fail(job, reason, store)
    again = msgspec.structs.replace(request, attempt=job.attempt, retry=in_vain + 1, last_progress=tasks)
    row = msgspec.structs.replace(job, request=msgspec.json.encode(again).decode())
    store.put_jobs([row], [max(now, history[-1][0] + 1)])  # after the newest row, even if the clock was set back
    return [events.make("aggregate", events.REQUESTED, job.job_id, again)]


def resume(runtime: HandlerContext, skip: frozenset[str] = frozenset()) -> list[Event]:
    """Return requests for all unfinished jobs, for a process that starts alone: no other process runs any.

    Nothing is written, so that repeated starts do not count as failed attempts of a job.
    """
    out: list[Event] = []
    for job in runtime.store.unfinished_jobs():
        request = request_of(job)
        if job.job_id in skip or job.kind == "study":  # already requested in this process, or resumed as a whole
            continue
        if request is None:
            out += fail(job, OTHER_RELEASE, runtime.store)
        elif not _waits(job, runtime.store):
            again = msgspec.structs.replace(request, attempt=job.attempt)
            out.append(events.make("aggregate", events.REQUESTED, job.job_id, again))
    return out


def _silent_ms(job: JobRow, runtime: HandlerContext, now: int) -> int:
    """Return for how many ms nothing was written about a job.
    If its last row is in the future because the clock was set back, this process measures the time without a change."""
    active = runtime.store.last_activity_ms(job.job_id)
    if now >= active or runtime.unchanged is None:
        return max(0, now - active)
    state = active, runtime.store.tasks_done(job.job_id)
    return runtime.unchanged.for_ms(job.job_id, state)


def _in_queue(job: JobRow, runtime: HandlerContext) -> bool:
    """Return whether a job may be queued: it is not planned yet, or tasks of other jobs are being finished."""
    if not job.plan:
        return True
    if runtime.unchanged is None:
        return False
    others = [(row.job_id, runtime.store.tasks_done(row.job_id)) for row in runtime.store.unfinished_jobs()]
    return runtime.unchanged.for_ms(OTHERS, sorted(others)) < QUIET_MS
