"""The Python API: `import candlemill as cm`, then `cm.backtest("BTCUSDT", "sma_cross", fast=10, slow=50)`.

Its calls run the same jobs as the command line, with the same job ids and results. docs/python.md has examples.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from candlemill.api.candles import Candles, candles_of
from candlemill.api.of_symbols import Sweeps, WalkForwards
from candlemill.api.results import Check, Portfolio, Run, Sweep, WalkForward
from candlemill.api.session import StrategyLike, StrategyRef, progress_of, source_of
from candlemill.api.studies import Study, rows_of, values_of
from candlemill.backtests.grid import grid_points
from candlemill.backtests.long_candles import usual_timeframe
from candlemill.backtests.options import described
from candlemill.backtests.portfolio import parse_weights, symbols_of
from candlemill.backtests.resolve import resolve
from candlemill.backtests.spec import OPTIONS, Spec, spec_from_json
from candlemill.backtests.spec import WalkForward as WalkForwardOptions
from candlemill.backtests.spec_rules import columns_read, sees_panel
from candlemill.checks import fresh_process
from candlemill.checks.runner import check as examine
from candlemill.engine.candles import CandleColumns
from candlemill.errors import BadInput, UnknownName, one_line
from candlemill.guards import parse_span
from candlemill.local.runner import JobRunner, Options, fetch, run_job, run_one, sweep_row
from candlemill.local.workflow_runs import (
    WalkForwardRun,
    run_of_symbols,
    run_portfolio,
    run_walk_forward,
    stored_walk_forward,
    walk_forward_of,
)
from candlemill.pipeline.gap_limit import gap_limit
from candlemill.pipeline.prepare import with_candles
from candlemill.pipeline.request import names_several, of_panel
from candlemill.store.candle_writer import CANDLE_COLUMNS, current_days
from candlemill.store.integrity import read_checked
from candlemill.stored_days import missing_in, missing_of, months_of
from candlemill.strategies import REGISTERED, build, parameter_fields
from candlemill.studies.space import SEARCHED, every_point
from candlemill.studies.study import TRIALS_LIMIT, run_study, study_request
from candlemill.tables.table import Kind, Series, Table
from candlemill.units import FIRST_MS, LAST_MS, SCALE, amount, parse_range, parse_timeframe

SymbolLike = str | Candles | Sequence[str] | Sequence[Candles]

HOW: Final = ("range", "params", "max_gap", "slices", "workers", "fresh", "progress", "store", "strategy_seconds")
KEYWORDS: Final = (*HOW, *OPTIONS)


def backtest(symbol: SymbolLike, strategy: StrategyLike, **options: Any) -> Any:
    """Run a strategy over candles; return a Run, or a Portfolio for several symbols.

    `symbol` is a stored symbol or Candles; a list of either, or a text like "BTCUSDT,ETHUSDT" or "*USDT", makes a
    portfolio (then `weights` is a dict by symbol). `strategy` is a name, "FILE.py:Class", a Strategy class or an
    instance.

    Further keywords are the strategy's own parameters, by name (`params` is a dict for names that clash); the options
    of a job, below; and options of this run: slices, workers: how the work is divided, which never changes the result;
    max_gap (minutes); strategy_seconds: time limit of a task of a strategy from a file; fresh=True: compute even what
    is stored; progress: True, False or None (on a terminal only); store: a database's DSN (default
    CANDLEMILL_CLICKHOUSE_DSN). Rates are "0.1%", "10bp" or whole parts per million; amounts are decimals, as text, int
    or float; leverage is "3x" or parts per million.
    Raises subclasses of candlemill.CandlemillError, with one-line messages.
    """
    weights = options.pop("weights", None)
    call = _CallArguments(symbol, strategy, options, grid=False)
    if call.several:
        return _portfolio(call, weights)
    if weights is not None:
        raise BadInput("weights are for portfolios: give several symbols")
    with call.source.runner(call.strategy_seconds) as runner, progress_of("backtest", call.shown) as update:
        row = run_one(runner, call.spec(runner, call.symbols[0]), call.options, update)
    return Run(call.source, call.chosen, row)


backtest.__doc__ = f"{backtest.__doc__}\n{described(OPTIONS)}\n"


def _portfolio(call: "_CallArguments", given: Mapping[str, Any] | None) -> Portfolio:
    with call.source.runner(call.strategy_seconds) as runner, progress_of("portfolio", call.shown) as update:
        text = ",".join(call.symbols)
        symbols, left_out = call.with_candles(runner, text, symbols_of(text, runner.store.symbols()))
        texts = [f"{name}={amount(weight, f'weight of {name}')}" for name, weight in (given or {}).items()]
        weights = parse_weights(texts, symbols)
        spec = call.spec(runner, *symbols)
        result = run_portfolio(runner, spec, weights, call.options, update)
        rows = [fetch(runner.store, part["job_id"]) for part in result["parts"]]
    return Portfolio(call.source, call.chosen, result, rows, left_out)


def sweep(symbol: SymbolLike, strategy: StrategyLike, *, metric: str = "sharpe_ratio", **options: Any) -> Any:
    """Run a strategy for every combination of its parameters' values; return a Sweep, or Sweeps for several symbols.

    A parameter given as a list, a range or an array is an axis of the grid; a single value is the same for all sets.
    `metric` orders the sets; the other options are those of `backtest`. Costs, stops, fill and timeframe may have
    several values too: then every combination is a trial, and a Study is returned, as for `points`, a DataFrame or a
    list of dicts that has the sets themselves (see `optimize`).
    """
    searched = [name for name in SEARCHED if _is_axis(options.get(name))]
    if searched and "points" not in options:
        axes = {name: _values(value) for name, value in options.items() if name not in HOW and _is_axis(value)}
        options = {name: value for name, value in options.items() if name not in axes}
        options["points"] = every_point(axes, TRIALS_LIMIT)  # type: ignore[arg-type]
    if (points := options.pop("points", None)) is not None:
        return optimize(symbol, strategy, points=points, score=metric, **options)  # type: ignore[arg-type]
    call = _CallArguments(symbol, strategy, options, grid=True)
    if call.several:
        return _sweeps(call, metric)
    with call.source.runner(call.strategy_seconds) as runner, progress_of("sweep", call.shown) as update:
        job, _ = run_job(runner, call.spec(runner, call.symbols[0]), call.options, update)
        return _stored_sweep(call, runner, job.job_id, metric)


def optimize(
    symbol: str | Candles,
    strategy: StrategyLike,
    *,
    space: Mapping[str, Any] | None = None,
    points: Any = None,
    trials: int = 100,
    sampler: str = "tpe",
    pruner: str = "none",
    seed: int = 1,
    score: str = "sharpe_ratio",
    **options: Any,
) -> Study:
    """Search parameters, stops, costs and the timeframe by trials; return a Study.

    `space` maps a parameter or an option to what it may be: a list, `(low, high)` or `(low, high, step)`, or text like
    "1%:5%:1%". `sampler` is "tpe", "random", "cmaes" or "grid" (of Optuna); `points`, a DataFrame or a list of dicts,
    are the trials themselves. `pruner` "median" or "halving" ends trials that do badly on a part of the range. The same
    call has the same trials; done ones are not computed again, after an interruption either. `score` is what is made
    best, several with commas have a `front`; the other options are those of `backtest`.
    """
    if (space is None) == (points is None):
        raise BadInput("give a space, as in space={'fast': (5, 50)}, or a list of points")
    call = _CallArguments(symbol, strategy, options, grid=False)
    if _are_several(symbol):
        raise BadInput("a study has one symbol: several are an axis, space={'symbol': ['A', 'B']}")
    if points is not None:
        values, listed = rows_of(points)
    else:
        values, listed = {name: values_of(name, given) for name, given in (space or {}).items()}, []
    with call.source.runner(call.strategy_seconds) as runner, progress_of("optimize", call.shown) as update:
        request = study_request(
            call.spec(runner, call.symbols[0]), values, listed, sampler=sampler, pruner=pruner, seed=seed, score=score
        )
        found = run_study(runner, request, trials, call.options, update)
    return Study(call.source, call.chosen, found)


def _stored_sweep(call: "_CallArguments", runner: JobRunner, job_id: str, metric: str) -> Sweep:
    row = sweep_row(runner.store, job_id)
    found = runner.store.sweep_results(job_id, (), False, None)  # by number
    results = [_slim(msgspec.json.decode(text)) for text in found]
    guards = msgspec.json.decode(row.figures) if row.figures else None
    return Sweep(call.source, call.chosen, job_id, spec_from_json(row.spec), results, guards, metric)


def _sweeps(call: "_CallArguments", metric: str) -> Sweeps:
    with call.source.runner(call.strategy_seconds) as runner, progress_of("sweeps", call.shown) as update:
        symbols, spec = call.all_symbols(runner)
        found = run_of_symbols(runner, spec, symbols, call.options, update)
        parts = {one["symbol"]: _stored_sweep(call, runner, one["job_id"], metric) for one in found["parts"]}
    return Sweeps(found["job_id"], parts, metric)


def _slim(result: dict[str, Any]) -> dict[str, Any]:
    """Return a set's figures without what all sets share."""
    del result["spec"], result["sharpe_recipe"]
    return result


