"""The one way to the database: ClickHouse on a server, or embedded in this process (chDB).

The DSN decides: `chdb:///folder`, or `clickhouse://`, `http://`, `https://` with user, host, port and database.
Limits of the embedded engine: one process per folder (another one gets DatabaseLocked; `candlemill db` serves the
folder to several), one lock per handle, no async client; clickhouse-connect calls its chDB interface experimental,
which is why nothing outside this module sees it.

Values are bound as parameters, never put into SQL text.
"""

import logging
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.engine.tape import DAY_MS
from candlemill.errors import BadInput, StoreDown, StoreError
from candlemill.io import telemetry
from candlemill.io.columns import Columns
from candlemill.io.folder import check_unlocked
from candlemill.io.jobtable import JobTable
from candlemill.io.outcometable import OutcomeTable
from candlemill.io.seen import LETTERS, LIMIT
from candlemill.io.settings import DSN_VARIABLE, bundled
from candlemill.ledger import Funding, Partial, ResultRow
from candlemill.plan import Day

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

PRICES = ("open", "high", "low", "close")
CONNECT_SECONDS = 10
REPLY_SECONDS = 120
ID_LETTERS = 6  # of a job id, at least, to ask for it
SWEEP_ROWS_LIMIT = 1_000_000
WRITERS = 2
SWEEP_ROWS_AT_ONCE = 200
SYMBOLS_AT_ONCE = 500
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class Store(JobTable, OutcomeTable):
    """A connection to one database. Use as a context manager; the schema is applied when it opens."""

    columns: Columns | None = None  # of candles that were read, where several readers are to share them

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.embedded = dsn.startswith("chdb:")
        self._client = _connect(dsn)
        self._writers: list[Client] = []
        try:
            self._apply_schema()
        except BaseException:
            self.close()  # an open engine would keep this process from opening another folder
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for client in (*self._writers, self._client):
            client.close()

    def _apply_schema(self) -> None:
        """Idempotent. Where all tables stand already nothing is sent: readers need no right to create."""
        sources = [path.read_text() for path in sorted(bundled("schema").glob("*.sql"))]
        wanted = {(name, "") for source in sources for name in re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", source)}
        added = r"ALTER TABLE (\w+)\s+ADD COLUMN IF NOT EXISTS (\w+)"
        wanted |= {found for source in sources for found in re.findall(added, source)}
        with _failures("schema"):
            present = self._client.query("SELECT table, name FROM system.columns WHERE database = currentDatabase()")
            columns = {(row[0], row[1]) for row in present.result_rows}
            if wanted <= columns | {(table, "") for table, _ in columns}:
                return
            for source in sources:
                text = re.sub(r"--.*", "", source)
                for statement in filter(None, (part.strip() for part in text.split(";"))):
                    self._client.command(statement)

    # -- candles ---------------------------------------------------------------------------------------------------

    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Candles of `start <= t < end` (ms) as contiguous columns in time order, one row per minute.

        `t` (int64 ms) always comes along; prices are int64, `volume` is uint64. Of duplicates the last inserted wins.
        """
        columns = self._column_blocks(symbol, start, end, names, "")
        t = columns["t"]
        if (t[1:] <= t[:-1]).any():
            # Replacing has not happened in the background yet: have it done while reading.
            columns = self._column_blocks(symbol, start, end, names, "FINAL")
            order = np.argsort(columns["t"], kind="stable")
            columns = {name: column[order] for name, column in columns.items()}
        return columns

    def _column_blocks(
        self, symbol: str, start: int, end: int, names: Sequence[str], final: str
    ) -> dict[str, NDArray[Any]]:
        """Blocks come from several threads in any order; each is sorted, so ordering them by first time sorts all."""
        selected = ", ".join(names)  # names are ours, never a user's
        sql = f"""
            SELECT toUnixTimestamp64Milli(timestamp) AS t{", " + selected if selected else ""}
            FROM market_data_1m {final}
            WHERE symbol = {{symbol:String}}
              AND timestamp >= fromUnixTimestamp64Milli({{start:Int64}})
              AND timestamp < fromUnixTimestamp64Milli({{end:Int64}})
        """  # noqa: S608
        bound = {"symbol": symbol, "start": start, "end": end}
        kinds: dict[str, type] = {name: np.uint64 if name == "volume" else np.int64 for name in ("t", *names)}
        with _failures("columns"), self._client.query_column_block_stream(sql, parameters=bound) as stream:
            blocks = [block for block in stream if len(block[0])]
        telemetry.ROWS.add(n=sum(len(block[0]) for block in blocks))
        blocks.sort(key=lambda block: block[0][0])
        if not blocks:
            return {name: np.empty(0, dtype=kind) for name, kind in kinds.items()}
        return {
            name: np.concatenate([np.asarray(block[k]) for block in blocks]).view(kind)
            for k, (name, kind) in enumerate(kinds.items())
        }

    def read_many(self, symbols: Sequence[str], start: int, end: int) -> dict[str, dict[str, NDArray[Any]]]:
        """All columns of several symbols, as `read_columns` has them; symbols without candles are left out."""
        found: dict[str, dict[str, NDArray[Any]]] = {}
        for k in range(0, len(symbols), SYMBOLS_AT_ONCE):
            some = symbols[k : k + SYMBOLS_AT_ONCE]
            columns = self._many(some, start, end, "")
            repeated = (columns["t"][1:] == columns["t"][:-1]) & (columns["code"][1:] == columns["code"][:-1])
            if repeated.any():
                columns = self._many(some, start, end, "FINAL")
            codes = columns.pop("code")
            edges = np.searchsorted(codes, np.arange(len(some) + 1))
            for j, symbol in enumerate(some):
                a, b = edges[j], edges[j + 1]
                if a < b:
                    found[symbol] = {name: column[a:b] for name, column in columns.items()}
        return found

    def _many(self, symbols: Sequence[str], start: int, end: int, final: str) -> dict[str, NDArray[Any]]:
        """Rows by code (a symbol's place in the list) and time."""
        sql = f"""
            SELECT toInt64(transform(toString(symbol), {{symbols:Array(String)}}, range({len(symbols)}), 0)) AS code,
                toUnixTimestamp64Milli(timestamp) AS t, {", ".join((*PRICES, "volume"))}
            FROM market_data_1m {final}
            WHERE symbol IN {{symbols:Array(String)}}
              AND timestamp >= fromUnixTimestamp64Milli({{start:Int64}})
              AND timestamp < fromUnixTimestamp64Milli({{end:Int64}})
        """  # noqa: S608
        bound = {"symbols": list(symbols), "start": start, "end": end}
        names = ("code", "t", *PRICES, "volume")
        with _failures("columns"), self._client.query_column_block_stream(sql, parameters=bound) as stream:
            blocks = [block for block in stream if len(block[0])]
        telemetry.ROWS.add(n=sum(len(block[0]) for block in blocks))
        if not blocks:
            return {name: np.empty(0, dtype=np.uint64 if name == "volume" else np.int64) for name in names}
        columns = {
            name: np.concatenate([np.asarray(block[k]) for block in blocks]).view(
                np.uint64 if name == "volume" else np.int64
            )
            for k, name in enumerate(names)
        }
        order = np.lexsort((columns["t"], columns["code"]))
        return {name: column[order] for name, column in columns.items()}

    def insert_candles(self, symbol: str, parts: Iterable[dict[str, NDArray[Any]]]) -> None:
        """Append candles (`t` in ms, four prices, `volume`), each part in one insert, two at a time: an insert keeps
        one core of the engine busy. Callers keep `coverage_days` right."""
        while len(self._writers) < WRITERS:
            self._writers.append(_connect(self.dsn))
        idle: SimpleQueue[Client] = SimpleQueue()
        for client in self._writers:
            idle.put(client)

        def insert(part: dict[str, NDArray[Any]]) -> None:
            client = idle.get()
            try:
                self._insert_part(client, symbol, part)
            finally:
                idle.put(client)

        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(insert, parts))

    def insert_rows(self, parts: Sequence[tuple[str, dict[str, NDArray[Any]]]]) -> None:
        """Append candles of several symbols in one insert: one part, however many symbols there are. All of one
        month, or it becomes several parts. Callers keep `coverage_days` right."""
        joined = {name: np.concatenate([part[name] for _, part in parts]) for name in ("t", *PRICES, "volume")}
        names = b"".join(_text_cell(symbol) * len(part["t"]) for symbol, part in parts)
        self._insert_block(self._client, names, joined)

    def _insert_part(self, client: "Client", symbol: str, columns: dict[str, NDArray[Any]]) -> None:
        self._insert_block(client, _text_cell(symbol) * len(columns["t"]), columns)

    def _insert_block(self, client: "Client", symbols: bytes, columns: dict[str, NDArray[Any]]) -> None:
        block = _native_block(
            len(columns["t"]),
            [
                ("symbol", "String", symbols),
                ("timestamp", "DateTime64(3)", columns["t"].astype("<i8").tobytes()),
                *((price, "UInt64", columns[price].astype("<u8").tobytes()) for price in (*PRICES, "volume")),
            ],
        )
        with _failures("candles"):
            # The rows are sorted and unique already: replacing within the block would only cost time. And replicated
            # tables would drop a block that they have seen before: a correction that is taken back must count. And an
            # insert that its writer has given up must not land after the writer's lease (see io/coverage).
            client.raw_insert(
                "market_data_1m",
                ["symbol", "timestamp", *PRICES, "volume"],
                block,
                settings={
                    "optimize_on_insert": "0",
                    "insert_deduplicate": "0",
                    "max_execution_time": str(REPLY_SECONDS),
                },
                fmt="Native",
            )

    def volume_scale(self, symbol: str) -> int | None:
        """What volumes of `symbol` are multiplied by; None where the symbol has not been stored."""
        sql = "SELECT volume_scale FROM symbols WHERE symbol = {symbol:String} ORDER BY created_at LIMIT 1"
        rows = self._rows(sql, {"symbol": symbol})
        return int(rows[0][0]) if rows else None

    def add_symbol(self, symbol: str, volume_scale: int) -> None:
        self._insert("symbols", [{"symbol": symbol, "volume_scale": volume_scale}])

    def symbols(self) -> list[str]:
        """Symbols that have candles."""
        rows = self._rows("SELECT DISTINCT symbol FROM coverage_days WHERE rows > 0 OR digest = '' ORDER BY symbol", {})
        return [str(row[0]) for row in rows]

    def days(self, symbol: str, start: int | None = None, end: int | None = None) -> list[Day]:
        """The metadata index of `symbol`, ascending; of the days that touch `start <= t < end` where given."""
        # Of a day's rows the last is chosen here: FINAL, and reckoning with days in SQL, take twice as long.
        sql = """
            SELECT toInt64(day), rows, first_ms, last_ms, digest, version FROM coverage_days
            WHERE symbol = {symbol:String}
        """
        bound: dict[str, object] = {"symbol": symbol}
        if start is not None:
            sql, bound["first"] = sql + " AND day >= {first:Date}", _date_text(start)
        if end is not None:
            sql, bound["last"] = sql + " AND day <= {last:Date}", _date_text(end - 1)
        found: dict[int, Sequence[Any]] = {}
        for row in self._rows(sql, bound):
            other = found.setdefault(row[0], row)
            if row[5] > other[5] or (row[5] == other[5] and not row[4]):
                found[row[0]] = row
        days = [Day(r[0] * DAY_MS, r[1], r[2], r[3], r[4]) for _, r in sorted(found.items())]
        return [day for day in days if day.rows or not day.digest]

    def put_days(self, found: Mapping[str, Sequence[Day]], version: int | None = None) -> None:
        """Set days of the index. Of a day's rows that with the highest version counts: the time in ns unless given."""
        version = time.time_ns() if version is None else version
        rows = [
            {
                "symbol": symbol,
                "day": _date_text(day.start),
                "rows": day.rows,
                "first_ms": day.first,
                "last_ms": day.last,
                "digest": day.digest,
                "version": version,
            }
            for symbol, days in found.items()
            for day in days
        ]
        self._insert("coverage_days", rows)

    # -- writers of candles: see io/coverage -------------------------------------------------------------------------

    def now_ns(self) -> int:
        """The database's clock. Versions that are compared come from it, not from the clocks of many machines."""
        return int(self._rows("SELECT toUnixTimestamp64Nano(now64(9))", {})[0][0])

    def put_writer(self, writer: str, version: int, is_open: bool, first: int, last: int) -> None:
        row = {"writer": writer, "version": version, "open": int(is_open), "first_ms": first, "last_ms": last}
        self._insert("candle_writers", [row])

    def open_writers(self, writer: str, since: int, first: int, last: int) -> list[str]:
        """Others than `writer` that have been writing since some ns, to days that touch `first` to `last` (ms)."""
        sql = """
            SELECT writer FROM candle_writers FINAL
            WHERE open = 1 AND writer != {writer:String} AND version >= {since:UInt64}
              AND first_ms <= {last:Int64} AND last_ms >= {first:Int64}
        """
        bound = {"writer": writer, "since": since, "first": first, "last": last}
        return [str(row[0]) for row in self._rows(sql, bound)]

    # -- funding rates ---------------------------------------------------------------------------------------------

    def funding(self, symbol: str) -> Funding:
        """All of a symbol's funding rates; of two at the same instant the last inserted wins."""
        sql = """
            SELECT toUnixTimestamp64Milli(timestamp) AS t, rate FROM funding_rates FINAL
            WHERE symbol = {symbol:String} ORDER BY t
        """
        rows = self._rows(sql, {"symbol": symbol})
        return Funding(*(np.array([row[k] for row in rows], dtype=np.int64) for k in (0, 1)))

    def put_funding(self, symbol: str, funding: Funding) -> None:
        rows = zip(funding.t.tolist(), funding.rate.tolist(), strict=True)
        self._insert("funding_rates", [{"symbol": symbol, "timestamp": t / 1000, "rate": rate} for t, rate in rows])

    # -- jobs ------------------------------------------------------------------------------------------------------

    def put_partials(self, partials: Sequence[Partial]) -> None:
        if self.seen is not None:
            self.seen.tasks.note({row.job_id for row in partials})
        self._insert("backtest_slices", partials)

    def partials(self, job_id: str, batch: int | None = None) -> list[Partial]:
        if self.seen is not None and not self.seen.tasks.perhaps([job_id]):
            return []
        sql = f"""
            SELECT {", ".join(Partial.__struct_fields__)} FROM backtest_slices FINAL
            WHERE job_id = {{job:String}} AND ({{batch:Int64}} < 0 OR batch = {{batch:Int64}})
        """  # noqa: S608
        rows = self._rows(sql, {"job": job_id, "batch": -1 if batch is None else batch})
        return [Partial(*row) for row in rows]

    def count_partials(self, job_id: str, kind: str, ending: str, batch: int | None = None) -> int:
        """How many different tasks of `kind` whose names end like that have a row."""
        sql = """
            SELECT uniqExact(batch, slice, task) FROM backtest_slices
            WHERE job_id = {job:String} AND kind = {kind:String} AND ({batch:Int64} < 0 OR batch = {batch:Int64})
              AND endsWith(task, {ending:String})
        """
        bound = {"job": job_id, "kind": kind, "ending": ending, "batch": -1 if batch is None else batch}
        return int(self._rows(sql, bound)[0][0])

    def put_results(self, results: Sequence[ResultRow]) -> None:
        if self.seen is not None:
            self.seen.results.note(row.job_id for row in results)
        self._insert("backtest_results", results)

    def has_result(self, job_id: str) -> bool:
        if self.seen is not None and not self.seen.results.perhaps([job_id]):
            return False
        sql = "SELECT 1 FROM backtest_results WHERE job_id = {job:String} LIMIT 1"
        return bool(self._rows(sql, {"job": job_id}))

    def results(self, job_ids: Sequence[str]) -> list[ResultRow]:
        """The newest result row of each job id that has one."""
        sql = f"""
            SELECT {", ".join(ResultRow.__struct_fields__)} FROM backtest_results
            WHERE job_id IN {{jobs:Array(String)}} ORDER BY created_at DESC LIMIT 1 BY job_id
        """  # noqa: S608
        return [ResultRow(*row) for row in self._rows(sql, {"jobs": list(job_ids)})]

    def count_sweep(self, sweep_id: str) -> int:
        sql = "SELECT uniqExact(job_id) FROM backtest_results WHERE sweep_id = {sweep:String}"
        return int(self._rows(sql, {"sweep": sweep_id})[0][0])

    def sweep_results(
        self, sweep_id: str, sort: Sequence[str], descending: bool, limit: int | None, offset: int = 0
    ) -> Iterator[str]:
        """The results of a sweep's parameter sets as JSON, ordered by the figure at the path `sort`, then by job id.

        Ids first, then rows by the hundred: memory does not grow with the sweep. Figures may pass 64 bits; the raw
        text keeps them, in quotes from there on.
        """
        order = "DESC" if descending else "ASC"
        path = ", ".join(f"{{sort{k}:String}}" for k in range(len(sort)))
        sql = f"""
            SELECT job_id FROM backtest_results WHERE sweep_id = {{sweep:String}} GROUP BY job_id
            ORDER BY
                argMax(toInt256OrZero(trim(BOTH '"' FROM JSONExtractRaw(result, {path}))), created_at) {order},
                job_id
            LIMIT {{limit:UInt32}} OFFSET {{offset:UInt32}}
        """  # noqa: S608
        bound: dict[str, object] = {"sweep": sweep_id, "limit": limit or SWEEP_ROWS_LIMIT, "offset": offset}
        bound |= {f"sort{k}": name for k, name in enumerate(sort)}
        ids = [str(row[0]) for row in self._rows(sql, bound)]
        for k in range(0, len(ids), SWEEP_ROWS_AT_ONCE):
            some = ids[k : k + SWEEP_ROWS_AT_ONCE]
            sql = """
                SELECT job_id, result FROM backtest_results
                WHERE sweep_id = {sweep:String} AND job_id IN {jobs:Array(String)}
                ORDER BY created_at DESC LIMIT 1 BY job_id
            """
            found = {row[0]: str(row[1]) for row in self._rows(sql, {"sweep": sweep_id, "jobs": some})}
            yield from (found[job_id] for job_id in some)

    def best_figures(self, job_ids: Sequence[str]) -> dict[str, tuple[int, int, int, int]]:
        """Of finished jobs the profit, Sharpe ratio and drawdown, of a sweep those of its best set; and how many sets
        it has."""
        sql = """
            SELECT if(sweep_id IN {jobs:Array(String)}, sweep_id, job_id) AS job, argMax(total_pnl, sharpe_ratio),
                max(sharpe_ratio), argMax(max_drawdown, sharpe_ratio), uniqExact(job_id)
            FROM backtest_results
            WHERE sweep_id IN {jobs:Array(String)} OR job_id IN {jobs:Array(String)} GROUP BY job
        """
        rows = self._rows(sql, {"jobs": list(job_ids)})
        return {str(row[0]): (int(row[1]), int(row[2]), int(row[3]), int(row[4])) for row in rows}

    def sweep_figures(self, sweep_id: str, path: Sequence[str]) -> list[tuple[str, dict[str, Any], int | None]]:
        """Of each of a sweep's parameter sets its job id, its parameters, and the figure at `path` of its result."""
        names = ", ".join(f"{{path{k}:String}}" for k in range(len(path)))
        sql = f"""
            SELECT
                job_id, any(JSONExtractRaw(result, 'params')),
                any(trim(BOTH '"' FROM JSONExtractRaw(result, {names})))
            FROM backtest_results WHERE sweep_id = {{sweep:String}} GROUP BY job_id ORDER BY job_id
        """  # noqa: S608
        bound: dict[str, object] = {"sweep": sweep_id}
        bound |= {f"path{k}": name for k, name in enumerate(path)}
        return [
            (row[0], msgspec.json.decode(row[1]), None if row[2] in ("", "null") else int(row[2]))
            for row in self._rows(sql, bound)
        ]

    def sweep_scores(self, sweep_id: str) -> dict[str, int]:
        """The Sharpe ratios of a sweep's parameter sets by job id."""
        sql = "SELECT job_id, any(sharpe_ratio) FROM backtest_results WHERE sweep_id = {sweep:String} GROUP BY job_id"
        return {str(row[0]): int(row[1]) for row in self._rows(sql, {"sweep": sweep_id})}

    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]:
        """The daily figures of some of a sweep's parameter sets by job id, see `candlemill.daily`."""
        sql = """
            SELECT job_id, any(daily) FROM backtest_results
            WHERE sweep_id = {sweep:String} AND job_id IN {jobs:Array(String)} GROUP BY job_id
        """
        found: dict[str, str] = {}
        for k in range(0, len(job_ids), SWEEP_ROWS_AT_ONCE):
            bound: dict[str, object] = {"sweep": sweep_id, "jobs": list(job_ids[k : k + SWEEP_ROWS_AT_ONCE])}
            found |= {str(row[0]): str(row[1]) for row in self._rows(sql, bound)}
        return found

    def result_rows(self, job_id: str) -> list[ResultRow]:
        """All rows of a job: it has several where it was computed again, or was part of sweeps."""
        sql = f"""
            SELECT {", ".join(ResultRow.__struct_fields__)} FROM backtest_results
            WHERE job_id = {{job:String}} ORDER BY created_at DESC
        """  # noqa: S608
        return [ResultRow(*row) for row in self._rows(sql, {"job": job_id})]

    def complete_id(self, start: str) -> str:
        """The only job or sweep id with results that starts so; `start` itself where none or several do."""
        sql = """
            SELECT DISTINCT arrayJoin([job_id, sweep_id]) AS id FROM backtest_results
            WHERE startsWith(id, {start:String}) LIMIT 2
        """
        rows = self._rows(sql, {"start": start}) if len(start) >= ID_LETTERS else []
        return str(rows[0][0]) if len(rows) == 1 else start

    def recent_results(self, limit: int) -> list[tuple[str, ResultRow]]:
        """The newest results with their times of creation; of a job id's rows the newest."""
        sql = f"""
            SELECT toString(created_at), {", ".join(ResultRow.__struct_fields__)} FROM backtest_results
            ORDER BY created_at DESC, job_id LIMIT 1 BY job_id LIMIT {{limit:UInt32}}
        """  # noqa: S608
        return [(str(row[0]), ResultRow(*row[1:])) for row in self._rows(sql, {"limit": limit})]

    def learn_keys(self) -> None:
        """Fill `seen`, which those that write to this embedded database share."""
        if self.seen is not None:
            self.seen.jobs.are(self._numbers("backtest_jobs", "job_id"))
            self.seen.tasks.are(self._numbers("backtest_slices", "job_id"))
            self.seen.results.are(self._numbers("backtest_results", "job_id"))
            self.seen.sets.are(self._numbers("slice_outcomes", "set_key"))

    def _numbers(self, table: str, key: str) -> NDArray[np.uint64]:
        number = f"reinterpretAsUInt64(reverse(unhex(substring({key}, 1, {LETTERS}))))"
        sql = f"SELECT DISTINCT {number} FROM {table} LIMIT {LIMIT + 1}"  # noqa: S608
        with _failures("keys"), self._client.query_column_block_stream(sql) as stream:
            blocks = [np.asarray(block[0], dtype=np.uint64) for block in stream if len(block[0])]
        return np.concatenate(blocks) if blocks else np.empty(0, dtype=np.uint64)

    # -- plumbing --------------------------------------------------------------------------------------------------

    def _command(self, sql: str, bound: dict[str, object]) -> None:
        with _failures("command"):
            self._client.command(sql, parameters=bound)

    def _rows(self, sql: str, bound: dict[str, object]) -> Sequence[Sequence[Any]]:
        with _failures("query"):
            return self._client.query(sql, parameters=bound).result_rows

    def _insert(self, table: str, rows: Sequence[msgspec.Struct | dict[str, Any]]) -> None:
        """Append rows as JSON; for few rows that is as fast as any way, and needs no data frames to be imported."""
        if not rows:
            return
        # On a server rows arrive from many writers one by one: it gathers them into parts, and answers when written.
        settings = {} if self.embedded else {"async_insert": "1", "wait_for_async_insert": "1"}
        lines = b"\n".join(msgspec.json.encode(row) for row in rows)
        with _failures("insert"):
            self._client.raw_insert(table, insert_block=lines, settings=settings, fmt="JSONEachRow")


