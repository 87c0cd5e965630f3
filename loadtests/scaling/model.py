"""Sweeps on some executors, as a simulation in discrete events. Times in seconds; the same arguments, the same result.

split hands out the tasks of the first lanes, itself or in shares. A task waits for an executor, which asks the store,
reads its slices unless that executor has them still, computes, writes its outcomes, and sends word of it to aggregate.
That requests the next task of the lane; who finds all tasks of a batch written merges it, and where guesses were wrong
has a repair made first. Two who find that at the same time both do: nobody claims a batch. With the last batch it makes
the sweep's figures.

The store does so much at once as it has slots, split and aggregate as they have instances. On one machine all of them
share its cores; on a cluster everyone has their own.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Generator
from functools import partial

import msgspec
from candlemill.pipeline.waves import EVENTS_AT_ONCE, in_turns, share_width

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
    """What the parts of one job cost. `hop` is the time that an event is on its way, which costs nobody a core but
    `broker`; `receive` and `publish` are what an event costs the function that takes it and the one that sends it.
    `skew` is the coefficient of variation of a task's computing."""

    hop: float
    broker: float
    receive: float
    publish: float
    plan: Part
    share: Part  # to look at a share of the tasks
    hand: float  # to make the event of a task
    ask: Part  # of a task
    read: Part  # of a task's slices
    compute: float  # of a task
    write: Part  # of a task
    reported: Part  # of a task
    merge: Part  # of a batch
    repair: Part
    figures: Part
    start: float
    skew: float = 0.0
    index: Part = Part()  # of an executor's first task of a job: which days there are
    later: float = 0.0  # of the store, after a task's outcomes are written: it merges them with others


class Job(msgspec.Struct, frozen=True):
    """`tasks` of each of the `batches`; `lanes` of them are under way at once, 0: all. `repairs` is the share of
    batches that need one."""

    tasks: int
    batches: int
    lanes: int = 0
    repairs: float = 0.0
    seed: int = 1

    @property
    def places(self) -> int:
        return self.tasks * self.batches


class World(msgspec.Struct, frozen=True):
    """`cores` 0: everyone has their own; otherwise all share so many. A `cold` executor is there
    `reaction` seconds after the first task waits, and the time that it takes to start."""

    executors: int
    cores: int = 0
    store_slots: int = INFINITE
    aggregates: int = INFINITE
    splits: int = INFINITE
    cold: bool = False
    reaction: float = 0.0


class Prediction(msgspec.Struct, frozen=True):
    """`held` are the seconds that executors were there, at work or not, until the last task's end, `busy` those of
    their tasks; `cpu` is all CPU time, `others` that of all but the executors, `store` that of the store; `events` is
    how many were sent, `merges` how often a batch was merged, `figures` how often those of a job were made."""

    wall: float
    held: float
    busy: float
    cpu: float
    others: float
    store: float
    events: int
    merges: int = 0
    figures: int = 0


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
    """One job: how many tasks of each batch are not written, which batches need a repair, have been given one, and are
    merged."""

    def __init__(self, job: Job) -> None:
        self.left = [job.tasks] * job.batches
        chance = random.Random(job.seed)
        self.repairs = [chance.random() < job.repairs for _ in range(job.batches)]
        self.repairing: set[int] = set()
        self.merged: set[int] = set()
        self.is_done = False


