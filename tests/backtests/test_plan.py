"""Cutting jobs into tasks: every bar in one slice, every parameter set in one batch."""

from datetime import UTC, date, datetime
from itertools import chain, pairwise

import msgspec
import pytest
from candlemill.backtests.plan import BATCH_OUTCOMES, BATCH_SETS, make_plan, valid_sets
from candlemill.backtests.spec import Spec
from candlemill.errors import BadInput
from candlemill.stored_days import Day, digest_of_days, months_of
from candlemill.units import to_ms
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
    return Spec(symbol="X", account="units", strategy="sma_cross", params={}, grid=grid, start=start, end=end)


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
    assert plan.slices == min(slices, len(days)), "as many as requested, up to one a day"
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


def year(number: int) -> int:
    """The first of January, counted in days from 2021."""
    return (date(number, 1, 1) - date(2021, 1, 1)).days


def test_left_alone_the_planner_cuts_where_the_calendar_says() -> None:
    """Ten years of a single run are half-years, those of a sweep quarters, and a day is not cut."""
    years = [day(k) for k in range(year(2021), year(2031))]
    single, sweep = make_plan(spec(years), years, None), make_plan(spec(years, 100), years, None)
    assert (single.slices, sweep.slices) == (20, 40)
    assert set(single.cuts) < set(sweep.cuts) and {to_ms(datetime(2024, m, 1, tzinfo=UTC)) for m in (4, 10)} <= set(
        sweep.cuts
    )
    assert make_plan(spec(years[:1], 100), years[:1], None).slices == 1
    alone = make_plan(spec(years[:200]), years[:200], None).cuts
    assert [(b - a) // DAY_MS for a, b in pairwise(alone)] == [181, 19]


@given(some_days(), st.integers(1, 2), st.integers(0, 60), st.integers(0, 60))
def test_calendar_cuts_stay_where_they_are(days: list[Day], points: int, first: int, last: int) -> None:
    """Whatever the range, each of its slices has candles, and is cut where those of any other range are."""
    days = [day(30 * k, d.rows) for k, d in enumerate(days)]  # over some years, with gaps
    part = days[min(first, len(days) - 1) :][: last + 1]
    whole, less = (set(make_plan(spec(some, points), some, None).cuts[1:-1]) for some in (days, part))
    inside = {cut for cut in whole if part[0].start < cut <= part[-1].start}
    stub = {part[-1].start} if part[-1].rows < 1440 and len(part) > 1 else set()
    assert less - stub <= inside | stub and inside <= less
    cuts = make_plan(spec(part, points), part, None).cuts
    assert all(any(a <= d.first < b for d in part) for a, b in pairwise(cuts))


def test_a_range_that_ends_within_a_day_is_cut_before_it() -> None:
    days = [day(k) for k in range(10)]
    job = spec(days)
    for end, cuts in {
        days[-1].start + DAY_MS: [],
        days[-1].start + 5 * MINUTE: [days[-1].start],
        days[-1].start: [],
    }.items():
        inside = [d for d in days if d.start < end]
        found = make_plan(msgspec.structs.replace(job, end=end), inside, None).cuts
        assert found == [job.start, *cuts, end]


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
    job = Spec(symbol="X", account="units", strategy="sma_cross", params={}, grid=grid, start=FIRST, end=FIRST + DAY_MS)
    assert (job.combinations, valid_sets(job)) == (6, 3)
