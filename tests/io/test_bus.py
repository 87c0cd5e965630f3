"""Jobs of several threads with one store: done once, stopped, cancelled, and gone on with."""

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from candlemill import control, events, service, states
from candlemill.campaigns import prepare_campaign
from candlemill.errors import BadInput, Cancelled, CandlemillError, Stopped
from candlemill.events import Event, Requested
from candlemill.io.bus import Bus
from candlemill.io.campaigns import told
from candlemill.io.clock import clock_ms
from candlemill.io.jobs import Home
from candlemill.io.local import FrozenIndex
from candlemill.io.store import Store
from candlemill.io.tapes import Tapes
from candlemill.ledger import JobRow, Runtime
from candlemill.model import SCALE, Spec, WalkForward, resolve

DAY_MS = 86_400_000
SPAN = (1_706_486_400_000, 1_706_486_400_000 + 15 * DAY_MS)  # 2024-01-29 and on
WALK = WalkForward("3d", "2d")


@pytest.fixture
def store(database: Path) -> Iterator[Store]:
    with Store(f"chdb://{database}") as opened:
        yield opened


def spec(symbol: str = "AAAUSDT", **more: Any) -> Spec:
    given = {"params": {"fast": 5, "slow": 60}, "grid": {}, "span": SPAN, "symbol": symbol, **more}
    return resolve(strategy="sma_cross", **given)


def event_of(store: Store, request: Requested) -> Event:
    if request.is_campaign:
        name = prepare_campaign(FrozenIndex(store), request).job_id
    else:
        name = Home(store).prepare(request.spec, request.slices).job_id
    return events.make("test", events.REQUESTED, name, request)


def accepted(event: Event) -> JobRow:
    """The row that a gateway writes before it sends the event."""
    request = events.read(event, Requested)
    return states.accepted(event.partitionkey, request.spec, "", request, None, clock_ms() - 1)


