"""Route of whole tables of results as files, for other programs."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from typing import IO, Annotated, Any, Literal

from litestar import Request as HttpRequest
from litestar import get
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from candlemill.errors import TooLarge
from candlemill.gateway.job_service import JobService
from candlemill.gateway.problems import problem_responses
from candlemill.gateway.routes.jobs import JobId
from candlemill.local.exports import Exported, Name, exported
from candlemill.tables.files import MEDIA_TYPES, Format, write

PATH = "/api/v1/backtest/{job_id:str}/tables/{table:str}"
PARTS_LIMIT = 50  # runs whose replays one request may compute
READ_BYTES = 1 << 18

FileFormat = Annotated[
    Literal["", "parquet", "csv", "arrow"],
    QueryParameter(name="format", description="for links, which cannot choose what they accept"),
]


@get(
    PATH,
    summary="A whole table as a Parquet, Arrow or CSV file, by what the request accepts",
    responses=problem_responses(404, 406, 422),
)
async def table_file(
    request: HttpRequest[Any, Any, Any],
    job_id: JobId,
    table: FromPath[Name],
    world: NamedDependency[JobService],
    form: FileFormat = "",
) -> Stream:
    """Decimals are exact, columns have units; docs/export.md has them all."""
    chosen = form or _accepted(request)
    async with world.exports:
        file = await asyncio.to_thread(_made, world, job_id, table, chosen)
    headers = {"Content-Disposition": f'attachment; filename="{table}-{job_id[:12]}.{chosen}"', "Vary": "Accept"}
    return Stream(_parts(file), media_type=_media_type(chosen), headers=headers)


def _accepted(request: HttpRequest[Any, Any, Any]) -> Format:
    """Return the format that the request prefers. Raises HTTPException if it accepts none."""
    try:
        found = request.accept.best_match(list(MEDIA_TYPES))
    except OverflowError:  # a quality such as 1e999
        found = None
    if found is None:
        raise HTTPException(f"a table comes as {', '.join(MEDIA_TYPES)}: accept one of them", status_code=406)
    return MEDIA_TYPES[found]


def _media_type(form: Format) -> str:
    return next(name for name, own in MEDIA_TYPES.items() if own == form)


def _made(world: JobService, job_id: str, table: Name, form: Format) -> IO[bytes]:
    """Write the table to a temporary file, so that memory stays bounded. Blocking."""
    found: Exported = exported(world.store, job_id)
    if table in found.names and table not in ("sets", "jobs", "daily") and len(found.results) > PARTS_LIMIT:
        raise TooLarge(
            f"job {job_id} has {len(found.results):,} runs, of which {PARTS_LIMIT} are computed at once: "
            "ask for its parts, or use `candlemill export`"
        )
    made = found.table(table, world.traces.of)
    file = tempfile.TemporaryFile()  # noqa: SIM115 closed when it is sent
    try:
        write(made, form, file, found.about())
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


async def _parts(file: IO[bytes]) -> AsyncIterator[bytes]:
    with file:
        while part := await asyncio.to_thread(file.read, READ_BYTES):
            yield part


def describe(document: dict[str, Any]) -> None:
    """Add the media types of the files to the OpenAPI document; the framework describes one."""
    path = PATH.replace(":str", "")
    schema = {"schema": {"type": "string", "format": "binary"}}
    document["paths"][path]["get"]["responses"]["200"]["content"] = dict.fromkeys(MEDIA_TYPES, schema)


TABLES = [table_file]
