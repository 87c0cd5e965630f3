"""The figure of a run's orders on candles: where they stood, how levels moved, what filled."""

from html import escape
from typing import Any

import numpy as np

from candlemill.backtests.order_chart import OrderChart, OrderLine
from candlemill.backtests.replay import Replay
from candlemill.engine.candles import MINUTE_MS
from candlemill.errors import BadInput
from candlemill.report import thin
from candlemill.report.theme import DATES, LIGHT, figure
from candlemill.units import SCALE

NAMES = {"stop": "stop of the position", "take": "target of the position", "liquidation": "liquidation price"}
MARGIN = 0.02  # of the prices' range, above and below


def orders(trace: Replay) -> Any:
    """Draw orders, levels and fills of the minutes around the last fill. Raises BadInput for a run without any."""
    chart = trace.orders
    if chart is None:
        raise BadInput(f"a run of {trace.spec.strategy} without orders or fills has no chart of orders: plot its price")
    a, b = np.searchsorted(trace.t, [chart.start_ms, chart.end_ms])
    low, high = _range(trace, chart, int(a), int(b))
    data = [_candles(trace, int(a), int(b)), *_lines(chart, low, high), *_fills(chart)]
    layout = {
        "hovermode": "closest",
        "legend": {"traceorder": "normal"},
        "xaxis": {**DATES, "rangeslider": {"visible": False}},
        "yaxis": {"title": {"text": escape(trace.spec.symbol)}, "range": [low, high], "fixedrange": True},
        "shapes": [_band(t) for t in chart.ambiguous],
    }
    return figure("Orders on candles", data, layout, _note(chart, low, high, int(b - a)), height=460)


def _range(trace: Replay, chart: OrderChart, a: int, b: int) -> tuple[float, float]:
    """Return the prices that are shown: those of the candles and the fills, and twice as much for orders near them."""
    prices = [fill.price for fill in chart.fills]
    low, high = min([int(trace.low[a:b].min()), *prices]), max([int(trace.high[a:b].max()), *prices])
    around = (high - low) / 2
    near = [line.price for line in chart.lines if low - around <= line.price <= high + around]
    low, high = min([low, *near]), max([high, *near])
    edge = max(1, (high - low) * MARGIN)
    return (low - edge) / SCALE, (high + edge) / SCALE


def _candles(trace: Replay, a: int, b: int) -> dict[str, Any]:
    columns = {name: thin.floats(getattr(trace, name)[a:b]) for name in ("open", "high", "low", "close")}
    return {
        "type": "candlestick",
        "x": trace.t[a:b].tolist(),
        **columns,
        "name": "candles",
        "showlegend": False,
        "increasing": {"line": {"color": LIGHT["muted"], "width": 1}, "fillcolor": LIGHT["paper"]},
        "decreasing": {"line": {"color": LIGHT["muted"], "width": 1}, "fillcolor": LIGHT["muted"]},
    }


def _style(line: OrderLine) -> tuple[str, str, str]:
    """Return the name, the colour and the dash of a line."""
    if line.kind == "level":
        color = LIGHT["other"] if line.key == "stop" else LIGHT["line"] if line.key == "take" else LIGHT["ink"]
        return NAMES[line.key], color, "dot"
    color = LIGHT["up"] if line.side > 0 else LIGHT["down"]
    what = "buys" if line.side > 0 else "sells"
    return (f"{what}, stop order", color, "dash") if line.kind == "stop" else (f"{what}, limit order", color, "solid")


def _lines(chart: OrderChart, low: float, high: float) -> list[dict[str, Any]]:
    """Return one trace for each kind of line; a line is two points and a break."""
    found: dict[str, dict[str, Any]] = {}
    for line in chart.lines:
        price = line.price / SCALE
        if not low <= price <= high:
            continue
        name, color, dash = _style(line)
        one = found.setdefault(
            name,
            {
                "type": "scatter",
                "mode": "lines",
                "name": name,
                "x": [],
                "y": [],
                "text": [],
                "line": {"color": color, "dash": dash, "width": 1.4},
                "hovertemplate": "%{text} at %{y:,.8~r}<br>%{x|%Y-%m-%d %H:%M}<extra></extra>",
            },
        )
        one["x"] += [line.start_ms, line.end_ms, None]
        one["y"] += [price, price, None]
        one["text"] += [f"{escape(line.key)} ({line.ended})"] * 2 + [""]
    return list(found.values())


def _fills(chart: OrderChart) -> list[dict[str, Any]]:
    """Return the markers of what was bought and sold."""
    found = []
    for name, side, symbol, color in (
        ("bought", 1, "triangle-up", LIGHT["up"]),
        ("sold", -1, "triangle-down", LIGHT["down"]),
    ):
        fills = [fill for fill in chart.fills if (fill.after - fill.before) * side > 0]
        found.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [fill.t + MINUTE_MS // 2 for fill in fills],
                "y": [fill.price / SCALE for fill in fills],
                "text": [escape(fill.what) + (", ambiguous minute" if fill.ambiguous else "") for fill in fills],
                "marker": {"symbol": symbol, "color": color, "size": 10, "line": {"width": 1, "color": LIGHT["paper"]}},
                "hovertemplate": "%{text} at %{y:,.8~r}<br>%{x|%Y-%m-%d %H:%M}<extra></extra>",
            }
        )
    return found


def _band(t: int) -> dict[str, Any]:
    """Return the band that marks an ambiguous minute."""
    where = {"xref": "x", "yref": "paper", "x0": t, "x1": t + MINUTE_MS, "y0": 0, "y1": 1}
    return {"type": "rect", **where, "fillcolor": LIGHT["loss"], "line": {"width": 0}, "layer": "below"}


def _note(chart: OrderChart, low: float, high: float, bars: int) -> str:
    ends = [line.ended for line in chart.lines if line.kind != "level"]
    counts = ", ".join(f"{ends.count(end):,} {word}" for end, word in ENDS if end in ends)
    hidden = sum(not low <= line.price / SCALE <= high for line in chart.lines)
    unknown = len(chart.ambiguous)
    parts = [f"The {bars:,} minutes around the last fill."]
    if counts:
        parts.append(f"Orders: {counts}.")
    if unknown:
        parts.append(f"{unknown:,} ambiguous minute{'s' if unknown > 1 else ''}: shaded.")
    if hidden:
        parts.append(f"{hidden:,} line{'s lie' if hidden > 1 else ' lies'} outside the prices shown.")
    return " ".join(parts)


ENDS = (("filled", "filled"), ("moved", "moved"), ("gone", "cancelled or replaced"), ("standing", "standing"))
