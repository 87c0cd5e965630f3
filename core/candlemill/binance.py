"""Binance's public kline files: their names, zips, checksums and rows. No I/O but `read_file`.

A file is `SYMBOL-1m-YYYY-MM.zip` (a month) or `SYMBOL-1m-YYYY-MM-DD.zip` (a day), holds one CSV of the same name and
has a `.CHECKSUM` beside it. Binance replaces files later, and sometimes publishes a stale checksum or a truncated zip,
so nothing is taken on trust.
"""

import datetime
import hashlib
import io
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from candlemill.engine.klines import KlineError, parse_klines
from candlemill.errors import BadFile

INTERVAL: Final = "1m"
NAME_EXAMPLES: Final = "SYMBOL-1m-YYYY-MM.zip or SYMBOL-1m-YYYY-MM-DD.zip (or .csv), such as BTCUSDT-1m-2021-04.zip"
CSV_BYTES_MAX: Final = 64 * 2**20
"""A month is 7 MB."""
ZIP_BYTES_MAX: Final = CSV_BYTES_MAX
INFLATION_MAX: Final = 200
"""Real months inflate 2 to 40 times; deflate can reach 1032."""

MEMBERS_MAX: Final = 64
"""Real zips have one. A zip of the size that is read could list a million, each an object of half a kilobyte."""

_NAME: Final = re.compile(r"(.+)-([0-9]+[A-Za-z]+)-([0-9]{4})-([0-9]{2})(?:-([0-9]{2}))?\.(zip|csv)")
_CHECKSUM: Final = re.compile(r"([0-9A-Fa-f]{64})[ \t]+\*?(\S+)\s*")
_ENCRYPTED: Final = 0x1
_UNZIP_ERRORS: Final[tuple[type[Exception], ...]] = (  # type: ignore[assignment]  # isal's stub has an instance
    zipfile.BadZipFile,
    zlib.error,
    isal_zlib.IsalError,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class KlineName:
    """What a file's name says: the symbol and the month, or the day, that it covers."""

    symbol: str
    year: int
    month: int
    day: int | None

    @classmethod
    def parse(cls, name: str) -> "KlineName":
        """Read a base name such as `BTCUSDT-1m-2021-04-25.csv`; raise BadFile if no one-minute kline file has it."""
        match = _NAME.fullmatch(name)
        if match is None:
            raise BadFile(name, None, f"not a kline file's name, expected {NAME_EXAMPLES}")
        symbol, interval, year, month, day, _ = match.groups()
        if not symbol.isalnum() or symbol != symbol.upper():
            raise BadFile(name, None, f"symbol {symbol} is not all upper-case letters and digits")
        if interval != INTERVAL:
            raise BadFile(name, None, f"interval {interval}, but only {INTERVAL} candles are read")
        try:
            datetime.date(int(year), int(month), int(day or 1))
        except ValueError:
            raise BadFile(name, None, f"no such date: {year}-{month}" + (f"-{day}" if day else "")) from None
        return cls(symbol, int(year), int(month), int(day) if day else None)


@dataclass(frozen=True, slots=True, eq=False)
class Candles:
    """One-minute candles in columns of one length: `t` in UTC milliseconds, prices times 10^8, volume times its scale.

    Compared by identity: columns are large.
    """

    t: NDArray[np.int64]
    open: NDArray[np.int64]
    high: NDArray[np.int64]
    low: NDArray[np.int64]
    close: NDArray[np.int64]
    volume: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.t)


def parse_csv(text: bytes, volume_digits: int, file: str) -> Candles:
    """Return the rows of a CSV in file order, duplicates and all; raise BadFile with the first line that is refused."""
    try:
        return Candles(*parse_klines(text, volume_digits))
    except KlineError as error:
        raise BadFile(file, error.line, error.reason) from None


def clean(candles: Candles) -> Candles:
    """Return the candles sorted by time, one per minute: of duplicates the last in file order wins.

    Candles that are so already come back as they are, uncopied.
    """
    t = candles.t
    if bool(np.all(t[1:] > t[:-1])):
        return candles
    order = np.argsort(t, kind="stable")
    in_order = t[order]
    is_last = np.append(in_order[1:] != in_order[:-1], True)
    kept = order[is_last]
    return Candles(
        t[kept], candles.open[kept], candles.high[kept], candles.low[kept], candles.close[kept], candles.volume[kept]
    )


