"""Binance's public kline files: their names, zips, checksums and rows. No I/O but `read_file` and `read_checked`.

A file `SYMBOL-1m-YYYY-MM.zip` (a month) or `SYMBOL-1m-YYYY-MM-DD.zip` (a day) has one CSV of the same name, and a
`.CHECKSUM` file. Binance sometimes replaces files, or publishes an outdated checksum or a truncated zip; therefore
everything is verified.
"""

import datetime
import hashlib
import io
import os
import re
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from candlemill.engine.candles import MINUTE_MS
from candlemill.errors import BadFile
from candlemill.exchanges.binance.kline_csv import KlineError, parse_klines
from candlemill.exchanges.binance.markets import has_header, is_symbol, seconds_of_first
from candlemill.units import FIRST_YEAR, LAST_YEAR, iso, parse_range

INTERVAL: Final = "1m"
NAME_EXAMPLES: Final = "SYMBOL-1m-YYYY-MM.zip or SYMBOL-1m-YYYY-MM-DD.zip (or .csv), such as BTCUSDT-1m-2021-04.zip"
CSV_BYTES_MAX: Final = 64 * 2**20
"""A month is 7 MB."""
ZIP_BYTES_MAX: Final = CSV_BYTES_MAX
INFLATION_MAX: Final = 200
"""Real months are compressed 2 to 40 times; deflate can reach 1032."""

MEMBERS_MAX: Final = 64
"""Real zips have one. A zip of the size that is read could list a million, each an object of half a kilobyte."""
HEAD_BYTES: Final = 4096
SPACED_ROWS_MIN: Final = 10
"""So many rows of which no two are a minute apart are candles of another interval."""

CHECKSUM_SUFFIX: Final = ".CHECKSUM"
_CHECKSUM_BYTES_MAX: Final = 4096
_NAME: Final = re.compile(r"(.+)-([0-9]+[A-Za-z]+)-([0-9]{4})-([0-9]{2})(?:-([0-9]{2}))?\.(zip|csv)")
_OTHER_NAME: Final = re.compile(r".+-([A-Za-z]+)-[0-9]{4}-[0-9]{2}(?:-[0-9]{2})?\.(?:zip|csv)")
_OTHER_KINDS: Final = {
    "aggTrades": "aggregate trades, not candles: take the klines of the same days",
    "trades": "single trades, not candles: take the klines of the same days",
    "fundingRate": "funding rates, not candles: store them with `candlemill funding`",
    "bookTicker": "best bids and asks, not candles",
    "bookDepth": "an order book's depth, not candles",
    "metrics": "open interest and ratios, not candles",
    "liquidationSnapshot": "liquidations, not candles",
}
_CHECKSUM: Final = re.compile(r"([0-9A-Fa-f]{64})[ \t]+\*?(\S+)\s*")
_ENCRYPTED: Final = 0x1
_LOCAL_HEADER: Final = 30  # bytes before a member's name
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
    """Parts of a file's name: the symbol, and the month or day."""

    symbol: str
    year: int
    month: int
    day: int | None

    @classmethod
    def parse(cls, name: str) -> "KlineName":
        """Parse a base name such as `BTCUSDT-1m-2021-04-25.csv`. Raises BadFile for other names."""
        match = _NAME.fullmatch(name)
        if match is None:
            other = _OTHER_NAME.fullmatch(name)
            reason = _OTHER_KINDS.get(other[1]) if other else None
            raise BadFile(name, None, reason or f"not a kline file's name, expected {NAME_EXAMPLES}")
        symbol, interval, year, month, day, _ = match.groups()
        if not is_symbol(symbol):
            reason = (
                f"symbol {symbol} is not all upper-case letters and digits, as BTCUSDT, BTCUSD_PERP, BTCUSDT_230331"
            )
            raise BadFile(name, None, f"{reason}: candles of other exchanges come in through Python")
        if interval != INTERVAL:
            raise BadFile(name, None, f"interval {interval}, only {INTERVAL} candles are supported")
        try:
            if not FIRST_YEAR <= datetime.date(int(year), int(month), int(day or 1)).year <= LAST_YEAR:
                raise ValueError
        except ValueError:
            raise BadFile(name, None, f"no such date: {year}-{month}" + (f"-{day}" if day else "")) from None
        return cls(symbol, int(year), int(month), int(day) if day else None)

    @property
    def period(self) -> str:
        """The month or the day, as the name has it."""
        return f"{self.year}-{self.month:02d}" + (f"-{self.day:02d}" if self.day else "")

    @property
    def span(self) -> tuple[int, int]:
        """The month or the day: `start <= t < end` in UTC milliseconds."""
        return parse_range(self.period)


