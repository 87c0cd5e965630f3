"""Joining slices: every hand-over of state is checked, wrong guesses are named, right chains are merged."""

import hashlib
import json
from collections.abc import Iterable
from math import isqrt
from typing import Annotated

import msgspec
from msgspec import Meta

from candlemill.engine.summary import Summary
from candlemill.model import SCALE, Spec
from candlemill.plan import Plan
from candlemill.work import COLD, Outcome, digest_of, split_state, summary_of

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
    """One parameter set's whole range."""

    summary: Summary
    end: bytes
    repaired: int


class Outcomes:
    """The outcomes of one batch, added in any order and any number of times."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, int, str], Outcome] = {}
        self._guesses: dict[tuple[int, int], str] = {}

    def add(self, number: int, exact: bool, outcomes: Iterable[Outcome]) -> None:
        """`outcomes` of slice `number`; `exact` tells that they started from a handed-over state."""
        for outcome in outcomes:
            self._found[outcome.point, number, outcome.start] = outcome
            if not exact:
                self._guesses[outcome.point, number] = outcome.start

    def points(self) -> list[int]:
        return sorted({point for point, _ in self._guesses})

    def find(self, point: int, number: int, start: str) -> Outcome | None:
        return self._found.get((point, number, start))

    def guessed(self, point: int, number: int, start: str) -> bool:
        return self._guesses.get((point, number)) == start


def join(outcomes: Outcomes, point: int, slices: int) -> Merged | Repair:
    """Follow the states of one parameter set from a cold start; the first slice nobody ran from its true state
    becomes a Repair. A chain that keeps breaking is repaired in doubling strides."""
    state = COLD
    total = Summary()
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
        state = outcome.end.encode()
    return Merged(total, state, repaired)


def result_of(spec: Spec, plan: Plan, merged: Merged, job: str, data_digest: str) -> dict[str, object]:
    """The result of one parameter set: every figure an integer, money times `quantity`, scaled by 10^8."""
    s = merged.summary
    state, _ = split_state(merged.end)
    held_over_gap = s.tail_gap if s.tail else 0
    result: dict[str, object] = {
        "job_id": job,
        "strategy_id": spec.strategy,
        "symbol": spec.symbol,
        "params": spec.params,
        "start": spec.start,
        "end": spec.end,
        "bars": s.bars,
        "missing_minutes": spec.minutes - s.bars,
        "total_pnl": s.profit * spec.quantity // SCALE,
        "sharpe_ratio": sharpe(s.profit, s.squares, s.days),
        "sortino_ratio": sortino(s.profit, s.loss_squares, s.days),
        "max_drawdown": s.drawdown * spec.quantity // SCALE,
        "trades": s.trades,
        "wins": s.wins,
        "gross_profit": s.gross_profit * spec.quantity // SCALE,
        "gross_loss": s.gross_loss * spec.quantity // SCALE,
        "fees": s.fees * spec.quantity // SCALE,
        "fills": s.fills,
        "exposure_bars": s.exposure,
        "open_position": int(state.side),
        "ambiguous_bars": s.ambiguous,
        "trades_over_gaps": s.over_gaps + held_over_gap,
        "days": s.days,
        "sharpe_recipe": SHARPE_RECIPE,
        "spec": msgspec.to_builtins(spec),
        "data_digest": data_digest,
    }
    digest = hashlib.sha256(json.dumps(result, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return {**result, "result_digest": digest, "slices": plan.slices, "repaired_slices": merged.repaired}


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
