"""What the functions do: split, execute, aggregate. Each takes an event and returns the events that follow from it.

Every handler may see an event twice, late, or out of order. What it writes is the same bytes each time, so doing it
again changes nothing; what it returns has the same ids, so saying it again can be recognised.
"""

from collections.abc import Sequence

import msgspec

from candlemill import events
from candlemill.errors import BadInput, CandlemillError, NoData, StoreDown, UnknownName
from candlemill.events import Event
from candlemill.ledger import DONE, EXACT, GUESS, Index, JobRow, Partial, ResultRow, Runtime
from candlemill.model import Spec, grid_points, iso, job_id
from candlemill.plan import Day, Plan, digest_of_days, make_plan
from candlemill.reduce import Merged, Outcomes, Repair, join, result_of
from candlemill.strategies import Strategy
from candlemill.work import Outcome, context_bars, needs_range, run_task

REPAIR_EVENT_POINTS = 256
REPAIR_EVENT_SLICES = 1024


# -- split ---------------------------------------------------------------------------------------------------------


class Prepared(msgspec.Struct, frozen=True):
    """A job that can run: its identity, its data and its plan."""

    job_id: str
    spec: Spec
    data_digest: str
    plan: Plan


def days_in(index: Index, spec: Spec) -> list[Day]:
    days = index.days(spec.symbol)
    return [day for day in days if day.start + 86_400_000 > spec.start and day.start < spec.end]


def prepare(index: Index, spec: Spec, slices: int | None) -> Prepared:
    """Check a spec against the metadata index, before anything is started. Raises UnknownName and NoData."""
    days = days_in(index, spec)
    if not days:
        known = index.symbols()
        if spec.symbol not in known:
            advice = "`candlemill coverage` lists what is stored"
            if not known:
                advice = "nothing is stored yet, ingest candles first"
            raise UnknownName("symbol", spec.symbol, known, advice)
        have = index.days(spec.symbol)
        raise NoData(
            f"{spec.symbol} has no candle in {iso(spec.start)}..{iso(spec.end)}: "
            f"stored are {iso(have[0].first)}..{iso(have[-1].last)}"
        )
    digest = digest_of_days(days)
    return Prepared(job_id(spec, digest), spec, digest, make_plan(spec, days, slices))


def split(event: Event, runtime: Runtime) -> list[Event]:
    """backtest.requested -> one slice.requested per task that has no partial yet."""
    request = events.read(event, events.Requested)
    job = prepare(runtime.index, request.spec, request.slices)
    known = runtime.ledger.job(job.job_id)
    if known is not None and known.state == "done" and not request.fresh:
        return [events.make("split", events.COMPLETED, job.job_id, events.Completed(job.job_id))]
    runtime.ledger.put_job(
        JobRow(
            job_id=job.job_id,
            state="running",
            spec=request.spec.to_json().decode(),
            plan=msgspec.json.encode(job.plan).decode(),
            data_digest=job.data_digest,
            started_ms=runtime.clock_ms(),
        )
    )
    rows = [] if request.fresh else runtime.ledger.partials(job.job_id)
    return [task for batch in range(job.plan.batches) for task in _batch_events(job, batch, rows, event.id)]


def _batch_events(job: Prepared, batch: int, rows: Sequence[Partial], cause: str) -> list[Event]:
    """The batch's missing tasks; or, where none is missing, word of their completion, so that the aggregate looks."""
    plan = job.plan
    first, count = plan.batch_points(batch)
    have = {row.task for row in rows if row.kind in (GUESS, DONE) and row.batch == batch}
    todo = [k for k in range(plan.slices) if _task(plan, k, first, count) not in have]
    if not todo or _batch_done(plan, first, count) in have:
        data = events.SliceCompleted(job.job_id, batch, 0, cause)
        return [events.make("split", events.SLICE_COMPLETED, job.job_id, data)]
    return [
        events.make(
            "split",
            events.SLICE_REQUESTED,
            job.job_id,
            events.SliceRequested(job.job_id, job.data_digest, job.spec, batch, first, count, k, plan.cuts[k : k + 2]),
        )
        for k in todo
    ]


def _batch_done(plan: Plan, first: int, count: int) -> str:
    return f"{plan.slices}/{first}+{count}"


