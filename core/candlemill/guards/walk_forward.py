"""Walk-forward analysis and purged cross-validation: choose a set in one range of days, score it in another.

R. Pardo, "The evaluation and optimization of trading strategies", 2nd edition 2008: walk-forward analysis and its
efficiency. M. Lopez de Prado, "Advances in financial machine learning", 2018, chapters 7 and 12: purging, embargo, the
purged k-fold and combinatorial purged cross-validation.

Scores are exact and equal those of the result (see `daily_sums.SCORES`). Of equally good sets the first is chosen.
"""

import re
from calendar import monthrange
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from math import comb

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.engine.candles import DAY_MS
from candlemill.errors import BadInput
from candlemill.guards.daily_sums import Matrix, Score, Stretches, score_of
from candlemill.guards.daily_sums import Span as Columns
from candlemill.units import divide, ratio

SPLITS_LIMIT = 20_000
FOLDS_LIMIT = 10_000

Column = NDArray[np.int64]


class Span(msgspec.Struct, frozen=True):
    """A number of days or of calendar months."""

    count: int
    unit: str  # "d" or "mo"

    def after(self, start: datetime, times: int = 1) -> datetime:
        """Return the instant `times` spans after `start`; the 31st becomes the last day of a shorter month."""
        if self.unit == "d":
            return start + timedelta(days=self.count * times)
        year, month = divmod(start.year * 12 + start.month - 1 + self.count * times, 12)
        return start.replace(year=year, month=month + 1, day=min(start.day, monthrange(year, month + 1)[1]))


class Fold(msgspec.Struct, frozen=True):
    """Choose in [train_start, train_end), trade in [test_start, test_end): UTC ms, inner bounds at midnights."""

    train_start: int
    train_end: int
    test_start: int
    test_end: int


class Choice(msgspec.Struct, frozen=True):
    """The row with the best score in sample, its scores in and out of sample, and their ratio `efficiency`.

    `below` counts the other rows with a lower score out of sample. `efficiency` is the score out of sample divided by
    that in sample (profits: per day), scaled by 10^8; None where the score in sample is not above 0.
    """

    row: int
    in_sample: int
    out_of_sample: int
    efficiency: int | None
    below: int


class Validation(msgspec.Struct, frozen=True):
    """The choice of each split, and their summary. Shares and ratios are scaled by 10^8.

    `paths` is the number of complete out-of-sample paths that the splits form. `worse_half`: the share of splits in
    which less than half of the other rows scored lower out of sample; exactly half counts half. `loss`: the share of
    splits with a score below 0.
    """

    choices: list[Choice]
    paths: int
    worse_half: int | None
    loss: int | None
    median_in_sample: int
    median_out_of_sample: int


