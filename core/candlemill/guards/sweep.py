"""What is told with every sweep: how much of the best set's figure may be luck."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from candlemill.errors import BadInput
from candlemill.guards.overfitting import Overfitting, Spread, overfitting
from candlemill.guards.rows import Matrix, trials_of
from candlemill.guards.sharpe import (
    Track,
    annual,
    deflated_sharpe,
    expected_maximum,
    minimum_track_record,
    probabilistic_sharpe,
    track_of,
)
from candlemill.guards.stability import Stability, stability
from candlemill.model import SCALE, ParamValue

# From where on a figure is warned of.
CHANCE = SCALE // 2  # probability of overfitting: the choice is then no better than a blind one
CONFIDENCE = SCALE * 95 // 100  # of the deflated Sharpe ratio
PLATEAU = SCALE // 2

Params = Mapping[str, ParamValue]


def sweep_guards(
    matrix: Matrix,
    rows: Sequence[int],
    sets: Sequence[tuple[Params, int]],
    axes: Mapping[str, Sequence[ParamValue]],
    spread: Spread = map,
) -> dict[str, Any]:
    """Guards of a sweep's best set, ready for JSON: integers (scaled by 10^8 where not counts), strings, None.

    `sets` are all that ran, with the figure they are chosen by (the first highest is the best); `matrix` are the daily
    profits, int64 sets x days, of those numbered `rows` (see `rows.thinned`), the best one among them; `axes` the grid.
    `spread` may have others help.
    docs/guards.md says what each key is.
    """
    best = max(range(len(sets)), key=lambda k: sets[k][1], default=-1)
    if len(rows) != len(matrix) or best not in rows:
        raise BadInput(f"{len(rows)} sets for {len(matrix)} rows of profits: give one row each, the best set's too")
    trials = len(sets)
    track = track_of(matrix[list(rows).index(best)])
    found = overfitting(matrix, spread)
    steady = stability(axes, sets)
    out = {
        "best": dict(sets[best][0]),
        "trials": trials,
        "rows": len(matrix),
        "days": matrix.shape[1],
        **_sharpe_guards(matrix, track, trials),
        "overfitting": None if found is None else msgspec.to_builtins(found),
        "stability": None if steady is None else msgspec.to_builtins(steady),
    }
    return {**out, "warnings": _warnings(out, found, steady)}


def _sharpe_guards(matrix: Matrix, track: Track | None, trials: int) -> dict[str, int | None]:
    of_all = trials_of(matrix)
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
    said = []
    if out["trials"] > 1 and found is None:
        said.append(f"{out['days']} days are too few to tell overfitting: take a longer range")
    if found is not None and found.probability >= CHANCE:
        said.append(f"probability of overfitting {_share(found.probability)}: the choice is no better than a blind one")
    deflated = out["deflated_sharpe"]
    if out["trials"] > 1 and deflated is not None and deflated < CONFIDENCE:
        said.append(f"deflated Sharpe ratio {_share(deflated)}, below 0.95: the best of {out['trials']:,} may be luck")
    needed = out["minimum_track_days"]
    if needed is not None and needed > out["days"]:
        said.append(f"{out['days']} days are few: a Sharpe ratio like this shows after {needed:,}")
    if steady is not None and steady.plateau is not None and steady.plateau < PLATEAU:
        said.append(f"the best set stands alone: its neighbours make {_share(steady.plateau)} of its figure")
    return said


def _share(value: int) -> str:
    return f"{value // 10**6 / 100:.2f}"
