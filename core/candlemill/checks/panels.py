"""Tests of strategies of many symbols: look-ahead in time and across symbols, lookback, names, repetition."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.panel_bars import AlignedBars, PanelWindow, SymbolWindow, aligned
from candlemill.checks.lookahead import POSITIONS, positions
from candlemill.checks.markets import FUTURES, STYLES, Market, Rng, draw, other_future
from candlemill.checks.report import Counterexample, Finding, Progress, Report, Verdict, report_of
from candlemill.checks.subject import Broken, Params, one_line_of, params_of
from candlemill.checks.trials import Trial, Trials
from candlemill.engine.candles import MINUTE_MS, Column, end_of_bar
from candlemill.engine.panel_targets import KEEP
from candlemill.errors import BadInput
from candlemill.strategies.panels import PanelStrategy

Markets = Mapping[str, Market]

TRIALS: Final = 12
BARS: Final = 250  # decision bars of a trial, in addition to the lookback
COUNTS: Final = (4, 2, 1)  # of symbols: the first that the strategy accepts
NAMES: Final = ("AAA", "BBB", "CCC", "DDD")


class PanelRun(msgspec.Struct, frozen=True):
    """Targets of all rows of `bars`."""

    bars: AlignedBars
    targets: Column


class Difference(msgspec.Struct, frozen=True):
    """Row that opens at `t`, the symbol, and both targets."""

    t: int
    symbol: str
    left: str
    right: str


class PanelSubject(msgspec.Struct, frozen=True):
    """Strategy with its parameters, on decision bars of `k` minutes."""

    strategy: PanelStrategy
    params: Params
    k: int

    def lookback(self) -> int:
        try:
            return int(self.strategy.lookback())
        except Exception as error:
            raise Broken(f"lookback() fails: {one_line_of(error)}") from error

    def run(self, markets: Markets) -> PanelRun:
        """Return the targets of a job that begins with the first candle of each market."""
        reads = sorted(self.strategy.needs())
        windows = {name: SymbolWindow(one.candles(reads), 0, len(one), True) for name, one in markets.items()}
        return self.run_window(PanelWindow(0, 1 << 60, windows))

    def run_window(self, window: PanelWindow) -> PanelRun:
        bars = aligned(window, self.k)
        try:
            with np.errstate(all="ignore"):
                return PanelRun(bars, self.strategy.targets(bars.panel).copy())
        except Exception as error:
            raise Broken(f"positions() fails: {one_line_of(error)}") from error


def check_panel(
    strategy: PanelStrategy,
    data: Markets | None = None,
    *,
    timeframes: Sequence[int],
    seed: int = 1,
    pinned: Iterable[str] = (),
    only: Iterable[str] = (),
    seconds: float = 5.0,
    progress: Progress | None = None,
) -> Report:
    """Check a strategy of many symbols on synthetic markets, or on parts of `data`. Raises BadInput."""
    unknown = sorted(set(only) - set(TESTS))
    if unknown:
        raise BadInput(f"unknown test of a panel {unknown[0]!r}: there are {', '.join(TESTS)}")
    if data is not None and min(len(one) for one in data.values()) < 2:
        raise BadInput("a symbol has less than two candles: there is nothing to try on")
    trials = _Trials(Trials(strategy, list(timeframes), seed, frozenset(pinned), seconds), data)
    chosen = [test for test in TESTS if not only or test in set(only)]
    label = "synthetic markets" if data is None else f"{sum(map(len, data.values())):,} candles"
    return report_of(strategy, timeframes, label, seed, chosen, trials.finding, progress)


class _Trials:
    """Inputs of one check."""

    def __init__(self, trials: Trials[PanelStrategy], data: Markets | None) -> None:
        self._trials, self._data = trials, data
        self._count = len(data) if data is not None else self._accepted()

    def finding(self, test: str, tests: int) -> Finding:
        """Return the finding of one test."""

        def attempt(trial: Trial[PanelStrategy]) -> Counterexample | None:
            subject = PanelSubject(trial.strategy, params_of(trial.strategy), trial.timeframe)
            return TESTS[test](subject, self._markets(trial.rng, subject), trial.rng)

        verdict: Verdict = "warning" if test == "names" else "fault"
        found, runs = self._trials.run(test, tests, TRIALS, attempt, verdict)
        return found or Finding(test, "ok", f"{runs:,} trials of {self._count:,} symbols", runs)

    def _accepted(self) -> int:
        strategy = self._trials.strategy
        rng = np.random.default_rng([self._trials.seed, 0])
        subject = PanelSubject(strategy, params_of(strategy), self._trials.timeframes[0])
        for count in COUNTS:
            self._count = count
            try:
                subject.run(self._markets(rng, subject))
                return count
            except Broken:
                continue
        return COUNTS[0]

    def _markets(self, rng: Rng, subject: PanelSubject) -> dict[str, Market]:
        """Return markets that begin and end at different times; of given candles, a stretch of time."""
        needed = BARS + 2 * min(subject.lookback(), 5_000)
        if self._data is not None:
            spans = [(int(one.t[0]), int(one.t[-1])) for one in self._data.values()]
            first, last = min(a for a, _ in spans), max(b for _, b in spans)
            begin = int(rng.integers(first, max(first + 1, last - needed * subject.k * MINUTE_MS)))
            end = begin + needed * subject.k * MINUTE_MS
            found = {name: _between(one, begin, end) for name, one in self._data.items()}
            return found if any(map(len, found.values())) else dict(self._data)
        style = str(rng.choice(STYLES))
        out = {}
        for name in NAMES[: self._count]:
            market = draw(rng, style, needed * (3 if subject.k > 1 else 1), subject.k)
            shift = int(market.t[0]) - BEGIN_MS - int(rng.integers(0, 60)) * MINUTE_MS
            market = msgspec.structs.replace(market, t=market.t - shift)
            out[name] = market.crop(0, len(market) - int(rng.integers(0, 1 + len(market) // 3)))
        return out


BEGIN_MS: Final = 1_577_836_800_000


def _between(market: Market, start: int, end: int) -> Market:
    return market.crop(*np.searchsorted(market.t, [start, end]).tolist())


def _differs(left: PanelRun, right: PanelRun, rows: int, first: int = 0, shift: int = 0) -> Difference | None:
    """Return the first difference in rows `first` to `rows - 1`; row j of `right` is row j + shift of `left`."""
    panel = left.bars.panel
    a, b = left.targets[first:rows], right.targets[first - shift : rows - shift]
    wrong: NDArray[np.bool_] = (a != b) & panel.present[first:rows]
    if not wrong.any():
        return None
    row, k = np.argwhere(wrong)[0].tolist()
    return Difference(int(panel.t[first + row]), panel.names[k], _said(int(a[row, k])), _said(int(b[row, k])))


def _said(target: int) -> str:
    return "keep" if target == KEEP else f"{target:+,} ppm"


def _case(
    subject: PanelSubject, markets: Markets, found: Difference, text: str, said: tuple[str, str]
) -> Counterexample:
    return Counterexample(
        text=text,
        params=subject.params,
        timeframe=subject.k,
        market=f"{next(iter(markets.values())).label}, {len(markets):,} symbols",
        t=found.t,
        said=[(f"{found.symbol} {said[0]}", found.left), (f"{found.symbol} {said[1]}", found.right)],
        bars=sum(map(len, markets.values())),
    )


def _instants(rng: Rng, markets: Markets, count: int) -> list[int]:
    """Choose open times of minutes, after each of which something follows."""
    market = markets[str(rng.choice(sorted(markets)))]
    return [int(market.t[i]) for i in positions(rng, market, count)] if len(market) > 1 else []


# -- the tests -------------------------------------------------------------------------------------------------------


def answers(subject: PanelSubject, markets: Markets, rng: Rng) -> Counterexample | None:
    """Test odd panels: without candles, with one row, one symbol without candles."""
    name = sorted(markets)[0]
    subject.run(markets)
    subject.run({one: market.crop(0, 0) for one, market in markets.items()})
    subject.run({one: market.crop(0, 1) for one, market in markets.items()})
    subject.run({one: market.crop(0, 0) if one == name else market for one, market in markets.items()})
    return None


def repeated(subject: PanelSubject, markets: Markets, rng: Rng) -> Counterexample | None:
    left, right = subject.run(markets), subject.run(markets)
    found = _differs(left, right, len(left.targets))
    text = "its targets are not the same twice"
    return _case(subject, markets, found, text, ("at first", "again")) if found else None


def future_cut(subject: PanelSubject, markets: Markets, rng: Rng) -> Counterexample | None:
    """Test that rows decided up to a minute are the same where the candles of all symbols end there."""
    whole = subject.run(markets)
    for t in _instants(rng, markets, POSITIONS):
        ended = subject.run({name: _between(one, 0, t + 1) for name, one in markets.items()})
        n = int(np.searchsorted(whole.bars.instants, t, side="right"))
        if found := _differs(whole, ended, n):
            text = "what is decided at a row changes when the candles after it are cut off"
            return _case(subject, markets, found, text, ("with the candles after it", "ending there"))
    return None


def future_altered(subject: PanelSubject, markets: Markets, rng: Rng) -> Counterexample | None:
    """Test that rows decided up to a minute do not depend on later candles of any symbol."""
    return _altered(subject, markets, rng, sorted(markets))


def others_altered(subject: PanelSubject, markets: Markets, rng: Rng) -> Counterexample | None:
    """Test the same with later candles of one symbol only: look-ahead across symbols."""
    return _altered(subject, markets, rng, [str(rng.choice(sorted(markets)))])


def _altered(subject: PanelSubject, markets: Markets, rng: Rng, changed: list[str]) -> Counterexample | None:
    whole = subject.run(markets)
    for t in _instants(rng, markets, 3):
        kind = str(rng.choice(FUTURES))
        others = dict(markets)
        for name in changed:
            i = int(np.searchsorted(markets[name].t, t, side="right")) - 1
            if 0 <= i < len(markets[name]) - 1:
                others[name] = other_future(rng, markets[name], i, kind)
        n = int(np.searchsorted(whole.bars.instants, t, side="right"))
        if found := _differs(whole, subject.run(others), n):
            one = len(changed) < len(markets)
            who = changed[0] if one else "all symbols"
            text = (
                f"what is decided at a row changes with candles after it, of {'one symbol' if one else 'all symbols'}"
            )
            return _case(subject, markets, found, text, ("as they are", f"with other candles of {who}: {kind}"))
    return None


def lookback(subject: PanelSubject, markets: Markets, rng: Rng) -> Counterexample | None:
    """Test that `lookback()` bars of each symbol's own are enough, as a slice reads them."""
    whole, back = subject.run(markets), subject.lookback()
    for t in _instants(rng, markets, POSITIONS):
        part = subject.run_window(_slice(subject, markets, t + MINUTE_MS, back))
        first = int(np.searchsorted(whole.bars.instants, t + MINUTE_MS))
        shift = len(whole.targets) - len(part.targets)
        if found := _differs(whole, part, len(whole.targets), first, shift):
            text = f"a decision depends on more than the {back:,} bars before it that lookback() tells"
            return _case(subject, markets, found, text, ("with all bars before", f"with {back:,} bars before"))
    return None


