"""The guards of every sweep: estimates of how much of the best set's figure may be luck."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.spec import ParamValue
from candlemill.errors import BadInput
from candlemill.formatting import percent
from candlemill.guards.deflated_sharpe import (
    Track,
    annual,
    deflated_sharpe,
    expected_maximum,
    minimum_track_record,
    probabilistic_sharpe,
    track_of,
)
from candlemill.guards.matrix import Matrix, Trials, trials_of_sums
from candlemill.guards.overfitting import Overfitting, Spread, overfitting_of_sums
from candlemill.guards.row_sums import RowSums, row_sums
from candlemill.guards.stability import Stability, stability
from candlemill.guards.tried import ListedSets, Params, Tried
from candlemill.units import SCALE

# Thresholds of the warnings.
CHANCE = SCALE // 2  # probability of overfitting: above it the choice is no better than a random one
CONFIDENCE = SCALE * 95 // 100  # of the deflated Sharpe ratio
PLATEAU = SCALE // 2


def sweep_guards(
    matrix: Matrix,
    rows: Sequence[int],
    sets: Tried | Sequence[tuple[Params, int]],
    axes: Mapping[str, Sequence[ParamValue]],
    spread: Spread = map,
    trials: int | None = None,
) -> dict[str, Any]:
    """Compute the guards of a sweep's best set, ready for JSON: integers (scaled by 10^8 unless counts), strings, None.

    `sets` are all sets that ran, each with the figure that ranks it (the first highest is the best). `matrix` holds
    daily profits, int64 sets x days, of the sets with indices `rows` (see `matrix.thinned`), including the best one.
    `axes` is the grid. `spread` is used as `map` and may run in parallel. `trials`: how many sets were tried, if more
    than ran to their ends. docs/guards.md explains each key.
    """
    tried = ListedSets(sets, list(axes)) if isinstance(sets, Sequence) else sets
    best = tried.best() if len(tried) else -1
    if len(rows) != len(matrix) or best not in rows:
        raise BadInput(f"{len(rows)} sets for {len(matrix)} rows of profits: give one row each, the best set's too")
    trials = max(len(tried), trials or 0)
    return guards_of_sums(row_sums(matrix), matrix[list(rows).index(best)], tried, axes, spread, trials)


def guards_of_sums(
    sums: RowSums,
    profits: NDArray[np.int64],
    tried: Tried,
    axes: Mapping[str, Sequence[ParamValue]],
    spread: Spread,
    trials: int,
) -> dict[str, Any]:
    """Compute the guards from sums of the sets' daily profits, and from the daily profits of the best set."""
    track = track_of(profits)
    found = overfitting_of_sums(sums.days, sums.blocks, sums.squares, spread)
    steady = stability(axes, tried)
    out = {
        "best": dict(tried.params(tried.best())),
        "trials": trials,
        "rows": len(sums.ratios),
        "days": sums.days,
        **_sharpe_guards(trials_of_sums(sums.ratios, sums.total), track, trials),
        "overfitting": None if found is None else msgspec.to_builtins(found),
        "stability": None if steady is None else msgspec.to_builtins(steady),
    }
    return {**out, "warnings": _warnings(out, found, steady)}


def _sharpe_guards(of_all: Trials, track: Track | None, trials: int) -> dict[str, int | None]:
    independent = of_all.independent(trials)
    luck = annual(expected_maximum(independent, of_all.variance))
    return {
        "independent_trials": independent,
        "luck_sharpe": luck,
        "sharpe_ratio": annual(track.sharpe) if track else None,
        "probabilistic_sharpe": probabilistic_sharpe(track) if track else None,
        "deflated_sharpe": deflated_sharpe(track, independent, of_all.variance) if track else None,
        "deflated_sharpe_all": deflated_sharpe(track, trials, of_all.variance) if track else None,
        "minimum_track_days": minimum_track_record(track) if track else None,
    }


def _warnings(out: Mapping[str, Any], found: Overfitting | None, steady: Stability | None) -> list[str]:
    warnings = []
    if out["trials"] > 1 and found is None:
        warnings.append(f"{out['days']} days are too few to tell overfitting: take a longer range")
    if found is not None and found.probability >= CHANCE:
        warnings.append(
            f"probability of overfitting {percent(found.probability)}: the choice is no better than a blind one"
        )
    deflated = out["deflated_sharpe"]
    if out["trials"] > 1 and deflated is not None and deflated < CONFIDENCE:
        warnings.append(
            f"deflated Sharpe ratio {percent(deflated)}, below 95%: the best of {out['trials']:,} may be luck"
        )
    needed = out["minimum_track_days"]
    if needed is not None and needed > out["days"]:
        warnings.append(f"{out['days']} days are few: a Sharpe ratio like this shows after {needed:,}")
    if steady is not None and steady.plateau is not None and steady.plateau < PLATEAU:
        warnings.append(f"the best set stands alone: its neighbours make {percent(steady.plateau)} of its figure")
    return warnings
