"""Tapes of decided fills: what settling and marking an account of one symbol needs of a slice, without its candles."""

import base64
import threading
from collections import OrderedDict
from typing import Final

import numpy as np

from candlemill.backtests.gaps import gap_bars
from candlemill.engine.candles import CandleColumns, Column
from candlemill.engine.fills import BOTH, SIGNAL, TAKE, Fills
from candlemill.engine.mark import outlines
from candlemill.engine.position import ExecutionRules
from candlemill.engine.tape import AMBIGUOUS, AT_ITS_CLOSE, TAKEN, Tape, tape_from

KEPT_BYTES: Final = 64 << 20  # of tapes in memory: some ten years of a busy strategy take 15 MB


def tape_of(candles: CandleColumns, rules: ExecutionRules, log: Fills, side: int, lo: int, hi: int) -> Tape:
    """Return the tape of bars `lo` to `hi - 1`, which begin with a position of `side`."""
    columns, found = candles.columns(), log.columns()
    before = int(columns["close"][lo - 1]) if lo else 0
    if lo >= hi:
        return Tape(0, side, before, rules.slippage, {})
    bars, reason, after = found["bar"], found["reason"], found["side"]
    code = np.where((reason == SIGNAL) & bool(rules.at_close), AT_ITS_CLOSE, 0)
    code += np.where(reason == TAKE, TAKEN, 0) + np.where(reason == BOTH, AMBIGUOUS, 0)
    funding = (columns["funding_bars"] >= lo) & (columns["funding_bars"] < hi)
    due, rates = columns["funding_bars"][funding], columns["funding_rates"][funding]
    ends = columns["day_ends"]
    edges = np.concatenate([[lo], bars, ends[(ends >= lo) & (ends < hi - 1)] + 1, due])
    begins = _distinct(np.sort(edges, kind="stable"))
    stops = np.append(begins[1:], hi)
    sides = _before(bars, after, begins, side, "right")
    held = np.flatnonzero(sides)
    pieces = {"begin": begins - lo, "minute": columns["t"][begins], "last": columns["close"][stops - 1]}
    shape = outlines(candles, begins[held], stops[held], sides[held])
    pieces |= dict(zip(("top", "bottom", "fall"), shape, strict=True))
    if len(due):
        pieces["funded"] = np.isin(begins, due).astype(np.int64)
        pieces["rate"] = np.zeros_like(begins)
        pieces["rate"][pieces["funded"] == 1] = rates
    gaps = gap_bars(candles, lo, hi)
    gaps = gaps[_before(bars, after, gaps, side, "left") != 0]
    over = {"gap": gaps - lo, "gap_close": columns["close"][gaps - 1], "gap_open": columns["open"][gaps]}
    fills = {"bar": bars - lo, "side": after, "code": code, "raw": found["raw"], "price": found["price"]}
    return Tape(hi - lo, side, before, rules.slippage, fills | pieces | over)


def _distinct(values: Column) -> Column:
    """Return ascending values, each once; `np.unique` does not know that they are in order."""
    return values[np.flatnonzero(np.diff(values, prepend=values[:1] - 1))]


def _before(bars: Column, after: Column, at: Column, side: int, which: str) -> Column:
    """Return the position at each of bars `at`: with the fills of the bar itself, or (`left`) without."""
    found: Column = np.append(side, after)[np.searchsorted(bars, at, side=which)]  # type: ignore[call-overload]
    return found


def packed(tape: Tape) -> str:
    """Return a tape as text."""
    return base64.b64encode(tape.to_bytes()).decode()


def unpacked(text: str) -> Tape:
    """Return the tape of a text that `packed` has made."""
    return tape_from(base64.b64decode(text))


class TapeCache:
    """Bounded thread-safe LRU cache of tapes: a job is settled again and again with other money."""

    def __init__(self, limit: int = KEPT_BYTES) -> None:
        self._limit = limit
        self._bytes = 0
        self._tapes: OrderedDict[str, tuple[Tape, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, text: str) -> Tape:
        """Return the tape of a text that `packed` has made. It is shared, so it must not be changed."""
        with self._lock:
            if text in self._tapes:
                self._tapes.move_to_end(text)
                return self._tapes[text][0]
        tape = unpacked(text)
        size = len(text) + sum(column.nbytes for column in tape.columns().values())
        with self._lock:
            if text not in self._tapes:
                self._tapes[text] = tape, size
                self._bytes += size
            while self._bytes > self._limit:
                _, (_, size) = self._tapes.popitem(last=False)
                self._bytes -= size
        return tape


TAPES: Final = TapeCache()
