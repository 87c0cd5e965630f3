"""What the functions do: split, execute, aggregate. Each takes an event and returns the events that follow from it.

Every handler may see an event twice, late, or out of order. What it writes is the same bytes each time, so doing it
again changes nothing; what it returns has the same ids, so saying it again can be recognised.
"""

import hashlib
import re
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
import numpy as np

from candlemill import events
from candlemill.control import completed, ended, fail, watch
from candlemill.daily import pack, unpack
from candlemill.engine.tape import DAY_MS
from candlemill.errors import BadInput, BeingWritten, CandlemillError, NoData, StoreDown, UnknownName
from candlemill.events import Event
from candlemill.ledger import DONE, EXACT, GUESS, Index, JobRow, Partial, Progress, ResultRow, Runtime
from candlemill.longtasks import sized
from candlemill.model import Spec, grid_points, iso, job_id, resolve
from candlemill.plan import Day, Plan, digest_of_days, make_plan
from candlemill.reduce import Merged, Outcomes, Repair, join, result_of
from candlemill.request import requested
from candlemill.states import attempt_of, is_answered, kind_of, plan_of
from candlemill.strategies import Strategy
from candlemill.work import Done, columns_read, context_bars, run_task, split_state

T = TypeVar("T")

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
    """The index of the spec's range. Raises BeingWritten where a write to it has begun and not ended."""
    days = _days_of(index, spec)
    unsure = [day for day in days if not day.digest]
    if unsure:
        raise BeingWritten(
            f"{len(unsure):,} days of {spec.symbol} from {iso(unsure[0].start)} on are being written: try again; if it "
            f"lasts, a write broke off, and `candlemill coverage {spec.symbol}` counts them again"
        )
    return days


def _days_of(index: Index, spec: Spec) -> list[Day]:
    return [day for day in index.days(spec.symbol) if day.start + DAY_MS > spec.start and day.start < spec.end]


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
    scale = index.volume_scale(spec.symbol) if spec.volume_share else 0
    spec = msgspec.structs.replace(spec, volume_scale=scale)
    digest = digest_of_data(index, spec, days)
    return Prepared(job_id(spec, digest), spec, digest, make_plan(spec, days, slices))


def digest_of_data(index: Index, spec: Spec, days: Sequence[Day]) -> str:
    """SHA-256 of all data that the spec's result depends on. Raises NoData for funding without any rate."""
    digest = digest_of_days(days)
    if not spec.funding:
        return digest
    funding = index.funding(spec.symbol)
    a, b = np.searchsorted(funding.t, [spec.start, spec.end])
    if a == b:
        raise NoData(
            f"{spec.symbol} has no funding rate in {iso(spec.start)}..{iso(spec.end)}: "
            "ingest some, or leave funding out"
        )
    rates = np.stack((funding.t[a:b], funding.rate[a:b]))
    return hashlib.sha256(digest.encode() + rates.astype("<i8").tobytes()).hexdigest()


def split(event: Event, runtime: Runtime) -> list[Event]:
    """backtest.requested -> one slice.requested per task that has no partial yet."""
    request = requested(event, runtime.index)
    if request.is_campaign:
        from candlemill import campaigns  # only here: an executor starts sooner without

        return campaigns.split(event, request, runtime)
    job = prepare(runtime.index, checked(request.spec), request.slices)
    if changed := outdated(event, request, job.job_id, job.spec, runtime):
        return changed
    known, now = runtime.ledger.job(job.job_id), runtime.clock_ms()
    if known is not None and is_answered(known, request):
        return ended("split", known)
    attempt = attempt_of(known, request, job.plan, now)
    plan = attempt.plan
    job = msgspec.structs.replace(job, plan=plan)
    row = JobRow(
        job_id=job.job_id,
        state=attempt.state,
        spec=job.spec.to_json().decode(),
        plan=msgspec.json.encode(plan).decode(),
        data_digest=job.data_digest,
        started_ms=now,
        kind=kind_of(request),
        attempt=attempt.number,
        request=msgspec.json.encode(msgspec.structs.replace(request, attempt=attempt.number)).decode(),
    )
    if not request.fresh and not job.spec.grid and runtime.ledger.has_result(job.job_id):
        runtime.ledger.put_job(msgspec.structs.replace(row, state="done"))  # a sweep had this set
        return completed("split", job.job_id)
    runtime.ledger.put_job(row)
    have: dict[int, set[str]] = {}
    for partial in [] if request.fresh else runtime.ledger.partials(job.job_id):
        if partial.kind in (GUESS, DONE):
            have.setdefault(partial.batch, set()).add(partial.task)
    return [task for b in range(plan.batches) for task in _batch_events(job, b, have.get(b, set()), event.id)]


