"""The account `cash`: random panels agree with the reference to the last integer, however they are cut or named."""

from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
from accounts import DAY, NAMES, SCALE, Panel, panels
from candlemill.backtests.marks import Accounted
from hypothesis import given, settings


def figures(found: Accounted) -> dict[str, Any]:
    s, entries = found.summary, found.entries
    return {
        "profit": s.profit,
        "low": s.low,
        "peak": s.peak,
        "drawdown": s.drawdown,
        "fees": s.fees,
        "funding": s.funding,
        "borrow": s.borrow,
        "turnover": s.turnover,
        "fills": s.fills,
        "trades": s.trades,
        "wins": s.wins,
        "won": s.gross_profit,
        "lost": s.gross_loss,
        "exposure": s.exposure,
        "daily": found.daily,
        "cut": entries.cut_orders,
        "rejected": entries.rejected_orders,
        "cash": found.end.cash,
        "held": {name: one.held for name, one in found.end.holdings.items()},
        "ruined": found.end.ruined,
    }


def expected(panel: Panel) -> dict[str, Any]:
    account = panel.reference()
    capital = panel.rules.capital
    marks = [capital * SCALE, *(int(x * SCALE) for x in account.equity.values())]
    peaks = [max(marks[: k + 1]) for k in range(len(marks))]
    ends = [capital * SCALE]
    minutes = list(account.equity)
    for k, minute in enumerate(minutes):
        if k + 1 == len(minutes) or minutes[k + 1] // DAY != minute // DAY:
            ends.append(marks[k + 1])
    return {
        "profit": marks[-1] - marks[0],
        "low": min(marks) - marks[0],
        "peak": max(marks) - marks[0],
        "drawdown": max(peak - mark for peak, mark in zip(peaks, marks, strict=True)),
        "fees": account.fees * SCALE,
        "funding": account.funded * SCALE,
        "borrow": account.borrowed * SCALE,
        "turnover": int(account.turnover * SCALE),
        "fills": account.traded,
        "trades": len(account.profits),
        "wins": sum(x > 0 for x in account.profits),
        "won": sum(x for x in account.profits if x > 0) * SCALE,
        "lost": -sum(x for x in account.profits if x <= 0) * SCALE,
        "exposure": account.exposure,
        "daily": [after - before for before, after in pairwise(ends)],
        "cut": account.cut,
        "rejected": account.rejected,
        "cash": account.cash,
        "held": account.held,
        "ruined": account.ruin is not None,
    }


@given(panels())
@settings(max_examples=100)
def test_settle_and_mark_agree_with_the_reference(panel: Panel) -> None:
    assert figures(panel.whole()) == expected(panel)


@given(panels(), st.permutations(NAMES), st.lists(st.integers(0, 3 * 48), max_size=4, unique=True))
@settings(max_examples=40)
def test_neither_cuts_nor_the_order_of_symbols_change_a_bit(panel: Panel, order: list[str], cuts: list[int]) -> None:
    whole = panel.whole()
    assert figures(panel.whole(order)) == figures(whole)
    total, _, state, parts = panel.cut([cut * DAY // 48 for cut in sorted(cuts)])
    assert state.to_bytes() == whole.end.to_bytes()
    same = ("profit", "peak", "low", "drawdown", "fees", "funding", "turnover", "fills", "trades", "wins", "exposure")
    assert [getattr(total, name) for name in same] == [getattr(whole.summary, name) for name in same]
    assert sum(part.entries.cut_orders for part in parts) == whole.entries.cut_orders
    assert sum(part.entries.rejected_orders for part in parts) == whole.entries.rejected_orders


@given(panels(), st.sets(st.integers(1, 2)))
def test_cut_at_midnights_the_days_are_the_same(panel: Panel, days: set[int]) -> None:
    total, daily, _, _ = panel.cut([day * DAY for day in sorted(days)])
    whole = panel.whole()
    assert daily == whole.daily
    assert (total.days, total.squares) == (whole.summary.days, whole.summary.squares)
