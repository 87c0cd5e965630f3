"""Figures of merged slices, and the digest of a result."""

import hashlib
import json
import re
from collections.abc import Sequence
from decimal import Decimal, localcontext
from itertools import accumulate, pairwise
from math import gcd, isqrt
from operator import sub
from typing import Any

import msgspec
import numpy as np

from candlemill.backtests.account import AccountState
from candlemill.backtests.identity import job_id
from candlemill.backtests.margin import price_of_liquidation
from candlemill.backtests.merge import OF_SYMBOL, MergedSlices
from candlemill.backtests.metrics import metrics_of_sets
from candlemill.backtests.panel import figures_of
from candlemill.backtests.plan import Plan
from candlemill.backtests.slice import PATHS
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import account_rules, is_per_unit
from candlemill.backtests.states import split_state
from candlemill.engine.candles import DAY_MS
from candlemill.engine.compound import DAY_SHARES, LOG, NO_SHARE
from candlemill.engine.summary import FINE, CarriedState
from candlemill.units import SCALE

GUARD_DIGITS = 10**12
_LONG_NUMBER = re.compile(rb'"-?[0-9]{19}')

# Definition of the ratios, included in every result.
SHARPE_RECIPE = {"interval": "1d", "periods_per_year": 365, "ddof": 1, "risk_free_rate": 0}


# Amounts of money that slices add up.
SUMS = ("gross_profit", "gross_loss", "fees", "funding", "turnover", "gap_profit")

# Figures of each path in the interval between the worst and the best order of events inside minutes.
INTERVAL = (
    "total_pnl", "sharpe_ratio", "sortino_ratio", "max_drawdown", "trades", "wins", "fees",
    "gross_profit", "gross_loss", "turnover", "ambiguous_bars",
)  # fmt: skip


class Set(msgspec.Struct, frozen=True):
    """A merged parameter set, with the spec and the job id of its own job."""

    spec: Spec
    merged: MergedSlices
    job: str


def result_of(
    spec: Spec, plan: Plan, merged: MergedSlices, job: str, data_digest: str
) -> tuple[dict[str, object], list[int]]:
    """Return the result of one parameter set, and the daily figures on which its ratios are based.

    Every figure is an integer, money scaled by 10^8. The daily figures are profits in money; for a compound account,
    returns in 10^-15. With `path=both` all are those of the worst path, and `interval` has the main ones of each path.
    """
    return results_of([Set(spec, merged, job)], plan, data_digest)[0]


def results_of(sets: Sequence[Set], plan: Plan, data_digest: str) -> list[tuple[dict[str, object], list[int]]]:
    """Do the same as `result_of` for parameter sets with the same days, in few passes over all of their days."""
    drafts = [_draft(one, data_digest) for one in sets]
    if not drafts:
        return []
    found = metrics_of_sets(
        sets[0].merged.days * DAY_MS,
        [returns.profits for _, returns in drafts],
        [returns.capital for _, returns in drafts],
        [result for result, _ in drafts],
    )
    for one, (result, _), figures in zip(sets, drafts, found, strict=True):
        result["metrics"] = figures
        result["result_digest"] = digest_of_result(result)
        result |= {"slices": plan.slices, "repaired_slices": one.merged.repaired}
    return [(result, returns.daily) for result, returns in drafts]


def _draft(one: Set, data_digest: str) -> tuple[dict[str, object], "Returns"]:
    """Return the result of one parameter set as far as it needs no other figures, and its returns."""
    spec, merged = one.spec, one.merged
    result, returns = _figures(spec, merged, one.job, data_digest)
    result["spec"] = msgspec.to_builtins(spec)
    if merged.best is not None:
        of_best = _figures(spec, merged.best, one.job, data_digest)[0]
        result["interval"] = {
            path: {"job_id": job_id(msgspec.structs.replace(spec, path=path), data_digest)}
            | {name: figures[name] for name in INTERVAL}
            for path, figures in zip(PATHS, (result, of_best), strict=True)
        }
        result["best_path_pnl"] = of_best["total_pnl"]
    result["symbols"] = {spec.symbol: {name: result[of] for name, of in OF_SYMBOL.items()}}
    if merged.sums:
        result["symbols"], result["open_position"] = figures_of(spec.symbols, merged.sums, merged.end)
    return result, returns


