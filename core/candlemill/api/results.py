"""Return types of the Python API: a run, a sweep, a walk-forward, a portfolio, a check."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from candlemill.api.guards import Guards
from candlemill.api.session import Source, StrategyRef
from candlemill.api.stats import Stats, stats_of
from candlemill.api.widgets import shown
from candlemill.backtests import daily as packed
from candlemill.backtests.metric_table import MAIN, is_descending, order_of, value_of
from candlemill.backtests.portfolio import Part, joint_profits
from candlemill.backtests.replay import Replay
from candlemill.backtests.result import compounded
from candlemill.backtests.spec import Spec, spec_from_json
from candlemill.checks.report import Finding, Report
from candlemill.errors import BadInput, UnknownName, one_line
from candlemill.guards import Validation, cross_validate
from candlemill.pipeline.rows import ResultRow
from candlemill.tables.runs import contribution_table, daily_table, equity_table, figures, orders_table, trades_table
from candlemill.tables.table import Kind, Series, Table, from_rows
from candlemill.units import SCALE, iso

FIGURES = ("equity", "price", "orders", "contribution", "monthly", "profits", "sharpe", "excursions")
SPARK_WIDTH, SPARK_HEIGHT = 600, 110


class Run:
    """One run. `stats` are its figures in their own units, `result` the stored exact integers; `equity`, `trades` and
    `daily` are tables. Tables that need another computation of the run are computed at first use, and cached.

    `warnings` of the best of a sweep or a study are those of its guards: it is shown with them.
    """

    def __init__(self, source: Source, chosen: StrategyRef, row: ResultRow) -> None:
        self.warnings: list[str] = []
        self.result: dict[str, Any] = msgspec.json.decode(row.result)
        self.stats: Stats = stats_of(self.result)
        self._source = source
        self._chosen = chosen
        self._daily = row.daily

    @property
    def job_id(self) -> str:
        return str(self.result["job_id"])

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.result["params"])

    @property
    def spec(self) -> Spec:
        return spec_from_json(msgspec.json.encode(self.result["spec"]))

    @property
    def interval(self) -> dict[str, dict[str, Any]] | None:
        """The main figures of the `worst` and the `best` order of events inside minutes (exact integers); None unless
        `path="both"`."""
        return self.result.get("interval")

    @property
    def daily(self) -> Table:
        """Each UTC day that has bars: its profit, and the account's value at its end."""
        days, figures = packed.unpack(self._daily)
        profits = figures.tolist()
        if self.result["spec"]["sizing"] == "compound":
            profits = compounded(profits, self.result["capital"])
        return daily_table(days, profits, self.result["capital"])

    @cached_property
    def trace(self) -> Replay:
        """Return the run bar by bar. Raises BadInput if the strategy or the candles have changed since."""
        with self._source.runner() as runner:
            self._chosen.load()
            spec = self.spec
            now = runner.prepare(spec, None).job_id
            if now != self.result["job_id"]:
                raise BadInput(f"{spec.strategy} or the candles of {spec.symbol} have changed since: run it again")
            return runner.trace(self.result)

    @property
    def equity(self) -> Table:
        """Each minute bar: its close, the position, the account's value at the close, the fall from the peak."""
        return equity_table(self.trace)

    @property
    def trades(self) -> Table:
        """Each round trip, in order of exits; docs/python.md describes the columns."""
        return trades_table(self.trace)

    @property
    def orders(self) -> Table:
        """Each fill, in order: of targets, resting orders, stops and takes; docs/export.md describes the columns."""
        return orders_table(self.trace)

    @property
    def contribution(self) -> Table:
        """Each UTC day and symbol of a panel: what the symbol has brought up to the end of the day."""
        return contribution_table(self.trace)

    def plot(self, what: str = "equity") -> Any:
        """Return a plotly Figure, in a notebook with anywidget a FigureWidget.

        `what` is `equity`, `price` (of a panel `contribution`), `monthly`, `profits`, `sharpe` or `excursions`.
        """
        if what not in FIGURES:
            raise UnknownName("figure", what, list(FIGURES), f"known are {', '.join(FIGURES)}")
        from candlemill.report import figures

        return shown(getattr(figures, what)(self.trace))

    def guards(self, seed: int = 1) -> Guards:
        """Return estimates of how much of the result may be luck: intervals, the break-even fee; see docs/guards.md."""
        from candlemill.guards.run import with_guards

        return Guards(with_guards(self.trace, seed).result["guards"])

    def report(self, path: str | PathLike[str], seed: int = 1) -> Path:
        """Write a self-contained HTML page with all figures and charts; `seed` is the seed of the guards'
        resampling."""
        from candlemill.guards.run import with_guards
        from candlemill.report import write_report

        write_report(with_guards(self.trace, seed), fspath(path))
        return Path(path)

    def __repr__(self) -> str:
        warned = "".join(f"warning: {text}\n" for text in self.warnings)
        return f"{self._title()}\n{self.stats!r}\n{warned}job {self.job_id}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(text)}</td></tr>"
            for name, text in self.stats.texts.items()
        )
        digest = escape(str(self.result["result_digest"]))
        line = _spark(self.daily)
        warned = "".join(f"<li>{escape(text)}</li>" for text in self.warnings)
        warned = f"<ul>{warned}</ul>" if warned else ""
        html = f"<p><b>{escape(self._title())}</b></p>{line}{warned}<table>{rows}</table>"
        return f"{html}<p><small>job {self.job_id}, digest {digest}</small></p>"

    def _title(self) -> str:
        r = self.result
        given = ", ".join(f"{name}={value}" for name, value in r["params"].items())
        return f"{r['symbol']} {r['strategy_id']}({given})  {iso(r['start'])}..{iso(r['end'])}"


