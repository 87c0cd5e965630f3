"""Store maintenance tiers of perpetuals from a file: a CSV, or Binance's leverage brackets as JSON.

CSV: columns `symbol,valid_from,floor,rate,amount` with a header line. `symbol` is the stored name, `valid_from` a UTC
date or minute, `floor` and `amount` are decimals in the quote currency, `rate` is a fraction (0.004) or a percentage.

JSON: the answer of `GET /fapi/v1/leverageBracket`, whose brackets have no date: it is given beside the file.
"""

import csv
import json
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from candlemill.backtests.tiers import Tier, TierTable, check_tiers
from candlemill.errors import BadFile, BadInput
from candlemill.exchanges.binance.markets import store_name
from candlemill.units import SCALE, parse_decimal, parse_range, parse_rate

HEADER = ["symbol", "valid_from", "floor", "rate", "amount"]
BYTES_LIMIT = 4_000_000
TIERS_LIMIT = 64  # of one symbol and date: they travel in the spec of each job
SYMBOL_LENGTH = 64


class TierStore(Protocol):
    def put_margin_tiers(self, symbol: str, tables: list[TierTable]) -> None: ...


def ingest_margin_tiers(store: TierStore, path: Path, valid_from: str | None = None) -> dict[str, int]:
    """Store all tables of a file; return the number of dates by symbol.

    `valid_from` is the date of brackets in JSON. Raises BadFile and BadInput, and stores nothing then.
    """
    if path.suffix == ".json":
        if valid_from is None:
            raise BadInput(f"{path}: leverage brackets have no date: give --valid-from")
        found = read_brackets(path, valid_from)
    elif valid_from is not None:
        raise BadInput(f"--valid-from {valid_from} is for .json: a CSV has its dates itself")
    else:
        found = read_margin_tiers(path)
    for symbol, tables in found.items():
        store.put_margin_tiers(symbol, tables)
    return {symbol: len(tables) for symbol, tables in found.items()}


def read_margin_tiers(path: Path) -> dict[str, list[TierTable]]:
    """Return the tables of a CSV by symbol, in order of their dates. Raises BadFile."""
    lines = list(csv.reader(_text(path).splitlines()))
    if not lines or [name.strip() for name in lines[0]] != HEADER:
        raise BadFile(str(path), 1, f"expected the header {','.join(HEADER)}")
    rows = [_row(path, number, line) for number, line in enumerate(lines[1:], 2) if line]
    rows.sort(key=lambda row: (*row[:2], row[2].floor))
    if not rows:
        raise BadFile(str(path), None, "no tier in it")
    out: dict[str, list[TierTable]] = {}
    for (symbol, since), group in groupby(rows, key=lambda row: row[:2]):
        out.setdefault(symbol, []).append(_table(path, symbol, since, [row[2] for row in group]))
    return out


def read_brackets(path: Path, valid_from: str) -> dict[str, list[TierTable]]:
    """Return the tables of Binance's leverage brackets by stored name. Raises BadFile, BadInput."""
    since = _since(valid_from)
    try:
        answer = json.loads(_text(path), parse_float=str, parse_int=str)
        rows = [answer] if isinstance(answer, dict) else answer
        found = {store_name("um", row["symbol"]): [_bracket(one) for one in row["brackets"]] for row in rows}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadFile(str(path), None, f"not an answer of leverageBracket: {error!r}"[:200]) from None
    except BadInput as error:
        raise BadFile(str(path), None, str(error)) from None
    if not found:
        raise BadFile(str(path), None, "no symbol in it")
    order = {symbol: sorted(tiers, key=lambda tier: tier.floor) for symbol, tiers in found.items()}
    return {symbol: [_table(path, symbol, since, tiers)] for symbol, tiers in order.items()}


def _bracket(one: dict[str, Any]) -> Tier:
    return Tier(
        _money(one["notionalFloor"], "notionalFloor"), _rate(one["maintMarginRatio"]), _money(one["cum"], "cum")
    )


def _table(path: Path, symbol: str, since: int, tiers: list[Tier]) -> TierTable:
    try:
        if len(tiers) > TIERS_LIMIT:
            raise ValueError(f"{len(tiers)} tiers, the limit is {TIERS_LIMIT}")
        check_tiers(tiers)
    except ValueError as error:
        raise BadFile(str(path), None, f"tiers of {symbol}: {error}") from None
    return TierTable(since, tiers)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > BYTES_LIMIT:
            raise BadFile(str(path), None, f"larger than {BYTES_LIMIT:,} bytes: split it by symbol")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadFile(str(path), None, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise BadFile(str(path), None, f"not readable as text: {error}") from None


def _since(text: str) -> int:
    """Return the time (ms) of a date."""
    if ".." in text:
        raise BadInput(f"valid_from {text!r} is not a date, like 2023-05-07")
    return parse_range(text)[0]


def _row(path: Path, number: int, line: list[str]) -> tuple[str, int, Tier]:
    if len(line) != len(HEADER):
        raise BadFile(str(path), number, f"{len(line)} fields, expected {len(HEADER)}")
    symbol, since, floor, rate, amount = (field.strip() for field in line)
    if not symbol or len(symbol) > SYMBOL_LENGTH:
        raise BadFile(str(path), number, f"symbol {symbol[:80]!r} is not a name of 1 to {SYMBOL_LENGTH} characters")
    try:
        return symbol, _since(since), Tier(_money(floor, "floor"), _rate(rate), _money(amount, "amount"))
    except BadInput as error:
        raise BadFile(str(path), number, str(error)) from None


def _money(text: str, what: str) -> int:
    return 0 if text.strip("0.") == "" and text.strip(".") else parse_decimal(text, what)


def _rate(text: str) -> int:
    """Return ppm of a fraction such as 0.004, or of a rate with a unit."""
    if not text.replace(".", "", 1).isdecimal():
        return parse_rate(text, "rate")
    ppm, rest = divmod(_money(text, "rate"), SCALE // 1_000_000)
    if rest:
        raise BadInput(f"rate {text!r} has more than 6 decimals")
    return ppm
