"""2,000 symbols, ten years, a million parameter sets: what that is. Plain multiplication."""

import msgspec
from candlemill.pipeline.reuse import OUTCOMES_KEPT

from loadtests.scaling.fit import BATCH
from loadtests.scaling.study import COLUMNS_READ, DAYS, MINUTES_OF_DAY, SETS, SLICES, Study


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
    assumed = study.assumed
    publish = min(one.publish for one in study.points)
    costs = study.laws.costs(DAYS, SLICES, SETS, assumed.hop, publish, 0.0)
    batches = -(-SETS // BATCH)
    tasks = SLICES * batches
    rows = MINUTES_OF_DAY * DAYS
    repairs = batches * assumed.repairs
    execute = tasks * (costs.ask.own + costs.compute + costs.write.own + costs.read.own) + repairs * costs.repair.own
    aggregate = tasks * costs.reported.own + (batches + repairs) * costs.merge.own + costs.figures.own
    store = tasks * (costs.ask.store + costs.read.store + costs.write.store + costs.reported.store)
    store += (batches + repairs) * costs.merge.store + costs.figures.store
    split = costs.split.own + tasks * costs.split_task.own
    hours = [assumed.symbols * seconds / 3600 for seconds in (execute, aggregate, store, split)]
    outcomes = assumed.symbols * SETS * SLICES
    return Whole(
        symbols=assumed.symbols,
        rows=assumed.symbols * rows,
        bars_times_sets=float(assumed.symbols * rows) * SETS,
        tasks=assumed.symbols * tasks,
        bytes_once=assumed.symbols * rows * 8.0 * COLUMNS_READ,
        bytes_each_task=assumed.symbols * tasks * rows / SLICES * 8.0 * COLUMNS_READ,
        outcome_rows=outcomes,
        outcome_bytes=outcomes * study.outcome_bytes,
        execute_hours=hours[0],
        aggregate_hours=hours[1],
        store_hours=hours[2],
        split_hours=hours[3],
        dollars=sum(hours) * assumed.dollars_per_cpu_hour,
        sets_reused=OUTCOMES_KEPT // SLICES,
    )
