"""Connection to one ClickHouse database: on a server, or embedded in this process (chDB).

DSN: `chdb:///folder`, or `clickhouse://`, `http://`, `https://` with user, host, port and database.
Limits of the embedded engine: one process per folder (others get DatabaseLocked; `candlemill db` serves the folder to
several), one lock per handle, no async client. clickhouse-connect calls its chDB interface experimental; therefore only
this module uses it.

Values are bound as parameters, never put into SQL text.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import msgspec

from candlemill.config import DSN_VARIABLE, bundled
from candlemill.errors import BadInput, StoreDown, StoreError
from candlemill.store import fatal_signals
from candlemill.store.embedded import engine_package, trim
from candlemill.store.folder_lock import check_unlocked
from candlemill.store.inserter import NO_SETTINGS, Inserter
from candlemill.store.known_keys import KnownKeys
from candlemill.store.native import native_block
from candlemill.store.schema import missing_in, statements
from candlemill.telemetry import instrument

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    Writer = Client | Inserter

CONNECT_SECONDS = 10
REPLY_SECONDS = 120
MERGES = (
    "max_parts_to_merge_at_once = 8, max_bytes_to_merge_at_max_space_in_pool = 134217728, "
    "max_bytes_to_merge_at_min_space_in_pool = 1, number_of_free_entries_in_pool_to_lower_max_size_of_merge = 4"
)  # of the embedded table of results: a part that is merged takes megabytes of buffers, so few are at a time
MERGED_ROWS = "merge_max_block_size = 128"  # of a part in memory; results and outcomes of a year have kilobytes each
UNMERGED_LIMIT = 300  # parts; from a thousand on the engine delays inserts
MANY_READ, MANY_WRITTEN = 100_000, 256  # rows of a statement after which free memory is returned: 3 ms
BLOCK_ROWS = 128  # of one insert, so that few rows are in memory twice; the engine makes one part of all blocks
NO_VALUES: Mapping[str, object] = {}
ONE_THREAD = {"max_threads": "1"}  # of inserts and of reads of few rows: others take a fifth more processor time


class Connection:
    """Open database. Creates missing tables when it opens. `known_keys`: keys that save queries, or None."""

    known_keys: KnownKeys | None = None

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.embedded = dsn.startswith("chdb:")
        self._client = connect(dsn)
        self._writers: list[Writer] = []
        self._inserter: Inserter | None = None  # of an embedded database that stays open for many jobs
        self._merges: Literal["on", "paused", "to resume"] = "on"
        self._unmerged = 0  # inserts of results since merges are paused
        try:
            self._apply_schema()
        except BaseException:
            self.close()  # with an open engine, this process could not open another folder
            raise

    def close(self) -> None:
        for writer in (*self._writers, *filter(None, [self._inserter]), self._client):
            writer.close()

    def keep_inserter(self) -> None:
        """Insert into an embedded database without temporary files from now on."""
        self._inserter = Inserter(str(folder_of(self.dsn)))

    def _apply_schema(self) -> None:
        """Create missing tables, columns and codecs. Sends no DDL if all exist, so that readers need no right to
        create."""
        sources = [path.read_text() for path in sorted(bundled("schema").glob("*.sql"))]
        with failures("schema"):
            sql = "SELECT table, name, compression_codec FROM system.columns WHERE database = currentDatabase()"
            present = self._client.query(sql).result_rows
            if not missing_in(sources, [(table, name, codec) for table, name, codec in present]):
                return
            for statement in statements(sources):
                self._client.command(statement)
            if self.embedded:
                self._client.command(f"ALTER TABLE backtest_results MODIFY SETTING {MERGES}, {MERGED_ROWS}")
                self._client.command(f"ALTER TABLE slice_outcomes MODIFY SETTING {MERGED_ROWS}")

    def _command(self, sql: str, bound: dict[str, object]) -> None:
        if self.embedded and sql.startswith("DELETE"):  # it waits for merges, which a large job may have stopped
            self._start_merges()
        with failures("command"):
            self._client.command(sql, parameters=bound)

    def _start_merges(self) -> None:
        self._merges = "on"
        self._command("SYSTEM START MERGES backtest_results", {})

    def _blocks(self, sql: str, bound: Mapping[str, object] = NO_VALUES) -> list[Sequence[Any]]:
        """Return the columns of a query's blocks that have rows. Blocks arrive in any order."""
        with failures("columns"), self._client.query_column_block_stream(sql, parameters=dict(bound)) as stream:
            blocks = [block for block in stream if len(block[0])]
        if sum(len(block[0]) for block in blocks) >= MANY_READ:
            self._give_back()
        return blocks

    def _rows(self, sql: str, bound: dict[str, object]) -> Sequence[Sequence[Any]]:
        with failures("query"):
            return self._client.query(sql, parameters=bound).result_rows

    def _insert(self, table: str, rows: Sequence[msgspec.Struct | dict[str, Any]], collected: bool = True) -> None:
        """Append rows as JSON, which is fast enough for few rows and needs no data frames.

        A server collects the single rows of many writers into parts, and responds when they are written. That takes up
        to 0.2 s: rows that are not `collected` become a part of their own at once.
        """
        if not rows:
            return
        self._resume_merges()
        waits = collected and not self.embedded
        settings = ONE_THREAD | ({"async_insert": "1", "wait_for_async_insert": "1"} if waits else {})
        lines = b"\n".join(msgspec.json.encode(row) for row in rows)
        with failures("insert"):
            append(self._inserter or self._client, table, (), "JSONEachRow", [lines], settings)

    def _insert_many(self, table: str, rows: Sequence[msgspec.Struct]) -> None:
        """Append many rows of texts, whole numbers of 64 bits and booleans. The embedded engine gets them as columns,
        which takes half the time of JSON and a third of the memory."""
        many = len(rows) >= MANY_WRITTEN
        if many:
            trim()  # what the making of the rows has left, before the engine needs as much
        if not self.embedded or not rows:
            self._insert(table, rows)
        else:
            self._insert_columns(table, rows)
        if many:
            self._give_back()

    def _insert_columns(self, table: str, rows: Sequence[msgspec.Struct]) -> None:
        names = rows[0].__struct_fields__
        blocks = (
            native_block({name: [getattr(row, name) for row in rows[k : k + BLOCK_ROWS]] for name in names})
            for k in range(0, len(rows), BLOCK_ROWS)
        )
        with failures("insert"):
            append(self._inserter or self._client, table, names, "Native", blocks, ONE_THREAD)
        self._unmerged += table == "backtest_results"
        if self._merges == "paused" and self._unmerged > UNMERGED_LIMIT:
            self._start_merges()

    def _give_back(self) -> None:
        """Return free memory to the system: the engine keeps what a large statement used for some seconds, and then
        until the next statements."""
        if self.embedded:
            from clickhouse_connect.driver import exceptions

            with suppress(exceptions.Error):  # an engine that is built without this allocator
                self._client.command("SYSTEM JEMALLOC PURGE")
        trim()

    @contextmanager
    def merges_paused(self) -> Iterator[None]:
        """Context in which the embedded engine does not merge parts of results: a large job would have most of its rows
        written several times meanwhile. It merges again from the first insert after the context on, or in the next
        process; in a job of hours also before, since the engine refuses inserts into a table of thousands of parts."""
        if not self.embedded:
            yield
            return
        self._command("SYSTEM STOP MERGES backtest_results", {})
        self._merges, self._unmerged = "paused", 0
        try:
            yield
        finally:
            self._merges = "to resume"

    def _resume_merges(self) -> None:
        if self._merges == "to resume":
            self._start_merges()


