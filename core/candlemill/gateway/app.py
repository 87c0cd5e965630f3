"""The ASGI app."""

import json
from typing import Any

from litestar import Litestar, MediaType, Request, Router, get
from litestar.di import NamedDependency, Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Tag
from litestar.types import ControllerRouterHandler

from candlemill._version import __version__
from candlemill.backtests.metric_table import METRICS, RANKED
from candlemill.errors import CandlemillError
from candlemill.gateway import examples, problems
from candlemill.gateway.access import BODY_LIMIT, AccessPolicy, add_headers
from candlemill.gateway.job_service import JobService
from candlemill.gateway.middleware import AccessLog, metrics
from candlemill.gateway.problems import problem_responses
from candlemill.gateway.routes import tables
from candlemill.gateway.routes.jobs import KEEPING, RUNNING
from candlemill.gateway.routes.market import MARKET
from candlemill.gateway.routes.paper import PAPER
from candlemill.gateway.routes.reports import REPORTS
from candlemill.gateway.routes.results import EXPLORE
from candlemill.gateway.routes.studies import optimize
from candlemill.gateway.schemas import catalog, jobs, market, paper, results
from candlemill.gateway.schemas.catalog import About, MetricRow, Metrics, Options, option_row
from candlemill.gateway.schemas.units import units_of
from candlemill.gateway.static import pages
from candlemill.gateway.study_runs import StudyRuns
from candlemill.pipeline.request import REQUEST_OPTIONS
from candlemill.units import SCALE

DECIMAL = r"^-?\d+(\.\d+)?$"


@get("/healthz", include_in_schema=False, media_type=MediaType.TEXT)
async def healthz() -> str:
    """Answer that this process runs."""
    return "ok\n"


@get("/readyz", include_in_schema=False, media_type=MediaType.TEXT)
async def readyz(world: NamedDependency[JobService]) -> str:
    """Answer that the store can be reached too. Raises StoreDown."""
    await world.ready(None)
    return "ok\n"


SCHEMAS = (catalog, jobs, market, paper, results)  # modules of `schemas` that have the structs of answers


@get("/openapi.json", include_in_schema=False)
async def document(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Return the framework's description, with each field's unit and scale and the form that `as=decimal` gives it.

    One mistake of it is corrected: a whole number is an integer and a number, so a union of both is any of them, not
    exactly one.
    """
    found: dict[str, Any] = json.loads(json.dumps(request.app.openapi_schema.to_schema()).replace('"oneOf"', '"anyOf"'))
    structs = {name: struct for module in SCHEMAS for name, struct in vars(module).items()}
    for name, schema in found["components"]["schemas"].items():
        for field, marks in (units_of(structs[name]) if name in structs else {}).items():
            schema["properties"][field] |= marks
            if marks["x-scale"] == SCALE:
                _allow_decimals(schema["properties"][field])
    tables.describe(found)
    examples.add(found)
    return found


def _allow_decimals(schema: dict[str, Any]) -> None:
    """Let a JSON schema's integers be decimal texts too."""
    if schema.get("type") == "integer":
        schema |= {"type": ["integer", "string"], "pattern": DECIMAL}
    for inner in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())):
        _allow_decimals(inner)


@get(
    "/api/v1/about",
    summary="Version, whether keys are needed, and the figures that results can be ordered by",
    responses=problem_responses(),
)
async def about(access: NamedDependency[AccessPolicy]) -> About:
    return About(__version__, access.keys is not None, list(RANKED))


@get(
    "/api/v1/metrics",
    summary="Every figure: its name, unit, scale, direction and definition",
    responses=problem_responses(),
)
async def metric_table() -> Metrics:
    return Metrics(
        [
            MetricRow(row.key, row.label, row.unit, row.unit.scale, row.better, row.definition, row.place, row.main)
            for row in METRICS
        ]
    )


@get(
    "/api/v1/options",
    summary="Every option of a request: how it is written, its default and what it means",
    responses=problem_responses(),
)
async def option_table() -> Options:
    return Options([option_row(option) for option in REQUEST_OPTIONS.values()])


DESCRIPTION = (
    "Submit a job, follow it, read its result. Money is a whole number, decimal × 10⁸, or with `as=decimal` a decimal "
    "as text; times are UTC milliseconds."
)
GROUPS: list[tuple[str, str, list[ControllerRouterHandler]]] = [
    ("Run", "submit jobs, plan them first, follow and cancel them", [*RUNNING, optimize]),
    ("Find", "jobs with their results, labels and notes", [*KEEPING]),
    ("Look closer", "curves, trades, sets and reports of a finished job", [*EXPLORE, *REPORTS]),
    ("Take along", "whole tables as files for other programs", [*tables.TABLES]),
    ("Market", "stored candles, and the strategies that can trade them", [*MARKET]),
    ("Paper", "what paper runs have decided", [*PAPER]),
    ("About", "this server, and the tables of figures and options", [about, metric_table, option_table]),
]


def create_app(world: JobService, access: AccessPolicy, runs: StudyRuns | None = None) -> Litestar:
    """Create the app: the REST interface and the dashboard's files."""

    async def before(request: Request[Any, Any, Any]) -> None:
        access.check(request)

    studies = runs or StudyRuns(world)
    limits = access.limits()
    app = Litestar(
        [
            healthz,
            readyz,
            metrics,
            document,
            *(Router("/", route_handlers=handlers, tags=[name]) for name, _, handlers in GROUPS),
            *pages(),
        ],
        dependencies={
            "world": Provide(lambda: world, sync_to_thread=False),
            "access": Provide(lambda: access, sync_to_thread=False),
            "runs": Provide(lambda: studies, sync_to_thread=False),
        },
        before_request=before,
        before_send=[add_headers],
        middleware=[limits.middleware] if limits else [],
        cors_config=access.cors(),
        exception_handlers={
            CandlemillError: problems.on_own_error,
            HTTPException: problems.on_http_error,
            RecursionError: problems.on_depth,
            Exception: problems.on_bug,
        },
        openapi_config=OpenAPIConfig(
            "candlemill",
            __version__,
            path="/api",
            render_plugins=[],
            description=DESCRIPTION,
            tags=[Tag(name, description) for name, description, _ in GROUPS],
        ),
        request_max_body_size=BODY_LIMIT,
        logging_config=None,
        debug=False,
    )
    app.asgi_handler = AccessLog(app.asgi_handler)
    return app
