"""Profit that was earned while there were no candles: said by every result, with a caution where it matters."""

import math
from pathlib import Path
from typing import Any

import candlemill as cm
import pytest
from candlemill.backtests.metric_table import shown
from candlemill.cli import tables
from candlemill.guards.gaps import gap_caution
from candlemill.ingest.candles import ingest
from candlemill.ingest.funding import ingest_funding
from candlemill.store.clickhouse import ClickHouseStore
from candlemill.units import SCALE

DATA = Path(__file__).parents[2].parent / "shared" / "data"
needs_real_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"real candles are not at {DATA}")
START = 1_619_308_800_000  # 2021-04-25
OPENS = [100, 105, 110, 140, 150]  # between 110 (closing at 112) and 140 ten minutes are missing
CLOSES = [104, 109, 112, 145, 150]
TIMES = [START + minute * 60_000 for minute in (0, 1, 2, 13, 14)]


def candles() -> cm.Candles:
    rows = [(t, o, max(o, c), min(o, c), c) for t, o, c in zip(TIMES, OPENS, CLOSES, strict=True)]
    names = ("time", "open", "high", "low", "close")
    return cm.Candles.from_columns({name: [row[k] for row in rows] for k, name in enumerate(names)}, "GAPUSDT")


def run(strategy: Any = "buy_and_hold", **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = cm.backtest(candles(), strategy, fee=0, **{"account": "units"} | options).result
    return found


def test_a_long_of_one_unit() -> None:
    """Bought at 105: 112 to 140 is earned over the gap, 17 of 45 while there are candles."""
    result = run()
    assert (result["total_pnl"], result["gap_profit"], result["trades_over_gaps"]) == (45 * SCALE, 28 * SCALE, 1)
    assert run(quantity="1.5")["gap_profit"] == 42 * SCALE


def test_it_is_a_figure_like_the_others() -> None:
    """In Python's stats, and a column to rank sets by."""
    found = cm.backtest(candles(), "buy_and_hold", fee=0, account="units")
    assert (found.stats["Earned over Gaps"], found.stats.texts["Earned over Gaps"]) == (28.0, "28.00")
    sets = [{**run(quantity=quantity), "params": {"n": k}} for k, quantity in enumerate(("1", "1.5"))]
    lines = tables.sweep(sets, ["n"], "gap_profit", 2).splitlines()
    assert [line.split()[-1] for line in lines[-3:-1]] == ["28.00", "42.00"] and lines[-1].endswith("earned over gaps")


def test_prices_below_a_hundred_millionth_of_the_quantity() -> None:
    """A million coins at 0.00000798 over a gap to 0.00000807: 0.09 is earned, rounded down once."""
    prices = ["0.00000790", "0.00000798", "0.00000807"]
    times = [START, START + 60_000, START + 600_000]
    columns = {"time": times, **dict.fromkeys(("open", "high", "low", "close"), prices)}
    result = cm.backtest(cm.Candles.from_columns(columns, "GAPUSDT"), "buy_and_hold", fee=0, quantity=1_000_000).result
    assert result["gap_profit"] == result["total_pnl"] == 9 * 10**6


def test_sized_and_compound_accounts() -> None:
    quantity = 10_000 * SCALE * SCALE // (105 * SCALE)
    assert run(sizing="notional", notional=10_000)["gap_profit"] == 28 * quantity
    compound = run(sizing="compound", capital=1000)["gap_profit"]
    assert compound == pytest.approx(1000 * SCALE * 28 // 105, abs=1)  # 1000 at 105


def test_an_account_of_real_money() -> None:
    """All of 10,000 at 105, bought for the close of 104; a panel of one symbol earns the same."""
    options = {"account": "cash", "size": "units", "quantity": "1.5"}
    assert run(**options)["gap_profit"] == 42 * SCALE
    whole = run(account="cash")
    quantity = whole["turnover"] // 105
    assert whole["gap_profit"] == 28 * quantity > 0


def test_a_short_earns_the_opposite() -> None:
    """From 109 to 112 the momentum is up, so a threshold in reverse: prices mirrored around 200."""
    options: dict[str, Any] = {"lookback": 1, "allow_short": True, "fee": 0}
    names = ("open", "high", "low", "close")
    rows = [(200 - o, 200 - min(o, c), 200 - max(o, c), 200 - c) for o, c in zip(OPENS, CLOSES, strict=True)]
    columns: dict[str, Any] = {name: [row[k] for row in rows] for k, name in enumerate(names)}
    own = cm.Candles.from_columns({"time": TIMES, **columns}, "GAPUSDT")
    found = cm.backtest(own, "momentum_v1", quantity=1, **options).result  # short at 90, held from 88 to 60
    assert (found["gap_profit"], found["open_position"]) == (28 * SCALE, -1)
    compound = cm.backtest(own, "momentum_v1", sizing="compound", capital=1000, **options).result["gap_profit"]
    assert compound == pytest.approx(1000 * SCALE * 28 // 90, abs=1)


def test_what_is_bought_after_the_gap_has_not_been_held_over_it() -> None:
    result = run("momentum_v1", lookback=2, threshold=0)  # decided at the last close before the gap, bought at 140
    assert (result["gap_profit"], result["trades_over_gaps"]) == (0, 0) and result["fills"] == 1


def test_slices_do_not_change_it() -> None:
    two_days = [START, START + 60_000, START + 86_400_000, START + 86_460_000]
    prices = [100, 100, 130, 130]
    own = cm.Candles.from_columns(
        {"time": two_days, **dict.fromkeys(("open", "high", "low", "close"), prices)}, "GAPUSDT"
    )
    found = [cm.backtest(own, "buy_and_hold", fee=0, slices=slices, max_gap=10_000, quantity=1) for slices in (1, 2)]
    assert [one.result["gap_profit"] for one in found] == [30 * SCALE] * 2
    assert found[0].result["result_digest"] == found[1].result["result_digest"]


def test_a_caution_where_a_tenth_is_of_gaps() -> None:
    result = run()
    said = "28.00 of a total of 45.00 was earned across gaps in the candles, where nobody could trade"
    assert gap_caution(result) == said and "caution" in tables.result(result) and said in tables.result(result)
    assert gap_caution({**result, "gap_profit": 4 * SCALE}) is None
    assert gap_caution({**result, "gap_profit": 0, "total_pnl": 0}) is None
    assert "1 positions, 28.00 earned" in tables.result(result)
    assert said in cm.backtest(candles(), "buy_and_hold", fee=0, account="units").guards()["warnings"]


@needs_real_data
def test_the_years_without_candles_made_the_profit(tmp_path: Path) -> None:
    """BTCUSDT over all files: three trades were held over gaps, of 523 and 1,622 days and an outage."""
    dsn = f"chdb://{tmp_path / 'db'}"
    with ClickHouseStore(dsn) as store:
        ingest(store, sorted((DATA / "spot").glob("BTCUSDT-1m-*.zip")))
    found = cm.backtest("BTCUSDT", "sma_cross", fast=50, slow=200, sizing="notional", store=dsn).result
    assert (found["gap_profit"], found["trades_over_gaps"]) == (6_922_693_803_639, 3)
    assert found["gap_profit"] > found["total_pnl"] > 0 and gap_caution(found) is not None


# -- funding -----------------------------------------------------------------------------------------------------------


def test_funding_that_covers_a_part_of_the_range_is_said(tmp_path: Path) -> None:
    """Four days of candles; rates every eight hours of the first two, the last at 16:00 of the second day."""
    dsn = f"chdb://{tmp_path / 'db'}"
    first, hour = 1_619_913_600_000, 3_600_000  # 2021-05-02
    lines = [f"{first + k * 60_000},2,2,2,2,5,{first + k * 60_000 + 59_999},0,0,0,0,0\n" for k in range(4 * 1440)]
    (tmp_path / "XUSDT-1m-2021-05.csv").write_text("".join(lines))
    rates = [f"{first + k * 8 * hour},8,0.0001\n" for k in range(6)]
    (tmp_path / "XUSDT-fundingRate-2021-05.csv").write_text("".join(rates))
    with ClickHouseStore(dsn) as store:
        ingest(store, [tmp_path / "XUSDT-1m-2021-05.csv"])
        ingest_funding(store, [tmp_path / "XUSDT-fundingRate-2021-05.csv"])
    result = cm.backtest("XUSDT", "buy_and_hold", funding=True, store=dsn).result
    assert result["funding_missing_minutes"] == 2 * 1440, "the last rate stands for the day's last eight hours"
    assert "funding is missing for 2.0 days of the range" in tables.result(result)
    assert shown("funding_missing_minutes", result["funding_missing_minutes"]) == "2,880"
    covered = cm.backtest("XUSDT", "buy_and_hold", funding=True, range="2021-05-02..2021-05-03", store=dsn).result
    assert covered["funding_missing_minutes"] == 0 and "funding is missing" not in tables.result(covered)
    assert "funding_missing_minutes" not in cm.backtest("XUSDT", "buy_and_hold", store=dsn).result


# -- what a range may lack ---------------------------------------------------------------------------------------------


def two_stretches(name: str, minutes: int, start: int = START + 7 * 86_400_000) -> cm.Candles:
    """Two times ten minutes, `minutes` apart, from 2021-05-02 on."""
    first = [start + k * 60_000 for k in range(10)]
    times = first + [t + (10 + minutes) * 60_000 for t in first]
    return cm.Candles.from_columns({"time": times, **{c: [100] * 20 for c in ("open", "high", "low", "close")}}, name)


def test_a_range_may_lack_a_day_between_its_candles() -> None:
    span = {"range": "2021-05", "fee": 0}
    assert cm.backtest(two_stretches("XUSDT", 1_440), "buy_and_hold", **span).result["missing_minutes"] > 1_440
    long = two_stretches("XUSDT", 1_441)
    with pytest.raises(cm.BadInput, match=r"XUSDT misses 1,441 of 1,461 minutes .*; max_gap allows 1,440: allow more"):
        cm.backtest(long, "buy_and_hold", **span)
    assert cm.backtest(long, "buy_and_hold", max_gap=50_000, **span).result["bars"] == 20
    assert cm.backtest(long, "buy_and_hold", fee=0).result["bars"] == 20, "all takes what is there"


def test_the_exchanges_own_outages_do_not_count() -> None:
    """2021-04-25 04:01 to 08:44 and five minutes on either side: of these 1,700 minutes 294 are Binance's own."""
    span = {"range": "2021-04", "fee": 0}
    start = START - 18 * 3_600_000  # 2021-04-24 06:00
    assert cm.backtest(two_stretches("XUSDT", 1_700, start), "buy_and_hold", **span).result["bars"] == 20
    with pytest.raises(cm.BadInput, match="misses 1,700 of 1,720 minutes"):
        cm.backtest(two_stretches("BYBIT:XUSDT", 1_700, start), "buy_and_hold", **span)
    with pytest.raises(cm.BadInput, match="294 of them in known outages of the exchange; max_gap allows 1,440"):
        cm.backtest(two_stretches("XUSDT", 1_740, start), "buy_and_hold", **span)


def test_a_fold_without_candles_is_in_the_table() -> None:
    """Ten days, ten without candles, ten days: folds of ten and five days."""
    day = 1_440
    minutes = [*range(10 * day), *range(20 * day, 30 * day)]
    price = [100 + k % 97 for k in range(len(minutes))]
    first = 1_617_235_200_000  # 2021-04-01
    own = cm.Candles.from_columns(
        {"time": [first + m * 60_000 for m in minutes], **dict.fromkeys(("open", "high", "low", "close"), price)},
        "FOLDUSDT",
    )
    found = cm.walk_forward(own, "sma_cross", fast=[5, 9], slow=30, train="10d", test="5d")
    folds = found.folds
    assert len(folds["test_start"]) == 4
    chosen = [not math.isnan(value) for value in folds["fast"].tolist()]
    assert chosen == [not math.isnan(value) for value in folds["in_sample"].tolist()] == [False, False, False, True]
