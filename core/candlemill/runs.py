"""What the Python API's calls return: a run, a sweep, a walk-forward, a portfolio."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from candlemill import daily as packed
from candlemill.checks.report import Finding, Report
from candlemill.errors import BadInput, UnknownName
from candlemill.frames import Kind, Series, Table, from_rows
from candlemill.guards import Validation, cross_validate
from candlemill.io.session import Chosen, Source
from candlemill.ledger import ResultRow
from candlemill.model import SCALE, Spec, iso, spec_from_json
from candlemill.portfolio import Part, joint_profits
from candlemill.ranking import SMALLER_IS_BETTER
from candlemill.reduce import compounded
from candlemill.stats import COUNT, Stats, figure, shown, stats_of, unit_of
from candlemill.trace import Reason, Trace

FIGURES = ("equity", "price", "monthly", "profits", "sharpe", "excursions")
SWEEP_COLUMNS = (
    "total_pnl", "return", "sharpe_ratio", "sortino_ratio", "max_drawdown", "trades", "win_rate", "profit_factor",
    "fees",
)  # fmt: skip
SPARK_WIDTH, SPARK_HEIGHT = 600, 110


class Run:
    """One run. `stats` are its figures for people, `result` the exact integers that are stored, `equity`, `trades` and
    `daily` its tables. What takes computing it once more is computed when it is first asked for, and kept."""

    def __init__(self, source: Source, chosen: Chosen, row: ResultRow) -> None:
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
    def daily(self) -> Table:
        """Each UTC day that has bars: its profit, and the account's value at its end."""
        days, figures = packed.unpack(self._daily)
        profits = figures.tolist()
        if self.result["spec"]["sizing"] == "compound":
            profits = compounded(profits, self.result["capital"])
        return _daily(days, profits, self.result["capital"])

    @cached_property
    def trace(self) -> Trace:
        """The run bar by bar. Raises BadInput where the strategy or the candles are not what they were."""
        with self._source.home() as home:
            self._chosen.load()
            spec = self.spec
            now = home.prepare(spec, None).job_id
            if now != self.job_id:
                raise BadInput(f"{spec.strategy} or the candles of {spec.symbol} have changed since: run it again")
            return home.trace(self.result)

    @property
    def equity(self) -> Table:
        """Each minute bar: its close, the position and the account's value at that moment, the fall from the peak."""
        trace = self.trace
        value = trace.equity + trace.capital
        peak = np.maximum.accumulate(np.maximum(value, trace.capital))
        columns = {
            "time": Series(Kind.TIME, trace.t),
            "close": Series(Kind.SCALED, trace.close),
            "position": Series(Kind.COUNT, trace.position),
            "equity": Series(Kind.SCALED, value),
            "drawdown": Series(Kind.SCALED, peak - value),
        }
        return Table(columns, index="time")

    @property
    def trades(self) -> Table:
        """Each round trip, in order of exits; docs/python.md says what the columns are."""
        t = self.trace.trades
        scaled = ("quantity", "entry_price", "exit_price", "profit", "fees", "funding", "mae", "mfe")
        columns = {
            "entry_time": Series(Kind.TIME, t.entry_t),
            "exit_time": Series(Kind.TIME, t.exit_t),
            "side": Series(Kind.LABEL, (t.side < 0).astype(np.int8), ("long", "short")),
            **{name: Series(Kind.SCALED, getattr(t, name)) for name in scaled},
            "bars": Series(Kind.COUNT, t.bars),
            "reason": Series(Kind.LABEL, t.reason.astype(np.int8), tuple(reason.name.lower() for reason in Reason)),
            "gap": Series(Kind.FLAG, t.gap),
            "ambiguous": Series(Kind.FLAG, t.ambiguous),
        }
        return Table(columns)

    def plot(self, what: str = "equity") -> Any:
        """A plotly Figure: `equity`, `price`, `monthly`, `profits`, `sharpe` or `excursions`."""
        if what not in FIGURES:
            raise UnknownName("figure", what, list(FIGURES), f"known are {', '.join(FIGURES)}")
        from candlemill.report import figures

        return getattr(figures, what)(self.trace)

    def guards(self, seed: int = 1) -> dict[str, Any]:
        """How much of it may be luck: intervals, the fee at which the profit is gone; see docs/guards.md."""
        from candlemill.guards.run import with_guards

        found: dict[str, Any] = with_guards(self.trace, seed).result["guards"]
        return found

    def report(self, path: str | PathLike[str], seed: int = 1) -> Path:
        """Everything on one self-contained page; `seed` is that of the guards' resampling."""
        from candlemill.guards.run import with_guards
        from candlemill.report import write_report

        write_report(with_guards(self.trace, seed), fspath(path))
        return Path(path)

    def __repr__(self) -> str:
        return f"{self._title()}\n{self.stats!r}\njob {self.job_id}"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(shown(value))}</td></tr>"
            for name, value in self.stats.items()
        )
        digest = escape(str(self.result["result_digest"]))
        line = _spark(self.daily)
        told = f"<p><b>{escape(self._title())}</b></p>{line}<table>{rows}</table>"
        return f"{told}<p><small>job {self.job_id}, digest {digest}</small></p>"

    def _title(self) -> str:
        r = self.result
        given = ", ".join(f"{name}={value}" for name, value in r["params"].items())
        return f"{r['symbol']} {r['strategy_id']}({given})  {iso(r['start'])}..{iso(r['end'])}"


