"""What an outcome depends on, as the address that it is kept under, so that no job computes what another one has.

An outcome is what one parameter set makes of one slice from one start state. It follows from
- the set: what was asked for, apart from the range and what only multiplies results (`set_key`);
- the code that runs it (`model.code_key`);
- the slice: its bounds, and the candles from the first that the set looks back at to the last that completes the
  slice's last k-bar (`slice_key`). The job's ends take part where they are nearer than that.
- the start state.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate

import msgspec
import numpy as np

from candlemill.engine.tape import DAY_MS, MINUTE_MS
from candlemill.errors import BeingWritten, NoData
from candlemill.ledger import Funding, Index
from candlemill.model import FIRST_MS, LAST_MS, SCALE, ParamValue, Spec, code_key, grid_points, iso
from candlemill.plan import Day
from candlemill.strategies import Strategy
from candlemill.work import context_bars, sizing_of

GROUNDS_KEPT = 8
KEY_LETTERS = 32  # hexadecimal: 128 bits


class Ground:
    """The data under a job: the days of its range, in order, and its funding rates where they are applied.

    `digest` is the SHA-256 of all of it. Made once for a job: ten years are thousands of days.
    """

    def __init__(self, days: Sequence[Day], funding: Funding | None, start: int, end: int) -> None:
        self.days = [day for day in days if day.start + DAY_MS > start and day.start < end]
        self._funding = funding
        self._starts = [day.start for day in self.days]
        self._before = list(accumulate((day.rows for day in self.days), initial=0))  # rows before each day
        told = [f"{day.start}:{day.digest}\n".encode() for day in self.days]
        self._text = b"".join(told)
        self._places = list(accumulate(map(len, told), initial=0))
        self._start = max(start, self.days[0].first) if self.days else start
        self._unsure = [day for day in self.days if not day.digest]
        self.digest = hashlib.sha256(self._text).hexdigest()
        if funding is not None:
            self.digest = hashlib.sha256(self.digest.encode() + self._rates(start, end)).hexdigest()

    def _rates(self, start: int, end: int) -> bytes:
        """The funding rates of `start <= t < end`, with their instants."""
        if self._funding is None:
            return b""
        a, b = np.searchsorted(self._funding.t, [start, end])
        return np.stack((self._funding.t[a:b], self._funding.rate[a:b])).astype("<i8").tobytes()

    def has_rates(self, start: int, end: int) -> bool:
        return len(self._rates(start, end)) > 0

    def check_counted(self, symbol: str) -> None:
        """Raises BeingWritten where a write to the range has begun and not ended."""
        if self._unsure:
            raise BeingWritten(
                f"{len(self._unsure):,} days of {symbol} from {iso(self._unsure[0].start)} on are being written: try "
                f"again; if it lasts, a write broke off, and `candlemill coverage {symbol}` counts them again"
            )

    def inside(self, start: int, end: int) -> slice:
        """Which days have a minute of `start <= t < end`."""
        return slice(bisect_right(self._starts, start - DAY_MS), bisect_left(self._starts, end))

    def bounds(self, start: int, end: int) -> tuple[int, int]:
        """A slice's bounds without what has no candles: a job that began earlier, before there were any, or that goes
        on to a day that has none yet, has the same slices."""
        inside = self.days[self.inside(start, end)]
        if not inside:
            return start, end
        return max(start, inside[0].first), min(end, inside[-1].start + DAY_MS)

    def context(self, start: int, bars: int) -> tuple[int, int]:
        """Where `bars` candles before the slice that begins at `start` are certain to have begun: the midnight in ms,
        and the number of its day. Where the job does not have as many: the job's first candle."""
        first = self.inside(start, start + 1).start
        day = bisect_right(self._before, self._before[first] - bars) - 1
        if day < 0 or (day == 0 and self._start > self.days[0].first):
            return self._start, 0
        return self._starts[day], day

    def data(self, first_day: int, first: int, stop: int) -> bytes:
        """What identifies the data from `first`, in day `first_day`, to before `stop`."""
        last = bisect_left(self._starts, stop)
        return self._text[self._places[first_day] : self._places[last]] + self._rates(first, stop)