def append(
    writer: "Writer",
    table: str,
    names: Sequence[str],
    form: str,
    pieces: Iterable[bytes],
    settings: Mapping[str, str] = NO_SETTINGS,
) -> None:
    """Append rows, encoded in ClickHouse's format `form`, as one insert."""
    if isinstance(writer, Inserter):
        writer.insert(table, names, form, pieces, settings)
    else:
        writer.raw_insert(table, names or None, (piece for piece in pieces), dict(settings), form)


def connect_writer(dsn: str) -> "Writer":
    """Open a further connection that inserts."""
    return Inserter(str(folder_of(dsn))) if dsn.startswith("chdb:") else connect(dsn)


def connect(dsn: str) -> "Client":
    import clickhouse_connect  # imported late: it takes 0.3 s, which not every command needs

    # Do not log failures, which are raised as exceptions.
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())
    if dsn.startswith("chdb:"):
        folder = folder_of(dsn)
        engine_package()
        with failures("connect"):
            folder.mkdir(parents=True, exist_ok=True)
            check_unlocked(folder)
            client = clickhouse_connect.get_client(interface="chdb", path=str(folder))
        fatal_signals.restore()
        return client
    _check_server(dsn)
    with failures("connect"):
        return clickhouse_connect.get_client(
            dsn=dsn,
            connect_timeout=CONNECT_SECONDS,
            send_receive_timeout=REPLY_SECONDS,
            autogenerate_session_id=False,  # calls from several threads are independent
        )


def folder_of(dsn: str) -> Path:
    text = dsn.removeprefix("chdb://")
    if not text.startswith("/") or "?" in text:  # the engine would parse options after a question mark
        raise BadInput(f"{DSN_VARIABLE}={dsn} names no folder: write it like chdb:///home/me/candles, without '?'")
    return Path(text)


def _check_server(dsn: str) -> None:
    if not dsn.strip():
        raise BadInput(f"{DSN_VARIABLE} is empty: unset it for the database in your own folder, or give chdb:///FOLDER")
    try:
        parts = urlsplit(dsn)
        known = parts.scheme in ("http", "https", "clickhouse", "clickhouses") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        known = False
    if not known:  # without the value: it may hold a password
        raise BadInput(
            f"{DSN_VARIABLE} is none of chdb:///FOLDER, http://, https:// or clickhouse://USER:PASSWORD@HOST:PORT/DATABASE"
        )


@contextmanager
def failures(operation: str) -> Iterator[None]:
    """Measure a query, and convert its errors to StoreError with one line of text."""
    from clickhouse_connect.driver import exceptions

    with instrument.store_query(operation):
        try:
            yield
        except exceptions.Error as error:
            raise _error(error) from error
        except OSError as error:
            raise StoreError(f"the database's folder or a temporary file: {error}") from error


def _error(error: Exception) -> StoreError:
    from clickhouse_connect.driver import exceptions

    text = str(error)
    if "Unable to open the chdb engine" in text:
        return StoreError(f"the folder cannot be opened as a database: {_line(error)}")
    if isinstance(error, exceptions.OperationalError) and "Code: " not in text:
        return StoreDown(f"the database does not answer: {_line(error)}; is it running? see {DSN_VARIABLE}")
    if "CHECKSUM_DOESNT_MATCH" in text or "CORRUPTED_DATA" in text:
        return StoreError(f"files of the database are damaged, see `candlemill doctor`: {_line(error)}")
    return StoreError(f"the database refused: {_line(error)}")


def _line(error: Exception) -> str:
    """Short text of an error, without the texts of the client's layers."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    deepest = re.search(r"(HTTPS?)Connection\(host='([^']*)', port=(\d+)\): (?:Failed to [\w ]+: )?(.*?)\"?\)+ ", text)
    if deepest:
        return f"{deepest[2]}:{deepest[3]}: {deepest[4]}"
    return text[:300]
