"""Cache keys of outcomes: everything that an outcome depends on, so that jobs can reuse each other's outcomes.

An outcome is the result of one parameter set on one slice from one start state. It depends on
- the set: the spec, apart from the range and from what only multiplies results (`set_key`);
- the code that runs it (`model.code_key`);
- the slice: its bounds, and the candles from the first that the set reads before the slice to the last that completes
  the slice's last k-bar (`slice_key`). The job's ends count where they are nearer than that;
- the start state.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Final

import msgspec
import numpy as np

from candlemill.backtests.grid import grid_points
from candlemill.backtests.identity import code_key
from candlemill.backtests.spec import CASH_RULES, ParamValue, Spec
from candlemill.backtests.spec_rules import context_bars, is_per_unit, keeps_tapes, sees_panel
from candlemill.backtests.universe import parse_universe
from candlemill.engine.candles import DAY_MS, MINUTE_MS, Column, end_of_bar
from candlemill.errors import BeingWritten, NoData
from candlemill.intervals import IntervalSet
from candlemill.pipeline.interfaces import DayIndex
from candlemill.stored_days import Day, Funding
from candlemill.strategies import Strategy
from candlemill.units import FIRST_MS, LAST_MS, SCALE, iso

JOBS_KEPT = 8
FUNDING_MS = 8 * 3_600_000
"""Binance settles every eight hours or more often: a rate stands for what comes so long before and after it."""
KEY_LETTERS = 32  # hexadecimal: 128 bits


class JobData:
    """The data of a job: the days of its range, in order, and its funding rates where they are applied.

    With `before`, the days before its range, which decisions may see, are part of it too. `digest` is the SHA-256 of
    all of it. Create it once for each job: ten years are thousands of days.
    """

    def __init__(
        self, days: Sequence[Day], funding: Funding | None, start: int, end: int, before: bool = False
    ) -> None:
        self.days = [day for day in days if day.start + DAY_MS > start and day.start < end]
        self._read = [day for day in days if day.start < end] if before else self.days
        self._skipped = len(self._read) - len(self.days)  # days before the range
        self._funding = funding
        self._starts = [day.start for day in self._read]
        self._before = list(accumulate((day.rows for day in self._read), initial=0))  # rows before each day
        parts = [f"{day.start}:{day.digest}\n".encode() for day in self._read]
        self._text = b"".join(parts)
        self._offsets = list(accumulate(map(len, parts), initial=0))
        self._start = max(start, self.days[0].first) if self.days else start
        self._reads_from = self._read[0].first if before and self._read else self._start
        self._unsure = [day for day in self._read if not day.digest]
        self.digest = hashlib.sha256(self._text).hexdigest()
        if funding is not None:
            self.digest = hashlib.sha256(self.digest.encode() + self._rates(start, end)).hexdigest()

    def _rates(self, start: int, end: int) -> bytes:
        """Return the funding rates of `start <= t < end` (ms) with their times, as bytes."""
        if self._funding is None:
            return b""
        a, b = np.searchsorted(self._funding.t, [start, end])
        return np.stack((self._funding.t[a:b], self._funding.rate[a:b])).astype("<i8").tobytes()

    def has_rates(self, start: int, end: int) -> bool:
        return len(self._rates(start, end)) > 0

    def funding_missing(self, start: int, end: int) -> int:
        """Count the minutes without a valid funding rate, from the first to the last candle of `start <= t < end` (ms).
        These are the minutes more than FUNDING_MS away from every rate."""
        if self._funding is None or not self.days:
            return 0
        lacking = IntervalSet([(self._start, min(end, self.days[-1].last + MINUTE_MS))])
        a, b = np.searchsorted(self._funding.t, [start - FUNDING_MS, end + FUNDING_MS])
        for first, last in _runs(self._funding.t[a:b]):
            lacking.remove(first - FUNDING_MS, last + FUNDING_MS)
        return lacking.total() // MINUTE_MS

    def check_counted(self, symbol: str) -> None:
        """Raise BeingWritten if a write to the range has started and not finished."""
        if self._unsure:
            raise BeingWritten(
                f"{len(self._unsure):,} days of {symbol} from {iso(self._unsure[0].start)} on are being written: try "
                f"again; if it lasts, a write broke off, and `candlemill coverage {symbol}` counts them again"
            )

    def inside(self, start: int, end: int) -> slice:
        """Return the slice of days that have a minute of `start <= t < end` (ms)."""
        inside = self._inside(start, end)
        return slice(max(0, inside.start - self._skipped), max(0, inside.stop - self._skipped))

    def _inside(self, start: int, end: int) -> slice:
        """Return the same of all days that may be read."""
        return slice(bisect_right(self._starts, start - DAY_MS), bisect_left(self._starts, end))

    def bars(self, start: int, end: int) -> tuple[int, int]:
        """Return the minimum and maximum number of candles in `start <= t < end` (ms).
        They differ because a day that the bounds cut may have its candles on either side."""
        inside = self._inside(start, end)
        inside = slice(max(inside.start, self._skipped), max(inside.stop, self._skipped))
        most = self._before[inside.stop] - self._before[inside.start]
        edges = {inside.start, inside.stop - 1} if inside.stop > inside.start else ()
        cut = [day for day in map(self._read.__getitem__, edges) if day.first < start or day.last >= end]
        return most - sum(day.rows for day in cut), most

    def bounds(self, start: int, end: int) -> tuple[int, int]:
        """Return a slice's bounds without the parts at the job's ends that have no candles.
        So a job that starts before the first candle, or ends after the last one, has the same slices."""
        inside = self.days[self.inside(start, end)]
        if not inside:
            return start, end
        return max(start, inside[0].first), min(end, inside[-1].start + DAY_MS)

    def context(self, start: int, bars: int, stop: int = 0) -> tuple[int, int]:
        """Return the midnight (ms) and the day number from which at least `bars` candles come before the slice at
        `start`; `stop`, the end of its last k-bar, matters for panels only.
        If the job has fewer candles before it: those of the job's first candle."""
        first = self._inside(start, start + 1).start
        day = bisect_right(self._before, self._before[first] - bars) - 1
        if day < 0 or (day == 0 and self._reads_from > self._read[0].first):
            return self._reads_from, 0
        return self._starts[day], day

    def candles_before(self, start: int) -> int:
        """Return the number of candles of the days before that of `start`."""
        before: int = self._before[self._inside(start, start + 1).start]
        return before

    def may_read(self, start: int, end: int) -> bool:
        """Return whether a day that may be read has a minute of `start <= t < end` (ms)."""
        inside = self._inside(start, end)
        return bool(inside.start < inside.stop)

    def data_from(self, first: int, stop: int) -> bytes:
        """Return the bytes that identify the data of `first <= t < stop` (ms)."""
        return self.data(self._inside(first, first + 1).start, first, stop)

    def data(self, first_day: int, first: int, stop: int) -> bytes:
        """Return the bytes that identify the data from `first`, in day `first_day`, up to but without `stop`."""
        last = bisect_left(self._starts, stop)
        return self._text[self._offsets[first_day] : self._offsets[last]] + self._rates(first, stop)


