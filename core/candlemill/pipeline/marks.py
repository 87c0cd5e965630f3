"""Mark prices of a perpetual: which ones a job with margin uses, and its candles of them."""

import msgspec

from candlemill.backtests.spec import Spec
from candlemill.engine.candles import MINUTE_MS, CandleColumns
from candlemill.exchanges.binance.markets import mark_name
from candlemill.pipeline.cache_keys import JobData
from candlemill.pipeline.interfaces import CandleSource, DayIndex

COLUMNS = ("t", "open", "high", "low", "close")


def symbols_read(spec: Spec) -> list[str]:
    """Return the symbols whose candles a job reads: its own, and that of its mark prices."""
    name = mark_name(spec.symbol) if spec.marks else None
    return spec.symbols if name is None else [*spec.symbols, name]


def marks_digest(index: DayIndex, spec: Spec) -> str:
    """Return the digest of the mark prices in a job's range; an empty text without margin or without any.

    Only those of UTC days with candles count: no others are read. Raises BeingWritten while they are being written.
    """
    name = mark_name(spec.symbol)
    if spec.margin == "none" or name is None:
        return ""
    traded = {day.start for day in index.days(spec.symbol)}
    data = JobData([day for day in index.days(name) if day.start in traded], None, spec.start, spec.end)
    data.check_counted(name)
    return data.digest if data.days else ""


def marks_of(source: CandleSource, spec: Spec, candles: CandleColumns) -> CandleColumns | None:
    """Return the mark prices in the time of `candles`; None if the job uses none."""
    name = mark_name(spec.symbol)
    t = candles.columns()["t"]
    if not spec.marks or name is None or len(t) == 0:
        return None
    own = msgspec.structs.replace(spec, symbol=name)
    return source.window(own, int(t[0]), int(t[-1]) + MINUTE_MS, 0, COLUMNS).candles
