"""What the guards say of a run, a sweep or a walk-forward, as cards: warnings first, then every figure they give.

Figures are those of `candlemill.guards` ready for JSON; what has a new name is shown plainly.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from candlemill.command import value_text
from candlemill.report.metrics_table import label, shown
from candlemill.report.page import Cell, Html, card, pairs, table
from candlemill.report.units import money

COLUMNS = 3


def guard_cards(guards: Mapping[str, Any] | None) -> list[Html]:
    """No card without guards."""
    if not guards:
        return []
    rows = list(_figures(guards))
    height = max(-(-len(rows) // COLUMNS), 1)
    columns = (pairs(rows[k : k + height]) for k in range(0, len(rows), height))
    body = f'<div class="columns">{"".join(f"<div>{column}</div>" for column in columns)}</div>'
    said = "".join(f"<li>{escape(str(text))}</li>" for text in guards.get("warnings") or ())
    cards = [card("Guards", Html((f'<ul class="warnings">{said}</ul>' if said else "") + body))]
    intervals = list(_intervals(guards))
    if intervals:
        headers = ("resampled", "figure", "as it was", "low", "median", "high")
        cards.append(card("How much of it may be chance", table(headers, intervals, left=2)))
    return cards


def _figures(guards: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Cell]]:
    for name, value in guards.items():
        told = f"{prefix}{label(name)}"
        if isinstance(value, Mapping):
            if name == "best":
                yield told, ", ".join(f"{key}={value_text(v)}" for key, v in value.items())
            elif name != "figures":
                yield from _figures(value, f"{told}: ")
        elif isinstance(value, list):
            if name == "table":  # of costs: pairs of a fee and the profit with it
                yield from ((f"profit at a fee of {fee:,} ppm", money(profit)) for fee, profit in value)
        elif name == "level":  # parts per million
            yield told, f"{value / 10_000:g}%"
        else:
            yield told, shown(name, value)


def _intervals(guards: Mapping[str, Any]) -> Iterator[tuple[Cell, ...]]:
    for name, value in guards.items():
        if isinstance(value, Mapping):
            for figure, interval in (value.get("figures") or {}).items():
                ends = (shown(figure, interval[key]) for key in ("actual", "low", "median", "high"))
                yield (label(name), label(figure), *ends)
