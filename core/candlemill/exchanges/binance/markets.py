"""Binance's markets: whose candles a file of its archive holds, and what they are called in the store.

The archive has one base name for many series: `BTCUSDT-1m-2023-01.zip` is spot, a USD-M perpetual, its mark price and
its index price. Its folders tell them apart: `spot | futures/um | futures/cm`, then `klines | markPriceKlines |
indexPriceKlines | premiumIndexKlines | fundingRate` (github.com/binance/binance-public-data).
"""

import re
from pathlib import Path
from typing import Final

import msgspec

from candlemill.errors import BadFile

STORE_PREFIX: Final = {
    "spot": "",
    "um": "BINANCE-UM:",
    "cm": "BINANCE-CM:",
    "um-mark": "BINANCE-UM-MARK:",
    "cm-mark": "BINANCE-CM-MARK:",
    "um-index": "BINANCE-UM-INDEX:",
    "cm-index": "BINANCE-CM-INDEX:",
}
"""Markets as `--market` takes them, and what their symbols begin with in the store."""

FOLDER_DEPTH: Final = 5
"""`um/monthly/klines/BTCUSDT/1m/FILE`: folders further up say nothing about the file."""

TRADED: Final = "traded"
_VENUES: Final = ("spot", "um", "cm")
_KINDS: Final = {
    "klines": TRADED,
    "markPriceKlines": "mark",
    "indexPriceKlines": "index",
    "premiumIndexKlines": "premium",
    "fundingRate": TRADED,
}
_CONTRACT: Final = re.compile(r"([^_]+)_(?:PERP|[0-9]{6})")
_HEAD_ROWS: Final = 32
_ROW_FIELDS: Final = 12


def is_symbol(text: str) -> bool:
    """Whether Binance could call a symbol so: `BTCUSDT`, `币安人生USDT`, `BTCUSD_PERP`, `BTCUSDT_230331`."""
    match = _CONTRACT.fullmatch(text)
    base = match[1] if match else text
    return len(text) <= 40 and base.isalnum() and base == base.upper()


def store_name(market: str, symbol: str) -> str:
    return STORE_PREFIX[market] + symbol


def mark_name(name: str) -> str | None:
    """What the mark prices of a stored perpetual are called; None for a name that is no perpetual of Binance."""
    for market in ("um", "cm"):
        if name.startswith(STORE_PREFIX[market]):
            return store_name(f"{market}-mark", name.removeprefix(STORE_PREFIX[market]))
    return None


class FileMarket(msgspec.Struct, frozen=True):
    """Market of a file by its folders and its symbol: venue (spot, um, cm) and kind of prices (traded, mark, index).

    None is unknown.
    """

    venue: str | None
    kind: str | None

    @property
    def market(self) -> str | None:
        """Return the market; None if the venue of traded candles is unknown."""
        return self.venue if self.kind in (None, TRADED) else f"{self.venue}-{self.kind}"

    def agrees(self, market: str) -> bool:
        """Return whether the file may be of `market`."""
        venue, _, kind = market.partition("-")
        return self.venue in (None, venue) and self.kind in (None, kind or TRADED)


def file_market(file: Path, symbol: str) -> FileMarket:
    """Return the market of a file by its nearest folders and its symbol.

    Raises BadFile for premium indices, and if folders and symbol contradict each other.
    """
    nearest = [folder.name for folder in file.absolute().parents][:FOLDER_DEPTH]
    venue = next((name for name in nearest if name in _VENUES), None)
    kind = next((_KINDS[name] for name in nearest if name in _KINDS), None)
    if contract := _CONTRACT.fullmatch(symbol):
        by_symbol = "cm" if contract[1].endswith("USD") else "um"
        if venue not in (None, by_symbol):
            raise BadFile(str(file), None, f"{symbol} is a contract of {by_symbol}, but its folder is of {venue}")
        venue = by_symbol
    if kind == "premium":
        reason = "premium indices are rates around 0, not prices: klines, mark and index prices are read"
        raise BadFile(str(file), None, reason)
    if kind not in (None, TRADED):
        if venue == "spot":
            raise BadFile(str(file), None, f"a folder of {kind} prices within spot, which has none: expected um or cm")
        venue = venue or ("cm" if symbol.endswith("USD") else "um")
    return FileMarket(venue, kind)


# -- by the columns ----------------------------------------------------------------------------------------------------


def sign_of(head: bytes) -> str:
    """Return "prices" (mark or index), "futures" or "" (unknown) by the first rows of a CSV.

    Mark and index prices have a volume of 0 and yet a count (of updates), which a traded candle cannot have. Binance's
    futures files have a header since mid-2022, its spot files have none.
    """
    rows = _rows(head)
    if rows and all(not row[5].strip(b"0.") and row[8].strip(b"0").isdigit() for row in rows):
        return "prices"
    return "futures" if has_header(head) else ""


def has_header(head: bytes) -> bool:
    fields = head.split(b"\n", 1)[0].split(b",")
    return len(fields) == _ROW_FIELDS and bool(fields[0]) and not re.search(rb"[0-9]", fields[0])


def seconds_of_first(head: bytes) -> int:
    """Return the duration of the first candle in seconds, by its close time; 0 if that is unknown."""
    for row in _rows(head)[:1]:
        if row[0].isdigit() and row[6].isdigit() and int(row[6][:20]) > int(row[0][:20]):
            per_second = 1000 if len(row[0]) <= 13 else 1_000_000
            return -(-(int(row[6][:20]) - int(row[0][:20])) // per_second)
    return 0


def _rows(head: bytes) -> list[list[bytes]]:
    """Return the first whole rows, split into fields."""
    lines = head.split(b"\n")[:-1][int(has_header(head)) :]
    rows = [line.rstrip(b"\r").split(b",") for line in lines[:_HEAD_ROWS]]
    return [row for row in rows if len(row) == _ROW_FIELDS]
