"""Small jobs of all kinds on small markets, and the bits that each must end with."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import msgspec
import numpy as np
from candlemill import plan, reduce, service, work
from candlemill.daily import pack
from candlemill.errors import CandlemillError
from candlemill.guards import sweep_guards, thinned
from candlemill.io.coverage import count_days
from candlemill.io.tapes import Tapes
from candlemill.ledger import Funding, ResultRow
from candlemill.model import SCALE, Spec, grid_points, job_id, resolve
from candlemill.plan import Day, make_plan
from candlemill.reduce import Merged, Outcomes, join, result_of
from candlemill.work import COLD, COLUMNS, run_task
from numpy.typing import NDArray

DAY_MS, MINUTE_MS = 86_400_000, 60_000
FIRST_DAY = 1_609_459_200_000  # 2021-01-01
DAYS = 6
BARS_A_DAY = 24
SYMBOLS = ("AAA", "BBB", "CCC")
CORRECTED_DAY = 2

# Limits so low that a few bars and sets reach them.
SMALL = [
    (work, "WARM_UP_BARS", 3),
    (work, "WARM_UP_LIMIT", 3),
    (plan, "BATCH_SETS", 3),
    (service, "REPAIR_EVENT_POINTS", 2),
    (service, "REPAIR_EVENT_SLICES", 3),
    (reduce, "REPAIR_LIMIT", 3),
]

Columns = dict[str, NDArray[Any]]


class Candles(msgspec.Struct, frozen=True):
    """A symbol's candles as they are at one time, with their index."""

    columns: Columns
    days: list[Day]


class Market(msgspec.Struct, frozen=True):
    """A symbol's candles before, between and after a correction; `funding` stays."""

    stages: list[Candles]
    funding: Funding


@contextmanager
def small_limits() -> Iterator[None]:
    before = [(module, name, getattr(module, name)) for module, name, _ in SMALL]
    for module, name, value in SMALL:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, old in before:
            setattr(module, name, old)


