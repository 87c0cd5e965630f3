"""Keeping the metadata index true to the candles."""

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candlemill.engine.tape import DAY_MS
from candlemill.io.store import PRICES, Store
from candlemill.plan import Day

CANDLE_COLUMNS = ("t", *PRICES, "volume")


def count_days(columns: dict[str, NDArray[Any]]) -> list[Day]:
    """Index rows of candles in time order, whole days each.

    A day's digest is SHA-256 over its columns t, open, high, low, close, volume, one after the other, each as
    little-endian 64-bit integers in time order: anyone can recompute it from the candles.
    """
    t = columns["t"]
    if not len(t):
        return []
    days = t // DAY_MS
    starts = np.concatenate(([0], np.flatnonzero(days[1:] != days[:-1]) + 1, [len(t)])).tolist()
    raw = [columns[name].astype(_wire(name), copy=False).view(np.uint8) for name in CANDLE_COLUMNS]
    out = []
    for a, b in itertools.pairwise(starts):
        digest = hashlib.sha256()
        for column in raw:
            digest.update(column[8 * a : 8 * b].data)
        out.append(Day(int(days[a]) * DAY_MS, b - a, int(t[a]), int(t[b - 1]), digest.hexdigest()))
    return out


def _wire(name: str) -> str:
    return "<u8" if name == "volume" else "<i8"


def current_days(store: Store, symbol: str) -> Sequence[Day]:
    """The index of `symbol`; days whose last write did not end are counted again first."""
    days = store.days(symbol)
    unsure = [day for day in days if not day.digest]
    if not unsure:
        return days
    for day in unsure:
        columns = store.read_columns(symbol, day.start, day.start + DAY_MS, CANDLE_COLUMNS[1:])
        counted = count_days(columns)
        store.put_days(symbol, counted or [Day(day.start, 0, day.start, day.start, "empty")])
    return store.days(symbol)