@dataclass(frozen=True, slots=True, eq=False)
class Candles:
    """One-minute candles in columns of equal length: `t` in UTC ms, prices times 10^8, volume times its scale.

    Compared by identity, since columns are large.
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
    """Return the rows of a CSV in file order, including duplicates. Raises BadFile with the first invalid line."""
    try:
        return Candles(*parse_klines(text, volume_digits))
    except KlineError as error:
        raise BadFile(file, error.line, error.reason) from None


def check_rows(text: bytes, candles: Candles, name: KlineName, file: str) -> None:
    """Hold a file's rows against its name: one-minute candles of that month or day. Raises BadFile."""
    seconds = seconds_of_first(text[:HEAD_BYTES])
    if seconds > 60:
        raise BadFile(file, None, f"its first candle lasts {seconds} seconds, but the name says {INTERVAL}")
    start, end = name.span
    outside = np.flatnonzero((candles.t < start) | (candles.t >= end))
    if len(outside):
        line = int(outside[0]) + 1 + has_header(text[:HEAD_BYTES])
        raise BadFile(file, line, f"a candle of {iso(int(candles.t[outside[0]]))}, but the name says {name.period}")
    t = clean(candles).t
    if len(t) >= SPACED_ROWS_MIN and (step := _common_step(t)) > MINUTE_MS:
        reason = f"its rows are {step // MINUTE_MS:,} minutes apart, but the name says {INTERVAL}"
        raise BadFile(file, None, reason)


def _common_step(t: NDArray[np.int64]) -> int:
    """Return the greatest common divisor of the distances of ascending times, in ms."""
    steps = np.diff(t)
    return MINUTE_MS if bool((steps == MINUTE_MS).any()) else int(np.gcd.reduce(steps))


def clean(candles: Candles) -> Candles:
    """Return the candles sorted by time, one per minute: the last duplicate in file order is kept.

    Returns the same object if nothing changes.
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


def read_zip(data: bytes | Path, file: str = "", member_name: str = "", head: bool = False) -> bytes:
    """Return the single CSV member of a zip given as bytes or by its path; `file` is the name in messages.

    `member_name` is what the member must be called, where given; `head` returns its first `HEAD_BYTES` only, unchecked.
    Raises BadFile for a damaged, truncated, encrypted or oversized zip, and for none or several CSV members.
    """
    if isinstance(data, Path):
        return read_zip(read_file(data, ZIP_BYTES_MAX), file or str(data), member_name, head)
    file = file or "<zip>"
    if len(data) > ZIP_BYTES_MAX:
        raise BadFile(file, None, f"{len(data)} bytes, the limit of a zip is {ZIP_BYTES_MAX}")
    if _directory(data).count(b"PK\x01\x02") > MEMBERS_MAX:
        raise BadFile(file, None, f"a zip of more than {MEMBERS_MAX} files, expected one")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            member = _csv_member(archive, file)
            if member_name and not _is_called(member, member_name):
                raise BadFile(file, None, f"the file in the zip is {member.filename[:80]}, expected {member_name}")
            archive.open(member).close()  # holds the member's own header against the directory's
            return _head(data, member) if head else _inflated(data, member)
    except _UNZIP_ERRORS as error:
        raise BadFile(file, None, f"damaged or truncated zip: {error or type(error).__name__}") from None


def _directory(data: bytes) -> bytes:
    """Return the part of a zip that lists its members: of one without comment and below 4 GiB, what its last record
    says; else all of it."""
    plain = data[-22:-18] == b"PK\x05\x06" and data[-2:] == b"\0\0" and data[-42:-38] != b"PK\x06\x07"
    if not plain:
        return data
    end = len(data) - 22
    return data[max(0, end - int.from_bytes(data[-10:-6], "little")) : end]


def _inflated(data: bytes, member: zipfile.ZipInfo) -> bytes:
    """The member's content, of the size that its entry declares; `zipfile` itself inflates at half the speed."""
    raw = _packed(data, member)
    if member.compress_type == zipfile.ZIP_STORED:
        text = bytes(raw)
    else:
        text = isal_zlib.decompressobj(wbits=-15).decompress(raw, member.file_size + 1)
    if len(text) != member.file_size or isal_zlib.crc32(text) != member.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 or size of {member.filename}")
    return text


def _is_called(member: zipfile.ZipInfo, name: str) -> bool:
    """Whether a member has the name; names in UTF-8 that do not say so come as code page 437."""
    return name in (member.filename, member.filename.encode("cp437", "replace").decode("utf-8", "replace"))


def _head(data: bytes, member: zipfile.ZipInfo) -> bytes:
    """The first bytes of the member."""
    raw = _packed(data, member)
    if member.compress_type == zipfile.ZIP_STORED:
        return bytes(raw[:HEAD_BYTES])
    return isal_zlib.decompressobj(wbits=-15).decompress(raw, HEAD_BYTES)


def _packed(data: bytes, member: zipfile.ZipInfo) -> memoryview:
    """The member's compressed bytes."""
    name_bytes, extra_bytes = struct.unpack_from("<HH", data, member.header_offset + 26)
    begin = member.header_offset + 30 + name_bytes + extra_bytes
    return memoryview(data)[begin : begin + member.compress_size]


