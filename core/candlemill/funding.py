"""Files of funding rates as Binance publishes them for perpetual futures.

`calc_time,funding_interval_hours,last_funding_rate` with a header line, times in ms that are some ms late, rates as
decimal text (https://github.com/binance/binance-public-data, `futures/um/monthly/fundingRate`).
"""

import re
from typing import Final

import numpy as np

from candlemill.engine.tape import MINUTE_MS
from candlemill.errors import BadFile
from candlemill.ledger import Funding
from candlemill.model import FIRST_MS, LAST_MS, SCALE

ROWS_LIMIT: Final = 1_000_000
RATE_LIMIT: Final = SCALE  # 100 % at one instant
NAME_EXAMPLE: Final = "BTCUSDT-fundingRate-2023-01.zip"

_NAME = re.compile(r"([A-Z0-9]{1,64})-fundingRate-[0-9]{4}-[0-9]{2}(?:-[0-9]{2})?\.(?:zip|csv)")
_RATE = re.compile(r"(-?)([0-9]{1,3})(?:\.([0-9]{1,8})0*)?")


def symbol_of(name: str) -> str:
    """The symbol that a file's base name says. Raises BadFile."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise BadFile(name, None, f"not the name of a file of funding rates, expected one like {NAME_EXAMPLE}")
    return found[1]


def parse_funding(text: bytes, file: str) -> Funding:
    """Rates times 10^8 at whole minutes, ascending; of two at the same minute the last. Raises BadFile."""
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
