"""Cutting a job into tasks: slices along UTC days, times batches of parameter sets."""

import hashlib
import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import accumulate, pairwise

import msgspec

from candlemill.engine.tape import DAY_MS
from candlemill.errors import BadInput
from candlemill.model import Spec, grid_points, to_ms

SLICE_MONTHS = 6  # of one set: a run over their 262,000 minutes takes a millisecond, with the columns in the cache
SWEEP_SLICE_MONTHS = 3  # of a sweep: what its sets share of their 131,000 minutes stays in the cache
BATCH_SETS = 512
BATCH_OUTCOMES = 65_536  # slices times sets that one batch may have: they are merged in memory
SLICES_LIMIT = 10_000
TASKS_LIMIT = 100_000


class Day(msgspec.Struct, frozen=True):
    """One UTC day of a symbol in the metadata index: `start` in ms, its bars and the digest of their content."""

    start: int
    rows: int
    first: int
    last: int
    digest: str


class Month(msgspec.Struct, frozen=True):
    """A month of a symbol in the index: `start` to `end` in ms, its rows and the digest of its days."""

    start: int
    end: int
    rows: int
    digest: str


def months_of(days: Sequence[Day]) -> list[Month]:
    """Months that have candles, ascending, from ascending days."""
    months = []
    starts = [day.start for day in days]
    for start, end in pairwise(_month_starts(days, 1)):
        members = days[bisect_left(starts, start) : bisect_left(starts, end)]
        if members:
            months.append(Month(start, end, sum(day.rows for day in members), digest_of_days(members)))
    return months


def _month_starts(days: Sequence[Day], step: int) -> Iterator[int]:
    """Every `step`-th month's first midnight, counted from January, from the first day's or before it until one is
    after the last day."""
    if not days:
        return
    first = datetime.fromtimestamp(days[0].start / 1000, UTC)
    number = (first.year * 12 + first.month - 1) // step * step
    at = to_ms(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC))
    while at <= days[-1].start:
        yield at
        number += step
        at = to_ms(datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC))
    yield at


def digest_of_days(days: Sequence[Day]) -> str:
    """SHA-256 over the days' starts and digests, in order."""
    text = "".join(f"{day.start}:{day.digest}\n" for day in days)
    return hashlib.sha256(text.encode()).hexdigest()


class Plan(msgspec.Struct, frozen=True):
    """`cuts[k]` to `cuts[k + 1]` is slice k, in ms; batch b is grid points `b * batch` and the following.

    `run` is 0 where partials that are stored already count, else it tells this run's partials from all others.
    """

    cuts: list[int]
    batch: int
    points: int
    bars: int
    run: int = 0

    @property
    def slices(self) -> int:
        return len(self.cuts) - 1

    @property
    def batches(self) -> int:
        return math.ceil(self.points / self.batch)

    @property
    def tasks(self) -> int:
        return self.slices * self.batches

    def batch_points(self, index: int) -> tuple[int, int]:
        """First grid point and count of batch `index`."""
        first = index * self.batch
        return first, min(self.batch, self.points - first)


def make_plan(spec: Spec, days: Sequence[Day], slices: int | None) -> Plan:
    """`slices` of about equal numbers of bars, cut at UTC midnights; None cuts where the calendar says.

    `days` are the days of the range that have bars, ascending.
    """
    if slices is not None and not 1 <= slices <= SLICES_LIMIT:
        raise BadInput(f"slices={slices} is not between 1 and {SLICES_LIMIT:,}")
    bars = sum(day.rows for day in days)
    inner = calendar_cuts(spec, days) if slices is None else _cuts(days, min(slices, len(days)), bars)
    return plan_of(spec, [spec.start, *inner, spec.end], bars)


def plan_of(spec: Spec, cuts: list[int], bars: int) -> Plan:
    """The plan with these cuts. Raises BadInput where they make too many tasks."""
    batch = max(1, min(BATCH_SETS, BATCH_OUTCOMES // (len(cuts) - 1)))
    plan = Plan(cuts=cuts, batch=batch, points=spec.combinations, bars=bars)
    if plan.tasks > TASKS_LIMIT:
        raise BadInput(
            f"{plan.slices:,} slices times {plan.batches:,} batches are {plan.tasks:,} tasks, "
            f"the limit is {TASKS_LIMIT:,}: use fewer slices or a smaller grid"
        )
    return plan


def calendar_cuts(spec: Spec, days: Sequence[Day]) -> list[int]:
    """Midnights that stay where they are when the job's range changes, so that slices are found again: half-years, and
    quarters for a sweep, each with candles. A range that ends within a day is cut before that day too: what comes
    before it is the same tomorrow."""
    starts = [day.start for day in days]
    cuts: list[int] = []
    before = 0  # days before the last cut
    for cut in _month_starts(days, SWEEP_SLICE_MONTHS if spec.combinations > 1 else SLICE_MONTHS):
        at = bisect_left(starts, cut)
        if before < at < len(days):
            cuts.append(cut)
            before = at
    if starts and starts[-1] + DAY_MS > spec.end and before < len(days) - 1:
        cuts.append(starts[-1])
    return cuts


def _cuts(days: Sequence[Day], slices: int, bars: int) -> list[int]:
    """`slices - 1` midnights that leave about the same number of bars between them, at least a day each."""
    total = list(accumulate(day.rows for day in days))
    cuts: list[int] = []
    first = 0  # the day that the slice being measured begins with
    for k in range(1, slices):
        goal = bars * k / slices
        nearest = bisect_left(total, goal)
        if nearest and goal - total[nearest - 1] < total[nearest] - goal:
            nearest -= 1
        first = min(max(nearest + 1, first + 1), len(days) - (slices - k))
        cuts.append(days[first].start)
    return cuts


def valid_sets(spec: Spec) -> int:
    """How many grid points the strategy accepts."""
    return sum(1 for _ in grid_points(spec, 0, spec.combinations)) if spec.grid else 1


def estimate_seconds(plan: Plan, share: float = 1.0) -> float:
    """A rough cost on one core, of a `share` of the plan: reading dominates a single run, computing a sweep."""
    read = plan.bars * 0.12e-6
    compute = plan.bars * plan.points * 3e-9
    return math.ceil((read + compute) * share * 10) / 10
