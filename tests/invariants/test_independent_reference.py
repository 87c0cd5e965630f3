"""The product against the independent reference of tests/reference: one figure after the other, to the last integer.

The reference was written from the specification by somebody who has not read the engine. Here jobs go through the
product's handlers (World), or through its command line, and every figure that both have is compared.
"""

import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from candlemill.backtests.grid import parameters_of
from candlemill.backtests.spec import Spec
from candlemill.config import DSN_VARIABLE
from candlemill.errors import CandlemillError, TooLarge
from candlemill.strategies import build
from candlemill.units import SCALE
from conftest import Cli, said
from hypothesis import given, reject, settings
from reference.candles import DAY, MINUTE, Bar, read
from reference.cash import run_cash
from reference.units import run_units
from world import Market, daily_of, markets

SPOT = Path(__file__).parents[3] / "shared/data/spot"
FILES = sorted(path.name for path in SPOT.glob("*.zip"))
real_candles = pytest.mark.skipif(not SPOT.is_dir(), reason=f"no real candles at {SPOT}")

# What `--json` and the reference both say: its name there, and the reference's.
BOTH = (
    *("bars", "missing_minutes", "total_pnl", "max_drawdown", "sharpe_ratio", "sortino_ratio", "days", "trades"),
    *("wins", "fills", "exposure_bars", "fees", "funding", "turnover", "gross_profit", "gross_loss", "open_position"),
)
OF_UNITS = {name: name for name in (*BOTH, "unfilled", "trades_over_gaps", "ambiguous_bars")}
OF_CASH = {name: name for name in (*BOTH, "borrow", "cut_orders", "rejected_orders", "liquidations")} | {
    "ambiguous_bars": "ambiguous_minutes"
}
RULES = ("fee", "maker_fee", "slippage", "stop_loss", "take_profit", "trailing_stop", "fill", "timeframe", "quantity",
         "start", "end", "sizing", "size", "step", "min_quantity", "min_notional", "leverage", "borrow",
         "notional")  # fmt: skip


def options_of(spec: Spec, funding: Any) -> dict[str, Any]:
    """A job as the reference has it."""
    found: dict[str, Any] = {name: getattr(spec, name) for name in RULES}
    if spec.capital:
        found["capital"] = spec.capital
    if spec.volume_share:
        found["volume_share"] = spec.volume_share
    return found | {"funding": funding if spec.funding else ()}


