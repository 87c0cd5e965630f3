"""The report of a portfolio: its symbols share no bars, so it is made of days."""

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from candlemill import formatting
from candlemill.backtests.metric_table import metric_rows
from candlemill.backtests.settings import settings_text, unusual_params
from candlemill.backtests.spec import Spec
from candlemill.engine.candles import DAY_MS, Column
from candlemill.report import figures, thin
from candlemill.report.facts import identity_of, range_text, sharpe_key, spec_rows
from candlemill.report.page import Figures, Html, Key, card, command, facts, keys, pairs, render, table, toned
from candlemill.report.series import returns, window_of
from candlemill.report.theme import DATES, LIGHT, figure
from candlemill.units import SCALE, divide, ratio

BARS = 30  # symbols of the chart: the best and the worst where there are more


def page(spec: Spec, result: Mapping[str, Any], days: Column, daily: Column, again: str) -> str:
    """Return the page. `daily` are profits of UTC `days` (midnights, ms), [d]; `again` is the command line."""
    boxes, shares = Figures(), shares_of(result)
    values = returns(daily, result["capital"], compound=False)
    names = ", ".join(part["symbol"] for part in result["parts"])
    body = [
        keys(_headline(result)),
        boxes.card("equity", equity(days, daily)),
        boxes.card("shares", contributions(shares)),
        card("Symbols", _symbols(result), kind="long"),
        boxes.card("monthly", figures.months(days, daily, result["capital"])),
        boxes.card("rolling", figures.rolling(days, values, result["sharpe_ratio"], window_of(len(days)))),
        card("Figures", _statistics(result)),
        card("What was run", _what(spec, result, names, again)),
    ]
    given = settings_text(unusual_params(spec.strategy, spec.params))
    many = names if len(shares) <= 4 else f"{len(shares):,} symbols"
    title = f"{many} · {spec.strategy}" + (f"({given})" if given else "")
    return render(title, f"{range_text(spec)} · {len(days):,} days", body, boxes, {})


def shares_of(result: Mapping[str, Any]) -> dict[str, int]:
    """Return the profit of each symbol, the largest first."""
    found = {part["symbol"]: int(part["total_pnl"]) for part in result["parts"]}
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def equity(days: Column, daily: Column) -> Any:
    """Draw the cumulative profit at the ends of days, and below it the drawdown from its peak."""
    marks = np.cumsum(daily)
    below = marks - np.maximum.accumulate(np.maximum(marks, 0))
    ends = (days + DAY_MS - 1).tolist()

    def line(name: str, values: Column, color: str, **more: Any) -> dict[str, Any]:
        plain = {"type": "scatter", "mode": "lines", "x": ends, "y": thin.floats(values), "name": name}
        return plain | {"line": {"color": color, "width": 1.6}, "hovertemplate": "%{y:,.6~r}", **more}

    data = [
        line("profit", marks, LIGHT["line"]),
        line("drawdown", below, LIGHT["down"], yaxis="y2", fill="tozeroy", fillcolor=LIGHT["loss"], showlegend=False),
    ]
    layout = {
        "hovermode": "x unified",
        "showlegend": False,
        "xaxis": {**DATES, "anchor": "y2"},
        "yaxis": {"title": {"text": "profit"}, "domain": [0.32, 1], "fixedrange": True},
        "yaxis2": {"title": {"text": "drawdown"}, "domain": [0, 0.26], "rangemode": "tozero", "nticks": 4},
    }
    return figure("Equity and drawdown", data, layout, "Profit so far at the end of each UTC day, after costs.", 420)


def contributions(shares: Mapping[str, int], title: str = "Contribution by symbol") -> Any:
    """Draw the profit of each symbol; of many the best and the worst."""
    names = list(shares)
    kept = names if len(names) <= BARS else [*names[: BARS // 2], *names[-BARS // 2 :]]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [escape(name) for name in kept],
        "x": thin.floats([shares[name] for name in kept]),
        "marker": {"color": [LIGHT["up"] if shares[name] > 0 else LIGHT["down"] for name in kept]},
        "hovertemplate": "%{y}: %{x:,.6~r}<extra></extra>",
    }
    layout = {
        "showlegend": False,
        "xaxis": {"title": {"text": "profit"}},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False},
    }
    left_out = f" {len(names) - len(kept):,} between them are left out." if len(kept) < len(names) else ""
    note = f"{len(names):,} symbols, each after costs.{left_out}"
    return figure(title, [bars], layout, note, 120 + 24 * len(kept))


def _headline(r: Mapping[str, Any]) -> list[Key]:
    metrics, capital = r.get("metrics") or {}, r["capital"]
    factor = formatting.ratio(ratio(r["gross_profit"], r["gross_loss"]))
    won = f"{formatting.percent(formatting.share(r['wins'], r['trades']))} won" if r["trades"] else "none closed"
    part = f"{formatting.percent(formatting.share(r['total_pnl'], capital))} of {formatting.money(capital)}"
    share = formatting.percent(metrics.get("max_drawdown_share"))
    held = metrics.get("buy_and_hold")
    kept = None if held is None else divide(held * capital, SCALE)
    return [
        Key("Profit", formatting.money(r["total_pnl"]), part, r["total_pnl"]),
        Key("Buy and hold", formatting.money(kept), f"{formatting.percent(held)}, before costs", kept or 0),
        sharpe_key(r),
        Key("Max drawdown", formatting.money(r["max_drawdown"]), f"{share} of the peak day by day"),
        Key("Trades", formatting.count(r["trades"]), won),
        Key("Profit factor", factor, "won over lost"),
        Key("Fees", formatting.money(r["fees"]), f"{r['fills']:,} fills"),
    ]


def _symbols(result: Mapping[str, Any]) -> Html:
    parts = {part["symbol"]: part for part in result["parts"]}
    rows = [parts[name] for name in shares_of(result)]
    fees, profits = (formatting.largest_of([row[name] for row in rows]) for name in ("fees", "total_pnl"))
    cells = [
        (
            row["symbol"],
            toned(formatting.money(row["total_pnl"], profits), row["total_pnl"]),
            formatting.percent(formatting.share(row["total_pnl"], result["capital"])),
            formatting.count(row["trades"]),
            formatting.percent(formatting.share(row["wins"], row["trades"])),
            formatting.money(row["fees"], fees),
        )
        for row in rows
    ]
    return table(("symbol", "profit", "of the capital", "trades", "won", "fees"), cells)


def _statistics(result: Mapping[str, Any]) -> Html:
    rows = metric_rows(result)
    half = -(-len(rows) // 2)
    columns = "".join(f"<div>{pairs(part)}</div>" for part in (rows[:half], rows[half:]))
    return Html(f'<div class="columns">{columns}</div>')


def _what(spec: Spec, result: Mapping[str, Any], names: str, again: str) -> Html:
    rows = [("symbols", names), *[row for row in spec_rows(spec, result) if row[0] not in ("symbol", "bars")]]
    return Html(facts(rows) + facts(identity_of(result)) + (command(again) if again else ""))
