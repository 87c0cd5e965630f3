"""Cutting jobs into tasks: every bar in one slice, every parameter set in one batch."""

from itertools import chain, pairwise

import pytest
from candlemill.errors import BadInput
from candlemill.model import Spec
from candlemill.plan import (
    BATCH_OUTCOMES,
    BATCH_SETS,
    SLICE_BARS,
    SWEEP_SLICE_BARS,
    Day,
    digest_of_days,
    make_plan,
    months_of,
    valid_sets,
)
from hypothesis import given
from hypothesis import strategies as st

DAY_MS, MINUTE = 86_400_000, 60_000
FIRST = 1_609_459_200_000  # 2021-01-01


def day(number: int, rows: int = 1440, at: int = 0) -> Day:
    start = FIRST + number * DAY_MS
    return Day(start, rows, start + at, start + at + (rows - 1) * MINUTE, f"{number}:{rows}")


def spec(days: list[Day], points: int = 1, early: int = 0, late: int = 0) -> Spec:
    grid = {"fast": list(range(1, points + 1))} if points > 1 else {}
    start, end = days[0].first - early, days[-1].last + MINUTE + late
    return Spec(symbol="X", strategy="sma_cross", params={}, grid=grid, start=start, end=end)


@st.composite
def some_days(draw: st.DrawFn) -> list[Day]:
    numbers = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=40)))
    return [day(number, draw(st.sampled_from([1, 2, 700, 1439, 1440]))) for number in numbers]


@given(some_days(), st.integers(1, 60), st.integers(0, 3 * DAY_MS), st.integers(0, 3 * DAY_MS))
def test_slices_cover_the_range_once_at_midnights_each_with_candles(
    days: list[Day], slices: int, early: int, late: int
) -> None:
    job = spec(days, early=early, late=late)
    plan = make_plan(job, days, slices)
    cuts = plan.cuts
    assert (cuts[0], cuts[-1]) == (job.start, job.end) and cuts == sorted(set(cuts))
    assert all(cut % DAY_MS == 0 for cut in cuts[1:-1])
    assert plan.slices == min(slices, len(days)), "as many as asked for, up to one a day"
    held = [[d for d in days if a <= d.first < b] for a, b in pairwise(cuts)]
    assert all(held) and list(chain(*held)) == days


@given(st.integers(2, 400), st.integers(2, 40))
def test_slices_of_full_days_differ_by_a_day_at_most(count: int, slices: int) -> None:
    days = [day(k) for k in range(count)]
    cuts = make_plan(spec(days), days, slices).cuts
    lengths = {(b - a) // DAY_MS for a, b in pairwise(cuts)}
    assert max(lengths) - min(lengths) <= 1


@given(st.integers(1, 5000), st.integers(1, 300))
def test_batches_cover_all_grid_points_once_and_stay_small(points: int, slices: int) -> None:
    days = [day(k, 1) for k in range(300)]
    plan = make_plan(spec(days, points), days, slices)
    batches = [range(first, first + count) for first, count in map(plan.batch_points, range(plan.batches))]
    assert [point for batch in batches for point in batch] == list(range(points))
    assert max(map(len, batches)) <= BATCH_SETS and max(map(len, batches)) * plan.slices <= BATCH_OUTCOMES
    assert plan.tasks == plan.slices * len(batches)


def test_left_alone_the_planner_cuts_by_work() -> None:
    """Ten years of a single run are a few slices, those of a sweep some more, and a day is not cut."""
    years = [day(k) for k in range(3650)]
    assert make_plan(spec(years), years, None).slices == round(3650 * 1440 / SLICE_BARS) <= 50
    assert make_plan(spec(years, 100), years, None).slices == round(3650 * 1440 / SWEEP_SLICE_BARS) <= 50
    assert make_plan(spec(years[:1], 100), years[:1], None).slices == 1


@pytest.mark.parametrize("slices", [0, -1, 10_001])
def test_a_number_of_slices_out_of_bounds_is_refused(slices: int) -> None:
    with pytest.raises(BadInput, match=f"slices={slices} is not between 1 and 10,000"):
        make_plan(spec([day(0)]), [day(0)], slices)


def test_months_hold_their_days_and_change_their_digest_with_any_of_them() -> None:
    days = [day(k) for k in (0, 30, 31, 364, 365, 366)]  # 1 and 31 January, 1 February, 31 December, 1 and 2 January
    months = months_of(days)
    assert [month.rows for month in months] == [2880, 1440, 1440, 2880]
    assert [(month.end - month.start) // DAY_MS for month in months] == [31, 28, 31, 31]
    assert [month.start for month in months] == [FIRST, FIRST + 31 * DAY_MS, FIRST + 334 * DAY_MS, FIRST + 365 * DAY_MS]
    assert months[0].digest == digest_of_days(days[:2])
    changed = [day(0, 1439), *days[1:]]
    assert [a == b for a, b in zip(months, months_of(changed), strict=True)] == [False, True, True, True]


def test_only_sets_that_the_strategy_accepts_are_counted() -> None:
    grid = {"fast": [1, 2, 3], "slow": [2, 3]}
    job = Spec(symbol="X", strategy="sma_cross", params={}, grid=grid, start=FIRST, end=FIRST + DAY_MS)
    assert (job.combinations, valid_sets(job)) == (6, 3)
