"""Samplers of studies: Optuna's, called for one trial after the other; and a list of points.

Each dimension is an index into its values, so that a sampler never makes a value of its own.
"""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import msgspec

from candlemill.errors import BadInput
from candlemill.studies.space import Dimension, Point

GRID_LIMIT = 1_000_000  # points, which Optuna keeps in memory


class Ended(msgspec.Struct, frozen=True):
    """How a trial ended, and its scores, as far as it has them."""

    state: str
    scores: list[int | None]


class Suggestion(msgspec.Struct, frozen=True):
    """A trial that a sampler asks for; `handle` is the sampler's own."""

    point: Point
    handle: Any = None


class Sampler(Protocol):
    """Chooses the points of trials one after the other."""

    def ask(self) -> Suggestion | None:
        """Return the next trial, or None if there is none left."""

    def should_prune(self, suggestion: Suggestion, score: int, rung: int) -> bool:
        """Return whether a trial with this score after a part of the range is not worth the rest."""

    def tell(self, suggestion: Suggestion, ended: Ended) -> None:
        """Take in the end of a trial."""


class ListedPoints:
    """The points of a list, in order."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._left = list(points)[::-1]

    def ask(self) -> Suggestion | None:
        return Suggestion(self._left.pop()) if self._left else None

    def should_prune(self, suggestion: Suggestion, score: int, rung: int) -> bool:
        return False

    def tell(self, suggestion: Suggestion, ended: Ended) -> None:
        pass


class OptunaSampler:
    """A sampler of Optuna in memory. Its seed and the scores decide everything that it asks for."""

    def __init__(
        self, name: str, pruner: str, seed: int, space: Sequence[Dimension], descending: Sequence[bool]
    ) -> None:
        optuna = _optuna()
        self._space, self._optuna = space, optuna
        self._sizes = {one.name: len(one.values) for one in space}
        directions = ["maximize" if one else "minimize" for one in descending]
        self._study = optuna.create_study(
            directions=directions, sampler=self._sampler(name, seed), pruner=_pruner(optuna, pruner)
        )
        self._left = _size(self._sizes) if name == "grid" else None

    def _sampler(self, name: str, seed: int) -> Any:
        samplers = self._optuna.samplers
        if name == "random":
            return samplers.RandomSampler(seed=seed)
        if name == "grid":
            if (count := _size(self._sizes)) > GRID_LIMIT:
                raise BadInput(f"the grid has {count:,} points, the limit is {GRID_LIMIT:,}: use --sampler random")
            return samplers.GridSampler({name: list(range(size)) for name, size in self._sizes.items()}, seed=seed)
        if name == "cmaes":
            if find_spec("cmaes") is None:
                raise BadInput("--sampler cmaes needs cmaes: pip install 'candlemill[optimize]'")
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        return samplers.TPESampler(seed=seed)

    def ask(self) -> Suggestion | None:
        if self._left is not None:
            if self._left == 0:
                return None
            self._left -= 1
        trial = self._study.ask()
        point: Point = {}
        for one in self._space:
            last = len(one.values) - 1
            if one.ordered:
                k = trial.suggest_int(one.name, 0, last)
            else:
                k = trial.suggest_categorical(one.name, list(range(last + 1)))
            point[one.name] = one.values[k]
        return Suggestion(point, trial)

    def should_prune(self, suggestion: Suggestion, score: int, rung: int) -> bool:
        suggestion.handle.report(float(score), rung)
        found: bool = suggestion.handle.should_prune()
        return found

    def tell(self, suggestion: Suggestion, ended: Ended) -> None:
        if self._left == 0:
            return  # the last point of a grid: nothing follows, and Optuna stops a loop of its own here
        states = self._optuna.trial.TrialState
        known = [float(score) for score in ended.scores if score is not None]
        if ended.state == "done" and len(known) == len(ended.scores):
            self._study.tell(suggestion.handle, known)
        else:
            self._study.tell(suggestion.handle, state=states.PRUNED if ended.state == "pruned" else states.FAIL)


def _size(sizes: dict[str, int]) -> int:
    total = 1
    for size in sizes.values():
        total *= size
    return total


def _pruner(optuna: Any, name: str) -> Any:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)
    return optuna.pruners.NopPruner()


def _optuna() -> Any:
    """Return the library, without its messages. Raises BadInput if it is not installed."""
    try:
        optuna = import_module("optuna")
    except ImportError:
        raise BadInput("a study asks Optuna, which is not installed: pip install 'candlemill[optimize]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def make_sampler(
    name: str,
    pruner: str,
    seed: int,
    space: Sequence[Dimension],
    points: Sequence[Point],
    descending: Sequence[bool],
) -> Sampler:
    """Return the sampler of a study; `descending`: whether more is better, of each figure.

    Raises BadInput if a library is missing.
    """
    return ListedPoints(points) if name == "points" else OptunaSampler(name, pruner, seed, space, descending)
