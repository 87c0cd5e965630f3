"""What must hold in every run, whatever happens. Findings go to `wrong`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from candlemill import events
from candlemill.events import Event
from candlemill.ledger import JobRow, Partial, ResultRow

from loadtests.simulation.cases import Bits, bits_of, expected

if TYPE_CHECKING:
    from loadtests.simulation.world import World

TERMINAL = ("done", "failed", "cancelled")


class Judge:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._tables = world.tables
        self._bits: dict[str, tuple[str, str]] = {}
        self._told: set[tuple[str, str]] = set()
        self.events: list[Event] = []
        self.wrong: list[str] = []

    def says(self, what: str) -> None:
        self._world.say("WRONG", what)
        self.wrong.append(what)

    # -- as it happens ---------------------------------------------------------------------------------------------

    def saw_event(self, event: Event) -> None:
        self.events.append(event)
        if event.type in (events.COMPLETED, events.FAILED) and not event.error:
            self._told.add((event.type, event.partitionkey))

    def saw_job(self, row: JobRow) -> None:
        self._world.say("job", row.job_id[:6], row.state, row.reason)
        if row.spec and row.data_digest:
            bits = self._expected(row)
            if bits is None:
                self.says(f"job {row.job_id[:6]} is of candles that never were")
            else:
                self._bits |= bits.results
        if row.state == "failed" and not row.reason:
            self.says(f"job {row.job_id[:6]} failed without a reason")

    def saw_partials(self, rows: Sequence[Partial]) -> None:
        for row in rows:
            self._world.say(row.kind, row.job_id[:6], row.batch, row.slice, row.task)
            key = (row.batch, row.kind, row.slice, row.task)
            same = [r for r in self._tables.slices.get(row.job_id, {}) if (r.batch, r.kind, r.slice, r.task) == key]
            if same not in ([], [row]):
                self.says(f"task {key} of job {row.job_id[:6]} wrote other bytes than before")

    def saw_results(self, rows: Sequence[ResultRow]) -> None:
        for row in rows:
            self._world.say("result", row.job_id[:6])
            if self._bits.get(row.job_id) != bits_of(row):
                self.says(f"a result of set {row.job_id[:6]} has other bits than the uncut run")

    # -- at the end ------------------------------------------------------------------------------------------------

    def unfinished(self, job_id: str) -> bool:
        row = self._tables.job(job_id, self._world.loop.now)
        return row is None or row.state not in TERMINAL

    def end(self, asked: Sequence[str], must_be_done: bool) -> None:
        """`asked` are the jobs that clients were promised an end of."""
        for job_id in asked:
            row = self._tables.job(job_id, self._world.loop.now)
            if row is None or row.state not in TERMINAL:
                self.says(f"job {job_id[:6]} hangs: {row and row.state}")
                continue
            if row.state == "done":
                self._end_done(row)
            elif must_be_done:
                self.says(f"job {job_id[:6]} {row.state} for no reason: {row.reason}")
            kind = {"done": events.COMPLETED, "failed": events.FAILED}.get(row.state)
            if kind and (kind, job_id) not in self._told:
                self.says(f"nobody was told that job {job_id[:6]} is {row.state}")

    def _end_done(self, row: JobRow) -> None:
        bits = self._expected(row)
        found = {r.job_id: bits_of(r) for r in self._tables.results_of(row.job_id, self._world.loop.now)}
        if bits is None or found != bits.results:
            self.says(f"job {row.job_id[:6]} is done with {len(found)} of {bits and len(bits.results)} right results")
        if bits is not None and row.figures != bits.figures:
            self.says(f"sweep {row.job_id[:6]} is done with wrong guards")

    def _expected(self, row: JobRow) -> Bits | None:
        return expected(row.spec, row.data_digest)
