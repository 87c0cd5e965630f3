"""How much of the differences between trials each dimension explains by itself."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candlemill.studies.study import Study

GROUPS = 8  # at most, of the values of a dimension
LEAST = 8  # trials with a score


def importance(study: Study) -> dict[str, float]:
    """Return the share of the variance of scores that lies between groups of like values of each dimension, corrected
    for the number of groups (0 to 1, epsilon squared); the largest first, empty for fewer than LEAST trials. What
    several explain together only is in none of them."""
    done = [trial for trial in study.trials if trial.state == "done" and trial.score is not None]
    if len(done) < LEAST:
        return {}
    scores = np.array([float(trial.score or 0) for trial in done])
    found = {}
    for name, values in study.request.space.items():
        places = {_key(value): k for k, value in enumerate(values)}
        found[name] = _explained(scores, np.array([places[_key(trial.point[name])] for trial in done]))
    return dict(sorted(found.items(), key=lambda one: (-one[1], one[0])))


def _key(value: Any) -> tuple[str, Any]:
    return type(value).__name__, value


def _explained(scores: NDArray[np.float64], places: NDArray[np.int64]) -> float:
    groups = _grouped(places)
    count, n = len(set(groups)), len(scores)
    total = float(((scores - scores.mean()) ** 2).sum())
    if total == 0 or count < 2 or n <= count:
        return 0.0
    means = [scores[groups == group].mean() for group in set(groups)]
    sizes = [int((groups == group).sum()) for group in set(groups)]
    between = sum(size * (mean - scores.mean()) ** 2 for size, mean in zip(sizes, means, strict=True))
    noise = (total - between) / (n - count)
    return float(round(min(max((between - (count - 1) * noise) / total, 0.0), 1.0), 4))


def _grouped(places: NDArray[np.int64]) -> list[int] | NDArray[np.int64]:
    """Return the group of each trial: its value, or where there are many a range of neighbouring values."""
    if len(set(places.tolist())) <= GROUPS:
        return places
    edges: Sequence[float] = np.quantile(places, np.linspace(0, 1, GROUPS + 1)[1:-1]).tolist()
    return np.searchsorted(edges, places, side="right")
