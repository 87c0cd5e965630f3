"""Symbols of long candles, such as hours or days: what is known of them, and what a job on them may not request.

`ABC@1h` was stored from candles of an hour, each as 60 minutes (see `ingest.long_candles`). Between its open and its
close nothing is known, so decisions are made at the ends of such candles.
"""

from candlemill.backtests.spec import OPTIONS, Spec
from candlemill.engine.candles import minutes_of
from candlemill.errors import BadInput

DAY_MINUTES = 1440
HOUR_MINUTES = 60


def candle_minutes(symbol: str) -> int:
    """Return how many minutes long the candles were that a symbol was stored from: 60 of `ABC@1h`, 1 of `ABC`."""
    _, at, text = symbol.rpartition("@")
    try:
        minutes = minutes_of(text) if at else 1
    except ValueError:
        return 1
    return minutes if DAY_MINUTES % minutes == 0 else 1


def long_symbol(symbol: str, minutes: int) -> str:
    """Return the name under which candles of so many minutes are stored: `ABC@1h`. Raises BadInput."""
    if DAY_MINUTES % minutes:
        raise BadInput(
            f"candles of {_text(minutes)} do not divide a day evenly: give 1d or a part of it, like 15m or 4h"
        )
    ending = f"@{_text(minutes)}"
    return symbol if minutes == 1 or symbol.endswith(ending) else symbol + ending


def usual_timeframe(symbols: str) -> int:
    """Return the timeframe in minutes of a job that names none: that of the longest candles among its symbols."""
    return max(candle_minutes(symbol) for symbol in symbols.split(","))


def check_long_candles(spec: Spec) -> None:
    """Reject what needs the minutes within long candles. Raises BadInput."""
    for symbol in spec.symbols:
        minutes = candle_minutes(symbol)
        if minutes == 1:
            continue
        candles = f"{symbol} has candles of {_text(minutes)}"
        if spec.timeframe % minutes:
            raise BadInput(
                f"{candles}, timeframe={_text(spec.timeframe)} needs shorter ones: give {_text(minutes)} or a multiple"
            )
        if spec.volume_share:
            raise BadInput(f"{candles}, volume_share needs the volumes of minutes: leave it out")
        if spec.funding and minutes > HOUR_MINUTES:
            raise BadInput(f"{candles}, funding needs prices of the hours between: leave it out")


def _text(minutes: int) -> str:
    return OPTIONS["timeframe"].text(minutes)
