"""What the functions do: split, execute, aggregate. Each takes an event and returns the events that follow from it.

Every handler may see an event twice, late, or out of order. What it writes is the same bytes each time, so doing it
again changes nothing; what it returns has the same ids, so saying it again can be recognised.
"""

import re
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import TypeVar

import msgspec
import numpy as np

from candlemill import events
from candlemill.addresses import Addresses, ground_of
from candlemill.control import completed, ended, fail, watch
from candlemill.daily import figures as figures_of
from candlemill.daily import pack
from candlemill.errors import BadInput, CandlemillError, NoData, StoreDown, UnknownName
from candlemill.events import Event
from candlemill.execution import Execution
from candlemill.ledger import DONE, EXACT, GUESS, Index, JobRow, MergedSets, Partial, Progress, ResultRow, Runtime
from candlemill.longtasks import sized
from candlemill.model import Spec, grid_points, iso, job_id, resolve
from candlemill.outcomes import outcomes_of
from candlemill.plan import Plan, make_plan
from candlemill.reduce import Merged, Repair, join, result_of
from candlemill.request import requested
from candlemill.reuse import look_up
from candlemill.states import attempt_of, is_answered, kind_of, plan_of
from candlemill.work import split_state

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


def prepare(index: Index, spec: Spec, slices: int | None) -> Prepared:
    """Check a spec against the metadata index, before anything is started. Raises UnknownName and NoData."""
    days = ground_of(index, spec).days
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
    digest = ground_of(index, spec).digest
    return Prepared(job_id(spec, digest), spec, digest, make_plan(spec, days, slices))


def split(event: Event, runtime: Runtime) -> list[Event]:
    """backtest.requested -> one slice.requested per task of which something is not known yet."""
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
    if not request.fresh and not job.spec.grid and runtime.ledger.has_result(job.job_id):
        runtime.ledger.put_job(msgspec.structs.replace(row, state="done"))  # a sweep had this set
        return completed("split", job.job_id)
    cutting = request.slices is None and (known is None or known.plan != row.plan)
    plan, outcomes = look_up(runtime.index, runtime.ledger, job.spec, attempt.plan, cutting)
    job = msgspec.structs.replace(job, plan=plan)
    runtime.ledger.put_job(msgspec.structs.replace(row, plan=msgspec.json.encode(plan).decode()))
    done: dict[int, set[str]] = {}
    for one in [] if request.fresh else runtime.ledger.partials(job.job_id):
        if one.kind in (GUESS, DONE):
            done.setdefault(one.batch, set()).add(one.task)
    missing = None if outcomes is None else [outcomes.missing(*cuts) for cuts in pairwise(plan.cuts)]
    if outcomes is not None and missing is not None:
        lacking = sum(map(len, missing))
        runtime.looked("outcome", plan.slices * len(outcomes.sets) - lacking, lacking)
    batches = [_Batch(job, b, done.get(b, set()), missing) for b in range(plan.batches)]
    runtime.ledger.put_partials([row for batch in batches for row in batch.found])
    return [asked for batch in batches for asked in batch.events(event.id)]


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


class _Batch:
    """What of a batch is to be asked for: tasks that are not in the log, or, where it was looked up, those of which
    outcomes are missing. `found` are rows of the log for the others."""

    def __init__(self, job: Prepared, number: int, done: set[str], missing: Sequence[set[int]] | None) -> None:
        self._job = job
        self._number = number
        self._todo: dict[int, str] = {}  # by slice, what `SliceRequested.only` is
        self.found: list[Partial] = []
        plan = job.plan
        first, count = plan.batch_points(number)
        for k in range(plan.slices) if _done_ending(plan) not in done else ():
            name = _task(plan.cuts, k, _guess_ending(first, count, plan.run))
            if missing is None and name not in done:
                self._todo[k] = ""
            elif missing is not None and (
                bits := sum(1 << p - first for p in range(first, first + count) if p in missing[k])
            ):
                self._todo[k] = f"{bits:x}"
            elif name not in done:
                self.found.append(Partial(job.job_id, number, GUESS, k, name))

    def events(self, cause: str) -> list[Event]:
        """The tasks; or, where none is missing, word of their completion, so that the aggregate looks."""
        job, plan = self._job, self._job.plan
        if not self._todo:
            data = events.SliceCompleted(job.job_id, self._number, 0, cause)
            return [events.make("split", events.SLICE_COMPLETED, job.job_id, data)]
        first, count = plan.batch_points(self._number)
        asked = [
            events.SliceRequested(
                job.job_id, job.data_digest, job.spec, self._number, first, count, k, plan.cuts[k : k + 2],
                run=plan.run, only=only,
            )
            for k, only in self._todo.items()
        ]  # fmt: skip
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
    """slice.requested -> the task's outcomes in the ledger, and slice.completed."""
    task = events.read(event, events.SliceRequested)
    job = runtime.ledger.job(task.job_id)
    if job is not None and job.finished:
        return []
    ground = ground_of(runtime.index, task.spec)
    if ground.digest != task.data_digest:
        raise BadInput(f"the candles of {task.spec.symbol} have changed since the job was planned: ask again")
    if job_id(task.spec, ground.digest) != task.job_id:
        raise BadInput(
            f"job {task.job_id[:12]} was planned by another release, or with another version of {task.spec.strategy}, "
            "than this executor has: run the same ones everywhere and ask again"
        )
    execution = Execution(task, ground, runtime)
    _check_task(task, execution.strategies)
    runtime.ledger.put_outcomes(execution.repairs() if task.repairs else execution.guesses())
    runtime.ledger.put_partials(_log_of(task, event.id))
    data = events.SliceCompleted(task.job_id, task.batch, task.slice, event.id)
    return [events.make("execute", events.SLICE_COMPLETED, task.job_id, data)]


