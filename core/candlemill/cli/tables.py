"""Terminal output for people: aligned tables and figures in their own units."""

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil
from shutil import get_terminal_size
from textwrap import TextWrapper, fill, indent
from typing import TYPE_CHECKING, Any

import msgspec
from tabulate import tabulate

from candlemill.backtests.command_line import value_text
from candlemill.backtests.metric_table import is_descending, label, shown, value_of
from candlemill.backtests.plan import Plan, Repairs
from candlemill.engine.candles import DAY_MS
from candlemill.formatting import SIDES, exact, largest_of, money, percent, rate, ratio, share, table
from candlemill.guards.gaps import data_cautions
from candlemill.pipeline.reuse import Missing, Reuse
from candlemill.strategies import REGISTERED, source_digest
from candlemill.strategies.registry import properties_of, summary_of
from candlemill.units import iso

if TYPE_CHECKING:  # late: a study imports what runs jobs
    from candlemill.studies.study import Study

HEADER_WIDTH = 9  # of a column of figures
ID_SHOWN = 12  # letters of a job id in lists
SYMBOLS_WIDTH = 20
GAP, NARROWEST = 2, 30  # between columns; a value on a terminal that is very small
STOPS = ("stop_loss", "take_profit", "trailing_stop")
SWEEP_COLUMNS = ("total_pnl", "sharpe_ratio", "max_drawdown", "trades", "fees")


def _open_position(r: Mapping[str, Any]) -> str:
    """Return the side of the position at the end; for several symbols in one account, the number of open positions."""
    return f"{r['open_position']:,} symbols" if len(r.get("symbols", ())) > 1 else SIDES[r["open_position"]]


def result(r: Mapping[str, Any]) -> str:
    """Format one result as two columns."""
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
            f"{_both(r, 'sharpe_ratio', 'sortino_ratio')}  (daily, 365, n-1, rate 0)",
        ),
        ("trades", f"{trades:,}  ({percent(share(r['wins'], trades))} won)"),
        ("gross profit / loss", _both(r, "gross_profit", "gross_loss")),
        ("fees", f"{money(r['fees'])} on {r['fills']:,} fills"),
        ("exposure", percent(share(r["exposure_bars"], r["bars"]))),
        ("open position", _open_position(r)),
        *_metrics(r),
    ]
    if r["funding"]:
        rows.append(("funding paid", money(r["funding"])))
    if r["borrow"]:
        rows.append(("borrow paid", money(r["borrow"])))
    if r["cut_orders"] or r["rejected_orders"]:
        rows.append(("orders", f"{r['cut_orders']:,} cut, {r['rejected_orders']:,} rejected"))
    if r.get("liquidations"):
        rows.append(("liquidations", f"{r['liquidations']:,}"))
    if r.get("liquidation_price") is not None:
        rows.append(("liquidated at", exact(r["liquidation_price"])))
    if r["unfilled"]:
        rows.append(("unfilled", f"{r['unfilled']:,} entries found no volume, or cost more than a trade has"))
    if r["trades_over_gaps"]:
        rows.append(("held over gaps", f"{r['trades_over_gaps']:,} positions, {money(r.get('gap_profit'))} earned"))
    if "guards" not in r:
        rows += [("caution", text) for text in data_cautions(r)]
    if r["ambiguous_bars"]:
        taken = "the best outcome counts" if r["spec"].get("path") == "best" else "the worst outcome counts"
        rows.append(("ambiguous bars", f"{r['ambiguous_bars']:,} with an unknown order of events: {taken}"))
    rows += _interval(r)
    rows += _run_guards(r["guards"]) if "guards" in r else []
    rows += [
        ("slices", f"{r['slices']:,}  ({r['repaired_slices']:,} repaired)"),
        ("time", f"{r['execution_time_ms']:,} ms"),
        ("job", r["job_id"]),
        ("result digest", r["result_digest"]),
    ]
    return pairs(rows)


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Format names and values. On a terminal a value that is too long continues below itself."""
    if not sys.stdout.isatty():
        return table(rows)
    width = get_terminal_size().columns - max(len(name) for name, _ in rows) - GAP
    wrapper = TextWrapper(max(width, NARROWEST), break_long_words=False, break_on_hyphens=False)
    return table([(name, wrapper.fill(text)) for name, text in rows])


def _interval(r: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the row of a result of both paths: from the profit of the worst to that of the best order of events."""
    return [("interval", f"from {money(r['total_pnl'])} to {money(r['best_path_pnl'])}")] if "interval" in r else []


