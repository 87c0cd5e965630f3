"""Tests for look-ahead and for the declared lookback: candles that a decision must not use are removed or changed.

Each test makes one trial on one market, and shrinks its counterexample.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec
import numpy as np

from candlemill.checks.markets import COLUMNS, FUTURES, Market, Rng, other_future
from candlemill.checks.report import Change, Counterexample, decision, rows
from candlemill.checks.subject import Broken, Refused, Run, Subject
from candlemill.engine.candles import DAY_MS, MINUTE_MS, Bars, Column
from candlemill.engine.signals import Desired

POSITIONS = 6  # minutes tested in one trial
RESTORED = 64  # candles that shrinking tries to restore one by one


class Difference(NamedTuple):
    """Decision bar `j` of the longer run, and the decisions of both runs at it."""

    j: int
    t: int
    left: str
    right: str


class Unsteady(Exception):
    """A difference cannot be reproduced, because the strategy has hidden state."""


def again(found: Difference | None) -> Difference:
    if found is None:
        raise Unsteady
    return found


def differs(bars: Bars, left: Desired, right: Desired, first: int = 0, last: bool = False) -> Difference | None:
    """Return the first (or the last) bar from `first` on where both runs have a decision and the decisions differ."""
    n = min(len(left), len(right))
    wrong = np.flatnonzero(left[:n] != right[:n])
    if not len(wrong):
        return None
    k = int(wrong[-1 if last else 0])
    return Difference(first + k, int(bars.t[first + k]), decision(int(left[k])), decision(int(right[k])))


def memories(left: Run, right: Run, j: int) -> Difference | None:
    if left.memory == right.memory:
        return None
    t = int(left.bars.t[j]) if j < left.bars.n else 0
    return Difference(j, t, f"memory {_short(left.memory)}", f"memory {_short(right.memory)}")


def _short(memory: bytes) -> str:
    return repr(memory if len(memory) <= 60 else memory[:57] + b"...")


def decided(bars: Bars, i: int) -> int:
    """Return the number of decision bars that end with or before minute `i`."""
    return i + 1 if bars.last is None else int(np.searchsorted(bars.last, i, side="right"))


def minute_of(bars: Bars, j: int) -> int:
    """Return the last minute of decision bar `j`; -1 before the first bar."""
    return j if bars.last is None or j < 0 else int(bars.last[j])


def positions(rng: Rng, market: Market, count: int) -> list[int]:
    """Choose minutes, except the last: random ones, before gaps, at the ends of days, and some of the first."""
    n = len(market) - 1
    gaps = np.flatnonzero(np.diff(market.t) != MINUTE_MS)
    days = np.flatnonzero(np.diff(market.t // DAY_MS))
    found = []
    for places in (gaps, days, np.arange(min(n, 200))):
        if len(places):
            found.append(int(rng.choice(places)))
    return [*found, *rng.integers(0, n, max(1, count - len(found))).tolist()]


def smallest(fails: Callable[[int], object], limit: int) -> int:
    """Return a small `m` in 1..`limit` with `fails(m)`, which is true for `limit`: by doubling, then bisection."""
    m = 1
    while m < limit and not _holds(fails, m):
        m *= 2
    low, high = m // 2, min(m, limit)
    while high - low > 1:
        middle = (low + high) // 2
        if _holds(fails, middle):
            high = middle
        else:
            low = middle
    return high


def _holds(fails: Callable[[int], object], m: int) -> bool:
    """Return whether `fails(m)`. A strategy that raises on few candles is not a smaller case of the same fault."""
    try:
        return fails(m) is not None
    except (Broken, Refused):
        return False


# -- the future cut off --------------------------------------------------------------------------------------------


def future_cut(subject: Subject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that the decisions up to a minute are the same whether the candles continue after it or end there."""
    whole = subject.run(market)
    for i in positions(rng, market, POSITIONS):
        if _unlike_cut(subject, whole, market, i):
            return _smallest_cut(subject, market, i)
    return None


def _cut(subject: Subject, market: Market, i: int) -> Difference | None:
    return _unlike_cut(subject, subject.run(market), market, i)


def _unlike_cut(subject: Subject, whole: Run, market: Market, i: int) -> Difference | None:
    n = decided(whole.bars, i)
    ended = subject.run(market.crop(0, i + 1))
    found = differs(whole.bars, whole.desired[:n], ended.desired, last=True)
    if found:
        return found
    shorter = subject.run(market, n)  # `bars` also contains bars after `hi`
    found = differs(whole.bars, shorter.desired, ended.desired, last=True)
    return found or (memories(shorter, ended, n - 1) if n and n == ended.bars.n else None)


