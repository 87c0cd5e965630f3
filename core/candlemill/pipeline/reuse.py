"""Reuse of stored outcomes: what a job need not compute, cuts that allow more reuse, and why the rest is missing."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import msgspec

from candlemill.backtests.plan import BATCH_SETS, Plan, plan_of
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import WARM_UP_BARS
from candlemill.engine.candles import DAY_MS
from candlemill.pipeline.cache_keys import CacheKeys, JobData, ParamSetKey, job_data
from candlemill.pipeline.interfaces import DayIndex, JobStore
from candlemill.pipeline.rows import KnownSlice

OUTCOMES_KEPT = 200_000  # in one job: for a larger job nothing is looked up, and a local run stores nothing
PIECES_KEPT = 2  # of a slice, whatever their lengths
SETS_QUERIED = 64  # sets per slice that are queried for the reason why the slice is not known

Reason = Literal["new_set", "new_range", "candles_changed", "other_code"]


class Missing(msgspec.Struct, frozen=True):
    """Neighbouring slices, `start` to `end` in ms, that must be computed for each of `sets` parameter sets."""

    start: int
    end: int
    slices: int
    sets: int
    reason: Reason


class Reuse(msgspec.Struct, frozen=True):
    """The reusable part of a job: slices with nothing to compute, and outcomes, one for each slice and set."""

    slices: int
    reused_slices: int
    outcomes: int
    reused_outcomes: int
    missing: list[Missing]

    @property
    def share(self) -> float:
        """Return the fraction of the job that must be computed, from 0 to 1."""
        return 1 - self.reused_outcomes / self.outcomes if self.outcomes else 0.0


class KnownOutcomes:
    """Known outcomes of a job's parameter sets. `sets` are all of its valid sets, by grid point."""

    def __init__(self, cache_keys: CacheKeys, sets: Mapping[int, ParamSetKey], found: Sequence[KnownSlice]) -> None:
        self.sets = sets
        self.found = found
        self.cache_keys = cache_keys
        self._of: dict[str, set[str]] = {}
        for known in found:
            self._of.setdefault(known.key, set()).update(known.sets)
        self._groups: dict[int, dict[str, int]] = {}  # points by their context in bars, and by set key
        for point, set_key in sets.items():
            self._groups.setdefault(set_key.context, {})[set_key.key] = point

    def missing(self, start: int, end: int) -> set[int]:
        """Return the grid points that have no outcome of the slice."""
        out: set[int] = set()
        for context, points in self._groups.items():
            known = self._of.get(self.cache_keys.slice_key(start, end, context).key, set())
            out.update(points[key] for key in points.keys() - known)
        return out

    def ends(self, start: int, end: int) -> list[int]:
        """Return the midnights, last first, at which known slices end that begin at `start` and end before `end`."""
        found = {known.end_ms for known in self.found if known.start_ms == start and known.end_ms < end}
        return sorted((at for at in found if at % DAY_MS == 0), reverse=True)


def reusable(plan: Plan) -> bool:
    """Return whether the plan's outcomes are looked up, and stored by a local run.
    They are not for a run of its own, nor for too many outcomes."""
    return not plan.run and plan.points * plan.slices <= OUTCOMES_KEPT


def look_up(data: JobData, store: JobStore, spec: Spec, plan: Plan, cutting: bool) -> tuple[Plan, KnownOutcomes | None]:
    """Look up the known outcomes of a job; None if the plan is not reusable.
    Returns also the plan; with `cutting` it has more cuts, at which more outcomes are known."""
    if not reusable(plan):
        return plan, None
    cache_keys = CacheKeys(spec, data)
    sets = cache_keys.sets(0, plan.points)
    keys = [set_key.key for set_key in sets.values()]
    found: list[KnownSlice] = []
    for k in range(0, len(keys), BATCH_SETS):
        found += store.known_slices(keys[k : k + BATCH_SETS], cache_keys.code)
    known = KnownOutcomes(cache_keys, sets, found)
    return with_known_cuts(spec, plan, data, known) if cutting and found else plan, known


# -- more cuts -----------------------------------------------------------------------------------------------------


def with_known_cuts(spec: Spec, plan: Plan, data: JobData, known: KnownOutcomes) -> Plan:
    """Return the plan with cuts at the ends of known slices: yesterday's last slice becomes a piece of today's.
    Slices at the beginning that are known as one (`pipeline.prefix`) become one."""
    prefix = _prefix(plan, data, known)
    cuts = [plan.cuts[0], *plan.cuts[prefix : prefix + 1]] if prefix else [plan.cuts[0]]
    for start, end in pairwise(plan.cuts[prefix:]):
        cuts += [*_pieces(data, known, start, end), end]
    return plan if cuts == plan.cuts else plan_of(spec, cuts, plan.bars)


