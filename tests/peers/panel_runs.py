"""Panels of real candles in hourly bars: candlemill's fills and equity, and those of a peer beside them."""

import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pytest
from candlemill.backtests.grid import parameters_of
from candlemill.backtests.spec import Spec
from candlemill.local import worker_pool
from candlemill.strategies import REGISTERED, Panel, PanelStrategy, build
from candlemill.units import SCALE, parse_range
from candles import SPOT
from numpy.typing import NDArray
from panel_world import PanelWorld
from reference.candles import read
from tally import PAGE_VARIABLE, write

SYMBOLS = ("BTCUSDT", "BTTUSDT", "DOGEUSDT", "ETHUSDT", "XRPUSDT")
START, END = parse_range("2021-05-04..2021-05-19")
HOUR = 3_600_000
FEE = 1000  # ppm
CAPITAL = 10_000
NEAR = 1e-6  # of a fill and the position: both round, and what equities are apart sizes the next order
Floats = NDArray[np.float64]

AGAINST = "the weight rose and the quantity would have fallen, or the other way round"
FOLLOWS = "sizes that follow from another difference"


class Ranked(PanelStrategy, frozen=True):
    """`long` ppm of each of the `top` symbols that rose most over `length` hours, `short` ppm of the others."""

    length: int = 24
    top: int = 2
    long: int = 300_000
    short: int = 0

    def lookback(self) -> int:
        return self.length

    def positions(self, panel: Panel) -> Any:
        out = np.zeros(panel.close.shape)
        ago = panel.ago(panel.close, self.length).astype(float)
        ready = np.flatnonzero((ago > 0).all(axis=1))
        ranks = np.argsort(np.argsort(-panel.close[ready] / ago[ready], axis=1, kind="stable"), axis=1)
        out[ready] = np.where(ranks < self.top, self.long, self.short) / 1e6
        return out


class Simulated(NamedTuple):
    """Quantity bought (signed) and price by hour of the fill and symbol, 0 where there is none; equity at each hour's
    close."""

    bought: Floats
    price: Floats
    equity: Floats


class PanelRun(NamedTuple):
    opens: Floats  # [T, K]
    closes: Floats
    weights: Floats  # decided at the hour's close; NaN where nothing is traded: the weight is the one before
    ours: Simulated


class PanelAgreement(NamedTuple):
    fills: int
    same: int
    reasons: Counter[str]
    quantity: float  # largest difference of the same fills, in ppm of fill and position
    equity: float  # largest difference of any hour, in ppm of the capital


@cache
def candles() -> dict[str, Any]:
    return {name: [bar for bar in read(SPOT / f"{name}-1m-2021-05.zip") if START <= bar.t < END] for name in SYMBOLS}


