"""`candlemill db`: the embedded engine behind ClickHouse's own HTTP interface.

chDB lets one process open a database folder. This server is that process; any number of others talk to it with the
ordinary client, `clickhouse_connect.get_client(dsn="http://127.0.0.1:8123/default")`.

Every request gets a handle of its own, as stateless as HTTP: `SET`, `USE` and temporary tables end with the request,
`session_id` is ignored. Opening one costs about 0.1 ms. Engine calls run on `Limits.workers` threads, and a result
that waits for its reader occupies none of them, so a client may query while it reads a stream.

Not offered: external data (answered 501), br and deflate, compressed responses, query ids inside the engine (query_id
is only echoed). Several statements in one request all run, unless they stream; only the formats in `_STREAMED` stream,
others are made whole within `Limits.result`. An insert is stored block by block, as ClickHouse does: one that fails
may leave its first million rows. A read ends when its client hangs up; anything else runs to its end.

Whoever reaches the port acts with this process's rights on files: on a shared machine set CANDLEMILL_DB_PASSWORD.
"""

import asyncio
import base64
import contextlib
import email
import hmac
import json
import os
import re
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, cast

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from candlemill.config import PASSWORD_VARIABLE, setting
from candlemill.errors import UnsafeHost
from candlemill.local.db_sessions import (
    PIECE,
    TRANSPORT,
    TYPES,
    Engine,
    Fault,
    Limits,
    QueryRequest,
    Session,
    explain,
    too_large,
)
from candlemill.transport.asgi import is_loopback, run_app

_GRACE = 3  # seconds from SIGTERM to the last connection's end


class _Guard:
    """Turns away what a web page could send to this port (DNS rebinding, cross-site requests), and wrong passwords."""

    def __init__(self, app: ASGIApp, host: str, password: str) -> None:
        self.app, self.password = app, password
        # A wildcard address has no name to compare with; there only the password protects.
        self.host = "" if host in ("0.0.0.0", "::") else host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault(Headers(scope=scope), scope["path"]) if scope["type"] == "http" else None
        await (_answer(fault) if fault else self.app)(scope, receive, send)

    def _fault(self, headers: Headers, path: str) -> Fault | None:
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if re.search(r":\d+\Z", host) else host
        if self.host and name.lower().strip("[]") != self.host and not is_loopback(name):
            return Fault(403, 291, f"Host {name!r} is not served here. (DATABASE_ACCESS_DENIED)")
        own = f"http://{host}"
        if headers.get("origin", own) != own or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return Fault(403, 291, "Requests of web pages are not served. (DATABASE_ACCESS_DENIED)")
        if not self.password or path == "/ping" or self._knows_password(headers):
            return None
        return Fault(403, 516, "Authentication failed: password is incorrect. (AUTHENTICATION_FAILED)")

    def _knows_password(self, headers: Headers) -> bool:
        given = f"{headers.get('x-clickhouse-user', 'default')}:{headers.get('x-clickhouse-key', '')}".encode()
        kind, _, code = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            with contextlib.suppress(ValueError):
                given = base64.b64decode(code, validate=True)
        return hmac.compare_digest(given, f"default:{self.password}".encode())


def _answer(fault: Fault) -> Response:
    headers = {"X-ClickHouse-Exception-Code": str(fault.code)}
    return PlainTextResponse(f"{fault}\n", fault.status, headers)


class _Queries:
    """The query endpoint, as an ASGI app so that a request counts as in flight until its last byte is sent."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.in_flight = engine, 0
        # Not /tmp by default: it is often memory. The files are nameless, so not even a crash leaves one behind.
        self.spool = tempfile.gettempdir() if "TMPDIR" in os.environ else str(engine.path.parent)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.in_flight >= self.engine.limits.workers + self.engine.limits.queue:
            full = Fault(503, 202, "Too many simultaneous queries. (TOO_MANY_SIMULTANEOUS_QUERIES)")
            return await _answer(full)(scope, receive, send)
        self.in_flight += 1
        session = Session(self.engine)
        try:
            with tempfile.SpooledTemporaryFile(PIECE, dir=self.spool) as body:
                response = await self._respond(Request(scope, receive), session, cast("IO[bytes]", body))
                await response(scope, receive, send)
        except ClientDisconnect:
            return None
        except Exception:
            if not session.broken:
                raise
        except asyncio.CancelledError:
            if not self.engine.closing:
                raise
        finally:
            self.in_flight -= 1
            self.engine.retire(session)

    async def _respond(self, request: Request, session: Session, body: IO[bytes]) -> Response:
        if request.method in ("GET", "HEAD") and "query" not in request.query_params:
            return PlainTextResponse("Ok.\n")
        try:
            await self._receive(request, body)
            query_request = _parse(request, body, self.engine.limits)
            return await self._execute(request, session, query_request)
        except ClientDisconnect:
            raise
        except Exception as error:
            fault = explain(error)
            if "(version" not in str(fault):
                fault.args = (f"{fault} (version {self.engine.version})",)
            return _answer(fault)

    async def _receive(self, request: Request, body: IO[bytes]) -> None:
        async for piece in request.stream():
            body.write(piece)  # 64 KiB into the page cache: not worth a thread
            if body.tell() > self.engine.limits.body:
                raise too_large()
        body.seek(0)

    async def _execute(self, request: Request, session: Session, query_request: QueryRequest) -> Response:
        head = await self.engine.call(session, request, session.run, query_request)
        given = request.query_params.get("query_id", "")
        headers = {
            "X-ClickHouse-Query-Id": given if given.isascii() and given.isprintable() and given else session.tag,
            "X-ClickHouse-Timezone": query_request.settings.get("session_timezone") or self.engine.timezone,
            "X-ClickHouse-Summary": json.dumps({key: str(value) for key, value in session.summary.items()}),
        }
        if session.format is not None:
            headers |= {"X-ClickHouse-Format": session.format}
        kind = TYPES.get(session.format or "TabSeparated", "application/octet-stream")
        if session.stream is None:
            return Response(head, headers=headers, media_type=kind)
        headers["X-ClickHouse-Exception-Tag"] = tag = secrets.token_hex(8)
        return StreamingResponse(self._rest(session, head, tag), headers=headers, media_type=kind)

    async def _rest(self, session: Session, head: bytes, tag: str) -> AsyncIterator[bytes]:
        """The head and the rest of the stream; an error then comes in ClickHouse's tagged frame."""
        yield head
        try:
            while session.stream is not None:
                yield await asyncio.get_running_loop().run_in_executor(self.engine.pool, session.call, session.fetch)
        except Exception as error:
            text = f"{explain(error)} (version {self.engine.version})\n".encode()
            yield b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (
                tag.encode(), text, len(text), tag.encode()
            )  # fmt: skip
            # As ClickHouse: break the chunked encoding, or readers of raw bytes would take the frame for data.
            session.broken = True
            raise