def _smallest_cut(subject: Subject, market: Market, i: int) -> Counterexample:
    def fails(a: int, i: int, b: int) -> Difference | None:
        return _cut(subject, market.crop(a, b), i - a)

    a, i, b = _cropped(subject, market, i, fails)
    found = again(fails(a, i, b))
    after = b - i - 1
    seen = f"with the {after:,} candles after it" if after > 1 else "with the candle after it"
    return Counterexample(
        text="what is decided at a bar changes when the candles after it are cut off",
        params=subject.params,
        timeframe=subject.k,
        market=market.label,
        t=found.t,
        said=[(seen, found.left), ("with candles that end there", found.right)],
        bars=b - a,
        candles=rows(market.crop(a, b)),
    )


def _cropped(
    subject: Subject, market: Market, i: int, fails: Callable[[int, int, int], Difference | None]
) -> tuple[int, int, int]:
    """Shrink to candles `a` to `b - 1` around minute `i` that still fail: first those after it, then those before."""
    n = len(market)
    found = fails(0, i, n)
    if found:
        earlier = minute_of(subject.bars(market), found.j)
        if earlier < i and _holds(lambda _: fails(0, earlier, n), 0):
            i = earlier
    after = smallest(lambda m: fails(0, i, i + 1 + m), n - i - 1)
    before = smallest(lambda m: fails(i + 1 - m, i, i + 1 + after), i + 1)
    return i + 1 - before, i, i + 1 + after


# -- the future altered --------------------------------------------------------------------------------------------


