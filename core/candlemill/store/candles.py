"""Tables of candles, of their days and of funding rates."""

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.tiers import TierTable, tiers_of
from candlemill.engine.candles import DAY_MS
from candlemill.store.base import NEWEST, PRICES
from candlemill.store.connection import REPLY_SECONDS, Connection, append, connect_writer, failures, folder_of
from candlemill.store.kept_days import KeptDays, count_write
from candlemill.store.native import block_of, repeated_texts
from candlemill.stored_days import Day, Funding
from candlemill.telemetry import instrument
from candlemill.units import FIRST_MS, LAST_MS, clock_ms

if TYPE_CHECKING:
    from candlemill.store.connection import Writer

WRITERS = 3  # an insert waits for the disk half of the time
SYMBOLS_AT_ONCE = 500
SPANS_BOUND = 64  # in one statement
INSERT_ONCE = {
    "optimize_on_insert": "0",  # the rows are sorted and unique already
    "insert_deduplicate": "0",  # replicated tables would drop a block equal to an earlier one: it may be a correction
    "max_threads": "1",  # more take turns with one block
    "max_execution_time": str(REPLY_SECONDS),  # it must not complete after the writer's lease (see candle_writer)
}
EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class CandleTable(Connection):
    """The tables of candles; the methods are documented in `store.base.CandleStore`."""

    _kept: KeptDays | None = None

    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        columns = self._column_blocks(symbol, start, end, names, "")
        t = columns["t"]
        if (t[1:] <= t[:-1]).any():
            # The engine has not merged duplicates yet: FINAL does it in the query.
            columns = self._column_blocks(symbol, start, end, names, "FINAL")
            order = np.argsort(columns["t"], kind="stable")
            columns = {name: column[order] for name, column in columns.items()}
        return columns

    def _column_blocks(
        self, symbol: str, start: int, end: int, names: Sequence[str], final: str
    ) -> dict[str, NDArray[Any]]:
        """Read columns. Blocks arrive in any order; each is sorted, so sorting them by their first time suffices."""
        selected = ", ".join(names)  # never from a user
        sql = f"""
            SELECT toUnixTimestamp64Milli(timestamp) AS t{", " + selected if selected else ""}
            FROM market_data_1m {final}
            WHERE symbol = {{symbol:String}}
              AND timestamp >= fromUnixTimestamp64Milli({{start:Int64}})
              AND timestamp < fromUnixTimestamp64Milli({{end:Int64}})
        """  # noqa: S608
        bound = {"symbol": symbol, "start": start, "end": end}
        kinds: dict[str, type] = {name: np.uint64 if name == "volume" else np.int64 for name in ("t", *names)}
        blocks = self._blocks(sql, bound)
        instrument.ROWS.add(n=sum(len(block[0]) for block in blocks))
        blocks.sort(key=lambda block: block[0][0])
        if not blocks:
            return {name: np.empty(0, dtype=kind) for name, kind in kinds.items()}
        return {
            name: np.concatenate([np.asarray(block[k]) for block in blocks]).view(kind)
            for k, (name, kind) in enumerate(kinds.items())
        }

    def read_many(self, symbols: Sequence[str], start: int, end: int) -> dict[str, dict[str, NDArray[Any]]]:
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
        """Rows sorted by code (the symbol's position in the list) and time."""
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
        blocks = self._blocks(sql, bound)
        instrument.ROWS.add(n=sum(len(block[0]) for block in blocks))
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
        while len(self._writers) < WRITERS:
            self._writers.append(connect_writer(self.dsn))
        idle: SimpleQueue[Writer] = SimpleQueue()
        for writer in self._writers:
            idle.put(writer)

        def insert(part: dict[str, NDArray[Any]]) -> None:
            writer = idle.get()
            try:
                self._insert_block(writer, [(symbol, len(part["t"]))], part)
            finally:
                idle.put(writer)

        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(insert, parts))

    def insert_rows(self, parts: Sequence[tuple[str, dict[str, NDArray[Any]]]]) -> None:
        joined = {name: np.concatenate([part[name] for _, part in parts]) for name in ("t", *PRICES, "volume")}
        self._insert_block(self._client, [(symbol, len(part["t"])) for symbol, part in parts], joined)

    def _insert_block(
        self, writer: "Writer", symbols: Sequence[tuple[str, int]], columns: dict[str, NDArray[Any]]
    ) -> None:
        """Insert candles of symbols, each with its number of rows."""
        numbers = [
            (price, "UInt64", columns[price].astype("<u8", copy=False).tobytes()) for price in (*PRICES, "volume")
        ]
        block = block_of(
            len(columns["t"]),
            [
                ("symbol", "LowCardinality(String)", repeated_texts(symbols)),
                ("timestamp", "DateTime64(3)", columns["t"].astype("<i8", copy=False).tobytes()),
                *numbers,
            ],
        )
        with failures("candles"):
            append(writer, "market_data_1m", ["symbol", "timestamp", *PRICES, "volume"], "Native", block, INSERT_ONCE)

    def volume_scale(self, symbol: str) -> int | None:
        sql = "SELECT volume_scale FROM symbols WHERE symbol = {symbol:String} ORDER BY created_at LIMIT 1"
        rows = self._rows(sql, {"symbol": symbol})
        return int(rows[0][0]) if rows else None

    def add_symbol(self, symbol: str, volume_scale: int) -> None:
        self._insert("symbols", [{"symbol": symbol, "volume_scale": volume_scale}])

    def symbols(self) -> list[str]:
        rows = self._rows("SELECT DISTINCT symbol FROM coverage_days WHERE rows > 0 OR digest = '' ORDER BY symbol", {})
        return [str(row[0]) for row in rows]

    def days(self, symbol: str, start: int | None = None, end: int | None = None) -> Sequence[Day]:
        return self._read_days(symbol, start, end) if self._kept is None else self._kept.days(symbol, start, end)

    def keep_days(self) -> None:
        """Keep the index in memory between the calls, of an embedded database."""
        self._kept = KeptDays(folder_of(self.dsn), self._read_days)

    def _read_days(self, symbol: str, start: int | None = None, end: int | None = None) -> list[Day]:
        # The latest row of a day is chosen here: FINAL and date arithmetic in SQL take twice as long.
        sql = """
            SELECT toInt64(day), toInt64(rows), first_ms, last_ms, toInt64(version), digest FROM coverage_days
            WHERE symbol = {symbol:String}
        """
        bound: dict[str, object] = {"symbol": symbol}
        if start is not None:
            sql, bound["first"] = sql + " AND day >= {first:Date}", _date_text(start)
        if end is not None:
            sql, bound["last"] = sql + " AND day <= {last:Date}", _date_text(end - 1)
        blocks = self._blocks(sql, bound)
        if not blocks:
            return []
        day, rows, first, last, version = (
            np.concatenate([np.asarray(block[k], dtype=np.int64) for block in blocks]) for k in range(5)
        )
        digests = [digest for block in blocks for digest in block[5]]
        is_empty = np.array([not digest for digest in digests])
        order = np.lexsort((is_empty, version, day))  # of equal versions, the day without a digest is the valid one
        is_last = np.append(day[order][1:] != day[order][:-1], True)
        kept = order[is_last & ((rows[order] > 0) | is_empty[order])]
        found = [column[kept].tolist() for column in (day * DAY_MS, rows, first, last)]
        return list(map(Day, *found, [digests[k] for k in kept.tolist()]))

    def days_of_candles(self, symbol: str, outside: Sequence[tuple[int, int]] = ()) -> list[int]:
        # The table's key bounds what is read: almost nothing, where `outside` is all that is stored.
        longest = sorted(sorted(outside, key=lambda span: span[0] - span[1])[:SPANS_BOUND])
        starts, ends = [FIRST_MS, *(end for _, end in longest)], [*(start for start, _ in longest), LAST_MS]
        between = " OR ".join(
            f"(timestamp >= fromUnixTimestamp64Milli({a}) AND timestamp < fromUnixTimestamp64Milli({b}))"
            for a, b in zip(starts, ends, strict=True)
        )
        sql = f"""
            SELECT DISTINCT toInt64(toDate(timestamp, 'UTC')) AS day FROM market_data_1m
            WHERE symbol = {{symbol:String}} AND ({between})
        """  # noqa: S608 numbers
        return sorted(int(row[0]) * DAY_MS for row in self._rows(sql, {"symbol": symbol}))

    def day_versions(self, days: Mapping[str, Sequence[int]]) -> dict[tuple[str, int], int]:
        starts = [start for some in days.values() for start in some]
        sql = """
            SELECT symbol, toInt64(day), max(version) FROM coverage_days
            WHERE symbol IN {symbols:Array(String)} AND day BETWEEN {first:Date} AND {last:Date} GROUP BY symbol, day
        """
        bound: dict[str, object] = {
            "symbols": list(days),
            "first": _date_text(min(starts)),
            "last": _date_text(max(starts)),
        }
        known = {(str(row[0]), int(row[1]) * DAY_MS): int(row[2]) for row in self._rows(sql, bound)}
        return {(symbol, start): known.get((symbol, start), 0) for symbol, some in days.items() for start in some}

    def day_rows(self, days: Mapping[str, Sequence[int]]) -> dict[tuple[str, int], int]:
        starts = [start for some in days.values() for start in some]
        sql = """
            SELECT symbol, intDiv(toUnixTimestamp64Milli(timestamp), {day:Int64}), count() FROM market_data_1m
            WHERE symbol IN {symbols:Array(String)} AND timestamp >= fromUnixTimestamp64Milli({start:Int64})
              AND timestamp < fromUnixTimestamp64Milli({end:Int64}) GROUP BY 1, 2
        """
        bound: dict[str, object] = {
            "symbols": list(days), "day": DAY_MS, "start": min(starts), "end": max(starts) + DAY_MS
        }  # fmt: skip
        found = {(str(row[0]), int(row[1]) * DAY_MS): int(row[2]) for row in self._rows(sql, bound)}
        requested = {(symbol, start) for symbol, some in days.items() for start in some}
        return {key: rows for key, rows in found.items() if key in requested}

    def put_days(self, found: Mapping[str, Sequence[Day]], versions: Mapping[tuple[str, int], int] = NEWEST) -> None:
        if versions is NEWEST and any(found.values()):
            known = self.day_versions({symbol: [day.start for day in days] for symbol, days in found.items() if days})
            versions = {key: max(time.time_ns(), version + 1) for key, version in known.items()}
        rows = [
            {
                "symbol": symbol,
                "day": _date_text(day.start),
                "rows": day.rows,
                "first_ms": day.first,
                "last_ms": day.last,
                "digest": day.digest,
                "version": versions[symbol, day.start],
            }
            for symbol, days in found.items()
            for day in days
        ]
        try:
            self._insert("coverage_days", rows)
        finally:
            if self.embedded:
                count_write(folder_of(self.dsn))

    # -- writers of candles: see candle_writer -----------------------------------------------------------------------

    def now_ns(self) -> int:
        # The clock may be set: its users do not rely on it alone.
        return int(self._rows("SELECT toUnixTimestamp64Nano(now64(9))", {})[0][0])

    def put_writer(self, writer: str, version: int, is_open: bool, first: int, last: int) -> None:
        row = {"writer": writer, "version": version, "open": int(is_open), "first_ms": first, "last_ms": last}
        self._insert("candle_writers", [row])

    def open_writers(self, writer: str, first: int, last: int) -> list[tuple[str, int]]:
        sql = """
            SELECT writer, version FROM candle_writers FINAL
            WHERE open = 1 AND writer != {writer:String} AND first_ms <= {last:Int64} AND last_ms >= {first:Int64}
        """
        bound = {"writer": writer, "first": first, "last": last}
        return [(str(row[0]), int(row[1])) for row in self._rows(sql, bound)]

    # -- funding rates ---------------------------------------------------------------------------------------------

    def funding(self, symbol: str) -> Funding:
        sql = """
            SELECT toUnixTimestamp64Milli(timestamp) AS t, rate FROM funding_rates FINAL
            WHERE symbol = {symbol:String} ORDER BY t
        """
        rows = self._rows(sql, {"symbol": symbol})
        return Funding(*(np.array([row[k] for row in rows], dtype=np.int64) for k in (0, 1)))

    def put_funding(self, symbol: str, funding: Funding) -> None:
        rows = zip(funding.t.tolist(), funding.rate.tolist(), strict=True)
        self._insert("funding_rates", [{"symbol": symbol, "timestamp": t / 1000, "rate": rate} for t, rate in rows])

    # -- maintenance tiers -----------------------------------------------------------------------------------------

    def margin_tiers(self, symbol: str) -> list[TierTable]:
        sql = """
            SELECT toUnixTimestamp64Milli(valid_from) AS t, tiers FROM margin_tiers FINAL
            WHERE symbol = {symbol:String} ORDER BY t
        """
        return [TierTable(int(row[0]), tiers_of(row[1])) for row in self._rows(sql, {"symbol": symbol})]

    def put_margin_tiers(self, symbol: str, tables: Sequence[TierTable]) -> None:
        sql = "SELECT toUnixTimestamp64Milli(max(inserted_at)) FROM margin_tiers WHERE symbol = {symbol:String}"
        now = max(clock_ms(), int(self._rows(sql, {"symbol": symbol})[0][0]) + 1)
        rows = [(table.valid_from / 1000, msgspec.json.encode(table.tiers).decode()) for table in tables]
        self._insert(
            "margin_tiers",
            [{"symbol": symbol, "valid_from": t, "tiers": tiers, "inserted_at": now / 1000} for t, tiers in rows],
        )


def _date_text(ms: int) -> str:
    return date.fromordinal(EPOCH_ORDINAL + ms // DAY_MS).isoformat()