def _slice(subject: PanelSubject, markets: Markets, start: int, back: int) -> PanelWindow:
    """Return the window that a slice from `start` (ms) would read; see `pipeline.panel_window`."""
    k, reads = subject.k, sorted(subject.strategy.needs())
    context = ((back + 1) * k if k > 1 else back) + 1
    since = end_of_bar(start + 1, k) - k * MINUTE_MS
    los = {name: int(np.searchsorted(one.t, start)) for name, one in markets.items()}
    present = [name for name, one in markets.items() if len(one) and int(one.t[-1]) >= since]
    enough = [int(markets[name].t[los[name] - context]) for name in present if los[name] >= context]
    windows = {}
    for name, one in markets.items():
        begin = max(0, los[name] - context)
        if name not in present:
            begin = int(np.searchsorted(one.t, max(enough, default=0)))
        candles = one.crop(begin, len(one)).candles(reads)
        windows[name] = SymbolWindow(candles, los[name] - begin, len(one) - begin, begin == 0)
    return PanelWindow(start, 1 << 60, windows)


def names(subject: PanelSubject, markets: Markets, rng: Rng) -> Counterexample | None:
    """Test that symbols under other names, in another order, get the same targets."""
    back = dict(zip(sorted(markets), sorted(markets, reverse=True), strict=True))
    whole = subject.run(markets)
    other = subject.run({back[name]: one for name, one in markets.items()})
    turned = PanelRun(other.bars, other.targets[:, ::-1])
    found = _differs(whole, turned, len(whole.targets))
    text = "its targets depend on the symbols' names: right for ties only"
    return _case(subject, markets, found, text, ("in this order", "in the opposite order")) if found else None


TESTS: Final[dict[str, Callable[[PanelSubject, Markets, Rng], Counterexample | None]]] = {
    "answers": answers,
    "repeat": repeated,
    "future-cut": future_cut,
    "future-altered": future_altered,
    "others-altered": others_altered,
    "lookback": lookback,
    "names": names,
}
