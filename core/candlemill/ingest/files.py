"""Find kline files on disk, identify their market and symbol, and read them."""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from candlemill.errors import BadFile, BadInput
from candlemill.exchanges.binance.kline_files import (
    CHECKSUM_SUFFIX,
    HEAD_BYTES,
    NAME_EXAMPLES,
    Candles,
    KlineName,
    check_rows,
    csv_of,
    head_of,
    parse_csv,
    read_checked,
)
from candlemill.exchanges.binance.markets import STORE_PREFIX, file_market, sign_of, store_name

IGNORED_SHOWN = 3


class KlineFile(msgspec.Struct, frozen=True):
    """A file, its parsed name and its market. `symbol` is the name under which its candles are stored."""

    path: Path
    name: KlineName
    market: str

    @property
    def symbol(self) -> str:
        return store_name(self.market, self.name.symbol)


class Found(msgspec.Struct):
    """Files in the order in which they are stored, and those that are not: named ones, and others within folders."""

    files: list[KlineFile] = []
    refused: list[BadFile] = []
    ignored: list[BadFile] = []


def find_kline_files(paths: Iterable[Path], market: str | None = None) -> Found:
    """Find the kline files among `paths` and, recursively, in the folders among them, each once.

    They come by symbol and time, a month before its days: what is loaded last wins, and where the two disagree,
    Binance's days are right. A file's market is `market` or what its folders and symbol say, else spot.
    Raises BadFile for a path that does not exist and where nothing is found, BadInput where `market`, folders or
    columns disagree about whose candles these are.
    """
    if market is not None and market not in STORE_PREFIX:
        raise BadInput(f"market {market!r} is not one of {', '.join(STORE_PREFIX)}")
    found = Found()
    named: dict[Path, KlineName] = {}
    searched = list(paths)
    for path in searched:
        for file in _files_under(path):
            if file.name.endswith(CHECKSUM_SUFFIX):
                continue
            try:
                if not stat.S_ISREG(file.stat().st_mode):
                    raise BadFile(str(file), None, "not a regular file")
                named[file] = KlineName.parse(file.name)
            except BadFile as error:
                notes = found.refused if file == path else found.ignored
                notes.append(BadFile(str(file), None, error.reason))
    if not named and not found.refused:
        reasons = "".join(f"; {error}" for error in found.ignored[:IGNORED_SHOWN])
        places = ", ".join(str(path) for path in searched) or "no path"
        raise BadFile(places, None, f"no kline file found, expected {NAME_EXAMPLES}{reasons}")
    unique = {file.resolve(): file for file in sorted(named, reverse=True)}  # the first spelling of each is kept
    _attribute({file: named[file] for file in sorted(unique.values())}, market, found)
    found.files.sort(key=_order)
    return found


def _files_under(path: Path) -> Iterator[Path]:
    """The path itself, or all that is in the folder and its folders but folders, in order of name."""
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.exists() and not file.is_dir())
    elif os.path.lexists(path) and path.exists():
        yield path
    else:
        raise BadFile(str(path), None, "no such file or folder")


def _order(file: KlineFile) -> tuple[str, int, int, int, Path]:
    return file.symbol, file.name.year, file.name.month, file.name.day or 0, file.path


# -- whose candles -----------------------------------------------------------------------------------------------------


def _attribute(named: dict[Path, KlineName], given: str | None, found: Found) -> None:
    """Give each file its market, or its refusal."""
    unsaid: dict[str, list[Path]] = {}
    for file, name in named.items():
        try:
            place = file_market(file, name.symbol)
        except BadFile as error:
            found.refused.append(error)
            continue
        if given and not place.agrees(given):
            known = place.market or place.kind
            raise BadInput(f"{file}: its folders or its symbol say {known}, --market says {given}: nothing is stored")
        if market := given or place.market:
            found.files.append(KlineFile(file, name, market))
        else:
            unsaid.setdefault(name.symbol, []).append(file)
    for symbol, files in unsaid.items():
        _by_columns(symbol, files, named, found)


def _by_columns(symbol: str, files: Sequence[Path], named: dict[Path, KlineName], found: Found) -> None:
    """Files of one symbol of which nothing but the columns can tell the market: spot, unless these say otherwise."""
    signs: dict[str, Path] = {}
    of_file: dict[Path, str] = {}
    for file in files:
        try:
            of_file[file] = sign_of(head_of(file))
        except BadFile:
            of_file[file] = ""  # loading it raises the error
            continue
        signs.setdefault(of_file[file], file)
    if len(signs) > 1:
        (one, first), (other, second) = list(signs.items())[:2]
        raise BadInput(
            f"{first} and {second} disagree about whose candles of {symbol} these are: {_SIGNS[one]}, and "
            f"{_SIGNS[other]}. Nothing is stored: keep them in Binance's folders, or give each with its --market"
        )
    for file in files:
        if of_file[file]:
            found.refused.append(BadFile(str(file), None, f"{_SIGNS[of_file[file]]}: say which with --market"))
        else:
            found.files.append(KlineFile(file, named[file], "spot"))


_SIGNS = {
    "": "plain candles",
    "futures": "a header, which files of futures have (um or cm) and those of spot have not",
    "prices": "candles without volume but with a count, as mark and index prices are (um-mark, um-index, …)",
}


# -- one file ----------------------------------------------------------------------------------------------------------


def load(path: Path, volume_digits: int, market: str | None = None) -> tuple[str, Candles]:
    """Return the symbol in the name of a zip or CSV, and its candles in file order (see `kline_files.clean`).

    A `.CHECKSUM` that stands beside the file is verified; rows are held against the name, and against the market where
    that is given. Raises BadFile for everything that is wrong with the file.
    """
    try:
        name = KlineName.parse(path.name)
    except BadFile as error:
        raise BadFile(str(path), None, error.reason) from None
    text = csv_of(path, read_checked(path))
    candles = parse_csv(text, volume_digits, str(path))
    check_rows(text, candles, name, str(path))
    if market is not None:
        _check_market(text, candles, market, path)
    return name.symbol, candles


def _check_market(text: bytes, candles: Candles, market: str, path: Path) -> None:
    """Mark and index prices have no volume, traded candles no count without one."""
    if "-" in market and candles.volume.any():
        raise BadFile(str(path), None, f"traded candles, with volume, where {market} prices are expected")
    if "-" not in market and sign_of(text[:HEAD_BYTES]) == "prices":
        raise BadFile(str(path), None, f"{_SIGNS['prices']}, where traded candles of {market} are expected")
