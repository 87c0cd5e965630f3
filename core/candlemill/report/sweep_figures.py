"""The figures of a sweep: heat maps over two parameters, distributions over all sets, overfitting."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from candlemill.backtests.metric_table import is_descending, label
from candlemill.formatting import percent
from candlemill.report.pivot import Sets
from candlemill.report.theme import DIVERGING, LIGHT, figure, upright
from candlemill.units import SCALE

BINS = 40

TEXT_CELLS = 15  # per side; larger heat maps show their values only on hover


def heat_map(
    sweep: Mapping[str, Any],
    x: str | None = None,
    y: str | None = None,
    metric: str = "sharpe_ratio",
    over: str = "best",
) -> Any:
    """Draw a heat map of a metric over two parameters; a sweep of one parameter is drawn as a line.

    `over` is how the other parameters are reduced: `best` or `mean`.
    Raises UnknownName for a parameter that the sweep does not vary and for a metric that no set has.
    """
    return heat_map_of(Sets(sweep), x, y, metric, over)


def heat_map_of(sets: Sets, x: str | None, y: str | None, metric: str, over: str) -> Any:
    """Draw `heat_map` from the `Sets` of a sweep."""
    axes = [name for name in (x, y) if name] or sets.axes[:2]
    if len(axes) < 2:
        axes = [*axes, *(name for name in sets.axes if name not in axes)][:2]
    if len(axes) < 2:
        return _line(sets, axes[0] if axes else next(iter(sets.grid)), metric, over)
    return _heat(sets, axes[0], axes[1], metric, over)


def _line(sets: Sets, x: str, metric: str, over: str) -> Any:
    found = sets.pivot(x, x, metric, over)
    data = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": found.x,
        "y": _rounded(np.diag(found.cells)),
        "line": {"color": LIGHT["line"], "width": 1.6},
        "marker": {"size": 6},
        "hovertemplate": f"{escape(x)} %{{x}}: %{{y:,.5~r}}{sets.suffix(metric)}<extra></extra>",
    }
    layout = {
        "xaxis": {"title": {"text": escape(x)}, "type": "category", "nticks": 16},
        "yaxis": {"title": {"text": label(metric)}, "ticksuffix": sets.suffix(metric)},
    }
    return figure(f"{_title(metric)} by {escape(x)}", [data], layout, f"{len(sets.results):,} sets.")


def _heat(sets: Sets, x: str, y: str, metric: str, over: str) -> Any:
    found = sets.pivot(x, y, metric, over)
    unit = sets.suffix(metric)
    best = sets.results[sets.order(metric)[0]]["params"]
    text = max(found.cells.shape) <= TEXT_CELLS
    low, high = float(np.nanmin(found.cells)), float(np.nanmax(found.cells))
    heat = {
        "type": "heatmap",
        "x": found.x,
        "y": found.y,
        "z": [_rounded(row) for row in found.cells],
        "hovertemplate": f"{escape(x)} %{{x}}, {escape(y)} %{{y}}<br>%{{z:,.5~r}}{unit}<extra></extra>",
        "colorbar": {"thickness": 10, "outlinewidth": 0, "ticksuffix": unit, "len": 0.9},
        **_colors(metric, low, high),
        "textfont": {"color": LIGHT["ink"]},
        **({"texttemplate": f"%{{z:{_format(sets, metric, max(-low, high))}}}"} if text else {}),
        "xgap": 1,
        "ygap": 1,
    }
    layout = {
        "showlegend": False,
        "xaxis": {"title": {"text": escape(x)}, "type": "category", "showgrid": False, "nticks": 16},
        "yaxis": {"title": {"text": escape(y)}, "type": "category", "showgrid": False, "nticks": 16},
        "margin": {"r": 4},
        "shapes": [_frame(sets, x, best[x], y, best[y])],
    }
    rest = [name for name in sets.axes if name not in (x, y)]
    note = f"{len(sets.results):,} sets; the framed cell holds the best of them."
    if rest:
        note = f"{over.capitalize()} over {', '.join(rest)}. {note}"
    return figure(f"{_title(metric)} by {escape(x)} and {escape(y)}", [heat], layout, note, height=440)


def _format(sets: Sets, metric: str, largest: float) -> str:
    """Return the number format of a cell's text."""
    if sets.unit(metric) == 1:
        return ",.0f"
    return ".3~s" if largest >= 1000 else ",.1f" if largest >= 100 or sets.suffix(metric) else ",.2f"


