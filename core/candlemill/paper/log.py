"""The log of a paper run: what it has used and decided, in the order in which that happened. See `PaperLogRow`.

It is written before anything is published, so a run that was killed goes on from its last row, and publishes again what
may have been lost under the same ids.
"""

from collections.abc import Iterable, Sequence

import msgspec

from candlemill.backtests.slice import SliceOutcome
from candlemill.engine.candles import DAY_MS
from candlemill.paper.candles import Row
from candlemill.paper.inputs import Facts
from candlemill.pipeline.rows import PaperLogRow
from candlemill.stored_days import Day


class ClosedDay(msgspec.Struct, frozen=True, array_like=True):
    """A UTC day that is over: the index of its candles by name, its outcome, and the days that its slice ended (one, or
    none). `day` is the index of a run that reads the candles of one symbol alone, whose name is not logged."""

    day: Day | None
    outcome: SliceOutcome
    days: list[int]
    inputs: dict[str, Day] = {}

    def of(self, name: str) -> Day | None:
        return self.day if self.day is not None else self.inputs.get(name)

    def all(self, names: Sequence[str]) -> dict[str, Day]:
        return {name: day for name in names if (day := self.of(name)) is not None}


class History(msgspec.Struct):
    """A log that has been read. `candles`, `others` (those of further names), `states` and `published` (the newest
    decision: attempt and data) are by minute, `days` by their midnights, ascending. `facts` are None where none were
    logged."""

    candles: dict[int, Row] = {}
    others: dict[int, dict[str, list[int]]] = {}
    states: dict[int, bytes] = {}
    published: dict[int, tuple[int, str]] = {}
    days: dict[int, ClosedDay] = {}
    seq: int = 0
    replays: int = 0
    facts: Facts | None = None

    def of(self, name: str) -> dict[int, Row]:
        """Return the candles of a further name."""
        return {t: (t, *one[name]) for t, one in self.others.items() if name in one}  # type: ignore[misc]


_days = msgspec.json.Decoder(ClosedDay)
_others = msgspec.json.Decoder(dict[str, list[int]])
_facts = msgspec.json.Decoder(Facts)


def read_log(rows: Iterable[PaperLogRow]) -> History:
    """Return what rows in the order of `seq` add up to."""
    found = History()
    for row in rows:
        found.seq = max(found.seq, row.seq)
        if row.kind == "replay":
            found.replays += 1
            for kept in (found.candles, found.others, found.states):
                for t in [t for t in kept if t >= row.t]:
                    del kept[t]
            for start in [start for start in found.days if start + DAY_MS > row.t]:
                del found.days[start]
        elif row.kind == "day":
            found.days[row.t] = _days.decode(row.state)
        elif row.kind == "facts":
            found.facts = _facts.decode(row.state)
        elif row.kind == "inputs":
            found.others[row.t] = _others.decode(row.state)
        else:
            found.candles[row.t] = (row.t, row.open, row.high, row.low, row.close, row.volume)
            found.states.pop(row.t, None)  # a minute that is logged again may be inside of a slice now
            if row.state:
                found.states[row.t] = row.state.encode()
            if row.event:
                found.published[row.t] = (row.attempt, row.data)
    return found