class _Same:
    """An object as a key: equal to itself only."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value


@lru_cache(GROUNDS_KEPT)
def _ground(days: _Same, funding: _Same, start: int, end: int) -> Ground:
    return Ground(days.value, funding.value, start, end)  # type: ignore[arg-type]


def ground_of(index: Index, spec: Spec, whole: bool = True) -> Ground:
    """The ground of a job, as the index has it now: the same object while that says the same. Raises NoData for
    funding without any rate, and BeingWritten, unless days in the making will do (not `whole`)."""
    funding = index.funding(spec.symbol) if spec.funding else None
    ground = _ground(_Same(index.days(spec.symbol)), _Same(funding), spec.start, spec.end)
    if whole:
        ground.check_counted(spec.symbol)
    if spec.funding and ground.days and not ground.has_rates(spec.start, spec.end):
        raise NoData(
            f"{spec.symbol} has no funding rate in {iso(spec.start)}..{iso(spec.end)}: "
            "ingest some, or leave funding out"
        )
    return ground


class SetAddress(msgspec.Struct, frozen=True):
    """A parameter set's key, and how many minute bars before a slice it looks at."""

    key: str
    context: int


class Place(msgspec.Struct, frozen=True):
    """A slice's key; its bounds as far as there are candles, and where what a set looks back at begins, in ms."""

    key: str
    first: int
    start: int
    end: int


class Addresses:
    """The addresses of one job's outcomes. With a `run` they are that run's own: nobody else has them."""

    def __init__(self, spec: Spec, ground: Ground, run: int = 0) -> None:
        self.code = code_key(spec.strategy)
        self._spec = spec
        self._ground = ground
        self._run = run
        self._asked = asked(spec).to_json()
        self._places: dict[tuple[int, int, int], Place] = {}

    def sets(self, first: int, count: int) -> dict[int, SetAddress]:
        """The valid sets among grid points `first` to `first + count - 1`, by point."""
        return self.of(grid_points(self._spec, first, count))

    def of(self, points: Iterable[tuple[int, dict[str, ParamValue], Strategy]]) -> dict[int, SetAddress]:
        """The same of what `grid_points` has yielded."""
        return {
            point: SetAddress(self._set_key(params), context_bars(self._spec, [strategy], exact=True))
            for point, params, strategy in points
        }

    def _set_key(self, params: dict[str, ParamValue]) -> str:
        told = msgspec.json.encode(params, order="sorted")
        return hashlib.sha256(self._asked + b"\0" + told).hexdigest()[:KEY_LETTERS]

    def place(self, start: int, end: int, context: int) -> Place:
        """The slice from `start` to `end` (ms), for sets that look at `context` bars before it."""
        first, day = self._ground.context(start, context)
        known = self._places.get((start, end, first))
        if known is None:
            known = self._places[start, end, first] = self._place(start, end, first, day)
        return known

    def _place(self, start: int, end: int, first: int, day: int) -> Place:
        start, end = self._ground.bounds(start, end)
        k_ms = self._spec.timeframe * MINUTE_MS
        stop = min(self._spec.end, -(-end // k_ms) * k_ms)
        legs = [leg for leg in self._spec.schedule if leg.start < stop]  # a later one decides nothing here
        digest = hashlib.sha256(f"{start},{end},{first},{stop},{self._run};".encode())
        digest.update(msgspec.json.encode(legs, order="sorted") + b"\0")
        digest.update(self._ground.data(day, first, stop))
        return Place(digest.hexdigest()[:KEY_LETTERS], first, start, end)


def asked(spec: Spec) -> Spec:
    """What of a job's spec its outcomes depend on, apart from parameters, range and schedule. What a result is
    multiplied by at the very end is not in them."""
    quantity = SCALE if sizing_of(spec) is None else spec.quantity
    return msgspec.structs.replace(
        spec, params={}, grid={}, schedule=[], start=FIRST_MS, end=LAST_MS, capital=None, quantity=quantity
    )
