"""What follows from a job's spec: rules of fills and of the account, the columns and bars that its slices read."""

from collections.abc import Sequence

from candlemill.backtests.account import AccountRules, Lot
from candlemill.backtests.spec import DEFAULT_CAPITAL, Spec
from candlemill.engine.account import COMPOUND, FIXED, NOTIONAL, Sizing
from candlemill.engine.position import ExecutionRules
from candlemill.strategies import REGISTERED, OrderStrategy, PanelStrategy, Strategy, Weighted
from candlemill.strategies.base import lookback_of, needs_of, warm_up_of

WARM_UP_BARS = 4_320  # three days of minutes: enough for nearly every guess to be right
WARM_UP_LIMIT = 262_144  # minutes; a warm-up longer than a slice costs more than the repair of a wrong guess
FEW_SETS = 8  # at most so many keep tapes of their fills
COLUMNS = ("t", "open", "high", "low", "close", "volume")


def rules_of(spec: Spec) -> ExecutionRules:
    return ExecutionRules(
        spec.fee,
        spec.slippage,
        spec.stop_loss,
        spec.take_profit,
        spec.trailing_stop,
        spec.fill == "close",
        spec.fee if spec.maker_fee is None else spec.maker_fee,
        spec.sizing == "compound",
        best_path=spec.path == "best",
        marked=spec.account == "units",
        timeframe=spec.timeframe,
        limit_through=spec.limit_through,
    )


def places_orders(strategy: str) -> bool:
    """Return whether a strategy places orders or states weights."""
    kind = REGISTERED.get(strategy)  # None while `check` tries a class that has no name yet
    return kind is not None and issubclass(kind, OrderStrategy | Weighted)


def sees_panel(strategy: str) -> bool:
    """Return whether a strategy sees all symbols of a job, which then have one account."""
    kind = REGISTERED.get(strategy)
    return kind is not None and issubclass(kind, PanelStrategy)


def walks_minutes(spec: Spec) -> bool:
    """Return whether fills are decided minute by minute.

    This is so for orders and weights, with margin, where real money may take a share of the volume only, and if the
    better outcome of an ambiguous minute counts, too.
    """
    limited = spec.account == "cash" and spec.volume_share != 0
    return spec.path != "worst" or spec.margin != "none" or limited or places_orders(spec.strategy)


def keeps_tapes(spec: Spec) -> bool:
    """Return whether a job's slices are decided without its account, which is settled from their tapes.

    So few sets are computed beside each other in time. Of many sets the account is carried from slice to slice, and
    nothing is stored of each fill.
    """
    few = spec.combinations <= FEW_SETS
    one_way = not walks_minutes(spec) and not sees_panel(spec.strategy) and not spec.varies
    return spec.account == "cash" and few and one_way


def sizing_of(spec: Spec) -> Sizing | None:
    """Return the sizing of trades; None if all are one unit, which the book computes alone."""
    if spec.sizing == "compound":
        return Sizing(COMPOUND)
    if spec.sizing == "notional":
        return Sizing(NOTIONAL, 0, spec.notional or 0, spec.volume_share, spec.volume_scale)
    if spec.volume_share:
        return Sizing(FIXED, spec.quantity, 0, spec.volume_share, spec.volume_scale)
    return None


def is_per_unit(spec: Spec) -> bool:
    """Return whether amounts are per unit of base; the figures are then multiplied by the quantity as the last step."""
    return spec.account == "units" and sizing_of(spec) is None and not walks_minutes(spec)


def account_rules(spec: Spec) -> AccountRules | None:
    """Return the rules of an account of real money; None for account units."""
    if spec.account != "cash":
        return None
    lot = Lot(spec.step, spec.min_quantity, spec.min_notional)
    capital = spec.capital or DEFAULT_CAPITAL
    return AccountRules(
        capital, spec.size, spec.quantity, spec.notional or capital, spec.leverage, spec.borrow, lot, margin=spec.margin
    )


def columns_read(spec: Spec, strategies: Sequence[Strategy]) -> tuple[str, ...]:
    """Return the columns of candles that the job reads, in the order of `COLUMNS`."""
    names = {"t", "open", "close"}
    if walks_minutes(spec) or any(one.stop_loss or one.take_profit or one.trailing_stop for one in spec.variants):
        names |= {"high", "low"}
    if spec.volume_share:
        names.add("volume")
    for strategy in strategies:
        names |= needs_of(strategy)
    return tuple(name for name in COLUMNS if name in names)


def context_bars(spec: Spec, strategies: Sequence[Strategy], exact: bool) -> int:
    """Return how many minute bars before the slice a task reads: lookback, and a warm-up if the start state is guessed.

    A k-bar has at most k minutes; one more bar is read because the first may be incomplete. With `warm_up` stored, a
    memory begins as many bars before the job as `warm_up()` says.
    """
    lookback = max(map(lookback_of, strategies), default=0)
    k = spec.longest_timeframe
    decision_bars = (lookback + 1) * k if k > 1 else lookback
    own = max(map(warm_up_of, strategies), default=0) * k
    if spec.warm_up == "stored":
        decision_bars += own
    if exact:
        return decision_bars + 1
    return decision_bars + max(WARM_UP_BARS, 3 * k, min(own, WARM_UP_LIMIT)) + 1
