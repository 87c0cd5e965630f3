"""Cutting a job into tasks: slices along UTC days, times batches of parameter sets."""

import hashlib
import math
from bisect import bisect_left
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate, groupby

import msgspec

from candlemill.errors import BadInput
from candlemill.model import Spec, grid_points, to_ms

SLICE_BARS = 262_144  # one run over this many takes a millisecond, with its columns in the cache
SWEEP_SLICE_BARS = 131_072  # bars whose shared columns stay in the cache and in memory
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
    for (year, month), group in groupby(days, key=lambda day: _year_month(day.start)):
        members = list(group)
        start = to_ms(datetime(year, month, 1, tzinfo=UTC))
        end = to_ms(datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC))
        months.append(Month(start, end, sum(day.rows for day in members), digest_of_days(members)))
    return months


def _year_month(ms: int) -> tuple[int, int]:
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.year, moment.month


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
    """Slices of about equal numbers of bars, cut at UTC midnights; `slices` None chooses.

    `days` are the days of the range that have bars, ascending.
    """
    bars = sum(day.rows for day in days)
    target = SWEEP_SLICE_BARS if spec.combinations > 1 else SLICE_BARS
    wanted = max(1, round(bars / target)) if slices is None else slices
    if not 1 <= wanted <= SLICES_LIMIT:
        raise BadInput(f"slices={wanted} is not between 1 and {SLICES_LIMIT:,}")
    cuts = [spec.start, *_cuts(days, min(wanted, len(days)), bars), spec.end]
    batch = max(1, min(BATCH_SETS, BATCH_OUTCOMES // (len(cuts) - 1)))
    plan = Plan(cuts=cuts, batch=batch, points=spec.combinations, bars=bars)
    if plan.tasks > TASKS_LIMIT:
        raise BadInput(
            f"{plan.slices:,} slices times {plan.batches:,} batches are {plan.tasks:,} tasks, "
            f"the limit is {TASKS_LIMIT:,}: use fewer slices or a smaller grid"
        )
    return plan


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


def estimate_seconds(plan: Plan) -> float:
    """A rough cost on one core: reading dominates a single run, computing a sweep."""
    read = plan.bars * 0.12e-6
    compute = plan.bars * plan.points * 3e-9
    return math.ceil((read + compute) * 10) / 10
