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
import fcntl
import hmac
import importlib
import ipaddress
import json
import os
import re
import secrets
import signal
import socket
import tempfile
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import chdb
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from candlemill.errors import DatabaseLocked, UnsafeHost

PASSWORD_VARIABLE = "CANDLEMILL_DB_PASSWORD"

# Formats whose blocks concatenate; chDB encodes each block of a stream as a document of its own.
_STREAMED = frozenset({"Native", "RowBinary", "TabSeparated", "TSV", "CSV", "JSONEachRow"})
_TYPES = {"TabSeparated": "text/tab-separated-values; charset=UTF-8", "JSON": "application/json; charset=UTF-8"}
# What HTTP itself uses up, and what only a server knows: none of it may reach the engine as a setting. log_comment is
# how a query is found again to kill it.
_TRANSPORT = re.compile(
    r"(query|database|default_format|user|password|buffer_size|session_(id|timeout|check)|query_id|quota_key|role|"
    r"(de)?compress|wait_end_of_query|client_protocol_version|send_progress_in_http_headers|log_comment|"
    r"http_headers_progress_interval_ms|enable_http_compression|cancel_http_readonly_queries_on_client_close)\Z"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_TOKEN = re.compile(rb"--[^\n]*|/\*.*?\*/|`(?:\\.|[^`\\])*`|\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|\w+|\S", re.DOTALL)
_MAYBE_FORMAT = re.compile(rb"\bFORMAT\s+\w", re.IGNORECASE)
_LAST_FORMAT = re.compile(rb"\bFORMAT\s+(\w+)\s*(?:SETTINGS\b.*)?[;\s]*\Z", re.IGNORECASE | re.DOTALL)
_DATA_FORMAT = re.compile(rb"\s+(\w+)[ \t\f]*\r?\n?")
_SELECTS = frozenset({b"SELECT", b"WITH", b"FROM"})  # all that chDB streams
_READS = _SELECTS | {b"SHOW", b"DESC", b"DESCRIBE", b"EXPLAIN", b"EXISTS", b"CHECK"}
_BAD, _MISSING = {6, 26, 27, 33, 36, 38, 41, 53, 62, 72, 117, 457}, {46, 47, 50, 56, 60, 63, 73, 81, 99, 115, 336}
_STATUS = {**dict.fromkeys(_BAD, 400), **dict.fromkeys(_MISSING, 404), 48: 501, 164: 403, 223: 413, 516: 403}
_PIECE = 1 << 20
_GRACE = 3  # seconds from SIGTERM to the last connection's end


@dataclass(frozen=True)
class Limits:
    """What one server allows itself. Beyond any of these a request is answered with an error, never held unbounded."""

    workers: int = 8  # engine calls at once
    queue: int = 32  # further requests in flight, waiting or streaming; beyond: 503
    body: int = 1 << 30  # bytes of a request body, as sent and as decompressed; beyond: 413
    statement: int = 16 << 20  # bytes of SQL, with inline VALUES; beyond: 413
    result: int = 256 << 20  # engine bytes of a result that cannot stream; beyond: ClickHouse's code 396
    head: int = 8 << 20  # bytes of result held back under wait_end_of_query, for an honest status


class _Fault(Exception):
    """An answer other than 200, with ClickHouse's error code."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {text}")
        self.status, self.code = status, code


def _explain(error: Exception) -> _Fault:
    """Any failure as ClickHouse would word it; chDB puts prefixes of its own before `Code: N.`."""
    if isinstance(error, _Fault):
        return error
    found = re.search(r"Code: (\d+)\. DB::Exception: (.*)", str(error), re.DOTALL)
    code, text = (int(found[1]), found[2]) if found else (1001, f"{type(error).__name__}: {error}. (STD_EXCEPTION)")
    return _Fault(_STATUS.get(code, 500), code, text)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _words(sql: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """Tokens outside comments as (upper case, start, end, depth of parentheses)."""
    depth = 0
    for token in _TOKEN.finditer(sql):
        word = token[0].upper()
        depth += (word == b"(") - (word == b")")
        if not word.startswith((b"--", b"/*")):
            yield word, token.start(), token.end(), depth


def _split_insert(head: bytes) -> tuple[bytes, str, int] | None:
    """(statement, format, where the data starts) of `INSERT ... FORMAT x <data>`; None for anything else."""
    for number, (word, start, end, depth) in enumerate(_words(head)):
        if number == 0 and word != b"INSERT":
            return None
        if depth == 0 and word in (b"SELECT", b"WITH", b"VALUES", b"FROM"):
            return None
        if depth == 0 and word == b"FORMAT" and (found := _DATA_FORMAT.match(head, end)):
            return head[:start], found[1].decode(), found.end()
    return None


def _verb(sql: bytes) -> bytes:
    first = next((word for word, *_ in _words(sql) if word != b"("), b"")
    return b"INSERT" if first == b"WITH" and b"INSERT" in sql.upper() else first


def _format(sql: bytes, default: str) -> tuple[str, bool]:
    """(output format, whether it may stream): only where the format is beyond doubt, as the last clause or absent."""
    if last := _LAST_FORMAT.search(sql):
        name = last[1].decode()
        return name, name in _STREAMED
    return default, default in _STREAMED and not _MAYBE_FORMAT.search(sql)


def _decoded(body: IO[bytes], encoding: str) -> IO[bytes]:
    """The body decompressed as it is read, never whole. Raises a 400 for an unknown Content-Encoding."""
    if encoding in ("", "identity"):
        return body
    names = {"gzip": ["gzip"], "lz4": ["lz4.frame"], "zstd": ["compression.zstd", "backports.zstd"]}.get(encoding, [])
    for name in names:  # the packages clickhouse-connect itself compresses with
        with contextlib.suppress(ImportError):
            return cast("IO[bytes]", importlib.import_module(name).open(body, "rb"))
    raise _Fault(400, 89, f"Unknown compression method {encoding!r}. (UNKNOWN_COMPRESSION_METHOD)")


def open_folder(path: Path) -> Any:
    """A chDB handle on the folder, made if missing. Raises DatabaseLocked when another process has it open."""
    if "?" in str(path):
        raise ValueError(f"{path}: chDB takes what follows a question mark for options")
    path.mkdir(parents=True, exist_ok=True)
    status = path / "status"
    with contextlib.suppress(FileNotFoundError), status.open() as file:
        try:  # the engine holds this very lock; its own complaint goes to stderr and names no way out
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = re.search(r"PID: (\d+)", file.read())
            raise DatabaseLocked(
                f"{path} is already open in {f'process {owner[1]}' if owner else 'another process'}: stop it, or set "
                "CANDLEMILL_CLICKHOUSE_DSN=http://127.0.0.1:PORT/default to use the running `candlemill db`"
            ) from None
    return _connect(path)


def _connect(path: Path) -> Any:
    return cast("Callable[[str], Any]", chdb.connect)(str(path))


@dataclass
class _Ask:
    """One request, parsed. The body is spooled and still compressed."""

    query: bytes
    body: IO[bytes]
    encoding: str
    params: dict[str, str]
    settings: dict[str, str]
    database: str
    format: str
    head: int  # bytes of a stream to hold back


@dataclass
class _Session:
    """One request's own handle. Its methods block and run on worker threads; the lock keeps them one at a time."""

    engine: "Engine"
    tag: str = field(default_factory=lambda: f"candlemill-{uuid.uuid4()}")
    reads: bool = False
    busy: bool = False
    retired: bool = False
    broken: bool = False  # failed after its 200
    format: str | None = None
    summary: dict[str, int] = field(default_factory=dict)
    conn: Any = None
    stream: Any = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, work: Callable[..., bytes], *args: Any) -> bytes:
        with self.lock:
            self.busy = True  # before looking at `retired`, which is set before looking at this
            try:
                if self.retired or self.engine.closing:
                    raise _Fault(503, 394, "The server is stopping. (QUERY_WAS_CANCELLED)")
                return work(*args)
            finally:
                self.busy = False

    def run(self, ask: _Ask) -> bytes:
        """The result, or its head while `stream` is still open. Raises chDB's errors and _Fault."""
        limits, body = self.engine.limits, _decoded(ask.body, ask.encoding)
        head = ask.query + body.read(_PIECE)
        if insert := _split_insert(head):
            self._open(ask, {f"param_{name}": value for name, value in ask.params.items()})
            return self._insert(insert[0].decode(), insert[1], head[insert[2] :], body)
        sql = head + body.read(limits.statement)
        if len(sql) > limits.statement:
            raise _Fault(413, 223, "Query is too large. (QUERY_IS_TOO_LARGE)")
        verb = _verb(sql)
        self.reads = verb in _READS
        self.format, streams = _format(sql, ask.format)
        streams = streams and verb in _SELECTS
        self._open(ask, {} if streams else {"max_result_bytes": str(limits.result)})
        return self._start(sql, ask) if streams else self._whole(sql, ask)

    def _open(self, ask: _Ask, more: dict[str, str]) -> None:
        """The request's handle with its database and settings: one engine call, as each costs a millisecond."""
        settings = {**more, **ask.settings, "log_comment": self.tag}
        if wrong := [name for name in settings if not _NAME.match(name)]:
            raise _Fault(404, 115, f"Unknown setting {wrong[0]!r}. (UNKNOWN_SETTING)")
        database = ask.database.replace("\\", "\\\\").replace("`", "\\`")
        use = f"USE `{database}`; " if database not in ("", "default") else ""
        self.conn = _connect(self.engine.path)
        self.conn.query(use + "SET " + ", ".join(f"{name} = {_quoted(value)}" for name, value in settings.items()))

    def _insert(self, sql: str, form: str, piece: bytes, body: IO[bytes]) -> bytes:
        inserter, size = self.conn.send_insert(sql, form), 0
        try:
            while piece:
                size += len(piece)
                if size > self.engine.limits.body:
                    raise _too_large()
                inserter.append(piece)
                piece = body.read(_PIECE)
        except BaseException:
            inserter.cancel()
            raise
        done = inserter.finish()
        self.summary = {"written_rows": done.rows_written, "written_bytes": done.bytes_written}
        return b""

    def _start(self, sql: bytes, ask: _Ask) -> bytes:
        """Open a stream and take its first blocks: all of a short result, and most errors while a status can tell."""
        self.stream, head = self.conn.send_query(sql, ask.format, params=ask.params), [b""]
        while self.stream is not None and sum(map(len, head)) < ask.head:
            head.append(self.fetch())
        return b"".join(head)

    def _whole(self, sql: bytes, ask: _Ask) -> bytes:
        result = self.conn.query(sql, ask.format, params=ask.params)
        body = cast("bytes", result.bytes())
        # The client tells "no rows" from "no result" by the format header, so statements without one must lack it.
        if not self.reads and not body:
            self.format = None
        self.summary = {"read_rows": result.storage_rows_read(), "read_bytes": result.storage_bytes_read()}
        self.summary |= {"result_rows": result.rows_read(), "written_rows": result.rows_written()}
        return body

    def fetch(self) -> bytes:
        """The next block of the open stream; empty, and the stream gone, at its end."""
        block = self.stream.fetch()
        if block is None:
            self.stream = None
            return b""
        self.summary["result_rows"] = self.summary.get("result_rows", 0) + block.rows_read()
        return cast("bytes", block.bytes())

    def close(self) -> None:
        with self.lock, contextlib.suppress(Exception):
            if self.stream is not None:
                self.stream.close()
            if self.conn is not None:
                self.conn.close()


