"""Files of Binance's public archive by time range. Source: github.com/binance/binance-public-data."""

import re
from collections.abc import Set
from datetime import UTC, datetime, timedelta

import msgspec

from candlemill.engine.candles import DAY_MS
from candlemill.units import to_ms


class ArchiveFile(msgspec.Struct, frozen=True):
    """Zip file of the archive with the candles of `start <= t < end` (ms); `path` is relative to the archive's URL."""

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


def archive_file(symbol: str, key: str) -> ArchiveFile | None:
    """Return the file with the name `key` in a listing of the archive; None for others, such as checksums."""
    found = re.fullmatch(rf"{re.escape(symbol)}-1m-(\d{{4}})-(\d{{2}})(?:-(\d{{2}}))?\.zip", key.rpartition("/")[2])
    if found is None:
        return None
    try:
        start = to_ms(datetime(int(found[1]), int(found[2]), int(found[3] or 1), tzinfo=UTC))
    except ValueError:
        return None
    return day_file(symbol, start) if found[3] else month_file(symbol, start)


def days_of(symbol: str, start: int, end: int) -> list[ArchiveFile]:
    """Files of the whole days in `start <= t < end`."""
    first = -(-start // DAY_MS) * DAY_MS
    return [day_file(symbol, day) for day in range(first, end - DAY_MS + 1, DAY_MS)]


def files_of(symbol: str, start: int, end: int, by_days: Set[int]) -> list[ArchiveFile]:
    """Files of `start <= t < end`: one per whole month that is not in `by_days`, else one per day.

    `by_days`: starts (ms) of months of which single days are stored. If a month's file differs from the day files and
    REST, the month's file is wrong.
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
    """Start (ms) of the month after the one that starts at `start`."""
    moment = (_moment(start) + timedelta(days=32)).replace(day=1)
    return to_ms(moment)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
