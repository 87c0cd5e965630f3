"""The report of one run."""

from typing import Any

from candlemill.command import command_of
from candlemill.engine.tape import DAY_MS, MINUTE_MS
from candlemill.model import SCALE
from candlemill.report import figures, units
from candlemill.report.facts import asked, identity_of, range_text, title
from candlemill.report.guards_card import guard_cards
from candlemill.report.page import Cell, Figures, Html, Key, card, command, facts, keys, render
from candlemill.report.series import holding, worst_drawdowns
from candlemill.report.tables import drawdown_table, listed, statistics, trade_cards
from candlemill.report.zoom import detail
from candlemill.trace import Trace

WORST = 8  # drawdowns listed
SPANS = (("last month", 30 * DAY_MS), ("last week", 7 * DAY_MS), ("last day", DAY_MS), ("last hours", DAY_MS // 4))


def page(trace: Trace) -> str:
    boxes, spec = Figures(), trace.spec
    what = facts(run_facts(trace)) + facts(identity_of(trace.result))
    if not spec.schedule:
        what += command(command_of(spec))
    body = [
        keys(headline(trace)),
        card("What was run", Html(what)),
        boxes.card("equity", figures.equity(trace)),
        *guard_cards(trace.result.get("guards")),
        *run_cards(trace, boxes),
    ]
    return render(title(spec), f"{range_text(spec)} · {len(trace.t):,} one-minute bars", body, boxes, zoom_of(trace))


def run_facts(trace: Trace) -> list[tuple[str, Cell]]:
    more: list[tuple[str, Cell]] = [
        ("trades held over gaps", units.count(trace.result["trades_over_gaps"])),
        ("ambiguous bars", units.count(trace.result["ambiguous_bars"])),
        ("capital", units.money(trace.capital)),
    ]
    return [*asked(trace.spec, trace.result), *more]


def zoom_of(trace: Trace) -> dict[str, Any]:
    """What the page's script needs to draw the price closer by."""
    return {"zoom": detail(trace, listed(trace.trades))}


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
    buttons = [
        f'<button type="button" data-exact data-from="{end - ms}" data-to="{end}">{name}</button>'
        for name, ms in SPANS
        if ms < end - int(trace.t[0])
    ]
    return Html(f'<div class="choices"><button type="button" id="whole">all</button>{"".join(buttons)}</div>')


def headline(trace: Trace) -> list[Key]:
    r, trades = trace.result, trace.trades
    profit, hold = r["total_pnl"], int(holding(trace)[-1])
    lost = r["gross_loss"]
    factor = units.ratio(abs(r["gross_profit"]) * SCALE // abs(lost)) if lost else units.NO_VALUE
    mean = int(trades.profit.sum()) // len(trades) if len(trades) else None
    won = f"{units.percent(units.share(r['wins'], r['trades']))} won" if r["trades"] else "none closed"
    deepest = worst_drawdowns(trace, 1)
    below_peak = f"{100 * deepest[0].share:,.1f}% below the peak" if deepest else "never below its peak"
    return [
        Key("Profit", units.money(profit), f"{_of_capital(trace, profit)} of {units.money(trace.capital)}", profit),
        Key("Buy and hold", units.money(hold), f"{_of_capital(trace, hold)}, before costs", hold),
        Key("Sharpe ratio", units.ratio(r["sharpe_ratio"]), f"Sortino {units.ratio(r['sortino_ratio'])}"),
        Key("Max drawdown", _drawdown(trace, r["max_drawdown"]), below_peak),
        Key("Trades", units.count(r["trades"]), won),
        Key("Profit factor", factor, f"mean trade {units.money(mean)}"),
        Key("Fees", units.money(r["fees"]), f"{r['fills']:,} fills"),
        Key("Exposure", units.percent(units.share(r["exposure_bars"], r["bars"])), f"at the end: {_side(r)}"),
    ]


def _of_capital(trace: Trace, money: int) -> str:
    return units.percent(units.share(money, trace.capital))


def _drawdown(trace: Trace, value: int) -> str:
    return units.percent(value) if trace.spec.sizing == "compound" else units.money(value)


def _side(result: dict[str, Any]) -> str:
    return {1: "long", -1: "short", 0: "no position"}[result["open_position"]]
