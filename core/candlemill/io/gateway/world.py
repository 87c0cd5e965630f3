"""What a request may touch: the store, the metadata index, where events go. Blocking calls run in threads."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from candlemill import events, states
from candlemill.addresses import Addresses, SetAddress, ground_of
from candlemill.campaigns import prepare_campaign
from candlemill.errors import UnknownName
from candlemill.events import Event
from candlemill.io import telemetry, tracing
from candlemill.io.clock import clock_ms
from candlemill.io.coverage import current_days
from candlemill.io.gateway.answers import JobLine
from candlemill.io.gateway.gathered import Gathered
from candlemill.io.gateway.latest import Latest
from candlemill.io.gateway.traces import Traces
from candlemill.io.jobs import Home
from candlemill.io.store import Store
from candlemill.ledger import Funding, JobRow, Progress, ResultRow
from candlemill.model import SCALE, Spec
from candlemill.plan import Day
from candlemill.request import Asked, Kind, Request, understand
from candlemill.reuse import Known, Reuse, look_up, reuse_of
from candlemill.service import Prepared

INDEX_SECONDS = 1.0  # how old what is known of the candles may be when a job is asked for; tasks look again
PREPARED_LIMIT = 1_024
FINISHED_LIMIT, FINISHED_SECONDS = 4_096, 30.0
RESULTS_LIMIT = 256
KEPT_LIMIT, KEPT_BYTES = 256, 100_000  # answers, bytes of each

JOBS_LOOKED_UP = 20  # of a campaign

Publish = Callable[[Sequence[Event]], None]
Live = Callable[[str], Progress | None]


class Index:
    """The store's metadata index, not older than a second; a symbol's days stay the same object while unchanged."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._symbols: tuple[float, list[str]] = (0.0, [])
        self._days: dict[str, tuple[float, Sequence[Day]]] = {}
        self._funding: dict[str, tuple[float, Funding]] = {}
        self._scales: dict[str, int] = {}

    def symbols(self) -> list[str]:
        with self._lock:
            if time.monotonic() > self._symbols[0]:
                self._symbols = (time.monotonic() + INDEX_SECONDS, self._store.symbols())
            return self._symbols[1]

    def days(self, symbol: str) -> Sequence[Day]:
        with self._lock:
            until, days = self._days.get(symbol, (0.0, []))
            if time.monotonic() > until:
                now = current_days(self._store, symbol)
                days = days if days == now else now
                if days:  # names that do not exist are anybody's to think up: they are not kept
                    self._days[symbol] = (time.monotonic() + INDEX_SECONDS, days)
            return days

    def is_fresh(self, symbol: str) -> bool:
        """Whether the symbol's days are known well enough for now."""
        return time.monotonic() <= self._days.get(symbol, (0.0, ()))[0]

    def volume_scale(self, symbol: str) -> int:
        if symbol not in self._scales:
            self._scales[symbol] = self._store.volume_scale(symbol) or SCALE
        return self._scales[symbol]

    def funding(self, symbol: str) -> Funding:
        with self._lock:
            until, funding = self._funding.get(symbol, (0.0, None))
            if funding is None or time.monotonic() > until:
                funding = self._store.funding(symbol)
                self._funding[symbol] = (time.monotonic() + INDEX_SECONDS, funding)
            return funding


class Ready(msgspec.Struct, frozen=True):
    """A request that can run: what is to be published for it, the job that it is, and the jobs that are known to be
    part of it: itself, unless it is a campaign."""

    kind: Kind
    wanted: events.Requested
    job_id: str
    spec: Spec
    data_digest: str
    jobs: list[Prepared]


class Answer(msgspec.Struct, frozen=True):
    """A job's state now that it is asked for; of one that is about to run, what of it is known."""

    state: str
    reuse: Reuse | None = None


