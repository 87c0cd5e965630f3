"""The figures of one run, each a separate plotly Figure: `figures.equity(trace).show()` in a notebook."""

import math
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candlemill.backtests import metrics
from candlemill.backtests.replay import Replay
from candlemill.engine.candles import DAY_MS, MINUTE_MS, Column
from candlemill.errors import BadInput
from candlemill.formatting import money, percent
from candlemill.report import thin
from candlemill.report.order_figure import orders as orders
from candlemill.report.series import (
    WINDOW_DAYS,
    holding,
    profit_bins,
    returns,
    rolling_sharpe,
    underwater,
    window_of,
)
from candlemill.report.theme import DATES, DIVERGING, LIGHT, figure, level, upright
from candlemill.units import SCALE

LINE_POINTS = 1600  # points of a line over the whole range; a wide screen shows it with 1,200 pixels
CANDLES = 1200
TRADES_SHOWN = 120
EXCURSIONS_SHOWN = 1500
SYMBOLS_SHOWN = 8
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf")  # of symbols
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def equity(trace: Replay) -> Any:
    """Draw the cumulative profit with that of buy and hold, and below it the drawdown from the running peak."""
    below, hold = underwater(trace), holding(trace)
    share = trace.spec.sizing == "compound"
    if share:  # of the peak, in percent
        below = np.round(below / (trace.capital + trace.equity - below) * 100 * SCALE).astype(np.int64)
    data = [
        _line(trace.t, hold, "buy and hold", LIGHT["other"], width=1.2, legendrank=2),
        _line(trace.t, trace.equity, "strategy", LIGHT["line"], width=1.8, legendrank=1),
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


def contribution(trace: Replay) -> Any:
    """Draw what each symbol of a panel has brought, day by day: the symbols that brought or lost most, and the rest.

    Raises BadInput for a run of one symbol.
    """
    panel = trace.panel
    if panel is None:
        raise BadInput(f"a run of {trace.spec.symbol} alone has no contributions: plot its equity")
    order = np.argsort(-np.abs(panel.contribution[-1]), kind="stable")
    named, rest = order[:SYMBOLS_SHOWN], order[SYMBOLS_SHOWN:]
    ends = trace.days + DAY_MS - MINUTE_MS
    lines = [(panel.symbols[k], panel.contribution[:, k], COLORS[j]) for j, k in enumerate(named.tolist())]
    if len(rest):
        lines.append((f"{len(rest):,} others", panel.contribution[:, rest].sum(axis=1), LIGHT["muted"]))
    data = [_line(ends, np.ascontiguousarray(y), escape(name), color, 1.4, DAY_MS) for name, y, color in lines]
    layout = {"hovermode": "x unified", "xaxis": DATES, "yaxis": {"title": {"text": "profit"}, "fixedrange": True}}
    note = "Profit so far at the end of each day, after costs, with what is held at its last close."
    return figure("Contribution by symbol", data, layout, note, height=420)


def _line(
    t: Column, values: Column, name: str, color: str, width: float = 1.0, step: int = MINUTE_MS, **more: Any
) -> dict[str, Any]:
    """Return a line through points that are `step` ms apart; it ends where some are missing."""
    kept, breaks = thin.with_breaks(thin.extremes(values, LINE_POINTS), thin.gaps(t, step, LINE_POINTS))
    return {
        "type": "scatter",
        "mode": "lines",
        "x": _times(t[kept], breaks),
        "y": thin.broken(thin.floats(values[kept]), breaks),
        "name": name,
        "line": {"color": color, "width": width},
        "hovertemplate": "%{y:,.6~r}",
        **more,
    }


def _times(t: Column, breaks: Column) -> list[int]:
    """Return the times of points; a break has the time of the point after it."""
    found: list[int] = np.insert(t, breaks, t[breaks]).tolist()
    return found


def price(trace: Replay) -> Any:
    """Draw the price over the whole range: closes, the area from low to high, entries and exits of trades.

    Raises BadInput for several symbols.
    """
    if trace.panel:
        raise BadInput(f"{trace.spec.strategy} trades many symbols: plot their contribution")
    step = thin.step_for(trace.t, CANDLES)
    t, _, high, low, close = thin.candles(trace, step)
    breaks = thin.gaps(t, step * MINUTE_MS, CANDLES)
    x = _times(t, breaks)
    data = [
        _band(t, low, high, breaks),
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": thin.broken(thin.floats(close), breaks),
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
        "xaxis": {**DATES, "range": [int(t[0]), int(trace.t[-1]) + MINUTE_MS]},
        "yaxis": {"title": {"text": escape(trace.spec.symbol)}, "fixedrange": True},
    }
    return figure("Price and trades", data, layout, _price_note(len(chosen), len(trace.trades), step), height=420)


def _band(t: Column, low: Column, high: Column, breaks: Column) -> dict[str, Any]:
    """Return the area from low to high as an outline that is closed before each gap."""
    bottom, top = thin.floats(low), thin.floats(high)
    x: list[int | None] = []
    y: list[float | None] = []
    for part in np.split(np.arange(len(t)), breaks):
        there = part.tolist()
        back = there[::-1]
        x += [*t[there].tolist(), *t[back].tolist(), None]
        y += [*(bottom[k] for k in there), *(top[k] for k in back), None]
    outline = {"type": "scatter", "mode": "lines", "name": "range", "x": x[:-1], "y": y[:-1], "line": {"width": 0}}
    return outline | {"fill": "toself", "fillcolor": LIGHT["band"], "hoverinfo": "skip", "showlegend": False}


def _price_note(shown: int, total: int, step: int) -> str:
    size = f"{step} min" if step < 60 else f"{step // 60} h" if step < 1440 else f"{step // 1440} d"
    drawn = f"Closes of {size} bars in the band from their lows to their highs."
    if not total:
        return f"{drawn} No trade was closed."
    if shown == total:
        return f"{drawn} All {total:,} trades are marked."
    return f"{drawn} {shown:,} of {total:,} trades are marked: best, worst and evenly chosen ones; closer by, all."


def _markers(trace: Replay, chosen: Column) -> list[dict[str, Any]]:
    """Return the markers of entries by side and of exits by outcome, at the exact fills."""
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
            "y": thin.floats(at[chosen][picked]),
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


def monthly(trace: Replay) -> Any:
    """Draw a table of years by months: the return of each month in percent of the account's value at its start."""
    return months(trace.days, trace.daily, trace.capital)


def months(days: Column, daily: Column, capital: int) -> Any:
    """Draw `monthly` from daily profits [d]."""
    found = metrics.monthly(days, daily, capital)
    years = list(range(found[0].year, found[-1].year + 1))
    shape = (len(years), 13)
    z, text, shown_money = np.full(shape, np.nan), np.full(shape, "", object), np.full(shape, "", object)
    for month in found:
        cell = (month.year - years[0], month.month - 1)
        shown_money[cell] = money(month.profit)
        if month.gain is not None:
            z[cell], text[cell] = month.gain * 100 / SCALE, _gain(month.gain)
    for row, year in enumerate(years):
        inside = [month for month in found if month.year == year]
        shown_money[row, 12] = money(sum(month.profit for month in inside))
        if all(month.gain is not None for month in inside):
            whole = math.prod(1 + (month.gain or 0) / SCALE for month in inside) - 1
            z[row, 12], text[row, 12] = 0, f"<b>{_gain(round(whole * SCALE))}</b>"  # no colour: it is not a month
    sizes = np.abs(z[:, :12][~np.isnan(z[:, :12])])
    top = float(np.quantile(sizes, 0.95)) if sizes.size else 0.0
    heat = {
        "type": "heatmap",
        "meta": "turn",  # narrow screens show it with one row per month
        "x": [*MONTHS, "Year"],
        "y": [str(year) for year in years],
        "z": [[None if np.isnan(v) else round(float(v), 3) for v in row] for row in z],
        "text": text.tolist(),
        "customdata": shown_money.tolist(),
        "texttemplate": "%{text}",
        "textfont": {"color": LIGHT["ink"]},
        "hovertemplate": "%{x} %{y}: %{text}<br>profit %{customdata}<extra></extra>",
        "colorscale": DIVERGING,
        "zmin": -(top or 0.01),
        "zmax": top or 0.01,
        "xgap": 2,
        "ygap": 2,
        "showscale": False,
    }
    names = {"showgrid": False, "fixedrange": True, "ticks": "", "type": "category"}
    layout = {
        "xaxis": {**names, "side": "top", "tickangle": 0},
        "yaxis": {**names, "autorange": "reversed"},
        "margin": {"l": 48, "r": 8, "t": 40, "b": 8},
    }
    note = "Profit of each UTC month over the account's value when it began."
    if any(month.gain is None for month in found):
        note += " Empty where that was not above zero."
    return figure("Months", [heat], layout, note, height=70 + 34 * shape[0])


def _gain(share: int) -> str:
    return percent(share, 0 if abs(share) >= 10 * SCALE else 1)


def profits(trace: Replay) -> Any:
    """Draw the histogram of the trades' profits; the outer bins also count values beyond them."""
    bins = profit_bins(trace.trades.profit)
    if bins is None:
        return _empty("Profits of trades", "No trade was closed.")
    profit = trace.trades.profit / SCALE
    left = (np.arange(len(bins.counts)) + bins.first) * bins.width
    bars = {
        "type": "bar",
        "x": np.round(left + bins.width / 2, 8).tolist(),
        "y": bins.counts,
        "width": bins.width,
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
    if bins.beyond:
        note += f" The outermost bars hold {bins.beyond:,} beyond ±{money(round(bins.reach * SCALE))}."
    return figure("Profits of trades", [bars], layout, note)


def sharpe(trace: Replay, window: int = WINDOW_DAYS) -> Any:
    """Draw the rolling Sharpe ratio of the last `window` days; of fewer days if the range is short."""
    values = returns(trace.daily, trace.capital, trace.spec.sizing == "compound")
    return rolling(trace.days, values, trace.result["sharpe_ratio"], min(window, window_of(len(trace.days))))


def rolling(days: Column, daily: NDArray[np.float64], whole: int, window: int) -> Any:
    """Draw the Sharpe ratio of `window` days of the returns `daily` [d]; `whole` is that of all days (scaled)."""
    t, values = rolling_sharpe(days, daily, window)
    if not len(t):
        return _empty("Rolling Sharpe ratio", f"{len(days)} days are too few.")
    if not values.any():
        return _empty("Rolling Sharpe ratio", "No day has a profit or a loss.")
    kept = thin.extremes(np.round(values * SCALE).astype(np.int64), LINE_POINTS)
    kept, breaks = thin.with_breaks(kept, thin.gaps(t, DAY_MS, LINE_POINTS))
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": _times(t[kept], breaks),
        "y": thin.broken(np.round(values[kept], 3).tolist(), breaks),
        "line": {"color": LIGHT["line"], "width": 1.6},
        "hovertemplate": "%{y:.2f}<br>%{x|%Y-%m-%d}<extra></extra>",
    }
    layout = {
        "showlegend": False,
        "xaxis": DATES,
        "yaxis": {"title": {"text": "Sharpe ratio"}, "zeroline": True, "zerolinecolor": LIGHT["muted"]},
        "shapes": [level(whole / SCALE)],
    }
    note = f"Of the {window} days before each day, annualised with 365; dashed: {whole / SCALE:.2f}, the whole range."
    return figure(f"Rolling Sharpe ratio, {window} days", [line], layout, note)


def excursions(trace: Replay) -> Any:
    """Draw each trade's result against its worst and its best moment (MAE, MFE), to show the effect of stops and
    targets."""
    trades = trace.trades
    if not len(trades):
        return _empty("Worst and best moment of trades", "No trade was closed.")
    chosen = thin.telling(trades.profit, EXCURSIONS_SHOWN)
    won = trades.profit[chosen] > 0

    def cloud(name: str, kept: Any, color: str, moment: Column, text: str, axis: str) -> dict[str, Any]:
        picked = chosen[kept]
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": thin.floats(moment[picked]),
            "y": thin.floats(trades.profit[picked]),
            "xaxis": axis,
            "showlegend": axis == "x",
            "marker": {"color": color, "size": 4, "opacity": 0.6},
            "hovertemplate": f"{text} moment %{{x:,.5~r}}<br>profit %{{y:,.5~r}}<extra></extra>",
        }

    data = [
        cloud(name, kept, LIGHT[color], moment, text, axis)
        for moment, text, axis in ((trades.mae, "worst", "x"), (trades.mfe, "best", "x2"))
        for name, kept, color in (("won", won, "up"), ("lost", ~won, "down"))
    ]
    layout = {
        "xaxis": {"title": {"text": "MAE"}, "domain": [0, 0.48], "nticks": 5},
        "xaxis2": {"title": {"text": "MFE"}, "domain": [0.52, 1], "anchor": "y", "nticks": 5},
        "yaxis": {"title": {"text": "profit"}, "zeroline": True, "zerolinecolor": LIGHT["muted"]},
    }
    shown = "All" if len(chosen) == len(trades) else f"{len(chosen):,} of {len(trades):,}"
    note = f"{shown} trades, their profit over the worst (MAE) and the best mark while held (MFE). Winners far to the "
    note += "left came close to being stopped; losers far to the right were ahead."
    return figure("Worst and best moment of trades", data, layout, note)


def _empty(title: str, text: str) -> Any:
    hidden = {"visible": False}
    label = {"text": text, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    return figure(title, [], {"xaxis": hidden, "yaxis": hidden, "annotations": [label]}, height=160)
