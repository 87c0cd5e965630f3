"""Asking for jobs, and what becomes of them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Request as HttpRequest
from litestar import Response, get, post
from litestar.params import Parameter
from litestar.response import ServerSentEvent, ServerSentEventMessage

from candlemill import events
from candlemill.errors import UnknownName
from candlemill.io.clock import clock_ms
from candlemill.io.gateway.answers import Accepted, Job, Planned, PlanTold, Progress, links_of
from candlemill.io.gateway.world import Ready, World
from candlemill.ledger import JobRow
from candlemill.model import Spec
from candlemill.plan import estimate_seconds
from candlemill.request import Kind, request_of

TERMINAL = frozenset({"done", "failed", "cancelled"})
POLL_SECONDS = 0.25
STREAM_SECONDS = 3_600  # of one event stream; the client asks again with Last-Event-ID

JobId = Annotated[str, Parameter(pattern="^[0-9a-f]{32}$", description="a job's id")]


@post("/api/v1/backtest", status_code=202, summary="Ask for a backtest, sweep, portfolio or walk-forward")
async def submit(request: HttpRequest[Any, Any, Any], world: World) -> Accepted:
    """The same request twice is one job; one that is done already is answered with its state at once."""
    ready = await world.prepare(await request.body())
    job_id, asked = ready.job.job_id, ready.asked
    known = await world.job(job_id)
    if known is not None and not asked.fresh and known.state not in ("failed", "cancelled"):
        return _accepted(ready, known.state)
    row = JobRow(job_id, "accepted", ready.job.spec.to_json().decode(), "", ready.job.data_digest, clock_ms())
    await world.put_job(row)
    data = events.Requested(ready.job.spec, asked.slices, asked.fresh)
    await world.publish([events.make("gateway", events.REQUESTED, job_id, data)])
    return _accepted(ready, "accepted")


@post("/api/v1/plan", status_code=200, summary="What a request would do, without doing it")
async def plan(request: HttpRequest[Any, Any, Any], world: World) -> Planned:
    ready = await world.prepare(await request.body())
    known = await world.job(ready.job.job_id)
    state = "" if known is None else known.state
    return Planned(ready.job.job_id, ready.asked.kind, _plan_told(ready, state == "done"))


def _accepted(ready: Ready, state: str) -> Accepted:
    job_id, kind = ready.job.job_id, ready.asked.kind
    return Accepted(job_id, kind, state, links_of(job_id, kind), _plan_told(ready, state == "done"))


def _plan_told(ready: Ready, cached: bool) -> PlanTold:
    plan = ready.job.plan
    seconds = 0.0 if cached else estimate_seconds(plan)
    return PlanTold(plan.slices, plan.tasks, plan.bars, plan.points, seconds, cached)


@get("/api/v1/backtest/{job_id:str}", summary="A job: its state, and its result once it has one")
async def show(job_id: JobId, world: World) -> Response[Job]:
    row = await world.known_job(job_id)
    return Response(await asyncio.to_thread(_job, world, row))


def _job(world: World, row: JobRow) -> Job:
    spec = msgspec.json.decode(row.spec, type=Spec)
    kind: Kind = "sweep" if spec.grid else "backtest"
    result = _result(world, row, kind) if row.state == "done" else None
    return Job(
        row.job_id,
        kind,
        row.state,
        row.reason,
        progress_of(world, row),
        row.started_ms,
        msgspec.to_builtins(spec),
        request_of(spec),
        links_of(row.job_id, kind),
        result,
    )


def _result(world: World, row: JobRow, kind: Kind) -> dict[str, Any]:
    if kind == "sweep":
        best = [msgspec.json.decode(one) for one in world.store.sweep_results(row.job_id, ("sharpe_ratio",), True, 10)]
        guards = msgspec.json.decode(row.figures) if row.figures else None
        return {"sets": world.store.count_sweep(row.job_id), "guards": guards, "best": best}
    rows = world.store.results([row.job_id])
    if not rows:
        raise UnknownName("result", row.job_id, [], "ask for the job again")
    found: dict[str, Any] = msgspec.json.decode(rows[0].result)
    return found


def progress_of(world: World, row: JobRow) -> Progress:
    if row.state in TERMINAL:
        return Progress(row.state, 1, 1, 0, 1.0)
    return Progress(row.state, 0, 1, 0, 0.0)


@get("/api/v1/backtest/{job_id:str}/events", summary="Progress as server-sent events")
async def stream(job_id: JobId, world: World) -> ServerSentEvent:
    await world.known_job(job_id)
    return ServerSentEvent(_events(job_id, world))


async def _events(job_id: str, world: World) -> AsyncIterator[ServerSentEventMessage]:
    last = ""
    for _ in range(int(STREAM_SECONDS / POLL_SECONDS)):
        row = await world.known_job(job_id)
        found = await asyncio.to_thread(progress_of, world, row)
        name = f"{row.started_ms}-{found.state}-{found.done}-{found.repairs}"
        if name != last:
            last = name
            kind = found.state if found.state in TERMINAL else "progress"
            yield ServerSentEventMessage(data=msgspec.json.encode(found).decode(), event=kind, id=name)
        if found.state in TERMINAL:
            return
        await asyncio.sleep(POLL_SECONDS)
