"""The aggregate function: merge finished slices into results, request repairs, and end jobs.

A handler may receive an event twice, late, or out of order. It writes the same bytes each time, so a repetition changes
nothing; the events that it returns have the same ids, so duplicates can be recognised.
"""

import re
import sys
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

import msgspec

from candlemill.backtests.daily import pack
from candlemill.backtests.grid import grid_points
from candlemill.backtests.identity import job_id
from candlemill.backtests.merge import MergedSlices, Outcomes, Repair, merge_slices
from candlemill.backtests.plan import Plan
from candlemill.backtests.result import Set, results_of
from candlemill.backtests.settlement import with_account
from candlemill.backtests.spec import ParamValue, Spec
from candlemill.engine.candles import Column
from candlemill.errors import BadInput, BeingWritten, CandlemillError, CandlesMissing, NoData, StoreDown
from candlemill.pipeline import events
from candlemill.pipeline.cache_keys import CacheKeys, JobData, job_data
from candlemill.pipeline.context import HandlerContext, MergedSets
from candlemill.pipeline.events import Event
from candlemill.pipeline.job_state import plan_of
from candlemill.pipeline.lifecycle import ended, fail
from candlemill.pipeline.outcomes import outcomes_of
from candlemill.pipeline.prefix import prefix_rows
from candlemill.pipeline.prepare import current_data, data_with
from candlemill.pipeline.rows import (
    DONE,
    EXACT,
    GUESS,
    MERGED_BATCH,
    JobRow,
    Progress,
    ResultRow,
    TaskRecord,
)
from candlemill.pipeline.sweep_figures import part_of, sweep_figures
from candlemill.pipeline.tasks import done_ending, guess_ending, repair_events, run_ending, task_name
from candlemill.pipeline.watchdog import watch
from candlemill.pipeline.waves import next_task, task_cuts
from candlemill.strategies import Strategy

T = TypeVar("T")
MERGED_AT_ONCE = 64  # sets whose daily figures are in memory several times while they become rows


def aggregate(event: Event, runtime: HandlerContext) -> list[Event]:
    """Handle an event and return the events that follow from it.
    slice.completed gives the next task of its lane and, for the last of its batch, repairs or the result; a dead letter
    of any type makes the job fail; backtest.completed and backtest.failed give the next step of workflows; jobs.watch
    gives requests for stalled jobs."""
    if event.error:
        return _give_up(event, runtime)
    if event.type in (events.COMPLETED, events.FAILED):
        from candlemill.pipeline import workflows  # imported here so that an executor starts faster

        step: events.Completed | events.Failed = events.read(event, events.DATA[event.type])  # type: ignore[assignment]
        return workflows.step_ended(step.job_id, runtime)
    if event.type == events.WATCH:
        return watch(runtime, runtime.clock_ms())
    done = events.read(event, events.SliceCompleted)
    job = runtime.store.job(done.job_id)
    if job is None:
        raise StoreDown(f"job {done.job_id} is not in the store yet")
    if job.finished:
        return ended("aggregate", job)
    plan = plan_of(job)
    if plan is None or done.batch >= plan.batches:  # from another plan of this job
        return []
    spec = msgspec.json.decode(job.spec, type=Spec)
    return [*next_task(job, spec, plan, done.place), *_check_batch(job, spec, plan, done.batch, runtime)]


def _check_batch(job: JobRow, spec: Spec, plan: Plan, batch: int, runtime: HandlerContext) -> list[Event]:
    """Merge a batch whose tasks are done, and end the job with its last one. Return the events that follow."""
    tasks, merged = guess_ending(*plan.batch_points(batch), plan.run), done_ending(plan)
    state = runtime.store.batch_state(job.job_id, batch, tasks, merged, plan.batch_tasks)
    if not state.is_merged:
        if state.tasks < plan.batch_tasks or not _all_done(spec, plan, tasks, state.names):
            return []
        repairs = _merge_batch(job, spec, plan, batch, runtime)
        if repairs is not None:
            if repairs and job.state == "planned":
                runtime.store.put_job(msgspec.structs.replace(job, state="repairing"))
            return repairs
        if plan.batches > 1:
            state = runtime.store.batch_state(job.job_id, batch, tasks, merged, sys.maxsize)
    if plan.batches > 1 and state.merged < plan.batches:
        return []
    figures = ""
    if spec.grid:
        runtime.store.put_job(msgspec.structs.replace(job, state="merging"))
        figures = sweep_figures(job, spec, plan, runtime)
    job = msgspec.structs.replace(job, state="done", figures=figures)
    runtime.store.put_job(job)
    return ended("aggregate", job)


