"""A sweep on some executors, as a simulation in discrete events. Times in seconds; the same arguments, the same result.

split says its tasks one after the other. A task waits for an executor, travels there, asks the store, reads its slice
unless that executor has it still, computes, writes its outcomes, and word of it travels to aggregate. Aggregate looks
at it; with a batch's last one it merges the batch, and where guesses were wrong it has a repair made first. With the
last batch it makes the sweep's figures.

The store does so much at once as it has slots, aggregate as it has instances. On one machine all of them share its
cores; on a cluster everyone has their own.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Generator
from functools import partial

import msgspec

INFINITE = 1_000_000


class Part(msgspec.Struct, frozen=True):
    """CPU seconds of one step: of the function itself, and of the store for it."""

    own: float = 0.0
    store: float = 0.0

    def __add__(self, other: "Part") -> "Part":
        return Part(self.own + other.own, self.store + other.store)

    def times(self, factor: float) -> "Part":
        return Part(self.own * factor, self.store * factor)


class Costs(msgspec.Struct, frozen=True):
    """What the parts of one job cost. `hop` is the time that an event is on its way, which costs nobody a core.
    `skew` is the coefficient of variation of a task's computing."""

    hop: float
    split: Part
    split_task: Part
    ask: Part
    read: Part
    compute: float
    write: Part
    reported: Part
    merge: Part
    repair: Part
    figures: Part
    start: float
    skew: float = 0.0


class Job(msgspec.Struct, frozen=True):
    """`repairs` is the share of batches that need one."""

    slices: int
    batches: int
    repairs: float = 0.0
    seed: int = 1

    @property
    def tasks(self) -> int:
        return self.slices * self.batches


class World(msgspec.Struct, frozen=True):
    """`cores` 0: everyone has their own; otherwise all share so many. A `cold` executor is there
    `reaction` seconds after the first task waits, and the time that it takes to start."""

    executors: int
    cores: int = 0
    store_slots: int = INFINITE
    aggregates: int = INFINITE
    cold: bool = False
    reaction: float = 0.0


class Prediction(msgspec.Struct, frozen=True):
    """`held` are the seconds that executors were there, at work or not, until the last task's end, `busy` those of
    their tasks; `cpu` is all CPU time, `others` that of split, aggregate and store."""

    wall: float
    held: float
    busy: float
    cpu: float
    others: float


Step = tuple["Resource", float]
Process = Generator[Step, None, None]


class Resource:
    """So many at once; who comes first is first."""

    def __init__(self, world: "_Simulation", slots: int) -> None:
        self._world = world
        self._free = slots
        self._queue: deque[tuple[float, Callable[[], None]]] = deque()

    def use(self, seconds: float, then: Callable[[], None]) -> None:
        if self._free:
            self._free -= 1
            self._world.after(seconds, lambda: self._leave(then))
        else:
            self._queue.append((seconds, then))

    def _leave(self, then: Callable[[], None]) -> None:
        if self._queue:
            seconds, other = self._queue.popleft()
            self._world.after(seconds, lambda: self._leave(other))
        else:
            self._free += 1
        then()


class _Simulation:
    """The clock, and what is to happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, seconds: float, then: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, then))

    def start(self, process: Process, then: Callable[[], None] = lambda: None) -> None:
        """Go through a process's steps, one after the other."""

        def step() -> None:
            for resource, seconds in process:
                if seconds > 0:
                    resource.use(seconds, step)
                    return
            then()

        step()

    def run(self) -> None:
        while self._events:
            self.now, _, then = heapq.heappop(self._events)
            then()


