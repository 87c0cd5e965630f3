"""A study in Python: its trials as a table, the best run, and how much of it may be luck."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from candlemill.api.guards import Guards
from candlemill.api.results import Run
from candlemill.api.session import Source, StrategyRef
from candlemill.backtests.metric_table import is_descending, order_of, unit_of
from candlemill.backtests.spec import ParamValue
from candlemill.errors import BadInput
from candlemill.local.runner import fetch
from candlemill.studies import study as studies
from candlemill.studies.space import Point, points_of
from candlemill.tables.table import Kind, Series, Table, from_rows

NO_LUCK = "fewer than two trials have a score: nothing tells how much of the best is luck"


class Study:
    """A search by trials. `trials` has each of them, `best()` the run of the best, which `warnings` and `guards` belong
    to: every trial that ran counts in them."""

    def __init__(self, source: Source, chosen: StrategyRef, found: studies.Study) -> None:
        self._source, self._chosen, self._found = source, chosen, found
        self.guards = Guards(found.guards) if found.guards else None

    @property
    def study_id(self) -> str:
        return self._found.study_id

    def __len__(self) -> int:
        return len(self._found.trials)

    @property
    def warnings(self) -> list[str]:
        return list(self.guards["warnings"]) if self.guards else [NO_LUCK]

    @property
    def params(self) -> Point:
        """What the best trial chose. Raises BadInput without one."""
        return dict(self._found.trials[self._best()].point)

    @property
    def front(self) -> list[int]:
        """The numbers of the trials that no other beats in all figures; empty for a study of one figure."""
        return list(self._found.front)

    @property
    def trials(self) -> Table:
        """Each trial: its number, what it chose, its score, how it ended, its job. The best first, those without a
        score last."""
        score, *others = self._found.request.scores
        scores = [one.score if one.state == "done" else None for one in self._found.trials]
        rows = [self._found.trials[k] for k in order_of(scores, is_descending(score))]
        unit = unit_of(score)
        values = np.array([np.nan if one.score is None else one.score / unit.scale for one in rows])
        further = {
            name: np.array([_scaled(one.more[k] if one.more else None, name) for one in rows])
            for k, name in enumerate(others)
        }
        texts = {name: np.array([getattr(one, name) for one in rows], dtype=object) for name in ("state", "job_id")}
        return Table(
            {
                "trial": Series(Kind.COUNT, np.array([one.number for one in rows], dtype=np.int64)),
                **from_rows([one.point for one in rows], sorted(self._found.request.space)),
                score: Series(Kind.FLOAT, values),
                **{name: Series(Kind.FLOAT, column) for name, column in further.items()},
                **{name: Series(Kind.OBJECT, column) for name, column in texts.items()},
            }
        )

    def best(self) -> Run:
        """Return the run of the best trial. Raises BadInput if no trial has a score."""
        found = self.run(self._best())
        found.warnings = [f"the best of {len(self):,} trials", *self.warnings]
        return found

    def run(self, number: int) -> Run:
        """Return the run of a trial by its number; of a pruned one that over a part of the range."""
        if not 0 <= number < len(self) or not self._found.trials[number].job_id:
            raise BadInput(f"run({number}): no such trial has run; `trials` has the numbers from 0 to {len(self) - 1}")
        with self._source.runner() as runner:
            row = fetch(runner.store, self._found.trials[number].job_id)
        return Run(self._source, self._chosen, row)

    def _best(self) -> int:
        if self._found.best is None:
            raise BadInput("no trial of the study has a score: try other values, or a longer range")
        return self._found.best

    def __repr__(self) -> str:
        return "\n".join([self._title(), repr(self.trials), *(f"warning: {text}" for text in self.warnings)])

    def _repr_html_(self) -> str:
        warned = "".join(f"<li>{escape(text)}</li>" for text in self.warnings)
        return f"<p><b>{escape(self._title())}</b></p><ul>{warned}</ul>{self.trials._repr_html_()}"

    def _title(self) -> str:
        request = self._found.request
        what = f"{request.spec.symbol} {request.spec.strategy}"
        return f"{what}, {len(self):,} trials by {request.score} ({request.sampler})"


def _scaled(value: int | None, figure: str) -> float:
    return np.nan if value is None else value / unit_of(figure).scale


def values_of(name: str, given: Any) -> list[ParamValue]:
    """Return the values of a dimension: a list, range or array, `(low, high)` of whole numbers or `(low, high, step)`,
    or text as on the command line. Raises BadInput."""
    from candlemill.backtests.grid import grid_values

    if isinstance(given, str):
        return grid_values(f"{name}={given}", given)
    if isinstance(given, tuple):
        if not 2 <= len(given) <= 3 or not all(isinstance(one, int | float) for one in given):
            raise BadInput(f"{name}={given!r}: a span is (low, high) or (low, high, step); several values are a list")
        return grid_values(f"{name}={given!r}", ":".join(map(repr, given)))
    return [one.item() if isinstance(one, np.generic) else one for one in given]


def rows_of(points: Any) -> tuple[dict[str, list[ParamValue]], list[Point]]:
    """Return the space and the points of a list of dicts or a DataFrame. Raises BadInput."""
    if hasattr(points, "to_dicts"):
        points = points.to_dicts()  # polars
    elif hasattr(points, "to_dict"):
        points = points.to_dict("records")  # pandas
    if not isinstance(points, Sequence) or not all(isinstance(one, Mapping) for one in points):
        raise BadInput("points is neither a DataFrame nor a list of dicts, like [{'fast': 10, 'slow': 50}]")
    plain = [{str(k): v.item() if isinstance(v, np.generic) else v for k, v in one.items()} for one in points]
    return points_of(plain)
