"""The figures of one run, each a plotly Figure of its own: `figures.equity(trace).show()` in a notebook."""

import math
from html import escape
from typing import Any

import numpy as np

from candlemill import metrics
from candlemill.engine.tape import Column
from candlemill.model import SCALE
from candlemill.report import thin
from candlemill.report.series import holding, rolling_sharpe, underwater
from candlemill.report.theme import DIVERGING, LIGHT, figure, level, upright
from candlemill.report.units import floats, money, percent
from candlemill.trace import Trace

LINE_POINTS = 1600  # of a line over the whole range; a wide screen has 1,200 pixels for it
CANDLES = 1200
TRADES_SHOWN = 120
EXCURSIONS_SHOWN = 1500
BINS = 61
WINDOW_DAYS = 90
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DATES = {"type": "date", "hoverformat": "%Y-%m-%d %H:%M"}


def equity(trace: Trace) -> Any:
    """The profit so far beside buying and holding, and below it the drawdown from the running peak."""
    below, hold = underwater(trace), holding(trace)
    share = trace.spec.sizing == "compound"
    if share:  # of the peak, in percent
        below = np.round(below / (trace.capital + trace.equity - below) * 100 * SCALE).astype(np.int64)
    data = [
        _line(trace.t, hold, "buy and hold", LIGHT["other"], width=1.2),
        _line(trace.t, trace.equity, "strategy", LIGHT["line"], width=1.8),
        _line(trace.t, below, "drawdown", LIGHT["down"], yaxis="y2", fill="tozeroy", fillcolor=LIGHT["loss"]),
    ]
    data[-1]["showlegend"] = False
    layout = {
        "hovermode": "x unified",
        "xaxis": {**DATES, "anchor": "y2"},
        "yaxis": {"title": {"text": "profit"}, "domain": [0.32, 1], "fixedrange": True},
        "yaxis2": {
            "title": {"text": "drawdown"},
            "ticksuffix": "%" if share else "",
            "domain": [0, 0.26],
            "rangemode": "tozero",
            "nticks": 4,
            "fixedrange": True,
        },
    }
    note = "Profit so far at each bar's close, after costs; buy and hold before costs. Highs and lows are kept."
    return figure("Equity and drawdown", data, layout, note, height=460)


def _line(t: Column, values: Column, name: str, color: str, width: float = 1.0, **more: Any) -> dict[str, Any]:
    kept = thin.extremes(values, LINE_POINTS)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": t[kept].tolist(),
        "y": floats(values[kept]),
        "name": name,
        "line": {"color": color, "width": width},
        "hovertemplate": "%{y:,.6~r}",
        **more,
    }


def price(trace: Trace) -> Any:
    """The price over the whole range: closes with the span from low to high, entries and exits of trades."""
    step = thin.step_for(trace.t, CANDLES)
    t, _, high, low, close = thin.candles(trace, step)
    x = t.tolist()
    edge = {"type": "scatter", "mode": "lines", "x": x, "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    data = [
        {**edge, "y": floats(low), "name": "low"},
        {**edge, "y": floats(high), "name": "high", "fill": "tonexty", "fillcolor": LIGHT["band"]},
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": floats(close),
            "name": "price",
            "showlegend": False,
            "line": {"color": LIGHT["line"], "width": 1.2},
            "hovertemplate": "%{y:,.8~r}<extra></extra>",
        },
    ]
    chosen = thin.telling(trace.trades.profit, TRADES_SHOWN)
    data += _markers(trace, chosen)
    layout = {
        "hovermode": "closest",
        "legend": {"traceorder": "normal", "entrywidth": 64},
        "xaxis": DATES,
        "yaxis": {"title": {"text": escape(trace.spec.symbol)}, "fixedrange": True},
    }
    return figure("Price and trades", data, layout, _price_note(len(chosen), len(trace.trades), step), height=420)


def _price_note(shown: int, total: int, step: int) -> str:
    size = f"{step} min" if step < 60 else f"{step // 60} h" if step < 1440 else f"{step // 1440} d"
    drawn = f"Closes of {size} bars in the band from their lows to their highs."
    if not total:
        return f"{drawn} No trade was closed."
    if shown == total:
        return f"{drawn} All {total:,} trades are marked."
    return f"{drawn} {shown:,} of {total:,} trades are marked: best, worst and evenly chosen ones; closer by, all."


