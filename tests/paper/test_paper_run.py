"""A paper run says what a backtest over the same candles says, whatever the candles' order and however it is killed."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import hypothesis.strategies as st
import msgspec
import numpy as np
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import Spec
from candlemill.backtests.tiers import Tier, TierTable
from candlemill.paper.candles import NAMES, Row, day_of
from candlemill.paper.decision import Decision
from candlemill.paper.inputs import Facts, facts_of, mark_of, names_of
from candlemill.paper.run import LAST, PaperRun, Stored, resume
from candlemill.pipeline.rows import PaperLogRow
from candlemill.store.candle_writer import count_days
from candlemill.stored_days import Day, Funding
from candlemill.units import LAST_MS
from hypothesis import given, settings
from slow_engine import MINUTE, Bar
from world import FIRST_DAY, World, bar_lists

RUN = "0" * 32
DAY_MS = 86_400_000
PERPETUAL, PANEL = "BINANCE-UM:X", "AAA,BBB,CCC"
MARGIN = {"leverage": 20_000_000, "size": "units", "quantity": 10**10}
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("X", "sma_cross", {"fast": 2, "slow": 5}, {}),
    ("X", "sma_cross", {"fast": 2, "slow": 5, "allow_short": True}, {"account": "units", "stop_loss": 20_000}),
    ("X", "momentum_v1", {"lookback": 7}, {"account": "units", "sizing": "compound"}),
    ("X", "sma_cross", {"fast": 1, "slow": 3}, {"timeframe": 7, "fill": "close"}),
    ("X", "donchian", {"entry": 5, "exit": 3}, {"timeframe": 60, "take_profit": 30_000, "warm_up": "stored"}),
    ("X", "donchian", {"entry": 5, "exit": 3}, {"account": "units", "trailing_stop": 20_000}),
    ("X", "sma_cross", {"fast": 2, "slow": 5}, {"path": "best", "stop_loss": 10_000, "take_profit": 10_000}),
    ("X", "pullback_limit", {"lookback": 5}, {}),
    ("X", "grid", {"levels": 2}, {"timeframe": 15, "warm_up": "stored"}),
    ("X", "breakout_stop", {"entry": 6}, {"account": "units"}),
    ("X", "buy_and_hold", {}, {"borrow": 100, "timeframe": 4320}),
    ("X", "sma_cross", {"fast": 2, "slow": 5}, {"account": "cash", "volume_share": 1_000}),
    ("X", "grid", {"levels": 2}, {"account": "cash", "volume_share": 300}),
    ("X", "sma_cross", {"fast": 2, "slow": 5, "allow_short": True}, {"account": "units", "funding": True}),
    ("X", "momentum_v1", {"lookback": 7}, {"funding": True}),
    (PERPETUAL, "sma_cross", {"fast": 2, "slow": 5, "allow_short": True}, {"margin": "isolated", **MARGIN}),
    (PERPETUAL, "momentum_v1", {"lookback": 7}, {"margin": "cross", "funding": True, **MARGIN}),
    (PERPETUAL, "grid", {"levels": 2}, {"margin": "cross", "funding": True, "timeframe": 7, "leverage": 30_000_000}),
    (PANEL, "xs_momentum", {"lookback": 5, "top": 2, "every": 2}, {}),
    (
        PANEL,
        "xs_momentum",
        {"lookback": 3, "top": 1, "every": 1},
        {"timeframe": 7, "stop_loss": 20_000, "funding": True},
    ),
    (PANEL, "inverse_volatility", {"length": 4, "every": 2}, {"timeframe": 60, "fill": "close", "delist_after": 5}),
    (PANEL, "xs_momentum", {"lookback": 4, "top": 1, "every": 1}, {"universe": "AAA,CCC", "warm_up": "stored"}),
    ("AAA,BBB", "pair_reversion", {"length": 4, "exit": 10, "entry": 60}, {"leverage": 2_000_000, "borrow": 300}),
]


def spec_of(case: int, start: int) -> Spec:
    symbol, strategy, params, options = CASES[case]
    scale = {"volume_scale": 10**8} if options.get("volume_share") else {}
    return resolve(symbol=symbol, strategy=strategy, span=(start, LAST_MS), params=params, **options, **scale)


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


class Markets(World):
    """A world of candles by name, and the facts of a run."""

    def __init__(self, candles: dict[str, list[Row]], facts: Facts) -> None:
        self._columns = {name: columns_of(rows) for name, rows in candles.items()}
        self._counted = {name: count_days(columns) for name, columns in self._columns.items()}
        self._facts = facts
        super().__init__([])

    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> dict[str, Any]:
        columns = self._columns[symbol]
        inside = (columns["t"] >= start) & (columns["t"] < end)
        return {name: columns[name][inside] for name in ("t", *names)}

    def symbols(self) -> list[str]:
        return sorted(self._columns)

    def days(self, symbol: str, start: int = 0, end: int = 1 << 62) -> list[Day]:
        return self._counted.get(symbol, [])

    def funding(self, symbol: str) -> Funding:
        return self._facts.funding(symbol)

    def margin_tiers(self, symbol: str) -> list[TierTable]:
        return self._facts.tiers.get(symbol, [])


class Desk:
    """A run with a store of candles and facts and a log, which may be killed at any time."""

    def __init__(self, spec: Spec, since: int, facts: Facts) -> None:
        self.spec, self.since, self.facts = spec, since, facts
        self.stored: dict[str, dict[int, Row]] = {name: {} for name in names_of(spec)}
        self.log: list[PaperLogRow] = []
        self.run: PaperRun | None = None

    def store(self, candles: dict[str, list[Row]]) -> None:
        for name, rows in candles.items():
            self.stored[name] |= {row[0]: row for row in rows}

    def restart(self) -> None:
        columns = {name: columns_of(list(rows.values())) for name, rows in self.stored.items()}
        first = 0 if self.spec.warm_up == "stored" else day_of(self.spec.start)
        days = {name: count_days(found) for name, found in columns.items()}
        before = {name: [day for day in of if first <= day.start <= self.spec.start] for name, of in days.items()}
        kept = [msgspec.json.decode(msgspec.json.encode(row), type=PaperLogRow) for row in self.log]
        stored = Stored(columns, day_of(self.spec.start), set(columns), before, self.facts)
        self.run, rows = resume(RUN, self.spec, self.since, stored, kept)
        self.log += rows

    def bring(self, candles: dict[str, list[Row]], stored: bool = True, due: int = 0) -> None:
        if stored:
            self.store(candles)
        assert self.run is not None
        first = day_of(self.spec.start)
        if any(first <= row[0] < self.run.kept_from for row in chain(*candles.values())):
            self.store(candles)
            self.restart()
        else:
            self.log += self.run.take(candles, due)

    def learn(self, facts: Facts) -> None:
        assert self.run is not None
        changed = self.run.facts.first_change(facts, self.spec.start)
        self.facts = facts
        if changed is not None and changed < self.run.kept_from:
            self.restart()
        else:
            self.log += self.run.learn(facts)

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


def market_of(draw: Any, spec: Spec) -> dict[str, list[Row]]:
    """Candles of the run's symbols, and mark prices of most of their minutes."""
    found = {}
    for name in spec.symbols:
        found[name] = [row_of(bar) for bar in priced(draw(bar_lists(300 if len(spec.symbols) == 1 else 80)))]
    if (mark := mark_of(spec)) is not None:
        chance = random.Random(draw(st.integers(0, 99)))
        rows = [row for row in found[spec.symbol] if chance.random() < 0.8]
        found[mark] = [
            (t, *(price + chance.randrange(3) * 10**5 for price in (o, h, low, c)), 0) for t, o, h, low, c, _ in rows
        ]
    return found


