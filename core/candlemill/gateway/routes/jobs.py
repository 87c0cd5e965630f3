"""Routes to submit, plan, show, cancel, stream and list jobs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from litestar import MediaType, Response, delete, get, post, put
from litestar import Request as HttpRequest
from litestar.di import NamedDependency
from litestar.params import FromQuery, HeaderParameter, JSONBody, PathParameter, QueryParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage
from msgspec import Meta

from candlemill.backtests.plan import estimate_seconds
from candlemill.backtests.settings import declared
from candlemill.backtests.spec import Spec
from candlemill.errors import BadInput, UnknownName
from candlemill.gateway.decimals import Form, shaped
from candlemill.gateway.job_service import CheckedRequest, JobService, Submission
from candlemill.gateway.pagination import page_cursor, position_of
from candlemill.gateway.problems import Conflict, problem_responses
from candlemill.gateway.schemas.jobs import (
    Accepted,
    Job,
    JobLine,
    JobNotes,
    Jobs,
    PlanDetails,
    Planned,
    Progress,
    links_of,
)
from candlemill.local import workflow_runs
from candlemill.local.job_list import Figures, figures_job, settings_of_job, summary_of
from candlemill.pipeline import job_state, lifecycle
from candlemill.pipeline.job_search import checked_notes, search
from candlemill.pipeline.request import Request, axis_text, request_of
from candlemill.pipeline.rows import RANKS, JobEntry, JobFilter, JobRow, Notes
from candlemill.studies.importance import importance
from candlemill.studies.study import begun_of, study_of
from candlemill.telemetry import logs

FIRST_POLL_SECONDS, POLL_SECONDS = 0.03, 0.25  # doubles up to the second: most backtests end in a moment
QUIET_POLLS = 60  # polls without a change until a comment is sent, as proxies close idle connections
STREAM_POLLS = 14_400  # an hour; the client reconnects with Last-Event-ID
BEST_SETS = 10
REST_SECONDS = 10.0  # for a cancelled job to stop, which else would write its state again

JobId = Annotated[str, PathParameter(pattern="^[0-9a-f]{32}$", max_length=32, description="a job's id")]
Name = Annotated[str, QueryParameter(max_length=64)]


@post(
    "/api/v1/backtest",
    status_code=202,
    summary="Submit a backtest, sweep, portfolio or walk-forward; with several symbols sweeps or walk-forwards",
    responses=problem_responses(404, 409, 413, 422),
)
async def submit(data: JSONBody[Request], world: NamedDependency[JobService]) -> Accepted:
    """Equal requests are one job. For a finished job the response has its state at once."""
    ready = await world.prepare(data)
    logs.add_fields(job=ready.job_id)
    answer = await world.ask(ready)
    links = links_of(ready.job_id, ready.kind)
    return Accepted(ready.job_id, ready.kind, answer.state, links, _plan_details(ready, answer))


@post(
    "/api/v1/plan",
    status_code=200,
    summary="Plan a request without running it",
    responses=problem_responses(404, 409, 413, 422),
)
async def plan(data: JSONBody[Request], world: NamedDependency[JobService]) -> Planned:
    ready = await world.prepare(data)
    known = await world.job(ready.job_id)
    if known is not None and known.state == "done":
        return Planned(ready.job_id, ready.kind, _plan_details(ready, Submission("done")))
    answer = Submission("", await asyncio.to_thread(world.reuse, ready))
    return Planned(ready.job_id, ready.kind, _plan_details(ready, answer))


def _plan_details(ready: CheckedRequest, answer: Submission) -> PlanDetails:
    cached, reuse = answer.state == "done", answer.reuse
    plans = [job.plan for job in ready.jobs]
    share = 1 - reuse.reused_outcomes / max(reuse.outcomes, 1) if reuse is not None else 1
    seconds = 0.0 if cached else share * sum(estimate_seconds(plan) for plan in plans)
    slices, tasks = sum(plan.slices for plan in plans), sum(plan.tasks for plan in plans)
    rows, sets = sum(plan.bars for plan in plans), sum(plan.points for plan in plans)
    return PlanDetails(slices, tasks, rows, sets, round(seconds, 1), cached, ready.spec.start, ready.spec.end, reuse)


# -- one job -------------------------------------------------------------------------------------------------------


@get(
    "/api/v1/backtest/{job_id:str}",
    summary="A job: its state, and its result once it has one",
    responses=problem_responses(404),
)
async def show(
    request: HttpRequest[Any, Any, Any], job_id: JobId, world: NamedDependency[JobService], form: Form = "scaled"
) -> Response[Job]:
    """A set of a sweep has an id of its own, which leads to its result too."""
    row = await world.job(job_id)
    if form == "decimal":
        found = shaped(await asyncio.to_thread(_job, world, job_id, row), form)
        return Response(found, headers={"Cache-Control": "no-store"})
    finished = row is None or row.state == "done"
    tag = f'"{job_id}-{0 if row is None else row.attempt}"'
    if finished and request.headers.get("if-none-match") == tag:
        return Response(None, status_code=304, headers={"ETag": tag})  # type: ignore[arg-type]
    if not finished:
        shown = await asyncio.to_thread(_job, world, job_id, row)
        return Response(shown, headers={"Cache-Control": "no-store"})
    kept = world.kept(tag)
    if kept is None:
        kept = msgspec.json.encode(await asyncio.to_thread(_job, world, job_id, row))
        world.keep(tag, kept)
    headers = {"ETag": tag, "Cache-Control": "private, max-age=60"}
    return Response(kept, headers=headers, media_type=MediaType.JSON)  # type: ignore[arg-type]


def _job(world: JobService, job_id: str, row: JobRow | None) -> Job:
    row = row or _set_of_sweep(world, job_id)
    found = progress_of(world, row)
    links = links_of(row.job_id, row.kind)
    if not row.spec:  # a failed task that belongs to no submitted job
        return Job(row.job_id, row.kind, found.state, row.reason, found, row.attempt, {}, {}, links)
    spec = msgspec.json.decode(row.spec, type=Spec)
    request = job_state.request_of(row)
    again = request_of(spec) if request is None else request_of(spec, request.weights, request.walk_forward)
    if row.kind == "study":
        again |= study_fields(row)
    return Job(
        row.job_id,
        row.kind,
        found.state,
        row.reason,
        found,
        row.attempt,
        _ordered(spec.strategy, msgspec.to_builtins(spec)),
        _ordered(spec.strategy, again),
        links,
        _result(world, row) if row.state == "done" else None,
        settings_of_job(row, spec),
    )


def study_fields(row: JobRow) -> dict[str, Any]:
    """Return the fields of a request that make it this study."""
    study, trials = study_of(row).request, len(study_of(row).trials)
    with contextlib.suppress(BadInput):  # another release wrote how many it was to have
        trials = begun_of(row)[1]
    own = {"trials": trials, "pruner": study.pruner, "seed": study.seed, "score": study.score}
    if study.points:
        return own | {"points": study.points}
    space = {name: axis_text(values) for name, values in study.space.items()}
    return own | {"space": space, "sampler": study.sampler}


def _ordered(strategy: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with parameters and axes as the strategy declares them; JSON of a stored spec is sorted."""
    return fields | {name: declared(strategy, fields[name]) for name in ("params", "grid") if name in fields}