class _Sweep:
    """One job in one world."""

    def __init__(self, costs: Costs, job: Job, world: World) -> None:
        self._costs, self._job, self._world = costs, job, world
        self.time = _Simulation()
        self._way = Resource(self.time, INFINITE)  # waiting costs nobody anything
        everyone = Resource(self.time, world.cores or INFINITE)
        self._executor_core = self._aggregate_core = self._split_core = self._store = everyone
        if not world.cores:
            self._aggregate_core = Resource(self.time, world.aggregates)
            self._store = Resource(self.time, world.store_slots)
        self._waiting: deque[tuple[int, int, bool]] = deque()
        self._free: deque[int] = deque()
        self._seen: list[set[int]] = [set() for _ in range(world.executors)]
        self._left = [job.slices] * job.batches
        chance = random.Random(job.seed)
        self._repairs = [chance.random() < job.repairs for _ in range(job.batches)]
        self._factors = [max(0.2, chance.gauss(1.0, costs.skew)) for _ in range(job.slices)]
        self._batches = job.batches
        self.cpu = self.others = self.busy = self.ended = 0.0
        self._started = False
        self._arrived = 0.0

    def run(self) -> Prediction:
        self._begin(self._split())
        if not self._world.cold:
            self._start_executor()
        self.time.run()
        held = self._world.executors * max(0.0, self.ended - self._arrived)
        return Prediction(self.time.now, held, self.busy, self.cpu, self.others)

    def _begin(self, process: Process, then: Callable[[], None] = lambda: None) -> None:
        self.time.start(process, then)

    def _execute(self, part: Part) -> Process:
        yield from self._work(part, self._executor_core)
        self.others -= part.own

    def _work(self, part: Part, core: Resource) -> Process:
        """A function asks the store, and goes on when it has its answer."""
        self.cpu += part.own + part.store
        self.others += part.own + part.store
        yield self._store, part.store
        yield core, part.own

    # -- the functions -------------------------------------------------------------------------------------------------

    def _split(self) -> Process:
        yield self._way, self._costs.hop
        yield from self._work(self._costs.split, self._split_core)
        for batch in range(self._job.batches):
            for number in range(self._job.slices):
                yield from self._work(self._costs.split_task, self._split_core)
                self._ask_for(batch, number, False)

    def _ask_for(self, batch: int, number: int, is_repair: bool) -> None:
        if not self._started and self._world.cold:
            self.time.after(self._world.reaction + self._costs.start, self._start_executor)
            self._started = True
        self._waiting.append((batch, number, is_repair))
        self._assign()

    def _start_executor(self) -> None:
        self._arrived = self.time.now
        self._free.extend(range(self._world.executors))
        self._assign()

    def _assign(self) -> None:
        while self._free and self._waiting:
            executor, (batch, number, is_repair) = self._free.popleft(), self._waiting.popleft()
            self._begin(self._task(executor, number, is_repair), partial(self._done, executor, batch, is_repair))

    def _task(self, executor: int, number: int, is_repair: bool) -> Process:
        costs, began = self._costs, self.time.now
        yield self._way, costs.hop
        yield from self._execute(costs.ask)
        if number not in self._seen[executor]:
            self._seen[executor].add(number)
            yield from self._execute(costs.read)
        if is_repair:
            yield from self._execute(costs.repair)
        else:
            yield from self._execute(Part(costs.compute * self._factors[number]))
            yield from self._execute(costs.write)
        self.busy += self.time.now - began

    def _done(self, executor: int, batch: int, is_repair: bool) -> None:
        self.ended = self.time.now
        self._free.append(executor)
        self._begin(self._reported(batch, is_repair))
        self._assign()

    def _reported(self, batch: int, is_repair: bool) -> Process:
        yield self._way, self._costs.hop
        yield from self._work(self._costs.reported, self._aggregate_core)
        self._left[batch] -= not is_repair
        if self._left[batch]:
            return
        yield from self._work(self._costs.merge, self._aggregate_core)
        if self._repairs[batch]:  # seen when it was merged; merged once more when it is repaired
            self._repairs[batch] = False
            self._ask_for(batch, self._job.slices - 1, True)
            return
        self._batches -= 1
        if not self._batches:
            yield from self._work(self._costs.figures, self._aggregate_core)


def predict(costs: Costs, job: Job, world: World) -> Prediction:
    """When a job is done in a world, and what it costs."""
    return _Sweep(costs, job, world).run()