def walk_forward(
    symbol: SymbolLike,
    strategy: StrategyLike,
    *,
    train: str = "6mo",
    test: str = "1mo",
    anchored: bool = False,
    score: str = "sharpe_ratio",
    **options: Any,
) -> Any:
    """Run a walk-forward: choose the best set of each training span, then trade it in the test span after it.

    Returns a WalkForward, or WalkForwards for several symbols.

    Spans are texts like "90d" or "6mo". A WalkForward is the run of all choices up to the range's end, with its folds.
    `score` is "sharpe_ratio", "sortino_ratio" or "total_pnl"; with `anchored` every training span begins at the
    range's start; the other options are those of `sweep`. Stops, costs and the timeframe may have several values too:
    each window then has those that were best before it.
    """
    spans = parse_span(train), parse_span(test)
    own = {name: _values(options.pop(name)) for name in SEARCHED if _is_axis(options.get(name))}
    call = _CallArguments(symbol, strategy, options, grid=True)
    if call.several:
        return _walk_forwards(call, walk_forward_of(*spans, anchored, score, own))
    with call.source.runner(call.strategy_seconds) as runner, progress_of("walk-forward", call.shown) as update:
        spec = call.spec(runner, call.symbols[0])
        found = run_walk_forward(runner, spec, *spans, anchored, score, call.options, update, own)
        return _stored_walk_forward(call, runner, found, score)