def _markers(trace: Trace, chosen: Column) -> list[dict[str, Any]]:
    """Entries by side and exits by outcome, at the exact fills."""
    trades = trace.trades
    side, profit = trades.side[chosen], trades.profit[chosen]
    outcome = [f"{money(p)}" for p in profit.tolist()]

    def marks(name: str, kept: Any, when: Column, at: Column, symbol: str, color: str, text: str) -> dict[str, Any]:
        picked = np.flatnonzero(kept)
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": when[chosen][picked].tolist(),
            "y": floats(at[chosen][picked]),
            "customdata": [outcome[k] for k in picked],
            "marker": {"symbol": symbol, "color": color, "size": 6, "line": {"width": 0.8, "color": LIGHT["paper"]}},
            "hovertemplate": f"{text} %{{y:,.8~r}}<br>profit %{{customdata}}<br>%{{x|%Y-%m-%d %H:%M}}<extra></extra>",
        }

    entry, leave = (trades.entry_t, trades.entry_price), (trades.exit_t, trades.exit_price)
    return [
        marks("long", side > 0, *entry, "triangle-up", LIGHT["up"], "long at"),
        marks("short", side < 0, *entry, "triangle-down", LIGHT["down"], "short at"),
        marks("exit, won", profit > 0, *leave, "circle", LIGHT["up"], "exit at"),
        marks("exit, lost", profit <= 0, *leave, "x", LIGHT["down"], "exit at"),
    ]


def monthly(trace: Trace) -> Any:
    """Years by months: what each month made, in percent of the account's value when it began."""
    found = metrics.monthly(trace.days, trace.daily, trace.capital)
    years = list(range(found[0].year, found[-1].year + 1))
    shape = (len(years), 13)
    z, text, told = np.full(shape, np.nan), np.full(shape, "", object), np.full(shape, "", object)
    for month in found:
        cell = (month.year - years[0], month.month - 1)
        told[cell] = money(month.profit)
        if month.gain is not None:
            z[cell], text[cell] = month.gain * 100 / SCALE, _gain(month.gain)
    for row, year in enumerate(years):
        inside = [month for month in found if month.year == year]
        told[row, 12] = money(sum(month.profit for month in inside))
        if all(month.gain is not None for month in inside):
            whole = math.prod(1 + (month.gain or 0) / SCALE for month in inside) - 1
            # A year is as strong as its mean month: one great year must not bleach the months.
            z[row, 12], text[row, 12] = whole * 100 / 12, _gain(round(whole * SCALE))
    sizes = np.abs(z[:, :12][~np.isnan(z[:, :12])])
    top = float(np.quantile(sizes, 0.95)) if sizes.size else 0.0
    heat = {
        "type": "heatmap",
        "meta": "turn",  # narrow screens show it with the months downwards
        "x": [*MONTHS, "Year"],
        "y": [str(year) for year in years],
        "z": [[None if np.isnan(v) else round(float(v), 3) for v in row] for row in z],
        "text": text.tolist(),
        "customdata": told.tolist(),
        "texttemplate": "%{text}",
        "hovertemplate": "%{x} %{y}: %{text}<br>profit %{customdata}<extra></extra>",
        "colorscale": DIVERGING,
        "zmin": -(top or 0.01),
        "zmax": top or 0.01,
        "xgap": 2,
        "ygap": 2,
        "showscale": False,
    }
    layout = {
        "xaxis": {"side": "top", "showgrid": False, "fixedrange": True, "tickangle": 0, "type": "category"},
        "yaxis": {"autorange": "reversed", "showgrid": False, "type": "category", "fixedrange": True},
        "margin": {"l": 48, "r": 8, "t": 40, "b": 8},
    }
    note = "Profit of each UTC month over the account's value when it began."
    if any(month.gain is None for month in found):
        note += " Empty where that was not above zero."
    return figure("Months", [heat], layout, note, height=70 + 34 * shape[0])


def _gain(share: int) -> str:
    return percent(share, 0 if abs(share) >= 10 * SCALE else 1)