@cache
def hours() -> Panel:
    """The hourly bars of all symbols, which have a candle in each."""
    size = ((END - START) // HOUR, len(SYMBOLS))
    opens, highs, lows, closes, volumes = (np.zeros(size, dtype=np.int64) for _ in range(5))
    for k, name in enumerate(SYMBOLS):
        for bar in reversed(candles()[name]):
            opens[(bar.t - START) // HOUR, k] = bar.open
        for bar in candles()[name]:
            closes[(bar.t - START) // HOUR, k] = bar.close
    present = np.ones(size, dtype=bool)
    assert opens.all()
    t = START + HOUR * np.arange(size[0])
    return Panel(SYMBOLS, 60, t, opens, highs, lows, closes, volumes, present, present)


def changes(targets: NDArray[np.int64]) -> Floats:
    """Weights where another one is wanted than the one that was traded last, else NaN."""
    before = np.vstack((np.zeros((1, targets.shape[1]), dtype=np.int64), targets[:-1]))
    return np.where(targets == before, np.nan, targets / 1e6)


@cache
def run_of(strategy: str, params: tuple[tuple[str, int], ...], leverage: int = 1) -> PanelRun:
    REGISTERED["ranked"] = Ranked
    try:
        return _run(strategy, dict(params), leverage)
    finally:
        del REGISTERED["ranked"]


def _run(strategy: str, params: dict[str, int], leverage: int) -> PanelRun:
    own = build(strategy, params)
    assert isinstance(own, PanelStrategy)
    panel, world = hours(), PanelWorld(candles())
    spec = Spec(symbol=",".join(SYMBOLS), strategy=strategy, params=parameters_of(own), start=START, end=END,
                account="cash", capital=CAPITAL * SCALE, fee=FEE, timeframe=60, leverage=leverage * 10**6)  # fmt: skip
    (result,) = world.run(spec)
    own_spec = msgspec.convert(result["spec"], Spec)
    trace = worker_pool.replayed(own_spec, result, world.runtime.candles, world)  # type: ignore[arg-type]
    bought, price = np.zeros(panel.close.shape), np.zeros(panel.close.shape)
    fills, of = trace.fills, trace.panel
    assert fills is not None and of is not None and of.symbols == SYMBOLS
    for row in np.flatnonzero(fills.quantity):
        at = (fills.t[row] - START) // HOUR, of.of_fill[row]
        bought[at] += fills.side[row] * fills.quantity[row] / SCALE
        price[at] = fills.price[row] / SCALE
    ends = np.searchsorted(trace.t, panel.t + HOUR) - 1
    equity = (trace.equity[ends] + trace.capital) / SCALE
    weights = changes(own.targets(panel))
    return PanelRun(panel.open / SCALE, panel.close / SCALE, weights, Simulated(bought, price, equity))


def compare(run: PanelRun, theirs: Simulated, reason: dict[tuple[int, int], str] | None = None) -> PanelAgreement:
    """Fills in the same hour, of the same symbol, quantity and price are the same. `reason` has one for fills of some
    hours and symbols; after the first of these, sizes follow."""
    ours, known = run.ours, reason or {}
    same, apart, reasons = 0, 0.0, Counter[str]()
    size = np.abs(ours.bought) + np.abs(np.cumsum(ours.bought, axis=0)) + 1 / SCALE
    either = np.argwhere((ours.bought != 0) | (theirs.bought != 0))
    for row, k in either.tolist():
        away = float(abs(ours.bought[row, k] - theirs.bought[row, k]) / size[row, k])
        if away <= NEAR and abs(ours.price[row, k] - theirs.price[row, k]) <= 1 / SCALE:
            same += 1
            apart = max(apart, away * 1e6)
        else:
            later = any(one[0] <= row for one in known)
            reasons[known.get((row, k), FOLLOWS if later else "none")] += 1
    equity = float(np.abs(ours.equity - theirs.equity).max()) / CAPITAL * 1e6
    return PanelAgreement(int((ours.bought != 0).sum()), same, reasons, apart, equity)


CASES: dict[str, tuple[str, tuple[tuple[str, int], ...]]] = {
    "the best 2 of 5, 30 % each": ("ranked", (("length", 24), ("top", 2), ("long", 300_000), ("short", 0))),
    "long the best 2, short the others": (
        "ranked", (("length", 12), ("top", 2), ("long", 250_000), ("short", -150_000)),
    ),
    "inverse volatility, 90 %": ("inverse_volatility", (("length", 24), ("every", 1), ("gross", 900_000))),
}  # fmt: skip


def frame(values: Floats) -> pd.DataFrame:
    return pd.DataFrame(values, index=pd.to_datetime(hours().t, unit="ms"), columns=list(SYMBOLS))


HEADERS = ("compared", "fills", "the same", "not", "why not", "quantity apart, ppm", "equity apart, ppm")
Tally = dict[str, PanelAgreement]


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """What a module counted, written into the page that CANDLEMILL_PEERS_PAGE names."""
    found: Tally = {}
    yield found
    page = os.environ.get(PAGE_VARIABLE)
    if page:
        lines = [HEADERS, ("---",) * len(HEADERS), *((name, *cells(one)) for name, one in found.items())]
        write(Path(page), request.module.PEER, "\n".join(f"| {' | '.join(line)} |" for line in lines))


def cells(found: PanelAgreement) -> tuple[str, ...]:
    reasons = "; ".join(f"{reason}: {count:,}" for reason, count in found.reasons.most_common())
    counts = (f"{count:,}" for count in (found.fills, found.same, found.reasons.total()))
    return (*counts, reasons or "–", f"{found.quantity:.2f}", f"{found.equity:.2f}")