class _Cluster:
    """Equal jobs, requested together, in one world."""

    def __init__(self, costs: Costs, job: Job, world: World, jobs: int) -> None:
        self._costs, self._job, self._world = costs, job, world
        self.time = _Simulation()
        self._way = Resource(self.time, INFINITE)  # waiting costs nobody anything
        everyone = Resource(self.time, world.cores or INFINITE)
        self._executor_core = self._broker = everyone
        self._aggregate_core = self._split_core = self._store = everyone
        if not world.cores:
            self._aggregate_core = Resource(self.time, world.aggregates)
            self._split_core = Resource(self.time, world.splits)
            self._store = Resource(self.time, world.store_slots)
        self._waiting: deque[tuple[_Sweep, int, bool]] = deque()
        self._free: deque[int] = deque()
        self._seen: list[set[tuple[int, int]]] = [set() for _ in range(world.executors)]
        chance = random.Random(job.seed)
        self._factors = [max(0.2, chance.gauss(1.0, costs.skew)) for _ in range(job.tasks)]
        self._sweeps = [_Sweep(job) for _ in range(jobs)]
        self._lanes = job.lanes or job.places
        self.cpu = self.others = self.store = self.busy = self.ended = 0.0
        self.events = self.merges = self.figures = 0
        self._started = False
        self._arrived = self._wall = 0.0

    def run(self) -> Prediction:
        for sweep in self._sweeps:
            self._begin(self._split(sweep))
        if not self._world.cold:
            self._start_executors()
        self.time.run()
        held = self._world.executors * max(0.0, self.ended - self._arrived)
        return Prediction(
            self._wall, held, self.busy, self.cpu, self.others, self.store, self.events, self.merges, self.figures
        )

    def _begin(self, process: Process, then: Callable[[], None] = lambda: None) -> None:
        self.time.start(process, then)

    def _travel(self) -> Process:
        self.events += 1
        yield self._way, self._costs.hop
        yield from self._work(Part(self._costs.broker), self._broker)

    def _execute(self, part: Part) -> Process:
        yield from self._work(part, self._executor_core)
        self.others -= part.own

    def _work(self, part: Part, core: Resource) -> Process:
        """A function asks the store, and goes on when it has its answer."""
        self.cpu += part.own + part.store
        self.others += part.own + part.store
        self.store += part.store
        yield self._store, part.store
        yield core, part.own

    # -- the functions -------------------------------------------------------------------------------------------------

    def _split(self, sweep: _Sweep) -> Process:
        yield from self._travel()
        yield from self._work(Part(self._costs.receive) + self._costs.plan, self._split_core)
        yield from self._hand_out(sweep, 0, min(self._lanes, self._job.places))

    def _share(self, sweep: _Sweep, first: int, last: int) -> Process:
        yield from self._travel()
        yield from self._work(Part(self._costs.receive) + self._costs.share, self._split_core)
        yield from self._hand_out(sweep, first, last)

    def _hand_out(self, sweep: _Sweep, first: int, last: int) -> Process:
        """As `pipeline.waves` does it."""
        if last - first > EVENTS_AT_ONCE:
            width = share_width(last - first)
            for at in range(first, last, width):
                yield from self._work(Part(self._costs.publish), self._split_core)
                self._begin(self._share(sweep, at, min(at + width, last)))
            return
        for place in range(first, last):
            yield from self._work(Part(self._costs.hand + self._costs.publish), self._split_core)
            self._ask_for(sweep, place, False)

    def _ask_for(self, sweep: _Sweep, place: int, is_repair: bool) -> None:
        if not self._started and self._world.cold:
            self.time.after(self._world.reaction + self._costs.start, self._start_executors)
            self._started = True
        self._begin(self._travel(), partial(self._arrive, sweep, place, is_repair))

    def _arrive(self, sweep: _Sweep, place: int, is_repair: bool) -> None:
        self._waiting.append((sweep, place, is_repair))
        self._assign()

    def _batch_and_part(self, place: int) -> tuple[int, int]:
        job = self._job
        return divmod(in_turns(place, job.places, job.tasks, job.lanes), job.tasks)

    def _start_executors(self) -> None:
        self._arrived = self.time.now
        self._free.extend(range(self._world.executors))
        self._assign()

    def _assign(self) -> None:
        while self._free and self._waiting:
            executor, (sweep, place, is_repair) = self._free.popleft(), self._waiting.popleft()
            task = self._task(executor, sweep, place, is_repair)
            self._begin(task, partial(self._done, executor, sweep, place, is_repair))

    def _task(self, executor: int, sweep: _Sweep, place: int, is_repair: bool) -> Process:
        costs, began = self._costs, self.time.now
        batch, part = self._batch_and_part(place)
        yield from self._execute(Part(costs.receive) + costs.ask)
        seen = self._seen[executor]
        if (id(sweep), -1) not in seen:
            seen.add((id(sweep), -1))
            yield from self._execute(costs.index)
        if (id(sweep), part) not in seen:
            seen.add((id(sweep), part))
            yield from self._execute(costs.read)
        if is_repair:
            yield from self._execute(costs.repair)
        else:
            yield from self._execute(Part(costs.compute * self._factors[part]))
            yield from self._execute(costs.write)
            self._begin(self._work(Part(store=costs.later), self._executor_core))
            sweep.left[batch] -= 1
        yield from self._execute(Part(costs.publish))
        self.busy += self.time.now - began

    def _done(self, executor: int, sweep: _Sweep, place: int, is_repair: bool) -> None:
        self.ended = self.time.now
        self._free.append(executor)
        self._begin(self._reported(sweep, place, is_repair))
        self._assign()

    def _reported(self, sweep: _Sweep, place: int, is_repair: bool) -> Process:
        costs, (batch, _) = self._costs, self._batch_and_part(place)
        yield from self._travel()
        yield from self._work(Part(costs.receive), self._aggregate_core)
        is_complete = not sweep.left[batch] and batch not in sweep.merged
        yield from self._work(costs.reported, self._aggregate_core)
        if not is_repair and place + self._lanes < self._job.places:
            yield from self._work(Part(costs.publish), self._aggregate_core)
            self._ask_for(sweep, place + self._lanes, False)
        if not is_complete:
            return
        yield from self._work(costs.merge, self._aggregate_core)
        self.merges += 1
        if sweep.repairs[batch] and not is_repair:  # seen when it was merged; merged once more when it is repaired
            if batch not in sweep.repairing:
                sweep.repairing.add(batch)
                self._ask_for(sweep, place, True)
            return
        sweep.merged.add(batch)
        if len(sweep.merged) == self._job.batches and not sweep.is_done:
            self.figures += 1
            yield from self._work(costs.figures, self._aggregate_core)
            if not sweep.is_done:
                sweep.is_done = True
                self._wall = max(self._wall, self.time.now)


def predict(costs: Costs, job: Job, world: World, jobs: int = 1) -> Prediction:
    """When jobs are done in a world, and what they cost."""
    return _Cluster(costs, job, world, jobs).run()
