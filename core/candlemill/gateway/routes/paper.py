"""Routes of paper runs: what runs, and what it has decided. They only read: `candlemill paper` begins a run."""

import asyncio
from typing import Annotated

import msgspec
from litestar import get
from litestar.di import NamedDependency
from litestar.params import PathParameter, QueryParameter

from candlemill.backtests.settings import declared, settings_of
from candlemill.backtests.spec import spec_from_json
from candlemill.errors import UnknownName
from candlemill.gateway.job_service import JobService
from candlemill.gateway.problems import problem_responses
from candlemill.gateway.schemas.paper import PaperRunDetails, PaperRuns, PaperRunSummary
from candlemill.paper.decision import DECISION, Decision
from candlemill.pipeline.rows import PaperRunRow
from candlemill.store.base import Store
from candlemill.store.paper import PaperTables

RUNS_MAX = 100

RunName = Annotated[str, PathParameter(pattern="^[0-9a-f]{6,32}$", description="a run's id, or its first letters")]
Limit = Annotated[int, QueryParameter(ge=1, le=1_000, description="how many decisions, the newest first")]

_decisions = msgspec.json.Decoder(Decision)


@get("/api/v1/paper", summary="Paper runs, the latest first", responses=problem_responses())
async def paper_runs(world: NamedDependency[JobService]) -> PaperRuns:
    def found() -> list[PaperRunSummary]:
        store = _tables(world.store)
        return [_summary(store, row) for row in store.paper_runs(RUNS_MAX)] if store is not None else []

    return PaperRuns(await asyncio.to_thread(found))


@get("/api/v1/paper/{run:str}", summary="A paper run and its last decisions", responses=problem_responses(404))
async def paper_run(run: RunName, world: NamedDependency[JobService], limit: Limit = 100) -> PaperRunDetails:
    """Return the decisions as they were published: of a minute the one with the highest attempt is valid."""

    def found() -> PaperRunDetails:
        store = _tables(world.store)
        row = store.paper_run(run) if store is not None else None
        if store is None or row is None:
            raise UnknownName("paper run", run, [], "GET /api/v1/paper lists them")
        return PaperRunDetails(_summary(store, row), _last(store, row, limit))

    return await asyncio.to_thread(found)


def _tables(store: Store) -> PaperTables | None:
    return store if isinstance(store, PaperTables) else None


def _summary(store: PaperTables, row: PaperRunRow) -> PaperRunSummary:
    last = _last(store, row, 1)
    spec = spec_from_json(row.spec)
    return PaperRunSummary(
        row.run_id,
        row.symbol,
        row.strategy,
        declared(row.strategy, spec.params),
        spec.start,
        row.since_ms,
        last[0] if last else None,
        settings_of(spec),
    )


def _last(store: PaperTables, row: PaperRunRow, limit: int) -> list[Decision]:
    return [_decisions.decode(one.data) for one in store.latest_paper_events(row.run_id, DECISION, limit)]


PAPER = [paper_runs, paper_run]
