"""Cut a job into tasks: slices along UTC days, times batches of parameter sets."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

import msgspec

from candlemill.backtests.grid import grid_points
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import keeps_tapes, places_orders, sees_panel
from candlemill.engine.candles import DAY_MS
from candlemill.errors import BadInput
from candlemill.stored_days import Day, _month_starts

SLICE_MONTHS = 6  # of one set: their 262,000 minutes run in a millisecond, with the columns in the cache
SWEEP_SLICE_MONTHS = 3  # of a sweep: the data that its sets share for 131,000 minutes stays in the cache
PANEL_SLICE_CANDLES = 8_000_000  # of a panel, all symbols together: 200 MB of three columns
PANEL_SLICE_DAYS = 512
BATCH_SETS = 512
PANEL_BATCH_SETS = 16  # whose slices run in order: batches run beside each other
BATCH_OUTCOMES = 65_536  # limit of slices times sets of one batch, which are merged in memory
SLICES_LIMIT = 10_000
TASKS_LIMIT = 100_000
READ_SECONDS, SET_SECONDS = 0.12e-6, 3e-9  # of one core for a bar: to read it; to compute one set on it


class Plan(msgspec.Struct, frozen=True):
    """Slices and batches of a job. Slice k is `cuts[k]` to `cuts[k + 1]` in ms; batch b is grid points from `b * batch`
    on.

    `run` is 0 if partial results that are already stored count; otherwise it distinguishes this run's partial results
    from all others.

    Where functions run it, a task has `group` consecutive slices of a batch, the last one of a batch maybe fewer. Tasks
    are numbered batch by batch. `todo` are the tasks to run, as ranges of numbers (from, to; without `to`), `checks`
    the batches that need no task, only a merge. `lanes` of them are under way at once, 0: all.
    """

    cuts: list[int]
    batch: int
    points: int
    bars: int
    run: int = 0
    group: int = 1
    lanes: int = 0
    todo: list[tuple[int, int]] = []
    checks: list[tuple[int, int]] = []

    @property
    def slices(self) -> int:
        return len(self.cuts) - 1

    @property
    def batches(self) -> int:
        return math.ceil(self.points / self.batch)

    @property
    def tasks(self) -> int:
        return self.slices * self.batches

    @property
    def batch_tasks(self) -> int:
        """Return the number of tasks of a batch."""
        return math.ceil(self.slices / self.group)

    def batch_points(self, index: int) -> tuple[int, int]:
        """Return first grid point and count of batch `index`."""
        first = index * self.batch
        return first, min(self.batch, self.points - first)


def make_plan(spec: Spec, days: Sequence[Day], slices: int | None) -> Plan:
    """Return a plan of `slices` slices with about equal numbers of bars, cut at UTC midnights; None cuts by the
    calendar.

    `days` are the days of the range that have bars, ascending.
    """
    if slices is not None and not 1 <= slices <= SLICES_LIMIT:
        raise BadInput(f"slices={slices} is not between 1 and {SLICES_LIMIT:,}")
    bars = sum(day.rows for day in days)
    if slices is None and sees_panel(spec.strategy):
        inner = panel_cuts(spec, days)
    elif slices is None and spec.account == "cash" and not keeps_tapes(spec):
        inner = []  # a guess of an account's state is never right: each cut would need a repair
    else:
        inner = calendar_cuts(spec, days) if slices is None else _cuts(days, min(slices, len(days)), bars)
    if spec.varies:
        inner = _with_legs(spec, days, inner)
    return plan_of(spec, [spec.start, *inner, spec.end], bars)


def _with_legs(spec: Spec, days: Sequence[Day], inner: list[int]) -> list[int]:
    """Return the cuts with the starts of all legs; another cut stays if there are candles on either side of it."""
    starts = [day.start for day in days]
    legs = [leg.start for leg in spec.schedule if leg.start > spec.start]
    cuts: list[int] = []
    for cut in sorted({*inner, *legs}):
        before = bisect_left(starts, cuts[-1] if cuts else spec.start)
        after = bisect_left(starts, next((leg for leg in legs if leg > cut), spec.end))
        if cut in legs or before < bisect_left(starts, cut) < after:
            cuts.append(cut)
    return cuts


def plan_of(spec: Spec, cuts: list[int], bars: int) -> Plan:
    """Return the plan with these cuts. Raises BadInput if they make too many tasks."""
    most = PANEL_BATCH_SETS if sees_panel(spec.strategy) else BATCH_SETS
    batch = max(1, min(most, BATCH_OUTCOMES // (len(cuts) - 1)))
    plan = Plan(cuts=cuts, batch=batch, points=spec.combinations, bars=bars)
    if plan.tasks > TASKS_LIMIT:
        raise BadInput(
            f"{plan.slices:,} slices times {plan.batches:,} batches are {plan.tasks:,} tasks, "
            f"the limit is {TASKS_LIMIT:,}: use fewer slices or a smaller grid"
        )
    return plan


def panel_cuts(spec: Spec, days: Sequence[Day]) -> list[int]:
    """Return midnights so close to each other that the candles of all symbols between two of them fit in memory.

    They are at multiples of a power of two of days, so they do not move when the range changes.
    """
    most = max((day.rows for day in days), default=1)
    width = 1
    while width < PANEL_SLICE_DAYS and 2 * width * most <= PANEL_SLICE_CANDLES:
        width *= 2
    cuts, before = [], 0  # days before the latest cut
    for number in range(days[0].start // DAY_MS // width + 1, days[-1].start // DAY_MS // width + 1) if days else ():
        cut = number * width * DAY_MS
        at = bisect_left(days, cut, key=lambda day: day.start)
        if before < at < len(days) and spec.start < cut < spec.end:
            cuts.append(cut)
            before = at
    return cuts


def calendar_cuts(spec: Spec, days: Sequence[Day]) -> list[int]:
    """Return midnights that do not move when the job's range changes, so that stored slices are found again.

    They cut at half-years, or at quarters for a sweep; each slice has candles. A range that ends within a day is also
    cut before that day, because the part before it will be the same tomorrow.
    """
    starts = [day.start for day in days]
    cuts: list[int] = []
    before = 0  # days before the latest cut
    for cut in _month_starts(days, SWEEP_SLICE_MONTHS if spec.combinations > 1 else SLICE_MONTHS):
        at = bisect_left(starts, cut)
        if before < at < len(days):
            cuts.append(cut)
            before = at
    if starts and starts[-1] + DAY_MS > spec.end and before < len(days) - 1:
        cuts.append(starts[-1])
    return cuts


def _cuts(days: Sequence[Day], slices: int, bars: int) -> list[int]:
    """Return `slices - 1` midnights with about the same number of bars between them, at least one day each."""
    total = list(accumulate(day.rows for day in days))
    cuts: list[int] = []
    first = 0  # first day of the current slice
    for k in range(1, slices):
        goal = bars * k / slices
        nearest = bisect_left(total, goal)
        if nearest and goal - total[nearest - 1] < total[nearest] - goal:
            nearest -= 1
        first = min(max(nearest + 1, first + 1), len(days) - (slices - k))
        cuts.append(days[first].start)
    return cuts


def valid_sets(spec: Spec) -> int:
    """Return how many grid points the strategy accepts."""
    return sum(1 for _ in grid_points(spec, 0, spec.combinations)) if spec.grid else 1


def estimate_seconds(plan: Plan, share: float = 1.0) -> float:
    """Return a rough time in seconds on one core for a `share` of the plan.

    Reading takes most of the time of a single run, computing most of that of a sweep.
    """
    seconds = plan.bars * (READ_SECONDS + plan.points * SET_SECONDS)
    return math.ceil(seconds * share * 10) / 10


class Repairs(msgspec.Struct, frozen=True):
    """Most that wrong guesses of start states can cost: slices that run again, of all sets, and seconds on one core."""

    slices: int
    seconds: float


def repairs_at_most(spec: Spec, plan: Plan, sets: int) -> Repairs | None:
    """Return the most that repairs can cost of a job that carries orders or money over its cuts; None for other jobs.

    Orders that stand until they fill, and positions that outlive the warm-up, make a guess wrong; the state of an
    account of real money that is carried is never guessed right. Any other job's guesses are nearly always right.
    """
    if plan.slices < 2 or not (places_orders(spec.strategy) or (spec.account == "cash" and not keeps_tapes(spec))):
        return None
    again = estimate_seconds(plan) * (plan.slices - 1) / plan.slices
    return Repairs((plan.slices - 1) * sets, math.ceil(again * 10) / 10)