def compared(found: dict[str, Any], wanted: dict[str, Any], names: dict[str, str]) -> None:
    """Every figure, and the daily profits."""
    assert {own: found[own] for own in names} == {own: wanted[name] for own, name in names.items()}
    days, profits = daily_of(found)
    assert [(day // DAY, profit) for day, profit in zip(days, profits, strict=True)] == wanted["daily_profits"]


def job(bars: Sequence[Bar], strategy: str, params: dict[str, Any], **options: Any) -> Spec:
    """A job over the days of some bars."""
    start, end = bars[0].t // DAY * DAY, (bars[-1].t // DAY + 1) * DAY
    given_ = {"account": "units", "start": start, "end": end, **options}
    return Spec(symbol="X", strategy=strategy, params=parameters_of(build(strategy, params)), **given_)


def check(market: Market, spec: Spec, slices: int | None = None, seed: int | None = None) -> dict[str, Any]:
    """Run a job through the handlers, cut and shuffled where `slices` and `seed` say so; compare all; its figures."""
    try:
        (found,) = market.world().run(spec, slices, None if seed is None else random.Random(seed))
    except TooLarge:
        reject()
    except CandlemillError as error:
        assert "does not fit" in str(error), error  # a column of the results table
        reject()
    options = options_of(spec, market.funding)
    strategy = (spec.strategy, spec.params)
    if spec.account == "cash":
        wanted = run_cash({"X": market.bars}, strategy, options | {"funding": {"X": options["funding"]}})
        compared(found, wanted, OF_CASH)
    else:
        compared(found, run_units(market.bars, strategy, options), OF_UNITS)
    return found


# -- real candles --------------------------------------------------------------------------------------------------

STRATEGIES: list[tuple[str, dict[str, Any]]] = [
    ("sma_cross", {"fast": 10, "slow": 50, "allow_short": True}),
    ("momentum_v1", {"lookback": 60, "threshold": 1_000, "allow_short": True}),
    ("donchian", {"entry": 48, "exit": 24}),
    ("buy_and_hold", {}),
]
UNITS: list[dict[str, Any]] = [
    {"fee": 1_000},
    {"fee": -1, "maker_fee": -250, "stop_loss": 4_000, "take_profit": 6_000, "slippage": 50, "quantity": 10**13},
    {"fee": 750, "maker_fee": 200, "trailing_stop": 5_000, "take_profit": 20_000, "fill": "close", "quantity": 123_457},
    {"fee": 1_000, "stop_loss": 10_000, "slippage": 1_000, "timeframe": 5, "funding": True},
    {"fee": 400, "stop_loss": 3_000, "take_profit": 3_000, "slippage": 2_000, "fill": "close", "timeframe": 60},
]
CASH: list[dict[str, Any]] = [
    {"fee": 1_000},
    {"size": "units", "quantity": 50 * SCALE, "leverage": 3_000_000, "borrow": 300, "fee": 200, "funding": True},
    {"size": "notional", "notional": 5_000 * SCALE, "step": 10**5, "min_notional": 10 * SCALE, "fill": "close"},
    {"leverage": 20_000_000, "fee": -50, "maker_fee": -100, "stop_loss": 8_000, "take_profit": 12_000, "slippage": 70,
     "borrow": 1_000, "timeframe": 5},
    {"capital": 37 * SCALE, "min_quantity": SCALE, "trailing_stop": 5_000, "slippage": 20, "fill": "close"},
]  # fmt: skip
MINUTES = 1_600  # over two or three days


@lru_cache(maxsize=1)
def candles_in(name: str) -> list[Bar]:
    return read(SPOT / name)


def stretch(name: str, number: int, length: int = MINUTES) -> Market:
    """Some consecutive candles of a file, over an outage where it has one, and funding every eight hours."""
    bars = candles_in(name)
    gaps = [k for k in range(1, len(bars)) if bars[k].t - bars[k - 1].t > MINUTE]
    middle = gaps[number % len(gaps)] if gaps else len(bars) * (number + 1) // 6
    first = max(0, min(middle - length // 2, len(bars) - length))
    rates = [10_000, -7_777, 123_457, -20_000]
    part = bars[first : first + length]
    instants = range(part[0].t // DAY * DAY, part[-1].t, DAY // 3)
    return Market(part, [(t, rates[k % 4]) for k, t in enumerate(instants)])


@real_candles
@pytest.mark.parametrize(
    ("name", "account"), [(name, kind) for name in FILES or ["none"] for kind in ("units", "cash")]
)
def test_real_candles(name: str, account: str) -> None:
    """Each file with every set of options; every strategy with each of them on some file."""
    for number, options in enumerate(UNITS if account == "units" else CASH):
        market = stretch(name, number)
        strategy, params = STRATEGIES[(number + FILES.index(name)) % len(STRATEGIES)]
        check(market, job(market.bars, strategy, params, account=account, **options), slices=1 + number % 3)


# -- random candles ------------------------------------------------------------------------------------------------

LENGTHS = st.integers(1, 12)
DECISIONS = st.one_of(
    st.builds(
        lambda fast, more, short: ("sma_cross", {"fast": fast, "slow": fast + more, "allow_short": short}),
        LENGTHS, LENGTHS, st.booleans(),
    ),
    st.builds(
        lambda back, limit, short: ("momentum_v1", {"lookback": back, "threshold": limit, "allow_short": short}),
        LENGTHS, st.sampled_from([0, 5_000, 100_000]), st.booleans(),
    ),
    st.builds(lambda entry, exit: ("donchian", {"entry": entry, "exit": exit}), LENGTHS, LENGTHS),
    st.just(("buy_and_hold", {})),
)  # fmt: skip
FEES = st.sampled_from([0, 1_000, 1, -1, -500, -100_000, 150_000, 1_000_000])
DISTANCES = st.sampled_from([0, 0, 1, 1_000, 20_000, 150_000, 1_000_000])
COSTS = {
    "fee": FEES,
    "maker_fee": st.none() | FEES,
    "slippage": DISTANCES,
    "stop_loss": DISTANCES,
    "take_profit": st.sampled_from([0, 0, 1, 10_000, 200_000, 5_000_000]),
    "trailing_stop": DISTANCES,
    "fill": st.sampled_from(["next_open", "close"]),
    "timeframe": st.sampled_from([1, 1, 1, 2, 7, 60, 1_441]),
}
CASH_RULES = {
    "capital": st.sampled_from([1, 10**6, 10**10, 10**12, 123_456_789_012]),
    "leverage": st.sampled_from([10**6, 500_000, 3 * 10**6, 125 * 10**6]),
    "step": st.sampled_from([1, 1, 1_000, 10**6, SCALE]),
    "min_quantity": st.sampled_from([0, 0, 10**5]),
    "min_notional": st.sampled_from([0, 0, 10**9]),
    "borrow": st.sampled_from([0, 300, 100_000]),
}
SIZES = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"size": st.just("units"), "quantity": st.sampled_from([1, SCALE, 123_456_789, 10**13])}),
    st.fixed_dictionaries({"size": st.just("notional"), "notional": st.sampled_from([None, 10**6, 10**12])}),
)
SIZINGS = st.one_of(
    st.fixed_dictionaries({"quantity": st.sampled_from([SCALE, 1, 123_456_789, 10**13])}),
    st.fixed_dictionaries({"sizing": st.just("notional"), "notional": st.sampled_from([1, 10**11, 2**50])}),
)


def of_reference(bars: Sequence[Any]) -> list[Bar]:
    return [Bar(bar.t, bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in bars]


@st.composite
def jobs(draw: Any, rules: Any) -> tuple[Market, Spec]:
    """Random candles with funding, and a job over them."""
    market = draw(markets(120))
    bars = of_reference(market.bars)
    strategy, params = draw(DECISIONS)
    options = draw(st.fixed_dictionaries(COSTS)) | draw(rules)
    start, end = bars[0].t // DAY * DAY, (bars[-1].t // DAY + 1) * DAY
    funding = draw(st.booleans()) and any(start <= t < end for t, _ in market.funding)
    return Market(bars, market.funding), job(bars, strategy, params, **options, funding=funding)


def of_cash() -> Any:
    rules = st.tuples(st.fixed_dictionaries(CASH_RULES), SIZES)
    return rules.map(lambda two: {"account": "cash", **two[0], **two[1]})


@given(jobs(SIZINGS), st.sampled_from([None, 2, 5]), st.integers(0, 99))
@settings(max_examples=60)
def test_units_on_random_candles(case: tuple[Market, Spec], slices: int | None, seed: int) -> None:
    check(*case, slices, seed)


@given(jobs(of_cash()), st.sampled_from([None, 2, 5]), st.integers(0, 99))
@settings(max_examples=60)
def test_an_account_of_cash_on_random_candles(case: tuple[Market, Spec], slices: int | None, seed: int) -> None:
    check(*case, slices, seed)


# -- through the command line --------------------------------------------------------------------------------------

FIVE = ("BTCUSDT", "BTTUSDT", "DOGEUSDT", "ETHUSDT", "XRPUSDT")
FIRST, LAST = 1_620_691_200_000, 1_620_864_000_000  # 2021-05-11..2021-05-12
PANELS: list[dict[str, Any]] = [
    {"timeframe": 15},
    {"timeframe": 60, "fill": "close", "slippage": 500, "size": "notional", "notional": 15_000 * SCALE,
     "leverage": 2_000_000, "step": 10**6, "min_notional": 10 * SCALE},
    {"timeframe": 7, "fee": -100, "size": "units", "quantity": 3 * SCALE, "capital": 500 * SCALE, "step": SCALE},
]  # fmt: skip
ONES: list[dict[str, Any]] = [
    {"account": "units", "fee": -1, "stop_loss": 4_000, "take_profit": 6_000, "slippage": 50, "quantity": 10**14},
    {"account": "cash", "leverage": 3_000_000, "borrow": 300, "stop_loss": 5_000, "fill": "close", "step": 10**5},
]


def decimal(scaled: int) -> str:
    return f"{scaled // SCALE}.{scaled % SCALE:08d}"


def arguments(options: dict[str, Any]) -> list[str]:
    """Options of a job as a user types them."""
    amounts = ("quantity", "capital", "notional", "step", "min_quantity", "min_notional")
    texts = {name: decimal(value) if name in amounts else str(value) for name, value in options.items()}
    if "timeframe" in texts:
        texts["timeframe"] += "m"
    return [f"--{name.replace('_', '-')}={text}" for name, text in texts.items()]


@real_candles
def test_the_command_line_on_real_candles(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Panels of five symbols, and jobs of one of them."""
    monkeypatch.setenv(DSN_VARIABLE, f"chdb://{tmp_path / 'db'}")
    files = [SPOT / f"{name}-1m-2021-05.zip" for name in FIVE]
    status, _, err = run("ingest", *files)
    assert status == 0, err
    whole = {name: read(path) for name, path in zip(FIVE, files, strict=True)}
    candles = {name: [bar for bar in bars if FIRST <= bar.t < LAST] for name, bars in whole.items()}
    job = ("backtest", "--range", "2021-05-11..2021-05-12", "--json")
    inside = {"start": FIRST, "end": LAST}
    params = {"lookback": 6, "top": 2, "every": 3}
    for options in PANELS:
        texts = [f"--param={name}={value}" for name, value in params.items()]
        panel = ("--symbol", ",".join(FIVE), "--strategy", "xs_momentum", "--account", "cash")
        found = said(run(*job, *panel, *texts, *arguments(options)))
        wanted = run_cash(candles, ("xs_momentum", params), options | inside | {"delist_after": DAY})
        assert wanted["fills"] > 20
        assert {own: found[own] for own in OF_CASH} == {own: wanted[name] for own, name in OF_CASH.items()}
    for options in ONES:
        one = ("--symbol", "DOGEUSDT", "--strategy", "sma_cross", "--param", "allow_short=true", "--slices", "2")
        found = said(run(*job, *one, *arguments(options)))
        rules = {name: value for name, value in options.items() if name != "account"} | inside
        strategy = ("sma_cross", {"fast": 10, "slow": 50, "allow_short": True})
        if options["account"] == "cash":
            wanted, names = run_cash({"DOGEUSDT": candles["DOGEUSDT"]}, strategy, rules), OF_CASH
        else:
            wanted, names = run_units(candles["DOGEUSDT"], strategy, rules), OF_UNITS
        assert wanted["fills"] > 20
        assert {own: found[own] for own in names} == {own: wanted[name] for own, name in names.items()}


# -- where they differed -------------------------------------------------------------------------------------------


def candles_of(*rows: tuple[int, int, int, int]) -> Market:
    """Consecutive minutes of open, high, low and close."""
    return Market([Bar(DAY * 19_000 + k * MINUTE, *row, SCALE) for k, row in enumerate(rows)])


def test_an_entry_beyond_its_stop_is_not_ambiguous() -> None:
    """Slippage of 2 % takes the entry to 1,020, a stop of 1 % is at 1,009: the open is beyond it, so the order of high
    and low does not matter."""
    market = candles_of((1_000,) * 4, (1_000, 1_200, 900, 1_000), (1_000,) * 4)
    options = {"slippage": 20_000, "stop_loss": 10_000, "take_profit": 50_000, "fee": 0}
    found = check(market, job(market.bars, "buy_and_hold", {}, **options))
    assert (found["ambiguous_bars"], found["trades"], found["gross_loss"]) == (0, 1, 1_020 - (1_009 - 21))
    found = check(market, job(market.bars, "buy_and_hold", {}, **options | {"slippage": 0}))
    assert (found["ambiguous_bars"], found["gross_loss"]) == (1, 10)


def test_a_price_after_slippage_and_a_level_are_at_least_a_unit() -> None:
    market = candles_of((1,) * 4, (1,) * 4, (1,) * 4)
    found = check(market, job(market.bars, "buy_and_hold", {}, fee=0, slippage=1_000, stop_loss=1_000))
    assert (found["trades"], found["turnover"], found["total_pnl"]) == (1, 3, -1)  # bought at 2, sold at 1


def test_a_rejected_order_is_no_open_position() -> None:
    market = candles_of(*[(100 * SCALE,) * 4] * 4)
    rules = {"account": "cash", "capital": 50 * SCALE, "fee": 0}
    found = check(market, job(market.bars, "buy_and_hold", {}, min_quantity=SCALE, **rules))
    assert (found["rejected_orders"], found["open_position"]) == (1, 0)
    found = check(market, job(market.bars, "buy_and_hold", {}, **rules))
    assert (found["rejected_orders"], found["open_position"]) == (0, 1)


def test_nothing_is_ambiguous_after_a_ruin() -> None:
    """Ten times the equity is long; the price falls by a third and the account is gone. Then the strategy would have
    bought again, on a bar that touches its stop and its target."""
    flat, wild = (1_000 * SCALE,) * 4, (1_000 * SCALE, 2_000 * SCALE, 10 * SCALE, 1_000 * SCALE)
    fall = (1_000 * SCALE, 1_000 * SCALE, 600 * SCALE, 600 * SCALE)
    up, more = (1_100 * SCALE,) * 4, (1_110 * SCALE,) * 4
    market = candles_of(flat, up, more, fall, fall, flat, wild, wild, flat)
    options = {"account": "cash", "leverage": 10_000_000, "size": "notional", "notional": 90_000 * SCALE,
               "stop_loss": 500_000, "take_profit": 500_000, "fee": 0}  # fmt: skip
    params = {"lookback": 1, "threshold": 0}
    found = check(market, job(market.bars, "momentum_v1", params, **options))
    assert (found["ambiguous_bars"], found["open_position"]) == (0, 0)
    found = check(market, job(market.bars, "momentum_v1", params, **options | {"notional": SCALE}))
    assert found["ambiguous_bars"] == 1
