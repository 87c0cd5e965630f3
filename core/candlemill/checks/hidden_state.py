"""Tests for hidden state and for valid results: equal calls return equal decisions and change nothing."""

import copy
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import msgspec
import numpy as np

from candlemill.checks.lookahead import Difference, differs, memories
from candlemill.checks.markets import COLUMNS, Market, Rng, draw
from candlemill.checks.report import Change, Counterexample, decision, rows
from candlemill.checks.subject import Broken, Params, Refused, Run, Subject
from candlemill.checks.turns import in_turns
from candlemill.engine.candles import Bars
from candlemill.strategies import Strategy
from candlemill.units import iso

Runs = list[tuple[bytes, bytes]]  # the decisions and the memory for each market


class Answers(msgspec.Struct, frozen=True):
    """Results of a fresh process with another environment, time zone, hash seed and folder.

    `runs` at the present time; how many other `moments` were tried; the first of them, UTC ms, with other decisions,
    and the runs at that time.
    """

    runs: Runs
    moments: int
    moment: int | None = None
    other: Runs = []


class Decider(Protocol):
    """What another process is given of a strategy under test."""

    @property
    def strategy(self) -> Strategy: ...
    @property
    def params(self) -> Params: ...
    @property
    def k(self) -> int: ...


# Decides in a fresh process; returns the reason as text where this is impossible.
Elsewhere = Callable[[Decider, Sequence[Market]], Answers | str]


def _found(
    subject: Subject, market: Market, text: str, difference: Difference, left: str, right: str
) -> Counterexample:
    return Counterexample(
        text=text,
        params=subject.params,
        timeframe=subject.k,
        market=market.label,
        t=difference.t,
        said=[(left, difference.left), (right, difference.right)],
        bars=len(market),
        candles=rows(market),
    )


def unlike(one: Run, two: Run) -> Difference | None:
    return differs(one.bars, one.desired, two.desired) or memories(one, two, one.bars.n - 1)


# -- answers -------------------------------------------------------------------------------------------------------


