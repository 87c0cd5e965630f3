"""Is a strategy honest? Tried on small markets, with a counterexample where it is not.

`check` calls the strategy as the engine does, only in every way that must not matter: without the future, with another
one, with less of the past, in parts, again, in other threads and processes, through tasks cut anywhere. A fault is
proven by its counterexample; that none is found is evidence, no proof (docs/check.md).
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final
from zlib import crc32

import msgspec
import numpy as np

from candlemill.checks import calls, cuts, future, limits
from candlemill.checks.calls import Elsewhere
from candlemill.checks.future import Unsteady
from candlemill.checks.market import STYLES, Market, Rng, draw, market_of
from candlemill.checks.report import Counterexample, Finding, Report, Verdict
from candlemill.checks.subject import Broken, Refused, Subject, varied
from candlemill.engine.tape import Tape
from candlemill.errors import BadInput
from candlemill.strategies import Strategy

__all__ = ["TESTS", "Counterexample", "Finding", "Report", "check"]

Progress = Callable[[int, int], None]
Probe = Callable[[Subject, Market, Rng], Counterexample | None]

TIMEFRAMES: Final = (1, 15)
CANDLES_MAX: Final = 120_000
BARS: Final = (400, 1_500, 3_000)  # decision bars of a trial, beside the lookback
SECONDS: Final = 5.0  # what the trials of all tests may take together
HIT_RATE: Final = 0.5  # right guesses, below which slices are computed twice more often than once

# Each test's trials. They end earlier where their share of the time is over.
TRIALS: Final[dict[str, tuple[Probe, int]]] = {
    "answers": (calls.odd_tapes, 6),
    "repeat": (calls.repeated, 8),
    "inputs": (calls.inputs, 8),
    "columns": (calls.columns, 8),
    "threads": (calls.threads, 4),
    "future-cut": (future.future_cut, 24),
    "future-altered": (future.future_altered, 24),
    "lookback": (future.lookback, 24),
    "resume": (future.resumed, 24),
    "cuts": (cuts.any_cut, 24),
}
BY_COMPARING: Final = ("future-cut", "future-altered", "lookback", "resume", "cuts")
TESTS: Final = (*TRIALS, "sets", "process", "memory", "guesses", "overflow", "start", "speed", "later")


def check(
    strategy: Strategy | type[Strategy],
    data: Tape | Market | None = None,
    *,
    timeframes: Sequence[int] = TIMEFRAMES,
    seed: int = 1,
    pinned: Iterable[str] = (),
    only: Iterable[str] = (),
    elsewhere: Elsewhere | None = None,
    seconds: float = SECONDS,
    progress: Progress | None = None,
) -> Report:
    """Try a strategy (a class: with its defaults) on synthetic markets, or on stretches of `data`.

    Parameters vary around the given ones, but for those in `pinned`. `only` names tests of `TESTS`. `elsewhere`
    decides in another process (`candlemill.io.elsewhere.decide`). Raises BadInput for what cannot be tried at all.
    """
    unknown = sorted(set(only) - set(TESTS))
    if unknown:
        raise BadInput(f"unknown test {unknown[0]!r}: there are {', '.join(TESTS)}")
    if not timeframes:
        raise BadInput("no timeframe is given: name at least one")
    if data is not None and len(data.t) < 2:
        raise BadInput(f"{len(data.t)} candles are too few to try anything on: give two or more, better some thousands")
    begun = time.monotonic()
    examiner = _Examiner(_instance(strategy), data, timeframes, seed, frozenset(pinned), elsewhere, seconds)
    findings = examiner.findings([test for test in TESTS if not only or test in set(only)], progress)
    return Report(
        strategy=type(examiner.strategy).__name__,
        params=_params(examiner.strategy),
        timeframes=list(timeframes),
        data="synthetic markets" if data is None else f"{len(examiner.data or ()):,} candles",
        seed=seed,
        findings=findings,
        seconds=round(time.monotonic() - begun, 3),
    )


def _instance(strategy: Strategy | type[Strategy]) -> Strategy:
    if not isinstance(strategy, type):
        return strategy
    try:
        return msgspec.convert({}, strategy)
    except msgspec.ValidationError as error:
        raise BadInput(f"{strategy.__name__} with its defaults: {error}") from None


def _params(strategy: Strategy) -> dict[str, Any]:
    return {field.encode_name: getattr(strategy, field.name) for field in msgspec.structs.fields(strategy)}


class _Examiner:
    """One check: what is tried, and what has been found so far."""

    def __init__(
        self,
        strategy: Strategy,
        data: Tape | Market | None,
        timeframes: Sequence[int],
        seed: int,
        pinned: frozenset[str],
        elsewhere: Elsewhere | None,
        seconds: float,
    ) -> None:
        self.strategy = strategy
        self.data = market_of(data, "given candles") if isinstance(data, Tape) else data
        self._timeframes = timeframes
        self._seed = seed
        self._pinned = pinned
        self._elsewhere = elsewhere
        self._seconds = self._share = seconds
        self._faults: dict[str, str] = {}  # text -> the test that found it first
        self._first = Subject(strategy, _params(strategy), timeframes[0])

    def findings(self, tests: Sequence[str], progress: Progress | None) -> list[Finding]:
        rng = self._rng("later", 0)
        reference = self._market(rng, self._first)
        try:
            before = self._first.run(reference)
            self._first.lookback()
        except Broken as error:
            return [Finding("answers", "fault", str(error), 1)]
        except Refused as error:
            return [Finding("answers", "warning", f"nothing is tried, it refuses these candles: {error}", 1)]
        found = []
        self._later: Callable[[], Counterexample | None] = lambda: calls.later(self._first, reference, before)
        self._share = self._seconds / max(1, sum(test in TRIALS for test in tests))
        for number, test in enumerate(tests):
            found.append(self._finding(test))
            if progress:
                progress(number + 1, len(tests))
        return found

    def _finding(self, test: str) -> Finding:
        reason = self._pointless(test)
        if reason:
            return Finding(test, "skipped", reason)
        if test in TRIALS:
            return self._trials(test, *TRIALS[test])
        single: Callable[[], Finding] = getattr(self, f"_test_{test}")
        found: list[Finding] = []
        try:
            return self._trial(test, lambda: found.append(single())) or found[0]
        except Refused as error:
            return Finding(test, "note", f"not tried, it refuses the market: {error}")

    def _pointless(self, test: str) -> str:
        """Why a test would only find again what is known; empty where it would not."""
        faulty = set(self._faults.values())
        if "repeat" in faulty and test in ("threads", "process", "guesses", "later", *BY_COMPARING):
            return "its answers are not the same twice: see repeat"
        causes = sorted(faulty & set(BY_COMPARING)) if test in ("resume", "cuts", "guesses") else []
        return f"follows from the fault in {causes[0]}" if causes else ""

    # -- trials ----------------------------------------------------------------------------------------------------

    def _trials(self, test: str, probe: Probe, count: int) -> Finding:
        end = time.monotonic() + self._share
        refused = runs = 0
        while runs < count and (runs < 2 or time.monotonic() < end):
            rng = self._rng(test, runs)
            subject = self._subject(rng, runs)
            market = self._market(rng, subject)
            try:
                found = self._trial(test, lambda s=subject, m=market, r=rng: probe(s, m, r), runs + 1)  # type: ignore[misc]
            except Refused:
                refused += 1
                found = None
            if found:
                return found
            runs += 1
        if refused == runs:
            return Finding(test, "warning", "it refuses every market that is tried (OverflowError)", runs)
        text = f"{runs:,} trials" if runs == count else f"{runs:,} of {count:,} trials: the time was over"
        return Finding(test, "ok", text, runs)

    def _trial(self, test: str, probe: Callable[[], Counterexample | None], runs: int = 1) -> Finding | None:
        """One trial's fault, or None."""
        case = None
        try:
            case = probe()
            text = case.text if case else ""
        except Broken as error:
            text = str(error)
        except Unsteady:
            text = "decisions differed, and did not when tried again: it has a state of its own"
        if not text:
            return None
        if text in self._faults:
            return Finding(test, "skipped", f"see {self._faults[text]}: {text}", runs)
        self._faults[text] = test
        return Finding(test, "fault", text, runs, case)

    def _rng(self, test: str, trial: int) -> Rng:
        return np.random.default_rng([self._seed, crc32(test.encode()), trial])

    def _subject(self, rng: Rng, trial: int) -> Subject:
        """The given parameters in every other trial, and each timeframe in turn."""
        k = self._timeframes[trial // 2 % len(self._timeframes)]
        strategy = self.strategy if trial % 2 == 0 else varied(self.strategy, self._pinned, rng)
        return Subject(strategy, _params(strategy), k)

    def _market(self, rng: Rng, subject: Subject, style: str = "", bars: int = 0) -> Market:
        """Enough candles for the lookback and some hundred decisions."""
        try:
            back = subject.lookback()
        except Broken:
            back = 0
        wanted = back + min(back, BARS[-1]) + (bars or int(rng.choice(BARS)))
        if self.data is None:
            n = min(wanted * (3 if subject.k > 1 else 1), CANDLES_MAX)
            return draw(rng, style or str(rng.choice(STYLES)), n, subject.k)
        n = min(wanted * subject.k, CANDLES_MAX, len(self.data))
        begin = int(rng.integers(0, len(self.data) - n + 1))
        return self.data.crop(begin, begin + n)

    # -- tests of one run ------------------------------------------------------------------------------------------

    def _test_sets(self) -> Finding:
        kind = type(self.strategy)
        if kind.decide_together.__func__ is Strategy.decide_together.__func__:  # type: ignore[attr-defined]
            return Finding("sets", "ok", "no decide_together(): each set is decided alone")
        for trial in range(3):
            rng = self._rng("sets", trial)
            subject = self._subject(rng, 2 * trial)
            others = [varied(self.strategy, self._pinned, rng) for _ in range(7)]
            case = cuts.together(subject, others, self._market(rng, subject), rng)
            if case:
                return self._trial("sets", lambda case=case: case) or Finding("sets", "ok", "")  # type: ignore[misc]
        return Finding("sets", "ok", "parameter sets decided together are as each alone", 3)

    def _test_process(self) -> Finding:
        if self._elsewhere is None:
            return Finding("process", "skipped", "no way to start another process was given")
        rng = self._rng("process", 0)
        markets = [self._market(rng, self._first, style) for style in ("walk", "ties", "sparse")]
        case = calls.other_process(self._first, markets, self._elsewhere)
        if isinstance(case, str):
            return Finding("process", "skipped", case)
        text = "the same with another clock, environment, hash seed and folder"
        return self._trial("process", lambda: case) or Finding("process", "ok", text, len(markets))

    def _test_memory(self) -> Finding:
        rng = self._rng("memory", 0)
        kept = limits.leak(self._first, rng)
        sizes = limits.memory_sizes(self._first, self._market(rng, self._first, "walk", 20_000))
        if limits.grows(sizes) or sizes[-1] > cuts.STATE_BYTES:
            told = " to ".join(f"{size:,}" for size in sizes)
            return self._fault("memory", f"its memory grows with the tape: {told} bytes; slices hand it on in events")
        if kept > limits.LEAK_BYTES:
            return Finding("memory", "warning", f"each call keeps {kept:,} more bytes in the process", 8)
        return Finding("memory", "ok", f"at most {max(sizes):,} bytes from slice to slice, none kept in the process", 8)

    def _fault(self, test: str, text: str) -> Finding:
        self._faults[text] = test
        return Finding(test, "fault", text, 1)

    def _test_guesses(self) -> Finding:
        rng = self._rng("guesses", 0)
        market = self._market(rng, self._first, "sparse", 12_000)
        right, slices = cuts.guesses(self._first, market)
        text = f"{right:,} of {slices:,} slices began from a right guess"
        if slices and right < HIT_RATE * slices:
            return Finding("guesses", "warning", f"{text}: the others are computed twice, in order", slices)
        return Finding("guesses", "ok", text, slices)

    def _test_overflow(self) -> Finding:
        rng = self._rng("overflow", 0)
        verdict: Verdict = "ok"
        text = "no sign of wrapping up to the engine's limits"
        for style in ("walk", "ties"):
            found = limits.overflow(self._first, draw(rng, style, min(2 * self._first.lookback() + 1_500, CANDLES_MAX)))
            if found:
                verdict, text = "warning", f"{found}: does an integer wrap there?"
                break
        return Finding("overflow", verdict, text, 2)

    def _test_start(self) -> Finding:
        rng = self._rng("start", 0)
        markets = [self._market(rng, self._first, style) for style in STYLES]
        for market in markets:
            if len(np.unique(self._first.run(market).desired)) > 1:
                return Finding("start", "note", calls.beginning(self._first, market), 1)
        first = self._first.run(markets[0]).desired
        if len(first) and first[0]:
            return Finding("start", "note", f"always {int(first[0]):+d}", len(markets))
        text = f"nothing but 0 on {len(markets)} markets with these parameters: there is little to compare"
        return Finding("start", "warning", text, len(markets))

    def _test_speed(self) -> Finding:
        million, steep, n = limits.speed(Subject(self.strategy, self._first.params), self._rng("speed", 0))
        text = f"{million:,.3g} million bars/s over {n:,} bars"
        if steep > limits.STEEP and million < limits.QUICK:
            return Finding("speed", "warning", f"{text}; twice the bars take {steep:.1f} times as long", 1)
        if million < limits.SLOW:
            return Finding("speed", "warning", f"{text}: a year of minutes takes {0.5256 / million:,.1f} s", 1)
        return Finding("speed", "note", text, 1)

    def _test_later(self) -> Finding:
        text = "the same at the end of the check as at its beginning"
        return self._trial("later", self._later) or Finding("later", "ok", text, 1)