def outdated(event: Event, request: events.Requested, name: str, spec: Spec, runtime: Runtime) -> list[Event]:
    """What becomes of a job that was asked for by another id than `name`, the one that it has now."""
    known = runtime.ledger.job(event.partitionkey) if event.partitionkey not in ("", name) else None
    if known is None or known.spec != spec.to_json().decode():
        return []
    if known.finished:
        return ended("split", known) if is_answered(known, request) else []
    reason = f"the candles of {spec.symbol} have changed since the job was asked for: ask again"
    return fail(known, reason, runtime.ledger)


def checked(spec: Spec) -> Spec:
    """The spec as `resolve` makes it, whoever made this one: complete, typed and within all limits."""
    rest = msgspec.structs.asdict(spec)
    span = (rest.pop("start"), rest.pop("end"))
    return resolve(symbol=rest.pop("symbol"), strategy=rest.pop("strategy"), span=span, **rest)


def _batch_events(job: Prepared, batch: int, have: set[str], cause: str) -> list[Event]:
    """The batch's missing tasks; or, where none is missing, word of their completion, so that the aggregate looks."""
    plan = job.plan
    first, count = plan.batch_points(batch)
    todo = [k for k in range(plan.slices) if _task(plan.cuts, k, _guess_ending(first, count, plan.run)) not in have]
    if not todo or _done_ending(plan) in have:
        data = events.SliceCompleted(job.job_id, batch, 0, cause)
        return [events.make("split", events.SLICE_COMPLETED, job.job_id, data)]
    asked = [
        events.SliceRequested(
            job.job_id, job.data_digest, job.spec, batch, first, count, k, plan.cuts[k : k + 2], run=plan.run
        )
        for k in todo
    ]
    return [sized(events.make("split", events.SLICE_REQUESTED, job.job_id, task), task) for task in asked]


# A task's name says what it covers, so that rows of another plan or run are not mistaken for this one's.


def _task(cuts: Sequence[int], number: int, ending: str) -> str:
    return f"{cuts[number]}-{cuts[number + 1]}{ending}"


def _guess_ending(first: int, count: int, run: int) -> str:
    return f"/{first}+{count}{_of_run(run)}"


def _done_ending(plan: Plan) -> str:
    return f"/{plan.slices}x{plan.batch}{_of_run(plan.run)}"


def _of_run(run: int) -> str:
    return f"@{run}" if run else ""


# -- execute -------------------------------------------------------------------------------------------------------


