"""The report of one run."""

from typing import Any

from candlemill import formatting
from candlemill.backtests.command_line import command_of
from candlemill.backtests.metric_table import shown
from candlemill.backtests.replay import Replay
from candlemill.engine.candles import DAY_MS, MINUTE_MS
from candlemill.report import figures
from candlemill.report.facts import identity_of, range_text, sharpe_key, spec_rows, title
from candlemill.report.guards_card import guard_cards
from candlemill.report.page import Cell, Figures, Html, Key, card, command, facts, keys, render
from candlemill.report.series import holding, worst_drawdowns
from candlemill.report.tables import drawdown_table, listed, statistics, symbol_table, trade_cards
from candlemill.report.zoom import detail
from candlemill.units import ratio, scaled

WORST = 8  # number of drawdowns listed
SPANS = (("last month", 30 * DAY_MS), ("last week", 7 * DAY_MS), ("last day", DAY_MS), ("last hours", DAY_MS // 4))


def page(trace: Replay) -> str:
    boxes, spec = Figures(), trace.spec
    what = facts(run_facts(trace)) + facts(identity_of(trace.result))
    if not spec.schedule:
        what += command(command_of(spec))
    body = [
        keys(headline(trace)),
        boxes.card("equity", figures.equity(trace)),
        *guard_cards(trace.result.get("guards")),
        *run_cards(trace, boxes),
        card("What was run", Html(what)),
    ]
    return render(title(spec), f"{range_text(spec)} · {len(trace.t):,} one-minute bars", body, boxes, zoom_of(trace))


def run_facts(trace: Replay) -> list[tuple[str, Cell]]:
    more: list[tuple[str, Cell]] = [
        ("trades held over gaps", formatting.count(trace.result["trades_over_gaps"])),
        ("earned over gaps", formatting.money(trace.result.get("gap_profit"))),
        ("ambiguous bars", formatting.count(trace.result["ambiguous_bars"])),
        ("capital", formatting.money(trace.capital)),
    ]
    return [*spec_rows(trace.spec, trace.result), *more]


def zoom_of(trace: Replay) -> dict[str, Any]:
    """Return the data with which the page's script draws the zoomed price; none of several symbols."""
    return {} if trace.panel else {"zoom": detail(trace, listed(trace.trades))}


def run_cards(trace: Replay, boxes: Figures) -> list[Html]:
    """Return the cards below the equity, which the pages of a run and of a walk-forward share."""
    return [
        *_price_cards(trace, boxes),
        boxes.card("monthly", figures.monthly(trace)),
        card("Figures", statistics(trace)),
        boxes.card("rolling", figures.sharpe(trace), "half"),
        boxes.card("profits", figures.profits(trace), "half"),
        boxes.card("excursions", figures.excursions(trace)),
        card("Worst drawdowns", drawdown_table(worst_drawdowns(trace, WORST), len(trace.days))),
        *trade_cards(trace),
    ]


def _price_cards(trace: Replay, boxes: Figures) -> list[Html]:
    """Return the price with its trades; of several symbols what each has brought instead."""
    if trace.panel is None:
        price = boxes.card("price", figures.price(trace), above=_zoom_buttons(trace))
        return [price] if trace.orders is None else [price, boxes.card("orders", figures.orders(trace))]
    return [boxes.card("contribution", figures.contribution(trace)), card("Symbols", symbol_table(trace), kind="long")]


def _zoom_buttons(trace: Replay) -> Html:
    """Return the buttons that select the visible range of the price figure."""
    end = int(trace.t[-1]) + MINUTE_MS
    buttons = [
        f'<button type="button" data-exact data-from="{end - ms}" data-to="{end}">{name}</button>'
        for name, ms in SPANS
        if ms < end - int(trace.t[0])
    ]
    return Html(f'<div class="choices"><button type="button" id="whole">all</button>{"".join(buttons)}</div>')


def headline(trace: Replay) -> list[Key]:
    r = trace.result
    profit, hold = r["total_pnl"], int(holding(trace)[-1])
    factor = formatting.ratio(ratio(r["gross_profit"], r["gross_loss"]))
    held = "in equal parts, " if trace.panel else ""
    won = f"{formatting.percent(formatting.share(r['wins'], r['trades']))} won" if r["trades"] else "none closed"
    deepest = worst_drawdowns(trace, 1)
    below_peak = f"{formatting.percent(scaled(deepest[0].share))} below the peak" if deepest else "never below its peak"
    return [
        Key(
            "Profit",
            formatting.money(profit),
            f"{_of_capital(trace, profit)} of {formatting.money(trace.capital)}",
            profit,
        ),
        *_interval(r),
        Key("Buy and hold", formatting.money(hold), f"{_of_capital(trace, hold)}, {held}before costs", hold),
        sharpe_key(r),
        Key("Max drawdown", shown("max_drawdown", r["max_drawdown"], trace.spec.sizing), below_peak),
        Key("Trades", formatting.count(r["trades"]), won),
        Key("Profit factor", factor, "won over lost"),
        Key("Fees", formatting.money(r["fees"]), f"{r['fills']:,} fills"),
        Key(
            "Exposure",
            formatting.percent(formatting.share(r["exposure_bars"], r["bars"])),
            f"at the end: {_side(trace)}",
        ),
    ]


def _interval(r: dict[str, Any]) -> list[Key]:
    """Return the card of a run of both paths: how far the best order of events is from the worst."""
    if "interval" not in r:
        return []
    best, bars = r["best_path_pnl"], formatting.count(r["interval"]["best"]["ambiguous_bars"])
    return [Key("Profit, best path", formatting.money(best), f"{bars} ambiguous bars", best)]


def _of_capital(trace: Replay, money: int) -> str:
    return formatting.percent(formatting.share(money, trace.capital))


def _side(trace: Replay) -> str:
    side = trace.result["open_position"]
    if trace.panel:
        return f"{side:,} symbols"
    return formatting.SIDES[side] if side else "no position"
