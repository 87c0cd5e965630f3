"""A paper run says what a backtest over the same candles says, whatever the candles' order and however it is killed."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.paper.candles import NAMES, Row, day_of
from candlemill.paper.decision import Decision
from candlemill.paper.run import PaperRun, resume
from candlemill.pipeline.rows import PaperLogRow
from candlemill.store.candle_writer import count_days
from candlemill.units import LAST_MS
from hypothesis import given, settings
from slow_engine import MINUTE, Bar
from world import FIRST_DAY, World, bar_lists

RUN = "0" * 32
DAY_MS = 86_400_000
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("sma_cross", {"fast": 2, "slow": 5}, {}),
    ("sma_cross", {"fast": 2, "slow": 5, "allow_short": True}, {"account": "units", "stop_loss": 20_000}),
    ("momentum_v1", {"lookback": 7}, {"account": "units", "sizing": "compound"}),
    ("sma_cross", {"fast": 1, "slow": 3}, {"timeframe": 7, "fill": "close"}),
    ("donchian", {"entry": 5, "exit": 3}, {"timeframe": 60, "take_profit": 30_000, "warm_up": "stored"}),
    ("donchian", {"entry": 5, "exit": 3}, {"account": "units", "trailing_stop": 20_000}),
    ("sma_cross", {"fast": 2, "slow": 5}, {"path": "best", "stop_loss": 10_000, "take_profit": 10_000}),
    ("pullback_limit", {"lookback": 5}, {}),
    ("grid", {"levels": 2}, {"timeframe": 15}),
    ("breakout_stop", {"entry": 6}, {"account": "units"}),
    ("buy_and_hold", {}, {"borrow": 100, "timeframe": 4320}),
]


def spec_of(case: int, start: int) -> Spec:
    strategy, params, options = CASES[case]
    return resolve(symbol="X", strategy=strategy, span=(start, LAST_MS), params=params, **options)


def priced(bars: list[Bar]) -> list[Bar]:
    """The same bars at prices from 0.01 on, so that accounts of real money can trade them."""
    tick = math.gcd(*(price for bar in bars for price in (bar.open, bar.high, bar.low, bar.close)))
    prices = ("open", "high", "low", "close")
    return [replace(bar, **{name: getattr(bar, name) // tick * 10**6 for name in prices}) for bar in bars]


def row_of(bar: Bar) -> Row:
    return bar.t, bar.open, bar.high, bar.low, bar.close, bar.volume


def columns_of(rows: Sequence[Row]) -> dict[str, Any]:
    table = np.array(sorted(rows), dtype=np.int64).reshape(-1, 6)
    return {name: table[:, k].copy() for k, name in enumerate(NAMES)}


class Desk:
    """A run with a store of candles and a log, which may be killed at any time."""

    def __init__(self, spec: Spec, since: int) -> None:
        self.spec, self.since = spec, since
        self.stored: dict[int, Row] = {}
        self.log: list[PaperLogRow] = []
        self.run: PaperRun | None = None

    def restart(self) -> None:
        before = [row for row in self.stored.values() if row[0] < day_of(self.spec.start) + DAY_MS]
        days = count_days(columns_of(before))
        kept = [msgspec.json.decode(msgspec.json.encode(row), type=PaperLogRow) for row in self.log]
        self.run, rows = resume(
            RUN,
            self.spec,
            self.since,
            columns_of(list(self.stored.values())),
            day_of(self.spec.start),
            True,
            kept,
            days,
        )
        self.log += rows

    def bring(self, rows: Sequence[Row], stored: bool = True) -> None:
        if stored:
            self.stored |= {row[0]: row for row in rows}
        assert self.run is not None
        if any(row[0] < self.run.kept_from and row[0] >= day_of(self.spec.start) for row in rows):
            self.stored |= {row[0]: row for row in rows}
            self.restart()
        else:
            self.log += self.run.take(rows)

    def valid(self) -> dict[int, Decision]:
        """The decisions that count in the end: of each minute that with the highest attempt."""
        found: dict[int, Decision] = {}
        for row in self.log:
            if row.event.endswith("decision.v1"):
                decision = msgspec.json.decode(row.data, type=Decision)
                before = found.get(decision.minute)
                assert decision.attempt == (before.attempt + 1 if before else 1), "attempts count up, one by one"
                found[decision.minute] = decision
        return found


def alike(decision: Decision) -> Decision:
    return msgspec.structs.replace(decision, attempt=1)


@settings(max_examples=25, deadline=None)
@given(bar_lists(), st.integers(0, len(CASES) - 1), st.integers(0, 1 << 30))
def test_the_result_is_that_of_a_backtest_over_the_same_candles(bars: list[Bar], case: int, seed: int) -> None:
    """Candles come late, twice, in other versions first; the run is killed, and candles that it used are not stored."""
    chance = random.Random(seed)
    bars = priced(bars)
    rows = [row_of(bar) for bar in bars]
    start = chance.choice([rows[0][0], chance.choice(rows)[0], rows[0][0] + chance.randrange(200) * MINUTE])
    if start > rows[-1][0]:
        start = rows[-1][0]
    spec = spec_of(case, start)
    since = chance.choice([start, start + chance.randrange(300) * MINUTE, chance.choice(rows)[0]])
    desk = Desk(spec, max(start, since))
    desk.stored = {row[0]: row for row in rows if row[0] < start}
    desk.restart()
    coming = disturbed([row for row in rows if row[0] >= start], chance)
    while coming:
        some, coming = coming[: (n := chance.choice([1, 1, 1, 2, 40]))], coming[n:]
        desk.bring(some, stored=chance.random() < 0.8)
        if chance.random() < 0.1:
            desk.restart()
    desk.bring(rows)  # in the end all candles are stored
    desk.restart()
    assert desk.run is not None
    (expected,) = World(bars).run(msgspec.structs.replace(spec, end=rows[-1][0] + MINUTE))
    found = desk.run.result()
    other = {name: (value, expected[name]) for name, value in found.items() if value != expected[name]}
    assert not other.keys() - {"slices", "repaired_slices"}, other
    calm = Desk(spec, desk.since)
    calm.stored = {row[0]: row for row in rows}
    calm.restart()
    valid, plain = desk.valid(), calm.valid()
    for t in valid.keys() | plain.keys():
        one = alike(valid[t])
        assert one == plain.get(t) or not (t in plain or one.decides or one.fills), (spec, one, plain.get(t))


def test_days_that_are_over_are_forgotten_and_read_again_for_a_correction() -> None:
    """Three full days; then a candle of the second one is corrected, which the run no longer holds."""
    rng = np.random.default_rng(5)
    n = 3 * 1440 + 200
    closes = (3_000 + np.cumsum(rng.integers(-5, 6, n))) * 10**8
    opens = np.append(closes[0], closes[:-1])
    columns = (opens, np.maximum(opens, closes) + 10**8, np.minimum(opens, closes) - 10**8, closes)
    rows = [
        (FIRST_DAY + k * MINUTE, *prices, 1)
        for k, prices in enumerate(zip(*(column.tolist() for column in columns), strict=True))
    ]
    spec = spec_of(0, rows[100][0])
    desk = Desk(spec, rows[2000][0])
    desk.restart()
    for first in range(0, n, 500):
        desk.bring(rows[first : first + 500])
    assert desk.run is not None and desk.run.kept_from > rows[1440][0]
    assert desk.run.result()["result_digest"] == result_of(spec, rows)
    t, o, h, low, c, v = rows[2500]
    rows[2500] = (t, o, h, low, low if c != low else h, v)
    desk.bring([rows[2500]])
    assert desk.run.result()["result_digest"] == result_of(spec, rows)
    assert any(row.event.endswith("replayed.v1") and row.t == t for row in desk.log)
    assert max(one.attempt for one in desk.valid().values()) == 2


def result_of(spec: Spec, rows: Sequence[Row]) -> str:
    """The digest of a backtest over the candles until the last one."""
    world = World([Bar(*row) for row in rows])
    (found,) = world.run(msgspec.structs.replace(spec, end=rows[-1][0] + MINUTE))
    return str(found["result_digest"])


def disturbed(rows: list[Row], chance: random.Random) -> list[Row]:
    """The same candles, some later than others, some twice, some in a wrong version first."""
    out = []
    for k, (t, o, h, low, c, v) in enumerate(rows):
        at, lucky = float(k), chance.random()
        if lucky < 0.05:
            out.append((at, (t, o, max(h, c + 1), low, c + 1, v)))
            at += chance.choice([0.5, 3, 50])
        elif lucky < 0.1:
            at += chance.choice([1.5, 4, 60])
        elif lucky < 0.15:
            out.append((at + chance.choice([0.1, 5]), (t, o, h, low, c, v)))
        out.append((at, (t, o, h, low, c, v)))
    return [row for _, row in sorted(out)]
