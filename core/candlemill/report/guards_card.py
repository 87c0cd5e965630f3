"""Cards with the guards of a run, a sweep or a walk-forward: warnings first, then all figures.

The figures are those of `candlemill.guards`, ready for JSON; one with an unknown name is shown without formatting.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from candlemill.backtests.command_line import value_text
from candlemill.backtests.metric_table import label, shown
from candlemill.formatting import largest_of, money, rate
from candlemill.report.page import Cell, Html, card, pairs, table

COLUMNS = 3


def guard_cards(guards: Mapping[str, Any] | None) -> list[Html]:
    """Return the cards of the guards; an empty list without guards."""
    if not guards:
        return []
    rows = list(_figures(guards))
    height = max(-(-len(rows) // COLUMNS), 1)
    columns = (pairs(rows[k : k + height]) for k in range(0, len(rows), height))
    body = f'<div class="columns">{"".join(f"<div>{column}</div>" for column in columns)}</div>'
    items = "".join(f"<li>{escape(str(text))}</li>" for text in guards.get("warnings") or ())
    cards = [card("Guards", Html((f'<ul class="warnings">{items}</ul>' if items else "") + body))]
    intervals = list(_intervals(guards))
    if intervals:
        headers = ("figure", "as it was", "low", "median", "high", "resampled by")
        cards.append(card("How much of it may be chance", table(headers, intervals)))
    return cards


def _figures(guards: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Cell]]:
    for name, value in guards.items():
        name_shown = f"{prefix}{label(name)}"
        if isinstance(value, Mapping):
            if name == "best":
                yield name_shown, ", ".join(f"{key}={value_text(v)}" for key, v in value.items())
            elif name != "figures":
                yield from _figures(value, f"{name_shown}: ")
        elif isinstance(value, list):
            if name == "table":  # of costs: pairs of a fee and the profit at that fee
                yield from ((f"profit at a fee of {rate(fee)}", money(profit)) for fee, profit in value)
        else:
            yield name_shown, shown(name, value)


def _intervals(guards: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    for name, value in guards.items():
        if isinstance(value, Mapping):
            for figure, interval in (value.get("figures") or {}).items():
                ends = [interval[key] for key in ("actual", "low", "median", "high")]
                yield (label(figure), *(shown(figure, end, largest=largest_of(ends)) for end in ends), label(name))
