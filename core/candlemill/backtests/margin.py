"""Maintenance tiers and mark prices of a perpetual, and the account beside its decisions. SEMANTICS-2, section 15.

Amounts and prices are scaled by 10^8, rates are ppm, times UTC milliseconds.
"""

from bisect import bisect_right
from collections.abc import Sequence

import msgspec
import numpy as np

from candlemill.backtests.account import AccountRules, AccountState, Holding, in_order
from candlemill.backtests.single import SYMBOL, AccountSlice
from candlemill.backtests.spec import Spec
from candlemill.backtests.tiers import TierTable
from candlemill.engine.candles import CandleColumns, Column
from candlemill.engine.margin import FAR, MarginAccount, MarginRules, VolumeLimit, Wallet, liquidation_price, own_money


class MarginData(msgspec.Struct, frozen=True):
    """A symbol's tables, ascending in time, and its mark prices where they are stored."""

    tables: Sequence[TierTable]
    marks: CandleColumns | None = None


class Settling(msgspec.Struct, frozen=True):
    """What an account needs that is settled while its fills are decided; funding is paid on the prices `funded` of the
    bars before, if given.
    """

    margin: MarginRules
    limit: VolumeLimit
    funded: Column | None = None


def settling_of(spec: Spec, candles: CandleColumns, marks: CandleColumns | None) -> Settling | None:
    """Return what decisions need of the account; None where they follow from prices alone."""
    if spec.account != "cash" or (spec.margin == "none" and not spec.volume_share):
        return None
    limit = VolumeLimit(spec.volume_share, spec.volume_scale or 1)
    if spec.margin == "none":
        return Settling(MarginRules(np.zeros(1, dtype=np.int64), [[]]), limit)
    data = margin_data(spec, marks)
    return Settling(margin_rules(candles, data), limit, funding_closes(candles, data))


def margin_data(spec: Spec, marks: CandleColumns | None) -> MarginData:
    """Return the tiers of a job of one symbol, and its mark prices."""
    tables = spec.tiers.get(spec.symbol)
    if not tables:
        raise ValueError(f"margin={spec.margin} without maintenance tiers of {spec.symbol}")
    return MarginData(tables, marks)


def lines_of(table: TierTable) -> list[tuple[int, int]]:
    return [(tier.rate, tier.amount) for tier in table.tiers]


def margin_rules(candles: CandleColumns, data: MarginData) -> MarginRules:
    """Return the tiers and mark prices at the bars."""
    t = candles.columns()["t"]
    since = np.searchsorted(t, np.array([table.valid_from for table in data.tables], dtype=np.int64))
    tables = [lines_of(table) for table in data.tables]
    if data.marks is None:
        return MarginRules(since, tables)
    marks = at_times(t, data.marks)
    return MarginRules(since, tables, *(marks[name] for name in ("open", "high", "low")))


def at_times(t: Column, marks: CandleColumns) -> dict[str, Column]:
    """Return the candles of `marks` that open at the times `t`; 0 where there is none."""
    columns = marks.columns()
    at = np.searchsorted(columns["t"], t)
    found = at < len(columns["t"])
    found[found] = columns["t"][at[found]] == t[found]
    out = {name: np.zeros(len(t), dtype=np.int64) for name in ("open", "high", "low", "close")}
    for name, column in out.items():
        column[found] = columns[name][at[found]]
    return out


def funding_closes(candles: CandleColumns, data: MarginData) -> Column | None:
    """Return the prices on which funding is paid: mark prices, and closes where there is none; None for all closes."""
    if data.marks is None:
        return None
    columns = candles.columns()
    marks = at_times(columns["t"], data.marks)["close"]
    return np.where(marks == 0, columns["close"], marks)


def margin_account(
    candles: CandleColumns, settling: Settling, rules: AccountRules, before: AccountState, lo: int, hi: int
) -> MarginAccount:
    """Return the account that is settled while bars `lo` to `hi - 1` are decided."""
    start: Holding = before.holdings[SYMBOL]
    flows = AccountSlice(candles, rules, before, lo, hi).flows()
    found = in_order(flows) if flows else {name: np.empty(0, dtype=np.int64) for name in ("bar", "what", "rate")}
    wallet = Wallet()
    wallet.cash, wallet.held = before.cash, start.held
    wallet.entry, wallet.margin = start.entry, start.margin
    return MarginAccount(
        candles, rules.of([SYMBOL]), settling.margin, (found["bar"], found["what"], found["rate"]), settling.funded,
        wallet, lo, start.made_price, *start.made_equity, settling.limit,
    )  # fmt: skip


def price_of_liquidation(tables: Sequence[TierTable], rules: AccountRules, end: AccountState) -> int | None:
    """Return the price at which the open position would be liquidated after `end`; None if no price does it."""
    holding = end.holdings[SYMBOL]
    if holding.held == 0:
        return None
    k = bisect_right([table.valid_from for table in tables], end.t)
    own = own_money(rules.margin == "isolated", end.cash, holding.held, holding.entry, holding.margin)
    price = liquidation_price(own, holding.held, lines_of(tables[max(0, k - 1)]))
    return None if price in (0, FAR) else int(price)