def _log_of(task: events.SliceRequested, name: str) -> list[Partial]:
    """A finished task's rows: one for each slice that it was about."""
    if not task.repairs:
        label = _task(task.cuts, 0, _guess_ending(task.first, task.count, task.run))
        return [Partial(task.job_id, task.batch, GUESS, task.slice, label)]
    numbers = sorted({number for repair in task.repairs for number in range(repair.slice, repair.slice + repair.count)})
    ending = f"/{name}{_of_run(task.run)}"
    return [
        Partial(task.job_id, task.batch, EXACT, number, _task(task.cuts, number - task.slice, ending))
        for number in numbers
    ]


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
    """Write the batch's results and return None; or the events that must come first (none: tasks are not done)."""
    spec = msgspec.json.decode(job.spec, type=Spec)
    first, count = plan.batch_points(batch)
    log = {row.task for row in runtime.ledger.partials(job.job_id, batch)}
    if not all(_task(plan.cuts, k, _guess_ending(first, count, plan.run)) in log for k in range(plan.slices)):
        return []
    merge = runtime.merge or partial(merge_here, runtime)
    merged = merge(job, plan, first, count)
    if merged is None:
        return []
    if merged.repairs:
        return _repair_events(job, spec, plan, batch, merged.repairs)
    runtime.ledger.put_results(merged.results)
    runtime.ledger.put_partials([Partial(job.job_id, batch, DONE, 0, _done_ending(plan))])
    runtime.ledger.release(merged.set_keys)
    return None


def merge_here(runtime: Runtime, job: JobRow, plan: Plan, first: int, count: int) -> MergedSets:
    """Merge the parameter sets of these grid points. All of their outcomes are in the ledger, but for repairs."""
    spec = msgspec.json.decode(job.spec, type=Spec)
    ground = ground_of(runtime.index, spec)
    if ground.digest != job.data_digest:
        raise BadInput(f"the candles of {spec.symbol} have changed since the job was planned: ask again")
    points = list(grid_points(spec, first, count))
    addresses = Addresses(spec, ground, plan.run)
    sets = addresses.of(points)
    outcomes = outcomes_of(addresses, sets, plan.cuts, runtime.ledger)
    results, repairs = [], []
    for point, params, _ in points:
        joined = join(outcomes, point, plan.slices)
        if isinstance(joined, Repair):
            repairs.append(joined)
        elif not repairs:
            took = max(0, runtime.clock_ms() - job.started_ms)
            results.append(_result_row(job, spec.single(params), plan, joined, took))
    return MergedSets(results, repairs, [address.key for address in sets.values()])


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
    matrix = np.stack([figures_of(daily[own]) for own in chosen])
    return msgspec.json.encode(sweep_guards(matrix, rows, sets, spec.grid, runtime.spread)).decode()


def all_there(ids: Sequence[str], found: Mapping[str, T]) -> Mapping[str, T]:
    """What was found, if nothing is missing: results are written before their job is done, but a replica may lag."""
    if missing := [own for own in ids if own not in found]:
        raise StoreDown(f"{len(missing):,} of {len(ids):,} results are not in the store yet, such as {missing[0]}")
    return found


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
    if job is not None and _is_of_the_past(event, job):
        return []
    if job is None:
        told = "" if spec is None else spec.to_json().decode()
        job = JobRow(name, "accepted", told, "", "", runtime.clock_ms())
    return ended("aggregate", job) if job.finished else fail(job, event.error, runtime.ledger)


def _is_of_the_past(event: Event, job: JobRow) -> bool:
    """Whether what was given up is the request of an earlier attempt: that one has ended, whatever is said of it."""
    if event.type != events.REQUESTED:
        return False
    with suppress(BadInput):
        return 0 < events.read(event, events.Requested).attempt < job.attempt
    return False


def _subject(event: Event, runtime: Runtime) -> tuple[str, Spec | None]:
    """The job that a dead letter belongs to, and what it asked for, as far as either can be made out."""
    data: msgspec.Struct | None = None
    with suppress(BadInput):
        data = events.read(event, events.DATA[event.type]) if event.type in events.DATA else None
    spec: Spec | None = getattr(data, "spec", None)
    name = getattr(data, "job_id", event.partitionkey)
    if isinstance(data, events.Requested) and not data.is_campaign and not name:
        with suppress(NoData):
            name = job_id(data.spec, ground_of(runtime.index, data.spec, whole=False).digest)
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
