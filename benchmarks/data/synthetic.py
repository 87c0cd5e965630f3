"""A seeded one-minute market that never was, in Binance's file format: for benchmarks and tests without downloads.

    python benchmarks/data/synthetic.py OUTDIR --symbol SYNTHUSDT --year 2023 --seed 1 [--months N] [--years N]

A random walk with volatility that clusters, a daily rhythm, fat tails, a tick of 0.01, minutes without a trade and a
few outages (missing minutes). The same arguments give the same files.
"""

import argparse
import datetime
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MINUTE_MS: Final = 60_000
HOUR_MINUTES: Final = 60
DAY_MINUTES: Final = 1440
TICK: Final = 1_000_000  # 0.01, scaled by 10^8
TICKS_MIN: Final = 100  # the walk does not go below 1.00
MICROSECONDS_FROM_YEAR: Final = 2025
FINER_VOLUME_BEFORE_YEAR: Final = 2022  # six decimals before, five from then on
MINUTE_VOLATILITY: Final = 0.0007  # about half of its value per year


def year(seed: int, year: int, start_price: float = 30_000.0) -> dict[str, Ints]:
    """Return a year of candles, in time order without duplicates.

    Columns: `t` (UTC milliseconds), `open`, `high`, `low`, `close`, `volume`, `quote_volume`, `taker_volume`,
    `taker_quote_volume` (times 10^8) and `count`.
    """
    random = np.random.default_rng([seed, year])
    first = _month_start_ms(year, 1)
    minutes = (_month_start_ms(year + 1, 1) - first) // MINUTE_MS
    volatility = _volatility(random, minutes)
    traded = random.random(minutes) >= 0.0005
    moves = (random.standard_t(4, minutes) * volatility / np.sqrt(2.0) - volatility**2 / 2) * traded
    ticks = np.maximum(np.rint(start_price * 100 * np.exp(np.cumsum(moves))).astype(np.int64), TICKS_MIN)
    candles = _candles(random, ticks, round(start_price * 100), volatility, traded)
    decimals = 6 if year < FINER_VOLUME_BEFORE_YEAR else 5
    candles |= _activity(random, candles, volatility, traded, 10 ** (8 - decimals))
    candles = {"t": first + MINUTE_MS * np.arange(minutes, dtype=np.int64), **candles}
    present = _present(random, minutes)
    return {name: column[present] for name, column in candles.items()}


