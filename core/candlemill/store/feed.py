"""Tables of the feed: outages, audits, archive files and trading rules."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from candlemill.intervals import Interval
from candlemill.store.connection import Connection
from candlemill.units import clock_ms

if TYPE_CHECKING:
    from candlemill.exchanges.base import SymbolRules


class FeedTables(Connection):
    """The tables of the feed."""

    def outages(self, symbol: str) -> list[Interval]:
        """Known intervals (ms) without candles at the exchange."""
        sql = "SELECT DISTINCT start_ms, end_ms FROM candle_outages WHERE symbol = {symbol:String} ORDER BY start_ms"
        return [(int(a), int(b)) for a, b in self._rows(sql, {"symbol": symbol})]

    def put_outages(self, found: Sequence[tuple[str, int, int]]) -> None:
        self._insert("candle_outages", [{"symbol": s, "start_ms": a, "end_ms": b} for s, a, b in found])

    def audits(self) -> dict[str, int]:
        """Time (ms) up to which each symbol has been audited against its exchange's history."""
        rows = self._rows("SELECT symbol, max(until_ms) FROM candle_audits GROUP BY symbol", {})
        return {str(symbol): int(until) for symbol, until in rows}

    def put_audits(self, found: Mapping[str, int]) -> None:
        self._insert("candle_audits", [{"symbol": symbol, "until_ms": until} for symbol, until in found.items()])

    def archive_files(self, names: Sequence[str]) -> dict[str, str]:
        """SHA-256 of the files that are stored, by name."""
        sql = "SELECT name, sha256 FROM archive_files FINAL WHERE name IN {names:Array(String)}"
        return {str(name): str(sha) for name, sha in self._rows(sql, {"names": list(names)})}

    def put_archive_files(self, files: Mapping[str, str]) -> None:
        """Store digests of files; the last one of a file is valid, even after the clock was set back."""
        sql = """
            SELECT name, toUnixTimestamp64Milli(max(stored_at)) FROM archive_files
            WHERE name IN {names:Array(String)} GROUP BY name
        """
        known = {str(name): int(ms) for name, ms in self._rows(sql, {"names": list(files)})} if files else {}
        now = clock_ms()
        rows = [
            {"name": name, "sha256": sha, "stored_at": max(now, known.get(name, 0) + 1) / 1000}
            for name, sha in files.items()
        ]
        self._insert("archive_files", rows)

    def scales(self) -> dict[str, int]:
        """Volume scale of every stored symbol."""
        rows = self._rows("SELECT symbol, volume_scale FROM symbols ORDER BY created_at DESC", {})
        return {str(symbol): int(scale) for symbol, scale in rows}

    def put_rules(self, rules: Mapping[str, tuple["SymbolRules", int]]) -> None:
        """Store trading rules and volume scales, by the symbol's name in the store."""
        rows = [
            {"symbol": symbol, "volume_scale": scale, "tick": rule.tick, "step": rule.step, "status": rule.status}
            for symbol, (rule, scale) in rules.items()
        ]
        self._insert("symbols", rows)

    def rules_of(self, symbol: str) -> tuple[str, str, str]:
        """Latest tick, step and status; empty if unknown."""
        sql = "SELECT tick, step, status FROM symbols FINAL WHERE symbol = {symbol:String}"
        rows = self._rows(sql, {"symbol": symbol})
        return (str(rows[0][0]), str(rows[0][1]), str(rows[0][2])) if rows else ("", "", "")
