"""What is told of one run on request: intervals, luck, costs."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from candlemill.engine.tape import Column
from candlemill.guards.costs import costs
from candlemill.guards.resample import REPLICATES, bootstrap, shuffle_trades
from candlemill.guards.sharpe import minimum_track_record, probabilistic_sharpe, track_of
from candlemill.model import SCALE
from candlemill.trace import Trace

SHUFFLED = 5_000_000  # trades that are put in another order, all replicates together
CONFIDENCE = SCALE * 95 // 100


def run_guards(result: Mapping[str, Any], daily: Column, ratios: Column, trades: Column, seed: int) -> dict[str, Any]:
    """Guards of one result, ready for JSON: integers (scaled by 10^8 where not counts), strings, None.

    `daily` are its daily profits in money; `ratios` the daily figures that its Sharpe ratio is of (the same, or the
    returns of a compound account); `trades` the profits of its trades. The same seed gives the same bits anywhere.
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
    return {**out, "warnings": _warnings(out, len(daily))}


def with_guards(trace: Trace, seed: int) -> Trace:
    """The same trace, its result with `guards` too: as reports show them."""
    found = run_guards(trace.result, trace.daily, trace.ratios, trace.trades.profit, seed)
    return msgspec.structs.replace(trace, result={**trace.result, "guards": found})


def _warnings(out: Mapping[str, Any], days: int) -> Sequence[str]:
    said = []
    sure, needed = out["probabilistic_sharpe"], out["minimum_track_days"]
    if sure is not None and sure < CONFIDENCE:
        said.append(f"the Sharpe ratio is above 0 with a probability of {sure // 10**6 / 100:.2f} only")
    if needed is not None and needed > days:
        said.append(f"{days} days are few: a Sharpe ratio like this shows after {needed:,}")
    interval = (out["bootstrap"] or {}).get("figures", {}).get("total_pnl")
    if interval is not None and interval["low"] < 0 < interval["high"]:
        said.append("the bootstrap's interval of the profit holds 0: it may as well be a loss")
    return said