class WalkForward(Run):
    """The out-of-sample run of the parameters that were chosen in each fold; `folds` has the choices. `job_id` is the
    walk-forward's; that of its run is `result["job_id"]`."""

    def __init__(
        self,
        source: Source,
        chosen: StrategyRef,
        job_id: str,
        row: ResultRow,
        folds: Sequence[Mapping[str, Any]],
        score: str,
        sweep_id: str,
        guards: dict[str, Any] | None,
    ) -> None:
        super().__init__(source, chosen, row)
        self._job_id, self.sweep_id, self.score = job_id, sweep_id, score
        self.sweep_guards = Guards(guards) if guards else None
        self._folds = folds

    @property
    def job_id(self) -> str:
        return self._job_id

    @property
    def folds(self) -> Table:
        """Each fold's bounds, the parameters chosen in its training span, and their scores in training and test."""
        edges = ("train_start", "train_end", "test_start", "test_end")
        whole = {name: np.array([fold[name] for fold in self._folds], dtype=np.int64) for name in edges}
        params = [fold["params"] for fold in self._folds]
        scores = ("in_sample", "out_of_sample", "efficiency")
        return Table(
            {
                **{name: Series(Kind.TIME, column) for name, column in whole.items()},
                **from_rows(params, list(next(filter(None, params)))),
                **{name: _floats([fold[name] for fold in self._folds]) for name in scores},
            }
        )

    def report(self, path: str | PathLike[str], seed: int = 1) -> Path:
        from candlemill.report import write_walk_forward_report

        found = {"folds": self._folds, "trace": self.trace, "score": self.score}
        found["guards"] = self.sweep_guards.exact if self.sweep_guards else None
        write_walk_forward_report(found, fspath(path))
        return Path(path)

    def _title(self) -> str:
        r = self.result
        span = f"{iso(r['start'])}..{iso(r['end'])}"
        return f"{r['symbol']} {r['strategy_id']}, walk-forward of {len(self._folds)} folds, {span}"


