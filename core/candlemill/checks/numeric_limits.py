"""Tests for overflow, speed and memory growth: evidence for warnings and notes."""

import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from candlemill.checks.lookahead import differs
from candlemill.checks.markets import Market, Rng, draw
from candlemill.checks.subject import Broken, Refused, Subject
from candlemill.engine.signals import Desired

SMALL = 20  # prices are tried from 2^20 on,
ROOM = 57  # to the engine's limit, 2^58,
VOLUME_ROOM = 62  # and volumes to theirs
FEW = 8  # doublings without a change: a change after so many is suspicious
SLOW = 12.0  # times as long as a plain Python loop over the same bars on the same machine
QUICK = 2.0  # times as long as that loop
STEEP = 3.0  # times as long for twice the bars, unless quick: caches alone have this effect on fast strategies
LEAK_BYTES = 4 * 1024  # kept by every call
MEASURED_SECONDS = 0.3
MEASURED_BARS = 1 << 17
LOOP_BARS = 1 << 14


def overflow(subject: Subject, market: Market) -> str | None:
    """Return evidence that prices or volumes silently overflow or exceed a float's precision, else None.

    The evidence: decisions stay the same over many doublings of all prices, and then change.
    """
    low = SMALL - int(market.high.max()).bit_length()
    found = _doubled(subject, lambda bits: market.scaled(low + bits), ROOM - SMALL)
    if found:
        return f"the same decisions at every scale of prices, until they pass about 2^{SMALL + found} (scaled)"
    if "volume" not in subject.reads or subject.k > 1:
        return None
    low = SMALL - int(market.volume.max()).bit_length()
    found = _doubled(subject, lambda bits: market.scaled(0, low + bits), VOLUME_ROOM - SMALL)
    return f"the same decisions at every scale of volumes, until they pass about 2^{SMALL + found}" if found else None


def _doubled(subject: Subject, candles: Callable[[int], Market], room: int) -> int:
    """Return the doubling that changes decisions after `FEW` or more without a change; 0 if there is none."""
    before: Desired | None = None
    same = 0
    for bits in range(room + 1):
        try:
            run = subject.run(candles(bits))
        except (Refused, Broken):
            return 0
        if before is not None and differs(run.bars, before, run.desired):
            if same >= FEW:
                return bits
            same = 0
        else:
            same += 1
        before = run.desired
    return 0


class Speed(NamedTuple):
    """Speed of the longest run, over `n` bars, measured in CPU time so that other processes do not count.

    `loops`: its time divided by that of a plain Python loop over as many bars; `steep`: divided by that of half the
    bars.
    """

    n: int
    million_a_second: float
    loops: float
    steep: float


def speed(subject: Subject, rng: Rng) -> Speed:
    n = 2_048
    took = _seconds(subject, draw(rng, "walk", n))
    while took < MEASURED_SECONDS / 8 and n < MEASURED_BARS:
        n *= 4
        took = _seconds(subject, draw(rng, "walk", n))
    market = draw(rng, "walk", 2 * n)
    half, closes = market.crop(0, n), market.close[:LOOP_BARS].tolist()
    loops, doubles, singles = [_loop_seconds(closes)], [], []
    for _ in range(3 if took < MEASURED_SECONDS / 4 else 1):
        doubles.append(_seconds(subject, market))
        singles.append(_seconds(subject, half))
        loops.append(_loop_seconds(closes))
    loop, double, single = (max(min(found), 1e-9) for found in (loops, doubles, singles))
    return Speed(2 * n, 2 * n / double / 1e6, double / (2 * n) / (loop / len(closes)), double / single)


def _seconds(subject: Subject, market: Market) -> float:
    bars = subject.bars(market)
    begun = time.process_time()
    subject.decide(bars, 0, bars.n, b"")
    return time.process_time() - begun


def _loop_seconds(closes: list[int]) -> float:
    """Return the seconds of the reference loop: a moving average, bar by bar."""
    begun = time.process_time()
    level, above = 0, []
    for close in closes:
        level += (close - level) // 16
        above.append(close > level)
    return time.process_time() - begun


def leak(subject: Subject, rng: Rng) -> int:
    """Return the bytes that each further call keeps: the minimum of several calls, each with new candles."""
    candles = [draw(rng, "walk", 1_000 + k, subject.k) for k in range(8)]
    sizes = []
    tracemalloc.start()
    try:
        for one in candles:
            subject.run(one)
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return int(min(np.diff(sizes[2:])))


def memory_sizes(subject: Subject, market: Market) -> list[int]:
    """Return the largest memory in each quarter of the candles, in bytes."""
    bars = subject.bars(market)
    marks = np.linspace(0, bars.n, 33).astype(int).tolist()
    sizes, memory = [], b""
    for lo, hi in pairwise(marks):
        memory = subject.decide(bars, lo, hi, memory).memory
        sizes.append(len(memory))
    return [max(sizes[k : k + 8]) for k in range(0, 32, 8)]


def grows(sizes: list[int]) -> bool:
    """Return whether the memory still grows after the second quarter, by more than a few digits."""
    return sizes[1] < sizes[2] < sizes[3] and sizes[3] > sizes[1] * 1.3 + 16