def _run_guards(g: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("Sharpe above 0", f"{percent(g['probabilistic_sharpe'])}  (probability)")]
    if g["costs"]["break_even_fee"] is not None:
        rows.append(("break-even fee", f"{rate(g['costs']['break_even_fee'])} a fill; paid {rate(g['costs']['fee'])}"))
    if g["bootstrap"]:
        found = g["bootstrap"]["figures"]
        for title, name in (("PnL", "total_pnl"), ("Sharpe", "sharpe_ratio"), ("drawdown", "max_drawdown")):
            low, high = found[name]["low"], found[name]["high"]
            ends = (shown(name, x, largest=largest_of([low, high])) for x in (low, high))
            rows.append((f"{title}, 95 of 100", f"{' .. '.join(ends)}  (bootstrap of days)"))
    if g["shuffle"]:
        fall = money(g["shuffle"]["figures"]["max_drawdown"]["actual"])
        rows.append(("trades shuffled", f"{percent(g['shuffle']['deeper'])} of orders fall deeper than {fall}"))
    return rows + [("caution", warning) for warning in g["warnings"]]


# Shown metrics: the label, and the two or three figures on its line.
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


def _metrics(r: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(title, " / ".join(shown(name, r["metrics"][name]) for name in names)) for title, names in SHOWN_METRICS]


def _both(r: Mapping[str, Any], *names: str) -> str:
    return " / ".join(shown(name, r[name]) for name in names)


def _drawdown(r: Mapping[str, Any]) -> str:
    """Format the drawdown with its share of the peak, which needs daily values only."""
    sizing = r["spec"]["sizing"]
    fall = shown("max_drawdown", r["max_drawdown"], sizing) + (" of the peak" if sizing == "compound" else "")
    return f"{fall} bar by bar; {percent(r['metrics']['max_drawdown_share'])} of the peak day by day"


def _rates(spec: Mapping[str, Any], names: Sequence[str]) -> str:
    own = _varied(spec)
    shown_names = [name for name in names if spec[name] or name == "fee" or name in own]
    return ", ".join(
        f"{name.replace('_', ' ')} {'of each window' if name in own else rate(spec[name])}" for name in shown_names
    )


def _varied(spec: Mapping[str, Any]) -> Mapping[str, int]:
    """Return the options that the windows of a walk-forward have of their own."""
    return spec["schedule"][0].get("options", {}) if spec["schedule"] else {}


def _account(spec: Mapping[str, Any]) -> str:
    """Describe a money account in a few words."""
    of = {"equity": "the equity", "notional": money(spec["notional"] or 0), "units": "the quantity"}
    text = f"cash account of {money(spec['capital'])}, positions in parts of {of[spec['size']]}"
    if spec["leverage"] != 1_000_000:
        text += f", leverage {spec['leverage'] / 1e6:g}x"
    return text if spec.get("margin", "none") == "none" else f"{text}, margin {spec['margin']}"


def _trading(spec: Mapping[str, Any]) -> str:
    """Describe the settings that differ from the defaults: quantity, bars, fills."""
    parts = []
    if spec["account"] == "cash":
        parts.append(_account(spec))
    if spec["sizing"] == "notional":
        parts.append(f"{exact(spec['notional'])} in each trade")
    if spec["sizing"] == "compound":
        parts.append(f"all of the equity, from {exact(spec['capital'])}")
    if spec["volume_share"]:
        parts.append(f"at most {rate(spec['volume_share'])} of a bar's volume")
    if spec["funding"]:
        parts.append("funding applied")
    if spec["schedule"]:
        parts.append(f"{len(spec['schedule'])} parameter sets in turn")
    if spec["size"] == "units" or (spec["account"], spec["sizing"]) == ("units", "fixed"):
        parts.append(f"quantity {exact(spec['quantity'])}")
    if "timeframe" in _varied(spec):
        parts.append("decided on bars of each window")
    elif spec["timeframe"] != 1:
        parts.append(f"decided on {spec['timeframe']}-minute bars")
    if spec["fill"] != "next_open":
        parts.append("filled at the deciding close")
    if spec["warm_up"] == "stored":
        parts.append("warmed up on the candles stored before")
    return ", ".join(parts)


