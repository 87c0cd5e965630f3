"""How often the guessed state at a cut is right: a wrong guess costs a second run of that slice."""

from collections.abc import Iterator, Sequence

import chain
from candlemill.backtests.plan import Plan
from candlemill.stored_days import months_of
from data.market import Market
from lab import Lab
from measure import Row

STRATEGIES = ("sma_cross", "momentum_v1", "donchian", "buy_and_hold")
STOPS: dict[str, dict[str, int]] = {"": {}, " with stops": {"stop_loss": 10_000, "take_profit": 20_000}}
MONTH_BARS = 31 * 1440


def rows_guesses(lab: Lab) -> Iterator[Row]:
    """Each strategy on its default parameters, cut at every midnight of a month and at every month of ten years."""
    month = lab.year.head(MONTH_BARS)
    yield from _table("a month cut daily", month, [day.start for day in month.days[1:]])
    ten = lab.ten_years
    yield from _table("ten years cut monthly", ten, [month.start for month in months_of(ten.days)[1:]])


def _table(what: str, market: Market, inner: Sequence[int]) -> Iterator[Row]:
    candles = market.candles()
    for strategy in STRATEGIES:
        for name, stops in STOPS.items():
            spec = market.spec(strategy, {}, **stops)
            plan = Plan(cuts=[spec.start, *inner, spec.end], batch=1, points=1, bars=market.n)
            repaired = chain.compute(spec, plan, candles)[0].repaired
            cuts = plan.slices - 1
            raw = {"cuts": cuts, "right": cuts - repaired}
            yield Row(f"guesses: {what}, {strategy}{name}", f"{cuts - repaired} of {cuts} right", raw=raw)
