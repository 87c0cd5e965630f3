"""One run: clients that ask for jobs, faults for some minutes, then calm until all is quiet; and the verdict."""

import hashlib
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial as bound

import msgspec
from candlemill.errors import CandlemillError
from candlemill.pipeline import events, job_state, lifecycle
from candlemill.pipeline.events import Requested
from candlemill.pipeline.prepare import prepare
from candlemill.pipeline.prepared import Prepared
from candlemill.pipeline.workflows import Workflow, prepare_workflow

from loadtests.fault_simulation.broker import Broker, Function
from loadtests.fault_simulation.cases import SYMBOLS, families, small_limits
from loadtests.fault_simulation.faults import BENIGN, UNSAID, Dice, Fault
from loadtests.fault_simulation.loop import Task
from loadtests.fault_simulation.poison import poisoned
from loadtests.fault_simulation.world import MACHINES, START_MS, World

CALM_MS = 10 * 60_000  # from then on nothing fails
END_MS = 6 * 3_600_000  # and by then all is over
WATCH_MS = 60_000
STEP_MINUTES = [(-10, 10), (-180, 180), (-4_320, 4_320)]
CLIENTS, WHEN, SPEC, SLICES, OUTAGE, CORRECTION, POISON, CANCEL, STEP = range(3_000, 3_009)  # the dice's questions


class Verdict(msgspec.Struct, frozen=True):
    seed: int
    wrong: list[str]
    fired: list[Fault]
    states: Counter[str]
    events: int
    digest: str  # of the trace: two runs of a seed have the same
    trace: list[tuple[object, ...]]


def family(seed: int) -> str:
    """The family of jobs that the first client of a run asks for."""
    return _family(Dice(seed), 0)


def _family(dice: Dice, k: int) -> str:
    names = list(families())
    return names[dice.between(0, len(names) - 1, SPEC, k)]


