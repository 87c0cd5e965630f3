"""Nothing is computed twice: whatever changes between jobs, only what is new is computed, and every bit is the same."""

import random
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from candlemill import execution, service, work
from candlemill.addresses import Addresses, ground_of
from candlemill.errors import CandlemillError
from candlemill.ledger import OutcomeRow
from candlemill.model import Spec, grid_points, job_id
from candlemill.plan import Plan
from candlemill.work import COLD, digest_of
from hypothesis import HealthCheck, assume, event, given, note, settings
from hypothesis import strategies as st
from reference import DAY, MINUTE, Bar
from world import FIRST_DAY, Market, World, markets, specs

SHIFT = 178 * DAY  # the fourth day is 2021-07-01, where the calendar cuts
FIRST = FIRST_DAY + SHIFT
DAYS = 7
Address = tuple[str, str, str, str]


class Computed:
    """How many outcomes are computed while it is in place."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = execution.run_task

        def counting(*arguments: Any) -> work.Done:
            done = real(*arguments)
            self.count += len(done.outcomes)
            return done

        monkeypatch.setattr(execution, "run_task", counting)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> Computed:
    return Computed(monkeypatch)


def shifted(market: Market, spec: Spec) -> tuple[Market, Spec]:
    """The same half a year later."""
    bars = [replace(bar, t=bar.t + SHIFT) for bar in market.bars]
    funding = [(t + SHIFT, rate) for t, rate in market.funding]
    spec = msgspec.structs.replace(spec, start=spec.start + SHIFT, end=spec.end + SHIFT)
    return Market(bars, funding, market.volume_scale), spec


def digests(world: World, spec: Spec) -> dict[str, str]:
    """What the world has of a job's sets."""
    digest = ground_of(world, spec).digest
    ids = [job_id(spec.single(params), digest) for _, params, _ in grid_points(spec, 0, spec.combinations)]
    return {one: world.results[one]["result_digest"] for one in ids}


def needed(world: World, spec: Spec) -> set[Address]:
    """The addresses of a finished job's chains: each set's outcome of each slice from its true start."""
    row = world.jobs[job_id(spec, ground_of(world, spec).digest)]
    cuts = msgspec.json.decode(row.plan, type=Plan).cuts
    addresses = Addresses(spec, ground_of(world, spec))
    found: set[Address] = set()
    for address in addresses.sets(0, spec.combinations).values():
        state = COLD
        for start, end in pairwise(cuts):
            at = (address.key, addresses.code, addresses.place(start, end, address.context).key, digest_of(state))
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
        spec = service.prepare(world, spec, slices).spec
        fresh.run(spec, 1)
    except CandlemillError:
        return None
    computed.count = 0
    world.run(spec, slices, rng)
    assert digests(world, spec) == digests(fresh, spec)
    return spec


@st.composite
def weeks(draw: st.DrawFn) -> Market:
    """Some bars on most days of a week: slices of days are told apart by what they look back at."""
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
        patch.setattr(work, "WARM_UP_BARS", warm_up)
        patch.setattr(work, "WARM_UP_LIMIT", warm_up)
        computed = Computed(patch)
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
            new = world.kept.keys() - before
            assert computed.count == len(new), "computed twice"
            event(f"{change}: {'new' if new else 'nothing new'}")
            if warm_up > 3 and new:
                assert new == needed(world, ran) - before


# -- addresses ---------------------------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_one_address_has_one_outcome_whoever_computes_it(data: st.DataObject) -> None:
    """Jobs over other ranges and other candles, each in a world of its own that knows of none of the others. Long bars
    of decision reach over slices and over the ends of jobs."""
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
        world = other.world()
        with suppress(CandlemillError):
            world.run(msgspec.structs.replace(spec, start=start, end=end), DAYS)
        same = world.kept.keys() & kept.keys()
        event(f"same addresses: {bool(same)}")
        for key in same:
            assert msgspec.structs.replace(world.kept[key], guessed=kept[key].guessed) == kept[key]
        kept |= world.kept
