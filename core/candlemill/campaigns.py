"""Jobs whose steps are jobs: portfolios, a job for each symbol; walk-forwards, a sweep and then the run of its choices.

A campaign's row says which jobs it waits for. Each of them is stored and found by itself; when one ends, the campaigns
that wait for it look at all of theirs again, so that it does not matter how often and in what order they are told.
"""

import hashlib
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill import events
from candlemill.control import OTHER_RELEASE, completed, ended, fail
from candlemill.daily import pack, unpack
from candlemill.engine.tape import DAY_MS, Column
from candlemill.errors import BadInput, CandlemillError, NoData, TooLarge
from candlemill.events import Event
from candlemill.guards.folds import Fold, make_folds, parse_span, walk_forward
from candlemill.ledger import Index, JobRow, Ledger, ResultRow, Runtime
from candlemill.model import Leg, Spec, WalkForward, grid_points, job_id
from candlemill.portfolio import Part, parts_of, portfolio_id, portfolio_result
from candlemill.service import Prepared, all_there, checked, outdated, prepare
from candlemill.states import (
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

INT64 = 2**63
MATRIX_LIMIT = 100_000_000  # set-days that a walk-forward looks at: 800 MB


class Campaign(msgspec.Struct, frozen=True):
    """A campaign that can run: its identity, and its jobs as far as they are known beforehand."""

    job_id: str
    spec: Spec
    data_digest: str
    jobs: list[Prepared]


class Chosen(msgspec.Struct, frozen=True):
    """A walk-forward's `figures`: what was chosen of which sweep, and the job that trades it."""

    sweep_id: str
    score: str
    folds: list[dict[str, Any]]
    job_id: str
    spec: Spec


_chosen = msgspec.json.Decoder(Chosen)


def prepare_campaign(index: Index, request: events.Requested) -> Campaign:
    """Check all of a campaign against the metadata index, before any of it is started. Raises as `prepare`."""
    spec = checked(request.spec)
    if (walk := request.walk_forward) is not None:
        if not spec.grid or request.weights:
            raise BadInput("a walk-forward chooses among parameter sets of one symbol: give at least one --grid")
        _folds(spec, walk)
        sweep = prepare(index, spec, request.slices)
        told = f"walk_forward {sweep.job_id} {walk.train} {walk.test} {walk.anchored} {walk.score}"
        return Campaign(hashlib.sha256(told.encode()).hexdigest()[:32], sweep.spec, sweep.data_digest, [sweep])
    if spec.grid:
        raise BadInput("a grid is for one symbol: ask for each symbol's sweep by itself")
    jobs = [prepare(index, part, request.slices) for part in parts_of(spec, request.weights)]
    name = portfolio_id([(job.job_id, request.weights[job.spec.symbol]) for job in jobs])
    digest = hashlib.sha256(",".join(job.data_digest for job in jobs).encode()).hexdigest()
    return Campaign(name, spec, digest, jobs)


def split(event: Event, request: events.Requested, runtime: Runtime) -> list[Event]:
    """backtest.requested of a campaign -> those of its jobs that are not done."""
    campaign = prepare_campaign(runtime.index, request)
    if changed := outdated(event, request, campaign.job_id, campaign.spec, runtime):
        return changed
    ledger, now = runtime.ledger, runtime.clock_ms()
    known = ledger.job(campaign.job_id)
    if known is not None and is_answered(known, request):
        return ended("split", known)
    if known is None or begins(known, request):
        row = _row(campaign, request, next_attempt(known, request, now), now)
    elif known.plan:
        row = msgspec.structs.replace(known, started_ms=now)
    else:
        row = _row(campaign, request, known.attempt, now)
    if not steps_of(row):
        children = ledger.job_rows([job.job_id for job in campaign.jobs])
        steps = [step_of(job.job_id, children.get(job.job_id), row.attempt, request.fresh) for job in campaign.jobs]
        row = _with_steps(row, steps)
    ledger.put_job(row)
    return advance(row, runtime, asking=True)


def _row(campaign: Campaign, request: events.Requested, attempt: int, now: int) -> JobRow:
    return JobRow(
        job_id=campaign.job_id,
        state="planned",
        spec=campaign.spec.to_json().decode(),
        plan="",
        data_digest=campaign.data_digest,
        started_ms=now,
        kind=kind_of(request),
        attempt=attempt,
        request=msgspec.json.encode(msgspec.structs.replace(request, attempt=attempt)).decode(),
    )


def _with_steps(row: JobRow, steps: list[Step]) -> JobRow:
    return msgspec.structs.replace(row, plan=msgspec.json.encode(Steps(steps)).decode())


# -- what follows when a step has ended ----------------------------------------------------------------------------


def step_ended(name: str, runtime: Runtime) -> list[Event]:
    """backtest.completed or .failed -> what follows from it for the campaigns that wait for that job."""
    return [event for row in runtime.ledger.waiting_for(name) for event in advance(row, runtime)]


def advance(row: JobRow, runtime: Runtime, asking: bool = False) -> list[Event]:
    """Look where all of a campaign's jobs are, and do what follows. `asking`: ask for those that are not done, too."""
    request = request_of(row)
    if request is None:
        return fail(row, OTHER_RELEASE, runtime.ledger)
    steps = steps_of(row)
    children = runtime.ledger.job_rows([step.job_id for step in steps])
    for step in steps:
        child = children.get(step.job_id)
        if child is not None and child.attempt >= step.attempt and child.state in ("failed", "cancelled"):
            return fail(row, _reason(child), runtime.ledger)
    try:
        if waiting := [k for k, step in enumerate(steps) if not is_done(step, children.get(step.job_id))]:
            return _ask(row, request, steps, waiting) if asking else []
        if request.walk_forward is not None and len(steps) == 1:
            row = _choose(row, request, request.walk_forward, runtime)
            runtime.ledger.put_job(row)
            return advance(row, runtime, asking=True)
        if request.weights:
            runtime.ledger.put_results([_joint_row(row, request, steps, runtime.ledger)])
    except CandlemillError as error:
        if error.retryable:
            raise
        return fail(row, str(error), runtime.ledger)
    runtime.ledger.put_job(msgspec.structs.replace(row, state="done"))
    return completed("aggregate", row.job_id)


def _reason(child: JobRow) -> str:
    spec = msgspec.json.decode(child.spec or "{}")
    return f"its {child.kind} of {spec.get('symbol', '?')}, job {child.job_id[:12]}: {child.reason or child.state}"


def _ask(row: JobRow, request: events.Requested, steps: list[Step], waiting: list[int]) -> list[Event]:
    spec = msgspec.json.decode(row.spec, type=Spec)
    specs = parts_of(spec, request.weights) if request.weights else [spec]
    if row.figures:
        specs.append(chosen_of(row).spec)
    out = []
    for k in waiting:
        data = events.Requested(specs[k], request.slices, request.fresh, attempt=steps[k].attempt, parent=row.job_id)
        out.append(events.make("aggregate", events.REQUESTED, steps[k].job_id, data))
    return out


# -- portfolios ----------------------------------------------------------------------------------------------------


def _joint_row(row: JobRow, request: events.Requested, steps: list[Step], ledger: Ledger) -> ResultRow:
    """The joint result of a portfolio whose jobs are all done."""
    found = {result.job_id: result for result in ledger.results([step.job_id for step in steps])}
    all_there([step.job_id for step in steps], found)
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


def chosen_of(row: JobRow) -> Chosen:
    """What a walk-forward has chosen."""
    return _chosen.decode(row.figures)


def _folds(spec: Spec, walk: WalkForward) -> list[Fold]:
    return make_folds(spec.start, spec.end, parse_span(walk.train), parse_span(walk.test), walk.anchored)


def _choose(row: JobRow, request: events.Requested, walk: WalkForward, runtime: Runtime) -> JobRow:
    """Choose the best set of each training span; the choices become one job with a schedule, from the first test on,
    so costs of changing over are in it.

    The sweep over the whole range tells every set's daily profits; a set is judged by those of a fold's days.
    """
    spec = msgspec.json.decode(row.spec, type=Spec)
    (step,) = steps_of(row)
    if prepare(runtime.index, spec, request.slices).data_digest != row.data_digest:
        raise BadInput(f"the candles of {spec.symbol} have changed since the job was planned: ask again")
    folds = _folds(spec, walk)
    params, days, matrix = sweep_matrix(runtime.ledger, spec, step.job_id, row.data_digest)
    choices = walk_forward(matrix, days, folds, walk.score)
    chosen = [(fold, choice) for fold, choice in zip(folds, choices, strict=True) if choice is not None]
    if not chosen:
        raise NoData(f"no fold of {len(folds)} has days with candles in both training and test: take longer spans")
    told = [
        {
            **msgspec.to_builtins(fold),
            "params": params[choice.row],
            "in_sample": choice.in_sample,
            "out_of_sample": choice.out_of_sample,
            "efficiency": choice.efficiency,
        }
        for fold, choice in chosen
    ]
    stitched = _stitched(spec, [(fold, params[choice.row]) for fold, choice in chosen])
    job = prepare(runtime.index, stitched, request.slices)
    known = runtime.ledger.job(job.job_id)
    figures = Chosen(step.job_id, walk.score, told, job.job_id, job.spec)
    row = _with_steps(row, [step, step_of(job.job_id, known, row.attempt, request.fresh)])
    return msgspec.structs.replace(row, state="merging", figures=msgspec.json.encode(figures).decode())


def _stitched(spec: Spec, chosen: list[tuple[Fold, dict[str, Any]]]) -> Spec:
    """The job that trades each fold's choice during its test."""
    legs = [Leg(fold.test_start, params) for fold, params in chosen]
    start, end = chosen[0][0].test_start, chosen[-1][0].test_end
    return checked(msgspec.structs.replace(spec, params={}, grid={}, schedule=legs, start=start, end=end))


def sweep_matrix(
    ledger: Ledger, spec: Spec, sweep_id: str, data_digest: str
) -> tuple[list[dict[str, Any]], Column, NDArray[np.int64]]:
    """A finished sweep's parameter sets, its days (midnights in ms), and each set's daily figures."""
    points = [params for _, params, _ in grid_points(spec, 0, spec.combinations)]
    ids = [job_id(spec.single(params), data_digest) for params in points]
    daily = ledger.sweep_daily(sweep_id, ids)
    all_there(ids, daily)
    days, _ = unpack(daily[ids[0]])
    if len(ids) * len(days) > MATRIX_LIMIT:
        raise TooLarge(
            f"{len(ids):,} sets of {len(days):,} days are {len(ids) * len(days):,} figures, the limit is "
            f"{MATRIX_LIMIT:,}: use a smaller grid or a shorter range"
        )
    return points, days, np.stack([unpack(daily[one])[1] for one in ids])
