"""Tests for dependence on slicing: the real tasks and merge, cut at random midnights, compared with the uncut run."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from candlemill.backtests.merge import MergedSlices, Outcomes, Repair, merge_slices
from candlemill.backtests.slice import SliceWindow, run_slice
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import columns_read, context_bars
from candlemill.checks.markets import Market, Rng
from candlemill.checks.report import Counterexample, rows
from candlemill.checks.subject import Broken, Params, Refused, Subject, one_line_of
from candlemill.engine.candles import DAY_MS, end_of_bar
from candlemill.errors import TooLarge
from candlemill.strategies import Strategy

RATES = (0, 1_000, 20_000, 150_000)
SIZINGS = ("fixed", "fixed", "compound")
GUESSED = 50  # number of slices whose guesses are counted
STATE_BYTES = 16_384  # a repair event contains the state of its slice, and events are limited to 64 KiB


class Job(msgspec.Struct, frozen=True):
    """A market as a job. `warm_up`: minute bars before a slice that its guess is computed from; None: the default."""

    spec: Spec
    market: Market
    warm_up: int | None = None

    def window(self, start: int, end: int, strategies: Sequence[Strategy], exact: bool) -> SliceWindow:
        """Return the window of a slice, as `Candles.window` does."""
        spec, t = self.spec, self.market.t
        context = context_bars(spec, strategies, exact or self.warm_up is not None)
        context += 0 if exact else self.warm_up or 0
        lo, hi, upto = np.searchsorted(t, [start, end, min(spec.end, end_of_bar(end, spec.timeframe))]).tolist()
        begin = max(0, lo - context)
        candles = self.market.crop(begin, upto).candles(columns_read(spec, strategies))
        return SliceWindow(candles, lo - begin, hi - begin, begin == 0)

    def run(self, strategies: Sequence[Strategy], cuts: Sequence[int]) -> list[MergedSlices]:
        """Return each strategy's result: slices run from guesses, merged, and repaired where a guess was wrong.

        Raises Broken and Refused.
        """
        try:
            return self._run(strategies, cuts)
        except TooLarge as error:
            raise Refused(str(error)) from None
        except Exception as error:
            raise Broken(f"a slice of a job fails: {one_line_of(error)}") from error

    def _run(self, strategies: Sequence[Strategy], cuts: Sequence[int]) -> list[MergedSlices]:
        outcomes = Outcomes()
        for number, (start, end) in enumerate(pairwise(cuts)):
            window = self.window(start, end, strategies, False)
            outcomes.add(number, False, run_slice(self.spec, window, list(enumerate(strategies))))
        return [self._joined(outcomes, point, strategy, cuts) for point, strategy in enumerate(strategies)]

    def _joined(self, outcomes: Outcomes, point: int, strategy: Strategy, cuts: Sequence[int]) -> MergedSlices:
        while isinstance(found := merge_slices(outcomes, point, len(cuts) - 1), Repair):
            state = found.start.encode()
            for number in range(found.slice, found.slice + found.count):
                window = self.window(cuts[number], cuts[number + 1], [strategy], True)
                done = run_slice(self.spec, window, [(point, strategy)], {point: state})
                outcomes.add(number, True, done)
                state = done.outcomes[0].end.encode()
        return found


def job_of(market: Market, params: Params, k: int, rng: Rng | None = None, warm_up: int | None = None) -> Job:
    """Make a job of the market's days, with random costs and stops if `rng` is given."""
    costs: dict[str, Any] = {}
    if rng is not None:
        costs = {name: int(rng.choice(RATES)) for name in ("fee", "slippage", "stop_loss", "trailing_stop")}
        costs |= {"take_profit": int(rng.choice((0, 20_000, 200_000))), "sizing": str(rng.choice(SIZINGS))}
    costs["account"] = "units"  # whose guessed slices depend on the strategy alone
    start, end = int(market.t[0]) // DAY_MS * DAY_MS, (int(market.t[-1]) // DAY_MS + 1) * DAY_MS
    kept = {name: value for name, value in params.items() if isinstance(value, int | float | str)}
    spec = Spec(symbol="CHECK", strategy="checked", params=kept, start=start, end=end, timeframe=k, **costs)
    return Job(spec, market, warm_up)


