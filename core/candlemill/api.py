"""The Python API: `import candlemill as cm`, then `cm.backtest("BTCUSDT", "sma_cross", fast=10, slow=50)`.

The same jobs as the command line's, with the same addresses and results. docs/python.md shows it in use.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from candlemill.checks.examine import check as examine
from candlemill.engine.tape import Tape as EngineTape
from candlemill.errors import BadInput, UnknownName
from candlemill.exact import amount
from candlemill.frames import Kind, Series, Table
from candlemill.guards import parse_span
from candlemill.io import elsewhere
from candlemill.io.campaigns import run_portfolio, run_walk_forward
from candlemill.io.coverage import CANDLE_COLUMNS, current_days
from candlemill.io.jobs import Home, Options, fetch, run_job, run_one
from candlemill.io.session import Chosen, StrategyLike, progress_of, source_of
from candlemill.model import (
    FIRST_MS,
    LAST_MS,
    SCALE,
    Spec,
    grid_points,
    parse_decimal,
    parse_range,
    parse_timeframe,
    resolve,
)
from candlemill.owndata import Tape
from candlemill.plan import months_of
from candlemill.portfolio import parse_weights, symbols_of
from candlemill.runs import Check, Portfolio, Run, Sweep, WalkForward
from candlemill.show import missing_in, missing_of
from candlemill.strategies import REGISTERED, build, parameter_fields
from candlemill.work import columns_read

SymbolLike = str | Tape | Sequence[str] | Sequence[Tape]

RATES: Final = ("fee", "maker_fee", "slippage", "stop_loss", "take_profit", "trailing_stop", "volume_share")
AMOUNTS: Final = ("quantity", "capital", "notional")
CHOICES: Final = ("fill", "sizing", "funding", "timeframe")
HOW: Final = ("range", "params", "max_gap", "slices", "workers", "cache", "progress", "store")
OPTIONS: Final = (*HOW, *RATES, *AMOUNTS, *CHOICES)


def backtest(symbol: SymbolLike, strategy: StrategyLike, **options: Any) -> Any:
    """Run a strategy over candles: a Run, or a Portfolio of several symbols.

    `symbol` is a stored symbol or a Tape; a list of either, or a text like "BTCUSDT,ETHUSDT" or "*USDT", makes a
    portfolio (then `weights`, a dict by symbol). `strategy` is a name, "FILE.py:Class", a Strategy class or instance.

    Options, beside the strategy's own parameters by their names (`params`, a dict, for names that are taken):
    range="all": "2023", "2023-05", "2023-01-01..2023-06-30"; fee=1000, maker_fee, slippage, stop_loss, take_profit,
    trailing_stop, volume_share: parts per million; quantity, capital, notional: decimals, as text, int or float;
    fill="next_open" or "close"; sizing="fixed", "notional" or "compound"; timeframe="1m"; funding=False;
    max_gap (minutes); slices, workers: how to cut and spread it, never what comes out; cache=True: take what is stored;
    progress: True, False or where somebody looks; store: a database's DSN (CANDLEMILL_CLICKHOUSE_DSN).
    Raises errors derived from candlemill.CandlemillError, in one line each.
    """
    weights = options.pop("weights", None)
    asked = _Asked(symbol, strategy, options, grid=False)
    if not isinstance(symbol, str | Tape) or (isinstance(symbol, str) and set(symbol) & set(",*?[")):
        return _portfolio(asked, weights)
    if weights is not None:
        raise BadInput("weights are for portfolios: give several symbols")
    with asked.source.home() as home, progress_of("backtest", asked.shown) as update:
        row = run_one(home, asked.spec(home, asked.symbols[0]), asked.options, update)
    return Run(asked.source, asked.chosen, row)


def _portfolio(asked: "_Asked", given: Mapping[str, Any] | None) -> Portfolio:
    with asked.source.home() as home, progress_of("portfolio", asked.shown) as update:
        symbols = symbols_of(",".join(asked.symbols), home.store.symbols())
        texts = [f"{name}={amount(weight, f'weight of {name}')}" for name, weight in (given or {}).items()]
        weights = parse_weights(texts, symbols)
        spec = asked.spec(home, *symbols)
        result = run_portfolio(home, spec, weights, asked.options, update)
        rows = [fetch(home.store, part["job_id"]) for part in result["parts"]]
    return Portfolio(asked.source, asked.chosen, result, rows)


def sweep(symbol: str | Tape, strategy: StrategyLike, *, metric: str = "sharpe_ratio", **options: Any) -> Sweep:
    """Run a strategy for every combination of its parameters' values: a parameter given as a list, a range or an array
    is an axis of the grid, one value is for all. `metric` orders the sets; the other options are `backtest`'s."""
    asked = _Asked(symbol, strategy, options, grid=True)
    with asked.source.home() as home, progress_of("sweep", asked.shown) as update:
        job, _ = run_job(home, asked.spec(home, asked.symbols[0]), asked.options, update)
        row = home.store.job(job.job_id)
        found = home.store.sweep_results(job.job_id, ("sharpe_ratio",), True, None)
        results = [_slim(msgspec.json.decode(text)) for text in found]
    guards = msgspec.json.decode(row.figures) if row is not None and row.figures else None
    return Sweep(asked.source, asked.chosen, job.job_id, job.spec, results, guards, metric)