def _too_large() -> _Fault:
    return _Fault(413, 307, "The request body exceeds this server's limit. (TOO_MANY_BYTES)")


class Engine:
    """The open folder and the threads that call it. Raises DatabaseLocked. `close` kills what runs, then waits."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits, self.closing = path, limits, False
        self.keeper = open_folder(path)  # the engine lives as long as any handle
        self.pool = ThreadPoolExecutor(limits.workers, "engine")
        self.killer = ThreadPoolExecutor(1, "killer")  # must get through when all workers are busy
        row = self.keeper.query("SELECT version(), timezone()", "TabSeparated").bytes().decode()
        self.version, self.timezone = row.split()

    async def call(self, session: _Session, request: Request, work: Callable[..., bytes], *args: Any) -> bytes:
        """work(*args) on a worker. Raises ClientDisconnect when the client hangs up on a read, which ends it."""
        future = asyncio.get_running_loop().run_in_executor(self.pool, session.call, work, *args)
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # there may be nobody to tell
        gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait([future, gone], return_when=asyncio.FIRST_COMPLETED)
            if session.reads and not future.done():
                raise ClientDisconnect
            return await future
        finally:
            gone.cancel()

    def retire(self, session: _Session) -> None:
        """End the session whatever it is doing, without waiting for that."""
        session.retired = True
        if session.busy:
            self.killer.submit(self._kill, f"Settings['log_comment'] = {_quoted(session.tag)}")
        self.pool.submit(session.close)

    def _kill(self, where: str) -> None:
        with contextlib.suppress(Exception):  # it may just have ended
            self.keeper.query(f"KILL QUERY WHERE {where} ASYNC")

    def stop(self) -> None:
        """Start nothing more and kill what runs; each query then ends with ClickHouse's code 394. Never waits."""
        self.closing = True
        self.killer.submit(self._kill, "Settings['log_comment'] LIKE 'candlemill-%'")

    def close(self) -> None:
        self.stop()
        self.killer.shutdown()
        self.pool.shutdown()
        self.keeper.close()