def _month_start_ms(year: int, month: int) -> int:
    """Return the first millisecond of a month; month 13 is the next January."""
    moment = datetime.datetime(year + (month - 1) // 12, (month - 1) % 12 + 1, 1, tzinfo=datetime.UTC)
    return int(moment.timestamp()) * 1000


def _volatility(random: np.random.Generator, minutes: int) -> Floats:
    """Return each minute's volatility: its logarithm wanders from hour to hour and breathes with the day."""
    hours = minutes // HOUR_MINUTES + 2
    shocks = random.standard_normal(hours) * 0.22
    level = np.empty(hours)
    state = 0.0
    for hour in range(hours):
        state = 0.96 * state + float(shocks[hour])
        level[hour] = state
    minute = np.arange(minutes)
    log_level = np.interp(minute / HOUR_MINUTES, np.arange(hours), level)
    rhythm = 0.3 * np.sin(2 * np.pi * (minute % DAY_MINUTES) / DAY_MINUTES - 2.4)
    return MINUTE_VOLATILITY * np.exp(log_level + rhythm - 0.3)


def _candles(
    random: np.random.Generator, ticks: Ints, first: int, volatility: Floats, traded: NDArray[np.bool_]
) -> dict[str, Ints]:
    """Return open, high, low and close around the closes in ticks; without a trade all four are the last close."""
    previous = np.concatenate(([first], ticks[:-1])).astype(np.int64)
    close = np.where(traded, ticks, previous)
    opens = np.maximum(previous + random.integers(-1, 2, len(ticks)) * traded, TICKS_MIN)
    reach = volatility * ticks * 0.5 * traded
    high = np.maximum(opens, close) + (random.standard_exponential(len(ticks)) * reach).astype(np.int64)
    low = np.minimum(opens, close) - (random.standard_exponential(len(ticks)) * reach).astype(np.int64)
    low = np.maximum(low, TICKS_MIN)
    return {"open": opens * TICK, "high": high * TICK, "low": low * TICK, "close": close * TICK}


def _activity(
    random: np.random.Generator, candles: dict[str, Ints], volatility: Floats, traded: NDArray[np.bool_], step: int
) -> dict[str, Ints]:
    """Return the volumes, in multiples of `step`, and the trade count: busier when the price moves."""
    size = len(volatility)
    busy = np.exp(random.standard_normal(size) * 0.8) * (volatility / MINUTE_VOLATILITY)
    volume = (np.rint(busy * 20e8 / step).astype(np.int64) + 1) * step * traded
    taker = (volume * random.uniform(0.2, 0.8, size)).astype(np.int64) // step * step
    price = (candles["high"] + candles["low"]) / 2e8
    count = (np.rint(busy * 400).astype(np.int64) + 1) * traded
    return {
        "volume": volume,
        "quote_volume": np.rint(volume * price).astype(np.int64),
        "count": count,
        "taker_volume": taker,
        "taker_quote_volume": np.rint(taker * price).astype(np.int64),
    }


def _present(random: np.random.Generator, minutes: int) -> NDArray[np.bool_]:
    """Return which minutes exist: all but a few outages of 20 minutes to 6 hours."""
    present = np.ones(minutes, dtype=np.bool_)
    for _ in range(4):
        start = int(random.integers(DAY_MINUTES, minutes - DAY_MINUTES))
        present[start : start + int(random.integers(20, 360))] = False
    return present


def csv_text(candles: dict[str, Ints], microseconds: bool) -> bytes:
    """Return the candles as Binance writes them: twelve columns, no header, eight decimals."""
    unit = 1000 if microseconds else 1
    table: list[Ints] = [candles["t"] * unit]
    formats = ["%d"]
    for name in ("open", "high", "low", "close", "volume"):
        table += _split(candles[name])
        formats.append("%d.%08d")
    table.append((candles["t"] + MINUTE_MS) * unit - 1)
    table += [*_split(candles["quote_volume"]), candles["count"]]
    table += [*_split(candles["taker_volume"]), *_split(candles["taker_quote_volume"])]
    formats += ["%d", "%d.%08d", "%d", "%d.%08d", "%d.%08d", "0\n"]
    numbers = np.stack(table, axis=1)
    return (",".join(formats) * len(numbers) % tuple(numbers.ravel().tolist())).encode()


def _split(scaled: Ints) -> tuple[Ints, Ints]:
    """Return the whole part and the eight decimals."""
    whole, decimals = np.divmod(scaled, 10**8)
    return whole, decimals


def write_month(folder: Path, symbol: str, year: int, month: int, candles: dict[str, Ints]) -> Path:
    """Write the month's zip and its .CHECKSUM; return the zip's path."""
    t = candles["t"]
    rows = slice(*np.searchsorted(t, [_month_start_ms(year, month), _month_start_ms(year, month + 1)]).tolist())
    text = csv_text({name: column[rows] for name, column in candles.items()}, year >= MICROSECONDS_FROM_YEAR)
    stem = f"{symbol}-1m-{year}-{month:02d}"
    member = zipfile.ZipInfo(f"{stem}.csv", date_time=(2020, 1, 1, 0, 0, 0))  # the same bytes whenever it is run
    member.compress_type = zipfile.ZIP_DEFLATED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, text, compresslevel=1)
    data = buffer.getvalue()
    path = folder / f"{stem}.zip"
    path.write_bytes(data)
    path.with_name(f"{path.name}.CHECKSUM").write_text(f"{hashlib.sha256(data).hexdigest()}  {path.name}")
    return path


def main() -> None:
    """Write the files that the command line asks for."""
    parser = argparse.ArgumentParser(description="Write seeded synthetic one-minute candles in Binance's file format.")
    parser.add_argument("outdir", type=Path)
    parser.add_argument("--symbol", default="SYNTHUSDT")
    parser.add_argument("--year", type=int, default=2023, help="the first year")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--months", type=int, default=12, choices=range(1, 13), help="only the first months of each year"
    )
    parser.add_argument("--years", type=int, default=1)
    arguments = parser.parse_args()
    arguments.outdir.mkdir(parents=True, exist_ok=True)
    price = 30_000.0
    rows = 0
    for number in range(arguments.year, arguments.year + arguments.years):
        candles = year(arguments.seed, number, price)
        price = int(candles["close"][-1]) / 10**8
        for month in range(1, arguments.months + 1):
            write_month(arguments.outdir, arguments.symbol, number, month, candles)
        rows += int(np.searchsorted(candles["t"], _month_start_ms(number, arguments.months + 1)))
    print(f"{rows} candles in {arguments.years * arguments.months} files in {arguments.outdir}")


if __name__ == "__main__":
    main()