class Sweep:
    """A strategy over a grid of parameters. `sets` is the table of all sets, the best first; `guards` estimate how much
    of the best may be luck, and `warnings` are their most important findings."""

    def __init__(
        self,
        source: Source,
        chosen: StrategyRef,
        job_id: str,
        spec: Spec,
        results: Sequence[dict[str, Any]],
        guards: dict[str, Any] | None,
        metric: str,
    ) -> None:
        self.job_id, self.spec, self.metric = job_id, spec, metric
        self.guards = Guards(guards) if guards else None
        self._source, self._chosen, self.results = source, chosen, results

    def __len__(self) -> int:
        return len(self.results)

    @property
    def warnings(self) -> list[str]:
        return list(self.guards["warnings"]) if self.guards else []

    @property
    def sets(self) -> Table:
        """Every parameter set: the varied parameters, then the main figures, ordered by the sweep's metric."""
        order = self._order(self.metric)
        rows = [self.results[k] for k in order]
        interval = ["best_path_pnl"] if self.spec.path == "both" else []
        names = dict.fromkeys((MAIN[0], *interval, *MAIN, self.metric))
        columns = from_rows([row["params"] for row in rows], list(self.spec.grid))
        return Table(columns | {name: figures(rows, name) for name in names})

    def best(self, metric: str | None = None) -> Run:
        """Return the best set's run; among equally good sets the first in the grid's order."""
        found = self.run(self.results[self._order(metric or self.metric)[0]]["job_id"])
        found.warnings = [f"the best of {len(self):,} sets", *self.warnings]
        return found

    def run(self, which: str | int) -> Run:
        """Return one set's run, by its job id or by its row in `sets` (0 is the best, -1 the last)."""
        job_id = self._id_of(which)
        with self._source.runner() as runner:
            rows = runner.store.results([job_id])
        if not rows:
            raise UnknownName("job", job_id, [row["job_id"] for row in self.results], "it is none of this sweep's")
        return Run(self._source, self._chosen, rows[0])

    def _id_of(self, which: str | int) -> str:
        if isinstance(which, str):
            return which
        if not isinstance(which, int | np.integer) or isinstance(which, bool):
            raise BadInput(one_line(f"run({which!r:.40}): give a row of sets, from 0 on, or a set's job id"))
        if not -len(self) <= which < len(self):
            raise BadInput(f"run({which}): the sweep has {len(self):,} sets, the first is 0, the last is -1")
        return str(self.results[self._order(self.metric)[which]]["job_id"])

    def cross_validate(
        self, groups: int = 6, tested: int = 1, purge: int = 0, embargo: int = 0, score: str = "sharpe_ratio"
    ) -> Validation:
        """Run purged k-fold cross-validation; with more than one group `tested`, combinatorial purged cross-validation.

        Parameters are chosen on some days and judged on others. `purge` and `embargo` are days; see docs/guards.md.
        """
        ids = [str(result["job_id"]) for result in self.results]
        with self._source.runner() as runner:
            rows = runner.store.sweep_daily(self.job_id, ids)
        matrix = np.stack([packed.unpack(rows[one])[1] for one in ids])
        return cross_validate(matrix, score, groups, tested, purge, embargo)

    def _order(self, metric: str) -> list[int]:
        return order_of([value_of(row, metric) for row in self.results], is_descending(metric))

    def plot(self, x: str | None = None, y: str | None = None, metric: str | None = None, over: str = "best") -> Any:
        """Return a heat map over two parameters (a line over one): the `best` or the `mean` over all others."""
        from candlemill.report import sweep_figures

        return shown(sweep_figures.heat_map(self._report_content(), x, y, metric or self.metric, over))

    def report(self, path: str | PathLike[str]) -> Path:
        from candlemill.report import write_sweep_report

        write_sweep_report(self._report_content(), fspath(path))
        return Path(path)

    def _report_content(self) -> dict[str, Any]:
        guards = self.guards.exact if self.guards else None
        return {"job_id": self.job_id, "spec": self.spec, "results": self.results, "guards": guards}

    def __repr__(self) -> str:
        return "\n".join([self._title(), repr(self.sets), *(f"warning: {text}" for text in self.warnings)])

    def _repr_html_(self) -> str:
        warned = "".join(f"<li>{escape(text)}</li>" for text in self.warnings)
        html = f"<ul>{warned}</ul>" if warned else ""
        return f"<p><b>{escape(self._title())}</b></p>{html}{self.sets._repr_html_()}"

    def _title(self) -> str:
        span = f"{iso(self.spec.start)}..{iso(self.spec.end)}"
        return f"{self.spec.symbol} {self.spec.strategy}, {len(self):,} sets by {self.metric}  {span}"


