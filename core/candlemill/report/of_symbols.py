"""The report of sweeps or walk-forwards of several symbols: each symbol has an account and a job of its own."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from candlemill import formatting
from candlemill.backtests.command_line import value_text
from candlemill.backtests.metric_table import shown
from candlemill.backtests.spec import Spec
from candlemill.engine.candles import DAY_MS, Column
from candlemill.report import figures, joint, sweep_figures
from candlemill.report.facts import range_text, spec_rows
from candlemill.report.page import Cell, Figures, Html, Key, card, command, facts, keys, render, table, toned
from candlemill.report.pivot import Sets
from candlemill.report.theme import DATES, LIGHT, figure
from candlemill.units import SCALE

MAPS = 8  # symbols whose heat maps are drawn
LINES = len(figures.COLORS)  # symbols whose curves are drawn


class Part(NamedTuple):
    """One symbol. `result` is that of its best set, or of the run of its choices; `guards` are of its sets. A sweep has
    `sets`, a walk-forward the profits `daily` of its UTC `days`."""

    symbol: str
    result: Mapping[str, Any]
    guards: Mapping[str, Any]
    folds: int = 0
    sets: Sets | None = None
    days: Column | None = None
    daily: Column | None = None


def page(spec: Spec, parts: Sequence[Part], job_id: str, again: str) -> str:
    """Return the page. `spec` is that of the request; `again` is the command line."""
    boxes = Figures()
    is_sweep = parts[0].sets is not None
    body = [
        keys(_headline(parts, is_sweep)),
        *([boxes.card("scores", _scores(parts))] if is_sweep else _curves(parts, boxes)),
        card("Symbols", _table(spec, parts), _note(is_sweep), kind="long"),
        *(_maps(parts, boxes) if is_sweep else []),
        card("What was run", _what(spec, parts, job_id, again)),
    ]
    names = ", ".join(part.symbol for part in parts) if len(parts) <= 4 else f"{len(parts):,} symbols"
    title = f"{names} · {spec.strategy} · {'sweeps' if is_sweep else 'walk-forwards'}"
    return render(title, range_text(spec), body, boxes, {})


def _headline(parts: Sequence[Part], is_sweep: bool) -> list[Key]:
    profits = [int(part.result["total_pnl"]) for part in parts]
    capital = sum(int(part.result["capital"]) for part in parts)
    gained = sum(profit > 0 for profit in profits)
    best = max(parts, key=lambda part: part.result["sharpe_ratio"])
    likely = sum((part.guards.get("deflated_sharpe") or 0) >= 95 * SCALE // 100 for part in parts)
    found = [
        Key("Symbols", formatting.count(len(parts)), "each with its own account"),
        Key("With a profit", f"{gained:,} of {len(parts):,}", "by its best set" if is_sweep else "out of sample"),
        Key("Best Sharpe ratio", shown("sharpe_ratio", best.result["sharpe_ratio"]), best.symbol),
        Key("Beyond luck", f"{likely:,} of {len(parts):,}", "deflated Sharpe of 95% or more"),
    ]
    if is_sweep:
        sets = sum(len(part.sets.results) for part in parts if part.sets is not None)
        return [found[0], Key("Sets", formatting.count(sets), "of all symbols"), *found[1:]]
    share = f"{formatting.percent(formatting.share(sum(profits), capital))} of {formatting.money(capital)}"
    return [Key("Profit of all", formatting.money(sum(profits)), share, sum(profits)), *found]


def _scores(parts: Sequence[Part]) -> Any:
    """Draw the best and the median Sharpe ratio of each symbol's sets."""
    names = [escape(part.symbol) for part in parts]
    columns = [part.sets.column("sharpe_ratio") for part in parts if part.sets is not None]
    medians, bests = [float(np.nanmedian(one)) for one in columns], [float(np.nanmax(one)) for one in columns]
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": names,
            "x": [round(value, 4) for value in values],
            "marker": {"color": color},
            "hovertemplate": f"%{{y}}, {name}: %{{x:.3f}}<extra></extra>",
        }
        for name, values, color in (("median set", medians, LIGHT["muted"]), ("best set", bests, LIGHT["line"]))
    ]
    layout = {
        "barmode": "group",
        "legend": {"traceorder": "reversed"},
        "xaxis": {"title": {"text": "Sharpe ratio"}},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
    }
    note = "A best set far above the median of its symbol may be luck."
    return figure("Sharpe ratio by symbol", bars, layout, note, 140 + 40 * len(parts))


