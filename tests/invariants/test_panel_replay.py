"""What a panel's replay lists adds up to its result, however the replay is cut."""

import random
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np
from candlemill.backtests.plan import make_plan
from candlemill.backtests.replay import Replay
from candlemill.backtests.spec import Spec
from candlemill.errors import CandlemillError
from candlemill.local import worker_pool
from candlemill.tables.runs import contribution_table, equity_table, orders_table, trades_table
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from panel_world import PanelWorld
from panels import panels


def replays(candles: dict[str, Any], spec: Spec, slices: tuple[int, ...]) -> tuple[dict[str, Any], list[Replay]]:
    """The result, and its replay in so many slices."""
    world = PanelWorld(candles)
    try:
        (result,) = world.run(spec, 2, random.Random(1))
        found = []
        for count in slices:
            with patch.object(worker_pool, "make_plan", lambda spec, days, _, n=count: make_plan(spec, days, n)):
                own = msgspec.convert(result["spec"], Spec)
                found.append(worker_pool.replayed(own, result, world.runtime.candles, world))  # type: ignore[arg-type]
    except CandlemillError as error:
        assert error.code == "too_large" or "does not fit" in str(error), error
        reject()
    return result, found


@given(panels(), st.integers(2, 9))
@settings(max_examples=80)
def test_it_adds_up_to_the_result(case: Any, slices: int) -> None:
    candles, spec = case
    result, (found, cut) = replays(candles, spec, (1, slices))
    assert (len(found.t), int((found.position != 0).sum())) == (result["bars"], result["exposure_bars"])
    assert int(found.daily.sum()) == int(found.equity[-1]) == result["total_pnl"]
    peak = np.maximum.accumulate(np.maximum(found.equity, 0))
    assert abs(int((peak - found.equity).max()) - result["max_drawdown"]) <= 1
    trades, fills, panel = found.trades, found.fills, found.panel
    assert panel is not None and fills is not None
    assert (len(trades), int((trades.profit > 0).sum())) == (result["trades"], result["wins"])
    assert int(trades.profit[trades.profit > 0].sum()) == result["gross_profit"]
    real = fills.what != 5
    assert (int(real.sum()), int(fills.fee.sum())) == (result["fills"], result["fees"])
    values = [q * p for q, p in zip(fills.quantity[real].tolist(), fills.price[real].tolist(), strict=True)]
    assert sum(values) // 10**8 == result["turnover"]
    for k, (name, of) in enumerate(sorted(result["symbols"].items())):
        own = trades.profit[panel.of_trade == k]
        assert (panel.symbols[k], len(own), int((own > 0).sum())) == (name, of["trades"], of["wins"])
        assert int(panel.contribution[-1, k]) == of["profit"]
        assert int(fills.fee[panel.of_fill == k].sum()) == of["fees"]
    ends = np.searchsorted(found.t, found.days + 86_400_000) - 1
    assert (np.abs(panel.contribution.sum(axis=1) - found.equity[ends]) <= len(panel.symbols)).all()
    for one in (trades_table, orders_table, equity_table, contribution_table):
        whole, parts = one(found), one(cut)
        assert all(whole[name].tolist() == parts[name].tolist() for name in whole if name != "close")


def test_the_lists_of_a_worked_example() -> None:
    """Half of 10,000 each at the third minute's open; AAA doubles and is sold, BBB stays at its price. No costs."""
    from slow_engine import Bar
    from world import FIRST_DAY, MINUTE

    def bars(prices: list[int]) -> list[Bar]:
        scaled = [p * 10**8 for p in prices]
        return [Bar(FIRST_DAY + k * MINUTE, p, p, p, p, 1) for k, p in enumerate(scaled)]

    candles = {"AAA": bars([100, 125, 125, 250, 240, 240]), "BBB": bars([40, 50, 50, 50, 50, 50])}
    spec = Spec(
        symbol="AAA,BBB", strategy="xs_momentum", params={"lookback": 1, "top": 2, "every": 1}, fee=0,
        start=FIRST_DAY, end=FIRST_DAY + 6 * MINUTE, account="cash", capital=10_000 * 10**8,
    )  # fmt: skip
    result, (found,) = replays(candles, spec, (1,))
    trades = trades_table(found)
    # both rose in minute 1; neither did in minute 2, so both are sold at the opens of minute 3; AAA rose in 3
    assert list(trades["symbol"]) == ["AAA", "BBB", "AAA"]
    assert list(trades["profit"]) == [5_000.0, 0.0, 0.0]
    assert list(orders_table(found)["symbol"]) == ["AAA", "BBB", "AAA", "BBB", "AAA", "AAA"]
    assert result["symbols"]["AAA"]["profit"] == 5_000 * 10**8
    assert list(contribution_table(found)["profit"]) == [5_000.0, 0.0]
    assert found.position.tolist() == [0, 0, 2, 0, 1, 0]
    assert found.panel is not None and found.panel.hold.tolist()[-1] == 8_250 * 10**8  # 7,000 + 1,250
