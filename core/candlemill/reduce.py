"""Joining slices: every hand-over of state is checked, wrong guesses are named, right chains are merged."""

import hashlib
import json
from collections.abc import Sequence
from decimal import Decimal, localcontext
from itertools import accumulate, pairwise
from math import isqrt
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from candlemill.engine.account import FINE, LOG
from candlemill.engine.summary import Summary
from candlemill.engine.tape import DAY_MS, Column
from candlemill.metrics import metrics
from candlemill.model import SCALE, Spec
from candlemill.plan import Plan
from candlemill.work import COLD, Done, Outcome, digest_of, sizing_of, split_state, summary_of

GUARD_DIGITS = 10**12
REPAIR_LIMIT = 64  # slices that one repair runs in a row

# How the ratios are made, told with every result.
SHARPE_RECIPE = {"interval": "1d", "periods_per_year": 365, "ddof": 1, "risk_free_rate": 0}


class Repair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Run `point` again from `start`, over `count` slices from `slice` on."""

    point: Annotated[int, Meta(ge=0)]
    slice: Annotated[int, Meta(ge=0)]
    count: Annotated[int, Meta(ge=1, le=REPAIR_LIMIT)]
    start: str


class Merged(msgspec.Struct, frozen=True):
    """One parameter set's whole range; `days` are UTC days counted from 1970, `daily` their figures."""

    summary: Summary
    end: bytes
    repaired: int
    days: Column
    daily: list[int]


class Outcomes:
    """The outcomes of one batch, added in any order and any number of times."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int, str], Outcome] = {}
        self._guesses: set[tuple[int, int, str]] = set()
        self._days: dict[int, list[int]] = {}
        self._all_days: tuple[int, Column] | None = None

    def add(self, number: int, exact: bool, done: Done) -> None:
        """What was made of slice `number`; `exact` tells that it started from handed-over states."""
        for outcome in done.outcomes:
            self.put(number, exact, done.days, outcome)

    def put(self, number: int, exact: bool, days: list[int], outcome: Outcome) -> None:
        """One of them, and the slice's days."""
        key = outcome.point, number, outcome.start
        self._found[key] = outcome
        self._days[number] = days
        if not exact:
            self._guesses.add(key)

    def find(self, point: int, number: int, start: str) -> Outcome | None:
        return self._found.get((point, number, start))

    def days(self, slices: int) -> Column:
        """The days of the first `slices` slices, all of which are there: every set has them."""
        if self._all_days is None or self._all_days[0] != slices:
            days = [day for number in range(slices) for day in self._days[number]]
            self._all_days = slices, np.array(days, dtype=np.int64)
        return self._all_days[1]

    def guessed(self, point: int, number: int, start: str) -> bool:
        return (point, number, start) in self._guesses


def join(outcomes: Outcomes, point: int, slices: int) -> Merged | Repair:
    """Follow the states of one parameter set from a cold start; the first slice nobody ran from its true state
    becomes a Repair. A chain that keeps breaking is repaired in doubling strides."""
    state = COLD
    total = Summary()
    daily: list[int] = []
    repaired = streak = 0
    for number in range(slices):
        start = digest_of(state)
        outcome = outcomes.find(point, number, start)
        if outcome is None:
            return Repair(point, number, min(max(1, streak), REPAIR_LIMIT, slices - number), state.decode())
        guessed = outcomes.guessed(point, number, start)
        streak = 0 if guessed else streak + 1
        repaired += not guessed
        total = total.merge(summary_of(outcome))
        daily += outcome.daily
        state = outcome.end.encode()
    return Merged(total, state, repaired, outcomes.days(slices), daily)


def result_of(
    spec: Spec, plan: Plan, merged: Merged, job: str, data_digest: str
) -> tuple[dict[str, object], list[int]]:
    """The result of one parameter set, every figure an integer, money scaled by 10^8; and the daily figures that its
    ratios are of: profits in money, of a compound account returns in 10^-15."""
    s = merged.summary
    state, _ = split_state(merged.end)
    held_over_gap = s.tail_gap if s.tail else 0
    returns = Returns(spec, merged)
    result: dict[str, object] = {
        "job_id": job,
        "strategy_id": spec.strategy,
        "symbol": spec.symbol,
        "params": spec.params,
        "start": spec.start,
        "end": spec.end,
        "bars": s.bars,
        "missing_minutes": spec.minutes - s.bars,
        "capital": returns.capital,
        "total_pnl": sum(returns.profits) if spec.sizing == "compound" else returns.money(s.profit),
        "sharpe_ratio": sharpe(returns.total, returns.squares, s.days),
        "sortino_ratio": sortino(returns.total, returns.loss_squares, s.days),
        "max_drawdown": returns.drawdown(s.drawdown),
        "trades": s.trades,
        "wins": s.wins,
        "gross_profit": returns.money(s.gross_profit),
        "gross_loss": returns.money(s.gross_loss),
        "fees": returns.money(s.fees),
        "funding": returns.money(s.funding),
        "turnover": returns.money(s.turnover),
        "fills": s.fills,
        "unfilled": s.unfilled,
        "exposure_bars": s.exposure,
        "open_position": int(state.side),
        "ambiguous_bars": s.ambiguous,
        "trades_over_gaps": s.over_gaps + held_over_gap,
        "days": s.days,
        "first_open": s.first,
        "last_close": s.last,
        "sharpe_recipe": SHARPE_RECIPE,
        "spec": msgspec.to_builtins(spec),
        "data_digest": data_digest,
    }
    days = merged.days * DAY_MS
    result["metrics"] = metrics(days, returns.profits, returns.capital, result)
    result |= {"result_digest": digest_of_result(result), "slices": plan.slices, "repaired_slices": merged.repaired}
    return result, returns.daily


