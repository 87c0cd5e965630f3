"""The split function: divide a requested backtest into tasks, and hand out the first of them."""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from candlemill.backtests.grid import grid_points
from candlemill.backtests.plan import Plan
from candlemill.backtests.spec import Spec
from candlemill.errors import StoreDown
from candlemill.pipeline import events
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.pipeline.job_state import attempt_of, is_answered, kind_of, plan_of
from candlemill.pipeline.lifecycle import completed, ended, outdated
from candlemill.pipeline.prepare import data_of, job_of
from candlemill.pipeline.prepared import Prepared
from candlemill.pipeline.request import requested
from candlemill.pipeline.reuse import look_up
from candlemill.pipeline.rows import DONE, GUESS, JobRow, TaskRecord
from candlemill.pipeline.tasks import done_ending, guess_ending, task_name
from candlemill.pipeline.waves import first_wave, grouped, handed_out, task_cuts, with_todo


def split(event: Event, runtime: HandlerContext) -> list[Event]:
    """Handle backtest.requested: plan its tasks, and request the first ones of those with missing outcomes.
    Handle tasks.requested: request the tasks of a share."""
    if event.type == events.TASKS_REQUESTED:
        return _share(events.read(event, events.TasksRequested), runtime)
    request = requested(event, runtime.index)
    if request.is_workflow:
        from candlemill.pipeline import workflows  # imported here so that an executor starts faster

        return workflows.split(event, request, runtime)
    job = job_of(runtime, request)
    if changed := outdated(event, request, job.job_id, job.spec, runtime):
        return changed
    known, now = runtime.store.job(job.job_id), runtime.clock_ms()
    if known is not None and is_answered(known, request):
        return ended("split", known)
    attempt = attempt_of(known, request, job.plan, now)
    row = JobRow(
        job_id=job.job_id,
        state=attempt.state,
        spec=job.spec.to_json().decode(),
        plan=msgspec.json.encode(attempt.plan).decode(),
        data_digest=job.data_digest,
        started_ms=now,
        kind=kind_of(request),
        attempt=attempt.number,
        request=msgspec.json.encode(msgspec.structs.replace(request, attempt=attempt.number)).decode(),
    )
    if not request.fresh and not job.spec.grid and runtime.store.has_result(job.job_id):
        runtime.store.put_job(msgspec.structs.replace(row, state="done"))  # a sweep has computed this set
        return completed("split", job.job_id)
    cutting = request.slices is None and (known is None or known.plan != row.plan)
    plan, outcomes = look_up(data_of(runtime, job.spec), runtime.store, job.spec, attempt.plan, cutting)
    plan = grouped(job.spec, plan, runtime.waves)
    missing = None if outcomes is None else [outcomes.missing(*cuts) for cuts in pairwise(plan.cuts)]
    if outcomes is not None and missing is not None:
        lacking = sum(map(len, missing))
        runtime.on_cache_lookup("outcome", plan.slices * len(outcomes.sets) - lacking, lacking)
    known_tasks = [] if request.fresh or known is None else runtime.store.partials(job.job_id)
    if _lost_results(job, plan, known_tasks, runtime):
        plan, known_tasks, missing = msgspec.structs.replace(plan, run=attempt.number), [], None
    plan, found = _with_todo(msgspec.structs.replace(job, plan=plan), known_tasks, missing)
    row = msgspec.structs.replace(row, plan=msgspec.json.encode(plan).decode())
    runtime.store.put_job(row, _after_the_newest(row, runtime) if request.retry else None)
    runtime.store.put_task_records(found)
    return first_wave(row, job.spec, plan)


def _after_the_newest(row: JobRow, runtime: HandlerContext) -> int:
    """Return the time at which the row becomes the valid one of its state: the watch, whose clock may be ahead of the
    database's, has just written one. Hidden behind that, the new plan and its time would be those before the stall."""
    history = runtime.store.job_history(row.job_id)
    return max(row.started_ms, history[-1][0] + 1) if history else row.started_ms


def _share(share: events.TasksRequested, runtime: HandlerContext) -> list[Event]:
    """Return the requests of a share's tasks."""
    row = runtime.store.job(share.job_id)
    if row is None:
        raise StoreDown(f"job {share.job_id} is not in the store yet")
    plan = plan_of(row)
    if row.finished or plan is None:
        return []
    return handed_out(row, msgspec.json.decode(row.spec, type=Spec), plan, share.first, share.last)


def _lost_results(job: Prepared, plan: Plan, records: Sequence[TaskRecord], runtime: HandlerContext) -> bool:
    """Return whether results of merged batches of a sweep are not stored any more."""
    merged = {one.slice for one in records if one.kind == DONE and one.task == done_ending(plan)}
    if not merged:
        return False
    sets = sum(1 for batch in merged for _ in grid_points(job.spec, *plan.batch_points(batch)))
    return runtime.store.count_sweep(job.job_id) < sets


def _with_todo(
    job: Prepared, records: Sequence[TaskRecord], missing: Sequence[set[int]] | None
) -> tuple[Plan, list[TaskRecord]]:
    """Return the plan with what is to do, and records of the tasks of which all outcomes are known.
    To do are tasks without a record or, where outcomes were looked up (`missing`, by slice), those that lack some."""
    plan, found = job.plan, []
    todo: list[int] = []
    checks: list[int] = []
    merged = {one.slice for one in records if one.kind == DONE and one.task == done_ending(plan)}
    logged = {(one.batch, one.task) for one in records if one.kind == GUESS}
    for batch in range(plan.batches):
        if batch in merged:
            continue
        first, count = plan.batch_points(batch)
        points, before = range(first, first + count), len(todo)
        ending = guess_ending(first, count, plan.run)
        for part in range(plan.batch_tasks):
            cuts, k = task_cuts(job.spec, plan, part), part * plan.group
            name = task_name(cuts, 0, len(cuts) - 1, ending)
            if missing is not None:
                is_known = not any(point in missing[k + j] for j in range(len(cuts) - 1) for point in points)
            else:
                is_known = (batch, name) in logged
            if not is_known:
                todo.append(batch * plan.batch_tasks + part)
            elif (batch, name) not in logged:
                found.append(TaskRecord(job.job_id, batch, GUESS, k, name))
        if len(todo) == before:
            checks.append(batch)
    return with_todo(plan, todo, checks), found