def _prefix(plan: Plan, data: JobData, known: KnownOutcomes) -> int:
    """Return how many slices at the beginning all sets know as one slice; 0 for none."""
    begin = data.bounds(plan.cuts[0], plan.cuts[1])[0]
    ends = {one.end_ms for one in known.found if one.start_ms == begin}
    for k in range(plan.slices, 1, -1):
        start, end = plan.cuts[0], plan.cuts[k]
        if data.bounds(start, end)[1] in ends and not known.missing(start, end):
            return k
    return 0


def _pieces(data: JobData, known: KnownOutcomes, start: int, end: int) -> list[int]:
    """Return the cuts of a slice that no set has as a whole.

    The longest known piece is taken, then the longest that follows it. A range that grows in few steps, as that of a
    study's trial does, so computes only what is new. From the third known piece on the rest, which must be computed,
    absorbs the pieces before it that are not longer than itself. So a range that grows by a day every day has hardly
    more pieces than the logarithm of its days, and rarely computes more than a few days again.
    """
    if len(known.missing(start, end)) < len(known.sets):
        return []
    cuts = [start]
    while (cut := _longest(data, known, cuts[-1], end)) is not None:
        cuts.append(cut)
    while len(cuts) > 1 + PIECES_KEPT and cuts[-1] - cuts[-2] <= end - cuts[-1] and known.missing(cuts[-1], end):
        cuts.pop()
    return cuts[1:]


def _longest(data: JobData, known: KnownOutcomes, start: int, end: int) -> int | None:
    """Return the last midnight at which a cut saves more than it costs, or None.
    The cost is one more warm-up for each set that does not know the piece."""
    for cut in known.ends(*data.bounds(start, end)):
        missing = len(known.missing(start, cut))
        saved = (len(known.sets) - missing) * sum(day.rows for day in data.days[data.inside(start, cut)])
        if saved and saved >= missing * WARM_UP_BARS:
            return cut
    return None


# -- the reasons ---------------------------------------------------------------------------------------------------


def explain(index: DayIndex, store: JobStore, spec: Spec, plan: Plan, slices: int | None) -> tuple[Plan, Reuse | None]:
    """Return the plan that `split` will use for a job requested with `slices`, and its reusable part.
    The latter is None if nothing is looked up. Reads what `split` reads, and one row more if the code may have
    changed."""
    plan, known = look_up(job_data(index, spec), store, spec, plan, slices is None)
    return plan, None if known is None else reuse_of(plan, known, store)


def reuse_of(plan: Plan, known: KnownOutcomes, store: JobStore | None) -> Reuse:
    """Return the reusable part of `plan` and why the rest is missing.
    Without a store, outcomes of other code are not detected."""
    cache_keys = known.cache_keys
    spans = [(start, end, known.missing(start, end)) for start, end in pairwise(plan.cuts)]
    of_sets: dict[str, list[KnownSlice]] = {}
    for one in known.found:
        for key in one.sets:
            of_sets.setdefault(key, []).append(one)
    unknown = [set_key.key for set_key in known.sets.values() if set_key.key not in of_sets][:SETS_QUERIED]
    other_code = store is not None and bool(unknown) and store.other_code(unknown, cache_keys.code)

    def reason(start: int, end: int, points: set[int]) -> Reason:
        for point in sorted(points)[:SETS_QUERIED]:
            set_key = known.sets[point]
            slice_key = cache_keys.slice_key(start, end, set_key.context)
            for one in of_sets.get(set_key.key, ()):
                if (one.first_ms, one.start_ms, one.end_ms) == (slice_key.first, slice_key.start, slice_key.end):
                    return "candles_changed"
        if any(known.sets[point].key in of_sets for point in points):
            return "new_range"
        return "other_code" if other_code else "new_set"

    stretches = [
        Missing(start, end, 1, len(points), reason(start, end, points)) for start, end, points in spans if points
    ]
    lacking = sum(len(points) for _, _, points in spans)
    outcomes = plan.slices * len(known.sets)
    return Reuse(plan.slices, plan.slices - len(stretches), outcomes, outcomes - lacking, list(_joined(stretches)))


def _joined(missing: Sequence[Missing]) -> Iterator[Missing]:
    """Merge neighbours that have the same reason."""
    last: Missing | None = None
    for one in missing:
        if last is not None and (last.end, last.sets, last.reason) == (one.start, one.sets, one.reason):
            last = msgspec.structs.replace(last, end=one.end, slices=last.slices + 1)
            continue
        if last is not None:
            yield last
        last = one
    if last is not None:
        yield last
