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
from candlemill.store.clickhouse import ClickHouseStore

from loadtests.common.lab import SYMBOLS, YEAR, machine, store_candles
from loadtests.scaling.fit import BATCH, Laws, laws_of
from loadtests.scaling.measure import Sample, cheapest, measured
from loadtests.scaling.model import Job, Prediction, World, predict
from loadtests.scaling.points import Local, Point, by_events, ceiling, run_locally

SIZES = ((64, 4, 364), (512, 4, 364), (512, 2, 182), (512, 12, 364))  # sets, slices, days
RUN_SETS, RUN_SLICES, RUN_DAYS = 1024, 8, 365
RUN_EXECUTORS = (1, 2, 4)
HOME = ((512, 1), (2048, 1), (8192, 1), (2048, 3))  # sets, years
USUAL_SETS, HOME_ROUNDS = 2048, 2  # larger ones take long: so many rounds at most
CORES = 2

# Ten years of one symbol with a million sets: as `candlemill` plans them.
SLICES, SETS, DAYS = 40, 1_000_000, 3_652
EXECUTORS = (1, 10, 30, 100, 300, 1_000, 3_000, 10_000)
MINUTES_OF_DAY = 1_440
COLUMNS_READ = 3  # t, open, close: an SMA crossing without stops


class Assumed(msgspec.Struct, frozen=True):
    """Of a cluster, and not measured here. `hop` is the issue's aim for a real Broker; `reaction` an autoscaler's tick
    of 2 s and as much to place a pod; a node that has to be made takes minutes more. `repairs` is the share of batches
    in which a guess was wrong. What grows does so with the executors; what does not is as in knative/base, with a small
    store."""

    hop: float = 0.05
    reaction: float = 4.0
    repairs: float = 0.05
    skew: float = 0.1
    aggregates_per_100: int = 50
    store_cores_per_100: int = 50
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
    laws: Laws
    points: list[Point]
    compared: list[Compared]
    local: list[Local]
    ceiling: float  # the efficiency of two processes that share nothing
    outcome_bytes: float  # of one row of slice_outcomes, as it is stored
    assumed: Assumed
    carried_on: list[tuple[int, Prediction]]
    as_it_is: list[tuple[int, Prediction]]  # with a fixed number of aggregates and of the store's cores


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
        store_candles(f"chdb://{store}", folder, SYMBOLS[:1], YEAR)
        years = max(years for _, years in HOME)
        store_candles(f"chdb://{store}", folder / "more", SYMBOLS[1:], YEAR - years + 1, years)
        _say("measuring the parts of sweeps")
        samples = measured(store, SIZES, rounds)
        points = []
        for executors in RUN_EXECUTORS:
            _say(f"running a sweep of {RUN_SETS:,} sets on {executors} executors")
            points.append(best_point(by_events(store, executors, RUN_SETS, RUN_SLICES, rounds)))
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
    laws = laws_of(found.samples)
    return Study(
        when=found.when,
        machine=found.machine,
        samples=found.samples,
        laws=laws,
        points=found.points,
        compared=compare(laws, found.points),
        local=found.local,
        ceiling=found.ceiling,
        outcome_bytes=found.outcome_bytes,
        assumed=assumed,
        carried_on=carried_on(laws, found.points, assumed, True),
        as_it_is=carried_on(laws, found.points, assumed, False),
    )


def compare(laws: Laws, points: Sequence[Point]) -> list[Compared]:
    """What the simulator says of the sweeps that were run: on two cores that everyone shares, and nobody else uses."""
    hop, publish = min(one.hop for one in points), min(one.publish for one in points)
    costs = laws.costs(RUN_DAYS, RUN_SLICES, RUN_SETS, hop, publish, 0.0)
    job = Job(RUN_SLICES, -(-RUN_SETS // BATCH))
    found = []
    for one in points:
        reported = predict(costs, job, World(one.executors, CORES))
        found.append(Compared(one.executors, reported.wall, one.wall, one.others, reported.cpu, one.cpu))
    return found


def carried_on(laws: Laws, points: Sequence[Point], assumed: Assumed, grown: bool) -> list[tuple[int, Prediction]]:
    """One symbol's ten years with a million sets, on cold executors. `grown`: aggregate and store grow with them."""
    publish, start = min(one.publish for one in points), min(one.start for one in points)
    costs = laws.costs(DAYS, SLICES, SETS, assumed.hop, publish, start)
    costs = msgspec.structs.replace(costs, skew=assumed.skew)
    job = Job(SLICES, -(-SETS // BATCH), assumed.repairs)
    found = []
    for executors in EXECUTORS:
        _say(f"simulating {executors:,} executors")
        store, aggregates = assumed.store_cores_fixed, assumed.aggregates_fixed
        if grown:
            store = max(store, executors * assumed.store_cores_per_100 // 100)
            aggregates = max(aggregates, executors * assumed.aggregates_per_100 // 100)
        world = World(executors, 0, store, aggregates, True, assumed.reaction)
        found.append((executors, predict(costs, job, world)))
    return found


def _outcome_bytes(store: Path) -> float:
    with ClickHouseStore(f"chdb://{store}") as opened:
        ask = (
            "SELECT sum(data_compressed_bytes) / sum(rows) FROM system.parts WHERE table = 'slice_outcomes' AND active"
        )
        return float(opened._rows(ask, {})[0][0])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