class _Guard:
    """Turns away what a web page could send to this port (DNS rebinding, cross-site requests), and wrong passwords."""

    def __init__(self, app: ASGIApp, host: str, password: str) -> None:
        self.app, self.password = app, password
        # A wildcard address has no name to compare with; there the password is what protects.
        self.host = "" if host in ("0.0.0.0", "::") else host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault(Headers(scope=scope), scope["path"]) if scope["type"] == "http" else None
        await (_answer(fault) if fault else self.app)(scope, receive, send)

    def _fault(self, headers: Headers, path: str) -> _Fault | None:
        host = headers.get("host", "")
        name = host.rpartition(":")[0] if re.search(r":\d+\Z", host) else host
        if self.host and name.lower().strip("[]") != self.host and not is_loopback(name):
            return _Fault(403, 291, f"Host {name!r} is not served here. (DATABASE_ACCESS_DENIED)")
        own = f"http://{host}"
        if headers.get("origin", own) != own or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return _Fault(403, 291, "Requests of web pages are not served. (DATABASE_ACCESS_DENIED)")
        if not self.password or path == "/ping" or self._knows_password(headers):
            return None
        return _Fault(403, 516, "Authentication failed: password is incorrect. (AUTHENTICATION_FAILED)")

    def _knows_password(self, headers: Headers) -> bool:
        given = f"{headers.get('x-clickhouse-user', 'default')}:{headers.get('x-clickhouse-key', '')}".encode()
        kind, _, code = headers.get("authorization", "").partition(" ")
        if kind.lower() == "basic":
            with contextlib.suppress(ValueError):
                given = base64.b64decode(code, validate=True)
        return hmac.compare_digest(given, f"default:{self.password}".encode())


