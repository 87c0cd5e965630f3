"""Comparison of stored candles with the metadata index.

After a power loss or a disk error a database can lose a part of its candles and start without an error. Candles are
therefore compared with the index, which is a separate table, before they are used.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.engine.candles import DAY_MS
from candlemill.errors import CandlesMissing
from candlemill.pipeline.cache_keys import JobData, PanelData
from candlemill.pipeline.interfaces import DayIndex
from candlemill.store.base import CandleStore, Store
from candlemill.store.candle_writer import CANDLE_COLUMNS, count_days, day_runs
from candlemill.stored_days import Day
from candlemill.units import iso

Columns = dict[str, NDArray[Any]]

DAYS_SHOWN = 3


class Difference(NamedTuple):
    """A day whose stored candles differ from the index. With equal row counts, the content differs."""

    start: int  # ms
    indexed_rows: int
    stored_rows: int


def differences(columns: Columns, days: Sequence[Day]) -> list[Difference]:
    """Compare candles with the index of exactly their days, both in time order.

    Compares row count, first and last minute of each day, and the digest if `columns` has all columns.
    """
    whole = {day.start: day for day in count_days(columns)} if columns.keys() >= set(CANDLE_COLUMNS) else None
    indexed = {day.start: day for day in days}
    t, starts = columns["t"], np.array(list(indexed), dtype=np.int64)
    firsts, ends = np.searchsorted(t, starts), np.searchsorted(t, starts + DAY_MS)
    if int((ends - firsts).sum()) < len(t):  # candles of days that the index does not have
        starts = np.union1d(starts, np.unique(t // DAY_MS) * DAY_MS)
        firsts, ends = np.searchsorted(t, starts), np.searchsorted(t, starts + DAY_MS)
    out = []
    for start, a, b in zip(starts.tolist(), firsts.tolist(), ends.tolist(), strict=True):
        day = indexed.get(start) or Day(start, 0, start, start, "")
        same = day.rows == b - a and (a == b or (day.first, day.last) == (int(t[a]), int(t[b - 1])))
        if same and whole is not None and a < b:
            same = whole[start].digest == day.digest
        if not same:
            out.append(Difference(start, day.rows, b - a))
    return out


def differs_from(columns: Columns, days: Sequence[Day]) -> list[Difference]:
    """As `differences`, except days with an unfinished write, which have no digest."""
    uncounted = {day.start for day in days if not day.digest}
    return [one for one in differences(columns, days) if one.start not in uncounted]


def check_read(symbol: str, columns: Columns, days: Sequence[Day]) -> None:
    """Raise CandlesMissing if candles differ from the index, see `differences`."""
    if found := differs_from(columns, days):
        raise CandlesMissing(difference_text(symbol, found))


def read_checked(store: Store, symbol: str, start: int, end: int, names: Sequence[str]) -> Columns:
    """`Store.read_columns`, but raises CandlesMissing if whole days differ from the index."""
    before = store.days(symbol, start, end)
    columns = store.read_columns(symbol, start, end, names)
    after = {day.start: day for day in store.days(symbol, start, end)}
    first, last = -(-start // DAY_MS) * DAY_MS, end // DAY_MS * DAY_MS
    rows = slice(*np.searchsorted(columns["t"], [first, last]).tolist())
    settled = [  # days that were written in between are not compared
        day if after.get(day.start) == day else msgspec.structs.replace(day, digest="")
        for day in {**after, **{day.start: day for day in before}}.values()
        if first <= day.start < last
    ]
    check_read(symbol, {name: column[rows] for name, column in columns.items()}, settled)
    return columns


def check_days(store: Store, symbol: str, days: Sequence[Day]) -> None:
    """Count these days from all columns of their candles. Raises CandlesMissing if they differ from the index."""
    if found := damaged_days(store, symbol, days):
        raise CandlesMissing(difference_text(symbol, found))


def check_complete(store: CandleStore, symbol: str, days: Iterable[Day]) -> None:
    """Raise CandlesMissing for days that have candles and are missing in the index of which `days` are all days.

    A job would run without them, as if they had never been stored.
    """
    starts = np.array(sorted(day.start for day in days), dtype=np.int64)
    unknown = set(store.days_of_candles(symbol, _spans(starts))) - set(starts.tolist())
    if unknown:  # a write adds its days to the index before its first candle
        unknown -= {day.start for day in store.days(symbol)}
    if unknown:
        shown = f"{iso(min(unknown))[:10]} to {iso(max(unknown))[:10]}"
        raise CandlesMissing(
            f"{symbol} has candles on {len(unknown):,} days that its index does not have, {shown}: a part of the index "
            "was lost; `candlemill doctor --repair` counts them again"
        )


def _spans(starts: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the spans (ms) of ascending days, each of which ends where the next day is not among them."""
    if not len(starts):
        return []
    cuts = np.flatnonzero(np.diff(starts) > DAY_MS)
    firsts, lasts = starts[np.append(0, cuts + 1)], starts[np.append(cuts, len(starts) - 1)] + DAY_MS
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))