def _connect(dsn: str) -> "Client":
    import clickhouse_connect  # imported late: a third of a second that `candlemill strategies` need not pay

    # What it would log of a failure comes back as an exception, and is told once.
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())
    if dsn.startswith("chdb:"):
        folder = _folder(dsn)
        with _failures("connect"):
            folder.mkdir(parents=True, exist_ok=True)
            check_unlocked(folder)
            return clickhouse_connect.get_client(interface="chdb", path=str(folder))
    _check_server(dsn)
    with _failures("connect"):
        return clickhouse_connect.get_client(
            dsn=dsn,
            connect_timeout=CONNECT_SECONDS,
            send_receive_timeout=REPLY_SECONDS,
            autogenerate_session_id=False,  # calls from several threads are independent
        )


def _folder(dsn: str) -> Path:
    text = dsn.removeprefix("chdb://")
    if not text.startswith("/") or "?" in text:  # the engine takes what follows a question mark for options
        raise BadInput(f"{DSN_VARIABLE}={dsn} names no folder: write it like chdb:///home/me/candles, without '?'")
    return Path(text)


def _check_server(dsn: str) -> None:
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
def _failures(operation: str) -> Iterator[None]:
    """One question to the database: it is told of, and its errors are ours, in one line."""
    from clickhouse_connect.driver import exceptions

    with telemetry.asking(operation):
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
    return StoreError(f"the database refused: {_line(error)}")


def _line(error: Exception) -> str:
    """What an error says, without the layers that it came through."""
    text = re.sub(r"\s+", " ", str(error)).strip()
    deepest = re.search(r"(HTTPS?)Connection\(host='([^']*)', port=(\d+)\): (?:Failed to [\w ]+: )?(.*?)\"?\)+ ", text)
    if deepest:
        return f"{deepest[2]}:{deepest[3]}: {deepest[4]}"
    return text[:300]


def _date_text(ms: int) -> str:
    return date.fromordinal(EPOCH_ORDINAL + ms // DAY_MS).isoformat()


def _native_block(rows: int, columns: Sequence[tuple[str, str, bytes]]) -> bytes:
    """ClickHouse's Native format: counts, then name, type and flat little-endian values of each column."""
    out = [_varint(len(columns)), _varint(rows)]
    for name, kind, data in columns:
        out += [_varint(len(name)), name.encode(), _varint(len(kind)), kind.encode(), data]
    return b"".join(out)


def _text_cell(text: str) -> bytes:
    raw = text.encode()
    return _varint(len(raw)) + raw


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