def asked(slices: int = 4) -> list[Requested]:
    """Campaigns that share jobs, and jobs that are theirs too."""
    grid = {"fast": [5, 20], "slow": [60, 240]}
    both = {"AAAUSDT": SCALE, "BBBUSDT": SCALE}
    sweep = spec(params={}, grid=grid)
    return [
        Requested(spec(), slices),
        Requested(spec(), slices, weights=both),
        Requested(spec("BBBUSDT"), slices, weights={"BBBUSDT": SCALE, "AAAUSDT": SCALE}),
        Requested(sweep, slices),
        Requested(sweep, slices, walk_forward=WALK),
    ]


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often each task was run."""
    real, seen = service.execute, Counter[tuple[str, str]]()

    def counting(event: Event, runtime: Runtime) -> list[Event]:
        seen[event.partitionkey, event.id] += 1
        return real(event, runtime)

    monkeypatch.setattr(service, "execute", counting)
    return seen


def test_threads_share_what_they_want_alike(store: Store, tasks: Counter[tuple[str, str]]) -> None:
    """Everything asked for by three threads at once."""
    bus = Bus(store)
    wanted = [event_of(store, request) for request in asked()] * 3
    with ThreadPoolExecutor(5) as pool:
        rows = list(pool.map(bus.run, wanted))
    assert {row.state for row in rows} == {"done"} and len({row.job_id for row in rows}) == 5
    assert tasks and set(tasks.values()) == {1}
    assert bus.at_work() == frozenset() and store.unfinished_jobs() == []
    walk = told(store, next(row for row in rows if row.kind == "walk_forward"))
    assert set(walk) == {"sweep_id", "score", "folds", "result"} and len(walk["folds"]) == 3
    first, second = (row for row in rows[:5] if row.kind == "portfolio")
    assert told(store, first)["total_pnl"] == told(store, second)["total_pnl"] and first.job_id != second.job_id
    assert [entry.row.kind for entry in store.jobs()].count("backtest") == 3


def test_a_stopped_bus_leaves_jobs_that_the_next_one_ends(store: Store) -> None:
    stops = 0
    for event in [event_of(store, request) for request in asked()]:
        for _ in range(100):
            bus = Bus(store)
            try:
                row = bus.run(event, progress=lambda done, known, bus=bus: bus.stop())  # type: ignore[misc]
            except Stopped:
                stops += 1
                continue
            assert row.state == "done"
            break
    assert stops > 5 and store.unfinished_jobs() == []


def test_what_a_dead_process_left_is_found_and_ended(store: Store) -> None:
    """Rows as a process that was killed leaves them: accepted, planned, a campaign with some of its jobs."""
    runtime = Runtime(store, FrozenIndex(store), Tapes(store.days, store), clock_ms)
    for request in asked():
        for event in service.split(event_of(store, request), runtime)[:1]:
            if event.type == events.REQUESTED:
                service.split(event, runtime)
    bus = Bus(store)
    left = service.watch(runtime, clock_ms(), stall_ms=0)
    assert len(left) >= 3
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(bus.run, left))
    while left := service.watch(runtime, clock_ms(), stall_ms=0):  # campaigns whose jobs were under way
        for event in left:
            bus.run(event)
    assert {entry.row.state for entry in store.jobs()} == {"done"}


@pytest.mark.parametrize("kind", ["job", "portfolio"])
def test_cancelled_from_elsewhere_it_stops_soon(store: Store, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("candlemill.io.local.LOOK_SECONDS", 0.0)
    event = event_of(store, asked(8)[kind == "portfolio"])
    seen: list[int] = []

    def cancelling(done: int, known: int) -> None:
        seen.append(done)
        if len(seen) == 3:
            thread = threading.Thread(target=control.cancel, args=(event.partitionkey, store))
            thread.start()
            thread.join()

    store.put_job(accepted(event))
    with pytest.raises(Cancelled):
        Bus(store).run(event, progress=cancelling)
    assert len(seen) == 3
    assert {entry.row.state for entry in store.jobs()} == {"cancelled"}
    assert Bus(store).run(event).state == "done"


def test_a_part_that_fails_fails_the_whole_with_what_it_failed_of(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = service.execute

    def failing(event: Event, runtime: Runtime) -> list[Event]:
        if events.read(event, events.SliceRequested).spec.symbol == "BBBUSDT":
            raise BadInput("no such luck")
        return real(event, runtime)

    event = event_of(store, asked()[1])
    with monkeypatch.context() as patch:
        patch.setattr(service, "execute", failing)
        with pytest.raises(BadInput, match="no such luck"):
            Bus(store).run(event)
    row = store.job(event.partitionkey)
    assert row is not None and row.state == "failed" and row.reason.startswith("its backtest of BBBUSDT, job ")
    assert Bus(store).run(event).state == "done"


def test_how_far_it_is_can_be_looked_at_meanwhile(store: Store) -> None:
    bus, event, seen = Bus(store), event_of(store, asked()[1]), []

    def looking(done: int, known: int) -> None:
        found = bus.live(event.partitionkey)
        seen.append((done, known, found, len(bus.at_work())))

    bus.run(event, progress=looking)
    assert [done for done, _, _, _ in seen] == sorted(done for done, _, _, _ in seen)
    assert all(found is not None and (found.done, found.total) == (done, known) for done, known, found, _ in seen)
    assert {count for _, _, _, count in seen} == {2} and bus.live(event.partitionkey) is None


def test_candles_that_have_changed_since_fail_the_job_that_was_asked_for(store: Store) -> None:
    event = event_of(store, asked()[0])
    store.put_job(accepted(event))
    store.put_days({"AAAUSDT": [msgspec.structs.replace(store.days("AAAUSDT")[0], digest="0" * 64)]})
    with pytest.raises(CandlemillError, match="have changed since"):
        Bus(store).run(event)
    row = store.job(event.partitionkey)
    assert row is not None and row.state == "failed"
