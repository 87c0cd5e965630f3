"""Jobs whose steps are jobs: portfolios, a job for each symbol; walk-forwards, a sweep and then the run of its choices;
sweeps and walk-forwards of several symbols, one for each.

A workflow's row lists the jobs that it waits for. Each of them is stored and found by itself. When one ends, every
workflow that waits for it checks all of its jobs again, so repeated and reordered events do no harm.
"""

import hashlib
import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.daily import pack, unpack
from candlemill.backtests.grid import grid_points
from candlemill.backtests.identity import job_id
from candlemill.backtests.portfolio import Part, parts_of, portfolio_id, portfolio_result
from candlemill.backtests.spec import LEG_OPTIONS, OPTIONS, Leg, Spec, WalkForward
from candlemill.engine.candles import DAY_MS, Column
from candlemill.errors import BadInput, CandlemillError, NoData, TooLarge, UnknownName
from candlemill.guards.daily_sums import Stretches, score_of
from candlemill.guards.walk_forward import Fold, make_folds, parse_span, walk_forward
from candlemill.pipeline import events
from candlemill.pipeline.context import HandlerContext
from candlemill.pipeline.events import Event
from candlemill.pipeline.interfaces import DayIndex, JobStore
from candlemill.pipeline.job_state import (
    Step,
    Steps,
    begins,
    is_answered,
    is_done,
    kind_of,
    next_attempt,
    request_of,
    step_of,
    steps_of,
)
from candlemill.pipeline.lifecycle import completed, ended, fail, outdated
from candlemill.pipeline.prepare import prepare, validated
from candlemill.pipeline.prepared import Prepared
from candlemill.pipeline.rows import JobRow, ResultRow, require_all
from candlemill.pipeline.watchdog import OTHER_RELEASE
from candlemill.units import SCALE

INT64 = 2**63
COMBINATIONS_LIMIT = 64  # of options in a walk-forward: each has a sweep of its own
MATRIX_LIMIT = 100_000_000  # set-days that a walk-forward reads: 800 MB


class Workflow(msgspec.Struct, frozen=True):
    """A workflow that can run: its identity, and its jobs as far as they are known in advance.

    `steps` are the ids of the jobs that it waits for first: those of `jobs`, or of walk-forwards over them.
    """

    job_id: str
    spec: Spec
    data_digest: str
    jobs: list[Prepared]
    steps: list[str]


class FoldChoices(msgspec.Struct, frozen=True):
    """A walk-forward's `figures`: the choices, their sweep, and the job that trades them.

    Where options were chosen too, there was a sweep for each combination of them: `sweep_id` is that of the first, and
    `guards` count the sets of all.
    """

    sweep_id: str
    score: str
    folds: list[dict[str, Any]]
    job_id: str
    spec: Spec
    guards: dict[str, Any] | None = None


_chosen = msgspec.json.Decoder(FoldChoices)


def prepare_workflow(index: DayIndex, request: events.Requested) -> Workflow:
    """Check all of a workflow against the metadata index before any of it starts. Raises as `prepare`."""
    spec = validated(request.spec)
    if (walk := request.walk_forward) is not None:
        if not spec.grid:
            raise BadInput(
                "a walk-forward chooses among parameter sets: give a --grid of a parameter, like fast=5,10,20"
            )
        _folds(spec, walk)
        _combinations(spec, walk)
    if spec.grid and request.weights:
        return _of_symbols(index, request, spec)
    if walk is not None:
        base = prepare(index, spec, request.slices)
        specs = [one for _, one in _combinations(spec, walk)] if walk.options else []
        sweeps = [prepare(index, one, request.slices) for one in specs] or [base]
        steps = [sweep.job_id for sweep in sweeps]
        identity = f"walk_forward {' '.join(steps)} {walk.train} {walk.test} {walk.anchored} {walk.score}"
        name = hashlib.sha256(identity.encode()).hexdigest()[:32]
        return Workflow(name, base.spec, base.data_digest, sweeps, steps)
    jobs = [prepare(index, part, request.slices) for part in parts_of(spec, request.weights)]
    name = portfolio_id([(job.job_id, request.weights[job.spec.symbol]) for job in jobs])
    return Workflow(name, spec, _digest_of(jobs), jobs, [job.job_id for job in jobs])


def _digest_of(jobs: list[Prepared]) -> str:
    return hashlib.sha256(",".join(job.data_digest for job in jobs).encode()).hexdigest()


