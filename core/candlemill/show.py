"""What people read on the terminal: aligned tables and figures in their own units."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil
from textwrap import indent
from typing import Any

import msgspec
from tabulate import tabulate

from candlemill.engine.tape import DAY_MS
from candlemill.model import SCALE, iso
from candlemill.plan import Day, Month, Plan, months_of
from candlemill.reuse import Missing, Reuse
from candlemill.strategies import REGISTERED, source_digest
from candlemill.strategies.registry import properties_of

ID_SHOWN = 12  # letters of a job id that lists show
STOPS = ("stop_loss", "take_profit", "trailing_stop")
SWEEP_COLUMNS = ("total_pnl", "sharpe_ratio", "max_drawdown", "trades", "fees")


def decimal(scaled: int, places: int = 2) -> str:
    """A scaled integer as text with thousands separators, rounded towards zero for the eye only."""
    sign = "-" if scaled < 0 else ""
    whole, rest = divmod(abs(scaled), SCALE)
    return f"{sign}{whole:,}.{rest:08d}"[: len(f"{sign}{whole:,}") + 1 + places]


def money(scaled: int, largest: int | None = None) -> str:
    """Two decimals for large amounts, all eight for small ones; `largest` decides for a column of them."""
    size = abs(scaled) if largest is None else largest
    return decimal(scaled, 2 if size >= 100 * SCALE or size == 0 else 8)


def table(rows: Sequence[Sequence[object]], headers: Sequence[str] = (), right: Sequence[int] = ()) -> str:
    aligned = ["right" if k in right else "left" for k in range(len(headers) or 2)]
    return str(
        tabulate(
            rows, headers=headers, tablefmt="simple" if headers else "plain", colalign=aligned, disable_numparse=True
        )
    )


def result(r: Mapping[str, Any]) -> str:
    """One result as two columns."""
    trades = r["trades"]
    spec = r["spec"]
    rows: list[tuple[str, str]] = [
        ("strategy", f"{r['strategy_id']} {_params(r)}".rstrip()),
        ("symbol", f"{r['symbol']}  {iso(r['start'])} .. {iso(r['end'])}"),
        ("costs", _rates(spec, ("fee", "slippage"))),
        *([("stops", stops)] if (stops := _rates(spec, STOPS)) else []),
        *([("trading", trading)] if (trading := _trading(spec)) else []),
        ("bars", f"{r['bars']:,}  ({r['missing_minutes']:,} minutes missing, {r['days']:,} days)"),
        ("total PnL", money(r["total_pnl"])),
        ("max drawdown", _drawdown(r)),
        (
            "Sharpe / Sortino",
            f"{decimal(r['sharpe_ratio'], 4)} / {decimal(r['sortino_ratio'], 4)}  (daily, 365, n-1, rate 0)",
        ),
        ("trades", f"{trades:,}  ({_percent(r['wins'], trades)} won)"),
        ("gross profit / loss", f"{money(r['gross_profit'])} / {money(r['gross_loss'])}"),
        ("fees", f"{money(r['fees'])} on {r['fills']:,} fills"),
        ("exposure", _percent(r["exposure_bars"], r["bars"])),
        ("open position", {1: "long", -1: "short", 0: "none"}[r["open_position"]]),
        *_metrics(r),
    ]
    if r["funding"]:
        rows.append(("funding paid", money(r["funding"])))
    if r["unfilled"]:
        rows.append(("unfilled", f"{r['unfilled']:,} entries found no volume, or cost more than a trade has"))
    if r["trades_over_gaps"]:
        rows.append(("held over gaps", f"{r['trades_over_gaps']:,} positions"))
    if r["ambiguous_bars"]:
        rows.append(("ambiguous bars", f"{r['ambiguous_bars']:,} touched stop and target: taken as stopped"))
    rows += _run_guards(r["guards"]) if "guards" in r else []
    rows += [
        ("slices", f"{r['slices']:,}  ({r['repaired_slices']:,} repaired)"),
        ("time", f"{r['execution_time_ms']:,} ms"),
        ("job", r["job_id"]),
        ("result digest", r["result_digest"]),
    ]
    return table(rows)


def _run_guards(g: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("Sharpe above 0", f"{_ratio(g['probabilistic_sharpe'])}  (probability)")]
    if g["costs"]["break_even_fee"] is not None:
        rows.append(("break-even fee", f"{g['costs']['break_even_fee']:,} ppm a fill; paid {g['costs']['fee']:,}"))
    if g["bootstrap"]:
        found = g["bootstrap"]["figures"]
        for label, name, text in (
            ("PnL, 95 of 100", "total_pnl", money),
            ("Sharpe, 95 of 100", "sharpe_ratio", _ratio),
            ("drawdown, 95 of 100", "max_drawdown", money),
        ):
            rows.append((label, f"{text(found[name]['low'])} .. {text(found[name]['high'])}  (bootstrap of days)"))
    if g["shuffle"]:
        share = g["shuffle"]["deeper"] / SCALE
        rows.append(("trades shuffled", f"{share:.1%} of orders fall deeper than {_shuffled(g)}"))
    return rows + [("caution", warning) for warning in g["warnings"]]


def _shuffled(g: Mapping[str, Any]) -> str:
    return money(g["shuffle"]["figures"]["max_drawdown"]["actual"])


# What is shown of the metrics: the label, and the two or three figures that share a line.
SHOWN_METRICS = (
    ("return / a year", ("return", "cagr")),
    ("buy and hold", ("buy_and_hold",)),
    ("volatility a year", ("volatility",)),
    ("Calmar / Omega", ("calmar_ratio", "omega_ratio")),
    ("worst day in 20", ("value_at_risk", "expected_shortfall")),
    ("profit factor", ("profit_factor",)),
    ("average trade", ("average_trade",)),
    ("longest drawdown", ("longest_drawdown_days",)),
)
SHARES = frozenset({"return", "cagr", "buy_and_hold", "volatility", "value_at_risk", "expected_shortfall"})


def _metrics(r: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(label, " / ".join(_metric(name, r["metrics"][name]) for name in names)) for label, names in SHOWN_METRICS]


def _metric(name: str, value: int | None) -> str:
    if value is None:
        return "-"
    if name in SHARES:
        return f"{decimal(value * 100)} %"
    if name == "average_trade":
        return money(value)
    return f"{value:,} days" if name.endswith("_days") else decimal(value, 4)


def _drawdown(r: Mapping[str, Any]) -> str:
    compound = r["spec"]["sizing"] == "compound"
    return f"{decimal(r['max_drawdown'] * 100)} % of the peak" if compound else money(r["max_drawdown"])


def _rates(spec: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {spec[name]:,} ppm" for name in names if spec[name] or name == "fee")


def _trading(spec: Mapping[str, Any]) -> str:
    """What is not as usual: quantity, bars, fills."""
    parts = []
    if spec["sizing"] == "notional":
        parts.append(f"{decimal(spec['notional'])} in each trade")
    if spec["sizing"] == "compound":
        parts.append(f"all of the equity, from {decimal(spec['capital'])}")
    if spec["volume_share"]:
        parts.append(f"at most {spec['volume_share']:,} ppm of a bar's volume")
    if spec["funding"]:
        parts.append("funding applied")
    if spec["schedule"]:
        parts.append(f"{len(spec['schedule'])} parameter sets in turn")
    if spec["quantity"] != SCALE:
        parts.append(f"quantity {decimal(spec['quantity'], 8).rstrip('0').rstrip('.')}")
    if spec["timeframe"] != 1:
        parts.append(f"decided on {spec['timeframe']}-minute bars")
    if spec["fill"] != "next_open":
        parts.append("filled at the deciding close")
    return ", ".join(parts)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def portfolio(r: Mapping[str, Any]) -> str:
    """A line for each symbol, and the whole."""
    cells = [
        [
            part["symbol"],
            money(part["capital"]),
            money(part["total_pnl"]),
            decimal(part["sharpe_ratio"], 4),
            _drawdown(part),
            f"{part['trades']:,}",
            part["job_id"][:ID_SHOWN],
        ]
        for part in r["parts"]
    ]
    headers = ["symbol", "capital", "total PnL", "Sharpe", "max drawdown", "trades", "job"]
    rows = [
        ("strategy", f"{r['strategy_id']} {_params(r)}".rstrip()),
        ("range", f"{iso(r['start'])} .. {iso(r['end'])}"),
        ("total PnL", f"{money(r['total_pnl'])} of {money(r['capital'])}"),
        ("max drawdown", f"{_drawdown(r)}, at the ends of days"),
        ("Sharpe / Sortino", f"{decimal(r['sharpe_ratio'], 4)} / {decimal(r['sortino_ratio'], 4)}"),
        ("trades", f"{r['trades']:,}  ({_percent(r['wins'], r['trades'])} won)"),
        ("fees", f"{money(r['fees'])} on {r['fills']:,} fills"),
        *_metrics(r),
        ("job", r["job_id"]),
        ("result digest", r["result_digest"]),
    ]
    return f"{table(cells, headers, right=range(1, 6))}\n\n{table(rows)}"


def guards(g: Mapping[str, Any]) -> str:
    """What speaks for and against the best set of a sweep."""
    rows = [
        ("best by Sharpe", " ".join(f"{name}={value}" for name, value in g["best"].items())),
        ("trials", f"{g['trials']:,}, worth {g['independent_trials']:,} independent ones"),
        ("Sharpe", f"{_ratio(g['sharpe_ratio'])}, of which luck explains {_ratio(g['luck_sharpe'])}"),
        ("deflated Sharpe", f"{_ratio(g['deflated_sharpe'])}  (the probability that it is above luck)"),
    ]
    if g["overfitting"]:
        rows.append(("overfitting", f"{_ratio(g['overfitting']['probability'])}  (probability, by CSCV)"))
    if g["stability"] and g["stability"]["plateau"] is not None:
        rows.append(("plateau", f"{_ratio(g['stability']['plateau'])}  (neighbours' share of the best figure)"))
    return "\n".join([table(rows), *(f"caution: {warning}" for warning in g["warnings"])])


def _ratio(value: int | None) -> str:
    return "-" if value is None else decimal(value, 4)


def walk_forward(folds: Sequence[Mapping[str, Any]], names: Sequence[str], r: Mapping[str, Any], score: str) -> str:
    """A line for each fold, and the run of their choices."""
    cells = [
        [
            f"{iso(fold['train_start'])[:10]}..{iso(fold['train_end'] - 1)[:10]}",
            f"{iso(fold['test_start'])[:10]}..{iso(fold['test_end'] - 1)[:10]}",
            " ".join(f"{name}={fold['params'][name]}" for name in names),
            _score(score, fold["in_sample"]),
            _score(score, fold["out_of_sample"]),
        ]
        for fold in folds
    ]
    headers = ["training", "test", "chosen", "in sample", "out of sample"]
    return f"{table(cells, headers, right=(3, 4))}\nscored by {score.replace('_', ' ')}\n\n{result(r)}"


def _score(score: str, value: int) -> str:
    return money(value) if score == "total_pnl" else decimal(value, 4)


def sweep(results: Sequence[Mapping[str, Any]], names: Sequence[str], sort: str, total: int) -> str:
    """The best parameter sets, one per line."""
    columns = [*SWEEP_COLUMNS, *([sort] if sort not in SWEEP_COLUMNS else [])]
    figures = [{**r["metrics"], **r} for r in results]
    largest = {column: max((abs(r[column] or 0) for r in figures), default=0) for column in columns}
    rows = [
        [
            *(str(r["params"][name]) for name in names),
            *(_cell(column, r[column], largest[column]) for column in columns),
        ]
        for r in figures
    ]
    headers = [*names, *(column.replace("_", " ") for column in columns)]
    shown = table(rows, headers, right=range(len(headers)))
    return f"{shown}\n{len(results):,} of {total:,} parameter sets, by {sort.replace('_', ' ')}"


def _cell(column: str, value: int | None, largest: int) -> str:
    if value is None:
        return "-"
    if column in SHARES:
        return f"{decimal(value * 100)} %"
    if column.endswith("_ratio") or column in ("profit_factor", "win_rate"):
        return decimal(value, 4)
    if column in ("total_pnl", "max_drawdown", "fees", "gross_profit", "gross_loss", "average_trade"):
        return money(value, largest)
    return f"{value:,}"


def results_list(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Results with the first letters of their job ids, which are enough to ask for one; fits 100 columns."""
    cells = [
        [
            r["job_id"][:ID_SHOWN],
            created[:16],
            r["symbol"],
            f"{iso(r['start'])[:10]}..{iso(r['end'] - 1)[:10]}",
            money(r["total_pnl"]),
            decimal(r["sharpe_ratio"], 4),
        ]
        for created, r in rows
    ]
    headers = ["job", "created", "symbol", "range", "total PnL", "Sharpe"]
    lines = table(cells, headers, right=(4, 5)).splitlines()
    # The strategy goes on a line of its own: its parameters would not fit beside the figures.
    told = [f"{line}\n  {r['strategy_id']} {_params(r)}".rstrip() for line, (_, r) in zip(lines[2:], rows, strict=True)]
    return "\n".join([*lines[:2], *told])


