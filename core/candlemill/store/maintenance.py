"""Queries and deletions of `doctor`."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from candlemill.pipeline.rows import JobRow
from candlemill.store.clickhouse import ClickHouseStore

IDS_PER_QUERY = 1_000


class ResultBars(NamedTuple):
    """Results with the same range, data digest and number of bars."""

    symbol: str
    start: int
    end: int
    digest: str
    bars: int
    has_funding: bool
    job_ids: list[str]


class MaintenanceStore(ClickHouseStore):
    """ClickHouseStore with queries about its tables."""

    # -- parts -----------------------------------------------------------------------------------------------------

    def broken_parts(self, table: str) -> Iterator[tuple[str, str]]:
        """Yield active parts with wrong checksums, and the engine's message."""
        rows = self._rows(f"CHECK TABLE {table} SETTINGS check_query_single_value_result = 0", {})
        # The client parses the response like that of a command, as cells of one line.
        lines = "\t".join(str(cell) for row in rows for cell in row).splitlines()
        for line in lines:
            part, passed, message = (*line.split("\t"), "", "")[:3]
            if part and passed == "0":
                yield part, re.sub(r"Code: \d+\. DB::Exception: ", "", message)[:200]

    def detach_part(self, table: str, part: str) -> None:
        self._command(f"ALTER TABLE {table} DETACH PART {{part:String}}", {"part": part})

    def detached_parts(self) -> list[tuple[str, str, str]]:
        """Table, name and reason of detached parts."""
        sql = "SELECT table, name, ifNull(reason, '') FROM system.detached_parts WHERE database = currentDatabase()"
        return [(str(a), str(b), str(c)) for a, b, c in self._rows(sql + " ORDER BY table, name", {})]

    def is_synced(self, table: str) -> bool:
        """Whether inserts are synced to the disk before their response."""
        sql = (
            "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = {table:String}"
        )
        return "fsync_after_insert = 1" in str(self._rows(sql, {"table": table})[0][0])

    def sync_inserts(self, table: str) -> None:
        self._command(f"ALTER TABLE {table} MODIFY SETTING fsync_after_insert = 1, fsync_part_directory = 1", {})

    # -- candles ---------------------------------------------------------------------------------------------------

    def candle_symbols(self) -> list[str]:
        """Symbols that have candles, according to the candle table."""
        return [str(row[0]) for row in self._rows("SELECT DISTINCT symbol FROM market_data_1m ORDER BY symbol", {})]

    def forget_files(self, symbol: str) -> None:
        """Forget the archive files of a symbol, so that they are downloaded again."""
        self._command("DELETE FROM archive_files WHERE startsWith(name, {start:String})", {"start": f"{symbol}-1m-"})

    # -- jobs and results ------------------------------------------------------------------------------------------

    def result_bars(self) -> list[ResultBars]:
        sql = """
            SELECT
                JSONExtractString(result, 'symbol') AS symbol, JSONExtractInt(result, 'start') AS start,
                JSONExtractInt(result, 'end') AS end, JSONExtractString(result, 'data_digest') AS digest,
                JSONExtractInt(result, 'bars') AS bars, JSONExtractBool(result, 'spec', 'funding') AS funded,
                groupUniqArray(job_id)
            FROM backtest_results WHERE NOT JSONHas(result, 'parts')
            GROUP BY symbol, start, end, digest, bars, funded ORDER BY ALL
        """
        return [
            ResultBars(str(r[0]), int(r[1]), int(r[2]), str(r[3]), int(r[4]), bool(r[5]), sorted(r[6]))
            for r in self._rows(sql, {})
        ]

    def portfolio_parts(self) -> list[tuple[str, list[str]]]:
        """Job id of each portfolio, with those of its parts."""
        sql = """
            SELECT job_id, arrayMap(part -> JSONExtractString(part, 'job_id'), JSONExtractArrayRaw(result, 'parts'))
            FROM backtest_results WHERE JSONHas(result, 'parts')
        """
        return [(str(job_id), list(parts)) for job_id, parts in self._rows(sql, {})]

    def sweeps_of(self, job_ids: Sequence[str]) -> list[str]:
        """Sweeps that have results of these parameter sets."""
        sql = "SELECT DISTINCT sweep_id FROM backtest_results WHERE sweep_id != '' AND job_id IN {jobs:Array(String)}"
        return [str(row[0]) for group in _groups(job_ids) for row in self._rows(sql, {"jobs": group})]

    def delete_results(self, job_ids: Sequence[str]) -> None:
        for group in _groups(job_ids):
            self._command("DELETE FROM backtest_results WHERE job_id IN {jobs:Array(String)}", {"jobs": group})

    def delete_outcomes(self, start: int, end: int) -> None:
        """Delete outcomes of slices that overlap `start <= t < end` (ms), of all symbols; they are computed again."""
        sql = "DELETE FROM slice_outcomes WHERE first_ms < {end:Int64} AND end_ms > {start:Int64}"
        self._command(sql, {"start": start, "end": end})

    def delete_tasks(self, job_id: str) -> None:
        self._command("DELETE FROM backtest_slices WHERE job_id = {job:String}", {"job": job_id})

    def done_jobs(self) -> list[JobRow]:
        sql = "SELECT job_id FROM backtest_jobs GROUP BY job_id HAVING argMax(state, attempt * 16 + rank) = 'done'"
        ids = sorted(str(row[0]) for row in self._rows(sql, {}))
        return [row for group in _groups(ids) for row in self.job_rows(group).values()]

    def results_without_jobs(self) -> list[tuple[str, str]]:
        """Job id and sweep id of results without a job; the sweep id is empty for single results."""
        sql = """
            SELECT DISTINCT job_id, sweep_id FROM backtest_results
            WHERE if(sweep_id = '', job_id, sweep_id) NOT IN (SELECT job_id FROM backtest_jobs) ORDER BY ALL
        """
        return [(str(a), str(b)) for a, b in self._rows(sql, {})]


def _groups(ids: Sequence[str]) -> Iterator[list[str]]:
    for k in range(0, len(ids), IDS_PER_QUERY):
        yield list(ids[k : k + IDS_PER_QUERY])