def _slim(result: dict[str, Any]) -> dict[str, Any]:
    """A set's figures without what all sets share."""
    del result["spec"], result["sharpe_recipe"]
    return result


def walk_forward(
    symbol: str | Tape,
    strategy: StrategyLike,
    *,
    train: str = "6mo",
    test: str = "1mo",
    anchored: bool = False,
    score: str = "sharpe_ratio",
    **options: Any,
) -> WalkForward:
    """Choose the best set of each training span ("90d", "6mo"), trade it in the test span after it, and so on to the
    range's end: the run of all choices, with its folds. `score` is "sharpe_ratio", "sortino_ratio" or "total_pnl";
    `anchored` lets every training begin at the range's start; the other options are `sweep`'s."""
    spans = parse_span(train), parse_span(test)
    asked = _Asked(symbol, strategy, options, grid=True)
    with asked.source.home() as home, progress_of("walk-forward", asked.shown) as update:
        spec = asked.spec(home, asked.symbols[0])
        found = run_walk_forward(home, spec, *spans, anchored, score, asked.options, update)
        row = fetch(home.store, str(found.result["job_id"]))
        job = home.store.job(found.sweep_id)
    guards = msgspec.json.decode(job.figures) if job is not None and job.figures else None
    return WalkForward(asked.source, asked.chosen, row, found.folds, score, found.sweep_id, guards)


def check(
    strategy: StrategyLike,
    data: str | Tape | None = None,
    *,
    range: str = "all",
    timeframes: Sequence[str] = ("1m", "15m"),
    seed: int = 1,
    only: Sequence[str] = (),
    seconds: float = 5.0,
    progress: bool | None = None,
    store: str | None = None,
    **parameters: Any,
) -> Check:
    """Try to prove a strategy dishonest, on synthetic markets or on stretches of a stored symbol's or a tape's candles:
    docs/check.md says what is tried. Parameters that are given stay, the others vary around their defaults."""
    chosen = Chosen(strategy)
    name = chosen.load()
    made = build(name, {**chosen.params(), **{key: _plain(value) for key, value in parameters.items()}})
    given = candles(data, range, store=store) if isinstance(data, str) else data
    tape = None if given is None else EngineTape(*([given.columns[column]] for column in CANDLE_COLUMNS))
    with progress_of("check", progress) as update:
        report = examine(
            made,
            tape,
            timeframes=[parse_timeframe(text) for text in timeframes],
            seed=seed,
            pinned=parameters,
            only=only,
            elsewhere=elsewhere.decide,
            seconds=seconds,
            progress=update,
        )
    return Check(report)


def coverage(symbol: str | None = None, *, store: str | None = None) -> Table:
    """What is stored: a row per symbol, or per month of one symbol."""
    source, _ = source_of(symbol or "", store)
    with source.home() as home:
        known = home.store.symbols()
        if symbol is not None and symbol not in known:
            raise UnknownName("symbol", symbol, known, "cm.coverage() shows what is stored")
        days = {name: current_days(home.store, name) for name in ([symbol] if symbol else known)}
    if symbol is not None:
        months = months_of(days[symbol])
        edges = (days[symbol][0].first, days[symbol][-1].last)
        return Table(
            {
                "month": _column(Kind.TIME, [month.start for month in months]),
                "candles": _column(Kind.COUNT, [month.rows for month in months]),
                "missing": _column(Kind.COUNT, [missing_in(month, *edges) for month in months]),
                "digest": Series(Kind.OBJECT, np.array([month.digest for month in months], dtype=object)),
            }
        )
    return Table(
        {
            "symbol": Series(Kind.OBJECT, np.array(known, dtype=object)),
            "candles": _column(Kind.COUNT, [sum(day.rows for day in found) for found in days.values()]),
            "first": _column(Kind.TIME, [found[0].first for found in days.values()]),
            "last": _column(Kind.TIME, [found[-1].last for found in days.values()]),
            "missing": _column(Kind.COUNT, [missing_of(found) for found in days.values()]),
        }
    )


