"""The exactness law (SEMANTICS section 8): one job, one result, however it is cut, ordered, repeated or compiled."""

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import candlemill
import msgspec
import pytest
from candlemill.backtests import spec_rules, states
from candlemill.backtests.plan import Plan
from candlemill.backtests.result import compounded
from candlemill.backtests.slice import SliceWindow, run_slice, summary_of
from candlemill.backtests.spec import Spec
from candlemill.engine import simulate
from candlemill.engine.compiled import COMPILED
from candlemill.engine.summary import Summary
from candlemill.errors import CandlemillError, TooLarge
from candlemill.pipeline.cache_keys import CacheKeys, job_data
from candlemill.pipeline.outcomes import outcomes_of
from candlemill.pipeline.rows import OutcomeRow
from candlemill.strategies import REGISTERED
from candlemill.strategies.registry import ORDER_STRATEGIES, PANEL_STRATEGIES
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st
from slow_accounts import compound_backtest, disagreements, sized_backtest
from slow_engine import DAY, STRATEGIES, Bar, backtest
from world import FIRST_DAY, PARAMS, Market, World, daily_of, jobs, markets, specs

THOROUGH = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
BRIEF = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


COSTS = ("fee", "maker_fee", "slippage", "stop_loss", "take_profit", "trailing_stop")


def expected(market: Market, spec: Spec) -> dict[str, Any]:
    """What the reference makes of a job."""
    names = [*COSTS, "fill", "timeframe", "capital", "start", "end", "strategy", "params"]
    job: dict[str, Any] = {name: getattr(spec, name) for name in names}
    job["funding"] = market.funding if spec.funding else ()
    if spec.sizing == "compound":
        return compound_backtest(market.bars, **job)
    limits = {"volume_share": spec.volume_share, "volume_scale": market.volume_scale}
    if spec.sizing == "notional":
        return sized_backtest(market.bars, notional=spec.notional, **limits, **job)
    if spec.volume_share:
        return sized_backtest(market.bars, quantity=spec.quantity, **limits, **job)
    return backtest(market.bars, quantity=spec.quantity, **job)


Answer = list[dict[str, Any]] | None


def answer(market: Market, spec: Spec, slices: int = 1, rng: random.Random | None = None) -> Answer:
    """The results, or None where they are refused: a compound account may grow beyond 64 bits."""
    try:
        return market.world().run(spec, slices, rng)
    except CandlemillError:
        return None


def only(results: Answer) -> dict[str, Any] | None:
    """The one result; with it, `daily` are its daily profits, or returns."""
    if results is None:
        return None
    (result,) = results
    return {**result, "daily": daily_of(result)[1]}


def bits(results: Answer) -> object:
    """What must not differ between two ways to one result."""
    return results and sorted((result["job_id"], result["result_digest"], result["daily"]) for result in results)


def check(result: dict[str, Any] | None, market: Market, spec: Spec) -> None:
    """The result and its daily profits are the reference's."""
    wanted = expected(market, spec)
    if result is None:
        assert max(map(abs, [wanted["total_pnl"], *wanted["daily"]])) >= 2**62
    else:
        assert disagreements(result, wanted) == {}
        compound = spec.sizing == "compound"
        profits = compounded(result["daily"], wanted["capital"]) if compound else result["daily"]
        assert sum(profits) == result["total_pnl"]


