"""Hidden state and the shape of answers: the same call, made otherwise, answers the same and leaves no trace."""

import copy
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from candlemill.checks.future import Difference, differs, memories
from candlemill.checks.market import COLUMNS, Market, Rng, draw
from candlemill.checks.report import Change, Counterexample, decision, rows
from candlemill.checks.subject import Broken, Refused, Run, Subject

# Decides in another process, where the clock, the environment, the hashes and the folder are others: the decisions
# and the memory for each market, or None where that process cannot find the strategy.
Elsewhere = Callable[[Subject, Sequence[Market]], "list[tuple[bytes, bytes]] | None"]


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


def odd_tapes(subject: Subject, market: Market, rng: Rng) -> Counterexample | None:
    """Every tape and stretch has an answer: one decision in -1, 0, 1 for each bar. Raises Broken for the shortest
    tape that has none."""
    back = subject.lookback()
    sizes = sorted({0, 1, 2, 3, max(0, back - 1), back, back + 1, back + 2, len(market)})
    for n in sizes:
        part = market.crop(0, n)
        for kind in ("as drawn", "one price", "one unit", "no volume"):
            tape = _odd(part, kind)
            try:
                bars = subject.bars(tape)
                lo, hi = sorted(rng.integers(0, bars.n + 1, 2).tolist())
                memory = subject.run(tape, lo).memory
                for a, b in ((lo, hi), (lo, bars.n), (lo, lo)):
                    rest = subject.decide(bars, a, b, memory)
                    if a == b and rest.memory != memory:
                        raise Broken(f"asked for no bar, decide() changes the memory {memory!r} to {rest.memory!r}")
            except Broken as error:
                raise Broken(f"{error}; tape of {n:,} candles, {kind}") from error.__cause__
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
    """The bars are not written to: the engine fills at the same prices, and the next set reads them too."""
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
    """Columns that the strategy does not say it reads may be there (a stop needs them) or not: no decision changes."""
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
    """Again, after other work, in parts and out of order, on a copy: the same decisions."""
    bars = subject.bars(market)
    whole = subject.run(market)
    found = unlike(whole, subject.run(market))
    if found:
        return _found(subject, market, "the same call answers otherwise", found, "first call", "second call")
    other = draw(rng, "jumps", max(2, len(market) - int(rng.integers(0, 3))), subject.k)
    subject.run(other)
    found = unlike(whole, subject.run(market))
    if found:
        return _found(subject, market, "a call for another tape changes what it answers", found, "before", "after")
    parts = [0, *sorted(rng.integers(0, bars.n + 1, 4).tolist()), bars.n]
    memories = [subject.run(market, lo).memory for lo in parts[:-1]]
    ordered = [subject.decide(bars, parts[k], parts[k + 1], memories[k]) for k in range(5)]
    for k in rng.permutation(5).tolist():
        run = subject.decide(bars, parts[k], parts[k + 1], memories[k])
        found = differs(bars, ordered[k].desired, run.desired, parts[k])
        if found:
            text = "what it answers depends on what it was asked before"
            return _found(subject, market, text, found, "in order", "out of order")
    twin = Subject(copy.deepcopy(subject.strategy), subject.params, subject.k)
    found = unlike(whole, twin.run(market))
    return found and _found(subject, market, "a copy of the strategy answers otherwise", found, "it", "its copy")


def later(subject: Subject, market: Market, before: Run) -> Counterexample | None:
    """What was decided when the check began."""
    found = unlike(before, subject.run(market))
    return found and _found(subject, market, "the same call answers otherwise some time later", found, "then", "now")


def threads(subject: Subject, market: Market, rng: Rng) -> Counterexample | None:
    """Two threads at once, each with a tape of its own: what each gets alone."""
    tapes = [market, draw(rng, "walk", len(market), subject.k)]
    alone = [subject.run(tape) for tape in tapes]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(subject.run, tapes * 12))
    finally:
        sys.setswitchinterval(interval)
    for k, run in enumerate(together):
        found = unlike(alone[k % 2], run)
        if found:
            text = "two threads disturb each other: something is shared between calls"
            return _found(subject, tapes[k % 2], text, found, "alone", "beside another thread")
    return None


def other_process(subject: Subject, markets: Sequence[Market], elsewhere: Elsewhere) -> Counterexample | str | None:
    """The same decisions in a fresh process; a text where that cannot be tried."""
    here = [subject.run(market) for market in markets]
    there = elsewhere(subject, markets)
    if there is None:
        return "a fresh process cannot find this class: put it into a file"
    for market, run, (desired, memory) in zip(markets, here, there, strict=True):
        answer = Run(run.bars, 0, np.frombuffer(desired, dtype=np.int8), memory)
        found = unlike(run, answer)
        if found:
            text = "a fresh process, with another clock, environment, hash seed and folder, decides otherwise"
            return _found(subject, market, text, found, "here", "in a fresh process")
    return None


def beginning(subject: Subject, market: Market) -> str:
    """What it says at the start of a job: no fault, but worth knowing."""
    run = subject.run(market)
    first = np.flatnonzero(run.desired)
    back = subject.lookback()
    if first[0] + 1 >= back:
        return f"first decision other than 0 at bar {first[0] + 1:,} of a job (lookback {back:,})"
    return (
        f"decides {decision(int(run.desired[first[0]]))} at bar {first[0] + 1:,} of a job, before it has its "
        f"lookback of {back:,}: sure that this is meant?"
    )
