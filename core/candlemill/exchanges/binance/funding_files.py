"""Parser of Binance's files of funding rates of perpetual futures.

Columns `calc_time,funding_interval_hours,last_funding_rate` with a header line; times in ms, some ms late; rates as
decimal text. Source: https://github.com/binance/binance-public-data, `futures/um/monthly/fundingRate`.
"""

import re
from typing import Final

import msgspec
import numpy as np

from candlemill.engine.candles import MINUTE_MS
from candlemill.errors import BadFile, BadInput
from candlemill.exchanges.binance.markets import is_symbol
from candlemill.stored_days import Funding
from candlemill.units import FIRST_MS, LAST_MS, SCALE, iso, parse_range

ROWS_LIMIT: Final = 1_000_000
RATE_LIMIT: Final = SCALE  # 100 % at one instant
NAME_EXAMPLE: Final = "BTCUSDT-fundingRate-2023-01.zip"

_NAME = re.compile(r"(.+)-fundingRate-([0-9]{4}-[0-9]{2}(?:-[0-9]{2})?)\.(?:zip|csv)")
_RATE = re.compile(r"(-?)([0-9]{1,3})(?:\.([0-9]{1,8})0*)?")


class FundingName(msgspec.Struct, frozen=True):
    """Parsed name of a file: the perpetual, and the month or day of its rates, as text and in UTC ms."""

    symbol: str
    period: str
    start: int
    end: int

    @classmethod
    def parse(cls, name: str) -> "FundingName":
        """Read a base name such as `BTCUSDT-fundingRate-2023-01.zip`. Raises BadFile."""
        found = _NAME.fullmatch(name)
        if found is None or not is_symbol(found[1]):
            raise BadFile(name, None, f"not the name of a file of funding rates, expected one like {NAME_EXAMPLE}")
        try:
            start, end = parse_range(found[2])
        except BadInput as error:
            raise BadFile(name, None, str(error)) from None
        return cls(found[1], found[2], start, end)


def check_times(funding: Funding, name: FundingName, file: str) -> None:
    """Hold the rates' times against the file's name. Raises BadFile."""
    outside = funding.t[(funding.t < name.start) | (funding.t >= name.end)]
    if len(outside):
        raise BadFile(file, None, f"a rate of {iso(int(outside[0]))}, but the name says {name.period}")


def parse_funding(text: bytes, file: str) -> Funding:
    """Rates times 10^8 at whole minutes, ascending; the last row of a minute is used. Raises BadFile."""
    found: dict[int, int] = {}
    lines = text.decode("utf-8", "replace").splitlines()
    if len(lines) > ROWS_LIMIT:
        raise BadFile(file, None, f"{len(lines):,} lines, the limit is {ROWS_LIMIT:,}")
    for number, line in enumerate(lines, 1):
        fields = line.split(",")
        if number == 1 and not fields[0].isdecimal():
            continue  # the header
        if len(fields) != 3 or not re.fullmatch("[0-9]{13}", fields[0]):
            raise BadFile(file, number, f"{line[:60]!r} is not TIME_MS,HOURS,RATE")
        t = int(fields[0])
        if not FIRST_MS <= t < LAST_MS:
            raise BadFile(file, number, f"time {t} is outside 2009 to 2100")
        found[t // MINUTE_MS * MINUTE_MS] = _rate(fields[2], file, number)
    if not found:
        raise BadFile(file, None, "no funding rate in it")
    times = sorted(found)
    return Funding(np.array(times, dtype=np.int64), np.array([found[t] for t in times], dtype=np.int64))


def _rate(text: str, file: str, number: int) -> int:
    match = _RATE.fullmatch(text)
    if match is None:
        raise BadFile(file, number, f"rate {text[:40]!r} is not a decimal number of at most 8 decimals")
    scaled = int(match[2]) * SCALE + int((match[3] or "").ljust(8, "0"))
    if scaled > RATE_LIMIT:
        raise BadFile(file, number, f"rate {text} is more than 1 (100 %)")
    return -scaled if match[1] else scaled