def midnights(market: Market) -> list[int]:
    """Return the midnights between days that have candles."""
    days: list[int] = np.unique(market.t // DAY_MS * DAY_MS).tolist()
    return days[1:]


def any_cut(subject: Subject, market: Market, rng: Rng) -> Counterexample | None:
    """Test that cuts at random midnights, with long or short warm-up of the guesses, give the bits of the uncut run."""
    nights = midnights(market)
    if not nights:
        return None
    job = job_of(market, subject.params, subject.k, rng, int(rng.choice((0, 3, 100, 2000))))
    chosen = sorted(rng.choice(nights, int(rng.integers(1, min(len(nights), 12) + 1)), replace=False).tolist())
    if _cut_differs(job, subject, chosen) is None:
        return None
    for night in list(chosen):
        fewer = [other for other in chosen if other != night]
        if fewer and _cut_differs(job, subject, fewer) is not None:
            chosen = fewer
    figures = _cut_differs(job, subject, chosen) or []
    return Counterexample(
        text="a job cut into slices has another result than the same job uncut",
        params=subject.params,
        timeframe=subject.k,
        market=f"{market.label}, cut at {len(chosen)} midnights",
        t=chosen[0],
        said=figures,
        bars=len(market),
        candles=rows(market),
    )


def _cut_differs(job: Job, subject: Subject, chosen: Sequence[int]) -> list[tuple[str, str]] | None:
    whole, cut = _both(job, subject, chosen)
    if _bits(whole) == _bits(cut):
        return None
    return [("uncut: fills, trades, profit, state", _figures(whole)), ("cut", _figures(cut))]


def _bits(merged: MergedSlices) -> tuple[object, ...]:
    return merged.summary.to_list(), merged.end, merged.days.tolist(), merged.daily


def _figures(merged: MergedSlices) -> str:
    s = merged.summary
    return f"{s.fills}, {s.trades}, {s.profit}, {merged.end[:60].decode(errors='replace')}"


def _both(job: Job, subject: Subject, chosen: Sequence[int]) -> tuple[MergedSlices, MergedSlices]:
    ends = (job.spec.start, job.spec.end)
    (whole,) = job.run([subject.strategy], ends)
    (cut,) = job.run([subject.strategy], [ends[0], *chosen, ends[1]])
    return whole, cut


def together(subject: Subject, others: Sequence[Strategy], market: Market, rng: Rng) -> Counterexample | None:
    """Test that `decide_together` gives each parameter set the same result as alone."""
    job = job_of(market, subject.params, subject.k, rng)
    cuts = [job.spec.start, *midnights(market)[:2], job.spec.end]
    sets = [subject.strategy, *others]
    for strategy, found in zip(sets, job.run(sets, cuts), strict=True):
        (alone,) = job.run([strategy], cuts)
        if _bits(found) != _bits(alone):
            return Counterexample(
                text="decide_together() says otherwise than decide()",
                params={name: getattr(strategy, name) for name in strategy.__struct_fields__},
                timeframe=subject.k,
                market=market.label,
                said=[("alone", _figures(alone)), ("together", _figures(found))],
                bars=len(market),
            )
    return None


def guesses(subject: Subject, market: Market) -> tuple[int, int]:
    """Count the slices that began from a right guess, and all slices that do not see the job's first candle."""
    job = job_of(market, subject.params, subject.k)
    nights = midnights(market)
    nights = nights[:: 1 + len(nights) // GUESSED]
    (found,) = job.run([subject.strategy], [job.spec.start, *nights, job.spec.end])
    context = context_bars(job.spec, [subject.strategy], False)
    guessed = int(np.count_nonzero(np.searchsorted(market.t, nights) > context))
    return guessed - found.repaired, guessed