def future_altered(subject: Subject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that the decisions up to a minute do not depend on the candles after it."""
    whole = subject.run(market)
    for i in positions(rng, market, 3):
        shorter = subject.run(market, decided(whole.bars, i))
        for kind in rng.choice(FUTURES, 2, replace=False).tolist():
            other = other_future(rng, market, i, kind)
            with suppress(Refused):
                if _unlike_with(subject, whole, shorter, other):
                    return _smallest_altered(subject, market, other, i)
    return None


def _altered(subject: Subject, market: Market, other: Market, i: int) -> Difference | None:
    whole = subject.run(market)
    return _unlike_with(subject, whole, subject.run(market, decided(whole.bars, i)), other)


def _unlike_with(subject: Subject, whole: Run, shorter: Run, other: Market) -> Difference | None:
    """Compare the runs with the future of `other`.

    `whole` is the run with another future than `other`; `shorter` is the run with that future for the common bars only.
    """
    n = len(shorter.desired)
    found = differs(whole.bars, whole.desired[:n], subject.run(other).desired[:n], last=True)
    if found:
        return found
    answered = subject.run(other, n)
    found = differs(whole.bars, shorter.desired, answered.desired, last=True)
    return found or (memories(shorter, answered, n - 1) if n else None)


def _smallest_altered(subject: Subject, market: Market, other: Market, i: int) -> Counterexample:
    def fails(a: int, i: int, b: int) -> Difference | None:
        return _altered(subject, market.crop(a, b), other.crop(a, b), i - a)

    i = max([i, *(_changed_rows(market, other)[:1] - 1).tolist()])
    a, i, b = _cropped(subject, market, i, fails)
    kept, changed = market.crop(a, b), other.crop(a, b)
    changed = _restored(subject, kept, changed, i - a)
    found = again(_altered(subject, kept, changed, i - a))
    return Counterexample(
        text="what is decided at a bar changes when candles after it are rewritten",
        params=subject.params,
        timeframe=subject.k,
        market=other.label,
        t=found.t,
        said=[("with the candles as they are", found.left), ("with other candles after it", found.right)],
        changed=_changes(kept, changed),
        bars=b - a,
        candles=rows(kept),
    )


def _changed_rows(market: Market, other: Market) -> Column:
    n = min(len(market), len(other))
    return np.flatnonzero(np.any([getattr(market, name)[:n] != getattr(other, name)[:n] for name in COLUMNS], axis=0))


def _restored(subject: Subject, market: Market, other: Market, i: int) -> Market:
    """Restore in `other` as many values of `market` as possible while the decisions still differ.

    Whole columns are tried first, then single candles.
    """
    if len(market) != len(other):
        return other

    def tried(name: str, rows: Column | slice) -> Market:
        column = getattr(other, name).copy()
        column[rows] = getattr(market, name)[rows]
        less = msgspec.structs.replace(other, **{name: column})
        return less if _holds(lambda _: _altered(subject, market, less, i), 0) else other

    for name in reversed(COLUMNS):
        other = tried(name, slice(None))
    for row in _changed_rows(market, other)[:RESTORED]:
        for name in COLUMNS:
            other = tried(name, np.array([row]))
    return other


def _changes(market: Market, other: Market) -> list[Change]:
    if len(market) != len(other):
        return []
    out = []
    for row in _changed_rows(market, other).tolist():
        for name in COLUMNS:
            before, after = int(getattr(market, name)[row]), int(getattr(other, name)[row])
            if before != after:
                out.append(Change(int(market.t[row]), name, before, after))
    return out[:RESTORED]


# -- the past: lookback and memory ---------------------------------------------------------------------------------


def lookback(subject: Subject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that `lookback()` bars before a bar give the same decision as all bars before it."""
    n, back = subject.bars(market).n, subject.lookback()
    if n <= back + 1:
        return None
    for lo in rng.integers(back + 1, n, POSITIONS).tolist():
        if _short_past(subject, market, lo):
            return _smallest_past(subject, market, lo)
    return None


def _short_past(subject: Subject, market: Market, lo: int) -> Difference | None:
    """Compare the whole past with only `lookback()` bars before decision bar `lo`, with the same memory."""
    bars = subject.bars(market)
    begin = minute_of(bars, lo - subject.lookback() - 1) + 1
    if subject.strategy.stateful:
        memory = subject.decide(bars, 0, lo, b"").memory
        whole = subject.decide(bars, lo, bars.n, memory)
    else:
        memory, whole = b"", subject.decide(bars, 0, bars.n, b"")
    part = subject.bars(market.crop(begin, len(market)))
    short = subject.decide(part, part.n - (bars.n - lo), part.n, memory)
    found = differs(bars, whole.desired[-len(short.desired) :], short.desired, lo)
    return found or memories(whole, short, bars.n - 1)


def _smallest_past(subject: Subject, market: Market, lo: int) -> Counterexample:
    bars, back = subject.bars(market), subject.lookback()
    found = again(_short_past(subject, market, lo))
    end, j = minute_of(bars, found.j) + 1, found.j
    if j > lo and _holds(lambda _: _short_past(subject, market.crop(0, end), j), 0):
        lo = j
    market = market.crop(0, end) if _holds(lambda _: _short_past(subject, market.crop(0, end), lo), 0) else market

    def fails(more: int) -> Difference | None:
        a = minute_of(bars, lo - back - more - 1) + 1
        return _short_past(subject, market.crop(a, len(market)), back + more)

    more = smallest(fails, lo - back)
    found = again(fails(more))
    candles = market.crop(minute_of(bars, lo - back - more - 1) + 1, len(market))
    return Counterexample(
        text=f"a decision depends on more than the {back:,} bars before it that lookback() tells",
        params=subject.params,
        timeframe=subject.k,
        market=market.label,
        t=found.t,
        said=[(f"with {back + more:,} bars before it", found.left), (f"with {back:,} bars before it", found.right)],
        bars=len(candles),
        candles=rows(candles),
    )


def resumed(subject: Subject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that stopping at a bar and resuming from it, with the memory if any, gives the uninterrupted decisions."""
    n = subject.bars(market).n
    for b in [0, n, *rng.integers(0, n + 1, POSITIONS - 2).tolist()]:
        if _going_on(subject, market, b):
            return _smallest_stop(subject, market, b)
    return None


def _going_on(subject: Subject, market: Market, b: int) -> Difference | None:
    whole = subject.run(market)
    if not subject.strategy.stateful and whole.memory:
        return Difference(whole.bars.n - 1, int(whole.bars.t[-1]), f"memory {_short(whole.memory)}", "no memory")
    first = subject.decide(whole.bars, 0, b, b"")
    rest = subject.decide(whole.bars, b, whole.bars.n, first.memory)
    found = differs(whole.bars, whole.desired, np.concatenate((first.desired, rest.desired)))
    return found or memories(whole, rest, whole.bars.n - 1)


def _smallest_stop(subject: Subject, market: Market, b: int) -> Counterexample:
    bars = subject.bars(market)
    found = again(_going_on(subject, market, b))
    for stop in (found.j, b):
        cropped = market.crop(0, minute_of(bars, max(found.j, stop)) + 1)
        if _holds(lambda _, stop=stop, cropped=cropped: _going_on(subject, cropped, stop), 0):  # type: ignore[misc]
            market, b = cropped, stop
            break
    n = subject.bars(market).n

    def fails(more: int) -> Difference | None:
        return _going_on(subject, market.crop(minute_of(bars, b - more - 1) + 1, len(market)), more)

    more = smallest(fails, b) if b else 0
    found = again(fails(more))
    text = "memory after a stop is not the memory without it: one state, one way to write it"
    if not subject.strategy.stateful:
        text = "called for two parts, it decides otherwise than for the whole"
        text = "it returns a memory, but is not stateful" if "memory" in found.left else text
    elif not found.left.startswith("memory"):
        back = subject.lookback()
        text = f"decisions after a stop differ: the memory and {back:,} bars (lookback) are not all they depend on"
    candles = market.crop(minute_of(bars, b - more - 1) + 1, len(market))
    return Counterexample(
        text=text,
        params=subject.params,
        timeframe=subject.k,
        market=market.label,
        t=found.t,
        said=[("in one go", found.left), (f"stopped {n - b:,} bars before the end", found.right)],
        bars=len(candles),
        candles=rows(candles),
    )
