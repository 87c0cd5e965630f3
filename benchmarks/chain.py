"""A job's computation without a store, events or JSON: tasks over the plan's slices, joined, repaired, merged."""

from candlemill.io.tapes import Tapes
from candlemill.model import Spec, grid_points
from candlemill.plan import Plan
from candlemill.reduce import Merged, Outcomes, Repair, join
from candlemill.strategies import Strategy
from candlemill.work import Window, columns_read, context_bars, run_task


def compute(spec: Spec, plan: Plan, tapes: Tapes) -> dict[int, Merged]:
    """Each valid grid point's whole range."""
    found: dict[int, Merged] = {}
    for batch in range(plan.batches):
        sets = {point: strategy for point, _, strategy in grid_points(spec, *plan.batch_points(batch))}
        outcomes = Outcomes()
        for number in range(plan.slices):
            window = _window(spec, plan, tapes, number, sets, exact=False)
            outcomes.add(number, False, run_task(spec, window, list(sets.items())))
        for point, strategy in sets.items():
            joined = join(outcomes, point, plan.slices)
            while isinstance(joined, Repair):
                _repair(spec, plan, tapes, joined, strategy, outcomes)
                joined = join(outcomes, point, plan.slices)
            found[point] = joined
    return found


def _repair(spec: Spec, plan: Plan, tapes: Tapes, repair: Repair, strategy: Strategy, outcomes: Outcomes) -> None:
    state = repair.start.encode()
    sets = {repair.point: strategy}
    for number in range(repair.slice, repair.slice + repair.count):
        window = _window(spec, plan, tapes, number, sets, exact=True)
        exact = run_task(spec, window, list(sets.items()), {repair.point: state})
        outcomes.add(number, True, exact)
        state = exact.outcomes[0].end.encode()


def _window(spec: Spec, plan: Plan, tapes: Tapes, number: int, sets: dict[int, Strategy], exact: bool) -> Window:
    strategies = list(sets.values())
    context = context_bars(spec, strategies, exact)
    start, end = plan.cuts[number], plan.cuts[number + 1]
    return tapes.window(spec, start, end, context, columns_read(spec, strategies))