def _of_symbols(index: DayIndex, request: events.Requested, spec: Spec) -> Workflow:
    """Return the workflow of a sweep or a walk-forward for each of several symbols; each is a job of its own."""
    parts = _requests_of(spec, request)
    if request.walk_forward is not None:
        inner = [prepare_workflow(index, part) for part in parts]
        jobs, steps = [one.jobs[0] for one in inner], [one.job_id for one in inner]
    else:
        jobs = [prepare(index, part.spec, request.slices) for part in parts]
        steps = [job.job_id for job in jobs]
    name = hashlib.sha256(f"{kind_of(request)} {' '.join(steps)}".encode()).hexdigest()[:32]
    return Workflow(name, spec, _digest_of(jobs), jobs, steps)


def _requests_of(spec: Spec, request: events.Requested) -> list[events.Requested]:
    """Return the requests of a workflow's first steps, in the order of its steps."""
    if not request.weights:
        walk = request.walk_forward
        specs = [one for _, one in _combinations(spec, walk)] if walk is not None else [spec]
        return [events.Requested(one, request.slices, request.fresh) for one in specs]
    if not spec.grid:
        specs = parts_of(spec, request.weights)
    elif any(weight != SCALE for weight in request.weights.values()):
        raise BadInput("weights are for portfolios: a sweep of each symbol has none")
    else:
        specs = [msgspec.structs.replace(spec, symbol=symbol) for symbol in request.weights]
    walk = request.walk_forward
    return [events.Requested(one, request.slices, request.fresh, walk_forward=walk) for one in specs]


def split(event: Event, request: events.Requested, runtime: HandlerContext) -> list[Event]:
    """Handle backtest.requested of a workflow: return requests for those of its jobs that are not done."""
    workflow = prepare_workflow(runtime.index, request)
    if changed := outdated(event, request, workflow.job_id, workflow.spec, runtime):
        return changed
    store, now = runtime.store, runtime.clock_ms()
    known = store.job(workflow.job_id)
    if known is not None and is_answered(known, request):
        return ended("split", known)
    if known is None or begins(known, request):
        row = _row(workflow, request, next_attempt(known, request, now), now)
    elif known.plan:
        row = msgspec.structs.replace(known, started_ms=now)
    else:
        row = _row(workflow, request, known.attempt, now)
    if not steps_of(row):
        children = store.job_rows(workflow.steps)
        steps = [step_of(step, children.get(step), row.attempt, request.fresh) for step in workflow.steps]
        row = _with_steps(row, steps)
    store.put_job(row)
    return advance(row, runtime, asking=True)


def _row(workflow: Workflow, request: events.Requested, attempt: int, now: int) -> JobRow:
    return JobRow(
        job_id=workflow.job_id,
        state="planned",
        spec=workflow.spec.to_json().decode(),
        plan="",
        data_digest=workflow.data_digest,
        started_ms=now,
        kind=kind_of(request),
        attempt=attempt,
        request=msgspec.json.encode(msgspec.structs.replace(request, attempt=attempt)).decode(),
    )


def _with_steps(row: JobRow, steps: list[Step]) -> JobRow:
    return msgspec.structs.replace(row, plan=msgspec.json.encode(Steps(steps)).decode())


# -- what follows when a step has ended ----------------------------------------------------------------------------


def step_ended(name: str, runtime: HandlerContext) -> list[Event]:
    """Handle backtest.completed or .failed: return the next events of the workflows that wait for that job."""
    return [event for row in runtime.store.waiting_for(name) for event in advance(row, runtime)]


def advance(row: JobRow, runtime: HandlerContext, asking: bool = False) -> list[Event]:
    """Check all jobs of a workflow and return the events that follow. With `asking`, also request unfinished jobs."""
    request = request_of(row)
    if request is None:
        return fail(row, OTHER_RELEASE, runtime.store)
    steps = steps_of(row)
    children = runtime.store.job_rows([step.job_id for step in steps])
    for step in steps:
        child = children.get(step.job_id)
        if child is not None and child.attempt >= step.attempt and child.state in ("failed", "cancelled"):
            return fail(row, _reason(child), runtime.store)
    try:
        if waiting := [k for k, step in enumerate(steps) if not is_done(step, children.get(step.job_id))]:
            return _ask(row, request, steps, waiting) if asking else []
        if request.walk_forward is not None and not request.weights and not row.figures:
            row = _choose(row, request, request.walk_forward, runtime)
            runtime.store.put_job(row)
            return advance(row, runtime, asking=True)
        if row.kind == "portfolio":
            runtime.store.put_results([_joint_row(row, request, steps, runtime.store)])
    except CandlemillError as error:
        if error.retryable:
            raise
        return fail(row, error.public, runtime.store)
    runtime.store.put_job(msgspec.structs.replace(row, state="done"))
    return completed("aggregate", row.job_id)


