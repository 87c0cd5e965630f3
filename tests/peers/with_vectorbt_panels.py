"""Weights over many symbols with shared cash in vectorbt: `from_orders` with target percentages."""

import numpy as np
import vectorbt as vbt
from panel_runs import CAPITAL, FEE, Floats, PanelRun, Simulated, frame


def simulated(run: PanelRun, weights: Floats) -> Simulated:
    """Fills at the next hour's open, of the account's value at the hour's close that decided them."""
    portfolio = vbt.Portfolio.from_orders(
        frame(run.closes), frame(_later(weights)), size_type="targetpercent", price=frame(run.opens),
        val_price=frame(_later(run.closes)), fees=FEE / 1e6, init_cash=CAPITAL, cash_sharing=True, group_by=True,
        call_seq="auto", freq="1h",
    )  # fmt: skip
    bought, price = np.zeros(run.opens.shape), np.zeros(run.opens.shape)
    for one in portfolio.orders.values:
        bought[one["idx"], one["col"]] += one["size"] if one["side"] == 0 else -one["size"]
        price[one["idx"], one["col"]] = one["price"]
    return Simulated(bought, price, portfolio.value().to_numpy())


def against(run: PanelRun, theirs: Simulated, weights: Floats) -> list[tuple[int, int]]:
    """Hours and symbols of fills that would trade against the change of the weight."""
    held, before, found = np.zeros(weights.shape[1]), np.zeros(weights.shape[1]), []
    for row, wanted in enumerate(weights[:-1]):
        held += theirs.bought[row]
        for k in np.flatnonzero(~np.isnan(wanted)).tolist():
            step, before[k] = wanted[k] - before[k], wanted[k]
            if wanted[k] != 0 and step * (wanted[k] * theirs.equity[row] / run.closes[row, k] - held[k]) < 0:
                found.append((row + 1, k))
    return found


def _later(values: Floats) -> Floats:
    """What is known at the open of the next hour."""
    return np.vstack((np.full((1, values.shape[1]), np.nan), values[:-1]))
