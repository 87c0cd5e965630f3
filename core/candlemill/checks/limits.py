"""Numbers near their limits, speed and memory: evidence for warnings and notes."""

import time
import tracemalloc
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from candlemill.checks.future import differs
from candlemill.checks.market import Market, Rng, draw
from candlemill.checks.subject import Broken, Refused, Subject
from candlemill.engine.signals import Desired

SMALL = 20  # prices are tried from 2^20 on,
ROOM = 57  # to the engine's limit, 2^58,
VOLUME_ROOM = 62  # and volumes to theirs
FEW = 8  # doublings that change nothing: a later one that does is suspicious
SLOW = 1.0  # million bars a second; a year of minutes takes half a second then
QUICK = 5.0  # million bars a second
STEEP = 3.0  # times as long for twice the bars, where that is slow already: caches do as much to the fast
LEAK_BYTES = 4 * 1024  # kept per call, call after call
MEASURED_SECONDS = 0.3
MEASURED_BARS = 1 << 17


def overflow(subject: Subject, market: Market) -> str | None:
    """Evidence that prices or volumes wrap, or leave a float's precision, silently: decisions do not change over
    many doublings of all prices, and then they do."""
    low = SMALL - int(market.high.max()).bit_length()
    found = _doubled(subject, lambda bits: market.scaled(low + bits), ROOM - SMALL)
    if found:
        return f"the same decisions at every scale of prices, until they pass about 2^{SMALL + found} (scaled)"
    if "volume" not in subject.reads or subject.k > 1:
        return None
    low = SMALL - int(market.volume.max()).bit_length()
    found = _doubled(subject, lambda bits: market.scaled(0, low + bits), VOLUME_ROOM - SMALL)
    return f"the same decisions at every scale of volumes, until they pass about 2^{SMALL + found}" if found else None


def _doubled(subject: Subject, tape: Callable[[int], Market], room: int) -> int:
    """The doubling that changes decisions after `FEW` or more that did not; 0 where there is none."""
    before: Desired | None = None
    same = 0
    for bits in range(room + 1):
        try:
            run = subject.run(tape(bits))
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


def speed(subject: Subject, rng: Rng) -> tuple[float, float, int]:
    """Million bars a second, how much longer twice the bars take, and the bars of the longest run."""
    n = 2_048
    took = _seconds(subject, draw(rng, "walk", n))
    while took < MEASURED_SECONDS / 8 and n < MEASURED_BARS:
        n *= 4
        took = _seconds(subject, draw(rng, "walk", n))
    market = draw(rng, "walk", 2 * n)
    tries = 3 if took < MEASURED_SECONDS / 4 else 1
    double = min(_seconds(subject, market) for _ in range(tries))
    single = min(_seconds(subject, market.crop(0, n)) for _ in range(tries))
    return 2 * n / max(double, 1e-9) / 1e6, double / max(single, 1e-9), 2 * n


def _seconds(subject: Subject, market: Market) -> float:
    bars = subject.bars(market)
    begun = time.perf_counter()
    subject.decide(bars, 0, bars.n, b"")
    return time.perf_counter() - begun


def leak(subject: Subject, rng: Rng) -> int:
    """Bytes that each further call keeps, the least of several calls; each has a tape of its own."""
    tapes = [draw(rng, "walk", 1_000 + k, subject.k) for k in range(8)]
    sizes = []
    tracemalloc.start()
    try:
        for tape in tapes:
            subject.run(tape)
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return int(min(np.diff(sizes[2:])))


def memory_sizes(subject: Subject, market: Market) -> list[int]:
    """The largest memory within each quarter of the tape, in bytes."""
    bars = subject.bars(market)
    marks = np.linspace(0, bars.n, 33).astype(int).tolist()
    sizes, memory = [], b""
    for lo, hi in pairwise(marks):
        memory = subject.decide(bars, lo, hi, memory).memory
        sizes.append(len(memory))
    return [max(sizes[k : k + 8]) for k in range(0, 32, 8)]


def grows(sizes: list[int]) -> bool:
    """A memory that has its size by the second quarter has it for good, but for a digit here and there."""
    return sizes[1] < sizes[2] < sizes[3] and sizes[3] > sizes[1] * 1.3 + 16
