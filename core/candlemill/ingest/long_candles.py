"""Candles longer than a minute, such as hours or days, as candles of minutes.

Of an hour only the open is known until it is over. So its first 59 minutes stand still at the open, and the last one is
the whole candle. The minutes have the hour's open, high, low, close and volume, a decision at its end sees no more than
has happened, and what is filled then has the next hour's open.
"""

from collections.abc import Mapping

import numpy as np

from candlemill.engine.candles import MINUTE_MS, Column
from candlemill.ingest.own_columns import PRICES


def as_minutes(columns: Mapping[str, Column], minutes: int) -> dict[str, Column]:
    """Return checked candles of so many minutes as candles of one minute."""
    if minutes == 1:
        return dict(columns)
    times = columns["t"][:, None] + np.arange(minutes, dtype=np.int64) * MINUTE_MS
    found = {"t": times.ravel()}
    for name in PRICES:
        rows = np.repeat(columns["open"], minutes)
        rows[minutes - 1 :: minutes] = columns[name]
        found[name] = rows
    if "volume" in columns:
        rows = np.zeros(len(found["t"]), dtype=columns["volume"].dtype)
        rows[minutes - 1 :: minutes] = columns["volume"]
        found["volume"] = rows
    return found
