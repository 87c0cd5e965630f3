"""Store funding rates from files."""

import os
from collections.abc import Sequence
from pathlib import Path

from candlemill.errors import BadFile, BadInput
from candlemill.exchanges.binance.funding_files import NAME_EXAMPLE, FundingName, check_times, parse_funding
from candlemill.exchanges.binance.kline_files import csv_of, read_checked
from candlemill.exchanges.binance.markets import file_market, store_name
from candlemill.store.base import CandleStore
from candlemill.stored_days import Funding

MARKETS = ("um", "cm")


def ingest_funding(store: CandleStore, paths: Sequence[Path], market: str | None = None) -> dict[str, int]:
    """Store the rates of files and of the files in folders; return the number of rates by symbol.

    They belong to the perpetual of `market` (um or cm), of a file's folders or of its symbol; if none of them names
    a market, to the symbol that is stored under the plain name. All files are read before any is stored, so nothing
    is stored if one is invalid. Raises BadFile, and BadInput if `market` and a file's folders disagree.
    """
    if market not in (None, *MARKETS):
        raise BadInput(f"market {market!r} has no funding: expected um or cm")
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise BadFile(", ".join(map(str, paths)), None, f"no file of funding rates found, expected {NAME_EXAMPLE}")
    read = [_load(file, market) for file in files]
    counts: dict[str, int] = {}
    for symbol, funding in read:
        store.put_funding(symbol, funding)
        counts[symbol] = counts.get(symbol, 0) + len(funding.t)
    return counts


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*-fundingRate-*") if file.suffix in (".zip", ".csv"))
    if not os.path.lexists(path):
        raise BadFile(str(path), None, "no such file or folder")
    return [path]


def _load(file: Path, market: str | None) -> tuple[str, Funding]:
    """Return the symbol under which a file's rates are stored, and the rates."""
    try:
        name = FundingName.parse(file.name)
    except BadFile as error:
        raise BadFile(str(file), None, error.reason) from None
    place = file_market(file, name.symbol)
    if place.venue == "spot" or (market and not place.agrees(market)):
        known = place.market or place.kind
        raise BadInput(f"{file}: its folders or its symbol say {known}, not {market or 'um or cm'}: nothing is stored")
    funding = parse_funding(csv_of(file, read_checked(file)), str(file))
    check_times(funding, name, str(file))
    return store_name(market or place.market or "spot", name.symbol), funding
