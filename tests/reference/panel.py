"""Panels: instants of decision over many symbols, and the universe as it was (SEMANTICS-2 §13)."""

from collections.abc import Mapping
from typing import Any

from .candles import DAY, MINUTE, Bar, k_bar_number


def ends_of_panel_bars(minutes: list[int], k: int) -> set[int]:
    """Open times of the minutes that end a k-bar: the last minute present of any symbol in it."""
    last = {k_bar_number(t, k): t for t in sorted(minutes)}
    return set(last.values())


class Universe:
    """At each instant of a calendar the `top` symbols by turnover over the days before it.

    `rule` is {"top": N, "over": days, "every": days}; instants are multiples of `every` days since 1970. A fixed
    list is {"names": [...]}.
    """

    def __init__(self, candles: Mapping[str, list[Bar]], rule: Mapping[str, Any]) -> None:
        self.candles, self.rule = candles, rule

    def members(self, now: int) -> set[str]:
        """Symbols of the universe at a time: those chosen at the latest instant at or before it."""
        if "names" in self.rule:
            return set(self.rule["names"])
        every = self.rule["every"] * DAY
        return set(self.chosen(now // every * every))

    def chosen(self, instant: int) -> list[str]:
        """Symbols chosen at an instant, the largest first; ties by name. Only candles that have closed count."""
        turnover = {}
        for symbol, bars in self.candles.items():
            before = [bar for bar in bars if bar.t + MINUTE <= instant]
            if any(bar.t >= instant - DAY for bar in before):
                since = instant - self.rule["over"] * DAY
                turnover[symbol] = sum(bar.close * bar.volume for bar in before if bar.t >= since)
        return sorted(turnover, key=lambda symbol: (-turnover[symbol], symbol))[: self.rule["top"]]