def execute(event: Event, runtime: Runtime) -> list[Event]:
    """slice.requested -> the task's partials in the ledger, and slice.completed."""
    task = events.read(event, events.SliceRequested)
    job = runtime.ledger.job(task.job_id)
    if job is not None and job.finished:
        return []
    digest = digest_of_data(runtime.index, task.spec, days_in(runtime.index, task.spec))
    if digest != task.data_digest:
        raise BadInput(f"the candles of {task.spec.symbol} have changed since the job was planned: ask again")
    if job_id(task.spec, digest) != task.job_id:
        raise BadInput(
            f"job {task.job_id[:12]} was planned by another release, or with another version of {task.spec.strategy}, "
            "than this executor has: run the same ones everywhere and ask again"
        )
    sets = {point: strategy for point, _, strategy in grid_points(task.spec, task.first, task.count)}
    _check_task(task, sets)
    if task.repairs:
        partials = _repair(task, sets, runtime, event.id)
    else:
        done = _run(task.spec, task.cuts[0], task.cuts[1], sets, runtime, None)
        name = _task(task.cuts, 0, _guess_ending(task.first, task.count, task.run))
        partials = [Partial(task.job_id, task.batch, GUESS, task.slice, name, _payload(done))]
    runtime.ledger.put_partials(partials)
    data = events.SliceCompleted(task.job_id, task.batch, task.slice, event.id)
    return [events.make("execute", events.SLICE_COMPLETED, task.job_id, data)]


def _check_task(task: events.SliceRequested, sets: Container[int]) -> None:
    """What the shape of the data cannot say. Raises BadInput."""
    slices = len(task.cuts) - 1
    ordered = task.cuts == sorted(set(task.cuts)) and task.spec.start <= task.cuts[0] and task.cuts[-1] <= task.spec.end
    if not ordered or (slices > 1 and not task.repairs):
        raise BadInput(f"slice {task.slice}: cuts {task.cuts[:4]} do not bound its slices in order")
    for repair in task.repairs:
        if repair.point not in sets or not 0 <= repair.slice - task.slice <= slices - repair.count:
            raise BadInput(f"slice {task.slice}: a repair of point {repair.point}, slice {repair.slice} is outside")
        try:
            split_state(repair.start.encode())
        except ValueError:
            raise BadInput(f"slice {task.slice}: {repair.start[:40]!r} is not a state") from None


def _run(
    spec: Spec, start: int, end: int, sets: dict[int, Strategy], runtime: Runtime, starts: dict[int, bytes] | None
) -> Done:
    strategies = list(sets.values())
    context = context_bars(spec, strategies, starts is not None)
    window = runtime.tapes.window(spec, start, end, context, columns_read(spec, strategies))
    if spec.funding:
        funding = runtime.index.funding(spec.symbol)
        window.tape.add_funding(funding.t, funding.rate)
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
        done = _run(task.spec, task.cuts[k], task.cuts[k + 1], chosen, runtime, starts)
        states |= {outcome.point: outcome.end.encode() for outcome in done.outcomes}
        label = _task(task.cuts, k, f"/{name}{_of_run(task.run)}")
        out.append(Partial(task.job_id, task.batch, EXACT, number, label, _payload(done)))
    return out


def _payload(done: Done) -> str:
    return msgspec.json.encode(done).decode()


# -- aggregate -----------------------------------------------------------------------------------------------------


def aggregate(event: Event, runtime: Runtime) -> list[Event]:
    """slice.completed -> nothing yet, repairs, or the result; a dead letter of any kind -> the job failed;
    backtest.completed or .failed -> what follows for campaigns; jobs.watch -> requests for jobs that have stopped."""
    if event.error:
        return _give_up(event, runtime)
    if event.type in (events.COMPLETED, events.FAILED):
        from candlemill import campaigns  # only here: an executor starts sooner without

        step: events.Completed | events.Failed = events.read(event, events.DATA[event.type])  # type: ignore[assignment]
        return campaigns.step_ended(step.job_id, runtime)
    if event.type == events.WATCH:
        return watch(runtime, runtime.clock_ms())
    done = events.read(event, events.SliceCompleted)
    job = runtime.ledger.job(done.job_id)
    if job is None:
        raise StoreDown(f"job {done.job_id} is not in the store yet")
    if job.finished:
        return ended("aggregate", job)
    plan = plan_of(job)
    if plan is None or done.batch >= plan.batches:  # of another plan of this job
        return []
    first, count = plan.batch_points(done.batch)
    if not runtime.ledger.count_partials(done.job_id, DONE, _done_ending(plan), done.batch):
        guesses = _guess_ending(first, count, plan.run)
        if runtime.ledger.count_partials(done.job_id, GUESS, guesses, done.batch) < plan.slices:
            return []
        repairs = _merge_batch(job, plan, done.batch, runtime)
        if repairs is not None:
            if repairs and job.state == "planned":
                runtime.ledger.put_job(msgspec.structs.replace(job, state="repairing"))
            return repairs
    if runtime.ledger.count_partials(done.job_id, DONE, _done_ending(plan)) < plan.batches:
        return []
    spec, figures = msgspec.json.decode(job.spec, type=Spec), ""
    if spec.grid:
        runtime.ledger.put_job(msgspec.structs.replace(job, state="merging"))
        figures = _sweep_figures(job, spec, runtime)
    runtime.ledger.put_job(msgspec.structs.replace(job, state="done", figures=figures))
    return completed("aggregate", job.job_id)