def _task(plan: Plan, number: int, first: int, count: int) -> str:
    """A task's name says what it covers, so that rows of another plan are not mistaken for this one's."""
    return f"{plan.cuts[number]}-{plan.cuts[number + 1]}/{first}+{count}"


# -- execute -------------------------------------------------------------------------------------------------------


def execute(event: Event, runtime: Runtime) -> list[Event]:
    """slice.requested -> the task's partials in the ledger, and slice.completed."""
    task = events.read(event, events.SliceRequested)
    digest = digest_of_days(days_in(runtime.index, task.spec))
    if digest != task.data_digest:
        raise BadInput(f"the candles of {task.spec.symbol} have changed since the job was planned: ask again")
    sets = {point: strategy for point, _, strategy in grid_points(task.spec, task.first, task.count)}
    if task.repairs:
        partials = _repair(task, sets, runtime, event.id)
    else:
        outcomes = _run(task.spec, task.cuts[0], task.cuts[1], sets, runtime, None)
        name = f"{task.cuts[0]}-{task.cuts[1]}/{task.first}+{task.count}"
        partials = [Partial(task.job_id, task.batch, GUESS, task.slice, name, _payload(outcomes))]
    runtime.ledger.put_partials(partials)
    data = events.SliceCompleted(task.job_id, task.batch, task.slice, event.id)
    return [events.make("execute", events.SLICE_COMPLETED, task.job_id, data)]


def _run(
    spec: Spec, start: int, end: int, sets: dict[int, Strategy], runtime: Runtime, starts: dict[int, bytes] | None
) -> list[Outcome]:
    strategies = list(sets.values())
    context = context_bars(spec, strategies, starts is not None)
    window = runtime.tapes.window(spec, start, end, context, needs_range(spec, strategies))
    return run_task(spec, window, list(sets.items()), starts)


def _repair(task: events.SliceRequested, sets: dict[int, Strategy], runtime: Runtime, name: str) -> list[Partial]:
    """Each repair's slices in order, every one from the state that the one before it ended in."""
    states = {repair.point: repair.start.encode() for repair in task.repairs}
    out = []
    for k in range(len(task.cuts) - 1):
        number = task.slice + k
        due = [r.point for r in task.repairs if r.slice <= number < r.slice + r.count]
        if not due:
            continue
        starts = {point: states[point] for point in due}
        chosen = {point: sets[point] for point in due}
        outcomes = _run(task.spec, task.cuts[k], task.cuts[k + 1], chosen, runtime, starts)
        states |= {outcome.point: outcome.end.encode() for outcome in outcomes}
        label = f"{task.cuts[k]}-{task.cuts[k + 1]}/{name}"
        out.append(Partial(task.job_id, task.batch, EXACT, number, label, _payload(outcomes)))
    return out


def _payload(outcomes: list[Outcome]) -> str:
    return msgspec.json.encode(outcomes).decode()


# -- aggregate -----------------------------------------------------------------------------------------------------


def aggregate(event: Event, runtime: Runtime) -> list[Event]:
    """slice.completed -> nothing yet, repairs, or the result; a dead letter of any kind -> the job failed."""
    if event.error:
        return _give_up(event, runtime)
    done = events.read(event, events.SliceCompleted)
    job = runtime.ledger.job(done.job_id)
    if job is None:
        raise StoreDown(f"job {done.job_id} is not in the store yet")
    if job.state != "running":
        return []
    plan = msgspec.json.decode(job.plan, type=Plan)
    if not runtime.ledger.count_partials(done.job_id, DONE, done.batch):
        if runtime.ledger.count_partials(done.job_id, GUESS, done.batch) < plan.slices:
            return []
        repairs = _merge_batch(job, plan, done.batch, runtime)
        if repairs is not None:
            return repairs
    if runtime.ledger.count_partials(done.job_id, DONE) < plan.batches:
        return []
    runtime.ledger.put_job(msgspec.structs.replace(job, state="done"))
    return [events.make("aggregate", events.COMPLETED, job.job_id, events.Completed(job.job_id))]