def _figures(spec: Spec, merged: MergedSlices, job: str, data_digest: str) -> tuple[dict[str, object], "Returns"]:
    """Return the figures of one path."""
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
        "fills": s.fills,
        "unfilled": s.unfilled,
        "borrow": returns.money(s.borrow),
        "cut_orders": s.cut,
        "rejected_orders": s.rejected,
        "liquidations": s.liquidations,
        "liquidation_price": liquidation_of(spec, state),
        "exposure_bars": s.exposure,
        "open_position": _side(spec, merged, state),
        "ambiguous_bars": s.ambiguous,
        "trades_over_gaps": s.over_gaps + held_over_gap,
        "days": s.days,
        "first_open": s.first,
        "last_close": s.last,
        "sharpe_recipe": SHARPE_RECIPE,
        "data_digest": data_digest,
    }
    return result | returns.sums, returns


def _side(spec: Spec, merged: MergedSlices, state: CarriedState) -> int:
    """Return the side of the position at the end; with real money it needs a quantity."""
    if spec.account != "cash" or not state.account:
        return int(state.side)
    held = sum(holding.held for holding in AccountState.from_bytes(state.account).holdings.values())
    return (held > 0) - (held < 0)


def liquidation_of(spec: Spec, state: CarriedState) -> int | None:
    """Return the price at which the position that is open at the end would be liquidated, None without one."""
    account = account_rules(spec)
    if spec.margin == "none" or account is None or not state.account:
        return None
    return price_of_liquidation(spec.tiers[spec.symbol], account, AccountState.from_bytes(state.account))


def digest_of_result(result: dict[str, object]) -> str:
    """Return the SHA-256 of a result as the JSON text of Python's `json`, with sorted keys and no spaces."""
    return hashlib.sha256(_canonical(result)).hexdigest()


def _canonical(result: dict[str, object]) -> bytes:
    """Return the result as canonical JSON. msgspec writes the same bytes faster where there is no float, no number of
    more than 64 bits (it makes texts of them), and no text that Python's `json` would escape.
    """
    spec: Any = result.get("spec")
    if spec and not spec["schedule"] and not any(isinstance(value, float) for value in spec["params"].values()):
        text = msgspec.json.encode(result, order="sorted")
        if text.isascii() and b"\\" not in text and b"\x7f" not in text and not _LONG_NUMBER.search(text):
            return text
    return json.dumps(result, sort_keys=True, separators=(",", ":")).encode()