def _merge_batch(job: JobRow, plan: Plan, batch: int, runtime: Runtime) -> list[Event] | None:
    """Write the batch's results and return None; or the events that must come first (none: rows are missing)."""
    spec = msgspec.json.decode(job.spec, type=Spec)
    first, count = plan.batch_points(batch)
    outcomes = _outcomes(plan, runtime.ledger.partials(job.job_id, batch), _guess_ending(first, count, plan.run))
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
    runtime.ledger.put_partials([Partial(job.job_id, batch, DONE, 0, _done_ending(plan), "")])
    return None


def _sweep_figures(job: JobRow, spec: Spec, runtime: Runtime) -> str:
    """How much of a sweep's best Sharpe ratio may be luck, as JSON; empty where it has no two results to compare.
    Raises StoreDown where the store does not show all of its results yet."""
    from candlemill.guards import sweep_guards, thinned  # only here: an executor starts sooner without

    points = [params for _, params, _ in grid_points(spec, 0, spec.combinations)]
    ids = [job_id(spec.single(params), job.data_digest) for params in points]
    scores = runtime.ledger.sweep_scores(job.job_id) if len(ids) > 1 else None
    if scores is None:
        return ""
    all_there(ids, scores)
    sets = [(params, scores[own]) for params, own in zip(points, ids, strict=True)]
    rows = thinned(len(sets), max(range(len(sets)), key=lambda k: sets[k][1]))
    chosen = [ids[k] for k in rows]
    daily = all_there(chosen, runtime.ledger.sweep_daily(job.job_id, chosen))
    matrix = np.stack([unpack(daily[own])[1] for own in chosen])
    return msgspec.json.encode(sweep_guards(matrix, rows, sets, spec.grid)).decode()


def all_there(ids: Sequence[str], found: Mapping[str, T]) -> Mapping[str, T]:
    """What was found, if nothing is missing: results are written before their job is done, but a replica may lag."""
    if missing := [own for own in ids if own not in found]:
        raise StoreDown(
            f"{len(missing):,} of {len(ids):,} results are not in the store yet, that of {missing[0]} first"
        )
    return found


def _outcomes(plan: Plan, rows: Sequence[Partial], suffix: str) -> Outcomes | None:
    """The plan's outcomes among a batch's rows; None while the guess of a slice is missing."""
    outcomes = Outcomes()
    guessed = set()
    for row in rows:
        if row.kind == DONE or row.slice >= plan.slices:
            continue
        ending = suffix if row.kind == GUESS else _of_run(plan.run)
        if not row.task.startswith(_task(plan.cuts, row.slice, "/")) or not row.task.endswith(ending):
            continue
        outcomes.add(row.slice, row.kind == EXACT, msgspec.json.decode(row.payload, type=Done))
        if row.kind == GUESS:
            guessed.add(row.slice)
    return outcomes if len(guessed) == plan.slices else None


