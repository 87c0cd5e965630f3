"""Routes of the dashboard's files and of the page that shows the API documentation."""

import errno
from pathlib import Path
from typing import Any

from litestar import MediaType, Response, Router, get
from litestar.datastructures import CacheControlHeader
from litestar.file_system import BaseLocalFileSystem
from litestar.handlers import HTTPRouteHandler
from litestar.static_files import create_static_files_router

DASHBOARD = Path(__file__).resolve().parent / "dashboard"
NO_NAMES = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EINVAL)


class Files(BaseLocalFileSystem):
    """Files of this machine. A name that no file can have is one that does not exist."""

    async def info(self, path: Any, **more: Any) -> Any:
        try:
            return await super().info(path, **more)
        except OSError as error:
            if error.errno in NO_NAMES:
                raise FileNotFoundError(path) from None
            raise
        except ValueError:  # a zero byte
            raise FileNotFoundError(path) from None


@get("/docs", include_in_schema=False, media_type=MediaType.HTML)
async def docs() -> Response[bytes]:
    return Response((DASHBOARD / "docs.html").read_bytes(), headers={"Cache-Control": "no-cache"})


def pages() -> list[Router | HTTPRouteHandler]:
    """Return the routes. They need no key: the files contain no data."""
    fresh = CacheControlHeader(no_cache=True)  # browsers revalidate each file
    files = create_static_files_router(
        path="/", directories=[DASHBOARD], file_system=Files(), html_mode=True, cache_control=fresh
    )
    return [docs, files]
