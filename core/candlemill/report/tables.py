"""The tables of a run: its sums, its worst drawdowns, its trades."""

from collections.abc import Sequence
from typing import Any

from candlemill.engine.tape import MINUTE_MS
from candlemill.report import units
from candlemill.report.metrics_table import metric_rows
from candlemill.report.page import Cell, Html, card, pairs, table, toned
from candlemill.report.series import Drawdown
from candlemill.trace import Reason, Trace, Trades

ENDS = 8  # best and worst trades listed
LAST = 15  # latest trades listed
SHORT_DAYS = 31


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
        ("funding", units.money(r.get("funding"))),
        ("best day", units.money(int(trace.daily.max()))),
        ("worst day", units.money(int(trace.daily.min()))),
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
        half = -(-len(metrics) // 2)
        parts += [("Metrics", pairs(metrics[:half])), ("Metrics, continued", pairs(metrics[half:]))]
    columns = "".join(f"<div><h3>{name or '&nbsp;'}</h3>{body}</div>" for name, body in parts)
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


def listed(trades: Trades) -> list[int]:
    """The trades that the tables show, by number."""
    order = trades.profit.argsort(kind="stable")
    return sorted({int(k) for k in (*order[:ENDS], *order[-ENDS:], *range(len(order))[-LAST:])})


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
