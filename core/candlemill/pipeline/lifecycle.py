"""Ends of jobs: completed, failed, cancelled, outdated."""

import msgspec

from candlemill.backtests.spec import Spec
from candlemill.errors import UnknownName
from candlemill.pipeline import events
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.pipeline.interfaces import JobStore
from candlemill.pipeline.job_state import is_answered, request_of, steps_of
from candlemill.pipeline.rows import JobRow


def cancel(job_id: str, store: JobStore) -> JobRow:
    """Cancel a job unless it has ended, and return its row. Finished work is kept. Raises UnknownName."""
    job = store.job(job_id)
    if job is None:
        raise UnknownName("job", job_id, [], "there is none of this id")
    if job.finished:
        return job
    job = msgspec.structs.replace(job, state="cancelled", reason="cancelled")
    store.put_job(job)
    for child in store.job_rows([step.job_id for step in steps_of(job)]).values():
        request = request_of(child)
        if request is not None and request.parent == job_id and not store.waiting_for(child.job_id):
            cancel(child.job_id, store)  # no other request needs it
    return job


def completed(source: str, name: str) -> list[Event]:
    return [events.make(source, events.COMPLETED, name, events.Completed(name))]


def fail(job: JobRow, reason: str, store: JobStore) -> list[Event]:
    """Fail a job that cannot continue, and return the events that follow."""
    job = msgspec.structs.replace(job, state="failed", reason=reason)
    store.put_job(job)
    return ended("aggregate", job)


def ended(source: str, job: JobRow) -> list[Event]:
    """Return the events of a job's end.
    They are returned again for each later event of the job: the process that wrote the end may have died before it
    published them."""
    if job.state == "failed":
        out = [events.make(source, events.FAILED, job.job_id, events.Failed(job.job_id, job.reason))]
    else:
        out = completed(source, job.job_id) if job.state == "done" else []
    since = job.started_ms if source == "aggregate" else None
    return [msgspec.structs.replace(event, since=since) for event in out]


def outdated(event: Event, request: events.Requested, name: str, spec: Spec, runtime: HandlerContext) -> list[Event]:
    """Return the events for a job that was requested under another id than `name`, its current id."""
    known = runtime.store.job(event.partitionkey) if event.partitionkey not in ("", name) else None
    if known is None or known.spec != spec.to_json().decode():
        return []
    if known.finished:
        return ended("split", known) if is_answered(known, request) else []
    reason = f"the candles of {spec.shown_symbols} have changed since the job was requested: request it again"
    return fail(known, reason, runtime.store)