def _stored_walk_forward(call: "_CallArguments", runner: JobRunner, found: WalkForwardRun, score: str) -> WalkForward:
    row = fetch(runner.store, str(found.result["job_id"]))
    return WalkForward(call.source, call.chosen, found.job_id, row, found.folds, score, found.sweep_id, found.guards)


def _walk_forwards(call: "_CallArguments", walk: WalkForwardOptions) -> WalkForwards:
    with call.source.runner(call.strategy_seconds) as runner, progress_of("walk-forwards", call.shown) as update:
        symbols, spec = call.all_symbols(runner)
        found = run_of_symbols(runner, spec, symbols, call.options, update, walk)
        runs = {one["symbol"]: stored_walk_forward(runner.store, one["job_id"]) for one in found["parts"]}
        parts = {symbol: _stored_walk_forward(call, runner, run, walk.score) for symbol, run in runs.items()}
    return WalkForwards(found["job_id"], parts)


def check(
    strategy: StrategyLike,
    data: str | Candles | None = None,
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
    """Check a strategy for look-ahead, hidden state and dependence on slicing; docs/check.md describes the tests.

    The candles are synthetic markets, or stretches of a stored symbol or of Candles. Given parameters stay fixed, the
    others vary around their defaults.
    """
    chosen = StrategyRef(strategy)
    name = chosen.load()
    if several := next((key for key, value in parameters.items() if _is_axis(value)), None):
        raise BadInput(f"{several}={parameters[several]!r:.40} has several values: a check is of one, give one")
    data = candles_of(data)
    if not isinstance(data, str | Candles | None):
        raise BadInput(one_line(f"data={data!r:.80}: a check is of one symbol, give one"))
    made = build(name, {**chosen.params(), **{key: _plain(value) for key, value in parameters.items()}})
    given = candles(data, range, store=store) if isinstance(data, str) else data
    columns = None if given is None else CandleColumns(*([given.columns[column]] for column in CANDLE_COLUMNS))
    with progress_of("check", progress) as update:
        report = examine(
            made,
            columns,
            timeframes=[parse_timeframe(text) for text in timeframes],
            seed=seed,
            pinned=parameters,
            only=only,
            elsewhere=fresh_process.decide,
            seconds=seconds,
            progress=update,
        )
    return Check(report)


def coverage(symbol: str | None = None, *, store: str | None = None) -> Table:
    """Return the stored candles' coverage: a row per symbol, or per month of one symbol."""
    source, _ = source_of(symbol or "", store)
    with source.runner() as runner:
        known = runner.store.symbols()
        if symbol is not None and symbol not in known:
            raise UnknownName("symbol", symbol, known, "cm.coverage() shows what is stored")
        days = {name: current_days(runner.store, name) for name in ([symbol] if symbol else known)}
    if symbol is not None:
        months = months_of(days[symbol], empty=True)
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


def candles(symbol: str, range: str = "all", *, store: str | None = None) -> Candles:
    """Return stored candles, to inspect or to convert, for example to pandas."""
    source, _ = source_of(symbol, store)
    with source.runner() as runner:
        span = runner.full_span(symbol) if range == "all" else parse_range(range)
        columns = read_checked(runner.store, symbol, *span, CANDLE_COLUMNS[1:])
        scale = runner.store.volume_scale(symbol) or SCALE
    if not len(columns["t"]):
        raise BadInput(f"{symbol} has no candle in {range}")
    return Candles(symbol, {name: column.view(np.int64) for name, column in columns.items()}, scale)


def _column(kind: Kind, values: Iterable[int]) -> Series:
    return Series(kind, np.array(list(values), dtype=np.int64))


# -- arguments of a call -------------------------------------------------------------------------------------------


class _CallArguments:
    """Parsed arguments of a call. All checks that need no database are done first."""

    def __init__(self, symbol: Any, strategy: StrategyLike, options: Mapping[str, Any], grid: bool) -> None:
        self.chosen = StrategyRef(strategy)
        self.source, self.symbols = source_of(symbol, options.get("store"))
        self._options = options
        self._name = self.chosen.load()
        self._panel = sees_panel(self._name)
        self.several = _are_several(symbol) and not self._panel  # a panel is one job
        self._params, self._grid = self._parameters(grid)
        self._range = options.get("range", "all")
        if not isinstance(self._range, str):
            raise BadInput(f"range={self._range!r}: write it like 2023, 2023-05 or 2023-01-01..2023-06-30")
        self._rest = self._job_options()
        self.shown: bool | None = options.get("progress")
        self.strategy_seconds = _seconds(options.get("strategy_seconds"))
        self.options = Options(
            _whole("slices", options.get("slices")),
            self.chosen.workers(_whole("workers", options.get("workers"))),
            bool(options.get("fresh")),
            gap_limit(_whole("max_gap", options.get("max_gap"), 0), self._range),
        )
        self._spec = self._resolve(self.symbols[0])

    def spec(self, runner: JobRunner, *symbols: str) -> Spec:
        """Return the job's spec; the range `all` becomes the span of the symbols' stored candles."""
        spec = msgspec.structs.replace(self._spec, symbol=symbols[0])
        for own in self.source.candles:
            if not own.has_volume:
                self._refuse_volume(own, spec)
        if self._panel:
            spec = of_panel(runner.index, spec, ",".join(self.symbols))
            symbols = tuple(spec.symbols)
        if self._range != "all":
            return spec
        start, end = runner.full_span(*symbols)
        return msgspec.structs.replace(spec, start=start, end=end)

    def all_symbols(self, runner: JobRunner) -> tuple[list[str], Spec]:
        """Return the symbols that a text or a list names, of globs those that have candles, and the first's spec."""
        text = ",".join(self.symbols)
        symbols, _ = self.with_candles(runner, text, symbols_of(text, runner.store.symbols()))
        return symbols, self.spec(runner, *symbols)

    def with_candles(self, runner: JobRunner, text: str, symbols: list[str]) -> tuple[list[str], list[str]]:
        return with_candles(runner.index, text, symbols, self._spec.start, self._spec.end)

    def _refuse_volume(self, own: Candles, spec: Spec) -> None:
        some = [strategy for _, _, strategy in grid_points(spec, 0, 64)]
        if "volume" in columns_read(spec, some) or spec.universe.startswith("top:"):
            raise BadInput(f"{own.symbol} has no volume, which this job reads: give the candles a column of it")

    def _parameters(self, grid: bool) -> tuple[dict[str, object], dict[str, list[object]]]:
        """Return the fixed parameters and the grid's."""
        fields = list(parameter_fields(REGISTERED[self._name]))
        own = {name: value for name, value in self._options.items() if name not in KEYWORDS}
        for name in own:
            if name not in fields:
                takes = ", ".join(fields) or "none"
                raise UnknownName("option or parameter", name, [*fields, *KEYWORDS], f"{self._name} takes {takes}")
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
        given = {name: value for name in OPTIONS if (value := self._options.get(name)) is not None}
        usual = {"timeframe": usual_timeframe(",".join(self.symbols))}
        return usual | {name: OPTIONS[name].parse(value) for name, value in given.items()}

    def _resolve(self, symbol: str) -> Spec:
        span = (FIRST_MS, LAST_MS) if self._range == "all" else parse_range(self._range)
        return resolve(
            symbol=symbol, strategy=self._name, span=span, params=self._params, grid=self._grid, **dict(self._rest)
        )


def _are_several(symbol: Any) -> bool:
    """Return whether a call is about several symbols: a list, or a text like `BTCUSDT,ETHUSDT` or `*USDT`."""
    return isinstance(symbol, list | tuple) or (isinstance(symbol, str) and names_several(symbol))


def _is_axis(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str)


def _values(value: Iterable[Any]) -> list[object]:
    return [_plain(one) for one in value]


def _plain(value: Any) -> object:
    """Convert a NumPy number to a Python number."""
    return value.item() if isinstance(value, np.generic) else value


def _whole(name: str, value: Any, least: int = 1) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise BadInput(f"{name}={value!r} is not a whole number from {least} on")
    return value


def _seconds(value: Any) -> float | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise BadInput(f"strategy_seconds={value!r} is not a number of seconds above 0")
    return value
