"""Nothing is computed twice: whatever changes between jobs, only what is new is computed, and every bit is the same."""

import random
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from candlemill.backtests import slice, spec_rules
from candlemill.backtests.grid import grid_points
from candlemill.backtests.identity import job_id
from candlemill.backtests.plan import Plan
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.backtests.states import COLD, digest_of
from candlemill.errors import CandlemillError
from candlemill.pipeline import aggregate, events, execute, prefix, prepare, split
from candlemill.pipeline.cache_keys import CacheKeys, job_data
from candlemill.pipeline.reuse import explain
from candlemill.pipeline.rows import OutcomeRow
from hypothesis import HealthCheck, assume, event, given, note, settings
from hypothesis import strategies as st
from slow_engine import DAY, MINUTE, Bar
from world import FIRST_DAY, HANDLERS, Market, World, markets, specs

SHIFT = 178 * DAY  # the fourth day is 2021-07-01, where the calendar cuts
FIRST = FIRST_DAY + SHIFT
DAYS = 7
Address = tuple[str, str, str, str]


class Computed:
    """How many outcomes are computed while it is in slice_key."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = execute.run_slice

        def counting(*arguments: Any) -> slice.SliceOutcomes:
            done = real(*arguments)
            self.count += len(done.outcomes)
            return done

        monkeypatch.setattr(execute, "run_slice", counting)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Computed:
    return Computed(monkeypatch)


def short_prefixes(patch: pytest.MonkeyPatch, world: World) -> set[Address]:
    """Keep merged prefixes from two slices on, with any end. Return the addresses of those that will be kept, without
    those that a slice already has: with empty slices beside it, one can be a prefix too."""
    found: set[Address] = set()
    real = aggregate.prefix_rows

    def keeping(*arguments: Any) -> list[OutcomeRow]:
        rows = real(*arguments)
        addresses = {(row.set_key, row.code, row.slice_key, row.start_state) for row in rows}
        found.update(addresses - world.kept.keys())
        return rows

    patch.setattr(prefix, "PREFIX_SLICES", 2)
    patch.setattr(prefix, "_is_month_start", lambda ms: True)
    patch.setattr(aggregate, "prefix_rows", keeping)
    return found


def shifted(market: Market, spec: Spec) -> tuple[Market, Spec]:
    """The same half a year later."""
    bars = [replace(bar, t=bar.t + SHIFT) for bar in market.bars]
    funding = [(t + SHIFT, rate) for t, rate in market.funding]
    spec = msgspec.structs.replace(spec, start=spec.start + SHIFT, end=spec.end + SHIFT)
    return Market(bars, funding, market.volume_scale), spec


def digests(world: World, spec: Spec) -> dict[str, str]:
    """What the world has of a job's sets."""
    digest = job_data(world, spec).digest
    ids = [job_id(spec.single(params), digest) for _, params, _ in grid_points(spec, 0, spec.combinations)]
    return {one: world.results[one]["result_digest"] for one in ids}


def needed(world: World, spec: Spec) -> set[Address]:
    """The addresses of a finished job's chains: each set's outcome of each slice from its true start."""
    row = world.jobs[job_id(spec, job_data(world, spec).digest)]
    cuts = msgspec.json.decode(row.plan, type=Plan).cuts
    cache_keys = CacheKeys(spec, job_data(world, spec))
    found: set[Address] = set()
    for set_key in cache_keys.sets(0, spec.combinations).values():
        state = COLD
        for start, end in pairwise(cuts):
            at = (set_key.key, cache_keys.code, cache_keys.slice_key(start, end, set_key.context).key, digest_of(state))
            found.add(at)
            state = world.kept[at].end_state.encode()
    return found


# -- anything, in any order --------------------------------------------------------------------------------------------

GRIDS: list[dict[str, list[Any]]] = [
    {"fast": [1, 3]},
    {"fast": [1, 2, 3, 5], "slow": [6, 9]},
    {"fast": [2, 3], "slow": [9]},
]


SMA: dict[str, Any] = {"fast": 4, "slow": 8, "allow_short": False}