def profits(trace: Trace) -> Any:
    """How the trades' profits are distributed; the ends gather what lies beyond."""
    profit = trace.trades.profit / SCALE
    if not len(profit):
        return _empty("Profits of trades", "No trade was closed.")
    reach = float(np.quantile(np.abs(profit), 0.99)) or float(np.abs(profit).max()) or 1.0
    width = 2 * reach / (BINS - 1)  # bins meet at 0: none mixes gains and losses
    slot = np.clip(np.floor(profit / width), -(BINS // 2), BINS // 2 - 1).astype(np.int64)
    counts = np.bincount(slot + BINS // 2, minlength=BINS - 1)
    left = (np.arange(len(counts)) - BINS // 2) * width
    bars = {
        "type": "bar",
        "x": np.round(left + width / 2, 8).tolist(),
        "y": counts.tolist(),
        "width": width,
        "marker": {"color": [LIGHT["up"] if x >= 0 else LIGHT["down"] for x in left], "line": {"width": 0}},
        "hovertemplate": "about %{x:,.3~r}: %{y:,} trades<extra></extra>",
    }
    mean, middle = float(profit.mean()), float(np.median(profit))
    layout = {
        "bargap": 0.08,
        "showlegend": False,
        "xaxis": {"title": {"text": "profit of a trade, after costs"}},
        "yaxis": {"title": {"text": "trades"}},
        "shapes": [upright(mean, LIGHT["ink"], "dash"), upright(middle, LIGHT["muted"], "dot")],
    }
    scaled = (round(mean * SCALE), round(middle * SCALE))
    note = f"{len(profit):,} trades. Mean {money(scaled[0])} (dashed), median {money(scaled[1])} (dotted)."
    beyond = int((np.abs(profit) > reach).sum())
    if beyond:
        note += f" The outermost bars hold {beyond:,} beyond ±{money(round(reach * SCALE))}."
    return figure("Profits of trades", [bars], layout, note)


def sharpe(trace: Trace, window: int = WINDOW_DAYS) -> Any:
    """The Sharpe ratio of the last `window` days, day by day; of fewer where the range is short."""
    days = len(trace.days)
    window = min(window, max(days // 3, 7))
    t, values = rolling_sharpe(trace, window)
    if not len(t):
        return _empty("Rolling Sharpe ratio", f"{days} days are too few.")
    kept = thin.extremes(np.round(values * SCALE).astype(np.int64), LINE_POINTS)
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": t[kept].tolist(),
        "y": np.round(values[kept], 3).tolist(),
        "line": {"color": LIGHT["line"], "width": 1.6},
        "hovertemplate": "%{y:.2f}<br>%{x|%Y-%m-%d}<extra></extra>",
    }
    whole = trace.result["sharpe_ratio"] / SCALE
    layout = {
        "showlegend": False,
        "xaxis": DATES,
        "yaxis": {"title": {"text": "Sharpe ratio"}, "zeroline": True, "zerolinecolor": LIGHT["muted"]},
        "shapes": [level(whole)],
    }
    note = f"Of the {window} days before each day, annualised with 365; dashed: {whole:.2f}, the whole range."
    return figure(f"Rolling Sharpe ratio, {window} days", [line], layout, note)


def excursions(trace: Trace) -> Any:
    """Each trade's worst moment beside how it ended: what a stop would have cut, and what it would have cost."""
    trades = trace.trades
    if not len(trades):
        return _empty("Worst moment and outcome", "No trade was closed.")
    chosen = thin.telling(trades.profit, EXCURSIONS_SHOWN)
    won = trades.profit[chosen] > 0

    def cloud(name: str, kept: Any, color: str) -> dict[str, Any]:
        picked = chosen[kept]
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": floats(trades.mae[picked]),
            "y": floats(trades.profit[picked]),
            "marker": {"color": color, "size": 4, "opacity": 0.6},
            "hovertemplate": "worst moment %{x:,.5~r}<br>profit %{y:,.5~r}<extra></extra>",
        }

    data = [cloud("won", won, LIGHT["up"]), cloud("lost", ~won, LIGHT["down"])]
    layout = {
        "xaxis": {"title": {"text": "worst mark-to-market while held (MAE)"}},
        "yaxis": {"title": {"text": "profit"}, "zeroline": True, "zerolinecolor": LIGHT["muted"]},
    }
    shown = "All" if len(chosen) == len(trades) else f"{len(chosen):,} of {len(trades):,}"
    note = f"{shown} trades. Winners far to the left came close to being stopped."
    return figure("Worst moment and outcome", data, layout, note)


def _empty(title: str, text: str) -> Any:
    hidden = {"visible": False}
    label = {"text": text, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    return figure(title, [], {"xaxis": hidden, "yaxis": hidden, "annotations": [label]}, height=160)