def _set_of_sweep(world: JobService, job_id: str) -> JobRow:
    """Return the job of a set that was not submitted alone, but computed as part of a sweep. Raises UnknownName."""
    found = world.result(job_id)
    if found is None:
        raise UnknownName("job", job_id, [], "GET /api/v1/backtests lists them")
    result = msgspec.json.decode(found.result)
    return JobRow(job_id, "done", msgspec.json.encode(result["spec"]).decode(), "", result["data_digest"], 0)


def _result(world: JobService, row: JobRow) -> dict[str, Any]:
    if row.kind == "sweep":
        found = world.store.sweep_results(row.job_id, ("sharpe_ratio",), True, BEST_SETS)
        guards = msgspec.json.decode(row.figures) if row.figures else None
        best = [msgspec.json.decode(one) for one in found]
        return {"sets": world.store.count_sweep(row.job_id), "guards": guards, "best": best}
    if row.kind == "walk_forward":
        return workflow_runs.workflow_result(world.store, row)
    if row.kind == "study":
        study: dict[str, Any] = msgspec.json.decode(row.figures)
        return study | {"importance": importance(study_of(row))}
    if row.kind in job_state.OF_SYMBOLS:
        rows = world.store.job_rows([part["job_id"] for part in workflow_runs.parts_of_symbols(row)])
        parts = [part | {"result": _part(world, rows, part)} for part in workflow_runs.parts_of_symbols(row)]
        return {"parts": parts}
    stored = world.result(row.job_id)
    if stored is None:
        raise UnknownName("result", row.job_id, [], "ask for the job again")
    result: dict[str, Any] = msgspec.json.decode(stored.result)
    return result


def _part(world: JobService, rows: Mapping[str, JobRow], part: Mapping[str, str]) -> dict[str, Any]:
    """Return the result of one symbol's sweep or walk-forward. Raises UnknownName if it has been removed."""
    if part["job_id"] not in rows:
        raise UnknownName("job", part["job_id"], [], f"it was that of {part['symbol']}: ask for the job again")
    return _result(world, rows[part["job_id"]])


