"""The report of one run."""

from collections.abc import Sequence
from html import escape
from typing import Any

from candlemill.engine.tape import DAY_MS, MINUTE_MS
from candlemill.model import SCALE
from candlemill.report import figures, units
from candlemill.report.command import command_of, value_text
from candlemill.report.metrics_table import metric_rows
from candlemill.report.page import Cell, Figures, Html, Key, card, command, facts, keys, pairs, render, table, toned
from candlemill.report.series import Drawdown, holding, worst_drawdowns
from candlemill.report.zoom import detail
from candlemill.trace import Reason, Trace

WORST = 8  # drawdowns listed
ENDS = 8  # best and worst trades listed
LAST = 15  # latest trades listed
SHORT_DAYS = 31


def page(trace: Trace) -> str:
    boxes = Figures()
    body = [
        keys(headline(trace)),
        card("What was run", Html(facts(run_facts(trace)) + facts(identity(trace)) + command(command_of(trace.spec)))),
        boxes.card("equity", figures.equity(trace)),
        *run_cards(trace, boxes),
    ]
    return render(title(trace.spec), subtitle(trace), body, boxes, {"zoom": detail(trace, _listed(trace))})


def run_cards(trace: Trace, boxes: Figures) -> list[Html]:
    """What a run's page and a walk-forward's have in common, below the equity."""
    return [
        boxes.card("price", figures.price(trace), above=_zoom_buttons(trace)),
        boxes.card("monthly", figures.monthly(trace)),
        card("Figures", statistics(trace)),
        boxes.card("rolling", figures.sharpe(trace), "half"),
        boxes.card("profits", figures.profits(trace), "half"),
        boxes.card("excursions", figures.excursions(trace), "half"),
        card("Worst drawdowns", drawdown_table(worst_drawdowns(trace, WORST), len(trace.days)), kind="half"),
        *trade_cards(trace),
    ]