def portfolio(r: Mapping[str, Any]) -> str:
    """Format a line for each symbol, and the total."""
    figures = _columns(r["parts"], ("capital", "total_pnl", "sharpe_ratio", "max_drawdown", "trades"))
    cells = [[part["symbol"], *row, part["job_id"][:ID_SHOWN]] for part, row in zip(r["parts"], figures, strict=True)]
    headers = ["symbol", "capital", "total PnL", "Sharpe", "max drawdown", "trades", "job"]
    rows = [
        ("strategy", f"{r['strategy_id']} {_params(r)}".rstrip()),
        ("range", f"{iso(r['start'])} .. {iso(r['end'])}"),
        ("total PnL", f"{money(r['total_pnl'])} of {money(r['capital'])}"),
        ("max drawdown", f"{shown('max_drawdown', r['max_drawdown'], r['spec']['sizing'])} at the ends of days"),
        ("Sharpe / Sortino", _both(r, "sharpe_ratio", "sortino_ratio")),
        ("trades", f"{r['trades']:,}  ({percent(share(r['wins'], r['trades']))} won)"),
        ("fees", f"{money(r['fees'])} on {r['fills']:,} fills"),
        *_interval(r),
        *_metrics(r),
        ("job", r["job_id"]),
        ("result digest", r["result_digest"]),
    ]
    return f"{table(cells, headers, right=range(1, 6))}\n\n{pairs(rows)}"


def guards(g: Mapping[str, Any]) -> str:
    """Format the evidence for and against the best set of a sweep."""
    own = g["independent_trials"]
    rows = [
        ("best by Sharpe", _values(g["best"])),
        ("trials", f"{g['trials']:,}, worth {own:,} independent {'one' if own == 1 else 'ones'}"),
        ("Sharpe", f"{ratio(g['sharpe_ratio'])}, of which luck explains {ratio(g['luck_sharpe'])}"),
        ("deflated Sharpe", f"{percent(g['deflated_sharpe'])}  (the probability that it is above luck)"),
    ]
    if g["overfitting"]:
        rows.append(("overfitting", f"{percent(g['overfitting']['probability'])}  (probability, by CSCV)"))
    if g["stability"] and g["stability"]["plateau"] is not None:
        rows.append(("plateau", f"{percent(g['stability']['plateau'])}  (neighbours' share of the best figure)"))
    return "\n".join([pairs(rows), *(f"caution: {warning}" for warning in g["warnings"])])


def walk_forward(folds: Sequence[Mapping[str, Any]], names: Sequence[str], r: Mapping[str, Any], score: str) -> str:
    """Format a line for each fold, and the run of their choices."""
    largest = {name: largest_of(fold[name] for fold in folds) for name in ("in_sample", "out_of_sample")}
    cells = [
        [
            _days(fold["train_start"], fold["train_end"]),
            _days(fold["test_start"], fold["test_end"]),
            _values({name: fold["params"][name] for name in names}) if fold["params"] else "no candles",
            shown(score, fold["in_sample"], largest=largest["in_sample"]),
            shown(score, fold["out_of_sample"], largest=largest["out_of_sample"]),
        ]
        for fold in folds
    ]
    headers = ["training", "test", "chosen", "in\nsample", "out of\nsample"]
    return f"{table(cells, headers, right=(3, 4))}\nscored by {label(score)}\n\n{result(r)}"


def sweep(results: Sequence[Mapping[str, Any]], names: Sequence[str], sort: str, total: int) -> str:
    """Format the best parameter sets, one per line."""
    columns = list(SWEEP_COLUMNS)
    if any("interval" in r for r in results):
        columns.insert(1, "best_path_pnl")
    columns += [sort] if sort not in columns else []
    figures = _columns(results, columns)
    rows = [[*(value_text(r["params"][name]) for name in names), *row] for r, row in zip(results, figures, strict=True)]
    headers = [*names, *(fill(label(column), HEADER_WIDTH) for column in columns)]
    text = table(rows, headers, right=range(len(headers)))
    return f"{text}\n{len(results):,} of {total:,} parameter sets, by {label(sort)}"


