"""The ASGI app."""

from typing import Any

from litestar import Litestar, Request, get
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from candlemill._version import __version__
from candlemill.errors import CandlemillError
from candlemill.io.gateway import guards, jobs, problems
from candlemill.io.gateway.world import World

BODY_LIMIT = 256 * 1024


def create_app(world: World, hosts: frozenset[str] = frozenset(), origins: frozenset[str] = frozenset()) -> Litestar:
    """`hosts` are the names by which it may be asked (none: any); pages of `origins` may ask too."""

    async def before(request: Request[Any, Any, Any]) -> None:
        guards.check_host(request, hosts)
        guards.check_origin(request, origins)

    @get("/healthz", include_in_schema=False)
    async def healthz() -> str:
        return "ok\n"

    return Litestar(
        [healthz, jobs.submit, jobs.plan, jobs.show, jobs.stream],
        dependencies={"world": Provide(lambda: world, sync_to_thread=False)},
        before_request=before,
        after_request=guards.add_headers,
        exception_handlers={
            CandlemillError: problems.on_own_error,
            HTTPException: problems.on_http_error,
            Exception: problems.on_bug,
        },
        openapi_config=OpenAPIConfig(
            "candlemill", __version__, path="/docs", render_plugins=[JsonRenderPlugin(path="/openapi.json")]
        ),
        request_max_body_size=BODY_LIMIT,
        logging_config=None,
        debug=False,
    )