def _parse(request: Request, body: IO[bytes], limits: Limits) -> QueryRequest:
    """The request's statement, parameters and settings. Raises Fault for forms that cannot be served."""
    values = dict(request.query_params)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        values |= _form(request.headers["content-type"], body.read(limits.statement + 1), limits.statement)
    query = values.get("query", "").encode("utf-8", "surrogateescape")
    params = {name[6:]: value for name, value in values.items() if name.startswith("param_")}
    settings = {n: v for n, v in values.items() if not TRANSPORT.match(n) and not n.startswith("param_")}
    if request.method in ("GET", "HEAD"):
        # As ClickHouse: a link must not change anything, whatever its statement is.
        settings["readonly"] = "1" if settings.get("readonly") == "1" else "2"
    return QueryRequest(
        query + b"\n" if query else b"",
        body,
        request.headers.get("content-encoding", ""),
        params,
        settings,
        values.get("database") or request.headers.get("x-clickhouse-database", ""),
        values.get("default_format") or request.headers.get("x-clickhouse-format", "TabSeparated"),
        limits.head if values.get("wait_end_of_query") == "1" else 1 << 16,
    )


def _form(content_type: str, content: bytes, limit: int) -> dict[str, str]:
    if len(content) > limit:
        raise too_large()
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n" + content)
    if not message.is_multipart():
        raise Fault(400, 36, "The form cannot be read. (BAD_ARGUMENTS)")
    fields: dict[str, str] = {}
    for part in cast("list[email.message.Message]", message.get_payload()):
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() is not None:
            raise Fault(501, 48, "External data is not supported by this server. (NOT_IMPLEMENTED)")
        fields[str(name)] = cast("bytes", part.get_payload(decode=True)).decode("utf-8", "surrogateescape")
    return fields


async def _ping(request: Request) -> Response:
    return PlainTextResponse("Ok.\n")


def create_app(engine: Engine, host: str = "127.0.0.1", password: str = "") -> ASGIApp:
    """Create the ASGI app over an open engine; `host` is the Host header accepted besides loopback."""
    routes = [Route("/ping", _ping), Route("/", _Queries(engine), methods=["GET", "HEAD", "POST"])]
    return _Guard(Starlette(routes=routes), host, password)


def serve(
    path: Path,
    host: str = "127.0.0.1",
    port: int = 8123,
    ready: Callable[[int], None] | None = None,
    limits: Limits | None = None,
) -> None:
    """Serve the folder until SIGTERM or SIGINT, then close it; running queries get two seconds, then are killed.

    `port` 0 takes any free one; `ready` is called with the port once it listens. Raises UnsafeHost for an address
    beyond this machine without CANDLEMILL_DB_PASSWORD, DatabaseLocked when another process has the folder open,
    ValueError for a folder with a question mark in its name, and BadInput when the port is taken.
    """
    password = setting(PASSWORD_VARIABLE)
    if not is_loopback(host) and not password:
        raise UnsafeHost(f"refusing to listen on {host} without a password: set {PASSWORD_VARIABLE}")
    path = path.resolve()
    engine = Engine(path, limits or Limits())

    def stopping() -> None:  # a second before the connections are dropped, so that clients read why
        asyncio.get_running_loop().call_later(_GRACE - 1, engine.stop)

    try:
        run_app(create_app(engine, host, password), host, port, ready, stopping, http="h11", grace=_GRACE)
    finally:
        engine.close()