def is_loopback(host: str) -> bool:
    """Whether the name or address can only mean this machine."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return host.lower() == "localhost"


def _answer(fault: _Fault) -> Response:
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
            full = _Fault(503, 202, "Too many simultaneous queries. (TOO_MANY_SIMULTANEOUS_QUERIES)")
            return await _answer(full)(scope, receive, send)
        self.in_flight += 1
        session = _Session(self.engine)
        try:
            with tempfile.SpooledTemporaryFile(_PIECE, dir=self.spool) as body:
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

    async def _respond(self, request: Request, session: _Session, body: IO[bytes]) -> Response:
        if request.method in ("GET", "HEAD") and "query" not in request.query_params:
            return PlainTextResponse("Ok.\n")
        try:
            await self._receive(request, body)
            ask = _parse(request, body, self.engine.limits)
            return await self._execute(request, session, ask)
        except ClientDisconnect:
            raise
        except Exception as error:
            fault = _explain(error)
            if "(version" not in str(fault):
                fault.args = (f"{fault} (version {self.engine.version})",)
            return _answer(fault)

    async def _receive(self, request: Request, body: IO[bytes]) -> None:
        async for piece in request.stream():
            body.write(piece)  # 64 KiB into the page cache: not worth a thread
            if body.tell() > self.engine.limits.body:
                raise _too_large()
        body.seek(0)

    async def _execute(self, request: Request, session: _Session, ask: _Ask) -> Response:
        head = await self.engine.call(session, request, session.run, ask)
        given = request.query_params.get("query_id", "")
        headers = {
            "X-ClickHouse-Query-Id": given if given.isascii() and given.isprintable() and given else session.tag,
            "X-ClickHouse-Timezone": ask.settings.get("session_timezone") or self.engine.timezone,
            "X-ClickHouse-Summary": json.dumps({key: str(value) for key, value in session.summary.items()}),
        }
        if session.format is not None:
            headers |= {"X-ClickHouse-Format": session.format}
        kind = _TYPES.get(session.format or "TabSeparated", "application/octet-stream")
        if session.stream is None:
            return Response(head, headers=headers, media_type=kind)
        headers["X-ClickHouse-Exception-Tag"] = tag = secrets.token_hex(8)
        return StreamingResponse(self._rest(session, head, tag), headers=headers, media_type=kind)

    async def _rest(self, session: _Session, head: bytes, tag: str) -> AsyncIterator[bytes]:
        """The head and the rest of the stream; an error then comes in ClickHouse's tagged frame."""
        yield head
        try:
            while session.stream is not None:
                yield await asyncio.get_running_loop().run_in_executor(self.engine.pool, session.call, session.fetch)
        except Exception as error:
            text = f"{_explain(error)} (version {self.engine.version})\n".encode()
            yield b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (
                tag.encode(), text, len(text), tag.encode()
            )  # fmt: skip
            # As ClickHouse: break the chunked encoding, or readers of raw bytes would take the frame for data.
            session.broken = True
            raise


