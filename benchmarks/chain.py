"""A job's computation without a store, events or JSON: tasks over the plan's slices, joined, repaired, merged."""

from candlemill.backtests.grid import grid_points
from candlemill.backtests.merge import MergedSlices, Outcomes, Repair, merge_slices
from candlemill.backtests.plan import Plan
from candlemill.backtests.slice import SliceWindow, run_slice
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import columns_read, context_bars
from candlemill.store.candle_reader import CandleReader
from candlemill.strategies import Strategy


def compute(spec: Spec, plan: Plan, candles: CandleReader) -> dict[int, MergedSlices]:
    """Each valid grid point's whole range."""
    found: dict[int, MergedSlices] = {}
    for batch in range(plan.batches):
        sets = {point: strategy for point, _, strategy in grid_points(spec, *plan.batch_points(batch))}
        outcomes = Outcomes()
        for number in range(plan.slices):
            window = _window(spec, plan, candles, number, sets, exact=False)
            outcomes.add(number, False, run_slice(spec, window, list(sets.items())))
        for point, strategy in sets.items():
            joined = merge_slices(outcomes, point, plan.slices)
            while isinstance(joined, Repair):
                _repair(spec, plan, candles, joined, strategy, outcomes)
                joined = merge_slices(outcomes, point, plan.slices)
            found[point] = joined
    return found


def _repair(
    spec: Spec, plan: Plan, candles: CandleReader, repair: Repair, strategy: Strategy, outcomes: Outcomes
) -> None:
    state = repair.start.encode()
    sets = {repair.point: strategy}
    for number in range(repair.slice, repair.slice + repair.count):
        window = _window(spec, plan, candles, number, sets, exact=True)
        exact = run_slice(spec, window, list(sets.items()), {repair.point: state})
        outcomes.add(number, True, exact)
        state = exact.outcomes[0].end.encode()


def _window(
    spec: Spec, plan: Plan, candles: CandleReader, number: int, sets: dict[int, Strategy], exact: bool
) -> SliceWindow:
    strategies = list(sets.values())
    context = context_bars(spec, strategies, exact)
    start, end = plan.cuts[number], plan.cuts[number + 1]
    return candles.window(spec, start, end, context, columns_read(spec, strategies))
