"""Accounts settled from tapes of decided fills are those carried from slice to slice; money decides no fill."""

import random
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
import msgspec
import numpy as np
from candlemill.backtests.account import AccountRules
from candlemill.backtests.settlement import settled
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import keeps_tapes, rules_of
from candlemill.backtests.tapes import TapeCache, packed, tape_of, unpacked
from candlemill.engine.candles import CandleColumns
from candlemill.engine.fills import Fills
from candlemill.engine.tape import Tape
from candlemill.errors import CandlemillError
from candlemill.pipeline import cache_keys, execute
from hypothesis import assume, given, settings
from slow_engine import DAY, MINUTE
from world import FIRST_DAY, Market, markets, specs

MONEY = st.fixed_dictionaries(
    {
        "capital": st.sampled_from([1, 10**6, 10**10, 10**12]),
        "leverage": st.sampled_from([10**6, 500_000, 5 * 10**6, 125 * 10**6]),
        "step": st.sampled_from([1, 1_000, 10**6]),
        "min_notional": st.sampled_from([0, 10**9]),
        "borrow": st.sampled_from([0, 300, 100_000]),
        "fee": st.sampled_from([0, 1_000, -500, 150_000]),
        "maker_fee": st.sampled_from([None, 0, 100]),
        "size": st.sampled_from(["equity", "notional", "units"]),
    }
)


@st.composite
def cash_jobs(draw: st.DrawFn) -> tuple[Market, Spec, dict[str, Any]]:
    market = draw(markets())
    spec = draw(specs(market))
    plain = {"account": "cash", "sizing": "fixed", "volume_share": 0, "volume_scale": 0, "quantity": 10**8}
    spec = msgspec.structs.replace(spec, **plain, capital=10**12, notional=None, path="worst")
    money = draw(MONEY)
    other = money | ({"notional": money["capital"]} if money["size"] == "notional" else {})
    return market, spec, other


def never(spec: Spec) -> bool:
    """Keep no tapes."""
    return False


def result(market: Market, spec: Spec, slices: int, seed: int) -> dict[str, Any] | None:
    try:
        (found,) = market.world().run(spec, slices, random.Random(seed))
    except CandlemillError:
        return None  # beyond 2^60
    return found


@given(cash_jobs(), st.integers(1, 8), st.integers(0, 99))
@settings(max_examples=150)
def test_a_settled_account_is_a_carried_one(case: Any, slices: int, seed: int) -> None:
    market, spec, money = case
    spec = msgspec.structs.replace(spec, **money)
    assert keeps_tapes(spec)
    found = result(market, spec, slices, seed)
    with patch.object(execute, "keeps_tapes", never), patch.object(cache_keys, "keeps_tapes", never):
        carried = result(market, spec, slices, seed)
    assert (found is None) == (carried is None)
    if found is not None and carried is not None:
        for one in (found, carried):
            one.pop("repaired_slices")
        assert found == carried


@given(cash_jobs())
@settings(max_examples=40)
def test_other_money_decides_nothing_again(case: Any) -> None:
    market, spec, money = case
    world = market.world()
    other = msgspec.structs.replace(spec, **money)
    assume(other != spec)
    try:
        world.run(spec, 3)
        stored = dict(world.kept)
        with patch.object(execute, "run_slice", None):
            world.run(other, 3)
    except CandlemillError:
        return
    assert world.kept == stored
    alone = result(market, other, 1, 0)
    assert alone is not None and alone["result_digest"] in {one["result_digest"] for one in world.results.values()}


@given(st.integers(0, 2**32), st.booleans())
@settings(max_examples=60)
def test_a_tape_is_read_as_it_was_written(seed: int, gaps: bool) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5_000))
    t = FIRST_DAY + np.cumsum(rng.integers(1, 30 if gaps else 2, n)) * MINUTE
    close = rng.integers(1, 2**40, n)
    candles = CandleColumns([t], [close], [close], [close], [close], [])
    log, side = Fills(), int(rng.integers(-1, 2))
    at = np.sort(rng.integers(1, n, int(rng.integers(0, 40)))).tolist() if n > 1 else []
    for bar in at:
        log.add(bar, int(rng.integers(-1, 2)), int(rng.integers(1, 2**40)), 0, int(close[bar]))
    spec = Spec(symbol="X", strategy="sma_cross", params={}, start=FIRST_DAY, end=FIRST_DAY + DAY)
    lo = min(at[0], n - 1) if at else 0
    given_ = tape_of(candles, rules_of(spec), log, side, lo, n)
    found = unpacked(packed(given_))
    left, right = given_.columns(), found.columns()
    assert {name: column.tolist() for name, column in left.items()} == {
        name: column.tolist() for name, column in right.items()
    }
    assert (found.bars, found.held, found.before) == (n - lo, side, int(close[lo - 1]) if lo else 0)


def test_as_many_tapes_are_kept_as_the_limit_has_room_for() -> None:
    texts = []
    for n in (1_000, 1_001, 1_002):
        column = np.arange(n, dtype=np.int64)
        texts.append(packed(Tape(n, 0, 100, 0, {"gap": column, "gap_close": column, "gap_open": column})))
    cache = TapeCache(2 * 3 * 8 * 1_002 + len("".join(texts)))  # two of them
    first, second = cache.get(texts[0]), cache.get(texts[1])
    assert cache.get(texts[0]) is first
    assert cache.get(texts[2]).bars == 1_002
    assert cache.get(texts[0]) is first
    assert cache.get(texts[1]) is not second  # the one that was not used for longest is decoded again
    assert TapeCache(0).get(texts[1]).columns()["gap_open"].tolist() == list(range(1_001))


def test_a_ruin_within_a_piece_asks_for_its_candles() -> None:
    """10 sold short at 100 with an equity of 1,000: at 200 nothing is left, and what comes after does not count."""
    closes = [100, 100, 120, 200, 90, 80]
    t = FIRST_DAY + np.arange(len(closes)) * MINUTE
    price = np.array(closes) * 10**8
    candles, log = CandleColumns([t], [price], [price], [price], [price], []), Fills()
    log.add(1, -1, 100 * 10**8, 0, 100 * 10**8)
    spec = Spec(symbol="X", strategy="sma_cross", params={}, start=FIRST_DAY, end=FIRST_DAY + DAY, fee=0)
    requested: list[tuple[int, int]] = []

    def read(start: int, end: int) -> tuple[Any, Any]:
        requested.append((start, end))
        inside = (t >= start) & (t < end)
        return t[inside], price[inside]

    tapes = [tape_of(candles, rules_of(spec), log, 0, 0, len(closes))]
    found = settled(tapes, rules_of(spec), AccountRules(capital=1_000 * 10**8), read)
    assert requested == [(FIRST_DAY + MINUTE, FIRST_DAY + DAY)]
    assert (found.end.ruined, found.end.cash, found.summary.exposure, found.summary.trades) == (True, 0, 3, 1)
    assert found.daily == [-1_000 * 10**16]


def test_tapes_are_kept_of_few_sets_only() -> None:
    spec = Spec(symbol="X", strategy="sma_cross", params={}, start=FIRST_DAY, end=FIRST_DAY + DAY, capital=1)
    assert keeps_tapes(spec) and keeps_tapes(msgspec.structs.replace(spec, grid={"fast": list(range(8))}))
    for more in ({"grid": {"fast": list(range(9))}}, {"account": "units"}, {"strategy": "grid"}, {"path": "both"}):
        assert not keeps_tapes(msgspec.structs.replace(spec, **more)), more
