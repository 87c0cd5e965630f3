"""Warnings about results that depend on missing candles or missing funding rates."""

from collections.abc import Mapping
from typing import Any

from candlemill.formatting import money

CAUTION_PART = 10  # a tenth of the profit or loss


def data_cautions(result: Mapping[str, Any]) -> list[str]:
    """Return the warnings about missing candles and funding rates of a result."""
    return [text for text in (gap_caution(result), funding_caution(result)) if text]


def funding_caution(result: Mapping[str, Any]) -> str | None:
    """Return a warning if the funding rates cover only a part of the result's range, else None."""
    missing = result.get("funding_missing_minutes", 0)
    if not missing:
        return None
    days = f"{missing / 1440:,.1f}"
    return f"funding is missing for {days} days of the range: nothing was paid or received there"


def gap_caution(result: Mapping[str, Any]) -> str | None:
    """Return a warning if a tenth or more of the result was earned while there were no candles, else None."""
    over_gaps, total = result.get("gap_profit", 0), result["total_pnl"]
    if not over_gaps or abs(over_gaps) * CAUTION_PART < abs(total):
        return None
    earned = f"{money(over_gaps)} of a total of {money(total)} was earned across gaps in the candles"
    return f"{earned}, where nobody could trade"
