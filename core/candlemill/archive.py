"""Which files of Binance's public archive hold a stretch of time. Source: github.com/binance/binance-public-data."""

from collections.abc import Set
from datetime import UTC, datetime, timedelta

import msgspec

from candlemill.engine.tape import DAY_MS
from candlemill.model import to_ms


class ArchiveFile(msgspec.Struct, frozen=True):
    """A zip of the archive: `path` is below the archive's address; it holds `start <= t < end` (ms)."""

    name: str
    path: str
    start: int
    end: int

    @property
    def is_month(self) -> bool:
        return self.path.startswith("/data/spot/monthly/")


def day_file(symbol: str, start: int) -> ArchiveFile:
    name = f"{symbol}-1m-{_moment(start):%Y-%m-%d}.zip"
    return ArchiveFile(name, f"/data/spot/daily/klines/{symbol}/1m/{name}", start, start + DAY_MS)


def month_file(symbol: str, start: int) -> ArchiveFile:
    name = f"{symbol}-1m-{_moment(start):%Y-%m}.zip"
    return ArchiveFile(name, f"/data/spot/monthly/klines/{symbol}/1m/{name}", start, next_month(start))


def days_of(symbol: str, start: int, end: int) -> list[ArchiveFile]:
    """The files of the days that lie wholly in `start <= t < end`."""
    first = -(-start // DAY_MS) * DAY_MS
    return [day_file(symbol, day) for day in range(first, end - DAY_MS + 1, DAY_MS)]


def files_of(symbol: str, start: int, end: int, by_days: Set[int]) -> list[ArchiveFile]:
    """The files of `start <= t < end`: months where one lies wholly inside and is not among `by_days`, else days.

    `by_days` are the first milliseconds of months of which days are stored: a month's file may disagree with its days
    and with what REST says, and then it is wrong.
    """
    out: list[ArchiveFile] = []
    at = start
    while at < end:
        month = to_ms(_moment(at).replace(day=1, hour=0, minute=0, second=0, microsecond=0))
        after = next_month(month)
        if at == month and after <= end and month not in by_days:
            out.append(month_file(symbol, month))
        else:
            out += days_of(symbol, at, min(after, end))
        at = after
    return out


def next_month(start: int) -> int:
    """The first millisecond of the month after the one that begins at `start`."""
    moment = (_moment(start) + timedelta(days=32)).replace(day=1)
    return to_ms(moment)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
