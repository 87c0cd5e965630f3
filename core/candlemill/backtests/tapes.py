"""Tapes of decided fills: what settling and marking an account of one symbol needs of a slice, without its candles.

Fills and their prices do not depend on money. So slices are decided apart from each other, and the account is settled
from their tapes, in order: another capital, fee or step costs the settling alone. Between two fills the equity follows
the close, so of each such piece of a day its highest and lowest close, its deepest fall and its last close tell all
marks.
"""

import base64
import zlib

import msgspec
import numpy as np

from candlemill.backtests.account import Columns
from candlemill.backtests.gaps import gap_bars
from candlemill.backtests.single import fills_of
from candlemill.engine.candles import MINUTE_MS, CandleColumns, Column
from candlemill.engine.fills import BOTH, Fills
from candlemill.engine.mark import outlines
from candlemill.engine.position import ExecutionRules

FILL = ("bar", "minute", "stage", "what", "before", "after", "price", "raw", "made", "made_price", "both")
PIECE = ("bar", "minute", "side", "top", "bottom", "fall", "last", "rate", "funded")
GAP = ("bar", "before", "open")
FILLS_KEPT = ("bar", "skew", "made", "made_price", "raw", "price", "stage", "what", "before", "after", "both")
PIECES_KEPT = ("bar", "skew", "last", "top", "bottom", "fall", "side", "rate", "funded")
_BYTES = 8


class Tape(msgspec.Struct, frozen=True):
    """Tape of a slice of `bars` bars, by bar numbers from its first on.

    `fills` has its fills as in a FillTape, `both` is 1 where a bar touched stop and target. `pieces` are stretches of
    bars with one position on one day: their first bar, the position, the extremes of their closes, and the funding rate
    that is due before them (`funded` is 1 where there is one). `gaps` are those over which a position was held.
    """

    bars: int
    fills: Columns
    pieces: Columns
    gaps: Columns


def tape_of(candles: CandleColumns, rules: ExecutionRules, log: Fills, side: int, lo: int, hi: int) -> Tape:
    """Return the tape of bars `lo` to `hi - 1`, which begin with a position of `side`."""
    columns, found = candles.columns(), log.columns()
    if lo >= hi:
        none = np.empty(0, dtype=np.int64)
        return Tape(0, dict.fromkeys(FILL, none), dict.fromkeys(PIECE, none), dict.fromkeys(GAP, none))
    fills = fills_of(candles, rules, log, side)
    funding = (columns["funding_bars"] >= lo) & (columns["funding_bars"] < hi)
    funded, rates = columns["funding_bars"][funding], columns["funding_rates"][funding]
    ends = columns["day_ends"]
    edges = np.concatenate([[lo], fills["bar"], ends[(ends >= lo) & (ends < hi - 1)] + 1, funded])
    begins = distinct(np.sort(edges, kind="stable"))
    stops = np.append(begins[1:], hi)
    last = np.searchsorted(fills["bar"], begins, side="right") - 1
    sides = np.where(last < 0, side, np.append(found["side"], 0)[last])
    held = np.flatnonzero(sides)
    closes = columns["close"][stops - 1]
    shape = [closes.copy(), closes.copy(), np.zeros_like(closes)]
    for column, values in zip(shape, outlines(candles, begins[held], stops[held], sides[held]), strict=True):
        column[held] = values
    rate, due = np.zeros_like(begins), np.isin(begins, funded)
    rate[due] = rates
    gaps = gap_bars(candles, lo, hi)
    earlier = np.searchsorted(fills["bar"], gaps) - 1
    gaps = gaps[np.where(earlier < 0, side, np.append(found["side"], 0)[earlier]) != 0]
    fills |= {"bar": fills["bar"] - lo, "both": (found["reason"] == BOTH).astype(np.int64)}
    pieces = (begins - lo, columns["t"][begins], sides, *shape, closes, rate, due.astype(np.int64))
    over = (gaps - lo, columns["close"][gaps - 1], columns["open"][gaps])
    return Tape(
        hi - lo,
        {name: fills[name] for name in FILL},
        dict(zip(PIECE, pieces, strict=True)),
        dict(zip(GAP, over, strict=True)),
    )


# -- bytes -----------------------------------------------------------------------------------------------------------


def packed(tape: Tape) -> str:
    """Return a tape as text: each column relative to what it is close to, in as few bytes as it needs, compressed."""
    parts = [np.array([tape.bars], dtype="<i8").tobytes()]
    parts += [_column(column) for columns in _relative(tape) for column in columns.values()]
    return base64.b64encode(zlib.compress(b"".join(parts), 3)).decode()


