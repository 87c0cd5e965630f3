"""The judge of the torture sees what it is there to see: one thing wrong at a time, and it says which."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from candlemill.exchanges.base import Candle
from candlemill.feed.backfill import columns_of
from candlemill.store.candle_writer import recount, write
from candlemill.store.clickhouse import ClickHouseStore

from loadtests.exchange_simulator.judge import judge, judge_live
from loadtests.exchange_simulator.market import MINUTE_MS, Correction, Market, Row, synthetic

T = 1_709_164_800_000
DAY_MS = 86_400_000
END = T + 100 * MINUTE_MS
NAMES = {"BTCUSDT": "BTCUSDT"}


@pytest.fixture
def market() -> Market:
    found = synthetic(1, ["BTCUSDT"], T, 200, calm=True)
    for rows in (found.rows["BTCUSDT"], found.first["BTCUSDT"]):
        del rows[T + 50 * MINUTE_MS]
    return found


@pytest.fixture
def store(tmp_path: Path, market: Market) -> Iterator[ClickHouseStore]:
    """All that the exchange has until the end and a little more, and what it lacks, known as such."""
    with ClickHouseStore(f"chdb://{tmp_path / 'db'}") as opened:
        put(opened, {t: row for t, row in market.rows["BTCUSDT"].items() if t < END + 5 * MINUTE_MS})
        opened.put_outages([("BTCUSDT", T + 50 * MINUTE_MS, T + 51 * MINUTE_MS)])
        yield opened


def put(store: ClickHouseStore, rows: dict[int, Row]) -> None:
    write(store, {"BTCUSDT": columns_of([Candle("BTCUSDT", t, *row, True) for t, row in rows.items()], 8)})
    recount(store, {"BTCUSDT": [T]})


def verdict(store: ClickHouseStore, market: Market) -> dict[str, list[int]]:
    return judge(store, NAMES, market.first, market.rows, T, END)


def test_nothing_to_complain_of(store: ClickHouseStore, market: Market) -> None:
    assert verdict(store, market) == {}
    corrected = Correction(T, "BTCUSDT", T, (1, 1, 1, 1, 1))
    market.corrections = [corrected]
    assert verdict(store, Market(market.first, [corrected]).at(T)) == {}  # either edition will do


def test_what_is_missing_is_known_and_lost(store: ClickHouseStore, market: Market) -> None:
    for t in (T + 99 * MINUTE_MS, END + 6 * MINUTE_MS):  # of this one nobody can expect that it is there
        market.rows["BTCUSDT"][t] = market.first["BTCUSDT"][t] = (2, 2, 2, 2, 2)
    assert verdict(store, market) == {"BTCUSDT wrong": [1, T + 99 * MINUTE_MS, T + 99 * MINUTE_MS]}
    market.rows["BTCUSDT"][T - MINUTE_MS] = market.first["BTCUSDT"][T - MINUTE_MS] = (2, 2, 2, 2, 2)
    assert "BTCUSDT lost" not in verdict(store, market)
    found = judge(store, NAMES, market.first, market.rows, T - MINUTE_MS, END)
    assert found["BTCUSDT lost"] == found["BTCUSDT holes"] == [1, T - MINUTE_MS, T - MINUTE_MS]


SABOTAGE: dict[str, tuple[Callable[[ClickHouseStore], None], set[str]]] = {
    "a candle that the exchange lacks": (lambda s: put(s, {T + 50 * MINUTE_MS: (1, 1, 1, 1, 1)}), {"extra"}),
    "another candle": (lambda s: put(s, {T + 7 * MINUTE_MS: (1, 1, 1, 1, 1)}), {"wrong"}),
    "an unfinished one at the end": (lambda s: put(s, {END + 3 * MINUTE_MS: (1, 1, 1, 1, 1)}), {"wrong"}),
    "an outage that was none": (lambda s: s.put_outages([("BTCUSDT", T, T + MINUTE_MS)]), {"false outages"}),
    "a digest that is not the rows'": (
        lambda s: s.put_days({"BTCUSDT": [type(d)(d.start, d.rows, d.first, d.last, "x") for d in s.days("BTCUSDT")]}),
        {"index"},
    ),
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_sabotage_is_seen(store: ClickHouseStore, market: Market, name: str) -> None:
    do, kinds = SABOTAGE[name]
    do(store)
    assert set(verdict(store, market)) == {f"BTCUSDT {kind}" for kind in kinds}


def test_a_day_left_unsure_is_seen(tmp_path: Path, market: Market) -> None:
    folder = tmp_path
    with ClickHouseStore(f"chdb://{folder / 'db'}") as store:
        put(store, dict(market.rows["BTCUSDT"]))
        store.put_outages([("BTCUSDT", T + 50 * MINUTE_MS, T + 51 * MINUTE_MS)])
        store.put_days({"BTCUSDT": [type(d)(d.start, 0, d.start, d.start, "") for d in store.days("BTCUSDT")]})
    found = judge_live(folder, market, "binance", ["BTCUSDT"], T, END, alone=True)
    assert set(found) == {"BTCUSDT unsure"}


def test_minutes_that_come_twice_are_seen(
    store: ClickHouseStore, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice(symbol: str, start: int, end: int, names: object) -> dict[str, np.ndarray]:
        return {name: np.array([T, T]) for name in ("t", "open", "high", "low", "close", "volume")}

    monkeypatch.setattr(store, "read_columns", twice)
    with pytest.raises(AssertionError, match="minutes come twice"):
        verdict(store, market)
