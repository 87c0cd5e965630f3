"""The report of a sweep."""

from collections.abc import Mapping
from html import escape
from itertools import combinations
from typing import Any

import numpy as np

from candlemill import formatting
from candlemill.backtests.command_line import command_of, value_text
from candlemill.backtests.metric_table import MAIN, label, shown
from candlemill.report import sweep_figures
from candlemill.report.facts import identity, range_text, spec_rows, symbols
from candlemill.report.guards_card import guard_cards
from candlemill.report.page import Cell, Figures, Html, Key, card, command, facts, keys, render, table, toned
from candlemill.report.pivot import Sets
from candlemill.units import SCALE

METRICS = ("sharpe_ratio", "total_pnl", "sortino_ratio", "max_drawdown", "profit_factor", "trades")
TOP = 25
PAIRS = 10  # maximum number of parameter pairs with heat maps


def page(sweep: Mapping[str, Any]) -> str:
    boxes, sets = Figures(), Sets(sweep)
    guards = sweep.get("guards") or {}
    metrics = [metric for metric in METRICS if sets.has(metric)]
    choices = _choices(sets, metrics)
    body = [
        keys(headline(sets, guards)),
        boxes.card("heat", choices["figures"][0]["figure"], above=_selects(choices, metrics)),
        *_luck_cards(boxes, sweep, guards),
        *(_ranking(sets, metric, hidden=metric != metrics[0]) for metric in metrics),
        card("What was run", _what(sweep, sets)),
    ]
    choices["figures"] = [{**found, "figure": boxes.plain(found["figure"])} for found in choices["figures"]]
    title = f"{symbols(sets.spec)} · {sets.spec.strategy} · {len(sets.results):,} sets"
    return render(title, range_text(sets.spec), body, boxes, {"choices": choices})


def _choices(sets: Sets, metrics: list[str]) -> dict[str, Any]:
    """Return all heat maps that can be selected, by parameters, metric and reduction over the other parameters."""
    single = (sets.axes or list(sets.grid))[0]
    axes = list(combinations(sets.axes, 2))[:PAIRS] or [(single, single)]
    overs = ["best", "mean"] if len(sets.axes) > 2 else ["best"]
    found = [
        {"axes": k, "metric": metric, "over": over, "figure": sweep_figures.heat_map_of(sets, x, y, metric, over)}
        for k, (x, y) in enumerate(axes)
        for metric in metrics
        for over in overs
    ]
    return {"axes": [f"{x} × {y}" if x != y else x for x, y in axes], "overs": overs, "figures": found}


def _selects(choices: dict[str, Any], metrics: list[str]) -> Html:
    def select(name: str, text: str, options: list[tuple[str, str]]) -> str:
        if len(options) < 2:
            return ""
        inner = "".join(f'<option value="{escape(value)}">{escape(shown)}</option>' for value, shown in options)
        return f'<label>{text} <select id="{name}">{inner}</select></label>'

    parts = (
        select("choose-metric", "metric", [(metric, label(metric)) for metric in metrics]),
        select("choose-axes", "parameters", [(str(k), text) for k, text in enumerate(choices["axes"])]),
        select("choose-over", "of the other parameters", [(over, over) for over in choices["overs"]]),
    )
    return Html(f'<div class="choices">{"".join(parts)}</div>')


def headline(sets: Sets, guards: Mapping[str, Any]) -> list[Key]:
    best = sets.results[sets.order("sharpe_ratio")[0]]
    richest = sets.results[sets.order("total_pnl")[0]]
    profits = sets.column("total_pnl")
    median = round(float(np.nanmedian(sets.column("sharpe_ratio"))) * SCALE)
    gained = formatting.share(int((profits > 0).sum()), len(profits))
    found = guards.get("overfitting") or {}
    pbo, deflated = found.get("probability"), guards.get("deflated_sharpe")
    return [
        Key("Sets", formatting.count(len(sets.results)), f"of {sets.spec.combinations:,} combinations"),
        Key("Best Sharpe ratio", shown("sharpe_ratio", best["sharpe_ratio"]), varied(sets, best)),
        Key("Median Sharpe ratio", formatting.ratio(median), "of all sets"),
        Key("Profitable sets", formatting.percent(gained), "after costs"),
        Key("Its profit", formatting.money(best["total_pnl"]), "of the best Sharpe ratio", best["total_pnl"]),
        Key("Largest profit", formatting.money(richest["total_pnl"]), varied(sets, richest), richest["total_pnl"]),
        Key(
            "Overfitting",
            formatting.percent(pbo),
            "probability, by CSCV",
            -1 if pbo is not None and pbo > SCALE // 2 else 0,
        ),
        Key("Deflated Sharpe", formatting.percent(deflated), "that it is not luck"),
    ]


def varied(sets: Sets, result: Mapping[str, Any]) -> str:
    """Return the values of the varied parameters of one set as text."""
    return ", ".join(f"{name}={value_text(result['params'][name])}" for name in sets.grid)


def _what(sweep: Mapping[str, Any], sets: Sets) -> Html:
    spec, first = sets.spec, sets.results[0]
    grid: list[tuple[str, Cell]] = [
        (f"grid {name}", f"{value_text(values[0])} to {value_text(values[-1])}, {len(values):,} values")
        for name, values in sets.grid.items()
    ]
    best = sets.results[sets.order("sharpe_ratio")[0]]
    names = {
        "job": sweep["job_id"],
        "digest of the candles": first.get("data_digest"),
        "digest of the best set's result": best.get("result_digest"),
    }
    one = command_of(spec.single(best["params"]))
    return Html(
        facts([*spec_rows(spec, first), *grid])
        + facts(identity(names))
        + command(command_of(spec))
        + f"<p class='note'>The set with the best Sharpe ratio alone:</p>{command(one)}"
    )


def _luck_cards(boxes: Figures, sweep: Mapping[str, Any], guards: Mapping[str, Any]) -> list[Html]:
    spread, plot = sweep_figures.distribution(sweep), sweep_figures.overfitting(guards)
    if plot is None:
        return [boxes.card("spread", spread), *guard_cards(guards)]
    return [
        boxes.card("spread", spread, "half"),
        boxes.card("overfitting", plot, "half"),
        *guard_cards(guards),
    ]


def _ranking(sets: Sets, metric: str, hidden: bool) -> Html:
    """Return the table of the best sets by one metric; the page shows that of the selected metric."""
    columns = [name for name in dict.fromkeys((metric, MAIN[0], "best_path_pnl", *MAIN)) if sets.has(name)]
    order = sets.order(metric)[:TOP]
    largest = {name: sets.largest(name, order) for name in columns}
    rows = [
        [
            *(value_text(sets.results[k]["params"][name]) for name in sets.grid),
            *(_cell(sets, name, sets.raw(name, sets.results[k]), largest[name]) for name in columns),
        ]
        for k in order
    ]
    headers = [*sets.grid, *map(label, columns)]
    body = table(headers, rows, left=0)
    title = f"The {len(rows):,} best of {len(sets.results):,} sets by {label(metric)}"
    shut = " hidden" if hidden else ""
    return Html(f'<div class="ranking" data-metric="{metric}"{shut}>{card(title, body)}</div>')


def _cell(sets: Sets, name: str, value: int | None, largest: int) -> Cell:
    text = sets.shown(name, value, largest)
    return toned(text, value or 0) if name == "total_pnl" else text