def _result_row(job: JobRow, spec: Spec, plan: Plan, merged: Merged, took_ms: int) -> ResultRow:
    own = job_id(spec, job.data_digest)
    result, daily = result_of(spec, plan, merged, own, job.data_digest)
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
        daily=pack(merged.days, daily),
    )


def _repair_events(job: JobRow, spec: Spec, plan: Plan, batch: int, repairs: list[Repair]) -> list[Event]:
    """One task for all repairs of a batch, or several where they would not fit an event."""
    first, count = plan.batch_points(batch)
    out = []
    waiting = _groups(sorted(repairs, key=lambda repair: (repair.slice, repair.point)))[::-1]
    while waiting:
        group = waiting.pop()
        low, high = group[0].slice, max(repair.slice + repair.count for repair in group)
        cuts = plan.cuts[low : high + 1]
        data = events.SliceRequested(job.job_id, job.data_digest, spec, batch, first, count, low, cuts, group, plan.run)
        half = len(group) // 2
        if half and len(msgspec.json.encode(data)) > events.EVENT_BYTES_LIMIT:
            waiting += [group[half:], group[:half]]
        else:
            out.append(sized(events.make("aggregate", events.SLICE_REQUESTED, job.job_id, data), data))
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
    """A dead letter: its job ends as failed, with the reason. One that never began is told of all the same."""
    name, spec = _subject(event, runtime)
    if not name:
        return []
    job = runtime.ledger.job(name)
    if job is None:
        told = "" if spec is None else spec.to_json().decode()
        job = JobRow(name, "accepted", told, "", "", runtime.clock_ms())
    return ended("aggregate", job) if job.finished else fail(job, event.error, runtime.ledger)


def _subject(event: Event, runtime: Runtime) -> tuple[str, Spec | None]:
    """The job that a dead letter belongs to, and what it asked for, as far as either can be made out."""
    data: msgspec.Struct | None = None
    with suppress(BadInput):
        data = events.read(event, events.DATA[event.type]) if event.type in events.DATA else None
    spec: Spec | None = getattr(data, "spec", None)
    name = getattr(data, "job_id", event.partitionkey)
    if isinstance(data, events.Requested) and not data.is_campaign and not name:
        with suppress(NoData):
            name = job_id(data.spec, digest_of_data(runtime.index, data.spec, _days_of(runtime.index, data.spec)))
    return (name if re.fullmatch("[0-9a-f]{32}", name) else ""), spec


def progress(row: JobRow, counts: Mapping[tuple[int, str, str], int]) -> Progress:
    """How far a job is. `counts` are the numbers of its tasks' rows by batch, kind and ending (see `Partial`).

    Another plan's tasks may be among them where they could be this one's: the figure is for people to look at.
    """
    plan = plan_of(row)
    if plan is None:
        return Progress(int(row.state == "done"), 1, 0)
    done = 0
    for batch in range(plan.batches):
        ending = _guess_ending(*plan.batch_points(batch), plan.run)
        merged = counts.get((batch, DONE, _done_ending(plan)), 0)
        done += plan.slices if merged else min(counts.get((batch, GUESS, ending), 0), plan.slices)
    repairs = sum(n for (_, kind, ending), n in counts.items() if kind == EXACT and ending.endswith(_of_run(plan.run)))
    return Progress(plan.tasks if row.state == "done" else done, plan.tasks, repairs)


def _int64(value: object, name: str, clip: bool = False) -> int:
    """A column's value. Money that does not fit is refused; a ratio is kept at the bound (the JSON has it whole)."""
    number = value if isinstance(value, int) else 0
    if -(2**63) <= number < 2**63:
        return number
    if clip:
        return min(max(number, -(2**63)), 2**63 - 1)
    raise CandlemillError(f"{name}={number} does not fit the results table's Int64: use a smaller quantity")
