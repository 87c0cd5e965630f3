"""What of a job is known before it runs: outcomes that need not be computed, cuts that find more of them, and why the
rest is missing."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import msgspec

from candlemill.addresses import Addresses, Ground, SetAddress, ground_of
from candlemill.engine.tape import DAY_MS
from candlemill.ledger import Index, KnownSlice, Ledger
from candlemill.model import Spec
from candlemill.plan import BATCH_SETS, Plan, plan_of
from candlemill.work import WARM_UP_BARS

OUTCOMES_KEPT = 200_000  # of one job: of a larger one nothing is looked up, and at home nothing kept
SETS_ASKED = 64  # of a slice, for the reason why it is not known

Reason = Literal["new_set", "new_range", "candles_changed", "other_code"]


class Missing(msgspec.Struct, frozen=True):
    """Neighbouring slices, `start` to `end` in ms, that have to be computed for each of `sets` parameter sets."""

    start: int
    end: int
    slices: int
    sets: int
    reason: Reason


class Reuse(msgspec.Struct, frozen=True):
    """What of a job is known: slices of which nothing has to be computed, and outcomes, one for each slice and set."""

    slices: int
    reused_slices: int
    outcomes: int
    reused_outcomes: int
    missing: list[Missing]

    @property
    def share(self) -> float:
        """How much of the job there is to compute, from 0 to 1."""
        return 1 - self.reused_outcomes / self.outcomes if self.outcomes else 0.0


class Known:
    """What is known of a job's parameter sets. `sets` are all of its valid ones, by grid point."""

    def __init__(self, addresses: Addresses, sets: Mapping[int, SetAddress], found: Sequence[KnownSlice]) -> None:
        self.sets = sets
        self.found = found
        self.addresses = addresses
        self._of: dict[str, set[str]] = {}
        for known in found:
            self._of.setdefault(known.key, set()).update(known.sets)
        self._groups: dict[int, dict[str, int]] = {}  # points by what they look back at, and by set key
        for point, address in sets.items():
            self._groups.setdefault(address.context, {})[address.key] = point

    def missing(self, start: int, end: int) -> set[int]:
        """The grid points that have no outcome of the slice."""
        out: set[int] = set()
        for context, points in self._groups.items():
            known = self._of.get(self.addresses.place(start, end, context).key, set())
            out.update(points[key] for key in points.keys() - known)
        return out

    def ends(self, start: int, end: int) -> list[int]:
        """The midnights at which known slices end that begin at `start`, and before `end`; the last first."""
        found = {known.end_ms for known in self.found if known.start_ms == start and known.end_ms < end}
        return sorted((at for at in found if at % DAY_MS == 0), reverse=True)


def reusable(plan: Plan) -> bool:
    """Whether outcomes of the plan are looked for, and kept at home: not for a run of its own, nor for too many."""
    return not plan.run and plan.points * plan.slices <= OUTCOMES_KEPT


def look_up(index: Index, ledger: Ledger, spec: Spec, plan: Plan, cutting: bool) -> tuple[Plan, Known | None]:
    """What the ledger knows of the job, None where it is not to be asked; and the plan, where `cutting` with more cuts
    at which more is known."""
    if not reusable(plan):
        return plan, None
    ground = ground_of(index, spec)
    addresses = Addresses(spec, ground)
    sets = addresses.sets(0, plan.points)
    keys = [address.key for address in sets.values()]
    found: list[KnownSlice] = []
    for k in range(0, len(keys), BATCH_SETS):
        found += ledger.known_slices(keys[k : k + BATCH_SETS], addresses.code)
    known = Known(addresses, sets, found)
    return with_known_cuts(spec, plan, ground, known) if cutting and found else plan, known


# -- more cuts -----------------------------------------------------------------------------------------------------


def with_known_cuts(spec: Spec, plan: Plan, ground: Ground, known: Known) -> Plan:
    """The plan with cuts where slices end that are known: what was yesterday's last slice is a piece of today's."""
    cuts = [plan.cuts[0]]
    for start, end in pairwise(plan.cuts):
        cuts += [*_pieces(ground, known, start, end), end]
    return plan if cuts == plan.cuts else plan_of(spec, cuts, plan.bars)


def _pieces(ground: Ground, known: Known, start: int, end: int) -> list[int]:
    """Where to cut a slice that no set has whole.

    Of known pieces the longest is taken, then the longest that follows it. What is left and has to be computed takes
    in the pieces before it that are no longer than itself: so a range that grows by a day every day is never in more
    pieces than the logarithm of its days, and seldom computes more than a few days again.
    """
    if len(known.missing(start, end)) < len(known.sets):
        return []
    cuts = [start]
    while (cut := _longest(ground, known, cuts[-1], end)) is not None:
        cuts.append(cut)
    while len(cuts) > 1 and cuts[-1] - cuts[-2] <= end - cuts[-1] and known.missing(cuts[-1], end):
        cuts.pop()
    return cuts[1:]


def _longest(ground: Ground, known: Known, start: int, end: int) -> int | None:
    """The last midnight at which a cut saves more than it costs, which is one more warm-up of each set that does not
    know the piece."""
    for cut in known.ends(*ground.bounds(start, end)):
        missing = len(known.missing(start, cut))
        saved = (len(known.sets) - missing) * sum(day.rows for day in ground.days[ground.inside(start, cut)])
        if saved and saved >= missing * WARM_UP_BARS:
            return cut
    return None


# -- the reasons ---------------------------------------------------------------------------------------------------


def explain(index: Index, ledger: Ledger, spec: Spec, plan: Plan, slices: int | None) -> tuple[Plan, Reuse | None]:
    """The plan as `split` will have it, where the job was asked for with so many `slices`, and what of it is known;
    None where nothing is looked up. Reads what `split` reads, and a row more where the code may have changed."""
    plan, known = look_up(index, ledger, spec, plan, slices is None)
    return plan, None if known is None else reuse_of(plan, known, ledger)


def reuse_of(plan: Plan, known: Known, ledger: Ledger | None) -> Reuse:
    """What `plan` finds known, and why the rest is not; without a ledger it is not told whether other code knows it."""
    addresses = known.addresses
    spans = [(start, end, known.missing(start, end)) for start, end in pairwise(plan.cuts)]
    of_sets: dict[str, list[KnownSlice]] = {}
    for one in known.found:
        for key in one.sets:
            of_sets.setdefault(key, []).append(one)
    unknown = [address.key for address in known.sets.values() if address.key not in of_sets][:SETS_ASKED]
    other_code = ledger is not None and bool(unknown) and ledger.other_code(unknown, addresses.code)

    def reason(start: int, end: int, points: set[int]) -> Reason:
        for point in sorted(points)[:SETS_ASKED]:
            address = known.sets[point]
            place = addresses.place(start, end, address.context)
            for one in of_sets.get(address.key, ()):
                if (one.first_ms, one.start_ms, one.end_ms) == (place.first, place.start, place.end):
                    return "candles_changed"
        if any(known.sets[point].key in of_sets for point in points):
            return "new_range"
        return "other_code" if other_code else "new_set"

    told = [Missing(start, end, 1, len(points), reason(start, end, points)) for start, end, points in spans if points]
    lacking = sum(len(points) for _, _, points in spans)
    outcomes = plan.slices * len(known.sets)
    return Reuse(plan.slices, plan.slices - len(told), outcomes, outcomes - lacking, list(_joined(told)))


def _joined(missing: Sequence[Missing]) -> Iterator[Missing]:
    """Neighbours with the same reason as one."""
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