def _all_done(spec: Spec, plan: Plan, ending: str, names: Container[str]) -> bool:
    """Return whether all tasks of a batch are among the names of finished ones, which may be of another plan."""
    parts = (task_cuts(spec, plan, part) for part in range(plan.batch_tasks))
    return all(task_name(cuts, 0, len(cuts) - 1, ending) in names for cuts in parts)


def _merge_batch(job: JobRow, spec: Spec, plan: Plan, batch: int, runtime: HandlerContext) -> list[Event] | None:
    """Write the results of a batch whose tasks are done and return None, or return the events that must come first.
    The list is empty while it is being merged elsewhere."""
    first, count = plan.batch_points(batch)
    merge = runtime.merge or partial(merge_here, runtime)
    merged = merge(job, plan, first, count)
    if merged is None:
        return []
    if merged.repairs:
        return repair_events(job, spec, plan, batch, merged.repairs)
    runtime.store.put_results(merged.results)
    if merged.prefixes:
        runtime.store.put_outcomes(merged.prefixes)
    part = part_of(spec, merged.results) if spec.grid else ""
    if plan.batches > 1 or part:  # that a job of one set is merged follows from its state
        runtime.store.put_task_records([TaskRecord(job.job_id, MERGED_BATCH, DONE, batch, done_ending(plan), part)])
    runtime.store.release(merged.set_keys)
    return None


def merge_here(runtime: HandlerContext, job: JobRow, plan: Plan, first: int, count: int) -> MergedSets:
    """Merge the parameter sets of `count` grid points from `first` on.
    All of their outcomes must be in the store; only repairs may be missing."""
    spec = msgspec.json.decode(job.spec, type=Spec)
    data = data_with(runtime, spec, job.data_digest)
    points = list(grid_points(spec, first, count))
    cache_keys = CacheKeys(spec, data, plan.run)
    sets = cache_keys.of(points)
    outcomes = outcomes_of(cache_keys, sets, plan.cuts, runtime.store)
    try:
        results, repairs = merged_of(runtime, job, spec, plan, data, points, outcomes)
    except BeingWritten:
        with suppress(BeingWritten):
            current_data(runtime, spec, job.data_digest)  # refuses it for good, if the candles are others
        raise
    prefixes = [] if repairs else prefix_rows(cache_keys, sets, plan, outcomes)
    return MergedSets(results, repairs, [set_key.key for set_key in sets.values()], prefixes)


def merged_of(
    runtime: HandlerContext,
    job: JobRow,
    spec: Spec,
    plan: Plan,
    data: JobData,
    points: Sequence[tuple[int, dict[str, ParamValue], Strategy]],
    outcomes: Outcomes,
) -> tuple[list[ResultRow], list[Repair]]:
    """Return the results of parameter sets from their outcomes, or the repairs that must come first."""
    results: list[ResultRow] = []
    repairs: list[Repair] = []
    bars, took_ms = data.bars(spec.start, spec.end), max(0, runtime.clock_ms() - job.started_ms)
    for k in range(0, len(points), MERGED_AT_ONCE):
        merged = []
        for point, params, _ in points[k : k + MERGED_AT_ONCE]:
            joined = merge_slices(outcomes, point, plan.slices)
            if isinstance(joined, Repair):
                repairs.append(joined)
                continue
            _check_bars(spec, *bars, joined)
            if not repairs:
                merged.append((point, params, with_account(spec, joined, partial(_closes, runtime, spec))))
        if not repairs:
            results += result_rows(job, spec, plan, merged, took_ms, data)
    return [] if repairs else results, repairs


def _check_bars(spec: Spec, least: int, most: int, joined: MergedSlices) -> None:
    if not least <= joined.summary.bars <= most:
        raise CandlesMissing(
            f"what is stored of slices of {spec.shown_symbols} has {joined.summary.bars:,} bars, the index "
            f"{most:,}: it was computed while candles were missing; `candlemill doctor --repair` removes it"
        )


def _closes(runtime: HandlerContext, spec: Spec, start: int, end: int) -> tuple[Column, Column]:
    """Return the times and closes of a job's bars of `start <= t < end` (ms)."""
    window = runtime.candles.window(spec, start, end, 0, ("t", "close"))
    columns = window.candles.columns()
    return columns["t"][window.lo : window.hi], columns["close"][window.lo : window.hi]


