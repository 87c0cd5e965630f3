"""Real candles, read twice: for candlemill by the tests' reference, for its peers by pandas as their users do."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from candlemill.units import parse_range
from numpy.typing import NDArray
from slow_engine import Bar, read_zip
from world import World

SPOT = Path(__file__).parents[3] / "shared/data/spot"
NO_CANDLES = f"no real candles at {SPOT}"

# name: files and range. What each is there for stands in docs/peers.md.
SETS: dict[str, tuple[tuple[str, ...], str]] = {
    "BTCUSDT": (("BTCUSDT-1m-2021-04", "BTCUSDT-1m-2021-05"), "2021-04-22..2021-05-05"),
    "DOGEUSDT": (("DOGEUSDT-1m-2021-04", "DOGEUSDT-1m-2021-05"), "2021-04-24..2021-05-06"),
    "BTTUSDT": (("BTTUSDT-1m-2021-05",), "2021-05-03..2021-05-13"),
    "ETHBTC": (("ETHBTC-1m-2019-11",), "2019-11-08..2019-11-20"),
    "BRDBTC": (("BRDBTC-1m-2021-04",), "2021-04-15..2021-04-25"),
    "BTCUSDT 2025": (("BTCUSDT-1m-2025-10", "BTCUSDT-1m-2025-11"), "2025-10-29..2025-10-31"),
}
COLUMNS = ["t", "Open", "High", "Low", "Close", "Volume"]


@cache
def bars_of(name: str) -> list[Bar]:
    files, text = SETS[name]
    start, end = parse_range(text)
    return [bar for file in files for bar in read_zip(SPOT / f"{file}.zip") if start <= bar.t < end]


@cache
def world_of(name: str) -> World:
    return World(bars_of(name))


@cache
def frame_of(name: str) -> pd.DataFrame:
    """Prices as floats, indexed by UTC open times: missing minutes are missing rows."""
    files, text = SETS[name]
    paths = [SPOT / f"{file}.zip" for file in files]
    frame = pd.concat([pd.read_csv(p, header=None, usecols=range(6), names=COLUMNS, dtype=str) for p in paths])
    t = frame.pop("t").astype("int64")
    frame = frame.astype("float64").set_index(pd.to_datetime(t.where(t < 10**14, t // 1000), unit="ms"))
    start, end = (pd.Timestamp(ms, unit="ms") for ms in parse_range(text))
    return frame[(frame.index >= start) & (frame.index < end)]


def times_of(index: pd.DatetimeIndex) -> NDArray[np.int64]:
    """Milliseconds, whatever unit pandas keeps."""
    found: NDArray[np.int64] = index.as_unit("ms").asi8
    return found


def resampled(frame: pd.DataFrame, minutes: int) -> pd.DataFrame:
    """Bars of so many minutes, those without a minute left out."""
    how = {"Open": "first", "High": "max", "Low": "min", "Close": "last", "Volume": "sum"}
    return frame.resample(f"{minutes}min").agg(how).dropna()