def _curves(parts: Sequence[Part], boxes: Figures) -> list[Html]:
    """Return the cards of profits over time and in all."""
    lines = []
    for part, color in zip(parts, figures.COLORS, strict=False):
        assert part.days is not None and part.daily is not None
        share = np.cumsum(part.daily.astype(np.float64)) / part.result["capital"] * 100
        line = {"type": "scatter", "mode": "lines", "name": escape(part.symbol), "x": (part.days + DAY_MS - 1).tolist()}
        more = {"line": {"color": color, "width": 1.5}, "hovertemplate": "%{y:,.2f}%"}
        lines.append(line | {"y": np.round(share, 4).tolist()} | more)
    layout = {
        "hovermode": "x unified",
        "xaxis": DATES,
        "yaxis": {"title": {"text": "profit, % of the capital"}, "ticksuffix": "%", "fixedrange": True},
    }
    left_out = f" The first {LINES} of {len(parts):,} symbols." if len(parts) > LINES else ""
    note = f"Profit so far at the end of each UTC day, after costs, of each symbol's own account.{left_out}"
    shares = {part.symbol: int(part.result["total_pnl"]) for part in parts}
    ordered = dict(sorted(shares.items(), key=lambda one: (-one[1], one[0])))
    return [
        boxes.card("equity", figure("Out of sample, by symbol", lines, layout, note, 420)),
        boxes.card("shares", joint.contributions(ordered, "Profit by symbol")),
    ]


def _maps(parts: Sequence[Part], boxes: Figures) -> list[Html]:
    """Return the heat maps of the first symbols."""
    cards = []
    for k, part in enumerate(parts[:MAPS]):
        assert part.sets is not None
        made = sweep_figures.heat_map_of(part.sets, None, None, "sharpe_ratio", "best")
        made.layout.title.text = f"{escape(part.symbol)}: {made.layout.title.text}"
        cards.append(boxes.card(f"heat-{k}", made, "half"))
    return cards


def _table(spec: Spec, parts: Sequence[Part]) -> Html:
    results = [part.result for part in parts]
    top = {name: formatting.largest_of([r[name] for r in results]) for name in ("total_pnl", "max_drawdown")}
    rows: list[list[Cell]] = [
        [
            part.symbol,
            toned(formatting.money(r["total_pnl"], top["total_pnl"]), r["total_pnl"]),
            formatting.percent(formatting.share(r["total_pnl"], r["capital"])),
            ", ".join(f"{name}={value_text(r['params'][name])}" for name in part.sets.grid) or "–"
            if part.sets is not None
            else f"{part.folds:,} folds",
            shown("sharpe_ratio", r["sharpe_ratio"]),
            shown("max_drawdown", r["max_drawdown"], spec.sizing, top["max_drawdown"]),
            formatting.count(r["trades"]),
            formatting.percent(part.guards.get("deflated_sharpe")),
        ]
        for part, r in zip(parts, results, strict=True)
    ]
    names = ("symbol", "profit", "return", "parameters", "Sharpe ratio", "max drawdown", "trades", "deflated Sharpe")
    return table(names, rows)


def _note(is_sweep: bool) -> str:
    if is_sweep:
        return "The best set of each symbol. Each deflated Sharpe ratio counts the sets of its own symbol only."
    return "What each symbol's choices made after their training; the deflated Sharpe ratio is that of its sweep."


def _what(spec: Spec, parts: Sequence[Part], job_id: str, again: str) -> Html:
    apart = ("symbol", "bars", "missing minutes")
    rows = [row for row in spec_rows(spec, parts[0].result) if row[0] not in apart]
    rows += [(f"grid {name}", ", ".join(map(value_text, values))) for name, values in spec.grid.items()]
    names = ", ".join(part.symbol for part in parts)
    text = facts([("symbols", names), *rows]) + facts([("job", Html(f'<span class="mono">{escape(job_id)}</span>'))])
    return Html(text + (command(again) if again else ""))
