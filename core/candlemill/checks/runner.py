"""Checks a strategy for look-ahead, hidden state and dependence on slicing, on small markets.

`check` calls the strategy as the engine does, with variations that must not change its decisions: without the future,
with another future, with less of the past, in parts, repeatedly, in other threads and processes, through tasks with
random cuts. A counterexample proves a fault; finding none is evidence, not proof (docs/check.md).
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from zlib import crc32

import msgspec
import numpy as np

from candlemill.checks import hidden_state, lookahead, numeric_limits, slicing
from candlemill.checks.hidden_state import Elsewhere
from candlemill.checks.lookahead import Unsteady
from candlemill.checks.markets import STYLES, Market, Rng, draw, market_of
from candlemill.checks.orders import check_orders
from candlemill.checks.panels import TESTS as PANEL_TESTS
from candlemill.checks.panels import check_panel
from candlemill.checks.report import Counterexample, Finding, Report, Verdict
from candlemill.checks.subject import Broken, Refused, Subject, params_of, varied
from candlemill.engine.candles import CandleColumns
from candlemill.errors import BadInput
from candlemill.strategies import OrderStrategy, PanelStrategy, Strategy, Weighted

__all__ = ["TESTS", "Counterexample", "Finding", "Report", "check"]

Progress = Callable[[int, int], None]
Probe = Callable[[Subject, Market, Rng], Counterexample | None]

TIMEFRAMES: Final = (1, 15)
CANDLES_MAX: Final = 120_000
BARS: Final = (400, 1_500, 3_000)  # decision bars of a trial, in addition to the lookback
SECONDS: Final = 5.0  # limit for the trials of all tests together
HIT_RATE: Final = 0.5  # share of right guesses; below it most slices are computed twice

# Number of trials of each test. A test ends earlier if its share of the time is used up.
TRIALS: Final[dict[str, tuple[Probe, int]]] = {
    "answers": (hidden_state.odd_candles, 6),
    "repeat": (hidden_state.repeated, 8),
    "inputs": (hidden_state.inputs, 8),
    "columns": (hidden_state.columns, 8),
    "threads": (hidden_state.threads, 4),
    "future-cut": (lookahead.future_cut, 24),
    "future-altered": (lookahead.future_altered, 24),
    "lookback": (lookahead.lookback, 24),
    "resume": (lookahead.resumed, 24),
    "cuts": (slicing.any_cut, 24),
}
BY_COMPARING: Final = ("future-cut", "future-altered", "lookback", "resume", "cuts")
TESTS: Final = (*TRIALS, "sets", "process", "memory", "guesses", "overflow", "start", "speed", "later")


def check(
    strategy: Strategy | type[Strategy],
    data: CandleColumns | Market | None = None,
    *,
    timeframes: Sequence[int] = TIMEFRAMES,
    seed: int = 1,
    pinned: Iterable[str] = (),
    only: Iterable[str] = (),
    elsewhere: Elsewhere | None = None,
    seconds: float = SECONDS,
    progress: Progress | None = None,
) -> Report:
    """Check a strategy (a class is used with its defaults) on synthetic markets, or on parts of `data`.

    Parameters vary around the given ones, except those in `pinned`. `only` selects tests of `TESTS`. `elsewhere` runs
    the strategy in another process (`checks.fresh_process.decide`). Raises BadInput for a strategy or data that cannot
    be tested.
    """
    unknown = sorted(set(only) - {*TESTS, *PANEL_TESTS})
    if unknown:
        raise BadInput(f"unknown test {unknown[0]!r}: there are {', '.join(TESTS)}")
    if not timeframes:
        raise BadInput("no timeframe is given: name at least one")
    if data is not None and len(data.t) < 2:
        raise BadInput(f"{len(data.t)} candles are too few to try anything on: give two or more, better some thousands")
    instance = _instance(strategy)
    if isinstance(instance, PanelStrategy):
        given = {"AAA": market_of(data, "given candles") if isinstance(data, CandleColumns) else data} if data else None
        return check_panel(
            instance, given, timeframes=timeframes, seed=seed, pinned=pinned, only=only, seconds=seconds,
            progress=progress,
        )  # fmt: skip
    if isinstance(instance, OrderStrategy | Weighted):
        market = market_of(data, "given candles") if isinstance(data, CandleColumns) else data
        return check_orders(
            instance, market, timeframes=timeframes, seed=seed, pinned=pinned, only=only, elsewhere=elsewhere,
            seconds=seconds, progress=progress,
        )  # fmt: skip
    begun = time.monotonic()
    examiner = _Examiner(_instance(strategy), data, timeframes, seed, frozenset(pinned), elsewhere, seconds)
    findings = examiner.findings([test for test in TESTS if not only or test in set(only)], progress)
    return Report(
        strategy=type(examiner.strategy).__name__,
        params=params_of(examiner.strategy),
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


class _Examiner:
    """The state of one check: its inputs and the findings so far."""

    def __init__(
        self,
        strategy: Strategy,
        data: CandleColumns | Market | None,
        timeframes: Sequence[int],
        seed: int,
        pinned: frozenset[str],
        elsewhere: Elsewhere | None,
        seconds: float,
    ) -> None:
        self.strategy = strategy
        self.data = market_of(data, "given candles") if isinstance(data, CandleColumns) else data
        self._timeframes = timeframes
        self._seed = seed
        self._pinned = pinned
        self._elsewhere = elsewhere
        self._seconds = self._share = seconds
        self._faults: dict[str, str] = {}  # text -> the test that found it first
        self._first = Subject(strategy, params_of(strategy), timeframes[0])

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
        self._later: Callable[[], Counterexample | None] = lambda: hidden_state.later(self._first, reference, before)
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
        """Return the reason to skip a test that would only repeat a known finding; empty if there is none."""
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
        """Run one trial; return its fault, or None."""
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
        """Return the subject of a trial: the given parameters in every second trial, and each timeframe in turn."""
        k = self._timeframes[trial // 2 % len(self._timeframes)]
        strategy = self.strategy if trial % 2 == 0 else varied(self.strategy, self._pinned, rng)
        return Subject(strategy, params_of(strategy), k)

    def _market(self, rng: Rng, subject: Subject, style: str = "", bars: int = 0) -> Market:
        """Return a market with enough candles for the lookback and some hundred decisions."""
        try:
            back = subject.lookback()
        except Broken:
            back = 0
        needed = back + min(back, BARS[-1]) + (bars or int(rng.choice(BARS)))
        if self.data is None:
            n = min(needed * (3 if subject.k > 1 else 1), CANDLES_MAX)
            return draw(rng, style or str(rng.choice(STYLES)), n, subject.k)
        n = min(needed * subject.k, CANDLES_MAX, len(self.data))
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
            case = slicing.together(subject, others, self._market(rng, subject), rng)
            if case:
                return self._trial("sets", lambda case=case: case) or Finding("sets", "ok", "")  # type: ignore[misc]
        return Finding("sets", "ok", "parameter sets decided together are as each alone", 3)

    def _test_process(self) -> Finding:
        if self._elsewhere is None:
            return Finding("process", "skipped", "no way to start another process was given")
        rng = self._rng("process", 0)
        markets = [self._market(rng, self._first, style) for style in ("walk", "ties", "sparse")]
        answers = self._elsewhere(self._first, markets)
        if isinstance(answers, str):
            return Finding("process", "skipped", answers)
        case = hidden_state.other_process(self._first, markets, answers)
        text = "the same with another environment, time zone, hash seed and folder"
        text = f"{text}, and at {answers.moments:,} other times"
        return self._trial("process", lambda: case) or Finding("process", "ok", text, len(markets))

    def _test_memory(self) -> Finding:
        rng = self._rng("memory", 0)
        kept = numeric_limits.leak(self._first, rng)
        sizes = numeric_limits.memory_sizes(self._first, self._market(rng, self._first, "walk", 20_000))
        if numeric_limits.grows(sizes) or sizes[-1] > slicing.STATE_BYTES:
            growth = " to ".join(f"{size:,}" for size in sizes)
            return self._fault(
                "memory", f"its memory grows with the candles: {growth} bytes; events carry it to slices"
            )
        if kept > numeric_limits.LEAK_BYTES:
            return Finding("memory", "warning", f"each call keeps {kept:,} more bytes in the process", 8)
        return Finding("memory", "ok", f"at most {max(sizes):,} bytes from slice to slice, none kept in the process", 8)

    def _fault(self, test: str, text: str) -> Finding:
        self._faults[text] = test
        return Finding(test, "fault", text, 1)

    def _test_guesses(self) -> Finding:
        rng = self._rng("guesses", 0)
        market = self._market(rng, self._first, "sparse", 12_000)
        right, slices = slicing.guesses(self._first, market)
        text = f"{right:,} of {slices:,} slices began from a right guess"
        if slices and right < HIT_RATE * slices:
            return Finding("guesses", "warning", f"{text}: the others are computed twice, in order", slices)
        return Finding("guesses", "ok", text, slices)

    def _test_overflow(self) -> Finding:
        rng = self._rng("overflow", 0)
        verdict: Verdict = "ok"
        text = "no sign of wrapping up to the engine's limits"
        for style in ("walk", "ties"):
            found = numeric_limits.overflow(
                self._first, draw(rng, style, min(2 * self._first.lookback() + 1_500, CANDLES_MAX))
            )
            if found:
                verdict, text = "warning", f"{found}: does an integer wrap there?"
                break
        return Finding("overflow", verdict, text, 2)

    def _test_start(self) -> Finding:
        rng = self._rng("start", 0)
        markets = [self._market(rng, self._first, style) for style in STYLES]
        for market in markets:
            if len(np.unique(self._first.run(market).desired)) > 1:
                return Finding("start", "note", hidden_state.beginning(self._first, market), 1)
        first = self._first.run(markets[0]).desired
        if len(first) and first[0]:
            return Finding("start", "note", f"always {int(first[0]):+d}", len(markets))
        text = f"nothing but 0 on {len(markets)} markets with these parameters: there is little to compare"
        return Finding("start", "warning", text, len(markets))

    def _test_speed(self) -> Finding:
        found = numeric_limits.speed(Subject(self.strategy, self._first.params), self._rng("speed", 0))
        text = f"{found.million_a_second:,.3g} million bars/s over {found.n:,} bars"
        if found.steep > numeric_limits.STEEP and found.loops > numeric_limits.QUICK:
            return Finding("speed", "warning", f"{text}; twice the bars take {found.steep:.1f} times as long", 1)
        if found.loops > numeric_limits.SLOW:
            text = f"{text}, {found.loops:,.0f} times as long as a plain Python loop"
            year = 0.5256 / found.million_a_second
            return Finding("speed", "warning", f"{text}: a year of minutes takes {year:,.1f} s here", 1)
        return Finding("speed", "note", text, 1)

    def _test_later(self) -> Finding:
        text = "the same at the end of the check as at its beginning"
        return self._trial("later", self._later) or Finding("later", "ok", text, 1)
