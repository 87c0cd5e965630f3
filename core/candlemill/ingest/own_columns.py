"""Columns of the user's own candles: their names, their conversion to the engine's integers, and what is refused."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from candlemill.backtests.spec import OPTIONS
from candlemill.engine.candles import MINUTE_MS, PRICE_LIMIT, Column
from candlemill.errors import BadInput, NoData, one_line
from candlemill.ingest.convert import scaled_column, utc_ms
from candlemill.units import FIRST_MS, LAST_MS, SCALE

PRICES = ("open", "high", "low", "close")
TIME_NAMES = ("time", "t", "timestamp", "datetime", "date", "open_time")
BINANCE = ("open_time", *PRICES, "volume")  # first columns of Binance's files, which have no header


def converted(
    columns: Mapping[str, Any],
    tz: str | None = None,
    decimals: int | None = None,
    scaled: bool = False,
    volume_scale: int = SCALE,
) -> dict[str, Column]:
    """Return `t` (UTC ms), prices times 10^8 and, if given, volume times its scale, of columns by their usual names.

    Raises BadInput with the first row that is no number or no time; values are checked by `check_times` and
    `check_values`.
    """
    check_scale(volume_scale)
    found = named(list(columns))
    out = {"t": utc_ms(columns[found["t"]], tz)}
    for name in PRICES:
        out[name] = scaled_column(columns[found[name]], name, SCALE, decimals, scaled)
    if "volume" in found:
        out["volume"] = scaled_column(columns[found["volume"]], "volume", volume_scale, decimals, scaled)
    lengths = {name: len(column) for name, column in out.items()}
    if len(set(lengths.values())) > 1:
        raise BadInput(f"the columns have different lengths: {lengths}")
    return out


# -- checks --------------------------------------------------------------------------------------------------------


def check_symbol(symbol: str) -> None:
    if not (isinstance(symbol, str) and 1 <= len(symbol) <= 64 and symbol.isprintable()) or set(symbol) & set(",*?["):
        raise BadInput(one_line(f"symbol {symbol!r:.80} is not 1 to 64 printable letters without , * ? ["))


def check_scale(scale: int) -> None:
    if str(scale) not in [str(10**k) for k in range(9)]:
        raise BadInput(f"volume_scale={scale} is not a power of ten from 1 to {SCALE:,}")


def check_times(t: Column, minutes: int = 1) -> None:
    """Refuse times that are not those of candles of so many minutes, in order. Raises BadInput and NoData."""
    if not len(t):
        raise NoData("there is no candle")
    _refuse(t % MINUTE_MS != 0, t, "is not on a whole minute: a candle's time is when it opens")
    if minutes > 1:
        length = OPTIONS["timeframe"].text(minutes)
        _refuse(
            t % (minutes * MINUTE_MS) != 0, t, f"is not when a candle of {length} opens in UTC, counted from midnight"
        )
    _refuse((t < FIRST_MS) | (t >= LAST_MS), t, "is not in the years 2009 to 2099")
    steps = np.diff(t, prepend=t[0] - MINUTE_MS)
    _refuse(steps == 0, t, "comes twice: keep one of the two")
    _refuse(steps < 0, t, "is before the row above it: sort by time")
    if len(t) > 2 and steps[1:].min() > minutes * MINUTE_MS:
        least = int(steps[1:].min()) // MINUTE_MS
        apart = "a minute" if minutes == 1 else f"{minutes:,} minutes"
        raise BadInput(
            f"no two candles are {apart} apart, the nearest are {least:,}: give the timeframe that the candles have"
        )


def check_values(columns: Mapping[str, Column]) -> None:
    t, high, low = columns["t"], columns["high"], columns["low"]
    for name in PRICES:
        _refuse(columns[name] <= 0, t, f"has a {name} of 0 or less")
        _refuse(columns[name] > PRICE_LIMIT, t, f"has a {name} above {PRICE_LIMIT // SCALE:,}, the engine's limit")
    for name in ("open", "close", "low"):
        _refuse(columns[name] > high, t, f"has its {name} above its high")
    for name in ("open", "close"):
        _refuse(columns[name] < low, t, f"has its {name} below its low")
    if "volume" in columns:
        _refuse(columns["volume"] < 0, t, "has a volume below 0")


def _refuse(wrong: Any, t: Column, reason: str) -> None:
    rows = np.flatnonzero(wrong)
    if len(rows):
        row, ms = int(rows[0]), int(t[rows[0]])
        when = np.datetime_as_string(np.datetime64(ms, "ms"), unit="auto")
        more = f" (and {len(rows) - 1:,} more rows)" if len(rows) > 1 else ""
        raise BadInput(f"row {row:,}, {when}Z, {reason}{more}")


# -- finding and reading columns -----------------------------------------------------------------------------------


def is_known(name: str) -> bool:
    return plain(name) in (*PRICES, "volume", *TIME_NAMES)


def plain(name: str) -> str:
    return str(name).strip().lower().replace(" ", "_")


def named(names: Sequence[str]) -> dict[str, str]:
    """Map standard names (`t`, the prices, `volume` if present) to the given names. Raises BadInput if one is
    missing."""
    found = own_names(names)
    for own in ("t", *PRICES):
        if own not in found:
            raise BadInput(no_column("time" if own == "t" else own, names))
    return found


def own_names(names: Sequence[str]) -> dict[str, str]:
    """Map standard names to the given names, as far as they are known. Raises BadInput if two columns mean the same."""
    found: dict[str, str] = {}
    for name in names:
        if not is_known(name):
            continue
        own = "t" if plain(name) in TIME_NAMES else plain(name)
        if own in found:
            raise BadInput(one_line(f"columns {found[own]!r} and {name!r} mean the same: leave one out"))
        found[own] = name
    return found


def no_column(name: str, names: Sequence[str]) -> str:
    called = f" (called {', '.join(TIME_NAMES)})" if name == "time" else ""
    return one_line(f"no column {name!r}{called} among {', '.join(map(str, names)) or 'none'}: rename one")


def of_arrow(pa: Any, column: Any, name: str) -> Any:
    if column.null_count:
        row = column.is_null().to_pylist().index(True)
        raise BadInput(f"{name} of row {row:,} is missing: fill it or drop the row")
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_timestamp(kind):
        return column.to_numpy()  # zoned times are UTC internally
    return column.to_pylist()
