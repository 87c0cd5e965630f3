"""Limit on the minutes without candles in a job's range."""

import msgspec

DEFAULT_MAX_GAP = 1_440


class GapLimit(msgspec.Struct, frozen=True):
    """A limit of `minutes` without a candle, not counting the exchange's known outages.
    It applies to the whole range, or with `between` only from the first to the last candle of the range's days."""

    minutes: int
    between: bool


def gap_limit(max_gap: int | None, span: str) -> GapLimit | None:
    """Return the limit for `max_gap` minutes; without `max_gap`, one day between the first and last candle of the
    range.
    There is no limit for the range `all`, which uses the candles that exist."""
    if max_gap is not None:
        return GapLimit(max_gap, False)
    return None if span == "all" else GapLimit(DEFAULT_MAX_GAP, True)
