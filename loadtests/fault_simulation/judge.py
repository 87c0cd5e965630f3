"""What must hold in every run, whatever happens. Findings go to `wrong`."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import msgspec
from candlemill.pipeline import events
from candlemill.pipeline.events import Event
from candlemill.pipeline.job_state import WORKFLOWS, later, steps_of
from candlemill.pipeline.rows import JobRow, OutcomeRow, ResultRow, TaskRecord

from loadtests.fault_simulation.loop import Loop
from loadtests.fault_simulation.tables import Tables, address_of
from loadtests.fault_simulation.uncut import Bits, bits_of, expected

# One end may come after another: of two processes, one gives a job up and one finishes it. It is the better one then.
ENDS = ("cancelled", "failed", "done")


class Judged(Protocol):
    """What the judge sees of the world."""

    loop: Loop
    tables: Tables
    poisoned: bool

    def say(self, *what: object) -> None: ...


class Judge:
    def __init__(self, world: Judged) -> None:
        self._world = world
        self._tables = world.tables
        self._bits: dict[str, tuple[str, str]] = {}
        self._given_up: set[str] = set()
        self._reported: set[tuple[str, str]] = set()
        self._requested: set[int] = set()
        self._overtaken: set[str] = set()
        self.events: list[Event] = []
        self.wrong: list[str] = []

    def says(self, what: str) -> None:
        self._world.say("WRONG", what)
        self.wrong.append(what)

    # -- as it happens ---------------------------------------------------------------------------------------------

    def saw_event(self, event: Event) -> None:
        self.events.append(event)
        if event.type in (events.COMPLETED, events.FAILED) and not event.error:
            self._reported.add((event.type, event.partitionkey))

    def saw_given_up(self, event: Event) -> None:
        """The Broker has tried the event's dead letter in vain, too."""
        self._given_up.add(event.partitionkey)

    def saw_job(self, row: JobRow) -> None:
        name, before = row.job_id[:6], self._tables.job(row.job_id, self._world.loop.now)
        self._world.say(name, "is", row.attempt % 1_000_000, row.state, row.reason)
        if row.spec and row.data_digest:
            bits = self._expected(row)
            if bits is None:
                self.says(f"job {name} is of candles that never were")
            else:
                self._bits |= bits.results
        if row.state == "failed" and not row.reason:
            self.says(f"job {name} failed without a reason")
        now = later(before, row)
        if before is not None and before.finished and now.attempt <= before.attempt and now.state != before.state:
            self._overtaken.add(row.job_id)
            if now.attempt < before.attempt or not now.finished or ENDS.index(now.state) < ENDS.index(before.state):
                self.says(f"job {name} was {before.state} and is {now.state}")
        for step in steps_of(row):
            child = self._tables.job(step.job_id, self._world.loop.now)
            if child is not None and (step.fresh or child.state in ("failed", "cancelled")):
                self._requested.add(step.attempt)  # by the workflow: what failed, or was made before, will not do
        if row.state == "accepted":
            self._requested.add(row.attempt)
        elif row.attempt and row.attempt not in self._requested and not self._world.poisoned:
            self.says(f"nobody requested attempt {row.attempt} of job {name}")

    def saw_partials(self, rows: Sequence[TaskRecord]) -> None:
        for row in rows:
            self._world.say(row.job_id[:6], row.kind, row.batch, row.slice, row.task)
            key = (row.batch, row.kind, row.slice, row.task)
            same = [r for r in self._tables.slices.get(row.job_id, {}) if (r.batch, r.kind, r.slice, r.task) == key]
            if same not in ([], [row]):
                self.says(f"task {key} of job {row.job_id[:6]} wrote other bytes than before")

    def saw_outcomes(self, rows: Sequence[OutcomeRow]) -> None:
        for row in rows:
            address = address_of(row)
            self._world.say("outcome", *(part[:6] for part in address), row.guessed)
            if any(_found(row) != _found(other) for other in self._tables.outcomes.get(address, ())):
                self.says(f"the outcome {address} has two values")

    def saw_results(self, rows: Sequence[ResultRow]) -> None:
        for row in rows:
            self._world.say((row.sweep_id or row.job_id)[:6], "result", row.job_id[:6])
            if self._bits.get(row.job_id) != bits_of(row):
                self.says(f"a result of set {row.job_id[:6]} has other bits than the uncut run")

    # -- at the end ------------------------------------------------------------------------------------------------

    def end(self, must_be_done: bool, silent: bool) -> Counter[str]:
        """How many jobs ended in which state. `silent`: an end may be written and never reported."""
        states: Counter[str] = Counter()
        for job_id in self._tables.jobs:
            row = self._tables.job(job_id, self._world.loop.now)
            assert row is not None
            states[row.state] += 1
            if not row.finished:
                self.says(f"job {job_id[:6]} hangs: {row.state}")
                continue
            if row.state == "done":
                self._end_done(row)
            elif must_be_done:
                self.says(f"job {job_id[:6]} {row.state} for no reason: {row.reason}")
            kind = {"done": events.COMPLETED, "failed": events.FAILED}.get(row.state)
            if kind and not (silent or (kind, job_id) in self._reported or self._tells_once(row)):
                self.says(f"nobody received that job {job_id[:6]} is {row.state}")
        return states

    def _end_done(self, row: JobRow) -> None:
        bits, name = self._expected(row), row.job_id[:6]
        rows = self._tables.results_at(self._world.loop.now)
        found = {r.job_id for r in rows if row.job_id == (r.sweep_id if row.kind == "sweep" else r.job_id)}
        if bits is None or bits.results.keys() - found:
            self.says(f"job {name} is done with {len(found)} of {bits and len(bits.results)} results")
        if bits is not None and row.figures != bits.figures:
            self.says(f"{row.kind} {name} is done with wrong figures")

    def _expected(self, row: JobRow) -> Bits | None:
        return expected(row)

    def _tells_once(self, row: JobRow) -> bool:
        """Ends that come of no event of the job itself, or of one that was given up: whoever dies, or loses
        the store, after writing such a one tells nobody."""
        silent = "its tasks made no progress" in row.reason or row.job_id in self._given_up
        return silent or row.kind in WORKFLOWS or row.job_id in self._overtaken


def _found(row: OutcomeRow) -> OutcomeRow:
    """Without how it came about."""
    return msgspec.structs.replace(row, guessed=False)
