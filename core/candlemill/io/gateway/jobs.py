"""Asking for jobs, and what becomes of them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from litestar import MediaType, Response, delete, get, post
from litestar import Request as HttpRequest
from litestar.params import HeaderParameter, PathParameter, QueryParameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

from candlemill import control, states
from candlemill.campaigns import chosen_of
from candlemill.errors import UnknownName
from candlemill.io import campaigns, logs
from candlemill.io.gateway.answers import Accepted, Job, JobLine, Jobs, Planned, PlanTold, Progress, links_of
from candlemill.io.gateway.cursors import page_cursor, position_of
from candlemill.io.gateway.problems import Conflict, told
from candlemill.io.gateway.world import Answer, Ready, World
from candlemill.ledger import RANKS, JobEntry, JobFilter, JobRow
from candlemill.model import Spec
from candlemill.plan import estimate_seconds
from candlemill.request import Request, request_of

FIRST_POLL_SECONDS, POLL_SECONDS = 0.03, 0.25  # twice as long each time: most backtests are done in a moment
QUIET_POLLS = 60  # without news a comment is sent, or what lies between would take the connection for dead
STREAM_POLLS = 14_400  # an hour; the client asks again with Last-Event-ID
BEST_SETS = 10

JobId = Annotated[str, PathParameter(pattern="^[0-9a-f]{32}$", max_length=32, description="a job's id")]
Name = Annotated[str, QueryParameter(max_length=64)]


@post(
    "/api/v1/backtest",
    status_code=202,
    summary="Ask for a backtest, sweep, portfolio or walk-forward",
    responses=told(404, 409, 413, 422),
)
async def submit(data: Request, world: World) -> Accepted:
    """The same request twice is one job; one that is done already is answered with its state at once."""
    ready = await world.prepare(data)
    logs.tell(job=ready.job_id)
    answer = await world.ask(ready)
    links = links_of(ready.job_id, ready.kind)
    return Accepted(ready.job_id, ready.kind, answer.state, links, _plan_told(ready, answer))


@post(
    "/api/v1/plan",
    status_code=200,
    summary="What a request would do, without doing it",
    responses=told(404, 409, 413, 422),
)
async def plan(data: Request, world: World) -> Planned:
    ready = await world.prepare(data)
    known = await world.job(ready.job_id)
    if known is not None and known.state == "done":
        return Planned(ready.job_id, ready.kind, _plan_told(ready, Answer("done")))
    answer = Answer("", await asyncio.to_thread(world.reuse, ready))
    return Planned(ready.job_id, ready.kind, _plan_told(ready, answer))


def _plan_told(ready: Ready, answer: Answer) -> PlanTold:
    cached, reuse = answer.state == "done", answer.reuse
    plans = [job.plan for job in ready.jobs]
    share = 1 - reuse.reused_outcomes / max(reuse.outcomes, 1) if reuse is not None else 1
    seconds = 0.0 if cached else share * sum(estimate_seconds(plan) for plan in plans)
    slices, tasks = sum(plan.slices for plan in plans), sum(plan.tasks for plan in plans)
    rows, sets = sum(plan.bars for plan in plans), sum(plan.points for plan in plans)
    return PlanTold(slices, tasks, rows, sets, round(seconds, 1), cached, ready.spec.start, ready.spec.end, reuse)


# -- one job -------------------------------------------------------------------------------------------------------


@get("/api/v1/backtest/{job_id:str}", summary="A job: its state, and its result once it has one", responses=told(404))
async def show(request: HttpRequest[Any, Any, Any], job_id: JobId, world: World) -> Response[Job]:
    """A set of a sweep has an id of its own, which leads to its result too."""
    row = await world.job(job_id)
    finished = row is None or row.state == "done"
    tag = f'"{job_id}-{0 if row is None else row.attempt}"'
    if finished and request.headers.get("if-none-match") == tag:
        return Response(None, status_code=304, headers={"ETag": tag})  # type: ignore[arg-type]
    if not finished:
        told = await asyncio.to_thread(_job, world, job_id, row)
        return Response(told, headers={"Cache-Control": "no-store"})
    kept = world.kept(tag)
    if kept is None:
        kept = msgspec.json.encode(await asyncio.to_thread(_job, world, job_id, row))
        world.keep(tag, kept)
    headers = {"ETag": tag, "Cache-Control": "private, max-age=60"}
    return Response(kept, headers=headers, media_type=MediaType.JSON)  # type: ignore[arg-type]


def _job(world: World, job_id: str, row: JobRow | None) -> Job:
    row = row or _set_of_sweep(world, job_id)
    found = progress_of(world, row)
    links = links_of(row.job_id, row.kind)
    if not row.spec:  # a task was given up that belongs to no job that was ever asked for
        return Job(row.job_id, row.kind, found.state, row.reason, found, row.attempt, {}, {}, links)
    spec = msgspec.json.decode(row.spec, type=Spec)
    wanted = states.request_of(row)
    again = request_of(spec) if wanted is None else request_of(spec, wanted.weights, wanted.walk_forward)
    return Job(
        row.job_id,
        row.kind,
        found.state,
        row.reason,
        found,
        row.attempt,
        msgspec.to_builtins(spec),
        again,
        links,
        _result(world, row) if row.state == "done" else None,
    )


def _set_of_sweep(world: World, job_id: str) -> JobRow:
    """A job that was never asked for alone, but computed as part of a sweep. Raises UnknownName."""
    found = world.result(job_id)
    if found is None:
        raise UnknownName("job", job_id, [], "GET /api/v1/backtests lists them")
    result = msgspec.json.decode(found.result)
    return JobRow(job_id, "done", msgspec.json.encode(result["spec"]).decode(), "", result["data_digest"], 0)


def _result(world: World, row: JobRow) -> dict[str, Any]:
    if row.kind == "sweep":
        found = world.store.sweep_results(row.job_id, ("sharpe_ratio",), True, BEST_SETS)
        guards = msgspec.json.decode(row.figures) if row.figures else None
        best = [msgspec.json.decode(one) for one in found]
        return {"sets": world.store.count_sweep(row.job_id), "guards": guards, "best": best}
    if row.kind == "walk_forward":
        told = campaigns.told(world.store, row)
        sweep = world.store.job(told["sweep_id"])
        return {**told, "guards": msgspec.json.decode(sweep.figures) if sweep and sweep.figures else None}
    stored = world.result(row.job_id)
    if stored is None:
        raise UnknownName("result", row.job_id, [], "ask for the job again")
    result: dict[str, Any] = msgspec.json.decode(stored.result)
    return result


def progress_of(world: World, row: JobRow) -> Progress:
    """Blocking. A planned job with tasks done is running."""
    found = world.progress(row)
    state = "running" if row.state in ("accepted", "planned") and found.done else row.state
    share = found.done / max(found.total, 1)
    fraction = 1.0 if state == "done" else min(share, 0.99)
    return Progress(state, found.done, found.total, found.repairs, round(fraction, 4))


@post("/api/v1/backtest/{job_id:str}/cancel", status_code=202, summary="Have a job not go on", responses=told(404, 409))
async def cancel(job_id: JobId, world: World) -> Progress:
    """What is done of it is kept, and found when it is asked for again."""
    row = await world.known_job(job_id)
    if row.finished:
        raise Conflict(f"job {job_id} is {row.state}: there is nothing to cancel")
    row = await asyncio.to_thread(control.cancel, job_id, world.store)
    return await asyncio.to_thread(progress_of, world, row)


@delete("/api/v1/backtest/{job_id:str}", summary="Remove a job and its results", responses=told(404, 409))
async def remove(job_id: JobId, world: World) -> None:
    row = await world.known_job(job_id)
    if not row.finished:
        raise Conflict(f"job {job_id} is {row.state}: cancel it first")
    await asyncio.to_thread(world.store.delete_job, job_id)
    world.forget(job_id)


# -- progress ------------------------------------------------------------------------------------------------------


@get(
    "/api/v1/backtest/{job_id:str}/events",
    summary="Progress as server-sent events",
    media_type="text/event-stream",
    responses=told(404),
)
async def stream(
    job_id: JobId,
    world: World,
    last_seen: Annotated[str, HeaderParameter(name="Last-Event-ID", max_length=100, required=False)] = "",
) -> Response[Any]:
    """The present state at once, then every change of it; the stream ends with the job. An end that was seen already
    is answered with 204, which tells a browser not to ask again."""
    row = await world.job(job_id)
    if row is None:
        row = await asyncio.to_thread(_set_of_sweep, world, job_id)
    if row.finished and last_seen == _event_id(row, await asyncio.to_thread(progress_of, world, row)):
        return Response(None, status_code=204)
    return ServerSentEvent(_events(row, world, last_seen), headers={"Cache-Control": "no-store"})


def _event_id(row: JobRow, found: Progress) -> str:
    return f"{row.attempt}-{RANKS.get(row.state, 0)}-{found.done}-{found.repairs}"


async def _events(row: JobRow, world: World, last: str) -> AsyncIterator[ServerSentEventMessage]:
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
            return  # the client finds another instance, or this one when it is back
        pause = min(2 * pause, POLL_SECONDS)
        row = await world.known_job(row.job_id)


# -- all jobs ------------------------------------------------------------------------------------------------------


@get("/api/v1/backtests", summary="Jobs, those asked for last first", responses=told(422))
async def jobs(
    world: World,
    status: Annotated[Literal["", *RANKS], QueryParameter(name="state")] = "",  # type: ignore[valid-type]
    kind: Literal["", "backtest", "sweep", "portfolio", "walk_forward"] = "",
    symbol: Name = "",
    strategy: Name = "",
    parts: Annotated[
        bool, QueryParameter(description="with those that portfolios and walk-forwards consist of")
    ] = False,
    limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
    cursor: Annotated[str, QueryParameter(max_length=100, description="`next` of the page before")] = "",
) -> Jobs:
    after = position_of(cursor) if cursor else None
    wanted = JobFilter(status, kind, symbol, strategy, not parts)
    return await asyncio.to_thread(_jobs, world, wanted, after, limit)


def _jobs(world: World, wanted: JobFilter, after: tuple[int, str] | None, limit: int) -> Jobs:
    found = world.store.jobs(wanted, after, limit + 1)
    entries = found[:limit]
    known = {entry: world.lines.get(_version(entry)) for entry in entries}
    of = {one: _figures_of(one.row) for one, line in known.items() if line is None and one.row.state == "done"}
    figures = world.store.best_figures(list(of.values())) if of else {}
    lines = [line or _line(world, entry, figures.get(of.get(entry, ""))) for entry, line in known.items()]
    for entry, line in zip(entries, lines, strict=True):
        if entry.row.finished:
            world.lines.put(_version(entry), line)
    last = entries[-1].row if len(found) > limit else None
    more = None if last is None else page_cursor(f"{last.attempt}/{last.job_id}")
    return Jobs(lines, more)


def _version(entry: JobEntry) -> tuple[str, int, int]:
    return entry.row.job_id, entry.row.attempt, entry.updated_ms


def _figures_of(row: JobRow) -> str:
    """The job whose figures a finished job has: a walk-forward those of the run of its choices."""
    return chosen_of(row).job_id if row.kind == "walk_forward" else row.job_id


def _line(world: World, entry: JobEntry, figures: tuple[int, int, int, int] | None) -> JobLine:
    row, found = entry.row, progress_of(world, entry.row)
    if not row.spec:
        times = (entry.created_ms, entry.updated_ms)
        return JobLine(row.job_id, row.kind, found.state, row.reason, *times, "", "", 0, 0, {}, {}, "", found)
    spec = msgspec.json.decode(row.spec, type=Spec)
    wanted = states.request_of(row)
    profit, ratio, drawdown, sets = figures or (None, None, None, None)
    return JobLine(
        row.job_id,
        row.kind,
        found.state,
        row.reason,
        entry.created_ms,
        entry.updated_ms,
        ",".join(wanted.weights) if wanted is not None and wanted.weights else spec.symbol,
        spec.strategy,
        spec.start,
        spec.end,
        spec.params,
        spec.grid,
        spec.sizing,
        found,
        profit,
        ratio,
        drawdown,
        sets,
    )


JOBS = [submit, plan, show, cancel, remove, stream, jobs]
