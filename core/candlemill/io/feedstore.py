"""What the feed keeps beside candles, and reading many symbols at once."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from candlemill.exchange import Rules
from candlemill.io.store import Store
from candlemill.minutes import Span


class FeedStore(Store):
    """A Store with the tables of the feed."""

    def outages(self, symbol: str) -> list[Span]:
        """Stretches in which the exchange has no candles."""
        sql = "SELECT DISTINCT start_ms, end_ms FROM candle_outages WHERE symbol = {symbol:String} ORDER BY start_ms"
        return [(int(a), int(b)) for a, b in self._rows(sql, {"symbol": symbol})]

    def put_outages(self, found: Sequence[tuple[str, int, int]]) -> None:
        self._insert("candle_outages", [{"symbol": s, "start_ms": a, "end_ms": b} for s, a, b in found])

    def audits(self) -> dict[str, int]:
        """Until when (ms) each symbol has been compared with its exchange's history."""
        rows = self._rows("SELECT symbol, max(until_ms) FROM candle_audits GROUP BY symbol", {})
        return {str(symbol): int(until) for symbol, until in rows}

    def put_audits(self, found: Mapping[str, int]) -> None:
        self._insert("candle_audits", [{"symbol": symbol, "until_ms": until} for symbol, until in found.items()])

    def archive_files(self, names: Sequence[str]) -> dict[str, str]:
        """The sha256 of those of the files that are stored."""
        sql = "SELECT name, sha256 FROM archive_files FINAL WHERE name IN {names:Array(String)}"
        return {str(name): str(sha) for name, sha in self._rows(sql, {"names": list(names)})}

    def put_archive_files(self, files: Mapping[str, str]) -> None:
        self._insert("archive_files", [{"name": name, "sha256": sha} for name, sha in files.items()])

    def scales(self) -> dict[str, int]:
        """The volume scale of every symbol that is stored."""
        rows = self._rows("SELECT symbol, volume_scale FROM symbols ORDER BY created_at DESC", {})
        return {str(symbol): int(scale) for symbol, scale in rows}

    def put_rules(self, rules: Mapping[str, tuple[Rules, int]]) -> None:
        """Rules and volume scales by the store's names of symbols; the scale is the stored one where there is one."""
        rows = [
            {"symbol": symbol, "volume_scale": scale, "tick": rule.tick, "step": rule.step, "status": rule.status}
            for symbol, (rule, scale) in rules.items()
        ]
        self._insert("symbols", rows)

    def rules_of(self, symbol: str) -> tuple[str, str, str]:
        """Tick, step and status as last said; empty where unknown."""
        sql = "SELECT tick, step, status FROM symbols FINAL WHERE symbol = {symbol:String}"
        rows = self._rows(sql, {"symbol": symbol})
        return (str(rows[0][0]), str(rows[0][1]), str(rows[0][2])) if rows else ("", "", "")

    def times(self, symbol: str, start: int, end: int) -> NDArray[np.int64]:
        found: NDArray[np.int64] = self.read_columns(symbol, start, end, ())["t"]
        return found

    def count_parts(self) -> int:
        """How many parts the table of candles has: a figure to watch."""
        sql = """
            SELECT count() FROM system.parts
            WHERE active AND table = 'market_data_1m' AND database = currentDatabase()
        """
        return int(self._rows(sql, {})[0][0])


def iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")