def result_rows(
    job: JobRow,
    spec: Spec,
    plan: Plan,
    merged: Sequence[tuple[int, dict[str, ParamValue], MergedSlices]],
    took_ms: int,
    data: JobData,
) -> list[ResultRow]:
    """Return the rows of merged parameter sets, each given by its grid point and its parameters."""
    sets = []
    for _, params, joined in merged:
        single = spec.single(params)
        sets.append(Set(single, joined, job_id(single, job.data_digest)))
    lacking = data.funding_missing(spec.start, spec.end) if spec.funding else 0
    rows = []
    for (point, _, joined), one, (result, daily) in zip(
        merged, sets, results_of(sets, plan, job.data_digest), strict=True
    ):
        result["execution_time_ms"] = took_ms
        if spec.funding:
            result["funding_missing_minutes"] = lacking
        rows.append(
            ResultRow(
                job_id=one.job,
                strategy_id=spec.strategy,
                total_pnl=_int64(result["total_pnl"], "total_pnl"),
                sharpe_ratio=_int64(result["sharpe_ratio"], "sharpe_ratio", clip=True),
                max_drawdown=_int64(result["max_drawdown"], "max_drawdown"),
                execution_time_ms=took_ms,
                sweep_id="" if one.job == job.job_id else job.job_id,
                result=msgspec.json.encode(result).decode(),
                daily=pack(joined.days, daily),
                number=point,
            )
        )
    return rows


def _give_up(event: Event, runtime: HandlerContext) -> list[Event]:
    """Handle a dead letter: its job fails with the reason.

    A job that never started gets a failure event too. A task that only waited too long fails nothing: the watch
    requests it again, and fails the job if that is in vain.
    """
    name, spec = _subject(event, runtime)
    if not name:
        return []
    job = runtime.store.job(name)
    if job is not None and _is_of_the_past(event, job):
        return []
    if job is not None and job.plan and event.unanswered and event.type == events.SLICE_REQUESTED:
        return ended("aggregate", job)
    if job is None:
        spec_text = "" if spec is None else spec.to_json().decode()
        job = JobRow(name, "accepted", spec_text, "", "", runtime.clock_ms())
    return ended("aggregate", job) if job.finished else fail(job, event.error, runtime.store)


def _is_of_the_past(event: Event, job: JobRow) -> bool:
    """Return whether the dead letter is the request of an earlier attempt, which has already ended."""
    if event.type != events.REQUESTED:
        return False
    with suppress(BadInput):
        return 0 < events.read(event, events.Requested).attempt < job.attempt
    return False


def _subject(event: Event, runtime: HandlerContext) -> tuple[str, Spec | None]:
    """Return the job id and the spec that a dead letter belongs to, as far as they can be read."""
    data: msgspec.Struct | None = None
    with suppress(BadInput):
        data = events.read(event, events.DATA[event.type]) if event.type in events.DATA else None
    spec: Spec | None = getattr(data, "spec", None)
    name = getattr(data, "job_id", event.partitionkey)
    if isinstance(data, events.Requested) and not data.is_workflow and not name:
        with suppress(NoData):
            name = job_id(data.spec, job_data(runtime.index, data.spec, whole=False).digest)
    return (name if re.fullmatch("[0-9a-f]{32}", name) else ""), spec


def progress(row: JobRow, counts: Mapping[tuple[int, str, str], int]) -> Progress:
    """Return a job's progress.
    `counts` are the numbers of its tasks' rows by batch, kind and ending (see `TaskRecord`).

    The figure is for display only: it may include tasks of another plan of the job.
    """
    plan = plan_of(row)
    if plan is None:
        return Progress(int(row.state == "done"), 1, 0)
    done = 0
    for batch in range(plan.batches):
        ending = guess_ending(*plan.batch_points(batch), plan.run)
        merged = counts.get((batch, DONE, done_ending(plan)), 0)
        done += plan.batch_tasks if merged else min(counts.get((batch, GUESS, ending), 0), plan.batch_tasks)
    repairs = sum(
        n for (_, kind, ending), n in counts.items() if kind == EXACT and ending.endswith(run_ending(plan.run))
    )
    total = plan.batches * plan.batch_tasks
    return Progress(total if row.state == "done" else done, total, repairs)


def _int64(value: object, name: str, clip: bool = False) -> int:
    """Return an integer column's value.
    Money outside int64 raises an error; with `clip`, a ratio is limited to the bound (the JSON has the full value)."""
    number = value if isinstance(value, int) else 0
    if -(2**63) <= number < 2**63:
        return number
    if clip:
        return min(max(number, -(2**63)), 2**63 - 1)
    raise CandlemillError(f"{name}={number} does not fit the results table's Int64: use a smaller quantity")