def sweeps(found: Mapping[str, Any], best: Sequence[Mapping[str, Any]], names: Sequence[str], sort: str) -> str:
    """Format the best parameter sets of several symbols together, and each symbol's guards."""
    columns = [*SWEEP_COLUMNS, *([sort] if sort not in SWEEP_COLUMNS else [])]
    rows = [
        [r["symbol"], *(value_text(r["params"][name]) for name in names), *row]
        for r, row in zip(best, _columns(best, columns), strict=True)
    ]
    headers = ["symbol", *names, *(fill(label(column), HEADER_WIDTH) for column in columns)]
    total = sum(part["sets"] for part in found["parts"])
    lines = [table(rows, headers, right=range(1, len(headers)))]
    lines.append(f"{len(best):,} of {total:,} parameter sets of {len(found['parts']):,} symbols, by {label(sort)}")
    lines.append("caution: each symbol's guards count its own sets; the best of all symbols is one of all of them")
    for part in found["parts"]:
        lines.append(f"\n{part['symbol']}  job {part['job_id']}")
        lines += [guards(part["guards"])] if part["guards"] else []
    return "\n".join([*lines, f"\njob {found['job_id']}"])


def walk_forwards(found: Mapping[str, Any]) -> str:
    """Format a line for each symbol's walk-forward."""
    figures = _columns([part["result"] for part in found["parts"]], SWEEP_COLUMNS)
    cells = [
        [part["symbol"], f"{len(part['folds']):,}", *row, part["job_id"][:ID_SHOWN]]
        for part, row in zip(found["parts"], figures, strict=True)
    ]
    headers = ["symbol", "folds", *(fill(label(column), HEADER_WIDTH) for column in SWEEP_COLUMNS), "job"]
    return f"{table(cells, headers, right=range(1, 2 + len(SWEEP_COLUMNS)))}\njob {found['job_id']}"


def study(found: "Study", top: int) -> str:
    """Format a study's best trials, one per line, and how much of the best may be luck."""
    (score, *others), names = found.request.scores, sorted(found.request.space)
    sign = -1 if is_descending(score) else 1
    done = sorted((one for one in found.trials if one.state == "done"), key=lambda one: sign * (one.score or 0))[:top]
    scores = [shown(score, one.score, largest=largest_of([two.score for two in done])) for one in done]
    rows = [
        [
            f"{one.number:,}{'*' if one.number in found.front else ''}",
            *(value_text(one.point[name]) for name in names),
            text,
            *(shown(name, more) for name, more in zip(others, one.more, strict=True)),
            one.job_id[:ID_SHOWN],
        ]
        for one, text in zip(done, scores, strict=True)
    ]
    states = [one.state for one in found.trials]
    counts = ", ".join(f"{states.count(state):,} {state}" for state in dict.fromkeys(sorted(states)))
    lines = [table(rows, ["trial", *names, *map(label, found.request.scores), "job"], right=range(len(names) + 2))]
    if found.front:
        lines.append("* no other trial is better in all figures")
    lines.append(f"{len(rows):,} of {len(states):,} trials ({counts}), by {label(score)}")
    lonely = "caution: fewer than two trials have a score: nothing tells how much is luck"
    lines.append(guards(found.guards) if found.guards else lonely)
    return "\n".join([*lines, f"study {found.study_id}"])


