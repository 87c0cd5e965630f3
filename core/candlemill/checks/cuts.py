"""Dependence on the cut: the real tasks and the real join, cut at random midnights, against the uncut run."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from candlemill.checks.market import Market, Rng
from candlemill.checks.report import Counterexample, rows
from candlemill.checks.subject import Broken, Params, Refused, Subject, told
from candlemill.engine.tape import DAY_MS, MINUTE_MS
from candlemill.errors import TooLarge
from candlemill.model import Spec
from candlemill.reduce import Merged, Outcomes, Repair, join
from candlemill.strategies import Strategy
from candlemill.work import Window, columns_read, context_bars, run_task

RATES = (0, 1_000, 20_000, 150_000)
SIZINGS = ("fixed", "fixed", "compound")
GUESSED = 50  # slices whose guesses are counted
STATE_BYTES = 16_384  # a repair carries the state of its slice in an event, and an event is at most 64 KiB


class Job(msgspec.Struct, frozen=True):
    """A market as a job. `warm_up`: minute bars before a slice that a guess runs over, None for the usual ones."""

    spec: Spec
    market: Market
    warm_up: int | None = None

    def window(self, start: int, end: int, strategies: Sequence[Strategy], exact: bool) -> Window:
        """What `Tapes.window` gives for a slice."""
        spec, t = self.spec, self.market.t
        k_ms = spec.timeframe * MINUTE_MS
        context = context_bars(spec, strategies, exact or self.warm_up is not None)
        context += 0 if exact else self.warm_up or 0
        lo, hi, upto = np.searchsorted(t, [start, end, min(spec.end, -(-end // k_ms) * k_ms)]).tolist()
        begin = max(0, lo - context)
        tape = self.market.crop(begin, upto).tape(columns_read(spec, strategies))
        return Window(tape, lo - begin, hi - begin, begin == 0)

    def run(self, strategies: Sequence[Strategy], cuts: Sequence[int]) -> list[Merged]:
        """Each strategy's result from slices that are run from guesses, joined, and repaired where they must be.

        Raises Broken and Refused.
        """
        try:
            return self._run(strategies, cuts)
        except TooLarge as error:
            raise Refused(str(error)) from None
        except Exception as error:
            raise Broken(f"a slice of a job fails: {told(error)}") from error

    def _run(self, strategies: Sequence[Strategy], cuts: Sequence[int]) -> list[Merged]:
        outcomes = Outcomes()
        for number, (start, end) in enumerate(pairwise(cuts)):
            window = self.window(start, end, strategies, False)
            outcomes.add(number, False, run_task(self.spec, window, list(enumerate(strategies))))
        return [self._joined(outcomes, point, strategy, cuts) for point, strategy in enumerate(strategies)]

    def _joined(self, outcomes: Outcomes, point: int, strategy: Strategy, cuts: Sequence[int]) -> Merged:
        while isinstance(found := join(outcomes, point, len(cuts) - 1), Repair):
            state = found.start.encode()
            for number in range(found.slice, found.slice + found.count):
                window = self.window(cuts[number], cuts[number + 1], [strategy], True)
                done = run_task(self.spec, window, [(point, strategy)], {point: state})
                outcomes.add(number, True, done)
                state = done.outcomes[0].end.encode()
        return found


def job_of(market: Market, params: Params, k: int, rng: Rng | None = None, warm_up: int | None = None) -> Job:
    """The market's days as a job, with random costs and stops where `rng` is given."""
    costs: dict[str, Any] = {}
    if rng is not None:
        costs = {name: int(rng.choice(RATES)) for name in ("fee", "slippage", "stop_loss", "trailing_stop")}
        costs |= {"take_profit": int(rng.choice((0, 20_000, 200_000))), "sizing": str(rng.choice(SIZINGS))}
    start, end = int(market.t[0]) // DAY_MS * DAY_MS, (int(market.t[-1]) // DAY_MS + 1) * DAY_MS
    kept = {name: value for name, value in params.items() if isinstance(value, int | float | str)}
    spec = Spec(symbol="CHECK", strategy="checked", params=kept, start=start, end=end, timeframe=k, **costs)
    return Job(spec, market, warm_up)


def midnights(market: Market) -> list[int]:
    """The midnights between days that have candles."""
    days: list[int] = np.unique(market.t // DAY_MS * DAY_MS).tolist()
    return days[1:]


def any_cut(subject: Subject, market: Market, rng: Rng) -> Counterexample | None:
    """Cut at random midnights, from guesses with much or little warm-up: the bits of the uncut run."""
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


def _bits(merged: Merged) -> tuple[object, ...]:
    return merged.summary.to_list(), merged.end, merged.days.tolist(), merged.daily


def _figures(merged: Merged) -> str:
    s = merged.summary
    return f"{s.fills}, {s.trades}, {s.profit}, {merged.end[:60].decode(errors='replace')}"


def _both(job: Job, subject: Subject, chosen: Sequence[int]) -> tuple[Merged, Merged]:
    ends = (job.spec.start, job.spec.end)
    (whole,) = job.run([subject.strategy], ends)
    (cut,) = job.run([subject.strategy], [ends[0], *chosen, ends[1]])
    return whole, cut


def together(subject: Subject, others: Sequence[Strategy], market: Market, rng: Rng) -> Counterexample | None:
    """Parameter sets computed together, in `decide_together`, are what each is alone."""
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
    """How many slices of a job began from a right guess, of those that did not see the job's first candle."""
    job = job_of(market, subject.params, subject.k)
    nights = midnights(market)
    nights = nights[:: 1 + len(nights) // GUESSED]
    (found,) = job.run([subject.strategy], [job.spec.start, *nights, job.spec.end])
    context = context_bars(job.spec, [subject.strategy], False)
    guessed = int(np.count_nonzero(np.searchsorted(market.t, nights) > context))
    return guessed - found.repaired, guessed
