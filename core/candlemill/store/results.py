"""Table of results."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from candlemill.pipeline.rows import ResultRow, Scores
from candlemill.store.base import ID_LETTERS
from candlemill.store.connection import Connection

SWEEP_ROWS_LIMIT = 1_000_000
SWEEP_ROWS_AT_ONCE = 200
DAILY_AT_ONCE = 2_500  # of the embedded engine, whose statements have no limit of bytes: it reads them in one pass
COLUMNS = ("total_pnl", "sharpe_ratio", "max_drawdown")  # figures that are columns too


class ResultTable(Connection):
    """The table of results; the methods are documented in `store.base.Store`."""

    def put_results(self, results: Sequence[ResultRow]) -> None:
        if self.known_keys is not None:
            self.known_keys.results.add(row.job_id for row in results)
        self._insert_many("backtest_results", results)

    def has_result(self, job_id: str) -> bool:
        if self.known_keys is not None and not self.known_keys.results.may_have([job_id]):
            return False
        sql = "SELECT 1 FROM backtest_results WHERE job_id = {job:String} LIMIT 1"
        return bool(self._rows(sql, {"job": job_id}))

    def results(self, job_ids: Sequence[str]) -> list[ResultRow]:
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
        order = "DESC" if descending else "ASC"
        path = ", ".join(f"{{sort{k}:String}}" for k in range(len(sort)))
        figure = f"""argMax(toInt256OrNull(trim(BOTH '"' FROM JSONExtractRaw(result, {path}))), created_at)"""
        if tuple(sort) in [(name,) for name in COLUMNS] and self._fits(sweep_id, sort[0]):
            figure = f"argMax({sort[0]}, created_at)"
        by_figure = f"{figure} {order} NULLS LAST," if sort else ""
        sql = f"""
            SELECT job_id FROM backtest_results WHERE sweep_id = {{sweep:String}} GROUP BY job_id
            ORDER BY {by_figure} max(number), job_id
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

    def _fits(self, sweep_id: str, column: str) -> bool:
        """Return whether no figure of a sweep was limited to the bounds of its column."""
        sql = f"""
            SELECT min({column}), max({column}) FROM backtest_results WHERE sweep_id = {{sweep:String}}
        """  # noqa: S608 one of COLUMNS
        least, most = self._rows(sql, {"sweep": sweep_id})[0]
        return int(least) > -(2**63) and int(most) < 2**63 - 1

    def best_figures(self, job_ids: Sequence[str]) -> dict[str, tuple[int, int, int, int]]:
        sql = """
            SELECT arrayJoin(arrayFilter(one -> one IN {jobs:Array(String)}, [sweep_id, job_id])) AS job,
                argMax(total_pnl, (sharpe_ratio, -toInt64(number))), max(sharpe_ratio),
                argMax(max_drawdown, (sharpe_ratio, -toInt64(number))), uniqExact(job_id)
            FROM backtest_results
            WHERE sweep_id IN {jobs:Array(String)} OR job_id IN {jobs:Array(String)} GROUP BY job
        """
        rows = self._rows(sql, {"jobs": list(job_ids)})
        return {str(row[0]): (int(row[1]), int(row[2]), int(row[3]), int(row[4])) for row in rows}

    def sweep_figures(self, sweep_id: str, path: Sequence[str]) -> list[tuple[str, dict[str, Any], int | None]]:
        names = ", ".join(f"{{path{k}:String}}" for k in range(len(path)))
        sql = f"""
            SELECT
                job_id, any(JSONExtractRaw(result, 'params')),
                any(trim(BOTH '"' FROM JSONExtractRaw(result, {names})))
            FROM backtest_results WHERE sweep_id = {{sweep:String}} GROUP BY job_id
            ORDER BY max(number), job_id
        """  # noqa: S608
        bound: dict[str, object] = {"sweep": sweep_id}
        bound |= {f"path{k}": name for k, name in enumerate(path)}
        return [
            (row[0], msgspec.json.decode(row[1]), None if row[2] in ("", "null") else int(row[2]))
            for row in self._rows(sql, bound)
        ]

    def sweep_scores(self, sweep_id: str) -> Scores:
        sql = "SELECT number, any(sharpe_ratio) FROM backtest_results WHERE sweep_id = {sweep:String} GROUP BY number"
        blocks = self._blocks(sql, {"sweep": sweep_id})
        numbers = np.concatenate([np.empty(0, dtype=np.int64), *(np.array(block[0], np.int64) for block in blocks)])
        scores = np.concatenate([np.empty(0, dtype=np.int64), *(np.array(block[1], np.int64) for block in blocks)])
        order = np.argsort(numbers)
        return numbers[order], scores[order]

    def sweep_daily(self, sweep_id: str, job_ids: Sequence[str]) -> dict[str, str]:
        sql = """
            SELECT job_id, any(daily) FROM backtest_results
            WHERE sweep_id = {sweep:String} AND job_id IN {jobs:Array(String)} GROUP BY job_id
        """
        found: dict[str, str] = {}
        step = DAILY_AT_ONCE if self.embedded else SWEEP_ROWS_AT_ONCE
        for k in range(0, len(job_ids), step):
            bound: dict[str, object] = {"sweep": sweep_id, "jobs": list(job_ids[k : k + step])}
            found |= {str(row[0]): str(row[1]) for row in self._rows(sql, bound)}
        return found

    def result_rows(self, job_id: str) -> list[ResultRow]:
        sql = f"""
            SELECT {", ".join(ResultRow.__struct_fields__)} FROM backtest_results
            WHERE job_id = {{job:String}} ORDER BY created_at DESC
        """  # noqa: S608
        return [ResultRow(*row) for row in self._rows(sql, {"job": job_id})]

    def complete_id(self, start: str) -> str:
        sql = """
            SELECT DISTINCT id FROM (
                SELECT arrayJoin([job_id, sweep_id]) AS id FROM backtest_results
                UNION ALL SELECT job_id AS id FROM backtest_jobs
            ) WHERE startsWith(id, {start:String}) LIMIT 2
        """
        rows = self._rows(sql, {"start": start}) if len(start) >= ID_LETTERS else []
        return str(rows[0][0]) if len(rows) == 1 else start

    def recent_results(self, limit: int) -> list[tuple[str, ResultRow]]:
        sql = f"""
            SELECT toString(created_at), {", ".join(ResultRow.__struct_fields__)} FROM backtest_results
            WHERE sweep_id = '' ORDER BY created_at DESC, job_id LIMIT 1 BY job_id LIMIT {{limit:UInt32}}
        """  # noqa: S608
        return [(str(row[0]), ResultRow(*row[1:])) for row in self._rows(sql, {"limit": limit})]

    def recent_sweeps(self, limit: int) -> list[tuple[str, str]]:
        sql = """
            SELECT toString(max(created_at)) AS created, sweep_id FROM backtest_results WHERE sweep_id != ''
            GROUP BY sweep_id ORDER BY created DESC, sweep_id LIMIT {limit:UInt32}
        """
        return [(str(row[0]), str(row[1])) for row in self._rows(sql, {"limit": limit})]
