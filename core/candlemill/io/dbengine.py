"""The embedded engine behind `candlemill db`: each statement on a handle of its own, bounded, and killed when unwanted.

What is offered and what isn't stands in dbserver.py.
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
from pathlib import Path
from typing import IO, Any, cast

import chdb
from starlette.requests import ClientDisconnect, Request

from candlemill.io.folder import check_unlocked

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
# What is not closed goes on to the end: to look for it again from each place inside would take quadratic time.
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
    """What one server allows itself. Beyond any of these a request is answered with an error, never held unbounded."""

    workers: int = 8  # engine calls at once
    queue: int = 32  # further requests in flight, waiting or streaming; beyond: 503
    body: int = 1 << 30  # bytes of a request body, as sent and as decompressed; beyond: 413
    statement: int = 16 << 20  # bytes of SQL, with inline VALUES; beyond: 413
    result: int = 256 << 20  # engine bytes of a result that cannot stream; beyond: ClickHouse's code 396
    head: int = 8 << 20  # bytes of result held back under wait_end_of_query, for an honest status


class Fault(Exception):
    """An answer other than 200, with ClickHouse's error code."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {text}")
        self.status, self.code = status, code


def explain(error: Exception) -> Fault:
    """Any failure as ClickHouse would word it; chDB puts prefixes of its own before `Code: N.`."""
    if isinstance(error, Fault):
        return error
    found = re.search(r"Code: (\d+)\. DB::Exception: (.*)", str(error), re.DOTALL)
    code, text = (int(found[1]), found[2]) if found else (1001, f"{type(error).__name__}: {error}. (STD_EXCEPTION)")
    return Fault(_STATUS.get(code, 500), code, text)


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
    raise Fault(400, 89, f"Unknown compression method {encoding!r}. (UNKNOWN_COMPRESSION_METHOD)")


def open_folder(path: Path) -> Any:
    """A chDB handle on the folder, made if missing. Raises DatabaseLocked when another process has it open."""
    if "?" in str(path):
        raise ValueError(f"{path}: chDB takes what follows a question mark for options")
    path.mkdir(parents=True, exist_ok=True)
    check_unlocked(path)
    return _connect(path)


def _connect(path: Path) -> Any:
    return cast("Callable[[str], Any]", chdb.connect)(str(path))


@dataclass
class Ask:
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
            self.busy = True  # before looking at `retired`, which is set before looking at this
            try:
                if self.retired or self.engine.closing:
                    raise Fault(503, 394, "The server is stopping. (QUERY_WAS_CANCELLED)")
                return work(*args)
            finally:
                self.busy = False

    def run(self, ask: Ask) -> bytes:
        """The result, or its head while `stream` is still open. Raises chDB's errors and Fault."""
        limits, body = self.engine.limits, _decoded(ask.body, ask.encoding)
        head = ask.query + body.read(PIECE)
        if insert := _split_insert(head):
            self._open(ask, {f"param_{name}": value for name, value in ask.params.items()})
            return self._insert(insert[0].decode(), insert[1], head[insert[2] :], body)
        sql = head + body.read(limits.statement)
        if len(sql) > limits.statement:
            raise Fault(413, 223, "Query is too large. (QUERY_IS_TOO_LARGE)")
        verb = _verb(sql)
        self.reads = verb in _READS
        self.format, streams = _format(sql, ask.format)
        streams = streams and verb in _SELECTS
        self._open(ask, {} if streams else {"max_result_bytes": str(limits.result)})
        return self._start(sql, ask) if streams else self._whole(sql, ask)

    def _open(self, ask: Ask, more: dict[str, str]) -> None:
        """The request's handle with its database and settings: one engine call, as each costs a millisecond."""
        settings = {**more, **ask.settings, "log_comment": self.tag}
        if wrong := [name for name in settings if not _NAME.match(name)]:
            raise Fault(404, 115, f"Unknown setting {wrong[0]!r}. (UNKNOWN_SETTING)")
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
                    raise too_large()
                inserter.append(piece)
                piece = body.read(PIECE)
        except BaseException:
            inserter.cancel()
            raise
        done = inserter.finish()
        self.summary = {"written_rows": done.rows_written, "written_bytes": done.bytes_written}
        return b""

    def _start(self, sql: bytes, ask: Ask) -> bytes:
        """Open a stream and take its first blocks: all of a short result, and most errors while a status can tell."""
        self.stream, head = self.conn.send_query(sql, ask.format, params=ask.params), [b""]
        while self.stream is not None and sum(map(len, head)) < ask.head:
            head.append(self.fetch())
        return b"".join(head)

    def _whole(self, sql: bytes, ask: Ask) -> bytes:
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


def too_large() -> Fault:
    return Fault(413, 307, "The request body exceeds this server's limit. (TOO_MANY_BYTES)")


class Engine:
    """The open folder and the threads that call it. Raises DatabaseLocked. `close` kills what runs, then waits."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path, self.limits, self.closing = path, limits, False
        self.keeper = open_folder(path)  # the engine lives as long as any handle
        self.pool = ThreadPoolExecutor(limits.workers, "engine")
        self.killer = ThreadPoolExecutor(1, "killer")  # must get through when all workers are busy
        row = self.keeper.query("SELECT version(), timezone()", "TabSeparated").bytes().decode()
        self.version, self.timezone = row.split()

    async def call(self, session: Session, request: Request, work: Callable[..., bytes], *args: Any) -> bytes:
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

    def retire(self, session: Session) -> None:
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