class Run:
    def __init__(self, seed: int, only: Collection[Fault] | None = None) -> None:
        self._seed = seed
        self._dice = Dice(seed, only)
        self._world = World(self._dice)
        self._broker = Broker(self._world)
        self._gateway = Function("gateway", self._world, 0)

    def __call__(self) -> Verdict:
        world, loop = self._world, self._world.loop
        self._plan()
        loop.after(CALM_MS, self._dice.rest)
        loop.after(WATCH_MS, self._watch)
        loop.run(START_MS + END_MS)
        if not loop.idle():
            world.judge.says("events go round without end")
        fired = {name for name, _ in self._dice.fired}
        # Where an end is written but not reported, and those who come again see a replica without it, nobody knows that
        # there is something to tell: workflows go on by the watch.
        found = world.judge.end(fired <= BENIGN, silent="stale" in fired and bool(fired & UNSAID))
        taken = sum(line[3:4] == ("takes",) for line in world.trace)
        digest = hashlib.sha256(repr(world.trace).encode()).hexdigest()
        return Verdict(self._seed, world.judge.wrong, self._dice.fired, found, taken, digest, world.trace)

    def _plan(self) -> None:
        """What clients do and when, and what befalls everybody."""
        dice, loop = self._dice, self._world.loop
        for k in range(dice.between(1, 2, CLIENTS)):
            chosen = families()[_family(dice, k * dice.between(0, 1, SPEC, k, 1))]
            wanted = chosen[dice.between(0, len(chosen) - 1, SPEC, k, 2)]
            when = dice.between(0, 60_000, WHEN, k)
            loop.after(when, bound(self._client, wanted, (k, 0)))
            if dice.hits("again", k):
                loop.after(when + dice.between(0, 120_000, WHEN, k, 1), bound(self._client, wanted, (k, 1)))
            if dice.hits("afresh", k):
                fresh = msgspec.structs.replace(wanted, fresh=True)
                loop.after(when + dice.between(0, 300_000, WHEN, k, 2), bound(self._client, fresh, (k, 2)))
            if dice.hits("cancel", k):
                place = (CANCEL, k)
                call = bound(self._cancel, place)
                loop.after(when + dice.between(0, 30_000, *place), bound(self._act, call, place))
        if dice.hits("outage"):
            first = START_MS + dice.between(0, 120_000, OUTAGE)
            self._world.outage = (first, first + dice.between(1_000, 240_000, OUTAGE, 1))
        if dice.hits("step"):
            for k in range(dice.between(1, 4, STEP)):
                ms = dice.between(*STEP_MINUTES[dice.between(0, len(STEP_MINUTES) - 1, STEP, k)], STEP, k, 1) * 60_000
                set_clock = bound(self._world.set_clock, dice.between(0, MACHINES - 1, STEP, k, 2), ms)
                loop.after(dice.between(0, 600_000, STEP, k, 3), set_clock)
        if dice.hits("correction"):
            first = START_MS + dice.between(0, 90_000, CORRECTION)
            second = first + dice.between(1, 10_000, CORRECTION, 1)
            third = second + dice.between(1, 60_000, CORRECTION, 2)
            symbol = SYMBOLS[dice.between(0, len(SYMBOLS) - 1, CORRECTION, 3)]
            self._world.tables.correct(symbol, [first, second, third])
        if dice.hits("poison"):
            self._world.poisoned = True
            for k in range(dice.between(1, 6, POISON)):
                loop.after(dice.between(0, 120_000, POISON, k), bound(self._poison, k))

    # -- clients ---------------------------------------------------------------------------------------------------

    def _client(self, wanted: Requested, place: tuple[int, ...]) -> None:
        slices = self._dice.between(0, 6, SLICES, *place)
        wanted = msgspec.structs.replace(wanted, slices=slices or None)
        self._act(bound(self._ask, wanted), (SPEC, *place))

    def _act(self, call: Callable[[], None], place: tuple[int, ...]) -> None:
        """Something that a client makes the gateway do."""
        if self._gateway.dead:
            self._gateway = Function("gateway", self._world, 0)
        self._world.loop.start(Task(call, self._gateway, place))

    def _ask(self, wanted: Requested) -> None:
        """What the gateway does with a request."""
        runtime = self._gateway.runtime
        self._gateway.index.renew()
        try:
            if wanted.is_workflow:
                job: Workflow | Prepared = prepare_workflow(runtime.index, wanted)
            else:
                job = prepare(runtime.index, wanted.spec, wanted.slices)
            known = runtime.store.job(job.job_id)
            if (
                known is not None
                and not (wanted.fresh and known.finished)
                and known.state not in ("failed", "cancelled")
            ):
                return
            row = job_state.accepted(job.job_id, job.spec, job.data_digest, wanted, known, runtime.clock_ms())
            runtime.store.put_job(row)
            wanted = msgspec.structs.replace(wanted, attempt=row.attempt)
            event = events.make("gateway", events.REQUESTED, job.job_id, wanted)
            self._world.publish(bound(self._broker.publish, event))
        except CandlemillError as error:
            self._world.say("refused", str(error))

    def _poison(self, k: int) -> None:
        """Somebody sends an event again that was seen before, and changes something in it."""
        seen = self._world.judge.events
        if seen:
            event = poisoned(seen[self._dice.between(0, len(seen) - 1, POISON, k, 1)], self._dice, k)
            self._world.say(event.partitionkey[:6], "POISON", event.type[15:], event.id[:6], event.data[:200])
            self._broker.publish(event)

    def _cancel(self, place: tuple[int, ...]) -> None:
        """Somebody has a job not go on."""
        jobs = sorted(self._world.tables.jobs)
        if jobs:
            job_id = jobs[self._dice.between(0, len(jobs) - 1, CANCEL, *place, 1)]
            with suppress(CandlemillError):
                lifecycle.cancel(job_id, self._gateway.runtime.store)

    def _watch(self) -> None:
        """What comes every minute, as long as there is a job that has not ended."""
        self._broker.publish(events.make("ping", events.WATCH, "", events.Watch()))
        if self._world.loop.now < START_MS + CALM_MS or self._world.tables.unfinished(self._world.loop.now):
            self._world.loop.after(WATCH_MS, self._watch)


def simulate(seed: int, only: Collection[Fault] | None = None) -> Verdict:
    """A run of this seed; `only` are the faults that may happen in it."""
    with small_limits():
        return Run(seed, only)()


def shrunk(seed: int) -> Verdict:
    """The run of a seed that fails, with as few of its faults as it takes to fail somehow."""
    found = simulate(seed)
    kept, size = list(dict.fromkeys(found.fired)), len(found.fired)
    while size:
        k = 0
        while k < len(kept):
            tried = simulate(seed, set(kept[:k] + kept[k + size :]))
            if tried.wrong:
                found, kept = tried, [fault for fault in kept[:k] + kept[k + size :] if fault in set(tried.fired)]
            else:
                k += size
        size //= 2
    return found