class WalkForward(Run):
    """The run of what was chosen in each fold, out of sample throughout; `folds` tells the choices."""

    def __init__(
        self,
        source: Source,
        chosen: Chosen,
        row: ResultRow,
        folds: Sequence[Mapping[str, Any]],
        score: str,
        sweep_id: str,
        guards: dict[str, Any] | None,
    ) -> None:
        super().__init__(source, chosen, row)
        self.sweep_id, self.score, self.sweep_guards = sweep_id, score, guards
        self._folds = folds

    @property
    def folds(self) -> Table:
        """Each fold's bounds, the parameters chosen in its training, and their score there and in its test."""
        edges = ("train_start", "train_end", "test_start", "test_end")
        whole = {name: np.array([fold[name] for fold in self._folds], dtype=np.int64) for name in edges}
        params = [fold["params"] for fold in self._folds]
        scores = ("in_sample", "out_of_sample", "efficiency")
        return Table(
            {
                **{name: Series(Kind.TIME, column) for name, column in whole.items()},
                **from_rows(params, list(params[0])),
                **{name: _floats([fold[name] for fold in self._folds], SCALE) for name in scores},
            }
        )

    def report(self, path: str | PathLike[str], seed: int = 1) -> Path:
        from candlemill.report import write_walk_forward_report

        found = {"folds": self._folds, "trace": self.trace, "guards": self.sweep_guards, "score": self.score}
        write_walk_forward_report(found, fspath(path))
        return Path(path)

    def _title(self) -> str:
        r = self.result
        span = f"{iso(r['start'])}..{iso(r['end'])}"
        return f"{r['symbol']} {r['strategy_id']}, walk-forward of {len(self._folds)} folds, {span}"


class Sweep:
    """A strategy over a grid of parameters. `sets` is the table of all, the best first; `guards` say how far the best
    may be luck, and `warnings` what of that should be read."""

    def __init__(
        self,
        source: Source,
        chosen: Chosen,
        job_id: str,
        spec: Spec,
        results: Sequence[dict[str, Any]],
        guards: dict[str, Any] | None,
        metric: str,
    ) -> None:
        self.job_id, self.spec, self.guards, self.metric = job_id, spec, guards, metric
        self._source, self._chosen, self._results = source, chosen, results

    def __len__(self) -> int:
        return len(self._results)

    @property
    def warnings(self) -> list[str]:
        return list((self.guards or {}).get("warnings", []))

    @property
    def sets(self) -> Table:
        """Every parameter set: what varies, then its main figures, ordered by the sweep's metric."""
        order = self._order(self.metric)
        rows = [self._results[k] for k in order]
        names = dict.fromkeys((*SWEEP_COLUMNS, self.metric))
        columns = from_rows([row["params"] for row in rows], list(self.spec.grid))
        return Table(columns | {name: _figures(rows, name, unit_of(name, self.spec.sizing)) for name in names})

    def best(self, metric: str | None = None) -> Run:
        """The best set's run; of equally good ones that with the lowest job id."""
        return self.run(self._results[self._order(metric or self.metric)[0]]["job_id"])

    def run(self, job_id: str) -> Run:
        """One set's run, by its job id."""
        with self._source.home() as home:
            rows = home.store.results([job_id])
        if not rows:
            raise UnknownName("job", job_id, [row["job_id"] for row in self._results], "it is none of this sweep's")
        return Run(self._source, self._chosen, rows[0])

    def cross_validate(
        self, groups: int = 6, tested: int = 1, purge: int = 0, embargo: int = 0, score: str = "sharpe_ratio"
    ) -> Validation:
        """Purged k-fold, or combinatorial purged cross-validation with more than one group `tested`: choose on some
        days, judge on others. `purge` and `embargo` are days; see docs/guards.md."""
        ids = [str(result["job_id"]) for result in self._results]
        with self._source.home() as home:
            rows = home.store.sweep_daily(self.job_id, ids)
        matrix = np.stack([packed.unpack(rows[one])[1] for one in ids])
        return cross_validate(matrix, score, groups, tested, purge, embargo)

    def _order(self, metric: str) -> list[int]:
        values = [figure(row, metric, COUNT) for row in self._results]
        badness = np.array(values, dtype=np.float64) * (1 if metric in SMALLER_IS_BETTER else -1)
        return [int(k) for k in np.argsort(badness, kind="stable")]

    def plot(self, x: str | None = None, y: str | None = None, metric: str | None = None, over: str = "best") -> Any:
        """A heat map over two parameters (a line over one): the `best` or the `mean` over all others."""
        from candlemill.report import sweep_figures

        return sweep_figures.heat_map(self._told(), x, y, metric or self.metric, over)

    def report(self, path: str | PathLike[str]) -> Path:
        from candlemill.report import write_sweep_report

        write_sweep_report(self._told(), fspath(path))
        return Path(path)

    def _told(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "spec": self.spec, "results": self._results, "guards": self.guards}

    def __repr__(self) -> str:
        return "\n".join([self._title(), repr(self.sets), *(f"warning: {text}" for text in self.warnings)])

    def _repr_html_(self) -> str:
        warned = "".join(f"<li>{escape(text)}</li>" for text in self.warnings)
        told = f"<ul>{warned}</ul>" if warned else ""
        return f"<p><b>{escape(self._title())}</b></p>{told}{self.sets._repr_html_()}"

    def _title(self) -> str:
        span = f"{iso(self.spec.start)}..{iso(self.spec.end)}"
        return f"{self.spec.symbol} {self.spec.strategy}, {len(self):,} sets by {self.metric}  {span}"