def parse_span(text: str) -> Span:
    """Parse a span such as `90d` or `3mo`."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})(d|mo)", text)
    if found is None:
        raise BadInput(f"span {text!r}: give days or calendar months, as in 90d or 3mo")
    return Span(int(found[1]), found[2])


def make_folds(start: int, end: int, train: Span, test: Span, anchored: bool = False) -> list[Fold]:
    """Make folds over the range [start, end) in ms, whose tests follow each other without gaps and reach its end.

    The first training begins at `start`, the others begin one test span later each, or all at `start` if `anchored`.
    The last test may be shorter. Bounds within the range are UTC midnights.
    """
    origin = datetime.fromtimestamp(start // DAY_MS * DAY_MS // 1000, UTC)
    folds: list[Fold] = []
    while (test_start := _ms(_test_start(origin, train, test, len(folds)))) < end:
        train_start = origin if anchored else test.after(origin, len(folds))
        test_end = min(_ms(_test_start(origin, train, test, len(folds) + 1)), end)
        folds.append(Fold(max(_ms(train_start), start), test_start, test_start, test_end))
        if len(folds) > FOLDS_LIMIT:
            raise BadInput(f"more than {FOLDS_LIMIT:,} folds: take a longer test span than {test.count}{test.unit}")
    if not folds:
        days = (end - start) // DAY_MS
        raise BadInput(
            f"a training span of {train.count}{train.unit} leaves nothing of {days} days: take a shorter one"
        )
    return folds


def _test_start(origin: datetime, train: Span, test: Span, fold: int) -> datetime:
    """Return the test start of a fold. Months are added to the origin in one step: short months move no later day."""
    if train.unit == test.unit:
        return Span(train.count + test.count * fold, train.unit).after(origin)
    return test.after(train.after(origin), fold)


def _ms(instant: datetime) -> int:
    return int(instant.timestamp()) * 1000


def walk_forward(matrix: Matrix, days: Column, folds: Sequence[Fold], score: str) -> list[Choice | None]:
    """Choose a set in each fold. `matrix` holds daily profits, sets x days; `days` their midnights in ms, ascending.

    A day belongs to the range in which it begins. None for a fold with a range that has no day with bars.
    """
    judge = score_of(score)
    starts = np.array([[f.train_start // DAY_MS * DAY_MS, f.train_end, f.test_start, f.test_end] for f in folds])
    spans = np.searchsorted(days, starts).tolist()
    cuts = sorted({cut for span in spans for cut in span})
    sums = Stretches(matrix, cuts)
    return [_choose(sums, [(a, b)], [(c, d)], judge) if a < b and c < d else None for a, b, c, d in spans]


def cross_validate(
    matrix: Matrix, score: str, groups: int, tested: int = 1, purge: int = 0, embargo: int = 0
) -> Validation:
    """Run combinatorial purged cross-validation; with `tested` = 1 it is the purged k-fold.

    The days are cut into `groups` of nearly equal length. For every combination of `tested` groups, the best set is
    chosen on all other days, except `purge` days before and `embargo` days after each tested range, and scored on the
    tested groups.
    """
    splits = comb(groups, tested)
    n = matrix.shape[1]
    if not 2 <= groups <= n or not 1 <= tested < groups or purge < 0 or embargo < 0:
        raise BadInput(f"groups={groups}, tested={tested}: 1 <= tested < groups, at most {n} groups (one per day)")
    if splits > SPLITS_LIMIT:
        raise BadInput(f"{splits:,} splits, the limit is {SPLITS_LIMIT:,}: take fewer groups")
    judge = score_of(score)
    edges = [k * n // groups for k in range(groups + 1)]
    cuts = {min(max(edge + away, 0), n) for edge in edges for away in (-purge, 0, embargo)}
    sums = Stretches(matrix, sorted(cuts))
    choices = []
    for chosen in combinations(range(groups), tested):
        tests = _merged([(edges[k], edges[k + 1]) for k in chosen])
        trains = _rest([(a - purge, b + embargo) for a, b in tests], n)
        if not trains:
            raise BadInput(f"purge={purge} and embargo={embargo} leave no day to choose in: take fewer days or groups")
        choices.append(_choose(sums, trains, tests, judge))
    return _validation(choices, len(matrix), splits * tested // groups)


def _choose(sums: Stretches, inner: list[Columns], outer: list[Columns], judge: Score) -> Choice:
    ours, theirs = sums.scores(inner, judge), sums.scores(outer, judge)
    row = max(range(len(ours)), key=ours.__getitem__)  # the first of equal rows
    gain, worth = ours[row], theirs[row]
    # A sum of money is divided by the days, since the ranges differ in length.
    per_day = (_days(inner), _days(outer)) if judge is score_of("total_pnl") else (1, 1)
    return Choice(
        row=row,
        in_sample=gain,
        out_of_sample=worth,
        efficiency=ratio(worth * per_day[0], gain * per_day[1]) if gain > 0 else None,
        below=sum(x < worth for x in theirs),
    )


def _days(spans: list[Columns]) -> int:
    return sum(b - a for a, b in spans)


def _merged(spans: list[Columns]) -> list[Columns]:
    out: list[Columns] = []
    for a, b in spans:
        if out and out[-1][1] >= a:
            out[-1] = (out[-1][0], max(b, out[-1][1]))
        else:
            out.append((a, b))
    return out


def _rest(spans: list[Columns], n: int) -> list[Columns]:
    """Return the complement of `spans` (ascending) in [0, n)."""
    out = []
    at = 0
    for a, b in spans:
        if a > at:
            out.append((at, a))
        at = max(at, b)
    return [*out, (at, n)] if at < n else out


def _validation(choices: list[Choice], rows: int, paths: int) -> Validation:
    others = rows - 1
    worse = sum(2 if 2 * c.below < others else 1 if 2 * c.below == others else 0 for c in choices)
    return Validation(
        choices=choices,
        paths=paths,
        worse_half=ratio(worse, 2 * len(choices)) if others else None,
        loss=ratio(sum(c.out_of_sample < 0 for c in choices), len(choices)),
        median_in_sample=_median([c.in_sample for c in choices]),
        median_out_of_sample=_median([c.out_of_sample for c in choices]),
    )


def _median(values: list[int]) -> int:
    ranked = sorted(values)
    middle = len(ranked) // 2
    return ranked[middle] if len(ranked) % 2 else divide(ranked[middle - 1] + ranked[middle], 2) or 0
