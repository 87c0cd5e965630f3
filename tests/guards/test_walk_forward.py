"""Walk-forward and purged cross-validation against slow ways on plain lists."""

from datetime import UTC, datetime
from itertools import combinations

import hypothesis.strategies as st
import numpy as np
import pytest
from candlemill.errors import BadInput
from candlemill.guards import cross_validate, make_folds, parse_span
from candlemill.guards.daily_sums import score_of
from candlemill.guards.walk_forward import walk_forward
from candlemill.units import SCALE
from hypothesis import given, settings
from slow_engine import sharpe_ratio, sortino_ratio

DAY_MS = 86_400_000
SLOW = {"sharpe_ratio": sharpe_ratio, "sortino_ratio": sortino_ratio, "total_pnl": sum}
# Also profits whose squares pass 64 bits, and those whose halves do.
MONEY = st.sampled_from([9, 10**12, 2**47, 2**61]).flatmap(lambda top: st.integers(-top, top))


def at(year: int, month: int, day: int, hour: int = 0) -> int:
    return int(datetime(year, month, day, hour, tzinfo=UTC).timestamp()) * 1000


def matrices(days: int) -> st.SearchStrategy[list[list[int]]]:
    row = st.lists(MONEY, min_size=days, max_size=days)
    return st.lists(row, min_size=1, max_size=4)


def test_folds_in_calendar_months() -> None:
    folds = make_folds(at(2023, 12, 31, 6), at(2024, 4, 10), parse_span("1mo"), parse_span("1mo"))
    bounds = [(f.train_start, f.train_end, f.test_end) for f in folds]
    assert bounds == [
        (at(2023, 12, 31, 6), at(2024, 1, 31), at(2024, 2, 29)),
        (at(2024, 1, 31), at(2024, 2, 29), at(2024, 3, 31)),
        (at(2024, 2, 29), at(2024, 3, 31), at(2024, 4, 10)),
    ]


@given(st.integers(0, DAY_MS * 400), st.integers(1, 400), st.integers(1, 90), st.integers(1, 30), st.booleans())
def test_tests_follow_each_other_to_the_end(start: int, days: int, train: int, test: int, anchored: bool) -> None:
    start += at(2021, 1, 1)
    end = start + days * DAY_MS
    if start // DAY_MS * DAY_MS + train * DAY_MS >= end:
        with pytest.raises(BadInput, match="training span"):
            make_folds(start, end, parse_span(f"{train}d"), parse_span(f"{test}d"), anchored)
        return
    folds = make_folds(start, end, parse_span(f"{train}d"), parse_span(f"{test}d"), anchored)
    assert folds[0].train_start == start
    assert folds[-1].test_end == end
    for k, fold in enumerate(folds):
        assert fold.train_start < fold.train_end == fold.test_start < fold.test_end
        assert fold.train_end % DAY_MS == 0
        assert fold.test_start == (folds[k - 1].test_end if k else fold.train_end)
        assert fold.train_start == start if anchored or not k else fold.train_end - fold.train_start == train * DAY_MS


@settings(max_examples=40, deadline=None)
@given(
    matrices(30), st.sampled_from(sorted(SLOW)), st.booleans(), st.sets(st.integers(0, 35), min_size=30, max_size=30)
)
def test_walk_forward_equals_the_slow_way(rows: list[list[int]], score: str, anchored: bool, on: set[int]) -> None:
    """Days without bars lie between: 30 of 36 have some."""
    first = at(2024, 2, 27)
    days = np.array([first + k * DAY_MS for k in sorted(on)])
    folds = make_folds(first, first + 36 * DAY_MS, parse_span("10d"), parse_span("5d"), anchored)
    for fold, choice in zip(folds, walk_forward(np.array(rows), days, folds, score), strict=True):
        inner = [k for k, day in enumerate(days) if fold.train_start <= day < fold.train_end]
        outer = [k for k, day in enumerate(days) if fold.test_start <= day < fold.test_end]
        if not inner or not outer:
            assert choice is None
            continue
        assert choice is not None
        check(rows, score, inner, outer, choice)


def check(rows: list[list[int]], score: str, inner: list[int], outer: list[int], choice) -> None:  # type: ignore[no-untyped-def]
    judge = SLOW[score]
    ours, theirs = ([judge([row[k] for k in days]) for row in rows] for days in (inner, outer))
    row = ours.index(max(ours))
    assert (choice.row, choice.in_sample, choice.out_of_sample) == (row, ours[row], theirs[row])
    assert choice.below == sum(x < theirs[row] for x in theirs)
    if ours[row] > 0:
        per_day = len(inner) / len(outer) if score == "total_pnl" else 1
        expected = theirs[row] / ours[row] * per_day * SCALE
        assert choice.efficiency == pytest.approx(expected, rel=1e-9, abs=0.6)
    else:
        assert choice.efficiency is None


@settings(max_examples=40, deadline=None)
@given(
    matrices(24),
    st.sampled_from(sorted(SLOW)),
    st.integers(2, 6),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(0, 2),
)
def test_cross_validation_equals_the_slow_way(
    rows: list[list[int]], score: str, groups: int, tested: int, purge: int, embargo: int
) -> None:
    group = [next(k for k in range(groups) if day < (k + 1) * 24 // groups) for day in range(24)]
    splits = []
    for chosen in combinations(range(groups), tested):
        outer = [day for day in range(24) if group[day] in chosen]
        spoilt = {day + k for day in outer for k in range(-purge, embargo + 1)}
        splits.append(([day for day in range(24) if day not in spoilt], outer))
    if tested >= groups or any(not inner for inner, _ in splits):
        with pytest.raises(BadInput, match="tested" if tested >= groups else "leave no day"):
            cross_validate(np.array(rows), score, groups, tested, purge, embargo)
        return
    found = cross_validate(np.array(rows), score, groups, tested, purge, embargo)
    assert len(found.choices) == len(splits)
    assert found.paths * groups == len(splits) * tested
    for (inner, outer), choice in zip(splits, found.choices, strict=True):
        check(rows, score, inner, outer, choice)
    values = [choice.out_of_sample for choice in found.choices]
    assert found.median_out_of_sample == pytest.approx(np.median(np.array(values, dtype=float)), rel=1e-12, abs=1)
    assert (found.worse_half is None) == (len(rows) == 1)


def test_a_better_set_is_found_again() -> None:
    matrix = np.random.default_rng(1).integers(-(10**12), 10**12, (20, 360))
    matrix[7] += 3 * 10**11
    found = cross_validate(matrix, "sharpe_ratio", 6, 2, purge=1, embargo=5)
    assert {choice.row for choice in found.choices} == {7}
    assert (found.paths, found.worse_half, found.loss) == (5, 0, 0)


def test_refusals_tell_the_way_out() -> None:
    with pytest.raises(BadInput, match="90d or 3mo"):
        parse_span("3w")
    with pytest.raises(BadInput, match="did you mean 'sharpe_ratio'"):
        score_of("sharpe")
    with pytest.raises(BadInput, match="fewer groups"):
        cross_validate(np.zeros((2, 100), dtype=np.int64), "total_pnl", 40, 20)
    with pytest.raises(BadInput, match="longer test span"):
        make_folds(at(2009, 1, 1), at(2099, 1, 1), parse_span("1d"), parse_span("1d"))
