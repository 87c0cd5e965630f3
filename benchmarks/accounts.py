"""What accounts of real money cost: `python benchmarks/accounts.py [--pairs 1000]`, processor time of this process.

One run and a sweep of SMA crossovers over a year of minutes in both accounts, how many events are settled a second, and
ten years decided once and settled again; or a sweep of `--pairs` alone.
"""

import argparse
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from candlemill.backtests.account import AccountRules, Quotation, opened, settle
from candlemill.backtests.settlement import settled
from candlemill.backtests.slice import SliceWindow, run_slice, summary_of
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import account_rules, rules_of
from candlemill.backtests.tapes import TAPES, unpacked
from candlemill.backtests.tiers import Tier, TierTable
from candlemill.engine.candles import CandleColumns
from candlemill.engine.fill_tape import AT_OPEN, NO_KEY, TARGET, FillTape
from candlemill.engine.tape import Tape
from candlemill.strategies import build
from data import synthetic

Columns = dict[str, Any]


def seconds(work: Callable[[], Any], times: int = 5) -> float:
    """The median of some tries."""
    found = []
    for _ in range(times):
        begin = time.process_time()
        work()
        found.append(time.process_time() - begin)
    return sorted(found)[times // 2]


def candle_columns(candles: Columns, names: str = "t open high low close volume") -> CandleColumns:
    columns = ("t", "open", "high", "low", "close", "volume")
    return CandleColumns(
        *([np.asarray(candles[name], dtype=np.int64)] if name in names.split() else [] for name in columns)
    )


def units_spec(year: Columns) -> Spec:
    span = {"start": int(year["t"][0]), "end": int(year["t"][-1]) + 60_000}
    return Spec(symbol="X", strategy="sma_cross", params={}, account="units", **span)


def sma(year: Columns, candles: CandleColumns) -> None:
    units = units_spec(year)
    cash = msgspec.structs.replace(units, account="cash", capital=10**12)
    window = SliceWindow(candles, 0, int(candles.n), True)
    one = [(0, build("sma_cross", {"fast": 10, "slow": 50}))]
    many = [(k, build("sma_cross", {"fast": 5 + k % 40, "slow": 50 + k})) for k in range(200)]
    for name, sets, times in (("one run", one, 9), ("200 sets", many, 3)):
        took = {spec.account: seconds(lambda s=spec, x=sets: run_slice(s, window, x), times) for spec in (units, cash)}
        ratio = took["cash"] / took["units"]
        print(f"{name}: units {took['units'] * 1e3:.1f} ms, cash {took['cash'] * 1e3:.1f} ms, {ratio:.2f} x")
    trades = summary_of(run_slice(cash, window, one).outcomes[0]).trades
    print(f"trades of the one run: {trades:,}")


def margin(year: Columns, candles: CandleColumns) -> None:
    """One run of strategies over the year in an account of real money, without and with isolated margin."""
    window = SliceWindow(candles, 0, int(candles.n), True)
    span = {"symbol": "X", "start": int(year["t"][0]), "end": int(year["t"][-1]) + 60_000}
    tiers = {"X": [TierTable(0, [Tier(0, 4_000, 0), Tier(50_000 * 10**8, 5_000, 50 * 10**8)])]}
    for name in ("sma_cross", "breakout_stop", "grid"):
        cash = Spec(strategy=name, params={}, account="cash", capital=10**12, leverage=20_000_000, **span)
        cash = msgspec.structs.replace(cash, size="notional", notional=5 * 10**12)
        jobs = {"none": cash, "isolated": msgspec.structs.replace(cash, margin="isolated", tiers=tiers)}
        sets = [(0, build(name, {}))]
        took = {key: seconds(lambda s=spec, x=sets: run_slice(s, window, x)) for key, spec in jobs.items()}
        found = summary_of(run_slice(jobs["isolated"], window, sets).outcomes[0])
        print(
            f"{name}: {took['none'] * 1e3:.1f} ms, with margin {took['isolated'] * 1e3:.1f} ms, "
            f"{found.fills:,} fills, {found.liquidations:,} liquidations"
        )


def events(candles: CandleColumns) -> None:
    """Entries and exits in turn, with everything around the settling."""
    t, close = candles.columns()["t"], candles.columns()["close"]
    at = np.arange(1, len(t), 3)
    fills, before = FillTape(), 0
    for minute, made, price in zip(t[at].tolist(), t[at - 1].tolist(), close[at].tolist(), strict=True):
        after = 0 if before else 10**6
        fills.add(minute, AT_OPEN, made, TARGET, NO_KEY, before, after, after, 0, price, price, 1000, int(before == 0))
        before = after
    rules, quotes = AccountRules(), {"X": Quotation(t, close, candles=candles)}
    took = seconds(lambda: settle({"X": fills}, quotes, rules, opened(rules, ["X"])))
    print(f"settle: {len(at) / took / 1e6:.1f} million events/s")


def again(year: Columns) -> None:
    """Ten years in the slices of their plan, decided and settled; then settled again with other money."""
    count = len(year["t"])
    t = year["t"][0] + 60_000 * np.arange(10 * count)
    columns = {name: np.tile(column, 10) for name, column in year.items()} | {"t": t}
    spec = Spec(symbol="X", strategy="sma_cross", params={}, account="cash", capital=10**12, start=int(t[0]),
                end=int(t[-1]) + 60_000)  # fmt: skip
    sets = [(0, build("sma_cross", {"fast": 10, "slow": 50}))]
    edges = np.append(np.arange(0, len(t), 262_080), len(t))
    texts: list[str] = []

    def decide() -> None:
        texts.clear()
        for lo, hi in pairwise(edges.tolist()):
            a = max(0, lo - 4_400)
            bars = candle_columns({name: column[a:hi] for name, column in columns.items()}, "t open close")
            done = run_slice(spec, SliceWindow(bars, lo - a, hi - a, a == 0), sets, None, True)
            texts.append(done.outcomes[0].tape)

    def settle_with(spec: Spec, read: Callable[[str], Tape]) -> Any:
        rules = account_rules(spec)
        assert rules is not None
        return settled(map(read, texts), rules_of(spec), rules, lambda a, b: (t, columns["close"]))

    decided = seconds(decide, 3)
    other = msgspec.structs.replace(spec, capital=5 * 10**11, fee=500, step=10**5)
    first = seconds(lambda: settle_with(spec, unpacked), 5)
    settle_with(spec, TAPES.get)
    second = seconds(lambda: settle_with(other, TAPES.get), 5)
    fills = sum(len(unpacked(text).columns()["bar"]) for text in texts)
    size = sum(map(len, texts))
    print(f"ten years: decided {decided * 1e3:.0f} ms, settled {first * 1e3:.1f} ms, again with other money "
          f"{second * 1e3:.1f} ms, {second / (decided + first):.2f} x; {size / fills:.1f} bytes a fill")  # fmt: skip


def pairs(year: Columns, candles: CandleColumns, count: int) -> None:
    """A sweep of so many pairs of averages over the year in both accounts, by turns."""
    window, spec = SliceWindow(candles, 0, int(candles.n), True), units_spec(year)
    grid = [(fast, slow) for fast in range(5, 5 + 2 * 25, 2) for slow in range(60, 60 + 5 * (count // 25), 5)]
    sets = [(k, build("sma_cross", {"fast": fast, "slow": slow})) for k, (fast, slow) in enumerate(grid)]
    took: dict[str, list[float]] = {"units": [], "cash": []}
    for _ in range(3):
        for account, tries in took.items():
            one = msgspec.structs.replace(spec, account=account, capital=10**12 if account == "cash" else spec.capital)
            tries.append(seconds(lambda s=one: run_slice(s, window, sets), 1))
    a, b = (min(tries) for tries in took.values())
    print(f"{len(sets):,} pairs: units {a:.2f} s, cash {b:.2f} s, {b / a:.2f} x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, help="only a sweep of so many pairs of averages")
    given = parser.parse_args()
    candles = synthetic.year(1, 2024, 30_000.0)
    minutes = candle_columns(candles)
    if given.pairs:
        pairs(candles, minutes, given.pairs)
    else:
        sma(candles, minutes)
        margin(candles, minutes)
        events(minutes)
        again(candles)