class Portfolio:
    """Several symbols with one strategy: joint `stats` and `daily`, each symbol's `parts`."""

    def __init__(self, source: Source, chosen: Chosen, result: dict[str, Any], rows: Sequence[ResultRow]) -> None:
        self.result = result
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
        return _daily(*self._joint, self.result["capital"])

    @property
    def equity(self) -> Table:
        """The account's value day by day: symbols share no bar, but they share days."""
        return self.daily

    def __repr__(self) -> str:
        return f"{self._title()}\n{self.stats!r}\njob {self.job_id}"

    def _repr_html_(self) -> str:
        names = ("Symbol", "Return [%]", "Profit", "Sharpe Ratio", "# Trades")
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        rows = [("all together", self.stats), *((symbol, run.stats) for symbol, run in self.parts.items())]
        cells = [[name, *(shown(stats[key]) for key in names[1:])] for name, stats in rows]
        body = "".join(f"<tr>{''.join(f'<td>{escape(x)}</td>' for x in row)}</tr>" for row in cells)
        return f"<p><b>{escape(self._title())}</b></p>{_spark(self.daily)}<table><tr>{head}</tr>{body}</table>"

    def _title(self) -> str:
        return f"{self.result['strategy_id']} on {len(self.parts)} symbols"


class Check:
    """What a check found: `honest` (no fault was found), and each test's finding in `report`, as in `c["lookback"]`."""

    def __init__(self, report: Report) -> None:
        self.report = report

    @property
    def honest(self) -> bool:
        return self.report.honest

    def __getitem__(self, test: str) -> Finding:
        return self.report[test]

    def __repr__(self) -> str:
        from candlemill.cli_check import findings_of

        given = ", ".join(f"{name}={value}" for name, value in self.report.params.items())
        return "\n".join([f"{self.report.strategy}({given})  on {self.report.data}", *findings_of(self.report)])

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


# -- helpers -------------------------------------------------------------------------------------------------------


def _daily(days: Any, profits: Sequence[int], capital: int) -> Table:
    column = np.array(profits, dtype=np.int64)
    columns = {
        "day": Series(Kind.TIME, days),
        "profit": Series(Kind.SCALED, column),
        "equity": Series(Kind.SCALED, np.cumsum(column) + capital),
    }
    return Table(columns, index="day")


def _figures(rows: Sequence[Mapping[str, Any]], name: str, unit: int) -> Series:
    """A figure of every row: as integers where none is undefined."""
    values = [figure(row, name, COUNT) for row in rows]
    if all(isinstance(value, int) and -(2**63) <= value < 2**63 for value in values):
        return Series(Kind.COUNT if unit == COUNT else Kind.SCALED, np.array(values, dtype=np.int64), unit=unit)
    return Series(Kind.FLOAT, np.array(values, dtype=np.float64) / unit)


def _floats(values: Sequence[int | None], unit: int) -> Series:
    return Series(Kind.FLOAT, np.array([np.nan if value is None else value / unit for value in values]))


def _spark(daily: Table) -> str:
    """The account's value day by day as a small picture without axes."""
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
