"""The log of a paper run: what it has used and decided, in the order in which that happened. See `PaperLogRow`.

It is written before anything is published, so a run that was killed goes on from its last row, and publishes again what
may have been lost under the same ids.
"""

from collections.abc import Iterable

import msgspec

from candlemill.backtests.slice import SliceOutcome
from candlemill.engine.candles import DAY_MS
from candlemill.paper.candles import Row
from candlemill.pipeline.rows import PaperLogRow
from candlemill.stored_days import Day


class ClosedDay(msgspec.Struct, frozen=True, array_like=True):
    """A UTC day that is over: its candles, its outcome, and the days that its slice ended (one, or none)."""

    day: Day
    outcome: SliceOutcome
    days: list[int]


class History(msgspec.Struct):
    """A log that has been read. `candles`, `states` and `published` (the newest decision: attempt and data) are by
    minute, `days` by their midnights, ascending."""

    candles: dict[int, Row] = {}
    states: dict[int, bytes] = {}
    published: dict[int, tuple[int, str]] = {}
    days: dict[int, ClosedDay] = {}
    seq: int = 0
    replays: int = 0


_days = msgspec.json.Decoder(ClosedDay)


def read_log(rows: Iterable[PaperLogRow]) -> History:
    """Return what rows in the order of `seq` add up to."""
    found = History()
    for row in rows:
        found.seq = max(found.seq, row.seq)
        if row.kind == "replay":
            found.replays += 1
            for kept in (found.candles, found.states):
                for t in [t for t in kept if t >= row.t]:
                    del kept[t]
            for start in [start for start in found.days if start + DAY_MS > row.t]:
                del found.days[start]
        elif row.kind == "day":
            found.days[row.t] = _days.decode(row.state)
        else:
            found.candles[row.t] = (row.t, row.open, row.high, row.low, row.close, row.volume)
            found.states.pop(row.t, None)  # a minute that is logged again may be inside of a slice now
            if row.state:
                found.states[row.t] = row.state.encode()
            if row.event:
                found.published[row.t] = (row.attempt, row.data)
    return found