def read_zip(data: bytes | Path, file: str = "") -> bytes:
    """Return the single CSV member of a zip given as bytes or by its path; `file` is the name in messages.

    Raises BadFile for a damaged, truncated, encrypted or oversized zip, and for none or several CSV members.
    """
    if isinstance(data, Path):
        return read_zip(read_file(data, ZIP_BYTES_MAX), file or str(data))
    file = file or "<zip>"
    if len(data) > ZIP_BYTES_MAX:
        raise BadFile(file, None, f"{len(data)} bytes, more than the {ZIP_BYTES_MAX} of the largest zip that is read")
    if data.count(b"PK\x01\x02") > MEMBERS_MAX:
        raise BadFile(file, None, f"a zip of more than {MEMBERS_MAX} files, expected one")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            member = _csv_member(archive, file)
            archive.open(member).close()  # holds the member's own header against the directory's
            return _inflated(data, member)
    except _UNZIP_ERRORS as error:
        raise BadFile(file, None, f"damaged or truncated zip: {error or type(error).__name__}") from None


def _inflated(data: bytes, member: zipfile.ZipInfo) -> bytes:
    """The member's content, of the size that its entry declares; `zipfile` itself inflates at half the speed."""
    name_bytes, extra_bytes = struct.unpack_from("<HH", data, member.header_offset + 26)
    begin = member.header_offset + 30 + name_bytes + extra_bytes
    raw = memoryview(data)[begin : begin + member.compress_size]
    if member.compress_type == zipfile.ZIP_STORED:
        text = bytes(raw)
    else:
        text = isal_zlib.decompressobj(wbits=-15).decompress(raw, member.file_size + 1)
    if len(text) != member.file_size or isal_zlib.crc32(text) != member.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 or size of {member.filename}")
    return text


def _csv_member(archive: zipfile.ZipFile, file: str) -> zipfile.ZipInfo:
    """Return the only CSV of the archive, checked against the limits that its directory entry declares."""
    members = [member for member in archive.infolist() if member.filename.endswith(".csv")]
    if len(members) != 1:
        raise BadFile(file, None, f"{len(members)} CSV files in the zip, expected exactly one")
    member = members[0]
    if member.flag_bits & _ENCRYPTED:
        raise BadFile(file, None, f"{member.filename} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadFile(file, None, f"{member.filename} has compression method {member.compress_type}, expected deflate")
    if member.file_size > CSV_BYTES_MAX:
        raise BadFile(
            file, None, f"{member.filename} has {member.file_size} bytes, more than the {CSV_BYTES_MAX} that are read"
        )
    if member.file_size > INFLATION_MAX * max(1, member.compress_size):
        raise BadFile(
            file,
            None,
            f"{member.filename} inflates {member.compress_size} bytes to {member.file_size}, "
            f"more than {INFLATION_MAX} times as much",
        )
    return member


def read_file(path: Path, bytes_max: int) -> bytes:
    """Return a file's bytes; raise BadFile if it cannot be read or has more than `bytes_max`."""
    try:
        with path.open("rb") as stream:
            data = stream.read(bytes_max + 1)
    except OSError as error:
        raise BadFile(str(path), None, f"cannot be read: {error.strerror or error}") from None
    if len(data) > bytes_max:
        raise BadFile(str(path), None, f"more than {bytes_max} bytes, the largest file of its kind that is read")
    return data


def verify_checksum(data: bytes, checksum_text: str, name: str) -> None:
    """Check `data`, the file of base name `name`, against its `.CHECKSUM` text `<sha256>  <name>`; raise BadFile."""
    match = _CHECKSUM.fullmatch(checksum_text)
    if match is None:
        raise BadFile(name, None, "its .CHECKSUM is not one line `<sha256>  <name>`")
    expected, named = match[1].lower(), match[2]
    if named != name:
        raise BadFile(name, None, f"its .CHECKSUM is for {named}")
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise BadFile(name, None, f"its sha256 is {actual}, its .CHECKSUM says {expected}: download both again")