def difference_text(symbol: str, found: Sequence[Difference]) -> str:
    """Error text: the days that differ and the way out, in one line."""
    shown = ", ".join(
        f"{iso(one.start)[:10]} ({one.stored_rows:,} of {one.indexed_rows:,} rows)"
        if one.stored_rows != one.indexed_rows
        else f"{iso(one.start)[:10]} (other content)"
        for one in found[:DAYS_SHOWN]
    )
    more = f" to {iso(found[-1].start)[:10]}" if len(found) > DAYS_SHOWN else ""
    return (
        f"the stored candles of {symbol} are not those of its index on {len(found):,} days, {shown}{more}: a part was "
        "lost or damaged; `candlemill doctor` shows what, and how to get them back"
    )


def result_problem(index: DayIndex, result: Mapping[str, Any]) -> str:
    """Reason why a stored result is wrong, or an empty text.

    Its number of bars differs from its candles if it was computed while some were missing.
    """
    if "bars" not in result:  # a portfolio, whose parts are results
        return ""
    start, end, bars = int(result["start"]), int(result["end"]), int(result["bars"])
    found = {}
    for symbol in str(result["symbol"]).split(","):
        funding = index.funding(symbol) if result["spec"]["funding"] else None
        found[symbol] = JobData(index.days(symbol), funding, start, end)
    data = PanelData(found, start, end, 1) if len(found) > 1 else found[str(result["symbol"])]
    least, most = data.bars(start, end)
    if least <= bars <= most or data.digest != result["data_digest"]:
        return ""
    return (
        f"the stored result of job {result['job_id']} has {bars:,} bars, its candles have {most:,}: it "
        "was computed while candles were missing; `candlemill doctor --repair` removes it"
    )


def damaged_days(store: Store, symbol: str, days: Iterable[Day] | None = None) -> list[Difference]:
    """Count a symbol's days from all columns of its candles and compare, except days that are being written.

    `days`: days to compare; None: all, also those that the index lacks.
    """
    indexed = list(store.days(symbol) if days is None else days)
    starts = {day.start for day in indexed}
    if days is None and isinstance(store, CandleStore):
        starts |= set(store.days_of_candles(symbol))
    uncounted = {day.start for day in indexed if not day.digest}
    out: list[Difference] = []
    for run in day_runs(sorted(starts - uncounted)):
        columns = store.read_columns(symbol, run[0], run[-1] + DAY_MS, CANDLE_COLUMNS[1:])
        out += differences(columns, [day for day in indexed if run[0] <= day.start <= run[-1]])
    now = {day.start: day for day in store.days(symbol)}  # a write in between explains a difference
    before = {day.start: day for day in indexed}
    return [one for one in out if now.get(one.start) == before.get(one.start)]
