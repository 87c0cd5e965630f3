"""Money and levels of coins whose prices are few units of 10^-8: right to the unit, through all handlers."""

from typing import Any

import pytest
from candlemill.backtests.spec import Spec
from candlemill.units import SCALE
from slow_engine import MINUTE, Bar, backtest
from world import FIRST_DAY, World

COINS = 1_000_000 * SCALE


def still(price: int, count: int = 4) -> list[Bar]:
    """A price that never moves."""
    return [Bar(FIRST_DAY + k * MINUTE, price, price, price, price, SCALE) for k in range(count)]


def ran(bars: list[Bar], **options: Any) -> dict[str, Any]:
    """Bought at the second bar's open and held; the reference agrees."""
    job: dict[str, Any] = {
        "strategy": "buy_and_hold", "params": {}, "start": bars[0].t, "end": bars[-1].t + MINUTE, "fee": 0, **options
    }  # fmt: skip
    (found,) = World(bars).run(Spec(symbol="X", account="units", **job))
    wanted = backtest(bars, **job)
    del wanted["daily"]
    assert {name: found[name] for name in wanted} == wanted
    return found


@pytest.mark.parametrize(("fee", "fees"), [(1_000, 798_000), (1, 798), (-1, -798), (0, 0)])
def test_a_fee_is_its_share_of_the_turnover(fee: int, fees: int) -> None:
    """1,000,000 coins at 0.00000798 cost 7.98; 0.1 % of it is 0.00798."""
    found = ran(still(798), quantity=COINS, fee=fee)
    assert (found["turnover"], found["fees"], found["total_pnl"]) == (798_000_000, fees, -fees)
    assert found["max_drawdown"] == max(fees, 0)


@pytest.mark.parametrize("level", ["stop_loss", "take_profit", "trailing_stop"])
@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_a_price_that_never_moves_touches_no_level(level: str, fill: str) -> None:
    found = ran(still(90), **{level: 10_000, "fill": fill})
    assert (found["fills"], found["trades"], found["open_position"], found["total_pnl"]) == (1, 0, 1, 0)


def test_slippage_is_a_unit_at_least() -> None:
    found = ran(still(798), quantity=COINS, slippage=1_000)
    assert found["turnover"] == 799_000_000
    assert found["total_pnl"] == -1_000_000
