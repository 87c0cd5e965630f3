"""The dashboard's files, and the page that shows the interface's documentation."""

from pathlib import Path

from litestar import MediaType, Response, Router, get
from litestar.datastructures import CacheControlHeader
from litestar.handlers import HTTPRouteHandler
from litestar.static_files import create_static_files_router

DASHBOARD = Path(__file__).resolve().parents[2] / "dashboard"


@get("/docs", include_in_schema=False, media_type=MediaType.HTML)
async def docs() -> Response[bytes]:
    return Response((DASHBOARD / "docs.html").read_bytes(), headers={"Cache-Control": "no-cache"})


def pages() -> list[Router | HTTPRouteHandler]:
    """Nothing in these files is anybody's data: they need no key."""
    fresh = CacheControlHeader(no_cache=True)  # browsers ask whether they have changed
    return [docs, create_static_files_router(path="/", directories=[DASHBOARD], html_mode=True, cache_control=fresh)]