def _reason(child: JobRow) -> str:
    spec = msgspec.json.decode(child.spec or "{}")
    return f"its {child.kind} of {spec.get('symbol', '?')}, job {child.job_id[:12]}: {child.reason or child.state}"


def _ask(row: JobRow, request: events.Requested, steps: list[Step], waiting: list[int]) -> list[Event]:
    spec = msgspec.json.decode(row.spec, type=Spec)
    parts = _requests_of(spec, request)
    if row.figures:
        parts.append(events.Requested(fold_choices(row).spec, request.slices, request.fresh))
    out = []
    for k in waiting:
        data = msgspec.structs.replace(parts[k], attempt=steps[k].attempt, parent=row.job_id)
        out.append(events.make("aggregate", events.REQUESTED, steps[k].job_id, data))
    return out


# -- portfolios ----------------------------------------------------------------------------------------------------


def _joint_row(row: JobRow, request: events.Requested, steps: list[Step], store: JobStore) -> ResultRow:
    """Return the joint result of a portfolio whose jobs are all done."""
    found = {result.job_id: result for result in store.results([step.job_id for step in steps])}
    require_all([step.job_id for step in steps], found)
    parts = [
        Part(symbol, msgspec.json.decode(found[step.job_id].result), found[step.job_id].daily)
        for symbol, step in zip(request.weights, steps, strict=True)
    ]
    result, (days, profits) = portfolio_result(msgspec.json.decode(row.spec, type=Spec), request.weights, parts)
    result["execution_time_ms"] = sum(part["execution_time_ms"] for part in result["parts"])
    return ResultRow(
        job_id=row.job_id,
        strategy_id=result["strategy_id"],
        total_pnl=result["total_pnl"],
        sharpe_ratio=max(-INT64, min(result["sharpe_ratio"], INT64 - 1)),
        max_drawdown=result["max_drawdown"],
        execution_time_ms=result["execution_time_ms"],
        sweep_id="",
        result=msgspec.json.encode(result).decode(),
        daily=pack([day // DAY_MS for day in days.tolist()], profits),
    )


# -- walk-forwards -------------------------------------------------------------------------------------------------


def fold_choices(row: JobRow) -> FoldChoices:
    """Return the choices of a walk-forward."""
    return _chosen.decode(row.figures)


def _folds(spec: Spec, walk: WalkForward) -> list[Fold]:
    return make_folds(spec.start, spec.end, parse_span(walk.train), parse_span(walk.test), walk.anchored)


def _choose(row: JobRow, request: events.Requested, walk: WalkForward, runtime: HandlerContext) -> JobRow:
    """Choose the best set of each training span.
    The choices become one job with a schedule, from the first test on, so the result includes the costs of switching
    sets.

    The sweep over the whole range has every set's daily profits; a set is scored by those of a fold's days.
    """
    spec = msgspec.json.decode(row.spec, type=Spec)
    steps = steps_of(row)
    if prepare(runtime.index, spec, request.slices).data_digest != row.data_digest:
        raise BadInput(f"the candles of {spec.shown_symbols} have changed since the job was planned: request it again")
    folds = _folds(spec, walk)
    sets, days, matrix = _all_sets(runtime.store, spec, walk, steps, row.data_digest)
    choices = walk_forward(matrix, days, folds, walk.score)
    chosen = [(fold, choice) for fold, choice in zip(folds, choices, strict=True) if choice is not None]
    if not chosen:
        raise NoData(f"no fold of {len(folds)} has days with candles in both training and test: take longer spans")
    identity = [
        {
            **msgspec.to_builtins(fold),
            "params": sets[choice.row].shown if choice else {},  # no candles in training or test
            "in_sample": choice.in_sample if choice else None,
            "out_of_sample": choice.out_of_sample if choice else None,
            "efficiency": choice.efficiency if choice else None,
        }
        for fold, choice in zip(folds, choices, strict=True)
    ]
    stitched = _stitched(spec, [(fold, sets[choice.row]) for fold, choice in chosen])
    job = prepare(runtime.index, stitched, request.slices)
    known = runtime.store.job(job.job_id)
    guards = _guards(sets, matrix) if walk.options and len(sets) > 1 else None
    figures = FoldChoices(steps[0].job_id, walk.score, identity, job.job_id, job.spec, guards)
    row = _with_steps(row, [*steps, step_of(job.job_id, known, row.attempt, request.fresh)])
    return msgspec.structs.replace(row, state="merging", figures=msgspec.json.encode(figures).decode())


class ChosenFrom(msgspec.Struct, frozen=True):
    """A set that a walk-forward chooses from: parameters, and the options that it has of its own, as given and in the
    units of a spec."""

    params: dict[str, Any]
    texts: dict[str, str | int]
    options: dict[str, int]

    @property
    def shown(self) -> dict[str, Any]:
        return {**self.params, **self.texts}


def _combinations(spec: Spec, walk: WalkForward) -> list[tuple[dict[str, str | int], Spec]]:
    """Return a walk-forward's combinations of options, as given, and the spec of the sweep of each. Raises BadInput."""
    if unknown := sorted(walk.options.keys() - set(LEG_OPTIONS)):
        raise UnknownName("option", unknown[0], list(LEG_OPTIONS), f"a walk-forward chooses {', '.join(LEG_OPTIONS)}")
    count = math.prod(map(len, walk.options.values()))
    if count > COMBINATIONS_LIMIT:
        raise BadInput(f"the options have {count:,} combinations, the limit is {COMBINATIONS_LIMIT}: use fewer values")
    names = sorted(walk.options)
    found = []
    for values in product(*(dict.fromkeys(walk.options[name]) for name in names)):
        texts = dict(zip(names, values, strict=True))
        own = {name: OPTIONS[name].parse(value) for name, value in texts.items()}
        found.append((texts, validated(msgspec.structs.replace(spec, **own))))
    if walk.options:
        own = {name: getattr(found[0][1], name) for name in names}
        leg = Leg(spec.start, next(grid_points(spec, 0, spec.combinations))[1], own)
        validated(msgspec.structs.replace(spec, params={}, grid={}, schedule=[leg]))  # before anything runs
    return found


def _all_sets(
    store: JobStore, spec: Spec, walk: WalkForward, steps: Sequence[Step], data_digest: str
) -> tuple[list[ChosenFrom], Column, NDArray[np.int64]]:
    """Return all sets of a walk-forward's sweeps, the days (midnights in ms), and the daily figures of each set."""
    sets: list[ChosenFrom] = []
    parts = []
    for (texts, one), step in zip(_combinations(spec, walk), steps, strict=True):
        params, days, matrix = sweep_matrix(store, one, step.job_id, data_digest)
        own = {name: getattr(one, name) for name in texts}
        sets += [ChosenFrom(each, texts, own) for each in params]
        parts.append(matrix)
        if len(sets) * len(days) > MATRIX_LIMIT:
            raise TooLarge(f"more than {MATRIX_LIMIT:,} daily figures of all sets: use fewer values of options")
    return sets, days, np.concatenate(parts)


def _guards(sets: Sequence[ChosenFrom], matrix: NDArray[np.int64]) -> dict[str, Any]:
    """Return what the sets of several sweeps together say of the luck of the best."""
    from candlemill.guards import sweep_guards, thinned

    whole = (0, matrix.shape[1])
    scores = Stretches(matrix, whole).scores([whole], score_of("sharpe_ratio"))
    chosen = thinned(np.arange(len(scores)), len(scores), scores.index(max(scores)))
    return sweep_guards(matrix[chosen], chosen, [(one.shown, own) for one, own in zip(sets, scores, strict=True)], {})


def guards_of(store: JobStore, choices: FoldChoices) -> dict[str, Any] | None:
    """Return the guards of all sets that a walk-forward chose from; None where it had one."""
    if choices.guards is not None:
        return choices.guards
    sweep = store.job(choices.sweep_id)
    found: dict[str, Any] | None = msgspec.json.decode(sweep.figures) if sweep is not None and sweep.figures else None
    return found


def _stitched(spec: Spec, chosen: list[tuple[Fold, ChosenFrom]]) -> Spec:
    """Return the spec of the job that trades each fold's choice during its test."""
    legs = [Leg(fold.test_start, one.params, one.options) for fold, one in chosen]
    start, end = chosen[0][0].test_start, chosen[-1][0].test_end
    return validated(msgspec.structs.replace(spec, params={}, grid={}, schedule=legs, start=start, end=end))


def sweep_matrix(
    store: JobStore, spec: Spec, sweep_id: str, data_digest: str
) -> tuple[list[dict[str, Any]], Column, NDArray[np.int64]]:
    """Return a finished sweep's parameter sets, its days (midnights in ms), and the daily figures of each set."""
    points = [params for _, params, _ in grid_points(spec, 0, spec.combinations)]
    ids = [job_id(spec.single(params), data_digest) for params in points]
    daily = store.sweep_daily(sweep_id, ids)
    require_all(ids, daily)
    days, _ = unpack(daily[ids[0]])
    if len(ids) * len(days) > MATRIX_LIMIT:
        raise TooLarge(
            f"{len(ids):,} sets of {len(days):,} days are {len(ids) * len(days):,} figures, the limit is "
            f"{MATRIX_LIMIT:,}: use a smaller grid or a shorter range"
        )
    return points, days, np.stack([unpack(daily[one])[1] for one in ids])