def odd_candles(subject: Subject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that all candles and ranges of bars gives one decision in -1, 0, 1 for each bar.

    Raises Broken for the fewest candles where it does not.
    """
    back = subject.lookback()
    sizes = sorted({0, 1, 2, 3, max(0, back - 1), back, back + 1, back + 2, len(market)})
    for n in sizes:
        part = market.crop(0, n)
        for kind in ("as drawn", "one price", "one unit", "no volume"):
            candles = _odd(part, kind)
            try:
                bars = subject.bars(candles)
                lo, hi = sorted(rng.integers(0, bars.n + 1, 2).tolist())
                memory = subject.run(candles, lo).memory
                for a, b in ((lo, hi), (lo, bars.n), (lo, lo)):
                    rest = subject.decide(bars, a, b, memory)
                    if a == b and rest.memory != memory:
                        raise Broken(f"called for no bar, decide() changes the memory {memory!r} to {rest.memory!r}")
            except Broken as error:
                raise Broken(f"{error}; {n:,} candles, {kind}") from error.__cause__
            except Refused:
                continue
    return None


def _odd(market: Market, kind: str) -> Market:
    columns = {name: getattr(market, name) for name in COLUMNS}
    if kind == "no volume":
        columns["volume"] = np.zeros_like(market.volume)
    elif kind != "as drawn":
        price = 1 if kind == "one unit" else int(market.close[0]) if len(market) else 1
        columns |= {name: np.full(len(market), price) for name in COLUMNS[1:5]}
    return Market(f"{market.label}, {kind}", *columns.values())


def inputs(subject: Subject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that the strategy does not write to the bars, which the engine and other parameter sets read too."""
    bars = subject.bars(market)
    lo = int(rng.integers(0, bars.n))
    kept = {name: getattr(bars, name).copy() for name in COLUMNS}
    subject.decide(bars, lo, bars.n, subject.run(market, lo).memory)
    for name in COLUMNS:
        now = getattr(bars, name)
        if len(now) != len(kept[name]) or not np.array_equal(now, kept[name]):
            j = int(np.flatnonzero(now != kept[name])[0]) if len(now) == len(kept[name]) else 0
            return Counterexample(
                text=f"decide() writes to bars.{name}: copy it first",
                params=subject.params,
                timeframe=subject.k,
                market=market.label,
                t=int(kept["t"][j]),
                changed=[Change(int(kept["t"][j]), name, int(kept[name][j]), int(now[j]))],
                bars=len(market),
            )
    return None


def columns(subject: Subject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that columns which are not in `reads` change no decision. A stop, for example, adds such columns."""
    every = market.bars(subject.k, COLUMNS)
    full = subject.decide(every, 0, every.n, b"")
    try:
        said = subject.run(market)
    except Broken as error:
        missing = sorted({"high", "low", "volume"} - set(subject.reads))
        raise Broken(f"{error}; without the columns {', '.join(missing)}, which `reads` does not name") from None
    found = unlike(full, said)
    text = "its decisions depend on columns that `reads` does not name: they are empty where nothing else needs them"
    return found and _found(subject, market, text, found, "with all columns", "with those it names")


# -- hidden state --------------------------------------------------------------------------------------------------


def repeated(subject: Subject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that repeated calls give the same decisions: after other calls, in parts, in another order, on a copy."""
    bars = subject.bars(market)
    whole = subject.run(market)
    found = unlike(whole, subject.run(market))
    if found:
        return _found(subject, market, "the same call answers otherwise", found, "first call", "second call")
    other = draw(rng, "jumps", max(2, len(market) - int(rng.integers(0, 3))), subject.k)
    subject.run(other)
    found = unlike(whole, subject.run(market))
    if found:
        return _found(subject, market, "a call for other candles changes what it answers", found, "before", "after")
    parts = [0, *sorted(rng.integers(0, bars.n + 1, 4).tolist()), bars.n]
    memories = [subject.run(market, lo).memory for lo in parts[:-1]]
    ordered = [subject.decide(bars, parts[k], parts[k + 1], memories[k]) for k in range(5)]
    for k in rng.permutation(5).tolist():
        run = subject.decide(bars, parts[k], parts[k + 1], memories[k])
        found = differs(bars, ordered[k].desired, run.desired, parts[k])
        if found:
            text = "its decisions depend on earlier calls"
            return _found(subject, market, text, found, "in order", "out of order")
    twin = Subject(copy.deepcopy(subject.strategy), subject.params, subject.k)
    found = unlike(whole, twin.run(market))
    return found and _found(subject, market, "a copy of the strategy answers otherwise", found, "it", "its copy")


def later(subject: Subject, market: Market, before: Run) -> Counterexample | None:
    """Test that the decisions equal `before`, those at the start of the check."""
    found = unlike(before, subject.run(market))
    return found and _found(subject, market, "the same call answers otherwise some time later", found, "then", "now")


def threads(subject: Subject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that two concurrent threads, each with its own series of candles, get the same decisions as alone."""
    candles = [market, draw(rng, "walk", len(market), subject.k)]
    alone = [subject.run(one) for one in candles]
    together: list[Run] = []
    file = getattr(sys.modules.get(type(subject.strategy).__module__), "__file__", None)
    if file:
        together += in_turns(file, lambda: subject.run(candles[0]), lambda: subject.run(candles[1]))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            together += pool.map(subject.run, candles * 6)
    finally:
        sys.setswitchinterval(interval)
    for k, run in enumerate(together):
        found = unlike(alone[k % 2], run)
        if found:
            text = "two threads disturb each other: something is shared between calls"
            return _found(subject, candles[k % 2], text, found, "alone", "beside another thread")
    return None


def other_process(subject: Subject, markets: Sequence[Market], answers: Answers) -> Counterexample | None:
    """Test that a fresh process makes the same decisions, also when its clock shows another time.

    The clock comes first: this process decided at another second than the fresh one, so it explains both differences.
    """
    if answers.moment is not None:
        text, at = "its decisions depend on the time at which they are computed", f"at {iso(answers.moment)}"
        for market, now, then in zip(markets, answers.runs, answers.other, strict=True):
            bars = subject.bars(market)
            found = unlike(_run(bars, now), _run(bars, then))
            if found:
                return _found(subject, market, text, found, "now", at)
    text = "a fresh process, with another environment, time zone, hash seed and folder, decides otherwise"
    for market, there in zip(markets, answers.runs, strict=True):
        here = subject.run(market)
        found = unlike(here, _run(here.bars, there))
        if found:
            return _found(subject, market, text, found, "here", "in a fresh process")
    return None


def _run(bars: Bars, said: tuple[bytes, bytes]) -> Run:
    return Run(bars, 0, np.frombuffer(said[0], np.int8), said[1])


def beginning(subject: Subject, market: Market) -> str:
    """Return a note on the decisions at the start of a job. This is information, not a fault."""
    run = subject.run(market)
    first = np.flatnonzero(run.desired)
    back = subject.lookback()
    if first[0] + 1 >= back:
        return f"first decision other than 0 at bar {first[0] + 1:,} of a job (lookback {back:,})"
    return (
        f"decides {decision(int(run.desired[first[0]]))} at bar {first[0] + 1:,} of a job, before it has its "
        f"lookback of {back:,}: sure that this is meant?"
    )