@pytest.fixture(autouse=True, params=[4_320, 3], ids=["long-warm-up", "short-warm-up"])
def warm_up(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With three bars of warm-up most guesses about stops are wrong: repairs are what is tested then."""
    monkeypatch.setattr(spec_rules, "WARM_UP_BARS", request.param)
    if request.param == 3:
        monkeypatch.setattr(spec_rules, "WARM_UP_LIMIT", 3)


def test_every_strategy_is_in_these_tests() -> None:
    others = ORDER_STRATEGIES | PANEL_STRATEGIES  # those: tests/engine/test_decide.py, tests/backtests/test_panel.py
    assert set(PARAMS) == set(STRATEGIES) == set(REGISTERED) - others


@given(jobs())
@THOROUGH
def test_uncut_run_equals_the_reference(job: tuple[Market, Spec]) -> None:
    market, spec = job
    check(only(answer(market, spec)), market, spec)


@given(jobs(), st.integers(2, 8), st.integers(0, 2**32))
@THOROUGH
def test_any_cut_in_any_order_equals_the_uncut_run(job: tuple[Market, Spec], slices: int, seed: int) -> None:
    market, spec = job
    note(f"seed {seed}")
    assert bits(answer(market, spec, slices, random.Random(seed))) == bits(answer(market, spec))


@given(st.data(), st.integers(1, 6), st.integers(0, 2**32))
@BRIEF
def test_a_sweep_gives_each_set_the_result_it_has_alone(data: st.DataObject, slices: int, seed: int) -> None:
    market = data.draw(markets(120))
    spec = data.draw(specs(market).filter(lambda s: s.strategy == "sma_cross"))
    grid: dict[str, list[int | float | bool | str]] = {
        "fast": [1, 2, 3, 5],
        "slow": [2, 4, 6],
        "allow_short": [False, True],
    }
    swept = Spec(**{**{f: getattr(spec, f) for f in spec.__struct_fields__}, "params": {}, "grid": grid})
    results = answer(market, swept, slices, random.Random(seed))
    if results is None:
        event("refused")
        return
    assert len(results) == 2 * sum(1 for fast in grid["fast"] for slow in grid["slow"] if fast < slow)  # type: ignore[operator]
    for result in results:
        assert bits([result]) == bits(answer(market, spec.single(result["params"])))


@given(jobs(), st.data())
@BRIEF
def test_summaries_merge_in_any_tree(job: tuple[Market, Spec], data: st.DataObject) -> None:
    market, spec = job
    world = market.world()
    with suppress(CandlemillError):  # of a result too large: its parts are there all the same
        world.run(spec, slices=8)
    parts = _chain(world, spec)
    while len(parts) > 1:
        k = data.draw(st.integers(0, len(parts) - 2))
        parts[k : k + 2] = [parts[k].merge(parts[k + 1])]
    whole = market.world()
    with suppress(CandlemillError):
        whole.run(spec, slices=1)
    assert parts[0].to_list() == _chain(whole, spec)[0].to_list()
    assert parts[0].merge(Summary()).to_list() == Summary().merge(parts[0]).to_list() == parts[0].to_list()


def _chain(world: World, spec: Spec) -> list[Summary]:
    """The summaries of a finished job's slices, each from its true start."""
    ((job_id, row),) = world.jobs.items()
    plan, spec = msgspec.json.decode(row.plan, type=Plan), msgspec.json.decode(row.spec, type=Spec)
    cache_keys = CacheKeys(spec, job_data(world, spec))
    outcomes = outcomes_of(cache_keys, cache_keys.sets(0, 1), plan.cuts, world)
    state, parts = states.COLD, []
    for number in range(plan.slices):
        outcome = outcomes.find(0, number, states.digest_of(state))
        assert outcome is not None, job_id
        parts.append(summary_of(outcome))
        state = outcome.end.encode()
    return parts


@given(jobs(), st.integers(1, 6))
@BRIEF
def test_no_slice_depends_on_later_days(job: tuple[Market, Spec], days: int) -> None:
    """The same law catches look-ahead: with other candles from some midnight on, the slices before it are the same."""
    market, spec = job
    midnight = FIRST_DAY + days * DAY
    if spec.timeframe > 1 and 1440 % spec.timeframe:
        return  # a k-bar that spans midnight may well differ
    altered = [bar if bar.t < midnight else Bar(bar.t, 7, 9, 5, 7, 0) for bar in market.bars]
    rates = [(t, rate if t < midnight else 5) for t, rate in market.funding]
    later = Market(altered, rates, market.volume_scale)
    assert _outcomes(market.world(), spec, midnight) == _outcomes(later.world(), spec, midnight)


def _outcomes(world: World, spec: Spec, midnight: int) -> dict[int, OutcomeRow]:
    """What the tasks of slices that end at `midnight` or earlier found first, with every day a slice."""
    with suppress(CandlemillError):
        world.run(spec, slices=len(world.days("X")))
    return {row.start_ms: row for row in world.kept.values() if row.guessed and row.end_ms <= midnight}


def test_sums_beyond_64_bits_take_more_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that could overflow is cut at its changes; the merged passes are the one pass."""
    bars = [b for k in range(600) for b in [_alternating(k)]]
    spec = Spec(symbol="X", account="units", strategy="momentum_v1", start=bars[0].t, end=bars[-1].t + 60_000,
                params={"lookback": 1, "threshold": 0, "allow_short": True}, stop_loss=1_000, timeframe=1)  # fmt: skip
    assert simulate.EQUITY_LIMIT == 1 << 61
    found = only(World(bars).run(spec))
    check(found, Market(bars), spec)
    assert found and abs(found["total_pnl"]) > 2**61 // 100


def _alternating(k: int) -> Bar:
    price = (k % 3 + 1) * 10**15
    return Bar(1_609_459_200_000 + k * 60_000, price, price + 5, price - 5, price + (-1) ** k, 0)


PURE = """
import json, pickle, sys
from candlemill.engine.compiled import COMPILED
from test_exactness import answer, bits
assert not COMPILED
cases = pickle.load(sys.stdin.buffer)
print(json.dumps([bits(answer(*case)) for case in cases]))
"""


def test_compiled_and_pure_engines_agree(tmp_path: Path) -> None:
    """The same jobs in a process whose engine is interpreted from the same sources."""
    if not COMPILED:
        pytest.skip("this build is pure Python: nothing to compare with")
    source = Path(candlemill.__file__).parent
    shutil.copytree(source, tmp_path / "candlemill", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    cases = _sample(90)
    tests = Path(__file__).parents[1]
    path = os.pathsep.join(map(str, (tmp_path, Path(__file__).parent, tests, tests / "support", tests.parent)))
    done = subprocess.run(
        [sys.executable, "-c", PURE], input=pickle.dumps(cases), env={**os.environ, "PYTHONPATH": path},
        capture_output=True, timeout=300, check=True,
    )  # fmt: skip
    for case, pure in zip(cases, json.loads(done.stdout), strict=True):
        assert json.loads(json.dumps(bits(answer(*case)))) == pure


def _sample(count: int) -> list[tuple[Market, Spec, int]]:
    """Some jobs, the same every time."""
    found: list[tuple[Market, Spec, int]] = []

    @given(jobs(), st.integers(1, 6))
    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    def collect(job: tuple[Market, Spec], slices: int) -> None:
        found.append((*job, slices))

    collect()
    return found


def test_window_is_what_a_task_sees() -> None:
    """A task of no bars hands on the state it was given and adds nothing."""
    world = World([_alternating(k) for k in range(3)])
    spec = Spec(
        symbol="X",
        strategy="buy_and_hold",
        params={},
        start=1_609_459_200_000,
        end=1_609_459_200_000 + 86_400_000,
        account="units",
    )
    window: SliceWindow = world.runtime.candles.window(
        spec, spec.end, spec.end + 86_400_000, 10, ("t", "open", "close")
    )
    from candlemill.strategies import build

    (outcome,) = run_slice(spec, window, [(0, build("buy_and_hold", {}))], {0: b"1,1,0,0,0,0|"}).outcomes
    assert outcome.end == "1,1,0,0,0,0|"
    assert summary_of(outcome).bars == 0


def test_a_volume_that_no_sum_can_carry_is_refused_in_one_line() -> None:
    bars = [Bar(_alternating(k).t, 1, 1, 1, 1, 2**62) for k in range(3)]
    spec = Spec(symbol="X", account="units", strategy="buy_and_hold", params={}, start=bars[0].t,
                end=bars[-1].t + 60_000, volume_share=1, timeframe=5)  # fmt: skip
    with pytest.raises(TooLarge, match="of 5 minutes does not fit"):
        World(bars).run(spec)
