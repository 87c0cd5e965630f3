"""Portfolios and walk-forwards at home: run to their end, and read."""

from collections.abc import Mapping
from typing import Any

import msgspec

from candlemill import events
from candlemill.campaigns import chosen_of, prepare_campaign
from candlemill.guards import Span
from candlemill.io.bus import Bus
from candlemill.io.jobs import Home, Options, fetch
from candlemill.io.local import Progress
from candlemill.io.store import Store
from candlemill.ledger import JobRow
from candlemill.model import Spec, WalkForward


class WalkForwardRun(msgspec.Struct, frozen=True):
    """Folds with what was chosen in each, the sweep that it was chosen from, and the run of the choices."""

    sweep_id: str
    folds: list[dict[str, Any]]
    spec: Spec
    result: dict[str, Any]


def run_portfolio(
    home: Home, spec: Spec, weights: Mapping[str, int], options: Options, progress: Progress
) -> dict[str, Any]:
    """Each symbol's job, and their joint result. `spec` is that of a symbol without its weight."""
    request = events.Requested(spec, options.slices, options.fresh, weights=dict(weights))
    return told(home.store, _run(home, request, options, progress))


def run_walk_forward(
    home: Home, spec: Spec, train: Span, test: Span, anchored: bool, score: str, options: Options, progress: Progress
) -> WalkForwardRun:
    """Choose the best set of each training span, and trade the choices through the tests, one after the other."""
    walk = msgspec.convert(
        {"train": _text(train), "test": _text(test), "anchored": anchored, "score": score}, WalkForward
    )
    request = events.Requested(spec, options.slices, options.fresh, walk_forward=walk)
    row = _run(home, request, options, progress)
    chosen = chosen_of(row)
    return WalkForwardRun(chosen.sweep_id, chosen.folds, chosen.spec, told(home.store, row)["result"])


def _text(span: Span) -> str:
    return f"{span.count}{span.unit}"


def _run(home: Home, request: events.Requested, options: Options, progress: Progress) -> JobRow:
    """Whatever is wrong with one of its jobs shows before any is run."""
    campaign = prepare_campaign(home.index, request)
    for job in campaign.jobs:
        home.check_gaps(job.spec, options.max_gap)
    event = events.make("cli", events.REQUESTED, campaign.job_id, request)
    return Bus(home.store).run(event, options.workers, progress, home.index)


def told(store: Store, row: JobRow) -> dict[str, Any]:
    """A finished campaign's result, as `--json` has it. Raises UnknownName where it has been removed."""
    if row.kind == "portfolio":
        found: dict[str, Any] = msgspec.json.decode(fetch(store, row.job_id).result)
        return found
    chosen = chosen_of(row)
    result = msgspec.json.decode(fetch(store, chosen.job_id).result)
    return {"sweep_id": chosen.sweep_id, "score": chosen.score, "folds": chosen.folds, "result": result}