def _relative(tape: Tape) -> tuple[Columns, Columns, Columns]:
    """Return columns of small numbers, from which `_absolute` makes the tape again.

    A fill comes near the close before it, which ends the piece before it; a piece begins at each bar with a fill.
    """
    fills, pieces = tape.fills, tape.pieces
    bars, begins, last = fills["bar"], pieces["bar"], pieces["last"]
    near = _last_before(begins, last, bars)
    high, low = _reach(last)
    return (
        {
            "bar": _steps(bars),
            "skew": _steps(fills["minute"] // MINUTE_MS - bars),
            "made": (fills["minute"] - fills["made"]) // MINUTE_MS,
            "made_price": fills["made_price"] - near,
            "raw": fills["raw"] - fills["made_price"],
            "price": fills["price"] - fills["raw"],
            **{name: fills[name] for name in ("stage", "what", "before", "after", "both")},
        },
        {
            "bar": _steps(begins[~np.isin(begins, bars)]),
            "skew": _steps(pieces["minute"] // MINUTE_MS - begins),
            "last": _steps(last),
            "top": pieces["top"] - high,
            "bottom": pieces["bottom"] - low,
            "fall": pieces["top"] - pieces["bottom"] - pieces["fall"],
            **{name: pieces[name] for name in ("side", "rate", "funded")},
        },
        tape.gaps,
    )


def _absolute(bars: int, fills: Columns, pieces: Columns, gaps: Columns) -> Tape:
    at = np.cumsum(fills["bar"])
    begins = distinct(np.sort(np.append(at, np.cumsum(pieces["bar"])), kind="stable"))
    last = np.cumsum(pieces["last"])
    high, low = _reach(last)
    top, bottom = pieces["top"] + high, pieces["bottom"] + low
    minute = (np.cumsum(fills["skew"]) + at) * MINUTE_MS
    made_price = fills["made_price"] + _last_before(begins, last, at)
    raw = fills["raw"] + made_price
    given: Columns = {"bar": at, "minute": minute, "made": minute - fills["made"] * MINUTE_MS, "made_price": made_price}
    given |= {"raw": raw, "price": fills["price"] + raw}
    found: Columns = {"bar": begins, "minute": (np.cumsum(pieces["skew"]) + begins) * MINUTE_MS, "last": last}
    found |= {"top": top, "bottom": bottom, "fall": top - bottom - pieces["fall"]}
    return Tape(
        bars,
        {name: (fills | given)[name] for name in FILL},
        {name: (pieces | found)[name] for name in PIECE},
        gaps,
    )


def distinct(values: Column) -> Column:
    """Return ascending values, each once; `np.unique` does not know that they are in order."""
    return values[np.flatnonzero(np.diff(values, prepend=values[:1] - 1))]


def _steps(values: Column) -> Column:
    found: Column = np.diff(values, prepend=0)
    return found


def _last_before(begins: Column, last: Column, bars: Column) -> Column:
    """Return the last close of the piece before each bar, of the first piece its own."""
    if not len(begins):
        return begins
    return last[np.maximum(np.searchsorted(begins, bars) - 1, 0)]


def _reach(last: Column) -> tuple[Column, Column]:
    """Return the higher and the lower of each piece's last close and that of the piece before."""
    before = np.append(last[:1], last[:-1])
    return np.maximum(last, before), np.minimum(last, before)


def _column(values: Column) -> bytes:
    """Return a column divided by its common divisor, byte plane by byte plane."""
    unit = (int(np.gcd.reduce(values)) if len(values) else 1) or 1
    small = values // unit
    folded = np.where(small < 0, -2 * small - 1, 2 * small).astype("<u8")
    width = (int(folded.max()).bit_length() + 7) // 8 if len(folded) else 0
    planes = folded.view(np.uint8).reshape(len(folded), _BYTES)[:, :width].T
    return np.array([len(values), unit, width], dtype="<i8").tobytes() + np.ascontiguousarray(planes).tobytes()


def unpacked(text: str) -> Tape:
    """Return the tape of a text that `packed` has made."""
    data = zlib.decompress(base64.b64decode(text))
    bars, at = int(np.frombuffer(data, "<i8", 1)[0]), _BYTES
    found: list[Columns] = []
    for names in (FILLS_KEPT, PIECES_KEPT, GAP):
        columns: Columns = {}
        for name in names:
            columns[name], at = _values(data, at)
        found.append(columns)
    return _absolute(bars, *found)


def _values(data: bytes, at: int) -> tuple[Column, int]:
    n, unit, width = np.frombuffer(data, "<i8", 3, at).tolist()
    at += 3 * _BYTES
    folded = np.zeros((n, _BYTES), dtype=np.uint8)
    folded[:, :width] = np.frombuffer(data, np.uint8, n * width, at).reshape(width, n).T
    numbers = folded.view("<u8").reshape(n)
    small = (numbers >> np.uint64(1)).astype(np.int64) ^ -(numbers & np.uint64(1)).astype(np.int64)
    return small * unit, at + n * width