class PanelData(JobData):
    """The data of a panel: its days are those with a candle of any symbol, and a day has the candles of all of them."""

    def __init__(
        self,
        symbols: Mapping[str, JobData],
        start: int,
        end: int,
        timeframe: int,
        universe: str = "",
        before: bool = False,
    ) -> None:
        self.symbols = symbols
        self._universe = parse_universe(universe) if universe else None
        self._read_from = FIRST_MS if before else start
        self._timeframe = timeframe
        parts = "".join(f"{symbol}:{data.digest}\n" for symbol, data in sorted(symbols.items()))
        days: dict[int, list[Day]] = {}
        for data in symbols.values():
            for day in data.days:
                days.setdefault(day.start, []).append(day)
        super().__init__([_joint_day(days[at]) for at in sorted(days)], None, start, end)
        self._most = {at: max(day.rows for day in of) for at, of in days.items()}
        self.digest = hashlib.sha256(parts.encode()).hexdigest()

    def has_rates(self, start: int, end: int) -> bool:
        return any(data.has_rates(start, end) for data in self.symbols.values())

    def funding_missing(self, start: int, end: int) -> int:
        return sum(data.funding_missing(start, end) for data in self.symbols.values())

    def check_counted(self, symbol: str) -> None:
        for name, data in self.symbols.items():
            data.check_counted(name)

    def bars(self, start: int, end: int) -> tuple[int, int]:
        """Return bounds of the number of minutes with a candle of any symbol."""
        touched = self.days[self.inside(start, end)]
        least = sum(self._most[day.start] for day in touched if start <= day.first and day.last < end)
        return least, sum(min(day.rows, DAY_MS // MINUTE_MS) for day in touched)

    def present(self, start: int, stop: int) -> list[str]:
        """Return the symbols that may have a decision in the slice from `start`, whose last k-bar ends at `stop`."""
        since = end_of_bar(start + 1, self._timeframe) - self._timeframe * MINUTE_MS  # a k-bar may begin before it
        return [name for name, data in self.symbols.items() if data.may_read(since, stop)]

    def reading_from(self, start: int, bars: int, stop: int) -> int:
        """Return the time (ms) from which the bars of absent symbols are read: no earlier than a panel needs for a
        lookback of `bars` candles."""
        found = [self.symbols[name] for name in self.present(start, stop)]
        enough = [data.context(start, bars)[0] for data in found if data.candles_before(start) >= bars]
        return max(enough, default=self._read_from)

    def context(self, start: int, bars: int, stop: int = 0) -> tuple[int, int]:
        own = [self.symbols[name].context(start, bars)[0] for name in self.present(start, stop)]
        since = self.reading_from(start, bars, stop)
        if self._universe is not None:  # its members are chosen by earlier candles of all symbols
            own.append(max(self._read_from, self._universe.reads_from(min(since, start))))
        return min([since, *own]), 0

    def data(self, first_day: int, first: int, stop: int) -> bytes:
        parts = []
        for name, one in sorted(self.symbols.items()):
            parts.append(f"{name}:".encode() + one.data_from(first, stop))
        return b"".join(parts)


def _joint_day(days: Sequence[Day]) -> Day:
    """Return a day of several symbols. Its digest is empty while one of them is being written."""
    digests = [day.digest for day in days]
    digest = hashlib.sha256("".join(digests).encode()).hexdigest() if all(digests) else ""
    rows = sum(day.rows for day in days)
    return Day(days[0].start, rows, min(day.first for day in days), max(day.last for day in days), digest)


def _runs(times: Column) -> list[tuple[int, int]]:
    """Return the first and last time of each run of times with gaps of at most two times FUNDING_MS."""
    if not len(times):
        return []
    cuts = np.flatnonzero(np.diff(times) > 2 * FUNDING_MS)
    firsts, lasts = times[np.append(0, cuts + 1)], times[np.append(cuts, len(times) - 1)]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


class _Same:
    """A dictionary key that compares an object by identity."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value


@lru_cache(JOBS_KEPT)
def _kept_data(days: _Same, funding: _Same, start: int, end: int, before: bool) -> JobData:
    return JobData(days.value, funding.value, start, end, before)  # type: ignore[arg-type]


def job_data(index: DayIndex, spec: Spec, whole: bool = True) -> JobData:
    """Return the data of a job as the index has it now; the same object while the index is unchanged.
    Raises NoData for funding without any rate, and BeingWritten if days are still being written, unless `whole` is
    false."""
    if sees_panel(spec.strategy):
        return _data_of_panel(index, spec, whole)
    return symbol_data(index, spec, whole)


def symbol_data(index: DayIndex, spec: Spec, whole: bool = True) -> JobData:
    """Return the data of the spec's one symbol, as `job_data`."""
    funding = index.funding(spec.symbol) if spec.funding else None
    data = _kept_data(_Same(index.days(spec.symbol)), _Same(funding), spec.start, spec.end, spec.warm_up == "stored")
    if whole:
        data.check_counted(spec.symbol)
    if spec.funding and data.days and not data.has_rates(spec.start, spec.end):
        raise NoData(
            f"{spec.symbol} has no funding rate in {iso(spec.start)}..{iso(spec.end)}: "
            "ingest some, or leave funding out"
        )
    return data


@lru_cache(JOBS_KEPT)
def _kept_panel_data(
    symbols: tuple[str, ...],
    days: tuple[_Same, ...],
    funding: tuple[_Same, ...],
    start: int,
    end: int,
    timeframe: int,
    universe: str,
    before: bool,
) -> PanelData:
    rows = zip(symbols, days, funding, strict=True)
    return PanelData(
        {name: JobData(of.value, rates.value, start, end, before) for name, of, rates in rows},  # type: ignore[arg-type]
        start, end, timeframe, universe, before,
    )  # fmt: skip


def _data_of_panel(index: DayIndex, spec: Spec, whole: bool) -> PanelData:
    symbols = tuple(spec.symbols)
    days = tuple(_Same(index.days(name)) for name in symbols)
    funding = tuple(_Same(index.funding(name) if spec.funding else None) for name in symbols)
    before = spec.warm_up == "stored"
    found = _kept_panel_data(symbols, days, funding, spec.start, spec.end, spec.timeframe, spec.universe, before)
    if whole:
        found.check_counted(spec.symbol)
    for name, data in found.symbols.items() if spec.funding else ():
        if data.days and not data.has_rates(spec.start, spec.end):
            raise NoData(
                f"{name} has no funding rate in {iso(spec.start)}..{iso(spec.end)}: ingest some, or leave funding out"
            )
    return found


class ParamSetKey(msgspec.Struct, frozen=True):
    """A parameter set's key, and the number of minute bars before a slice that it reads."""

    key: str
    context: int


class SliceKey(msgspec.Struct, frozen=True):
    """A slice's key, its bounds as far as there are candles, and the start of the data that a set reads before it,
    in ms."""

    key: str
    first: int
    start: int
    end: int


class CacheKeys:
    """The cache keys of one job's outcomes. With a `run` they belong to that run and are shared with no other job."""

    def __init__(self, spec: Spec, data: JobData, run: int = 0) -> None:
        self.code = code_key(spec.strategy)
        self._spec = spec
        self._data = data
        self._run = run
        self._timeframe = spec.longest_timeframe
        self._spec_bytes = cacheable_spec(spec).to_json() + b"tapes" * keeps_tapes(spec)
        self._slice_keys: dict[tuple[int, int, int], SliceKey] = {}
        self._contexts: dict[tuple[int, int, int], tuple[int, int]] = {}

    def sets(self, first: int, count: int) -> dict[int, ParamSetKey]:
        """Return the keys of the valid sets among grid points `first` to `first + count - 1`, by point."""
        return self.of(grid_points(self._spec, first, count))

    def of(self, points: Iterable[tuple[int, dict[str, ParamValue], Strategy]]) -> dict[int, ParamSetKey]:
        """Return the keys of the sets that `grid_points` has yielded, by point."""
        return {
            point: ParamSetKey(self._set_key(params), context_bars(self._spec, [strategy], exact=True))
            for point, params, strategy in points
        }

    def _set_key(self, params: dict[str, ParamValue]) -> str:
        parts = msgspec.json.encode(params, order="sorted")
        return hashlib.sha256(self._spec_bytes + b"\0" + parts).hexdigest()[:KEY_LETTERS]

    def slice_key(self, start: int, end: int, context: int) -> SliceKey:
        """Return the key of the slice from `start` to `end` (ms), for sets that read `context` bars before it."""
        first, day = self._context(start, end, context)
        known = self._slice_keys.get((start, end, first))
        if known is None:
            known = self._slice_keys[start, end, first] = self._slice_key(start, end, first, day)
        return known

    def _context(self, start: int, end: int, context: int) -> tuple[int, int]:
        known = self._contexts.get((start, end, context))
        if known is None:
            stop = min(self._spec.end, end_of_bar(end, self._timeframe))
            known = self._contexts[start, end, context] = self._data.context(start, context, stop)
        return known

    def _slice_key(self, start: int, end: int, first: int, day: int) -> SliceKey:
        warms = self._spec.warm_up == "stored" and start <= self._spec.start  # a memory begins before the first slice
        start, end = self._data.bounds(start, end)
        stop = min(self._spec.end, end_of_bar(end, self._timeframe))
        # A later leg has no effect on this slice, and an earlier one none if legs have options.
        legs = [leg for leg in self._spec.at(start).schedule if leg.start < stop]
        digest = hashlib.sha256(f"{start},{end},{first},{stop},{self._run}{',warm' * warms};".encode())
        digest.update(msgspec.json.encode(legs, order="sorted") + b"\0")
        digest.update(self._data.data(day, first, stop))
        return SliceKey(digest.hexdigest()[:KEY_LETTERS], first, start, end)


MONEY: Final = {
    **CASH_RULES, "fee": 0, "maker_fee": None, "capital": None, "quantity": SCALE, "notional": None,
}  # fmt: skip
"""The options that settle an account of real money, and do not decide fills."""


def cacheable_spec(spec: Spec) -> Spec:
    """Return the part of a job's spec that its outcomes depend on, apart from parameters, range and schedule.
    It leaves out the factors that multiply a result at the end."""
    if keeps_tapes(spec):  # fills and their prices do not depend on money
        spec = msgspec.structs.replace(spec, **MONEY)
    if spec.account == "cash":
        return msgspec.structs.replace(spec, params={}, grid={}, schedule=[], start=FIRST_MS, end=LAST_MS)
    quantity = SCALE if is_per_unit(spec) else spec.quantity
    return msgspec.structs.replace(
        spec, params={}, grid={}, schedule=[], start=FIRST_MS, end=LAST_MS, capital=None, quantity=quantity
    )
