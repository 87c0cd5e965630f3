"""Whole batches in one worker: all slices of some parameter sets, and their results.

A worker that computes all slices of a batch also merges them, so that outcomes need not be sent to another process, and
are not even written down where the job keeps none. Only results, and kept outcomes, are returned.
"""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from candlemill.backtests.grid import grid_points
from candlemill.backtests.merge import Outcomes
from candlemill.backtests.plan import Plan
from candlemill.backtests.spec import spec_from_json
from candlemill.backtests.spec_rules import sees_panel
from candlemill.pipeline import events
from candlemill.pipeline.aggregate import merged_of
from candlemill.pipeline.cache_keys import CacheKeys
from candlemill.pipeline.context import HandlerContext, MergedSets
from candlemill.pipeline.events import Event
from candlemill.pipeline.execute import run_sets
from candlemill.pipeline.outcomes import rows_of
from candlemill.pipeline.prefix import prefix_rows
from candlemill.pipeline.prepare import data_of
from candlemill.pipeline.rows import GUESS, JobRow, OutcomeRow, TaskRecord
from candlemill.pipeline.tasks import guess_ending, task_name


class BatchDone(msgspec.Struct, frozen=True):
    """A batch whose slices are all computed. `merged` is None if guesses were wrong: then `rows` has all outcomes."""

    rows: list[OutcomeRow]
    merged: MergedSets | None


def is_whole(plan: Plan, tasks: Sequence[events.SliceRequested], workers: int) -> bool:
    """Return whether these tasks are better run by one worker: they are all slices of one batch, nothing of it is
    known, and all workers have equally many such batches."""
    one = tasks[0]
    return (
        len(tasks) == plan.slices
        and not any(task.repairs for task in tasks)
        and not sees_panel(one.spec.strategy)
        and one.batch < plan.batches - plan.batches % workers
    )


def records_of(plan: Plan, job_id: str, batch: int) -> list[TaskRecord]:
    """Return the log rows of a batch whose slices are all computed."""
    ending = guess_ending(*plan.batch_points(batch), plan.run)
    return [TaskRecord(job_id, batch, GUESS, k, task_name(plan.cuts, k, k + 1, ending)) for k in range(plan.slices)]


def run_batch(runtime: HandlerContext, job: JobRow, plan: Plan, batch: int, keeps: bool) -> BatchDone:
    """Compute all slices of a batch, and merge them. `keeps`: whether outcomes are returned to be stored."""
    spec = spec_from_json(job.spec)
    data = data_of(runtime, spec)
    points = list(grid_points(spec, *plan.batch_points(batch)))
    sets = [(point, strategy) for point, _, strategy in points]
    outcomes = Outcomes()
    computed = []
    for number, cuts in enumerate(pairwise(plan.cuts)) if sets else ():
        done = run_sets(spec, data, runtime, cuts, sets, None)
        outcomes.add(number, False, done)
        computed.append((cuts, done))
    results, repairs = merged_of(runtime, job, spec, plan, data, points, outcomes)
    if not keeps and not repairs:
        return BatchDone([], MergedSets(results, [], []))
    addresses = CacheKeys(spec, data, plan.run)
    keys = addresses.of(points)
    rows = [row for cuts, done in computed for row in rows_of(addresses, keys, cuts, done, True)]
    if not repairs:
        rows += prefix_rows(addresses, keys, plan, outcomes)
    return BatchDone(rows, None if repairs else MergedSets(results, [], [key.key for key in keys.values()]))


def gathered(first: Event, following: Sequence[Event]) -> list[Event]:
    """Return `first` and the events that follow it directly, as far as they are tasks of the same batch."""
    batch = events.read(first, events.SliceRequested).batch
    found = [first]
    for event in following:
        if event.type != events.SLICE_REQUESTED or events.read(event, events.SliceRequested).batch != batch:
            break
        found.append(event)
    return found
