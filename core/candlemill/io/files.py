"""Kline files on disk: which there are, and what is in one."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from candlemill.binance import (
    CSV_BYTES_MAX,
    NAME_EXAMPLES,
    ZIP_BYTES_MAX,
    Candles,
    KlineName,
    parse_csv,
    read_file,
    read_zip,
    verify_checksum,
)
from candlemill.errors import BadFile

CHECKSUM_SUFFIX: Final = ".CHECKSUM"
_CHECKSUM_BYTES_MAX: Final = 4096


def find_kline_files(paths: Iterable[Path], ignored: list[str] | None = None) -> list[Path]:
    """Return the kline files among `paths` and, recursively, in the folders among them, each once.

    They come by symbol and time, a month before its days: what is loaded last wins, and where the two disagree,
    Binance's days are right. Every file passed over, `.CHECKSUM` apart, is noted in `ignored` as `FILE: reason`.
    Raises BadFile for a path that does not exist, and when nothing is found.
    """
    asked = list(paths)
    found: dict[Path, KlineName] = {}
    for path in asked:
        for file in _files_under(path):
            if file.name.endswith(CHECKSUM_SUFFIX):
                continue
            try:
                found[file] = KlineName.parse(file.name)
            except BadFile as error:
                if ignored is not None:
                    ignored.append(str(BadFile(str(file), None, error.reason)))
    if not found:
        places = ", ".join(str(path) for path in asked) or "no path"
        raise BadFile(places, None, f"no kline file found, expected {NAME_EXAMPLES}")
    unique = {file.resolve(): file for file in sorted(found, reverse=True)}  # the first spelling of each is kept
    return sorted(unique.values(), key=lambda file: _order(found[file], file))


def _files_under(path: Path) -> Iterator[Path]:
    """Yield the path itself if it is a file, else all the files in the folder and its folders, in order of name."""
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.is_file())
    elif path.exists():
        yield path
    else:
        raise BadFile(str(path), None, "no such file or folder")


def _order(name: KlineName, file: Path) -> tuple[str, int, int, int, Path]:
    return name.symbol, name.year, name.month, name.day or 0, file


def load(path: Path, volume_digits: int) -> tuple[str, Candles]:
    """Return the symbol that the name of a zip or CSV says, and its candles in file order (see `binance.clean`).

    A `.CHECKSUM` that stands beside the file is verified. Raises BadFile for everything that is wrong with the file.
    """
    try:
        name = KlineName.parse(path.name)
    except BadFile as error:
        raise BadFile(str(path), None, error.reason) from None
    zipped = path.suffix == ".zip"
    data = read_file(path, ZIP_BYTES_MAX if zipped else CSV_BYTES_MAX)
    _verify(path, data)
    text = read_zip(data, str(path)) if zipped else data
    return name.symbol, parse_csv(text, volume_digits, str(path))


def _verify(path: Path, data: bytes) -> None:
    """Check the data against the `.CHECKSUM` beside its file, if there is one."""
    neighbour = path.with_name(path.name + CHECKSUM_SUFFIX)
    if not neighbour.exists():
        return
    text = read_file(neighbour, _CHECKSUM_BYTES_MAX).decode("utf-8", "replace")
    try:
        verify_checksum(data, text, path.name)
    except BadFile as error:
        raise BadFile(str(path), None, error.reason) from None