def _zoom_buttons(trace: Trace) -> Html:
    """Spans of the price figure to look at."""
    end = int(trace.t[-1]) + MINUTE_MS
    spans = [("last month", 30 * DAY_MS), ("last week", 7 * DAY_MS), ("last day", DAY_MS), ("last hours", DAY_MS // 4)]
    buttons = [
        f'<button type="button" data-exact data-from="{end - ms}" data-to="{end}">{name}</button>'
        for name, ms in spans
        if ms < end - int(trace.t[0])
    ]
    return Html(f'<div class="choices"><button type="button" id="whole">all</button>{"".join(buttons)}</div>')


def _listed(trace: Trace) -> list[int]:
    """The trades that tables show, by number."""
    order = trace.trades.profit.argsort(kind="stable")
    return sorted({int(k) for k in (*order[:ENDS], *order[-ENDS:])} | set(range(len(order))[-LAST:]))


def title(spec: Any) -> str:
    given = ", ".join(f"{name}={value_text(value)}" for name, value in spec.params.items())
    return f"{spec.symbol} · {spec.strategy}({given})"


def subtitle(trace: Trace) -> str:
    first, last = units.minute(trace.spec.start), units.minute(trace.spec.end - MINUTE_MS)
    return f"{first} to {last} UTC · {len(trace.t):,} one-minute bars"


def headline(trace: Trace) -> list[Key]:
    r, trades = trace.result, trace.trades
    profit, hold = r["total_pnl"], int(holding(trace)[-1])
    lost = r["gross_loss"]
    factor = units.ratio(abs(r["gross_profit"]) * SCALE // abs(lost)) if lost else units.NO_VALUE
    mean = int(trades.profit.sum()) // len(trades) if len(trades) else None
    deepest = worst_drawdowns(trace, 1)
    below_peak = f"{100 * deepest[0].share:,.1f}% below the peak" if deepest else "never below its peak"
    return [
        Key("Profit", units.money(profit), f"{_of_capital(trace, profit)} of {units.money(trace.capital)}", profit),
        Key("Buy and hold", units.money(hold), f"{_of_capital(trace, hold)}, before costs", hold),
        Key("Sharpe ratio", units.ratio(r["sharpe_ratio"]), f"Sortino {units.ratio(r['sortino_ratio'])}"),
        Key("Max drawdown", _drawdown(trace, r["max_drawdown"]), below_peak),
        Key("Trades", units.count(r["trades"]), f"{units.percent(units.share(r['wins'], r['trades']))} won"),
        Key("Profit factor", factor, f"mean trade {units.money(mean)}"),
        Key("Fees", units.money(r["fees"]), f"{r['fills']:,} fills"),
        Key("Exposure", units.percent(units.share(r["exposure_bars"], r["bars"])), f"at the end: {_side(r)}"),
    ]


def _of_capital(trace: Trace, money: int) -> str:
    return units.percent(units.share(money, trace.capital))


def _drawdown(trace: Trace, value: int) -> str:
    return units.money(value) if trace.spec.sizing == "fixed" else units.percent(value)


def _side(result: dict[str, Any]) -> str:
    return {1: "long", -1: "short", 0: "no position"}[result["open_position"]]


def run_facts(trace: Trace) -> list[tuple[str, Cell]]:
    """What was asked, of which candles, by which code."""
    r, spec = trace.result, trace.spec
    last = units.minute(spec.end - MINUTE_MS)
    rows: list[tuple[str, Cell]] = [
        ("symbol", spec.symbol),
        ("strategy", spec.strategy),
        *[(f"parameter {name}", value_text(value)) for name, value in spec.params.items()],
        ("range, UTC", f"{units.minute(spec.start)} to {last}"),
        ("bars", f"{r['bars']:,} of {spec.minutes:,} minutes"),
        ("missing minutes", f"{r['missing_minutes']:,}"),
        ("trades held over gaps", f"{r['trades_over_gaps']:,}"),
        ("ambiguous bars", f"{r['ambiguous_bars']:,}"),
        *other_options(spec),
        ("capital", units.money(trace.capital)),
    ]
    return rows


def identity(trace: Trace) -> list[tuple[str, Cell]]:
    names = (("job", "job_id"), ("digest of the candles", "data_digest"), ("digest of the result", "result_digest"))
    return [(name, _mono(str(trace.result[key]))) for name, key in names if trace.result.get(key)]


def other_options(spec: Any) -> list[tuple[str, Cell]]:
    """Costs, stops and the way of trading, each by its own name: whatever a spec has."""
    apart = {"symbol", "strategy", "params", "grid", "start", "end", "capital"}
    rows: list[tuple[str, Cell]] = []
    for name in spec.__struct_fields__:
        value = getattr(spec, name)
        if name in apart or (value in (0, None) and name not in ("fee", "slippage")):
            continue
        rows.append((name.replace("_", " "), _option(name, value)))
    return rows


def _option(name: str, value: Any) -> str:
    if name == "quantity":
        return units.decimal(value, 8).rstrip("0").rstrip(".")
    if name == "timeframe":
        return f"{value} min"
    return f"{value:,} ppm" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _mono(text: str) -> Html:
    return Html(f'<span class="mono">{escape(text)}</span>')


def statistics(trace: Trace) -> Html:
    r, trades = trace.result, trace.trades
    profit = trades.profit
    won, lost = profit[profit > 0], profit[profit <= 0]
    largest = int(abs(profit).max()) if len(profit) else 0

    def mean(values: Any) -> str:
        return units.money(int(values.sum()) // len(values) if len(values) else None, largest)

    def edge(value: Any) -> str:
        return units.money(int(value) if len(profit) else None, largest)

    account: list[tuple[str, Cell]] = [
        ("days", units.count(r["days"])),
        ("gross profit", units.money(r["gross_profit"])),
        ("gross loss", units.money(r["gross_loss"])),
        ("fees", units.money(r["fees"])),
        ("funding", units.money(int(trades.funding.sum()))),
        ("best day", units.money(int(trace.daily.max()))),
        ("worst day", units.money(int(trace.daily.min()))),
        ("days with a profit", units.percent(units.share(int((trace.daily > 0).sum()), len(trace.daily)))),
    ]
    each: list[tuple[str, Cell]] = [
        ("trades", units.count(len(trades))),
        ("long / short", f"{int((trades.side > 0).sum()):,} / {int((trades.side < 0).sum()):,}"),
        ("mean winner", mean(won)),
        ("mean loser", mean(lost)),
        ("best", edge(profit.max(initial=-(2**62)))),
        ("worst", edge(profit.min(initial=2**62))),
        ("held on average", units.span(int(trades.bars.mean()) * MINUTE_MS) if len(trades) else units.NO_VALUE),
        ("ended by stop / target", f"{_ended(trace, Reason.STOP)} / {_ended(trace, Reason.TAKE)}"),
    ]
    parts = [("Account", pairs(account)), ("Trades", pairs(each))]
    if metrics := metric_rows(r.get("metrics")):
        parts.append(("Metrics", pairs(metrics)))
    columns = "".join(f"<div><h3>{name}</h3>{body}</div>" for name, body in parts)
    return Html(f'<div class="columns">{columns}</div>')


def _ended(trace: Trace, reason: Reason) -> str:
    return f"{int((trace.trades.reason == reason).sum()):,}"


def drawdown_table(found: Sequence[Drawdown], days: int) -> Html:
    """Times to the minute where the run's days are few."""
    when = units.day if days > SHORT_DAYS else units.minute
    if not found:
        return Html("<p>The profit was never below its peak.</p>")
    largest = found[0].depth
    rows = [
        (
            when(d.start),
            units.money(d.depth, largest),
            f"{100 * d.share:,.1f}%",
            units.span(d.end - d.start) if d.end is not None else units.NO_VALUE,
            when(d.bottom),
            when(d.end) if d.end is not None else "not yet",
        )
        for d in found
    ]
    names = [f'data-from="{d.start}" data-to="{d.end or d.bottom}"' for d in found]
    return table(("peak", "depth", "of peak", "length", "bottom", "recovered"), rows, names=names)


def trade_cards(trace: Trace) -> list[Html]:
    trades = trace.trades
    if not len(trades):
        return []
    order = trades.profit.argsort(kind="stable")
    lists = (
        ("Best trades", order[::-1][:ENDS]),
        ("Worst trades", order[:ENDS]),
        ("Last trades", range(len(trades) - 1, max(len(trades) - 1 - LAST, -1), -1)),
    )
    return [card(name, trade_table(trace, [int(k) for k in chosen])) for name, chosen in lists]


def trade_table(trace: Trace, chosen: Sequence[int]) -> Html:
    """One row per trade; a click shows it in the price figure."""
    trades = trace.trades
    price = max(int(trades.entry_price[chosen].max()), int(trades.exit_price[chosen].max()))
    profit = int(abs(trades.profit[chosen]).max())
    span = max(int(-trades.mae[chosen].min()), int(trades.mfe[chosen].max()))
    rows = [
        (
            units.minute(int(trades.entry_t[k])),
            "long" if trades.side[k] > 0 else "short",
            toned(units.money(int(trades.profit[k]), profit), int(trades.profit[k])),
            units.span(int(trades.exit_t[k] - trades.entry_t[k])),
            units.money(int(trades.entry_price[k]), price),
            units.money(int(trades.exit_price[k]), price),
            units.money(int(trades.mae[k]), span),
            units.money(int(trades.mfe[k]), span),
            Reason(int(trades.reason[k])).name.lower() + _marks(trace, k),
        )
        for k in chosen
    ]
    names = [f'data-from="{trades.entry_t[k]}" data-to="{trades.exit_t[k]}"' for k in chosen]
    headers = ("entry", "side", "profit", "held", "bought or sold at", "closed at", "MAE", "MFE", "ended by")
    return table(headers, rows, left=2, names=names)


def _marks(trace: Trace, k: int) -> str:
    return (", over a gap" if trace.trades.gap[k] else "") + (", ambiguous" if trace.trades.ambiguous[k] else "")
