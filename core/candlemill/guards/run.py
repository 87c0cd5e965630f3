"""The guards of one run, computed on request: confidence intervals, Sharpe ratio corrections, costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from candlemill.backtests.replay import Replay
from candlemill.engine.candles import Column
from candlemill.formatting import percent
from candlemill.guards.bootstrap import REPLICATES, bootstrap, shuffle_trades
from candlemill.guards.break_even import costs
from candlemill.guards.deflated_sharpe import minimum_track_record, probabilistic_sharpe, track_of
from candlemill.guards.gaps import data_cautions
from candlemill.units import SCALE

SHUFFLED = 5_000_000  # limit on trades x replicates of the random orders
CONFIDENCE = SCALE * 95 // 100


def run_guards(result: Mapping[str, Any], daily: Column, ratios: Column, trades: Column, seed: int) -> dict[str, Any]:
    """Compute the guards of one result, ready for JSON: integers (scaled by 10^8 unless counts), strings, None.

    `daily` are its daily profits in money; `ratios` the daily values from which its Sharpe ratio is computed (the same,
    or the returns of a compound account); `trades` the profits of its trades. The same seed gives the same bits on
    every machine.
    """
    track = track_of(ratios)
    replicates = min(REPLICATES, max(99, SHUFFLED // max(1, len(trades))))
    cost = costs(result["total_pnl"], result["fees"], result["turnover"])
    found = {
        "probabilistic_sharpe": probabilistic_sharpe(track) if track else None,
        "minimum_track_days": minimum_track_record(track) if track else None,
        "costs": cost,
        "bootstrap": bootstrap(daily, result["capital"], seed),
        "shuffle": shuffle_trades(trades, seed, replicates),
    }
    out: dict[str, Any] = msgspec.to_builtins(found)
    return {**out, "warnings": [*data_cautions(result), *_warnings(out, len(daily))]}


def with_guards(trace: Replay, seed: int) -> Replay:
    """Return a copy of the trace whose result has `guards` for the report."""
    found = run_guards(trace.result, trace.daily, trace.ratios, trace.trades.profit, seed)
    return msgspec.structs.replace(trace, result={**trace.result, "guards": found})


def _warnings(out: Mapping[str, Any], days: int) -> Sequence[str]:
    warnings = []
    sure, needed = out["probabilistic_sharpe"], out["minimum_track_days"]
    if sure is not None and sure < CONFIDENCE:
        warnings.append(f"the Sharpe ratio is above 0 with a probability of {percent(sure)} only")
    if needed is not None and needed > days:
        warnings.append(f"{days} days are few: a Sharpe ratio like this shows after {needed:,}")
    interval = (out["bootstrap"] or {}).get("figures", {}).get("total_pnl")
    if interval is not None and interval["low"] < 0 < interval["high"]:
        warnings.append("the bootstrap's interval of the profit holds 0: it may as well be a loss")
    return warnings