def _columns(results: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[list[str]]:
    """Format figures of results as rows of texts, with the same number of decimals in a column."""
    columns = []
    for name in names:
        values = [value_of(r, name) for r in results]
        units = {r["spec"]["sizing"] for r in results}
        largest = largest_of(values) if len(units) == 1 else None
        columns.append([shown(name, x, r["spec"]["sizing"], largest) for x, r in zip(values, results, strict=True)])
    return [list(row) for row in zip(*columns, strict=True)]


def results_list(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Format results and sweeps with the first letters of their job ids, which are enough to show one; fits 90
    columns."""
    cells = [
        [
            r["job_id"][:ID_SHOWN],
            created[:16],
            symbols_text(r["symbol"]),
            _days(r["start"], r["end"]),
            *figures,
        ]
        for (created, r), figures in zip(
            rows, _columns([r for _, r in rows], ("total_pnl", "sharpe_ratio")), strict=True
        )
    ]
    headers = ["job", "created", "symbol", "range", "total PnL", "Sharpe"]
    lines = table(cells, headers, right=(4, 5)).splitlines()
    # The strategy has its own line: its parameters would not fit beside the figures.
    shown_rows = [
        f"{line}\n  {r['strategy_id']} {_what(r)}".rstrip() for line, (_, r) in zip(lines[2:], rows, strict=True)
    ]
    return "\n".join([*lines[:2], *shown_rows])


def _days(start: int, end: int) -> str:
    """Return the first and the last day of a span, the last without its year where it is that of the first."""
    first, last = iso(start)[:10], iso(end - 1)[:10]
    return f"{first}..{last[5:] if first[:4] == last[:4] else last}"


def symbols_text(names: str) -> str:
    """Return a job's symbols, or how many they are."""
    return names if len(names) <= SYMBOLS_WIDTH else f"{names.count(',') + 1:,} symbols"


def _what(r: Mapping[str, Any]) -> str:
    """Return a run's parameters, or the size of a sweep."""
    return f"sweep of {r['sets']:,} sets, the figures are of the best" if "sets" in r else _params(r)


def _params(r: Mapping[str, Any]) -> str:
    return _values(r["params"])


def _values(params: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value_text(value)}" for name, value in params.items())


NOT_KNOWN: dict[str, str] = {
    "new_set": "not run before",
    "new_range": "run over other ranges only",
    "candles_changed": "candles have changed since",
    "other_code": "run by other code only",
}
SPANS_SHOWN = 12


def plan(
    job_id: str,
    found: Plan,
    bars: int,
    sets: int,
    seconds: float,
    cached: bool,
    reuse: Reuse | None,
    repairs: Repairs | None = None,
) -> str:
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
    if repairs is not None:
        again = f"{repairs.slices:,} slices again, {repairs.seconds:,.1f} s: where orders or money outlive a cut"
        rows.append(("repairs, at most", again))
    if reuse is not None and not cached:
        whole, outcomes = f"{reuse.reused_slices:,} of {reuse.slices:,}", f"{reuse.reused_outcomes:,}"
        rows.append(("known", f"{whole} slices, {outcomes} of {reuse.outcomes:,} outcomes"))
        rows += [("to compute", _missing(one)) for one in reuse.missing[:SPANS_SHOWN]]
        if len(reuse.missing) > SPANS_SHOWN:
            rows.append(("", f"and {len(reuse.missing) - SPANS_SHOWN:,} stretches more"))
    return pairs(rows)


def _missing(one: Missing) -> str:
    many = f"{one.slices:,} slices" if one.slices > 1 else "1 slice"
    sets = f" for {one.sets:,} sets" if one.sets > 1 else ""
    return f"{iso(one.start)}..{iso(one.end)}, {many}{sets}: {NOT_KNOWN[one.reason]}"


def strategies_rows() -> list[dict[str, Any]]:
    """Return every strategy with its JSON Schema; `source` is the digest of a plugin's source."""
    return [
        {
            "name": name,
            "description": summary_of(kind),
            "source": source_digest(name),
            "schema": msgspec.json.schema(kind),
        }
        for name, kind in sorted(REGISTERED.items())
    ]


def strategies() -> str:
    lines = []
    for name, kind in sorted(REGISTERED.items()):
        plugin = f"  (plugin {source_digest(name)[:12]})" if source_digest(name) else ""
        lines.append(f"{name}{plugin}\n  {summary_of(kind)}".rstrip())
        properties = properties_of(kind)
        rows = [
            (param, _default(info), _bounds(info), info.get("description", "")) for param, info in properties.items()
        ]
        shown = str(tabulate(rows, tablefmt="plain", disable_numparse=True)) if rows else "no parameters"
        lines.append(indent(shown, "    "))
    return "\n".join(lines)


def _default(info: Mapping[str, Any]) -> str:
    return value_text(info["default"]) if "default" in info else ""


def _bounds(info: Mapping[str, Any]) -> str:
    if "enum" in info:
        return " or ".join(str(value) for value in info["enum"])
    if info["type"] == "boolean":
        return "true or false"
    least, most = info.get("minimum"), info.get("maximum")
    if least is None and most is None:
        return str(info["type"])
    return f"{'' if least is None else f'{least:,}'} to {'' if most is None else f'{most:,}'}"