def changed_range(draw: Any, market: Market, spec: Spec) -> Spec:
    """Other ends: midnights, or within a day."""
    cuts = [FIRST + k * DAY for k in range(DAYS + 1)]
    cuts = draw(st.sampled_from([cuts, cuts, [bar.t for bar in market.bars[:: max(1, len(market.bars) // 5)]]]))
    start, end = sorted(draw(st.tuples(st.sampled_from(cuts), st.sampled_from(cuts))))
    return msgspec.structs.replace(spec, start=start, end=end) if start < end else spec


def changed_bars(draw: Any, market: Market) -> Market:
    """Another close, or a bar less."""
    k = draw(st.integers(0, len(market.bars) - 1))
    bar = market.bars[k]
    close = draw(st.sampled_from([bar.low, bar.high, None]))
    other = [] if close is None else [Bar(bar.t, bar.open, bar.high, bar.low, close, bar.volume)]
    bars = market.bars[:k] + other + market.bars[k + 1 :]
    return Market(bars or market.bars, market.funding, market.volume_scale)


def changed_sets(draw: Any, spec: Spec) -> Spec:
    """Another grid; or what multiplies results only."""
    if spec.strategy == "sma_cross" and draw(st.booleans()):
        grid = draw(st.sampled_from(GRIDS))
        params = {
            name: value for name, value in {"fast": 4, "slow": 8, "allow_short": False}.items() if name not in grid
        }
        return msgspec.structs.replace(spec, params=params, grid=grid)
    if spec.sizing == "fixed":
        return msgspec.structs.replace(spec, quantity=draw(st.sampled_from([1, 10**8, 77])))
    return msgspec.structs.replace(spec, capital=draw(st.sampled_from([10**9, 10**12])))


def run_both(
    world: World, spec: Spec, slices: int | None, rng: random.Random | None, computed: Computed
) -> Spec | None:
    """Run a job in a world that has seen others and, uncut, in a new one: the same bits. The spec
    as it was run, None where it is refused."""
    fresh = World([], [], world._volume_scale)
    fresh.columns, fresh._days, fresh._funding = world.columns, world._days, world._funding
    try:
        spec = prepare.prepare(world, spec, slices).spec
        fresh.run(spec, 1)
    except CandlemillError:
        return None
    computed.count = 0
    world.run(spec, slices, rng)
    assert digests(world, spec) == digests(fresh, spec)
    return spec


@st.composite
def weeks(draw: st.DrawFn) -> Market:
    """Some bars on most days of a week: slices of days are distinguished by what they look back at."""
    rng = draw(st.randoms(use_true_random=False))
    some = draw(st.sampled_from([3, 12, 30]))
    price, bars = 50, []
    for day in range(DAYS):
        for minute in sorted(rng.sample(range(1440), rng.choice([0, 1, some, some, some]))):
            opened, price = price, min(99, max(1, price + rng.randint(-9, 9)))
            high, low = max(opened, price) + rng.choice([0, 5]), max(1, min(opened, price) - rng.choice([0, 5]))
            bars.append(Bar(FIRST_DAY + day * DAY + minute * MINUTE, opened, high, low, price, rng.randint(0, 10**9)))
    assume(bars)
    funding = [(FIRST_DAY + k * DAY // 3, rng.choice([10_000, -77_777])) for k in range(3 * DAYS)]
    return Market(bars, funding)


@pytest.mark.parametrize("warm_up", [4_320, 3], ids=["long-warm-up", "short-warm-up"])
@given(st.data())
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_only_what_is_new_is_computed_and_all_bits_are_the_same(warm_up: int, data: st.DataObject) -> None:
    """With the long warm-up every guess is right: what is computed is then exactly what the job's own chain lacks."""
    drawn = data.draw(weeks() | markets(200))
    market, spec = shifted(drawn, data.draw(specs(drawn)))
    if data.draw(st.booleans()):
        spec = msgspec.structs.replace(spec, strategy="sma_cross", params=SMA)
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    world = market.world()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spec_rules, "WARM_UP_BARS", warm_up)
        patch.setattr(spec_rules, "WARM_UP_LIMIT", warm_up)
        computed, merged = Computed(patch), short_prefixes(patch, world)
        for _ in range(data.draw(st.integers(2, 6))):
            change = data.draw(st.sampled_from(["range", "range", "candles", "sets", "costs"]))
            if change == "range":
                spec = changed_range(data.draw, market, spec)
            elif change == "candles":
                market = changed_bars(data.draw, market)
                world.store(market.bars)
            elif change == "sets":
                spec = changed_sets(data.draw, spec)
            else:
                spec = msgspec.structs.replace(spec, slippage=data.draw(st.sampled_from([0, 1_000, 20_000])))
            slices = data.draw(st.sampled_from([None, None, DAYS, DAYS, DAYS, 3]))
            note(f"{change} {slices} {spec}")
            before, computed.count = set(world.kept), 0
            ran = run_both(world, spec, slices, data.draw(st.sampled_from([None, rng])), computed)
            if ran is None:
                continue
            new = world.kept.keys() - before - merged
            event(f"a prefix is read: {not merged.isdisjoint(needed(world, ran))}")
            assert computed.count == len(new), "computed twice"
            event(f"{change}: {'new' if new else 'nothing new'}")
            if warm_up > 3 and new:
                assert new == needed(world, ran) - before


# -- addresses ---------------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_one_address_has_one_outcome_whoever_computes_it(data: st.DataObject) -> None:
    """Jobs over other ranges and other candles, each in a world of its own that knows of none of the others. Long bars
    of decision reach over slices and over the ends of jobs. A merged prefix is what one slice would be."""
    market = data.draw(weeks())
    spec = data.draw(specs(market))
    spec = msgspec.structs.replace(spec, timeframe=data.draw(st.sampled_from([spec.timeframe, 1, 600, 1441])))
    kept: dict[Address, OutcomeRow] = {}
    for _ in range(5):
        bars = market.bars
        starts = [FIRST_DAY, FIRST_DAY + DAY, *(bar.t for bar in bars[:8])]
        ends = [FIRST_DAY + DAYS * DAY, FIRST_DAY + (DAYS - 1) * DAY, *(bar.t + MINUTE for bar in bars[-8:])]
        start, end = data.draw(st.sampled_from(starts)), data.draw(st.sampled_from(ends))
        other = changed_bars(data.draw, market) if data.draw(st.booleans()) else market
        if start >= end:
            continue
        world, slices = other.world(), data.draw(st.sampled_from([DAYS, DAYS, 1]))
        with suppress(CandlemillError), pytest.MonkeyPatch.context() as patch:
            short_prefixes(patch, world)
            world.run(msgspec.structs.replace(spec, start=start, end=end), slices)
        same = world.kept.keys() & kept.keys()
        event(f"same addresses: {bool(same)}")
        for key in same:
            assert msgspec.structs.replace(world.kept[key], guessed=kept[key].guessed) == kept[key]
        kept |= world.kept


# -- what must not be found --------------------------------------------------------------------------------------------


def walk(days: int, per_day: int = 3, seed: int = 5) -> list[Bar]:
    """Some bars on each day from the first on."""
    rng, price, bars = random.Random(seed), 10**10, []
    for k in range(days * per_day):
        opened, price = price, price + rng.randint(-(10**8), 10**8)
        t = FIRST_DAY + k // per_day * DAY + k % per_day * 5 * MINUTE
        bars.append(Bar(t, opened, max(opened, price), min(opened, price), price, 10**8))
    return bars


def sma(days: int, **rest: Any) -> Spec:
    params: dict[str, Any] = {} if "grid" in rest else SMA
    return resolve(
        symbol="X",
        strategy="sma_cross",
        span=(FIRST_DAY, FIRST_DAY + days * DAY),
        params=params,
        **{"account": "units"} | rest,
    )


def run_counted(world: World, spec: Spec, computed: Computed, slices: int | None = None) -> int:
    """Run a job: how many outcomes were computed for it."""
    computed.count = 0
    world.run(spec, slices)
    return computed.count


def test_other_code_finds_nothing(computed: Computed, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(walk(20))
    assert run_counted(world, sma(20), computed, 5) == 5
    assert run_counted(world, sma(20, quantity=7), computed, 5) == 0
    assert run_counted(world, sma(20, capital=10**12), computed, 5) == 0
    assert reasons(world, sma(20, capital=10**13), 5) == []
    for name in (
        "candlemill.backtests.identity.code_digest",
        "candlemill.backtests.identity.source_digest",
    ):  # the engine's, and a plugin's own
        with monkeypatch.context() as patch:
            patch.setattr(name, lambda *_: "another")
            assert reasons(world, sma(20), 5) == [(5, "other_code")]
            assert run_counted(world, sma(20), computed, 5) == 5
    assert run_counted(world, sma(20, fee=7), computed, 5) == 5


def reasons(world: World, spec: Spec, slices: int | None = None) -> list[tuple[int, str]]:
    """What a job would have to compute: in how many slices, and why."""
    spec = prepare.prepare(world, spec, slices).spec
    found = explain(world, world, spec, prepare.prepare(world, spec, slices).plan, slices)[1]  # type: ignore[arg-type]
    assert found is not None
    assert found.slices - found.reused_slices == sum(one.slices for one in found.missing)
    assert found.outcomes - found.reused_outcomes == sum(one.slices * one.sets for one in found.missing)
    return [(one.slices, one.reason) for one in found.missing]


def test_a_plan_says_why_what_is_not_known_is_not(computed: Computed) -> None:
    bars = walk(400)
    world = World(bars)
    assert reasons(world, sma(380)) == [(3, "new_set")]
    world.run(sma(380))
    assert reasons(world, sma(380)) == []
    assert reasons(world, sma(381)) == [(1, "new_range")]
    assert reasons(world, sma(380, slippage=5)) == [(3, "new_set")]
    grid = {"fast": [4, 5], "slow": [8], "allow_short": [False]}
    assert reasons(world, sma(380, grid=grid)) == [(4, "new_range"), (1, "new_set")]  # quarters; one of two is known
    assert reasons(world, sma(380), 10) == [(10, "new_range")]
    world.store([replace(bars[600], low=5, close=5), *bars[:600], *bars[601:]])
    assert reasons(world, sma(380)) == [(1, "candles_changed")]
    assert run_counted(world, sma(380), computed) == 1


def test_a_range_that_grows_every_day_costs_little_and_stays_in_few_pieces(computed: Computed) -> None:
    world = World(walk(400, per_day=1))
    world.run(sma(182))
    total = 0
    for days in range(183, 400):  # from the first half-year's end to February after next
        count = run_counted(world, sma(days), computed)
        (row,) = [row for row in world.jobs.values() if row.spec == sma(days).to_json().decode()]
        cuts = msgspec.json.decode(row.plan, type=Plan).cuts
        assert count == 1, "the piece that ends today"
        assert len(cuts) - 1 <= 1 + 2 * 8, "each of two slices of 184 days that grow is in eight pieces at most"
        total += (cuts[-1] - cuts[-2]) // DAY
    assert total <= 217 * 5, "days that were computed, warm-ups apart"
    fresh = World(walk(400, per_day=1))
    fresh.run(sma(399), 1)
    assert digests(world, sma(399)) == digests(fresh, sma(399))


def test_a_run_of_its_own_neither_finds_nor_leaves_anything(computed: Computed) -> None:
    world = World(walk(20))
    world.run(sma(20), 5)
    kept = dict(world.kept)
    for requested in (events.Requested(sma(20), 5, fresh=True),) * 2:
        computed.count = 0
        queue = [events.make("test", events.REQUESTED, "", requested)]
        world.runtime = msgspec.structs.replace(world.runtime, clock_ms=lambda: 1_000 + len(world.kept))
        while queue:
            event = queue.pop(0)
            queue += HANDLERS[event.type](event, world.runtime) if event.type in HANDLERS else []
        assert computed.count == 5
    assert len(world.kept) == 3 * len(kept)
    assert reasons(world, sma(20, quantity=5), 5) == []


def test_what_was_computed_meanwhile_is_not_computed_again(computed: Computed) -> None:
    """Two jobs share slices and are requested at the same moment; and each task is delivered twice."""
    world = World(walk(20))
    first, second = (
        split.split(events.make("test", events.REQUESTED, "", events.Requested(sma(20, quantity=q), 5)), world.runtime)
        for q in (1, 2)
    )
    for requested in [*first, *second, *first]:
        execute.execute(requested, world.runtime)
    assert computed.count == 5


def test_sets_that_are_known_are_not_computed(world_of_sweeps: World, computed: Computed) -> None:
    """Each slice is a task for three of five sets."""
    grid = {"fast": [1, 2, 3, 4, 5], "slow": [8]}
    assert run_counted(world_of_sweeps, sma(20, grid=grid), computed, 4) == 12


@pytest.fixture
def world_of_sweeps() -> World:
    world = World(walk(20))
    world.run(sma(20, grid={"fast": [1, 3], "slow": [8]}), 4)
    return world