@cache
def market(symbol: str) -> Market:
    first = _columns(SYMBOLS.index(symbol))
    later = {name: column.copy() for name, column in first.items()}
    k = CORRECTED_DAY * BARS_A_DAY + 5
    later["close"][k] = later["high"][k]
    later["volume"][k] += 10**8
    days, new_days = count_days(first), count_days(later)
    unsure = [msgspec.structs.replace(d, digest="") if k == CORRECTED_DAY else d for k, d in enumerate(days)]
    # A writer marks the day, writes, and the day is counted.
    stages = [Candles(first, days), Candles(first, unsure), Candles(later, unsure), Candles(later, new_days)]
    instants = np.arange(FIRST_DAY, FIRST_DAY + DAYS * DAY_MS, DAY_MS // 3)
    rates = np.array([7_777 * (-1) ** k for k in range(len(instants))])
    return Market(stages, Funding(instants, rates))


def _columns(seed: int) -> Columns:
    """A walk with a bar an hour or so, and a hole."""
    rng = random.Random(seed)
    rows, price = [], 10**10
    for k in range(DAYS * BARS_A_DAY):
        opened = price + rng.randint(-(10**7), 10**7)
        price = max(10**9, opened + rng.randint(-(10**8), 10**8))
        high, low = max(opened, price) + rng.randint(0, 10**7), min(opened, price) - rng.randint(0, 10**7)
        if k % 50 != 7:
            t = FIRST_DAY + k * (1440 // BARS_A_DAY) * MINUTE_MS
            rows.append((t, opened, high, low, price, rng.randint(0, 10**10)))
    table = np.array(rows, dtype=np.int64)
    columns = {name: table[:, k].copy() for k, name in enumerate(COLUMNS)}
    return columns | {"volume": columns["volume"].astype(np.uint64)}


# -- jobs ----------------------------------------------------------------------------------------------------------


def _spec(symbol: str, strategy: str, params: dict[str, Any], grid: dict[str, Any] | None = None, **rest: Any) -> Spec:
    span = (rest.pop("start", FIRST_DAY), rest.pop("end", FIRST_DAY + DAYS * DAY_MS))
    return resolve(symbol=symbol, strategy=strategy, span=span, params=params, grid=grid, **rest)


@cache
def families() -> list[list[Spec]]:
    """Windowed and stateful strategies, with and without stops, single ones and sweeps of several batches. Those of a
    family have something in common: a set of one is another one's, or their ranges overlap."""
    cross = {"fast": 2, "slow": 5, "allow_short": True}
    ema = {"sizing": "compound", "funding": True}
    schedule = [{"start": FIRST_DAY + k * 2 * DAY_MS, "params": {"fast": 2 + k, "slow": 6}} for k in range(3)]
    four, five = ({"end": FIRST_DAY + days * DAY_MS} for days in (4, 5))
    return [
        [
            _spec(
                "AAA", "sma_cross", {}, {"fast": [2, 3, 4], "slow": [3, 5, 9], "allow_short": [True]}, stop_loss=20_000
            ),
            _spec("AAA", "sma_cross", {"slow": 5, "allow_short": True}, {"fast": [2, 3, 4]}, stop_loss=20_000, **five),
            _spec("AAA", "sma_cross", cross, stop_loss=20_000),
            _spec("AAA", "sma_cross", cross, stop_loss=20_000, **four),
        ],
        [
            _spec("BBB", "donchian", {"exit": 5}, {"entry": [4, 8, 12, 20]}, trailing_stop=20_000),
            _spec("BBB", "donchian", {"entry": 8, "exit": 5}, trailing_stop=20_000),
            _spec("BBB", "donchian", {"entry": 8, "exit": 5}, trailing_stop=20_000, **five),
            _spec("BBB", "donchian", {"entry": 20, "exit": 15}, take_profit=30_000, fill="close"),
        ],
        [  # every guess is wrong
            _spec("CCC", "buy_and_hold", {}, stop_loss=150_000),
            _spec("CCC", "buy_and_hold", {}, stop_loss=150_000, **four),
            _spec("CCC", "buy_and_hold", {}, trailing_stop=200_000, sizing="compound"),
        ],
        [
            _spec("CCC", "ema_cross", {"slow": 9}, {"fast": [2, 3, 5, 7]}, **ema),
            _spec("CCC", "ema_cross", {"fast": 3, "slow": 9}, **ema),
            _spec("CCC", "ema_cross", {"fast": 3, "slow": 9}, **ema, **four),
        ],
        [
            _spec("AAA", "sma_cross", {}, schedule=schedule, trailing_stop=15_000),
            _spec("BBB", "macd", {"fast": 3, "slow": 8, "signal": 4, "allow_short": True}, slippage=500),
            _spec("BBB", "supertrend", {"length": 5, "multiple": 200}, sizing="notional", volume_share=10_000),
            _spec("CCC", "momentum_v1", {"lookback": 6}, timeframe=120, start=FIRST_DAY + DAY_MS),
            _spec("CCC", "rsi_reversion", {"length": 5, "low": 30, "exit": 50, "high": 70}, funding=True),
        ],
    ]


# -- what must come out --------------------------------------------------------------------------------------------


class Bits(msgspec.Struct, frozen=True):
    """A job's results by the ids of its sets, as digest and daily profits; and a sweep's guards."""

    results: dict[str, tuple[str, str]]
    figures: str


def bits_of(row: ResultRow) -> tuple[str, str]:
    return str(msgspec.json.decode(row.result)["result_digest"]), row.daily


@cache
def expected(spec_json: str, data_digest: str) -> Bits | None:
    """The uncut run's, on the candles that have this digest; None where no candles have."""
    spec = msgspec.json.decode(spec_json, type=Spec)
    for candles in market(spec.symbol).stages[::3]:
        still = Still(spec.symbol, candles)
        if service.digest_of_data(still, spec, service.days_in(still, spec)) == data_digest:
            try:
                return _uncut(still, spec, data_digest)
            except CandlemillError:  # one that has no result
                return Bits({}, "")
    return None


class Still:
    """An index of one symbol, and its store, that never change."""

    def __init__(self, symbol: str, candles: Candles) -> None:
        self._symbol, self._candles = symbol, candles

    def symbols(self) -> list[str]:
        return [self._symbol]

    def days(self, symbol: str) -> list[Day]:
        return self._candles.days

    def volume_scale(self, symbol: str) -> int:
        return SCALE

    def funding(self, symbol: str) -> Funding:
        return market(symbol).funding

    def read_columns(self, symbol: str, start: int, end: int, names: Sequence[str]) -> Columns:
        return read(self._candles, start, end, names)


def read(candles: Candles, start: int, end: int, names: Sequence[str]) -> Columns:
    """Rows of `start <= t < end`, as a store gives them."""
    rows = slice(*np.searchsorted(candles.columns["t"], [start, end]).tolist())
    return {name: candles.columns[name][rows] for name in ("t", *names)}


def _uncut(still: Still, spec: Spec, data_digest: str) -> Bits:
    """Every set over the whole range in one go from a cold start: no handler, no cut, no hand-over."""
    whole = make_plan(spec, still.days(spec.symbol), 1)
    window = Tapes(still.days, still).window(spec, spec.start, spec.end, 0, COLUMNS)  # type: ignore[arg-type]
    if spec.funding:
        funding = still.funding(spec.symbol)
        window.tape.add_funding(funding.t, funding.rate)
    results, sets, daily = {}, [], []
    for point, params, strategy in grid_points(spec, 0, spec.combinations):
        outcomes = Outcomes()
        outcomes.add(0, True, run_task(spec, window, [(point, strategy)], {point: COLD}))
        merged = join(outcomes, point, 1)
        assert isinstance(merged, Merged)
        own = job_id(spec.single(params), data_digest)
        result, profits = result_of(spec.single(params), whole, merged, own, data_digest)
        results[own] = (str(result["result_digest"]), pack(merged.days, profits))
        sets.append((params, int(str(result["sharpe_ratio"]))))
        daily.append(profits)
    if len(sets) < 2:
        return Bits(results, "")
    rows = thinned(len(sets), max(range(len(sets)), key=lambda k: sets[k][1]))
    matrix = np.stack([np.array(daily[k], dtype=np.int64) for k in rows])
    return Bits(results, msgspec.json.encode(sweep_guards(matrix, rows, sets, spec.grid)).decode())