class Portfolio:
    """One strategy over several symbols: joint `stats` and `daily`, each symbol's `parts`; `left_out` are the symbols
    that match a glob but have no candle in the range."""

    def __init__(
        self,
        source: Source,
        chosen: StrategyRef,
        result: dict[str, Any],
        rows: Sequence[ResultRow],
        left_out: Sequence[str],
    ) -> None:
        self.result = result
        self.left_out = list(left_out)
        self.stats = stats_of(result)
        self.parts: dict[str, Run] = {}
        for row in rows:
            run = Run(source, chosen, row)
            self.parts[str(run.result["symbol"])] = run
        found = [Part(symbol, run.result, run._daily) for symbol, run in self.parts.items()]
        self._joint = joint_profits(found)

    @property
    def job_id(self) -> str:
        return str(self.result["job_id"])

    @property
    def daily(self) -> Table:
        return daily_table(*self._joint, self.result["capital"])

    @property
    def equity(self) -> Table:
        """The account's value by UTC day: symbols share days, but no bars."""
        return self.daily

    def __repr__(self) -> str:
        return f"{self._title()}\n{self.stats!r}\njob {self.job_id}"

    def _repr_html_(self) -> str:
        names = ("Symbol", "Return [%]", "Profit", "Sharpe Ratio", "# Trades")
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        rows = [("all together", self.stats), *((symbol, run.stats) for symbol, run in self.parts.items())]
        cells = [[name, *(stats.texts[key] for key in names[1:])] for name, stats in rows]
        body = "".join(f"<tr>{''.join(f'<td>{escape(x)}</td>' for x in row)}</tr>" for row in cells)
        return f"<p><b>{escape(self._title())}</b></p>{_spark(self.daily)}<table><tr>{head}</tr>{body}</table>"

    def _title(self) -> str:
        left = f", {len(self.left_out):,} without candles left out" if self.left_out else ""
        return f"{self.result['strategy_id']} on {len(self.parts)} symbols{left}"


class Check:
    """Findings of a check: `honest` is true if no fault was found; `report` has each test's finding, as in
    `c["lookback"]`."""

    def __init__(self, report: Report) -> None:
        self.report = report

    @property
    def honest(self) -> bool:
        return self.report.honest

    def __getitem__(self, test: str) -> Finding:
        return self.report[test]

    def __repr__(self) -> str:
        from candlemill.checks.text import findings_of

        given = ", ".join(f"{name}={value}" for name, value in self.report.params.items())
        return "\n".join([f"{self.report.strategy}({given})  on {self.report.data}", *findings_of(self.report)])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


# -- helpers -------------------------------------------------------------------------------------------------------


def _floats(values: Sequence[int | None]) -> Series:
    return Series(Kind.FLOAT, np.array([np.nan if value is None else value / SCALE for value in values]))


def _spark(daily: Table) -> str:
    """Draw the account's value by day as a small picture without axes."""
    values = daily["equity"]
    if len(values) < 2:
        return ""
    kept = values[np.unique(np.linspace(0, len(values) - 1, SPARK_WIDTH // 2).astype(int))]
    low, high = float(kept.min()), float(kept.max())
    x = np.linspace(0, SPARK_WIDTH, len(kept))
    y = SPARK_HEIGHT - 5 - (kept - low) / ((high - low) or 1.0) * (SPARK_HEIGHT - 10)
    points = " ".join(f"{a:.0f},{b:.0f}" for a, b in zip(x, y, strict=True))
    box = f"width='{SPARK_WIDTH}' height='{SPARK_HEIGHT}' viewBox='0 0 {SPARK_WIDTH} {SPARK_HEIGHT}'"
    line = f"<polyline points='{points}' fill='none' stroke='#2563c9' stroke-width='1.5'/>"
    return f"<svg xmlns='http://www.w3.org/2000/svg' {box} role='img' aria-label='equity by day'>{line}</svg>"