def candles(symbol: str, range: str = "all", *, store: str | None = None) -> Tape:
    """Stored candles as a Tape: to look at, or to go on with in pandas."""
    source, _ = source_of(symbol, store)
    with source.home() as home:
        span = home.full_span(symbol) if range == "all" else parse_range(range)
        columns = home.store.read_columns(symbol, *span, CANDLE_COLUMNS[1:])
        scale = home.store.volume_scale(symbol) or SCALE
    if not len(columns["t"]):
        raise BadInput(f"{symbol} has no candle in {range}")
    return Tape(symbol, {name: column.view(np.int64) for name, column in columns.items()}, scale)


def _column(kind: Kind, values: Iterable[int]) -> Series:
    return Series(kind, np.array(list(values), dtype=np.int64))


# -- from what is given to a job -----------------------------------------------------------------------------------


class _Asked:
    """A call's arguments, taken apart. All that can be checked without the database is checked first."""

    def __init__(self, symbol: Any, strategy: StrategyLike, options: Mapping[str, Any], grid: bool) -> None:
        self.chosen = Chosen(strategy)
        self.source, self.symbols = source_of(symbol, options.get("store"))
        self._options = options
        self._name = self.chosen.load()
        self._params, self._grid = self._parameters(grid)
        self._range = options.get("range", "all")
        if not isinstance(self._range, str):
            raise BadInput(f"range={self._range!r}: write it like 2023, 2023-05 or 2023-01-01..2023-06-30")
        self._rest = self._job_options()
        self.shown: bool | None = options.get("progress")
        self.options = Options(
            _whole("slices", options.get("slices")),
            self.chosen.workers(_whole("workers", options.get("workers"))),
            not options.get("cache", True),
            _whole("max_gap", options.get("max_gap"), 0),
        )
        self._spec = self._resolve(self.symbols[0])

    def spec(self, home: Home, *symbols: str) -> Spec:
        """The job's spec, with what its symbols have for the range `all`."""
        spec = msgspec.structs.replace(self._spec, symbol=symbols[0])
        for tape in self.source.tapes:
            if not tape.has_volume:
                self._refuse_volume(tape, spec)
        if self._range != "all":
            return spec
        start, end = home.full_span(*symbols)
        return msgspec.structs.replace(spec, start=start, end=end)

    def _refuse_volume(self, tape: Tape, spec: Spec) -> None:
        some = [strategy for _, _, strategy in grid_points(spec, 0, 64)]
        if "volume" in columns_read(spec, some):
            raise BadInput(f"{tape.symbol} has no volume, which this job reads: give the tape a column of it")

    def _parameters(self, grid: bool) -> tuple[dict[str, object], dict[str, list[object]]]:
        """Fixed parameters and the grid's."""
        fields = list(parameter_fields(REGISTERED[self._name]))
        own = {name: value for name, value in self._options.items() if name not in OPTIONS}
        for name in own:
            if name not in fields:
                takes = ", ".join(fields) or "none"
                raise UnknownName("option or parameter", name, [*fields, *OPTIONS], f"{self._name} takes {takes}")
        more = self._options.get("params") or {}
        if twice := own.keys() & more.keys():
            raise BadInput(f"{min(twice)} is given twice: by its name and in params")
        given = {**own, **more}
        axes = {name: _values(value) for name, value in given.items() if _is_axis(value)}
        if axes and not grid:
            raise BadInput(f"{next(iter(axes))} has several values: use cm.sweep for a grid")
        if grid and not axes:
            raise BadInput("no parameter has several values: give one or more as a list or a range")
        fixed = {name: _plain(value) for name, value in given.items() if name not in axes}
        inherited = {name: value for name, value in self.chosen.params().items() if name not in given}
        return {**inherited, **fixed}, axes

    def _job_options(self) -> dict[str, Any]:
        rest: dict[str, Any] = {name: self._options[name] for name in (*RATES, *CHOICES) if name in self._options}
        for name in RATES:
            if isinstance(rest.get(name), float):
                ppm = round(rest[name] * 10**6)
                raise BadInput(f"{name}={rest[name]!r}: rates are whole parts per million, as in {name}={ppm}")
        if "timeframe" in rest:
            rest["timeframe"] = parse_timeframe(str(rest["timeframe"]))
        for name in AMOUNTS:
            if self._options.get(name) is not None:
                rest[name] = parse_decimal(amount(self._options[name], name), name)
        return rest

    def _resolve(self, symbol: str) -> Spec:
        span = (FIRST_MS, LAST_MS) if self._range == "all" else parse_range(self._range)
        return resolve(
            symbol=symbol, strategy=self._name, span=span, params=self._params, grid=self._grid, **dict(self._rest)
        )


def _is_axis(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str)


def _values(value: Iterable[Any]) -> list[object]:
    return [_plain(one) for one in value]


def _plain(value: Any) -> object:
    """NumPy's numbers as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _whole(name: str, value: Any, least: int = 1) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise BadInput(f"{name}={value!r} is not a whole number from {least} on")
    return value