def progress_of(world: JobService, row: JobRow) -> Progress:
    """Return a job's progress; a planned job with finished tasks counts as running. Blocking."""
    found = world.progress(row)
    state = "running" if row.state in ("accepted", "planned") and found.done else row.state
    share = found.done / max(found.total, 1)
    fraction = 1.0 if state == "done" else min(share, 0.99)
    return Progress(state, found.done, found.total, found.repairs, round(fraction, 4))


@post(
    "/api/v1/backtest/{job_id:str}/cancel",
    status_code=202,
    summary="Cancel a job",
    responses=problem_responses(404, 409),
)
async def cancel(job_id: JobId, world: NamedDependency[JobService]) -> Progress:
    """Finished work is kept; an equal request continues from it."""
    row = await world.known_job(job_id)
    if row.finished:
        raise Conflict(f"job {job_id} is {row.state}: there is nothing to cancel")
    row = await asyncio.to_thread(lifecycle.cancel, job_id, world.store)
    return await asyncio.to_thread(progress_of, world, row)


@delete("/api/v1/backtest/{job_id:str}", summary="Remove a job and its results", responses=problem_responses(404, 409))
async def remove(job_id: JobId, world: NamedDependency[JobService]) -> None:
    row = await world.known_job(job_id)
    if not row.finished:
        raise Conflict(f"job {job_id} is {row.state}: cancel it first")
    if not await asyncio.to_thread(world.at_rest, job_id, REST_SECONDS):
        raise Conflict(f"job {job_id} has not stopped yet, or waits for its turn to: remove it again later")
    await asyncio.to_thread(world.store.delete_job, job_id)
    world.forget(job_id)


# -- progress ------------------------------------------------------------------------------------------------------


@get(
    "/api/v1/backtest/{job_id:str}/events",
    summary="Progress as server-sent events",
    media_type="text/event-stream",
    responses=problem_responses(404),
)
async def stream(
    job_id: JobId,
    world: NamedDependency[JobService],
    last_seen: Annotated[str, HeaderParameter(name="Last-Event-ID", max_length=100, required=False)] = "",
) -> Response[Any]:
    """Send the present state at once, then every change; the stream ends with the job. If the client has seen the end
    already (Last-Event-ID), the response is 204, so that a browser does not reconnect."""
    row = await world.job(job_id)
    if row is None:
        row = await asyncio.to_thread(_set_of_sweep, world, job_id)
    if row.finished and last_seen == _event_id(row, await asyncio.to_thread(progress_of, world, row)):
        return Response(None, status_code=204)
    return ServerSentEvent(_events(row, world, last_seen), headers={"Cache-Control": "no-store"})


def _event_id(row: JobRow, found: Progress) -> str:
    return f"{row.attempt}-{RANKS.get(row.state, 0)}-{found.done}-{found.repairs}"


async def _events(row: JobRow, world: JobService, last: str) -> AsyncIterator[ServerSentEventMessage]:
    quiet, pause = 0, FIRST_POLL_SECONDS
    for _ in range(STREAM_POLLS):
        found = await asyncio.to_thread(progress_of, world, row)
        name = _event_id(row, found)
        quiet += 1
        if name != last:
            last, quiet = name, 0
            kind = row.state if row.finished else "progress"
            yield ServerSentEventMessage(data=msgspec.json.encode(found).decode(), event=kind, id=name)
        if row.finished:
            return
        if quiet == QUIET_POLLS:
            quiet = 0
            yield ServerSentEventMessage(data=None, comment="still there")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(world.stopping.wait(), pause)
            return  # the client reconnects to another instance, or to this one after its restart
        pause = min(2 * pause, POLL_SECONDS)
        row = await world.known_job(row.job_id)


# -- all jobs ------------------------------------------------------------------------------------------------------


Term = Annotated[str, Meta(max_length=120)]
Terms = Annotated[list[Term] | None, QueryParameter(required=False)]
Day = Annotated[str, QueryParameter(max_length=32, description="2023, 2023-05 or 2023-05-07, of the request")]