def _parse(request: Request, body: IO[bytes], limits: Limits) -> _Ask:
    """The request's statement, parameters and settings. Raises _Fault for forms that cannot be served."""
    values = dict(request.query_params)
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        values |= _form(request.headers["content-type"], body.read(limits.statement + 1), limits.statement)
    query = values.get("query", "").encode("utf-8", "surrogateescape")
    params = {name[6:]: value for name, value in values.items() if name.startswith("param_")}
    settings = {n: v for n, v in values.items() if not _TRANSPORT.match(n) and not n.startswith("param_")}
    if request.method in ("GET", "HEAD"):
        # As ClickHouse: a link must not change anything, whatever it asks for.
        settings["readonly"] = "1" if settings.get("readonly") == "1" else "2"
    return _Ask(
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
        raise _too_large()
    message = email.message_from_bytes(b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n" + content)
    if not message.is_multipart():
        raise _Fault(400, 36, "The form cannot be read. (BAD_ARGUMENTS)")
    fields: dict[str, str] = {}
    for part in cast("list[email.message.Message]", message.get_payload()):
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() is not None:
            raise _Fault(501, 48, "External data is not supported by this server. (NOT_IMPLEMENTED)")
        fields[str(name)] = cast("bytes", part.get_payload(decode=True)).decode("utf-8", "surrogateescape")
    return fields


async def _ping(request: Request) -> Response:
    return PlainTextResponse("Ok.\n")


def create_app(engine: Engine, host: str = "127.0.0.1", password: str = "") -> ASGIApp:
    """The ASGI app over an open engine; `host` is what besides loopback may stand in the Host header."""
    routes = [Route("/ping", _ping), Route("/", _Queries(engine), methods=["GET", "HEAD", "POST"])]
    return _Guard(Starlette(routes=routes), host, password)


class _Server(uvicorn.Server):
    """uvicorn that reports when it listens, and returns on a signal instead of dying of it, so chDB gets closed."""

    def __init__(self, config: uvicorn.Config, engine: Engine, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self.engine, self.ready = engine, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A second before uvicorn drops the connections, so that clients read why.
        asyncio.get_running_loop().call_later(_GRACE - 1, self.engine.stop)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
    ValueError for a folder with a question mark in its name, and OSError when the port is taken.
    """
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if not is_loopback(host) and not password:
        raise UnsafeHost(f"refusing to listen on {host} without a password: set {PASSWORD_VARIABLE}")
    path = path.resolve()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # By hand, not create_server: without the protocol asyncio leaves Nagle on, and every answer takes 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        engine = Engine(path, limits or Limits())
        try:
            config = uvicorn.Config(
                create_app(engine, host, password),
                lifespan="off",
                http="h11",
                ws="none",
                proxy_headers=False,
                log_level="warning",
                server_header=False,
                access_log=False,
                timeout_keep_alive=75,  # longer than clients pause: an insert on a closed connection is not retried
                timeout_graceful_shutdown=_GRACE,
            )
            taken = int(listener.getsockname()[1])
            _Server(config, engine, lambda: ready(taken) if ready else None).run(sockets=[listener])
        finally:
            engine.close()