def _merge_batch(job: JobRow, plan: Plan, batch: int, runtime: Runtime) -> list[Event] | None:
    """Write the batch's results and return None; or the events that must come first (none: rows are missing)."""
    spec = msgspec.json.decode(job.spec, type=Spec)
    first, count = plan.batch_points(batch)
    outcomes = _outcomes(plan, runtime.ledger.partials(job.job_id, batch), f"/{first}+{count}")
    if outcomes is None:
        return []
    results, repairs = [], []
    for point, params, _ in grid_points(spec, first, count):
        joined = join(outcomes, point, plan.slices)
        if isinstance(joined, Repair):
            repairs.append(joined)
        elif not repairs:
            took = max(0, runtime.clock_ms() - job.started_ms)
            results.append(_result_row(job, spec.single(params), plan, joined, took))
    if repairs:
        return _repair_events(job, spec, plan, batch, repairs)
    runtime.ledger.put_results(results)
    runtime.ledger.put_partials([Partial(job.job_id, batch, DONE, 0, _batch_done(plan, first, count), "")])
    return None


def _outcomes(plan: Plan, rows: Sequence[Partial], suffix: str) -> Outcomes | None:
    """The plan's outcomes among a batch's rows; None while the guess of a slice is missing."""
    outcomes = Outcomes()
    guessed = set()
    for row in rows:
        if row.kind == DONE or row.slice >= plan.slices:
            continue
        bounds = f"{plan.cuts[row.slice]}-{plan.cuts[row.slice + 1]}/"
        if not row.task.startswith(bounds) or (row.kind == GUESS and not row.task.endswith(suffix)):
            continue
        outcomes.add(row.slice, row.kind == EXACT, msgspec.json.decode(row.payload, type=list[Outcome]))
        if row.kind == GUESS:
            guessed.add(row.slice)
    return outcomes if len(guessed) == plan.slices else None


def _result_row(job: JobRow, spec: Spec, plan: Plan, merged: Merged, took_ms: int) -> ResultRow:
    own = job_id(spec, job.data_digest)
    result = result_of(spec, plan, merged, own, job.data_digest)
    result["execution_time_ms"] = took_ms
    return ResultRow(
        job_id=own,
        strategy_id=spec.strategy,
        total_pnl=_int64(result["total_pnl"], "total_pnl"),
        sharpe_ratio=_int64(result["sharpe_ratio"], "sharpe_ratio", clip=True),
        max_drawdown=_int64(result["max_drawdown"], "max_drawdown"),
        execution_time_ms=took_ms,
        sweep_id="" if own == job.job_id else job.job_id,
        result=msgspec.json.encode(result).decode(),
    )


def _repair_events(job: JobRow, spec: Spec, plan: Plan, batch: int, repairs: list[Repair]) -> list[Event]:
    """One task for all repairs of a batch, or several where they would not fit an event."""
    first, count = plan.batch_points(batch)
    out = []
    for group in _groups(sorted(repairs, key=lambda repair: (repair.slice, repair.point))):
        low, high = group[0].slice, max(repair.slice + repair.count for repair in group)
        data = events.SliceRequested(
            job.job_id, job.data_digest, spec, batch, first, count, low, plan.cuts[low : high + 1], group
        )
        out.append(events.make("aggregate", events.SLICE_REQUESTED, job.job_id, data))
    return out


def _groups(repairs: list[Repair]) -> list[list[Repair]]:
    """Repairs that travel together: bounded in number and in the slices they span."""
    groups: list[list[Repair]] = []
    for repair in repairs:
        last = groups[-1] if groups else []
        if last and len(last) < REPAIR_EVENT_POINTS and repair.slice - last[0].slice < REPAIR_EVENT_SLICES:
            last.append(repair)
        else:
            groups.append([repair])
    return groups


def _give_up(event: Event, runtime: Runtime) -> list[Event]:
    """A dead letter: its job ends as failed, with the reason."""
    job_id = event.partitionkey
    job = runtime.ledger.job(job_id)
    if job is None or job.state != "running":
        return []
    runtime.ledger.put_job(msgspec.structs.replace(job, state="failed", reason=event.error))
    return [events.make("aggregate", events.FAILED, job_id, events.Failed(job_id, event.error))]


def _int64(value: object, name: str, clip: bool = False) -> int:
    """A column's value. Money that does not fit is refused; a ratio is kept at the bound (the JSON has it whole)."""
    number = value if isinstance(value, int) else 0
    if -(2**63) <= number < 2**63:
        return number
    if clip:
        return min(max(number, -(2**63)), 2**63 - 1)
    raise CandlemillError(f"{name}={number} does not fit the results table's Int64: use a smaller quantity")
