"""2,000 symbols, ten years, a million parameter sets: what that is. Plain multiplication."""

import msgspec
from candlemill.pipeline.reuse import OUTCOMES_KEPT

from loadtests.scaling.model import Part
from loadtests.scaling.study import COLUMNS_READ, MINUTES_OF_DAY, Study, costs_of


class Whole(msgspec.Struct, frozen=True):
    """`*_hours` are CPU hours; bytes are those of the columns, before the store packs them."""

    symbols: int
    rows: int
    bars_times_sets: float
    tasks: int
    bytes_once: float
    bytes_each_task: float
    outcome_rows: int
    outcome_bytes: float
    execute_hours: float
    aggregate_hours: float
    store_hours: float
    split_hours: float
    dollars: float
    sets_reused: int  # of a job so small that what it found is looked up

    @property
    def hours(self) -> float:
        return self.execute_hours + self.aggregate_hours + self.store_hours + self.split_hours

    def executors_for(self, hours: float) -> float:
        """How many executors, always at work, compute it within so many hours."""
        return self.execute_hours / hours


def whole(study: Study) -> Whole:
    assumed, of = study.assumed, study.samples[-1]
    costs = costs_of(of, study.points)
    tasks = of.tasks * of.batches
    rows = MINUTES_OF_DAY * of.days
    merges, repairs = of.batches * (1 + assumed.repairs), of.batches * assumed.repairs
    events = Part(costs.receive + costs.publish)
    task = costs.ask + costs.read + Part(costs.compute, costs.later) + costs.write + events
    execute = task.times(tasks) + costs.repair.times(repairs)
    aggregate = (costs.reported + events).times(tasks) + costs.merge.times(merges) + costs.figures
    split = costs.plan + Part(costs.hand).times(tasks)
    store = execute.store + aggregate.store + split.store
    hours = [assumed.symbols * seconds / 3600 for seconds in (execute.own, aggregate.own, store, split.own)]
    outcomes = assumed.symbols * of.sets * of.slices
    return Whole(
        symbols=assumed.symbols,
        rows=assumed.symbols * rows,
        bars_times_sets=float(assumed.symbols * rows) * of.sets,
        tasks=assumed.symbols * tasks,
        bytes_once=assumed.symbols * rows * 8.0 * COLUMNS_READ,
        bytes_each_task=assumed.symbols * of.batches * rows * 8.0 * COLUMNS_READ,
        outcome_rows=outcomes,
        outcome_bytes=outcomes * study.outcome_bytes,
        execute_hours=hours[0],
        aggregate_hours=hours[1],
        store_hours=hours[2],
        split_hours=hours[3],
        dollars=sum(hours) * assumed.dollars_per_cpu_hour,
        sets_reused=OUTCOMES_KEPT // of.slices,
    )
