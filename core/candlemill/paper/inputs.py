"""What a paper run reads: candles of its symbols, mark prices, funding rates and maintenance tiers. Pure: no I/O."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import numpy as np

from candlemill.backtests.spec import Spec
from candlemill.backtests.tiers import TierTable
from candlemill.engine.candles import DAY_MS, MINUTE_MS, CandleColumns
from candlemill.exchanges.binance.markets import mark_name
from candlemill.paper.candles import CandleBuffer, Change, Row
from candlemill.store.candle_writer import count_days
from candlemill.stored_days import Day, Funding

AWAITED_MS = 600_000  # an input without candles for longer is not waited for

Rate = tuple[int, int]  # its time (ms), and the rate times 10^8


class Facts(msgspec.Struct, frozen=True):
    """What a run reads beside candles: `rates` from the run's start on and `tiers` of each symbol, and a digest of the
    days before the start that its decisions see."""

    rates: dict[str, list[Rate]] = {}
    tiers: dict[str, list[TierTable]] = {}
    before: str = ""

    def funding(self, name: str) -> Funding:
        found = np.array(self.rates.get(name, []), dtype=np.int64).reshape(-1, 2)
        return Funding(np.ascontiguousarray(found[:, 0]), np.ascontiguousarray(found[:, 1]))

    def first_change(self, other: "Facts", start: int) -> int | None:
        """Return the time (ms) from which `other` is different, None if it is not."""
        found = [] if self.before == other.before else [start]
        for name in self.rates.keys() | other.rates.keys():
            found += [t for t, _ in set(self.rates.get(name, [])) ^ set(other.rates.get(name, []))]
        for name in self.tiers.keys() | other.tiers.keys():
            mine, others = self.tiers.get(name, []), other.tiers.get(name, [])
            found += [table.valid_from for table in mine if table not in others]
            found += [table.valid_from for table in others if table not in mine]
        return min(found, default=None)


def facts_of(spec: Spec, rates: Mapping[str, Funding], tiers: Mapping[str, Sequence[TierTable]], before: str) -> Facts:
    """Return what a run uses of the rates and tiers of its symbols."""
    found = {}
    for name, funding in rates.items():
        at = int(np.searchsorted(funding.t, spec.start))
        found[name] = list(zip(funding.t[at:].tolist(), funding.rate[at:].tolist(), strict=True))
    return Facts(found, {name: list(tables) for name, tables in tiers.items()}, before)


def mark_of(spec: Spec) -> str | None:
    """Return the name of the mark prices that a run reads, None without any."""
    return mark_name(spec.symbol) if spec.margin != "none" else None


def names_of(spec: Spec) -> list[str]:
    """Return the names of all candles that a run reads: its symbols, and its mark prices."""
    mark = mark_of(spec)
    return spec.symbols if mark is None else [*spec.symbols, mark]


class Inputs:
    """Candles by name, and facts. A *minute* is one in which any of the run's symbols has a candle."""

    def __init__(self, spec: Spec, buffers: Mapping[str, CandleBuffer], facts: Facts) -> None:
        self.spec, self.buffers, self.facts = spec, buffers, facts
        self.mark = mark_of(spec)
        self._traded = [buffers[name] for name in spec.symbols]

    def put(self, name: str, rows: Iterable[Row], since: int, last: int) -> tuple[int, Change]:
        """Store candles from `since` on; return the first minute up to `last` that is another one now, and why."""
        first, why, buffer = 1 << 62, "", self.buffers[name]
        for row in rows:
            change: Change = buffer.put(row) if row[0] >= since else ""
            if change and row[0] < first and row[0] <= last and (name != self.mark or self.has(row[0])):
                first, why = row[0], change
        return first, "late" if why == "new" else why  # type: ignore[return-value]

    @property
    def complete(self) -> Spec:
        """Return the spec with all tiers that are known: a later one has no effect on earlier minutes."""
        return msgspec.structs.replace(self.spec, tiers=self.facts.tiers) if self.facts.tiers else self.spec

    # -- minutes ---------------------------------------------------------------------------------------------------

    def has(self, t: int) -> bool:
        return self.next(t) == t

    def next(self, t: int) -> int | None:
        """Return the first minute at or after `t` (ms)."""
        found = [one.time(at) for one in self._traded if (at := one.index(t)) < one.n]
        return min(found, default=None)

    def previous(self, t: int) -> int | None:
        """Return the last minute before `t` (ms)."""
        found = [one.time(at - 1) for one in self._traded if (at := one.index(t))]
        return max(found, default=None)

    def awaited(self, t: int, last: int) -> list[str]:
        """Return the names of what may still come for minute `t`, where `last` is the minute before it.

        These are candles of what had some in the last minutes, and funding rates that are due by the times of those
        before them.
        """
        found = []
        if len(self.buffers) > 1:
            for name, one in self.buffers.items():
                if one.n and t - AWAITED_MS <= one.time(one.n - 1) < t:
                    found.append(name)
        for name, rates in self.facts.rates.items():
            if len(rates) > 1 and last < 2 * rates[-1][0] - rates[-2][0] <= t:
                found.append(name)
        return found

    # -- contents --------------------------------------------------------------------------------------------------

    def row(self, t: int) -> Row | None:
        """Return the candle of minute `t` of a run of one symbol."""
        (buffer, *more) = self._traded
        return None if more else buffer.row(buffer.index(t))

    def others(self, t: int) -> dict[str, list[int]]:
        """Return what `row` does not: the candles of minute `t` by name, without their times."""
        names = [] if len(self.buffers) == 1 else self.buffers if len(self._traded) > 1 else [str(self.mark)]
        found = {}
        for name in names:
            one = self.buffers[name]
            if (at := one.index(t)) < one.n and one.time(at) == t:
                found[name] = list(one.row(at)[1:])
        return found

    def days(self, start: int, end: int) -> dict[str, Day]:
        """Return the index of the UTC day that begins at `start`, as a store would have it: of candles up to `end`
        (ms), of mark prices all."""
        return {
            name: self.day(name, start, start + DAY_MS if name == self.mark else min(end, start + DAY_MS))
            for name in self.buffers
        }

    def day(self, name: str, start: int, end: int) -> Day:
        one = self.buffers[name]
        found = count_days(one.columns(one.index(start), one.index(end)))
        return found[0] if found else Day(start, 0, start, start, "")

    def marks(self, candles: CandleColumns) -> CandleColumns | None:
        """Return the mark prices in the time of `candles`."""
        t = candles.columns()["t"]
        if self.mark is None or not len(t):
            return None
        one = self.buffers[self.mark]
        first, hi = one.index(int(t[0])), one.index(int(t[-1]) + MINUTE_MS)
        return one.bars(first, hi, "nothing") if first < hi else None

    def drop_before(self, t: int, context: int) -> None:
        for one in self.buffers.values():
            one.drop_before(t, context)


class RunIndex:
    """The day index of a run, with which its job is prepared as a store's job is: see `pipeline.interfaces`."""

    def __init__(self, spec: Spec, facts: Facts, days: Mapping[str, Sequence[Day]]) -> None:
        self._spec, self._facts, self._days = spec, facts, days

    def symbols(self) -> list[str]:
        return list(self._days)

    def days(self, symbol: str) -> Sequence[Day]:
        return self._days.get(symbol, [])

    def volume_scale(self, symbol: str) -> int:
        return self._spec.volume_scale

    def funding(self, symbol: str) -> Funding:
        return self._facts.funding(symbol)

    def margin_tiers(self, symbol: str) -> Sequence[TierTable]:
        return self._facts.tiers.get(symbol, [])


def joined(days: Iterable[Mapping[str, Day]]) -> dict[str, list[Day]]:
    """Return each name's days that have candles, from the days of all names, in order."""
    found: dict[str, list[Day]] = {}
    for one in days:
        for name, day in one.items():
            if day.rows:
                found.setdefault(name, []).append(day)
    return found