def _frame(sets: Sets, x: str, across: Any, y: str, down: Any) -> dict[str, Any]:
    """Return the frame around the cell of two values; categories are at 0, 1, 2 …"""
    k, j = sets.place(x, across), sets.place(y, down)
    line = {"color": LIGHT["ink"], "width": 2}
    return {"type": "rect", "x0": k - 0.5, "x1": k + 0.5, "y0": j - 0.5, "y1": j + 0.5, "line": line}


def _colors(metric: str, low: float, high: float) -> dict[str, Any]:
    """Return the colour scale: centred at 0 if the metric has both signs, else from pale to strong (best)."""
    if low < 0 < high:
        top = max(-low, high)
        return {"colorscale": DIVERGING, "zmin": -top, "zmax": top}
    strong = LIGHT["fall"] if high <= 0 else LIGHT["rise"]
    scale = [[0.0, LIGHT["paper"]], [1.0, strong]]
    return {"colorscale": scale, "reversescale": (high <= 0) == is_descending(metric)}


def distribution(sweep: Mapping[str, Any], metric: str = "sharpe_ratio") -> Any:
    """Draw the distribution of a metric over all sets."""
    sets = Sets(sweep)
    column = sets.column(metric)
    values = column[~np.isnan(column)]
    counts, edges = np.histogram(values, bins=min(BINS, max(len(values) // 3, 5)))
    middle = (edges[:-1] + edges[1:]) / 2
    best, median = float(column[sets.order(metric)[0]]), float(np.median(values))
    bars = {
        "type": "bar",
        "x": _rounded(middle),
        "y": counts.tolist(),
        "width": float(edges[1] - edges[0]),
        "marker": {"color": LIGHT["line"], "line": {"width": 0}},
        "hovertemplate": "about %{x:,.4~r}: %{y:,} sets<extra></extra>",
    }
    layout: dict[str, Any] = {
        "bargap": 0.06,
        "showlegend": False,
        "xaxis": {"title": {"text": label(metric)}, "ticksuffix": sets.suffix(metric), "separatethousands": True},
        "yaxis": {"title": {"text": "sets"}},
        "shapes": [upright(best, LIGHT["ink"], "dash"), upright(median, LIGHT["muted"], "dot")],
    }
    luck = (sweep.get("guards") or {}).get("luck_sharpe") if metric == "sharpe_ratio" else None
    if luck is not None:
        layout["shapes"].append(upright(luck / SCALE, LIGHT["down"], "solid"))
    ends = f"Best {_shown(sets, metric, best)} (dashed), median {_shown(sets, metric, median)} (dotted)"
    note = f"{ends} of {len(values):,} sets."
    if luck is not None:
        note += f" {_shown(sets, metric, luck / SCALE)} (red): what luck alone gives the best of so many."
    return figure(f"{_title(metric)} of all sets", [bars], layout, note)


def overfitting(guards: Mapping[str, Any]) -> Any | None:
    """Draw the histogram of logits of the probability of backtest overfitting; None if the guards do not have it."""
    found = guards.get("overfitting") or {}
    counts = found.get("logits")
    if not counts:
        return None
    left = [-6 + 12 * k / len(counts) for k in range(len(counts))]
    width = 12 / len(counts)
    bars = {
        "type": "bar",
        "x": [x + width / 2 for x in left],
        "y": list(counts),
        "width": width,
        "marker": {"color": [LIGHT["down"] if x < 0 else LIGHT["up"] for x in left], "line": {"width": 0}},
        "hovertemplate": "logit about %{x:.2f}: %{y:,} splits<extra></extra>",
    }
    layout = {
        "bargap": 0.06,
        "showlegend": False,
        "xaxis": {"title": {"text": "logit of the chosen set's rank out of sample"}},
        "yaxis": {"title": {"text": "splits"}},
    }
    note = (
        f"Probability of backtest overfitting {percent(found.get('probability'))}: in so many of "
        f"{found.get('splits', sum(counts)):,} splits the set that was best in one half of the days was in the worse "
        "half of all sets in the other (left of 0)."
    )
    return figure("Overfitting (CSCV)", [bars], layout, note)


def _title(metric: str) -> str:
    text = label(metric)
    return text[0].upper() + text[1:]


def _shown(sets: Sets, metric: str, value: float) -> str:
    return sets.shown(metric, round(value * sets.unit(metric)))


def _rounded(values: Any) -> list[float | None]:
    """Round to five significant digits, to keep the page small."""
    return [None if np.isnan(v) else float(f"{v:.5g}") for v in values]
