"""Join slices: check each state at a cut, report wrong guesses, merge correct chains."""

from operator import add
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from candlemill.backtests.slice import SliceOutcome, SliceOutcomes, paths_of, summary_of
from candlemill.backtests.states import COLD, digest_of
from candlemill.engine.candles import Column
from candlemill.engine.summary import Summary

REPAIR_LIMIT = 64  # slices that one repair runs in a row


# Figures of one symbol in a result of several, and their names in the result of a job of one symbol.
OF_SYMBOL = {"trades": "trades", "wins": "wins", "profit": "total_pnl", "fees": "fees"}


class Repair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Repair of a wrong guess: run `point` again from `start`, over `count` slices from `slice` on."""

    point: Annotated[int, Meta(ge=0)]
    slice: Annotated[int, Meta(ge=0)]
    count: Annotated[int, Meta(ge=1, le=REPAIR_LIMIT)]
    start: str


class MergedSlices(msgspec.Struct, frozen=True):
    """Whole range of one parameter set. `days` are UTC days counted from 1970, `daily` their figures.

    For a panel, `sums` has the sums of each symbol, see `panel.figures_of`. With `path=both` these are the figures of
    the worst path, and `best` has those of the best. Of a job that keeps tapes, `tapes` are those of the slices, and
    there is no money yet.
    """

    summary: Summary
    end: bytes
    repaired: int
    days: Column
    daily: list[int]
    sums: list[int] = []
    best: "MergedSlices | None" = None
    tapes: list[str] = []


class Outcomes:
    """Outcomes of one batch, which can be added in any order and more than once."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int, str], SliceOutcome] = {}
        self._guesses: set[tuple[int, int, str]] = set()
        self._days: dict[int, list[int]] = {}
        self._all_days: tuple[int, Column] | None = None

    def add(self, number: int, exact: bool, done: SliceOutcomes) -> None:
        """Add the outcomes of slice `number`; `exact` says that it started from the end states of the slice before."""
        for outcome in done.outcomes:
            self.put(number, exact, done.days, outcome)

    def put(self, number: int, exact: bool, days: list[int], outcome: SliceOutcome) -> None:
        """Add one outcome and the slice's days."""
        key = outcome.point, number, outcome.start
        self._found[key] = outcome
        self._days[number] = days
        if not exact:
            self._guesses.add(key)

    def find(self, point: int, number: int, start: str) -> SliceOutcome | None:
        return self._found.get((point, number, start))

    def days(self, slices: int) -> Column:
        """Return the days of the first `slices` slices, all of which must be present. Every set has the same days."""
        if self._all_days is None or self._all_days[0] != slices:
            days = [day for number in range(slices) for day in self._days[number]]
            self._all_days = slices, np.array(days, dtype=np.int64)
        return self._all_days[1]

    def guessed(self, point: int, number: int, start: str) -> bool:
        return (point, number, start) in self._guesses


def merge_slices(outcomes: Outcomes, point: int, slices: int) -> MergedSlices | Repair:
    """Merge the slices of one parameter set by following its states from a cold start.

    The first slice that was not run from its true state becomes a Repair. If later slices fail too, the length of the
    repairs doubles each time.
    """
    state = COLD
    chain: list[SliceOutcome] = []
    repaired = streak = 0
    for number in range(slices):
        start = digest_of(state)
        outcome = outcomes.find(point, number, start)
        if outcome is None:
            return Repair(point, number, min(max(1, streak), REPAIR_LIMIT, slices - number), state.decode())
        guessed = outcomes.guessed(point, number, start)
        streak = 0 if guessed else streak + 1
        repaired += not guessed
        chain.append(outcome)
        state = outcome.end.encode()
    days = outcomes.days(slices)
    worst, *best = [_merged(list(parts), repaired, days) for parts in zip(*map(paths_of, chain), strict=True)]
    return msgspec.structs.replace(worst, best=best[0]) if best else worst


def merged_prefix(outcomes: Outcomes, point: int, slices: int) -> SliceOutcome | None:
    """Merge the first `slices` slices of a parameter set that `merge_slices` can merge, as the outcome of one slice.

    None where an outcome is more than the sums of an account: for panels, both paths, and jobs that keep tapes.
    """
    state, total = COLD, Summary()
    daily: list[int] = []
    for number in range(slices):
        outcome = outcomes.find(point, number, digest_of(state))
        if outcome is None or outcome.sums or outcome.tape or len(paths_of(outcome)) > 1:
            return None
        total = total.merge(summary_of(outcome))
        daily += outcome.daily
        state = outcome.end.encode()
    return SliceOutcome(point, digest_of(COLD), state.decode(), total.to_list(), daily)


def _merged(chain: list[SliceOutcome], repaired: int, days: Column) -> MergedSlices:
    """Merge consecutive slices of one path."""
    total = Summary()
    daily: list[int] = []
    sums: list[int] = []
    for outcome in chain:
        total = total.merge(summary_of(outcome))
        daily += outcome.daily
        sums = list(map(add, sums, outcome.sums)) if sums else outcome.sums
    tapes = [outcome.tape for outcome in chain if outcome.tape]
    return MergedSlices(total, chain[-1].end.encode(), repaired, days, daily, sums, tapes=tapes)
