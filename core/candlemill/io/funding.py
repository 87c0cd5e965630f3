"""Funding rates from files into the store."""

from collections.abc import Sequence
from pathlib import Path

from candlemill.binance import CSV_BYTES_MAX, ZIP_BYTES_MAX, read_file, read_zip
from candlemill.errors import BadFile
from candlemill.funding import NAME_EXAMPLE, parse_funding, symbol_of
from candlemill.io.store import Store
from candlemill.ledger import Funding


def ingest_funding(store: Store, paths: Sequence[Path]) -> dict[str, int]:
    """Store the rates of the files, and of those in folders; how many there were by symbol.

    All files are read before any is stored, so one that is refused leaves nothing. Raises BadFile.
    """
    files = [file for path in paths for file in _files(path)]
    if not files:
        raise BadFile(", ".join(map(str, paths)), None, f"no file of funding rates found, expected {NAME_EXAMPLE}")
    read = [(symbol_of(file.name), _load(file)) for file in files]
    counts: dict[str, int] = {}
    for symbol, funding in read:
        store.put_funding(symbol, funding)
        counts[symbol] = counts.get(symbol, 0) + len(funding.t)
    return counts


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*-fundingRate-*") if file.suffix in (".zip", ".csv"))
    if not path.exists():
        raise BadFile(str(path), None, "no such file or folder")
    return [path]


def _load(file: Path) -> Funding:
    data = read_file(file, ZIP_BYTES_MAX if file.suffix == ".zip" else CSV_BYTES_MAX)
    return parse_funding(read_zip(data, str(file)) if file.suffix == ".zip" else data, str(file))
