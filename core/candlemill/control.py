"""Jobs are stopped, and those that have stopped by themselves are found."""

import msgspec

from candlemill import events
from candlemill.errors import UnknownName
from candlemill.events import Event
from candlemill.ledger import JobRow, Ledger, Runtime
from candlemill.states import request_of, steps_of

STALL_MS = 300_000  # without news of a job; twice as long each time that it is driven on in vain
DRIVES = 3

OTHER_RELEASE = "it was planned by another release: ask again"


def cancel(job_id: str, ledger: Ledger) -> JobRow:
    """Cancel a job, unless it has ended; what is done of it is kept. The job as it is then. Raises UnknownName."""
    job = ledger.job(job_id)
    if job is None:
        raise UnknownName("job", job_id, [], "there is none of this id")
    if job.finished:
        return job
    job = msgspec.structs.replace(job, state="cancelled", reason="cancelled")
    ledger.put_job(job)
    for child in ledger.job_rows([step.job_id for step in steps_of(job)]).values():
        request = request_of(child)
        if request is not None and request.parent == job_id and not ledger.waiting_for(child.job_id):
            cancel(child.job_id, ledger)  # nobody else has asked for it
    return job


def completed(source: str, name: str) -> list[Event]:
    return [events.make(source, events.COMPLETED, name, events.Completed(name))]


def fail(job: JobRow, reason: str, ledger: Ledger) -> list[Event]:
    """End a job that cannot go on."""
    job = msgspec.structs.replace(job, state="failed", reason=reason)
    ledger.put_job(job)
    return ended("aggregate", job)


def ended(source: str, job: JobRow) -> list[Event]:
    """What is told of a job's end. It is told again whenever an event of the job comes after it: whoever wrote the end
    may have died before telling."""
    if job.state == "failed":
        return [events.make(source, events.FAILED, job.job_id, events.Failed(job.job_id, job.reason))]
    return completed(source, job.job_id) if job.state == "done" else []


def watch(runtime: Runtime, now: int, stall_ms: int = STALL_MS, skip: frozenset[str] = frozenset()) -> list[Event]:
    """Find jobs that nothing is heard of: whose events were lost, whatever the reason. They are asked for again, each
    of them a few times without anything being heard of its tasks, then they end as failed.

    `skip` are jobs that are known to be at work. A process that starts alone asks with `stall_ms` 0: then nobody
    works on any.
    """
    out: list[Event] = []
    for job in runtime.ledger.unfinished_jobs():
        request = request_of(job)
        if job.job_id in skip or _waits(job, runtime.ledger):
            continue
        if request is None:
            out += fail(job, OTHER_RELEASE, runtime.ledger)
        else:
            out += _drive(job, request, runtime.ledger, now, stall_ms)
    return out


def _waits(job: JobRow, ledger: Ledger) -> bool:
    """Whether a campaign waits for a job that is under way: that one is watched itself."""
    steps = steps_of(job)
    return bool(steps) and any(not child.finished for child in ledger.job_rows([s.job_id for s in steps]).values())


def _drive(job: JobRow, request: events.Requested, ledger: Ledger, now: int, stall_ms: int) -> list[Event]:
    history, heard = ledger.job_history(job.job_id), ledger.last_activity_ms(job.job_id)
    in_vain = max(0, request.drive - request.heard)
    if not history or now - heard < stall_ms << min(in_vain, DRIVES):  # none: that replica lags
        return []
    changed, _ = history[-1]
    if heard > changed:  # of its tasks, since it was driven on last
        request, in_vain = msgspec.structs.replace(request, heard=request.drive), 0
    if in_vain >= DRIVES:
        reason = f"nothing was heard of its tasks though they were asked for {DRIVES} times more: ask again to go on"
        return fail(job, reason, ledger)
    again = msgspec.structs.replace(request, attempt=job.attempt, drive=request.drive + 1)
    ledger.put_job(msgspec.structs.replace(job, request=msgspec.json.encode(again).decode()))
    return [events.make("aggregate", events.REQUESTED, job.job_id, again)]
