"""Stored jobs in Python: `cm.load`, `cm.jobs`, `cm.diff`."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from candlemill import config
from candlemill.api.of_symbols import Sweeps, WalkForwards
from candlemill.api.results import Portfolio, Run, Sweep, WalkForward
from candlemill.api.session import Source, StrategyRef
from candlemill.api.studies import Study
from candlemill.backtests.metric_table import unit_of
from candlemill.backtests.spec import spec_from_json
from candlemill.errors import BadInput, UnknownName, one_line
from candlemill.local.differences import Difference, difference
from candlemill.local.exports import Exported, exported
from candlemill.local.job_list import Listed, annotate, listed
from candlemill.local.runner import JobRunner
from candlemill.pipeline.job_search import search as find
from candlemill.pipeline.job_state import steps_of
from candlemill.pipeline.rows import Notes
from candlemill.pipeline.workflows import fold_choices, guards_of
from candlemill.strategies import loader
from candlemill.studies.study import study_of
from candlemill.tables.table import Kind, Series, Table

LISTS = frozenset({"tags", "params", "figures"})
TERMS = ("symbol", "strategy", "kind", "state", "text", "since", "until", "whole", *sorted(LISTS))


def load(job_id: str, *, strategy: str | None = None, metric: str = "sharpe_ratio", store: str | None = None) -> Any:
    """Return a stored job: a Run, Sweep, Portfolio, WalkForward or Study; of several symbols Sweeps or WalkForwards.

    `job_id` may be its first letters, six or more. `strategy` is the file of a strategy from a file, "FILE.py:Class".
    `metric` orders a sweep's sets. Raises UnknownName, and BadInput for a job without a result.
    """
    if not isinstance(job_id, str):
        raise BadInput(one_line(f"load({job_id!r:.60}): give a job's id, as text"))
    source = Source(config.dsn(store))
    if strategy is not None:
        loader.load(strategy)
    with source.runner() as runner:
        found = exported(runner.store, job_id)
        return _loaded(source, runner, found, metric, strategy)


def jobs(*, limit: int = 100, store: str | None = None, **search: Any) -> Table:
    """Return a row for each job of a search, the latest request first; a sweep is one row, with its best set's figures.

    Terms, all optional: `symbol`, `strategy`, `kind` ("backtest", "sweep", "study", "walk_forward", …), `state`,
    `text` (in label, note or tag), `since` and `until` ("2023-05"), and lists: `tags`, `params` (["fast=10"]) and
    `figures` (["sharpe_ratio>1.5", "max_drawdown<=2000"]). Raises BadInput.
    """
    if unknown := sorted(search.keys() - TERMS):
        raise UnknownName("term", unknown[0], list(TERMS), f"known are {', '.join(TERMS)}")
    for name in LISTS & search.keys():
        if isinstance(search[name], str):
            raise BadInput(f"{name}={search[name]!r:.60}: give a list")
    job_filter = find(**search)
    with Source(config.dsn(store)).runner() as runner:
        return _jobs_table(listed(runner.store, job_filter, limit))


def _jobs_table(found: Sequence[Listed]) -> Table:
    texts = {
        "job_id": [one.job_id for one in found],
        "kind": [one.kind for one in found],
        "state": [one.state for one in found],
        "symbol": [one.symbol for one in found],
        "strategy": [one.strategy for one in found],
        "params": [msgspec.json.encode(one.params | one.grid).decode() for one in found],
        "label": [one.label for one in found],
        "tags": [", ".join(one.tags) for one in found],
    }
    times = {"requested": "requested_ms", "start": "start", "end": "end"}
    whole: dict[str, Series] = {name: Series(Kind.OBJECT, np.array(x, dtype=object)) for name, x in texts.items()}
    for name, field in times.items():
        whole[name] = Series(Kind.TIME, np.array([getattr(one, field) for one in found], dtype=np.int64))
    for name in ("total_pnl", "sharpe_ratio", "max_drawdown"):
        values = np.array([getattr(one, name) for one in found], dtype=object)
        whole[name] = Series(Kind.SCALED, values, shown_as=unit_of(name))
    whole["sets"] = Series(Kind.COUNT, np.array([one.sets for one in found], dtype=object))
    order = ("job_id", "requested", "kind", "state", "symbol", "strategy", "params", "start", "end")
    return Table({name: whole[name] for name in (*order, *(name for name in whole if name not in order))})


def label(
    job_id: str,
    label: str | None = None,
    *,
    note: str | None = None,
    tags: Sequence[str] = (),
    untag: Sequence[str] = (),
    store: str | None = None,
) -> Notes:
    """Give a job a label, a note and tags; what is not given stays. Return its notes. Raises UnknownName, BadInput."""
    for name, given in (("tags", tags), ("untag", untag)):
        if isinstance(given, str):
            raise BadInput(f"{name}={given!r:.60}: give a list")
    with Source(config.dsn(store)).runner() as runner:
        return annotate(runner.store, job_id, label, note, tags, untag)


def diff(first: str, second: str, *, store: str | None = None) -> Difference:
    """Return what differs between two stored jobs: request, candles, code, figures. Raises UnknownName, BadInput."""
    with Source(config.dsn(store)).runner() as runner:
        return difference(runner.store, first, second)


def _loaded(source: Source, runner: JobRunner, found: Exported, metric: str, strategy: str | None) -> Any:
    job = runner.store.job(found.job_id)
    guards = msgspec.json.decode(job.figures) if found.kind == "sweep" and job is not None and job.figures else None
    if found.kind == "sweep":
        assert job is not None
        spec = spec_from_json(job.spec)
        return Sweep(source, StrategyRef(strategy or spec.strategy), found.job_id, spec, found.results, guards, metric)
    if found.kind == "study":
        assert job is not None
        study = study_of(job)
        return Study(source, StrategyRef(strategy or study.request.spec.strategy), study)
    if found.kind in ("sweeps", "walk_forwards"):
        ids = [step.job_id for step in steps_of(job)] if job is not None else []
        loaded = [_loaded(source, runner, exported(runner.store, each), metric, strategy) for each in ids]
        own = {str(one.spec.symbol): one for one in loaded}
        return Sweeps(found.job_id, own, metric) if found.kind == "sweeps" else WalkForwards(found.job_id, own)
    assert found.joint is not None
    (row,) = found.rows
    chosen = StrategyRef(strategy or found.joint["strategy_id"])
    if found.kind == "portfolio":
        rows = {row.job_id: row for row in runner.store.results([part["job_id"] for part in found.results])}
        parts = [rows[part["job_id"]] for part in found.results if part["job_id"] in rows]
        if len(parts) < len(found.results):
            raise BadInput(f"some runs of portfolio {found.job_id} have been removed: run it again")
        return Portfolio(source, chosen, found.joint, parts, [])
    if found.kind == "walk_forward" and job is not None:
        choices = fold_choices(job)
        guards = guards_of(runner.store, choices)
        return WalkForward(source, chosen, found.job_id, row, choices.folds, choices.score, choices.sweep_id, guards)
    return Run(source, chosen, row)