def _params(r: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in r["params"].items())


def missing_in(month: Month, first: int, last: int) -> int:
    """Minutes of the month, within the symbol's first and last candle, that have none."""
    a, b = max(month.start, first), min(month.end, last + 60_000)
    return max(0, (b - a) // 60_000 - month.rows)


def missing_of(days: Sequence[Day]) -> int:
    """Minutes between a symbol's first and last candle that have none, months without any included."""
    return (days[-1].last - days[0].first) // 60_000 + 1 - sum(day.rows for day in days) if days else 0


def coverage_rows(days: Sequence[Day]) -> list[dict[str, Any]]:
    """A symbol's months: rows, first and last candle, missing minutes, digest."""
    if not days:
        return []
    first, last = days[0].first, days[-1].last
    out = []
    for month in months_of(days):
        members = [day for day in days if month.start <= day.start < month.end]
        out.append(
            {
                "month": iso(month.start)[:7],
                "rows": month.rows,
                "first": members[0].first,
                "last": members[-1].last,
                "missing_minutes": missing_in(month, first, last),
                "data_digest": month.digest,
            }
        )
    return out


def coverage(symbol: str, days: Sequence[Day]) -> str:
    rows = coverage_rows(days)
    cells = [
        [
            r["month"],
            f"{r['rows']:,}",
            iso(r["first"]),
            iso(r["last"]),
            f"{r['missing_minutes']:,}",
            r["data_digest"][:16],
        ]
        for r in rows
    ]
    headers = ["month", "rows", "first", "last", "missing", "digest"]
    total = f"{symbol}: {sum(r['rows'] for r in rows):,} rows, {missing_of(days):,} minutes missing from first to last"
    return f"{table(cells, headers, right=(1, 4))}\n{total}"


def coverage_summary(symbols: Mapping[str, Sequence[Day]]) -> str:
    cells = []
    for symbol, days in symbols.items():
        rows = coverage_rows(days)
        if rows:
            total, missing = sum(r["rows"] for r in rows), missing_of(days)
            cells.append([symbol, f"{total:,}", iso(days[0].first), iso(days[-1].last), f"{missing:,}", str(len(rows))])
    return table(cells, ["symbol", "rows", "first", "last", "missing", "months"], right=(1, 4, 5))


NOT_KNOWN: dict[str, str] = {
    "new_set": "not run before",
    "new_range": "run over other ranges only",
    "candles_changed": "candles have changed since",
    "other_code": "run by other code only",
}
SPANS_SHOWN = 12


def plan(job_id: str, found: Plan, bars: int, sets: int, seconds: float, cached: bool, reuse: Reuse | None) -> str:
    days = [ceil((b - a) / DAY_MS) for a, b in pairwise(found.cuts)]
    span = f"{min(days):,}" if min(days) == max(days) else f"{min(days):,} to {max(days):,}"
    rows = [
        ("job", job_id),
        ("bars", f"{bars:,}"),
        ("slices", f"{found.slices:,} of {span} day{'s' * (max(days) > 1)}"),
        ("parameter sets", f"{sets:,} valid of {found.points:,}"),
        ("tasks", f"{found.tasks:,}"),
        ("estimate", "stored already" if cached else f"{seconds:,.1f} s on one core"),
    ]
    if reuse is not None and not cached:
        whole, outcomes = f"{reuse.reused_slices:,} of {reuse.slices:,}", f"{reuse.reused_outcomes:,}"
        rows.append(("known", f"{whole} slices, {outcomes} of {reuse.outcomes:,} outcomes"))
        rows += [("to compute", _missing(one)) for one in reuse.missing[:SPANS_SHOWN]]
        if len(reuse.missing) > SPANS_SHOWN:
            rows.append(("", f"and {len(reuse.missing) - SPANS_SHOWN:,} stretches more"))
    return table(rows)


def _missing(one: Missing) -> str:
    many = f"{one.slices:,} slices" if one.slices > 1 else "1 slice"
    sets = f" for {one.sets:,} sets" if one.sets > 1 else ""
    return f"{iso(one.start)}..{iso(one.end)}, {many}{sets}: {NOT_KNOWN[one.reason]}"


def strategies_rows() -> list[dict[str, Any]]:
    """Every strategy with its JSON Schema; `source` is the digest of a plugin's source."""
    return [
        {
            "name": name,
            "description": summary_of(kind),
            "source": source_digest(name),
            "schema": msgspec.json.schema(kind),
        }
        for name, kind in sorted(REGISTERED.items())
    ]


def summary_of(kind: type) -> str:
    """The first paragraph of a strategy's docstring."""
    text = (kind.__doc__ or "").strip()
    return "" if text.startswith(f"{kind.__name__}(") else " ".join(text.partition("\n\n")[0].split())


def strategies() -> str:
    lines = []
    for name, kind in sorted(REGISTERED.items()):
        plugin = f"  (plugin {source_digest(name)[:12]})" if source_digest(name) else ""
        lines.append(f"{name}{plugin}\n  {summary_of(kind)}".rstrip())
        properties = properties_of(kind)
        rows = [
            (param, str(info.get("default", "")), _bounds(info), info.get("description", ""))
            for param, info in properties.items()
        ]
        shown = str(tabulate(rows, tablefmt="plain", disable_numparse=True)) if rows else "no parameters"
        lines.append(indent(shown, "    "))
    return "\n".join(lines)


def _bounds(info: Mapping[str, Any]) -> str:
    if "enum" in info:
        return " or ".join(str(value) for value in info["enum"])
    if info["type"] == "boolean":
        return "true or false"
    least, most = info.get("minimum"), info.get("maximum")
    if least is None and most is None:
        return str(info["type"])
    return f"{'' if least is None else f'{least:,}'} to {'' if most is None else f'{most:,}'}"
