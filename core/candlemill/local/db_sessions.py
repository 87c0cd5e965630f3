"""Sessions of `candlemill db`: each statement has its own engine handle, with limits, and can be killed.

db_server.py lists what is supported and what is not.
"""

import asyncio
import contextlib
import importlib
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

from starlette.requests import ClientDisconnect, Request

from candlemill.store import fatal_signals
from candlemill.store.embedded import engine_package
from candlemill.store.folder_lock import check_unlocked

# Formats whose blocks concatenate; chDB encodes each block of a stream as a document of its own.
_STREAMED = frozenset({"Native", "RowBinary", "TabSeparated", "TSV", "CSV", "JSONEachRow"})
TYPES = {"TabSeparated": "text/tab-separated-values; charset=UTF-8", "JSON": "application/json; charset=UTF-8"}
# What HTTP itself uses up, and what only a server knows: none of it may reach the engine as a setting. log_comment is
# how a query is found again to kill it.
TRANSPORT = re.compile(
    r"(query|database|default_format|user|password|buffer_size|session_(id|timeout|check)|query_id|quota_key|role|"
    r"(de)?compress|wait_end_of_query|client_protocol_version|send_progress_in_http_headers|log_comment|"
    r"http_headers_progress_interval_ms|enable_http_compression|cancel_http_readonly_queries_on_client_close)\Z"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# An unclosed token extends to the end: a search from each place inside it would take quadratic time.
_TOKEN = re.compile(
    rb"--[^\n]*|/\*.*?(?:\*/|\Z)|`(?:\\.|[^`\\])*+(?:`|\\?\Z)|\"(?:\\.|[^\"\\])*+(?:\"|\\?\Z)|"
    rb"'(?:\\.|[^'\\])*+(?:'|\\?\Z)|\w+|\S",
    re.DOTALL,
)
_MAYBE_FORMAT = re.compile(rb"\bFORMAT\s+\w", re.IGNORECASE)
_LAST_FORMAT = re.compile(rb"\bFORMAT\s++(\w++)\s*+(?:SETTINGS\b.*|[;\s]*+)\Z", re.IGNORECASE | re.DOTALL)
_DATA_FORMAT = re.compile(rb"\s+(\w+)[ \t\f]*\r?\n?")
_SELECTS = frozenset({b"SELECT", b"WITH", b"FROM"})  # all that chDB streams
_READS = _SELECTS | {b"SHOW", b"DESC", b"DESCRIBE", b"EXPLAIN", b"EXISTS", b"CHECK"}
_BAD, _MISSING = {6, 26, 27, 33, 36, 38, 41, 53, 62, 72, 117, 457}, {46, 47, 50, 56, 60, 63, 73, 81, 99, 115, 336}
_STATUS = {**dict.fromkeys(_BAD, 400), **dict.fromkeys(_MISSING, 404), 48: 501, 164: 403, 223: 413, 516: 403}
PIECE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of one server. Beyond any of these a request is answered with an error."""

    workers: int = 8  # engine calls at once
    queue: int = 32  # further requests in flight, waiting or streaming; beyond: 503
    body: int = 1 << 30  # bytes of a request body, as sent and as decompressed; beyond: 413
    statement: int = 16 << 20  # bytes of SQL, with inline VALUES; beyond: 413
    result: int = 256 << 20  # engine bytes of a result that cannot stream; beyond: ClickHouse's code 396
    head: int = 8 << 20  # bytes of result held back under wait_end_of_query, so that the status is correct


class Fault(Exception):
    """An answer other than 200, with ClickHouse's error code."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {text}")
        self.status, self.code = status, code


def explain(error: Exception) -> Fault:
    """Return any failure as a ClickHouse error; chDB puts its own prefixes before `Code: N.`."""
    if isinstance(error, Fault):
        return error
    found = re.search(r"Code: (\d+)\. DB::Exception: (.*)", str(error), re.DOTALL)
    code, text = (int(found[1]), found[2]) if found else (1001, f"{type(error).__name__}: {error}. (STD_EXCEPTION)")
    return Fault(_STATUS.get(code, 500), code, text)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _words(sql: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """Yield tokens outside comments as (upper case, start, end, depth of parentheses)."""
    depth = 0
    for token in _TOKEN.finditer(sql):
        word = token[0].upper()
        depth += (word == b"(") - (word == b")")
        if not word.startswith((b"--", b"/*")):
            yield word, token.start(), token.end(), depth


def _split_insert(head: bytes) -> tuple[bytes, str, int] | None:
    """Return (statement, format, start of the data) of `INSERT ... FORMAT x <data>`; None for anything else."""
    for number, (word, start, end, depth) in enumerate(_words(head)):
        if number == 0 and word != b"INSERT":
            return None
        if depth == 0 and word in (b"SELECT", b"WITH", b"VALUES", b"FROM"):
            return None
        if depth == 0 and word == b"FORMAT" and (found := _DATA_FORMAT.match(head, end)):
            return head[:start], found[1].decode(), found.end()
    return None


def _ends_processes(sql: bytes) -> bool:
    """Return whether a statement would end this process and its whole group, including the shell that started it."""
    words = [word for word, *_ in _words(sql)]
    is_system = False
    for word, following in pairwise([*words, b";"]):
        is_system = word != b";" and (is_system or (word == b"SYSTEM" and following != b"."))
        if is_system and word in (b"SHUTDOWN", b"KILL"):
            return True
    return False


def _verb(sql: bytes) -> bytes:
    first = next((word for word, *_ in _words(sql) if word != b"("), b"")
    return b"INSERT" if first == b"WITH" and b"INSERT" in sql.upper() else first


def _format(sql: bytes, default: str) -> tuple[str, bool]:
    """Return (output format, whether it may stream). It streams only if the format is the last clause or absent."""
    if last := _LAST_FORMAT.search(sql):
        name = last[1].decode()
        return name, name in _STREAMED
    return default, default in _STREAMED and not _MAYBE_FORMAT.search(sql)


def _decoded(body: IO[bytes], encoding: str) -> IO[bytes]:
    """Decompress the body as it is read, never as a whole. Raises a 400 for an unknown Content-Encoding."""
    if encoding in ("", "identity"):
        return body
    names = {"gzip": ["gzip"], "lz4": ["lz4.frame"], "zstd": ["compression.zstd", "backports.zstd"]}.get(encoding, [])
    for name in names:  # the packages clickhouse-connect itself compresses with
        with contextlib.suppress(ImportError):
            return cast("IO[bytes]", _Decoder(importlib.import_module(name).open(body, "rb"), encoding))
    raise Fault(400, 89, f"Unknown compression method {encoding!r}. (UNKNOWN_COMPRESSION_METHOD)")


class _Decoder:
    """Read from a decompressing file. Raises a 400 if the body does not match its Content-Encoding."""

    def __init__(self, body: IO[bytes], encoding: str) -> None:
        self._body, self._encoding = body, encoding

    def read(self, size: int) -> bytes:
        try:
            return self._body.read(size)
        except Exception as error:  # each of the three packages has its own
            text = f"The body is not {self._encoding}: {error}. (CANNOT_DECOMPRESS)"
            raise Fault(400, 271, text) from None


def open_folder(path: Path) -> Any:
    """Open a chDB handle on the folder, created if missing. Raises DatabaseLocked when another process has it open."""
    if "?" in str(path):
        raise ValueError(f"{path}: chDB takes what follows a question mark for options")
    path.mkdir(parents=True, exist_ok=True)
    check_unlocked(path)
    return _connect(path)


def _connect(path: Path) -> Any:
    handle = engine_package().connect(str(path))
    fatal_signals.restore()
    return handle


@dataclass
class QueryRequest:
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
class Session:
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
            self.busy = True  # before reading `retired`, which `retire` sets before it reads `busy`
            try:
                if self.retired or self.engine.closing:
                    raise Fault(503, 394, "The server is stopping. (QUERY_WAS_CANCELLED)")
                return work(*args)
            finally:
                self.busy = False

    def run(self, query_request: QueryRequest) -> bytes:
        """Return the result, or its head while `stream` is still open. Raises chDB's errors and Fault."""
        limits, body = self.engine.limits, _decoded(query_request.body, query_request.encoding)
        head = query_request.query + body.read(PIECE)
        if insert := _split_insert(head):
            self._open(query_request, {f"param_{name}": value for name, value in query_request.params.items()})
            return self._insert(insert[0].decode(), insert[1], head[insert[2] :], body)
        sql = head + body.read(limits.statement)
        if len(sql) > limits.statement:
            raise Fault(413, 223, "Query is too large. (QUERY_IS_TOO_LARGE)")
        if _ends_processes(sql):
            raise Fault(403, 497, "Not allowed here: stop `candlemill db` itself. (ACCESS_DENIED)")
        verb = _verb(sql)
        self.reads = verb in _READS
        self.format, streams = _format(sql, query_request.format)
        streams = streams and verb in _SELECTS
        self._open(query_request, {} if streams else {"max_result_bytes": str(limits.result)})
        return self._start(sql, query_request) if streams else self._whole(sql, query_request)

    def _open(self, query_request: QueryRequest, more: dict[str, str]) -> None:
        """Open the request's handle with its database and settings, in one engine call: each costs a millisecond."""
        settings = {**more, **query_request.settings, "log_comment": self.tag}
        if wrong := [name for name in settings if not _NAME.match(name)]:
            raise Fault(404, 115, f"Unknown setting {wrong[0]!r}. (UNKNOWN_SETTING)")
        database = query_request.database.replace("\\", "\\\\").replace("`", "\\`")
        use = f"USE `{database}`; " if database not in ("", "default") else ""
        self.conn = _connect(self.engine.path)
        self.conn.query(use + "SET " + ", ".join(f"{name} = {_quoted(value)}" for name, value in settings.items()))

    def _insert(self, sql: str, form: str, piece: bytes, body: IO[bytes]) -> bytes:
        inserter, size = self.conn.send_insert(sql, form), 0
        try:
            while piece:
                size += len(piece)
                if size > self.engine.limits.body:
                    raise too_large()
                inserter.append(piece)
                piece = body.read(PIECE)
        except BaseException:
            inserter.cancel()
            raise
        done = inserter.finish()
        self.summary = {"written_rows": done.rows_written, "written_bytes": done.bytes_written}
        return b""

    def _start(self, sql: bytes, query_request: QueryRequest) -> bytes:
        """Open a stream and read its first blocks: all of a short result, and most errors before the status is sent."""
        self.stream, head = self.conn.send_query(sql, query_request.format, params=query_request.params), [b""]
        while self.stream is not None and sum(map(len, head)) < query_request.head:
            head.append(self.fetch())
        return b"".join(head)

    def _whole(self, sql: bytes, query_request: QueryRequest) -> bytes:
        result = self.conn.query(sql, query_request.format, params=query_request.params)
        body = cast("bytes", result.bytes())
        # The client tells "no rows" from "no result" by the format header, so statements without one must lack it.
        if not self.reads and not body:
            self.format = None
        self.summary = {"read_rows": result.storage_rows_read(), "read_bytes": result.storage_bytes_read()}
        self.summary |= {"result_rows": result.rows_read(), "written_rows": result.rows_written()}
        return body

    def fetch(self) -> bytes:
        """Return the next block of the open stream; at its end return empty bytes and drop the stream."""
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


def too_large() -> Fault:
    return Fault(413, 307, "The request body exceeds this server's limit. (TOO_MANY_BYTES)")


class Engine:
    """The open folder and the threads that call it. Raises DatabaseLocked. `close` kills what runs, then waits."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits, self.closing = path, limits, False
        self.keeper = open_folder(path)  # the engine lives as long as any handle
        self.pool = ThreadPoolExecutor(limits.workers, "engine")
        self.killer = ThreadPoolExecutor(1, "killer")  # separate, so that it runs when all workers are busy
        row = self.keeper.query("SELECT version(), timezone()", "TabSeparated").bytes().decode()
        self.version, self.timezone = row.split()

    async def call(self, session: Session, request: Request, work: Callable[..., bytes], *args: Any) -> bytes:
        """Run work(*args) on a worker. Raises ClientDisconnect when the client hangs up on a read, which ends it."""
        future = asyncio.get_running_loop().run_in_executor(self.pool, session.call, work, *args)
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # the client may be gone
        gone: asyncio.Future[Any] = asyncio.ensure_future(request.receive())
        try:
            await asyncio.wait([future, gone], return_when=asyncio.FIRST_COMPLETED)
            if session.reads and not future.done():
                raise ClientDisconnect
            return await future
        finally:
            gone.cancel()

    def retire(self, session: Session) -> None:
        """End the session whatever it is doing, without waiting for the end."""
        session.retired = True
        if session.busy:
            self.killer.submit(self._kill, f"Settings['log_comment'] = {_quoted(session.tag)}")
        self.pool.submit(session.close)

    def _kill(self, where: str) -> None:
        with contextlib.suppress(Exception):  # it may just have ended
            self.keeper.query(f"KILL QUERY WHERE {where} ASYNC")

    def stop(self) -> None:
        """Start no new query and kill running ones, which end with ClickHouse's code 394. Does not wait."""
        self.closing = True
        self.killer.submit(self._kill, "Settings['log_comment'] LIKE 'candlemill-%'")

    def close(self) -> None:
        self.stop()
        self.killer.shutdown()
        self.pool.shutdown()
        self.keeper.close()
