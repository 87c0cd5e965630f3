"""Panels against the independent reference of tests/reference, to the last integer: random candles and real ones.

Strategies are the built-in ones and one that states random targets, shorts and reversals among them.
"""

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from candlemill.backtests.grid import parameters_of
from candlemill.backtests.spec import Spec
from candlemill.backtests.universe import parse_universe
from candlemill.errors import CandlemillError, TooLarge
from candlemill.strategies import build
from hypothesis import given, reject, settings
from panel_jobs import NAMES, Candles, SlowAnything, known, random_candles
from panel_world import PanelWorld
from reference.candles import DAY, MINUTE, SCALE, Bar, read
from reference.cash import run_cash
from test_independent_reference import COSTS, OF_CASH, SIZES, compared, of_cash, options_of

SPOT = Path(__file__).parents[3] / "shared/data/spot"
real_candles = pytest.mark.skipif(not SPOT.is_dir(), reason=f"no real candles at {SPOT}")
NO_RATES: dict[str, Any] = {}


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    with known():
        yield


# -- both implementations --------------------------------------------------------------------------------------------


def spec_of(candles: Candles, strategy: str, params: dict[str, int], **options: Any) -> Spec:
    times = [bar.t for bars in candles.values() for bar in bars]
    span = {"start": min(times) // DAY * DAY, "end": (max(times) // DAY + 1) * DAY}
    found = parameters_of(build(strategy, params))
    given_ = span | {"account": "cash"} | options
    return Spec(symbol=",".join(sorted(candles)), strategy=strategy, params=found, **given_)


def product(
    candles: Candles, spec: Spec, rates: Any = NO_RATES, slices: int | None = None, seed: int | None = None
) -> dict[str, Any]:
    """The result of the product's own handlers, cut and shuffled."""
    try:
        (found,) = PanelWorld(candles, rates).run(spec, slices, None if seed is None else random.Random(seed))
    except CandlemillError as error:
        assert isinstance(error, TooLarge) or "does not fit" in str(error), error
        reject()
    return found


def reference(candles: Candles, spec: Spec, rates: Any = NO_RATES) -> dict[str, Any]:
    options = options_of(spec, rates) | {"delist_after": spec.delist_after * MINUTE, "path": spec.path}
    if spec.universe:
        rule = parse_universe(spec.universe)
        options["universe"] = (
            {"names": rule.names} if rule.names else {"top": rule.top, "over": rule.over, "every": rule.every}
        )
    strategy = SlowAnything if spec.strategy == "anything" else spec.strategy
    return run_cash(candles, (strategy, spec.params), options)


def check(
    candles: Candles, spec: Spec, rates: Any = NO_RATES, slices: int | None = None, seed: int | None = None
) -> dict[str, Any]:
    """Every figure that both have, of the account and of each symbol. Returns the reference's."""
    found, wanted = product(candles, spec, rates, slices, seed), reference(candles, spec, rates)
    compared(found, wanted, OF_CASH)
    assert found["symbols"] == wanted["by_symbol"]
    return wanted


# -- random candles --------------------------------------------------------------------------------------------------

LENGTHS = st.integers(2, 9)
STRATEGIES = st.one_of(
    st.builds(lambda back, top, every: ("xs_momentum", {"lookback": back, "top": top, "every": every}),
              st.integers(1, 4), st.integers(1, 3), st.integers(1, 4)),
    st.builds(lambda n, exit, more: ("pair_reversion", {"length": n, "exit": exit, "entry": exit + more}),
              LENGTHS, st.integers(0, 99), st.integers(1, 100)),
    st.builds(lambda n, every, gross: ("inverse_volatility", {"length": n, "every": every, "gross": gross}),
              LENGTHS, st.integers(1, 4), st.sampled_from([10**6, 1_777_777, 3])),
    st.builds(lambda seed: ("anything", {"seed": seed}), st.integers(0, 10**6)),
)  # fmt: skip
UNIVERSES = st.one_of(
    st.just(""),
    st.just("AAA,CCC"),
    st.builds("top:{}:by=turnover:over={}d:every={}d".format, st.integers(1, 3), st.integers(1, 2), st.integers(1, 2)),
)
MILD = {
    "fee": st.sampled_from([0, 1_000, -100, 20_000]),
    "maker_fee": st.sampled_from([None, 300]),
    "slippage": st.sampled_from([0, 500]),
    "stop_loss": st.sampled_from([0, 30_000]),
    "take_profit": st.sampled_from([0, 40_000]),
    "trailing_stop": st.sampled_from([0, 50_000]),
    "fill": st.sampled_from(["next_open", "close"]),
    "path": st.sampled_from(["worst", "best"]),
    "timeframe": st.sampled_from([1, 1, 2, 7]),
    "capital": st.sampled_from([10**10, 10**12, 123_456_789_012]),
    "leverage": st.sampled_from([10**6, 3 * 10**6, 500_000]),
    "step": st.sampled_from([1, 1, 10**4, SCALE]),
    "min_quantity": st.sampled_from([0, 0, 10**5]),
    "min_notional": st.sampled_from([0, 0, 10**9]),
    "borrow": st.sampled_from([0, 300, 100_000]),
    "universe": UNIVERSES,
    "delist_after": st.sampled_from([1_440, 60, 3]),
}
WILD = st.tuples(st.fixed_dictionaries(COSTS), of_cash()).map(lambda two: two[0] | two[1])


@st.composite
def panels(draw: Any) -> tuple[Candles, Spec, dict[str, Any]]:
    """Candles, a job, and funding of some symbols."""
    strategy, params = draw(STRATEGIES)
    count = 2 if strategy == "pair_reversion" else draw(st.integers(1, 5))
    rng = draw(st.randoms(use_true_random=False))
    candles = random_candles(rng, count, draw(st.sampled_from([2, 13, 46, 90])))
    wild = draw(st.integers(0, 4)) == 0
    options = draw(WILD if wild else st.tuples(st.fixed_dictionaries(MILD), SIZES).map(lambda two: two[0] | two[1]))
    spec = spec_of(candles, strategy, params, **options)
    rates = {}
    if draw(st.booleans()):
        spec = msgspec.structs.replace(spec, funding=True)
        instants = st.integers(1_390 * MINUTE, min(1_600 * MINUTE, spec.end - spec.start - 1))
        paid = st.tuples(instants.map(lambda ms: spec.start + ms), st.sampled_from([10_000, -7_777, 3_000_000]))
        rates = {name: draw(st.lists(paid, min_size=1, max_size=3, unique_by=lambda one: one[0]).map(sorted))
                 for name in candles}  # fmt: skip
    return candles, spec, rates


@given(panels(), st.sampled_from([None, 2, 7]), st.integers(0, 99))
@settings(max_examples=120)
def test_random_panels(case: Any, slices: int | None, seed: int) -> None:
    check(*case, slices, seed)


@given(panels(), st.permutations(NAMES))
@settings(max_examples=40)
def test_names_change_nothing(case: Any, order: list[str]) -> None:
    """Other names put the symbols in another order. Left out is what may ask for names: ties, and lists of symbols."""
    candles, spec, rates = case
    others = dict(zip(NAMES, order, strict=True))
    params = parameters_of(build("anything", {"seed": spec.params.get("seed", 3)}))
    spec = msgspec.structs.replace(spec, strategy="anything", params=params, universe="")
    left = product(candles, spec, rates)
    renamed = {others[name]: bars for name, bars in candles.items()}
    other = msgspec.structs.replace(spec, symbol=",".join(sorted(renamed)))
    right = product(renamed, other, {others[name]: rows for name, rows in rates.items()}, 3, 1)
    assert {name: left[name] for name in OF_CASH} == {name: right[name] for name in OF_CASH}
    assert left["daily"] == right["daily"]
    assert {others[name]: figures for name, figures in left["symbols"].items()} == right["symbols"]


# -- real candles ----------------------------------------------------------------------------------------------------

REAL = ("BTCUSDT", "BTTUSDT", "DOGEUSDT", "ETHUSDT", "XRPUSDT", "BRDBTC", "NXSBTC")
OUTAGE = 1_619_323_260_000  # 2021-04-25 04:01, until 08:45; some symbols' last candle is a minute later
PAIR = ("BTTUSDT", "DOGEUSDT")
JOBS: dict[str, tuple[str, dict[str, int], dict[str, Any]]] = {
    "momentum": (
        "xs_momentum", {"lookback": 5, "top": 2, "every": 3}, {"timeframe": 7, "fill": "close", "step": 10**6},
    ),
    "momentum of a universe": (
        "xs_momentum", {"lookback": 10, "top": 3, "every": 5},
        {"universe": "top:3:by=turnover:over=1d:every=1d", "stop_loss": 4_000, "min_notional": 10 * SCALE},
    ),
    "pair": ("pair_reversion", {"length": 30, "entry": 150, "exit": 20}, {"borrow": 20_000, "slippage": 50}),
    "pair at the close": (
        "pair_reversion", {"length": 12, "entry": 120, "exit": 0},
        {"fill": "close", "timeframe": 5, "leverage": 3 * 10**6, "take_profit": 9_000},
    ),
    "volatility": ("inverse_volatility", {"length": 20, "every": 10, "gross": 1_500_000}, {"leverage": 2 * 10**6}),
    "anything": ("anything", {"seed": 1}, {"leverage": 5 * 10**6, "delist_after": 60, "trailing_stop": 6_000}),
    "anything at the close": ("anything", {"seed": 2}, {"fill": "close", "leverage": 2 * 10**6, "fee": -100}),
    "ruin": (
        "anything", {"seed": 3},
        {"leverage": 80 * 10**6, "size": "notional", "notional": 60_000 * SCALE, "min_quantity": 10**6},
    ),
}  # fmt: skip


@cache
def around_the_outage(name: str) -> list[Bar]:
    return [bar for bar in read(SPOT / f"{name}-1m-2021-04.zip") if abs(bar.t - OUTAGE) < 600 * MINUTE]


@real_candles
@pytest.mark.parametrize("name", JOBS)
def test_real_candles_over_an_outage(name: str) -> None:
    strategy, params, options = JOBS[name]
    candles = {one: around_the_outage(one) for one in (PAIR if strategy == "pair_reversion" else REAL)}
    spec = spec_of(candles, strategy, params, **options)
    wanted = check(candles, spec, slices=2, seed=5)
    assert wanted["fills"] > 20
    assert (wanted["ruined"] is not None) == (name == "ruin")
    whole, cut = (product(candles, spec, NO_RATES, slices, 1) for slices in (1, 3))
    assert (whole["result_digest"], whole["daily"]) == (cut["result_digest"], cut["daily"])
