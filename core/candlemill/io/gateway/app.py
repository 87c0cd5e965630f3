"""The ASGI app."""

import json
from typing import Any

from litestar import Litestar, MediaType, Request, Router, get
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig

from candlemill._version import __version__
from candlemill.errors import CandlemillError
from candlemill.io.gateway import problems
from candlemill.io.gateway.answers import About
from candlemill.io.gateway.explore import EXPLORE
from candlemill.io.gateway.guards import Access, add_headers
from candlemill.io.gateway.jobs import JOBS
from candlemill.io.gateway.market import MARKET
from candlemill.io.gateway.observe import Observed, metrics
from candlemill.io.gateway.pages import pages
from candlemill.io.gateway.problems import told
from candlemill.io.gateway.world import World
from candlemill.ranking import FIGURES

BODY_LIMIT = 256 * 1024


@get("/healthz", include_in_schema=False, media_type=MediaType.TEXT)
async def healthz() -> str:
    """Whether this process answers."""
    return "ok\n"


@get("/readyz", include_in_schema=False, media_type=MediaType.TEXT)
async def readyz(world: World) -> str:
    """Whether the store does too."""
    await world.ready(None)
    return "ok\n"


@get("/openapi.json", include_in_schema=False)
async def document(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """What the framework says, with one mistake of it mended: a whole number is an integer and a number, so a union of
    both is any of them, not exactly one."""
    found: dict[str, Any] = json.loads(json.dumps(request.app.openapi_schema.to_schema()).replace('"oneOf"', '"anyOf"'))
    return found


@get("/api/v1/about", summary="What this is, and what it can order results by", responses=told())
async def about(access: Access) -> About:
    return About(__version__, access.keys is not None, list(FIGURES))


def create_app(world: World, access: Access) -> Litestar:
    """The REST interface and the dashboard's files."""

    async def before(request: Request[Any, Any, Any]) -> None:
        access.check(request)

    limits = access.limits()
    app = Litestar(
        [healthz, readyz, metrics, document, Router("/", route_handlers=[about, *JOBS, *EXPLORE, *MARKET]), *pages()],
        dependencies={
            "world": Provide(lambda: world, sync_to_thread=False),
            "access": Provide(lambda: access, sync_to_thread=False),
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
        openapi_config=OpenAPIConfig("candlemill", __version__, path="/api", render_plugins=[]),
        request_max_body_size=BODY_LIMIT,
        logging_config=None,
        debug=False,
    )
    app.asgi_handler = Observed(app.asgi_handler)
    return app
