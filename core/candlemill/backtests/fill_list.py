"""Fills of one run, each with its side, quantity, price and fee."""

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.account_log import AccountLog
from candlemill.backtests.spec import Spec
from candlemill.backtests.spec_rules import rules_of
from candlemill.engine.account import FEE
from candlemill.engine.account_events import ENDING
from candlemill.engine.candles import Column
from candlemill.engine.fill_tape import LIQUIDATION, ORDER, STOP, TAKE, TARGET
from candlemill.engine.fills import BOTH, Fills
from candlemill.engine.fills import STOP as STOPPED
from candlemill.engine.fills import TAKE as TAKEN
from candlemill.engine.summary import FINE
from candlemill.units import SCALE

WHAT = ("target", "order", "stop", "take", "liquidation", "ruin")
OF_LOG = {TARGET: 0, ORDER: 1, STOP: 2, TAKE: 3, LIQUIDATION: 4, ENDING: 5}


class FillList(msgspec.Struct, frozen=True):
    """Fills in order, one element per fill in every column, also those of a position that is still open.

    `t` are the open times of their bars, `side` is 1 (buys) or -1 (sells), prices are after slippage, fees rounded down
    (below 0: rebates). `what` are indexes into WHAT: a target is what the strategy wants to hold.
    """

    t: Column
    side: Column
    what: NDArray[np.int8]
    quantity: Column
    price: Column
    fee: Column


def fills_of_log(log: AccountLog, t: Column) -> FillList:
    """Return the fills of an account's log; `t` are the times of the bars. Raises OverflowError."""
    filled = (log.is_fill | (log.what == ENDING)) & (log.moved != 0)
    paid = np.where(log.is_fill, log.paid, 0)[filled]
    fees = [int(amount) // log.fine for amount in paid.tolist()]
    what = [OF_LOG[kind] for kind in log.what[filled].tolist()]
    moved = log.moved[filled]
    return FillList(
        t[log.bar[filled]],
        np.sign(moved),
        np.array(what, dtype=np.int8),
        np.abs(moved),
        log.price[filled],
        np.array(fees, dtype=np.int64),
    )


def fills_of_run(spec: Spec, fills: Fills, quantity: Column, t: Column) -> FillList:
    """Return the fills of a run of positions -1, 0 and 1, where they alternate: one opens, one closes.

    `quantity` has that of each position, a last open one included. Raises OverflowError.
    """
    found, rules = fills.columns(), rules_of(spec)
    side = found["side"].copy()
    side[1::2] = -side[:-1:2][: len(side[1::2])]
    held = np.repeat(quantity, 2)[: len(side)]
    reason = found["reason"]
    what = np.select([(reason == STOPPED) | (reason == BOTH), reason == TAKEN], [2, 3], 0).astype(np.int8)
    rates = np.where(reason == TAKEN, int(rules.maker_fee) * FEE, int(rules.fee) * FEE)
    columns = (found["price"].tolist(), rates.tolist(), held.tolist())
    fees = [price * rate * q // (FINE * SCALE) for price, rate, q in zip(*columns, strict=True)]
    kept = held > 0
    return FillList(
        t[found["bar"]][kept], side[kept], what[kept], held[kept], found["price"][kept],
        np.array(fees, dtype=np.int64)[kept],
    )  # fmt: skip