class World:
    """One gateway's connections and caches. `publish` sends events, blocking; it raises what is retryable where the
    sink does not take them."""

    def __init__(self, store: Store, publish: Publish, live: Live | None = None, index: Index | None = None) -> None:
        """`live` tells how far a job is that runs in this process, if jobs do."""
        self.store = store
        self.index = index or Index(store)
        self.job = Gathered(self._jobs)
        self._asking = Gathered(self._ask)
        self.ready = Gathered(self._ready)  # anybody may ask: however often, the database is asked once at a time
        self.traces = Traces(store, self.index)
        self.stopping = asyncio.Event()
        self._publish = publish
        self._live = live
        self.lines: Latest[tuple[str, int, int], JobLine] = Latest(FINISHED_LIMIT)  # by job, attempt and last change
        self._prepared: Latest[bytes, tuple[object, Ready]] = Latest(PREPARED_LIMIT)
        self._finished: Latest[str, tuple[float, JobRow]] = Latest(FINISHED_LIMIT)
        self._results: Latest[str, tuple[float, ResultRow]] = Latest(RESULTS_LIMIT)
        self._kept: Latest[str, bytes] = Latest(KEPT_LIMIT)

    async def prepare(self, request: Request) -> Ready:
        """A request, checked against the index before anything is started."""
        if self.index.is_fresh(request.symbols):  # no database is asked: quicker here than in a thread
            return self._prepare(request)
        return await asyncio.to_thread(self._prepare, request)

    def _prepare(self, request: Request) -> Ready:
        body = msgspec.json.encode(request)
        days = self.index.days(request.symbols)
        known = self._prepared.get(body)
        if known is not None and known[0] is days and days:
            return known[1]
        ready = self._understood(understand(request, self.index))
        if ready.spec.funding:  # rates may come while the candles stay
            return ready
        self._prepared.put(body, (days, ready))
        return ready

    def _understood(self, asked: Asked) -> Ready:
        wanted = events.Requested(
            asked.spec, asked.slices, asked.fresh, weights=asked.weights, walk_forward=asked.walk_forward
        )
        home = Home(self.store, self.index)
        if not wanted.is_campaign:
            job = home.prepare(asked.spec, asked.slices, asked.max_gap)
            wanted = msgspec.structs.replace(wanted, spec=job.spec)
            return Ready(asked.kind, wanted, job.job_id, job.spec, job.data_digest, [job])
        campaign = prepare_campaign(self.index, wanted)
        for job in campaign.jobs:
            home.check_gaps(job.spec, asked.max_gap)
        return Ready(asked.kind, wanted, campaign.job_id, campaign.spec, campaign.data_digest, campaign.jobs)

    # -- jobs ------------------------------------------------------------------------------------------------------

    async def known_job(self, job_id: str) -> JobRow:
        """Raises UnknownName."""
        row = await self.job(job_id)
        if row is None:
            raise UnknownName("job", job_id, [], "GET /api/v1/backtests lists them")
        return row

    def progress(self, row: JobRow) -> Progress:
        """Blocking. A job that ran here, and does no more, has ended since the row was read: it does not go back to
        what was written of its tasks on the way."""
        if not row.finished and self._live is not None:
            found = self._live(row.job_id)
            if found is not None:
                return found
            row = self.store.job(row.job_id) or row
        return self.store.progress(row)

    def result(self, job_id: str) -> ResultRow | None:
        """Blocking. The newest result of a job id: it does not change, but may have been removed a moment ago."""
        until, row = self._results.get(job_id) or (0.0, None)
        if row is None or time.monotonic() > until:
            row = next(iter(self.store.results([job_id])), None)
            if row is not None:
                self._results.put(job_id, (time.monotonic() + FINISHED_SECONDS, row))
        return row

    def forget(self, job_id: str) -> None:
        self._finished.drop(job_id)
        self._results.drop(job_id)

    def kept(self, tag: str) -> bytes | None:
        """An answer that was given before, and cannot have changed."""
        return self._kept.get(tag)

    def keep(self, tag: str, answer: bytes) -> None:
        if len(answer) <= KEPT_BYTES:
            self._kept.put(tag, answer)

    def _done(self, job_id: str) -> JobRow | None:
        """A finished job that was looked at a moment ago: it does not change, but may have been removed."""
        until, row = self._finished.get(job_id) or (0.0, None)
        return row if time.monotonic() < until else None

    def _jobs(self, ids: list[str]) -> list[JobRow | None]:
        known = {one: row for one in ids if (row := self._done(one)) is not None}
        wanted = [one for one in dict.fromkeys(ids) if one not in known]
        found = self.store.job_rows(wanted) if wanted else {}
        for row in found.values():
            if row.state == "done":
                self._finished.put(row.job_id, (time.monotonic() + FINISHED_SECONDS, row))
        return [known.get(one) or found.get(one) for one in ids]

    def _ready(self, asked: list[None]) -> list[None]:
        """Whether the database answers. Raises StoreDown."""
        self.store.now_ns()
        return asked

    async def ask(self, ready: Ready) -> Answer:
        """Have a job run, unless it is done or under way."""
        done = None if ready.wanted.fresh else self._done(ready.job_id)
        answer = await self._asking((ready, tracing.current())) if done is None else Answer(done.state)
        if answer.state == "done":
            telemetry.CACHE.add("job", "hit")
        return answer

    def _ask(self, asked: list[tuple[Ready, str]]) -> list[Answer]:
        """Have jobs run that are not done or under way; the state of each. All are looked for at once, told to the
        store at once and then published: a job of which nothing is heard after that is found and asked for again."""
        rows = self._jobs([ready.job_id for ready, _ in asked])
        known = {row.job_id: row for row in rows if row is not None}
        new: dict[str, JobRow] = {}
        published = []
        for ready, traceparent in asked:
            name, wanted = ready.job_id, ready.wanted
            row = new.get(name) or known.get(name)
            if row is not None and (not row.finished or (row.state == "done" and not wanted.fresh)):
                continue
            row = states.accepted(name, ready.spec, ready.data_digest, wanted, row, clock_ms())
            new[name] = row
            wanted = msgspec.structs.replace(wanted, attempt=row.attempt)
            event = events.make("gateway", events.REQUESTED, name, wanted)
            published.append(msgspec.structs.replace(event, traceparent=traceparent))
            self.forget(name)
        reused = self._reused([ready for ready, _ in asked if ready.job_id in new])
        if new:
            self.store.put_jobs(list(new.values()))
            self._publish(published)
        return [
            Answer((new.get(ready.job_id) or known[ready.job_id]).state, reused.get(ready.job_id)) for ready, _ in asked
        ]

    def _reused(self, asked: list[Ready]) -> dict[str, Reuse]:
        """What is known of jobs that are about to run, by job id; runs of one set are looked up together."""
        found: dict[str, Reuse] = {}
        alone: dict[str, dict[str, tuple[Ready, Addresses, dict[int, SetAddress]]]] = {}
        for ready in asked:
            (job, *more) = ready.jobs
            if job.spec.grid or more:
                if (of_many := self.reuse(ready)) is not None:
                    found[ready.job_id] = of_many
                continue
            addresses = Addresses(job.spec, ground_of(self.index, job.spec))
            alone.setdefault(addresses.code, {})[ready.job_id] = (ready, addresses, addresses.sets(0, 1))
        for code, group in alone.items():
            keys = [address.key for _, _, sets in group.values() for address in sets.values()]
            slices = self.store.known_slices(keys, code)
            for name, (ready, addresses, sets) in group.items():
                found[name] = reuse_of(ready.jobs[0].plan, Known(addresses, sets, slices), None)
        return found

    def reuse(self, ready: Ready) -> Reuse | None:
        """What is known of a job, and why the rest is not; None for what is too large to be looked up. Blocking."""
        if len(ready.jobs) > JOBS_LOOKED_UP:
            return None
        found = []
        for job in ready.jobs:
            plan, known = look_up(self.index, self.store, job.spec, job.plan, cutting=True)
            if known is None:
                return None
            found.append(reuse_of(plan, known, self.store))
        return Reuse(
            sum(one.slices for one in found),
            sum(one.reused_slices for one in found),
            sum(one.outcomes for one in found),
            sum(one.reused_outcomes for one in found),
            [missing for one in found for missing in one.missing],
        )