def facts_in(spec: Spec, end: int, chance: random.Random, late: float) -> Facts:
    """Rates every two hours and at the last minute, a share of which is not known yet, and tiers that change once."""
    times = [*range(FIRST_DAY, end, 120 * MINUTE), end]
    known = [t for t in times if chance.random() >= late or t == end]
    rates = {}
    for name in spec.symbols if spec.funding else ():
        rates[name] = Funding(np.array(known), np.array([(t // MINUTE * 7_919 % 5 - 2) * 400_000 for t in known]))
    tables = [
        TierTable(FIRST_DAY - DAY_MS, [Tier(0, 4_000, 0)]),
        TierTable(FIRST_DAY + 3_000 * MINUTE, [Tier(0, 9_000, 0)]),
    ]
    tiers = {spec.symbol: tables[: 1 if chance.random() < late else 2]} if spec.margin != "none" else {}
    return facts_of(spec, rates, tiers, "")


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(0, len(CASES) - 1), st.integers(0, 1 << 30))
def test_the_result_is_that_of_a_backtest_over_the_same_candles(data: Any, case: int, seed: int) -> None:
    """Candles come late, twice, in other versions first, and so do rates and tiers; the run is killed, and candles that
    it used are not stored."""
    chance = random.Random(seed)
    market = market_of(data.draw, spec_of(case, FIRST_DAY))
    times = sorted({row[0] for name in spec_of(case, FIRST_DAY).symbols for row in market[name]})
    start = chance.choice([times[0], chance.choice(times), times[0] + chance.randrange(200) * MINUTE])
    spec = spec_of(case, min(start, times[-1]))
    since = chance.choice([spec.start, spec.start + chance.randrange(300) * MINUTE, chance.choice(times)])
    late = 0.5
    desk = Desk(spec, max(spec.start, since), facts_in(spec, times[-1], chance, late))
    desk.store({name: [row for row in rows if row[0] < spec.start] for name, rows in market.items()})
    desk.restart()
    coming = disturbed({name: [row for row in rows if row[0] >= spec.start] for name, rows in market.items()}, chance)
    while coming:
        some, coming = coming[: (n := chance.choice([1, 1, 1, 2, 40]))], coming[n:]
        candles: dict[str, list[Row]] = {}
        for name, row in some:
            candles.setdefault(name, []).append(row)
        desk.bring(candles, stored=chance.random() < 0.8, due=chance.choice([0, 0, LAST]))
        if chance.random() < 0.03:
            desk.learn(facts_in(spec, times[-1], chance, late))
        if chance.random() < 0.1:
            desk.restart()
    desk.bring(market)  # in the end all candles are stored
    desk.learn(facts := facts_in(spec, times[-1], chance, 0))
    desk.restart()
    assert desk.run is not None and desk.run.waiting is None
    (expected,) = Markets(market, facts).run(msgspec.structs.replace(spec, end=times[-1] + MINUTE))
    found = desk.run.result()
    other = {name: (value, expected[name]) for name, value in found.items() if value != expected[name]}
    assert not other.keys() - {"slices", "repaired_slices"}, other
    calm = Desk(spec, desk.since, facts)
    calm.store(market)
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
    desk = Desk(spec, rows[2000][0], Facts())
    desk.restart()
    for first in range(0, n, 500):
        desk.bring({"X": rows[first : first + 500]})
    assert desk.run is not None and desk.run.kept_from > rows[1440][0]
    assert desk.run.result()["result_digest"] == result_of(spec, rows)
    t, o, h, low, c, v = rows[2500]
    rows[2500] = (t, o, h, low, low if c != low else h, v)
    desk.bring({"X": [rows[2500]]})
    assert desk.run.result()["result_digest"] == result_of(spec, rows)
    assert any(row.event.endswith("replayed.v1") and row.t == t for row in desk.log)
    assert max(one.attempt for one in desk.valid().values()) == 2


def test_mark_prices_of_a_day_without_candles_are_no_part_of_a_run() -> None:
    spec = spec_of(next(k for k, case in enumerate(CASES) if case[0] == PERPETUAL), FIRST_DAY)
    candles = [(FIRST_DAY + k * MINUTE, *[(30 + k % 7) * 10**8] * 4, 1) for k in (*range(200), *range(2900, 3000))]
    marks = [(FIRST_DAY + k * MINUTE, *[(30 + k % 5) * 10**8] * 4, 0) for k in range(3000)]
    mark, facts = str(mark_of(spec)), facts_in(spec, FIRST_DAY + 3000 * MINUTE, random.Random(1), 0)
    market = {PERPETUAL: candles, mark: marks}
    desk = Desk(spec, spec.start, facts)
    desk.store(market)
    desk.restart()
    ended = msgspec.structs.replace(spec, end=candles[-1][0] + MINUTE)
    (expected,) = Markets(market, facts).run(ended)
    assert desk.run is not None and desk.run.result()["job_id"] == expected["job_id"]
    traded = {PERPETUAL: candles, mark: [row for row in marks if not 1440 <= (row[0] - FIRST_DAY) // MINUTE < 2880]}
    assert Markets(traded, facts).run(ended) == [expected]


def result_of(spec: Spec, rows: Sequence[Row]) -> str:
    """The digest of a backtest over the candles until the last one."""
    world = World([Bar(*row) for row in rows])
    (found,) = world.run(msgspec.structs.replace(spec, end=rows[-1][0] + MINUTE))
    return str(found["result_digest"])


def disturbed(market: dict[str, list[Row]], chance: random.Random) -> list[tuple[str, Row]]:
    """The same candles, some later than others, some twice, some in a wrong version first."""
    out = []
    for name, rows in market.items():
        for t, o, h, low, c, v in rows:
            at, lucky = t / MINUTE, chance.random()
            if lucky < 0.05:
                out.append((at, name, (t, o, max(h, c + 1), low, c + 1, v)))
                at += chance.choice([0.5, 3, 50])
            elif lucky < 0.1:
                at += chance.choice([1.5, 4, 60])
            elif lucky < 0.15:
                out.append((at + chance.choice([0.1, 5]), name, (t, o, h, low, c, v)))
            out.append((at, name, (t, o, h, low, c, v)))
    return [(name, row) for _, name, row in sorted(out)]