@get("/api/v1/backtests", summary="Jobs, the latest request first", responses=problem_responses(422))
async def jobs(
    world: NamedDependency[JobService],
    status: Annotated[Literal["", *RANKS], QueryParameter(name="state")] = "",  # type: ignore[valid-type]
    kind: FromQuery[
        Literal["", "backtest", "sweep", "portfolio", "walk_forward", "sweeps", "walk_forwards", "study"]
    ] = "",
    symbol: Name = "",
    strategy: Name = "",
    text: Annotated[str, QueryParameter(max_length=120, description="in the label, the note or a tag")] = "",
    tag: Terms = None,
    param: Terms = None,
    where: Terms = None,
    since: Day = "",
    until: Day = "",
    parts: Annotated[
        bool, QueryParameter(description="with those that portfolios and walk-forwards consist of")
    ] = False,
    limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
    cursor: Annotated[str, QueryParameter(max_length=100, description="`next` of the page before")] = "",
    form: Form = "scaled",
) -> Jobs:
    """`tag`, `param` (like `fast=10`, also in a grid) and `where` (like `sharpe_ratio>1.5`; of a sweep one set
    suffices) may be repeated: all must hold."""
    after = position_of(cursor) if cursor else None
    job_filter = search(
        state=status,
        kind=kind,
        symbol=symbol,
        strategy=strategy,
        whole=not parts,
        tags=tag or (),
        text=text,
        params=param or (),
        figures=where or (),
        since=since,
        until=until,
    )
    return shaped(await asyncio.to_thread(_jobs, world, job_filter, after, limit), form)


def _jobs(world: JobService, job_filter: JobFilter, after: tuple[int, str] | None, limit: int) -> Jobs:
    found = world.store.jobs(job_filter, after, limit + 1)
    entries = found[:limit]
    known = {entry: world.lines.get(_version(entry)) for entry in entries}
    of = {one: figures_job(one.row) for one, line in known.items() if line is None and one.row.state == "done"}
    figures = world.store.best_figures(list(of.values())) if of else {}
    lines = [line or _line(world, entry, figures.get(of.get(entry, ""))) for entry, line in known.items()]
    for entry, line in zip(entries, lines, strict=True):
        if entry.row.finished and (entry.row.state != "done" or _is_complete(line)):
            world.lines.put(_version(entry), line)
    last = entries[-1].row if len(found) > limit else None
    more = None if last is None else page_cursor(f"{last.attempt}/{last.job_id}")
    notes = world.store.notes([line.job_id for line in lines])
    return Jobs([_noted(line, notes.get(line.job_id)) for line in lines], more)


def _is_complete(line: JobLine) -> bool:
    """Return whether a finished job's line has the figures that its kind has: a store may show them later."""
    return line.total_pnl is not None or line.kind in ("study", *job_state.OF_SYMBOLS)


def _noted(line: JobLine, notes: Notes | None) -> JobLine:
    """Add label and tags, which change while a finished job does not."""
    return line if notes is None else msgspec.structs.replace(line, label=notes.label, tags=notes.tags)


@get("/api/v1/backtest/{job_id:str}/notes", summary="A job's label, note and tags", responses=problem_responses(404))
async def notes(job_id: JobId, world: NamedDependency[JobService]) -> JobNotes:
    def read() -> JobNotes:
        _check_known(world, job_id)
        found = world.store.notes([job_id]).get(job_id, Notes(job_id))
        return JobNotes(found.label, found.note, found.tags)

    return await asyncio.to_thread(read)


@put("/api/v1/backtest/{job_id:str}/notes", summary="Replace them", responses=problem_responses(404, 413, 422))
async def put_notes(job_id: JobId, data: JSONBody[JobNotes], world: NamedDependency[JobService]) -> JobNotes:
    """Nothing else of the job changes: neither its id nor its result depends on them."""

    def write() -> JobNotes:
        _check_known(world, job_id)
        made = checked_notes(job_id, data.label, data.note, data.tags)
        world.store.put_notes(made)
        return JobNotes(made.label, made.note, made.tags)

    return await asyncio.to_thread(write)


def _check_known(world: JobService, job_id: str) -> None:
    """Raise UnknownName for a job that is not stored."""
    if world.store.job(job_id) is None and not world.store.has_result(job_id):
        raise UnknownName("job", job_id, [], "GET /api/v1/backtests lists them")


def _version(entry: JobEntry) -> tuple[str, int, int]:
    return entry.row.job_id, entry.row.attempt, entry.updated_ms


def _line(world: JobService, entry: JobEntry, figures: Figures) -> JobLine:
    row, found = entry.row, progress_of(world, entry.row)
    own = (row.job_id, row.kind, found.state, row.reason, entry.created_ms, entry.updated_ms)
    if not row.spec:
        return JobLine(*own, "", "", 0, 0, {}, {}, "", found)
    return JobLine(*own, progress=found, **msgspec.structs.asdict(summary_of(row, figures)))


RUNNING = [submit, plan, cancel, stream]
KEEPING = [jobs, show, notes, put_notes, remove]