def digest_of_result(result: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(result, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Returns:
    """What an account's own unit is in money, and the daily figures of which the ratios are made.

    `profits` are the days' profits in money; the ratios of a compound account are of its returns, those of the others
    of their profits. `total`, `squares` and `loss_squares` are sums over the days.
    """

    def __init__(self, spec: Spec, merged: Merged) -> None:
        self._compound = spec.sizing == "compound"
        s = merged.summary
        own = spec.quantity * s.first // SCALE
        self.capital: int = spec.capital or max(1, own)
        # An amount in the account's unit is money when it is multiplied by the one and divided by the other.
        self._factor, self._divisor = 1, FINE * SCALE
        if self._compound:
            self._factor, self._divisor = self.capital, LOG
        elif sizing_of(spec) is None:
            self._factor, self._divisor = spec.quantity, SCALE
        self.total, self.squares, self.loss_squares = sum(merged.daily), s.squares, s.loss_squares
        self._lost = self._compound and -LOG in merged.daily
        if self._lost:  # of a ruined account nothing comes after
            left = merged.daily[: merged.daily.index(-LOG) + 1]
            self.total = sum(left)
            self.squares = sum(x * x for x in left)
            self.loss_squares = sum(x * x for x in left if x < 0)
            merged = msgspec.structs.replace(merged, daily=left + [0] * (len(merged.daily) - len(left)))
        if self._compound:
            self.daily = merged.daily
            self.profits = compounded(merged.daily, self.capital)
        else:
            self.daily = self.profits = self._added(merged.daily)

    def money(self, amount: int) -> int:
        """An amount in the account's unit as money, rounded down."""
        return amount * self._factor // self._divisor

    def drawdown(self, fall: int) -> int:
        """In money; of a compound account the share of the peak, 10^8 being all of it."""
        if not self._compound:
            return self.money(fall)
        if self._lost:
            return SCALE
        with localcontext(prec=40):
            return int(((1 - (Decimal(-fall) / LOG).exp()) * SCALE).to_integral_value())

    def _added(self, daily: list[int]) -> list[int]:
        factor, divisor = self._factor, self._divisor
        if factor == divisor:
            return daily
        marks = [total * factor // divisor for total in accumulate(daily, initial=0)]
        return [after - before for before, after in pairwise(marks)]


def compounded(daily: Sequence[int], capital: int) -> list[int]:
    """Profits in money of returns in 10^-15, multiplied in fixed point with twelve digits more than money has."""
    value = capital * GUARD_DIGITS
    marks = [capital]
    for x in daily:
        value = value * (LOG + x) // LOG
        marks.append(value // GUARD_DIGITS)
    return [after - before for before, after in pairwise(marks)]


def sharpe(total: int, squares: int, days: int) -> int:
    """Mean over sample deviation of the daily profits, times sqrt(365) and 10^8, rounded half to even, exact."""
    if days < 2:
        return 0
    spread = days * squares - total * total
    return _signed_root(total, 365 * (days - 1) * SCALE**2, days * spread)


def sortino(total: int, loss_squares: int, days: int) -> int:
    """As `sharpe`, with the root of the mean squared negative daily profit over all days."""
    if days < 2:
        return 0
    return _signed_root(total, 365 * SCALE**2, days * loss_squares)


def _signed_root(factor: int, numerator: int, denominator: int) -> int:
    """factor * sqrt(numerator / denominator) rounded half to even; 0 for a denominator of 0."""
    if denominator == 0:
        return 0
    square = factor * factor * numerator
    root = isqrt(square // denominator)
    # Compare the square with (root + 1/2)^2, both times 4 * denominator.
    half = (2 * root + 1) ** 2 * denominator
    if 4 * square > half or (4 * square == half and root % 2 == 1):
        root += 1
    return root if factor >= 0 else -root
