"""Local runs of portfolios and walk-forwards, and their results."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from candlemill.backtests.spec import Spec, WalkForward
from candlemill.errors import UnknownName
from candlemill.guards import Span
from candlemill.local.broker import Progress
from candlemill.local.runner import JobRunner, Options, fetch
from candlemill.local.workflows import WorkflowRunner
from candlemill.pipeline import events
from candlemill.pipeline.job_state import OF_SYMBOLS, request_of, steps_of
from candlemill.pipeline.rows import JobRow
from candlemill.pipeline.workflows import fold_choices, guards_of, prepare_workflow
from candlemill.store.base import Store
from candlemill.units import SCALE


class WalkForwardRun(msgspec.Struct, frozen=True):
    """The folds with their choices, the sweep that they were chosen from, the run of the choices, and the guards of all
    sets that they were chosen from."""

    job_id: str
    sweep_id: str
    folds: list[dict[str, Any]]
    spec: Spec
    result: dict[str, Any]
    guards: dict[str, Any] | None


def run_portfolio(
    runner: JobRunner, spec: Spec, weights: Mapping[str, int], options: Options, progress: Progress
) -> dict[str, Any]:
    """Run each symbol's job and return the joint result. `spec` is that of a symbol without its weight."""
    request = events.Requested(spec, options.slices, options.fresh, weights=dict(weights))
    return workflow_result(runner.store, _run(runner, request, options, progress))


def run_walk_forward(
    runner: JobRunner,
    spec: Spec,
    train: Span,
    test: Span,
    anchored: bool,
    score: str,
    options: Options,
    progress: Progress,
    chosen: Mapping[str, Sequence[Any]] | None = None,
) -> WalkForwardRun:
    """Choose the best set of each training span, and trade the choices through the tests, one after the other.

    `chosen` are values of stops, costs and the timeframe that are chosen too, as texts.
    """
    walk = walk_forward_of(train, test, anchored, score, chosen or {})
    request = events.Requested(spec, options.slices, options.fresh, walk_forward=walk)
    return walk_forward_run(runner.store, _run(runner, request, options, progress))


def walk_forward_of(
    train: Span, test: Span, anchored: bool, score: str, chosen: Mapping[str, Sequence[Any]] = {}
) -> WalkForward:
    """Return the options of a walk-forward. Raises msgspec.ValidationError for an unknown score."""
    given = {"train": _text(train), "test": _text(test), "anchored": anchored, "score": score}
    return msgspec.convert({**given, "options": {name: list(values) for name, values in chosen.items()}}, WalkForward)


def stored_walk_forward(store: Store, job_id: str) -> WalkForwardRun:
    """Return a stored walk-forward by its id. Raises UnknownName."""
    row = store.job(job_id)
    if row is None:
        raise UnknownName("job", job_id, [], "run it again")
    return walk_forward_run(store, row)


def walk_forward_run(store: Store, row: JobRow) -> WalkForwardRun:
    """Return what a finished walk-forward has chosen and made."""
    chosen = fold_choices(row)
    result = workflow_result(store, row)["result"]
    return WalkForwardRun(row.job_id, chosen.sweep_id, chosen.folds, chosen.spec, result, guards_of(store, chosen))


def run_of_symbols(
    runner: JobRunner,
    spec: Spec,
    symbols: Sequence[str],
    options: Options,
    progress: Progress,
    walk_forward: WalkForward | None = None,
) -> dict[str, Any]:
    """Run the sweep, or with `walk_forward` the walk-forward, of each symbol.

    Returns the job's id, and under `parts` the `symbol` and `job_id` of each. `spec` has any of the symbols.
    """
    weights = dict.fromkeys(symbols, SCALE)
    request = events.Requested(spec, options.slices, options.fresh, weights=weights, walk_forward=walk_forward)
    row = _run(runner, request, options, progress)
    return {"job_id": row.job_id, "parts": parts_of_symbols(row)}


def parts_of_symbols(row: JobRow) -> list[dict[str, str]]:
    """Return the symbol and the job id of each step of a workflow of symbols, in order."""
    request = request_of(row)
    symbols = list(request.weights) if request is not None else []
    return [{"symbol": symbol, "job_id": step.job_id} for symbol, step in zip(symbols, steps_of(row), strict=False)]


def _text(span: Span) -> str:
    return f"{span.count}{span.unit}"


def _run(runner: JobRunner, request: events.Requested, options: Options, progress: Progress) -> JobRow:
    """Prepare all jobs of a workflow, then run it: errors in any job appear before the first one runs."""
    workflow = prepare_workflow(runner.index, request)
    for job in workflow.jobs:
        runner.check_gaps(job.spec, options.limit)
    event = events.make("cli", events.REQUESTED, workflow.job_id, request)
    return WorkflowRunner(runner.store, runner.strategy_seconds).run(event, options.workers, progress, runner.index)


def workflow_result(store: Store, row: JobRow) -> dict[str, Any]:
    """Return a finished workflow's result, as in `--json`. Raises UnknownName if it has been removed."""
    if row.kind == "portfolio":
        found: dict[str, Any] = msgspec.json.decode(fetch(store, row.job_id).result)
        return found
    if row.kind in OF_SYMBOLS:
        return {"parts": parts_of_symbols(row)}
    chosen = fold_choices(row)
    result = msgspec.json.decode(fetch(store, chosen.job_id).result)
    found = {"sweep_id": chosen.sweep_id, "score": chosen.score, "folds": chosen.folds, "result": result}
    return {**found, "guards": guards_of(store, chosen)}