def _csv_member(archive: zipfile.ZipFile, file: str) -> zipfile.ZipInfo:
    """Return the only CSV member of the archive, after checking the limits of its directory entry."""
    members = [member for member in archive.infolist() if member.filename.endswith(".csv")]
    if len(members) != 1:
        raise BadFile(file, None, f"{len(members)} CSV files in the zip, expected exactly one")
    member = members[0]
    if member.flag_bits & _ENCRYPTED:
        raise BadFile(file, None, f"{member.filename} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BadFile(file, None, f"{member.filename} has compression method {member.compress_type}, expected deflate")
    if member.file_size > CSV_BYTES_MAX:
        raise BadFile(file, None, f"{member.filename} has {member.file_size} bytes, the limit is {CSV_BYTES_MAX}")
    if member.file_size > INFLATION_MAX * max(1, member.compress_size):
        raise BadFile(
            file,
            None,
            f"{member.filename} inflates {member.compress_size} bytes to {member.file_size}, "
            f"more than {INFLATION_MAX} times as much",
        )
    return member


def read_file(path: Path, bytes_max: int) -> bytes:
    """Return a regular file's bytes; raise BadFile if it cannot be read or has more than `bytes_max`.

    Opened without blocking: a named pipe would wait for its other end.
    """
    try:
        with open(path, "rb", opener=_open_nonblocking) as stream:
            about = os.fstat(stream.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise BadFile(str(path), None, "not a regular file")
            data = stream.read(min(about.st_size, bytes_max) + 1)  # memory for what there is, not for the limit
    except OSError as error:
        raise BadFile(str(path), None, f"cannot be read: {error.strerror or error}") from None
    if len(data) > bytes_max:
        raise BadFile(str(path), None, f"more than {bytes_max} bytes, the limit of such a file")
    return data


def _open_nonblocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def read_checked(path: Path) -> bytes:
    """The bytes of a zip or CSV, verified by the `.CHECKSUM` beside it if there is one. Raises BadFile."""
    data = read_file(path, ZIP_BYTES_MAX if path.suffix == ".zip" else CSV_BYTES_MAX)
    neighbour = path.with_name(path.name + CHECKSUM_SUFFIX)
    if os.path.lexists(neighbour):
        text = read_file(neighbour, _CHECKSUM_BYTES_MAX).decode("utf-8", "replace")
        try:
            verify_checksum(data, text, path.name)
        except BadFile as error:
            raise BadFile(str(path), None, error.reason) from None
    return data


def csv_of(path: Path, data: bytes) -> bytes:
    """The CSV of a file's bytes: themselves, or the zip's member, which must have the file's name. Raises BadFile."""
    return read_zip(data, str(path), f"{path.stem}.csv") if path.suffix == ".zip" else data


def head_of(path: Path) -> bytes:
    """The first bytes of a file's CSV, unverified. Raises BadFile."""
    if path.suffix == ".zip":
        return _first_head(path) or read_zip(path, head=True)
    return read_file(path, CSV_BYTES_MAX)[:HEAD_BYTES]


def _first_head(path: Path) -> bytes:
    """Return the first bytes of a zip's first member if it is a CSV, without reading the rest; empty otherwise."""
    try:
        with open(path, "rb", opener=_open_nonblocking) as stream:
            data = stream.read(4 * HEAD_BYTES) if stat.S_ISREG(os.fstat(stream.fileno()).st_mode) else b""
        mark, flags, method, name_bytes, extra_bytes = struct.unpack_from("<4s2xHH16xHH", data)
        begin = _LOCAL_HEADER + name_bytes + extra_bytes
        if mark != b"PK\x03\x04" or flags & _ENCRYPTED or not data[_LOCAL_HEADER:][:name_bytes].endswith(b".csv"):
            return b""
        if method == zipfile.ZIP_STORED:
            return data[begin : begin + HEAD_BYTES]
        if method == zipfile.ZIP_DEFLATED:
            return isal_zlib.decompressobj(wbits=-15).decompress(data[begin:], HEAD_BYTES)
    except _UNZIP_ERRORS:
        pass
    return b""


def verify_checksum(data: bytes, checksum_text: str, name: str) -> None:
    """Compare the file `name` with its `.CHECKSUM` text `<sha256>  <name>`. Raises BadFile if they differ."""
    match = _CHECKSUM.fullmatch(checksum_text)
    if match is None:
        raise BadFile(name, None, "its .CHECKSUM is not one line `<sha256>  <name>`")
    expected, named = match[1].lower(), match[2]
    if named != name:
        raise BadFile(name, None, f"its .CHECKSUM is for {named}")
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise BadFile(name, None, f"its sha256 is {actual}, its .CHECKSUM has {expected}: download both again")
