"""The study: parts measured, put together, compared with what was really run, and carried on to 10,000 executors."""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from candlemill.backtests.plan import BATCH_SETS
from candlemill.config import TASKS_UNDER_WAY
from candlemill.store.clickhouse import ClickHouseStore

from loadtests.common.lab import SYMBOLS, YEAR, machine, store_candles
from loadtests.scaling.measure import Sample, cheapest, measured
from loadtests.scaling.model import Costs, Job, Part, Prediction, World, predict
from loadtests.scaling.points import Local, Point, by_events, ceiling, run_locally

RUN_SETS, RUN_YEARS = 2_048, 3
RUN_EXECUTORS = (1, 2, 4)
HOME = ((512, 1), (2048, 1), (8192, 1))  # sets, years
USUAL_SETS, HOME_ROUNDS = 2048, 1  # larger ones take long: so many rounds at most
CORES = 2

# Ten years of one symbol with a million sets: as `candlemill` plans them.
SETS, YEARS = 1_000_000, 10
EXECUTORS = (1, 10, 30, 100, 300, 1_000, 3_000, 10_000)
TOGETHER = 10  # jobs at once, each of another symbol
SIZES = ((RUN_SETS, RUN_YEARS, RUN_SETS // BATCH_SETS), (SETS, YEARS, 2))  # sets, years, batches that are run
MINUTES_OF_DAY = 1_440
COLUMNS_READ = 3  # t, open, close: an SMA crossing without stops


class Assumed(msgspec.Struct, frozen=True):
    """Of a cluster, and not measured here. `hop` is that of a Broker in the same zone; `reaction` an autoscaler's tick
    of 2 s and as much to place a pod; a node that has to be made takes minutes more. `repairs` is the share of batches
    in which a guess was wrong. What grows does so with the executors; what does not is as in knative/base, with a small
    store."""

    hop: float = 0.05
    reaction: float = 4.0
    repairs: float = 0.05
    skew: float = 0.1
    lanes_per_executor: int = 2
    aggregates_per_100: int = 60
    store_cores_per_100: int = 60
    splits_per_100: int = 10
    aggregates_fixed: int = 4
    store_cores_fixed: int = 8
    dollars_per_cpu_hour: float = 0.04
    symbols: int = 2_000


class Compared(msgspec.Struct, frozen=True):
    """Wall and CPU time, in seconds. The first depends on what `others` leave of the machine, the second hardly."""

    executors: int
    predicted: float
    measured: float
    others: float
    predicted_cpu: float
    measured_cpu: float

    @property
    def error(self) -> float:
        return self.predicted / self.measured - 1


class Study(msgspec.Struct, frozen=True):
    when: str
    machine: dict[str, Any]
    samples: list[Sample]
    points: list[Point]
    compared: list[Compared]
    local: list[Local]
    ceiling: float  # the efficiency of two processes that share nothing
    outcome_bytes: float  # of one row of slice_outcomes, as it is stored
    assumed: Assumed
    carried_on: list[tuple[int, Prediction]]  # on executors that run already
    together: list[tuple[int, Prediction]]  # the same of several jobs at once
    cold: list[tuple[int, Prediction]]
    as_it_is: list[tuple[int, Prediction]]  # cold, with a fixed number of aggregates and of the store's cores


class Measured(msgspec.Struct, frozen=True):
    """What the machine said; all else follows from it."""

    when: str
    machine: dict[str, Any]
    samples: list[Sample]
    points: list[Point]
    local: list[Local]
    ceiling: float
    outcome_bytes: float


def measure(rounds: int) -> Measured:
    about, when = machine(), time.strftime("%Y-%m-%d", time.gmtime())
    with tempfile.TemporaryDirectory(prefix="candlemill-scaling-", dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        store = folder / "db"
        _say("making candles")
        store_candles(f"chdb://{store}", folder, SYMBOLS[:1], YEAR - YEARS + 1, YEARS)
        _say("measuring the parts of sweeps")
        samples = measured(store, SIZES, rounds)
        points = []
        for executors in RUN_EXECUTORS:
            _say(f"running a sweep of {RUN_SETS:,} sets on {executors} executors")
            size = samples[-1].event_bytes
            points.append(best_point(by_events(store, executors, RUN_SETS, RUN_YEARS, size, rounds)))
        local = []
        for sets, years in HOME:
            times = min(rounds, HOME_ROUNDS) if sets * years > USUAL_SETS else rounds
            for number in range(times):
                _say(f"running a sweep of {sets:,} sets × {years} a on one machine, round {number + 1} of {times}")
                local += [run_locally(store, workers, sets, years) for workers in (1, 2)]
        _say("running two processes that share nothing")
        shared = statistics.median(ceiling() for _ in range(rounds))
        return Measured(when, about, samples, points, local, shared, _outcome_bytes(store))


def better(found: Measured, before: Measured) -> Measured:
    """The better of two measurements of the same code: a way through a machine that others keep busy."""
    return msgspec.structs.replace(
        found,
        samples=[cheapest(pair) for pair in zip(found.samples, before.samples, strict=True)],
        points=[best_point(pair) for pair in zip(found.points, before.points, strict=True)],
        local=[*before.local, *found.local],
        ceiling=statistics.mean((found.ceiling, before.ceiling)),
    )


def best_point(points: Sequence[Point]) -> Point:
    """The quickest, with the least CPU time that any took: who shares the machine makes both larger."""
    return msgspec.structs.replace(min(points, key=lambda one: one.wall), cpu=min(one.cpu for one in points))


def concluded(found: Measured, assumed: Assumed) -> Study:
    run, large = found.samples
    many = [number for number in EXECUTORS if number >= 1_000]
    return Study(
        when=found.when,
        machine=found.machine,
        samples=found.samples,
        points=found.points,
        compared=compare(run, found.points),
        local=found.local,
        ceiling=found.ceiling,
        outcome_bytes=found.outcome_bytes,
        assumed=assumed,
        carried_on=[(n, carried_on(large, found.points, assumed, n, cold=False)) for n in EXECUTORS],
        together=[(n, carried_on(large, found.points, assumed, n, cold=False, jobs=TOGETHER)) for n in (1, *many)],
        cold=[(n, carried_on(large, found.points, assumed, n)) for n in EXECUTORS],
        as_it_is=[(n, carried_on(large, found.points, assumed, n, grown=False)) for n in EXECUTORS],
    )


def costs_of(sample: Sample, points: Sequence[Point], hop: float | None = None, skew: float = 0.0) -> Costs:
    """What a job costs, by what its parts did. `hop` None: this machine's. A repair is of one set and one slice."""
    cost = sample.cost
    later = cost.get("later", Part()).store + cost["compute"].store  # while idle, it merges what it has
    one = cost["compute"].own * sample.tasks / sample.slices / min(BATCH_SETS, sample.sets)
    least = {name: min(getattr(point, name) for point in points) for name in ("broker", "receive", "publish", "start")}
    return Costs(
        hop=min(point.hop for point in points) if hop is None else hop,
        plan=cost["plan"],
        share=cost["share"],
        hand=cost["hand"].own,
        ask=cost.get("ask", Part()),
        index=cost.get("index", Part()),
        later=later,
        read=cost["read"],
        compute=cost["compute"].own,
        write=cost["write"],
        reported=cost["reported"],
        merge=cost["merge"],
        repair=Part(one),
        figures=cost["figures"] + cost["end"],
        skew=skew,
        **least,
    )


def compare(sample: Sample, points: Sequence[Point]) -> list[Compared]:
    """What the simulator says of the sweeps that were run: on two cores that everyone shares, and nobody else uses."""
    costs, found = costs_of(sample, points), []
    job = Job(sample.tasks, sample.batches, TASKS_UNDER_WAY)
    for one in points:
        reported = predict(costs, job, World(one.executors, CORES))
        found.append(Compared(one.executors, reported.wall, one.wall, one.others, reported.cpu, one.cpu))
    return found


def carried_on(
    sample: Sample,
    points: Sequence[Point],
    assumed: Assumed,
    executors: int,
    grown: bool = True,
    cold: bool = True,
    jobs: int = 1,
) -> Prediction:
    """One symbol's ten years with a million sets. `grown`: aggregate and store grow with the executors."""
    _say(f"simulating {executors:,} executors")
    costs = costs_of(sample, points, assumed.hop, assumed.skew)
    job = Job(sample.tasks, sample.batches, assumed.lanes_per_executor * executors, assumed.repairs)
    store, aggregates, splits = assumed.store_cores_fixed, assumed.aggregates_fixed, assumed.aggregates_fixed
    if grown:
        store = max(store, executors * assumed.store_cores_per_100 // 100)
        aggregates = max(aggregates, executors * assumed.aggregates_per_100 // 100)
        splits = max(splits, executors * assumed.splits_per_100 // 100)
    return predict(costs, job, World(executors, 0, store, aggregates, splits, cold, assumed.reaction), jobs)


def _outcome_bytes(store: Path) -> float:
    with ClickHouseStore(f"chdb://{store}") as opened:
        ask = (
            "SELECT sum(data_compressed_bytes) / sum(rows) FROM system.parts WHERE table = 'slice_outcomes' AND active"
        )
        return float(opened._rows(ask, {})[0][0])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