class Returns:
    """Value in money of an account's own unit, and the daily figures on which the ratios are based.

    `profits` are the days' profits in money, `sums` what was paid, traded, won and lost. The ratios of a compound
    account use its returns, all others use their profits. `total`, `squares` and `loss_squares` are sums over the days.
    """

    def __init__(self, spec: Spec, merged: MergedSlices) -> None:
        self._compound = spec.sizing == "compound"
        s = merged.summary
        own = spec.quantity * s.first // SCALE
        self.capital: int = spec.capital or max(1, own)
        # To convert an amount from the account's unit to money, multiply by the first and divide by the second.
        factor, divisor = 1, FINE * SCALE
        if self._compound:
            factor, divisor = self.capital, LOG
        elif spec.account == "cash":
            divisor = SCALE
        elif is_per_unit(spec):
            factor = spec.quantity
        common = gcd(factor, divisor)
        self._factor, self._divisor = factor // common, divisor // common
        days = np.array(merged.daily, dtype=object).reshape(-1, len(DAY_SHARES)) if self._compound else None
        self.daily: list[int] = merged.daily if days is None else days[:, 0].tolist()
        self.total, self.squares, self.loss_squares = sum(self.daily), s.squares, s.loss_squares
        self._lost = self._compound and -LOG in self.daily
        if self._lost:  # a ruined account has no later figures
            left = self.daily[: self.daily.index(-LOG) + 1]
            self.total = sum(left)
            self.squares = sum(x * x for x in left)
            self.loss_squares = sum(x * x for x in left if x < 0)
            self.daily = left + [0] * (len(self.daily) - len(left))
        if days is None:
            self.daily = self.profits = self._added(self.daily)
            self.sums = {name: self.money(getattr(s, name)) for name in SUMS}
        else:
            self.profits = compounded(self.daily, self.capital)
            self.sums = money_of_shares(days.tolist(), self.capital)

    def money(self, amount: int) -> int:
        """Convert an amount in the account's unit to money, rounded down."""
        return amount * self._factor // self._divisor

    def drawdown(self, fall: int) -> int:
        """Return the drawdown in money; for a compound account as a share of the peak, 10^8 being the whole peak."""
        if not self._compound:
            return self.money(fall)
        if self._lost:
            return SCALE
        with localcontext(prec=40):
            return int(((1 - (Decimal(-fall) / LOG).exp()) * SCALE).to_integral_value())

    def _added(self, daily: list[int]) -> list[int]:
        factor, divisor = self._factor, self._divisor
        levels = accumulate(daily if factor == 1 else [x * factor for x in daily], initial=0)
        marks = [level // divisor for level in levels]
        return list(map(sub, marks[1:], marks))


def money_of_shares(days: Sequence[Sequence[int]], capital: int) -> dict[str, int]:
    """Return `SUMS` in money, each rounded down once, from the `DAY_SHARES` of all days of a compound account."""
    value, paid = capital * GUARD_DIGITS, 0  # the equity at the day's start, and before the open trade's entry
    found = dict.fromkeys(SUMS, 0)
    for returned, fees, funding, turnover, won, lost, closed, opened, over_gaps in days:
        profit = value * closed - paid if closed != NO_SHARE else 0
        found["fees"] += value * fees
        found["funding"] += value * funding
        found["turnover"] += value * turnover
        found["gross_profit"] += value * won + max(profit, 0)
        found["gross_loss"] += value * lost + max(-profit, 0)
        found["gap_profit"] += value * over_gaps
        if opened != NO_SHARE:
            paid = value * opened
        value = value * (LOG + returned) // LOG
    return {name: amount // (LOG * GUARD_DIGITS) for name, amount in found.items()}


def compounded(daily: Sequence[int], capital: int) -> list[int]:
    """Return profits in money of returns in 10^-15, multiplied in fixed point with twelve digits more than money."""
    value = capital * GUARD_DIGITS
    marks = [capital]
    for x in daily:
        value = value * (LOG + x) // LOG
        marks.append(value // GUARD_DIGITS)
    return [after - before for before, after in pairwise(marks)]


def sharpe(total: int, squares: int, days: int) -> int:
    """Return mean over sample deviation of the daily profits, times sqrt(365) and 10^8, rounded half to even, exact."""
    if days < 2:
        return 0
    spread = days * squares - total * total
    return _signed_root(total, 365 * (days - 1) * SCALE**2, days * spread)


def sortino(total: int, loss_squares: int, days: int) -> int:
    """Do the same as `sharpe`, with the root of the mean squared negative daily profit over all days."""
    if days < 2:
        return 0
    return _signed_root(total, 365 * SCALE**2, days * loss_squares)


def _signed_root(factor: int, numerator: int, denominator: int) -> int:
    """Return factor * sqrt(numerator / denominator) rounded half to even; 0 for a denominator of 0."""
    if denominator == 0:
        return 0
    square = factor * factor * numerator
    root = isqrt(square // denominator)
    # Compare the square with (root + 1/2)^2, both times 4 * denominator.
    half = (2 * root + 1) ** 2 * denominator
    if 4 * square > half or (4 * square == half and root % 2 == 1):
        root += 1
    return root if factor >= 0 else -root
