"""Trials of the tests of orders and of panels: seeded variations until their time or their number is used up."""

import time
from collections.abc import Callable
from typing import Final, Generic
from zlib import crc32

import msgspec
import numpy as np

from candlemill.checks.markets import Rng
from candlemill.checks.report import Counterexample, Finding, Verdict
from candlemill.checks.subject import Broken, Refused, S, varied

LEAST: Final = 3  # trials of each test, however long they take


class Trial(msgspec.Struct, Generic[S], frozen=True):
    """One trial: its number in its test, and the strategy and the timeframe that it tries."""

    number: int
    strategy: S
    timeframe: int
    rng: Rng


class Trials(Generic[S]):
    """Trials of one check. A fault that one test has found is not reported again by the next."""

    def __init__(self, strategy: S, timeframes: list[int], seed: int, pinned: frozenset[str], seconds: float) -> None:
        self.strategy, self.timeframes, self.seed = strategy, timeframes, seed
        self._pinned, self._seconds = pinned, seconds
        self._faults: dict[str, str] = {}  # text -> the test that found it first

    def found(self, test: str) -> bool:
        """Return whether `test` has found a fault."""
        return test in self._faults.values()

    def run(
        self,
        test: str,
        tests: int,
        most: int,
        attempt: Callable[[Trial[S]], Counterexample | None],
        verdict: Verdict = "fault",
    ) -> tuple[Finding | None, int]:
        """Make up to `most` trials of one of `tests` tests; return what they found, if anything, and their number."""
        end, runs = time.monotonic() + self._seconds / tests, 0
        while runs < most and (runs < LEAST or time.monotonic() < end):
            trial, case = self._trial(test, runs), None
            runs += 1
            try:
                case = attempt(trial)
                text = case.text if case else ""
            except Broken as error:
                text = str(error)
            except Refused:
                continue
            if text in self._faults:
                return Finding(test, "skipped", f"see {self._faults[text]}: {text}", runs), runs
            if text:
                self._faults[text] = test
                return Finding(test, verdict, text, runs, case), runs
        return None, runs

    def _trial(self, test: str, number: int) -> Trial[S]:
        rng = np.random.default_rng([self.seed, crc32(test.encode()), number])
        strategy = varied(self.strategy, self._pinned, rng) if number % 2 else self.strategy
        return Trial(number, strategy, self.timeframes[number // 2 % len(self.timeframes)], rng)
