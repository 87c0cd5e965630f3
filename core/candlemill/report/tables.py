"""The tables of a run: statistics, worst drawdowns, trades."""

from collections.abc import Sequence
from typing import Any

from candlemill import formatting
from candlemill.backtests.metric_table import metric_rows
from candlemill.backtests.replay import Replay
from candlemill.backtests.trades import Reason, Trades
from candlemill.engine.candles import MINUTE_MS
from candlemill.report import times
from candlemill.report.page import Cell, Html, card, pairs, table, toned
from candlemill.report.series import Drawdown
from candlemill.units import divide, scaled

ENDS = 8  # number of best and of worst trades listed
LAST = 15  # number of latest trades listed
SHORT_DAYS = 31


def statistics(trace: Replay) -> Html:
    r, trades = trace.result, trace.trades
    profit = trades.profit
    won, lost = profit[profit > 0], profit[profit <= 0]
    largest = int(abs(profit).max()) if len(profit) else 0

    def mean(values: Any) -> str:
        return formatting.money(divide(int(values.sum()), len(values)), largest)

    def edge(value: Any) -> str:
        return formatting.money(int(value) if len(profit) else None, largest)

    account: list[tuple[str, Cell]] = [
        ("days", formatting.count(r["days"])),
        ("gross profit", formatting.money(r["gross_profit"])),
        ("gross loss", formatting.money(r["gross_loss"])),
        ("fees", formatting.money(r["fees"])),
        ("funding", formatting.money(r.get("funding"))),
        ("best day", formatting.money(int(trace.daily.max()))),
        ("worst day", formatting.money(int(trace.daily.min()))),
    ]
    each: list[tuple[str, Cell]] = [
        ("trades", formatting.count(len(trades))),
        ("long / short", f"{int((trades.side > 0).sum()):,} / {int((trades.side < 0).sum()):,}"),
        ("mean winner", mean(won)),
        ("mean loser", mean(lost)),
        ("best", edge(profit.max(initial=-(2**62)))),
        ("worst", edge(profit.min(initial=2**62))),
        ("held on average", times.span(int(trades.bars.mean()) * MINUTE_MS) if len(trades) else formatting.NO_VALUE),
        ("ended by stop / target", f"{_ended(trace, Reason.STOP)} / {_ended(trace, Reason.TAKE)}"),
    ]
    if trace.spec.margin != "none":
        each.append(("liquidations", formatting.count(r["liquidations"])))
        account.append(("liquidation price now", _exact(r["liquidation_price"])))
    parts = [("Account", pairs(account)), ("Trades", pairs(each))]
    if metrics := metric_rows(r):
        half = -(-len(metrics) // 2)
        parts += [("Metrics", pairs(metrics[:half])), ("Metrics, continued", pairs(metrics[half:]))]
    columns = "".join(f"<div><h3>{name or '&nbsp;'}</h3>{body}</div>" for name, body in parts)
    return Html(f'<div class="columns">{columns}</div>')


def _exact(price: int | None) -> str:
    return formatting.NO_VALUE if price is None else formatting.exact(price)


def _ended(trace: Replay, reason: Reason) -> str:
    return f"{int((trace.trades.reason == reason).sum()):,}"


def drawdown_table(found: Sequence[Drawdown], days: int) -> Html:
    """Return the table of drawdowns; times show minutes if the run has few days."""
    when = times.day if days > SHORT_DAYS else times.minute
    if not found:
        return Html("<p>The profit was never below its peak.</p>")
    largest = found[0].depth
    rows = [
        (
            when(d.start),
            formatting.money(d.depth, largest),
            formatting.percent(scaled(d.share)),
            times.span(d.end - d.start) if d.end is not None else formatting.NO_VALUE,
            when(d.bottom),
            when(d.end) if d.end is not None else "not yet",
        )
        for d in found
    ]
    names = [f'data-from="{d.start}" data-to="{d.end or d.bottom}"' for d in found]
    return table(("peak", "depth", "of peak", "length", "bottom", "recovered"), rows, names=names)


def listed(trades: Trades) -> list[int]:
    """Return the indices of the trades that the tables show."""
    order = trades.profit.argsort(kind="stable")
    return sorted({int(k) for k in (*order[:ENDS], *order[-ENDS:], *range(len(order))[-LAST:])})


def symbol_table(trace: Replay) -> Html:
    """Return a table with one row per symbol of a panel, that which brought most first."""
    found = sorted(trace.result["symbols"].items(), key=lambda row: -row[1]["profit"])
    profit, fees = (formatting.largest_of(row[name] for _, row in found) for name in ("profit", "fees"))
    rows = [
        (
            name,
            toned(formatting.money(row["profit"], profit), row["profit"]),
            formatting.percent(formatting.share(row["profit"], trace.capital)),
            formatting.count(row["trades"]),
            formatting.percent(formatting.share(row["wins"], row["trades"])),
            formatting.money(row["fees"], fees),
            formatting.percent(formatting.share(row["exposure_bars"], trace.result["bars"])),
        )
        for name, row in found
    ]
    return table(("symbol", "contribution", "of the capital", "trades", "won", "fees", "time held"), rows)


def trade_cards(trace: Replay) -> list[Html]:
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


def trade_table(trace: Replay, chosen: Sequence[int]) -> Html:
    """Return a table with one row per trade; a click on a row shows the trade in the price figure, which panels have
    not."""
    trades = trace.trades
    price = max(int(trades.entry_price[chosen].max()), int(trades.exit_price[chosen].max()))
    profit = int(abs(trades.profit[chosen]).max())
    span = max(int(-trades.mae[chosen].min()), int(trades.mfe[chosen].max()))
    panel = trace.panel
    rows = [
        (
            *([panel.symbols[panel.of_trade[k]]] if panel else []),
            times.minute(int(trades.entry_t[k])),
            "long" if trades.side[k] > 0 else "short",
            toned(formatting.money(int(trades.profit[k]), profit), int(trades.profit[k])),
            times.span(int(trades.exit_t[k] - trades.entry_t[k])),
            formatting.money(int(trades.entry_price[k]), price),
            formatting.money(int(trades.exit_price[k]), price),
            formatting.money(int(trades.mae[k]), span),
            formatting.money(int(trades.mfe[k]), span),
            Reason(int(trades.reason[k])).name.lower() + _marks(trace, k),
        )
        for k in chosen
    ]
    names = [f'data-from="{trades.entry_t[k]}" data-to="{trades.exit_t[k]}"' for k in chosen]
    headers = ("entry", "side", "profit", "held", "bought or sold at", "closed at", "MAE", "MFE", "ended by")
    if panel:
        return table(("symbol", *headers), rows, left=3)
    return table(headers, rows, left=2, names=names)


def _marks(trace: Replay, k: int) -> str:
    return (", over a gap" if trace.trades.gap[k] else "") + (", ambiguous" if trace.trades.ambiguous[k] else "")
