"""Route of reports: any finished job as one HTML page."""

import asyncio
import shlex
from typing import Any

import msgspec
import numpy as np
from litestar import MediaType, Response, get
from litestar.di import NamedDependency
from litestar.params import FromQuery

from candlemill.backtests.command_line import command_of, grid_text
from candlemill.backtests.daily import unpack
from candlemill.backtests.portfolio import profits_of
from candlemill.backtests.spec import spec_from_json
from candlemill.errors import UnknownName
from candlemill.formatting import exact
from candlemill.gateway.job_service import JobService
from candlemill.gateway.problems import problem_responses
from candlemill.gateway.routes.jobs import JobId
from candlemill.gateway.routes.results import finished, trace_of
from candlemill.local import workflow_runs
from candlemill.pipeline.job_state import OF_SYMBOLS, request_of
from candlemill.pipeline.rows import JobRow, ResultRow
from candlemill.pipeline.workflows import fold_choices, guards_of
from candlemill.report.pivot import Sets
from candlemill.studies.importance import importance
from candlemill.studies.study import study_of
from candlemill.units import SCALE

# A report contains its own scripts: they run only inside it, and may not send requests.
PAGE_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:"
)


@get(
    "/api/v1/backtest/{job_id:str}/report",
    summary="The report as one HTML page",
    media_type=MediaType.HTML,
    responses=problem_responses(404, 409, 422),
)
async def report(job_id: JobId, world: NamedDependency[JobService], download: FromQuery[bool] = False) -> Response[str]:
    row = await world.job(job_id)
    if row is not None and row.state == "done" and row.kind == "sweep":
        text = await asyncio.to_thread(_sweep_report, world, row)
    elif row is not None and row.state == "done" and row.kind == "study":
        text = await asyncio.to_thread(_study_report, row)
    elif row is not None and row.state == "done" and row.kind in OF_SYMBOLS:
        text = await asyncio.to_thread(_symbols_report, world, row)
    else:
        stored, result = await finished(world, job_id)
        make = _joint_report if "parts" in result else _report
        text = await asyncio.to_thread(make, world, row, stored, result)
    headers = {"Content-Security-Policy": PAGE_POLICY}
    if download:
        headers["Content-Disposition"] = f'attachment; filename="candlemill-{job_id[:12]}.html"'
    return Response(text, media_type=MediaType.HTML, headers=headers)


def _sweep_report(world: JobService, row: JobRow) -> str:
    from candlemill.report import sweep as pages

    return str(pages.page(_sweep_content(world, row)))


def _sweep_content(world: JobService, row: JobRow) -> dict[str, Any]:
    found = world.store.sweep_results(row.job_id, (), False, None)
    content = {"job_id": row.job_id, "spec": spec_from_json(row.spec)}
    return content | {"results": [msgspec.json.decode(one) for one in found], "guards": _guards(row)}


def _symbols_report(world: JobService, row: JobRow) -> str:
    from candlemill.report import of_symbols

    parts = []
    for part in workflow_runs.parts_of_symbols(row):
        own = world.store.job(part["job_id"])
        if own is None:
            raise UnknownName("job", part["job_id"], [], f"it was that of {part['symbol']}: ask for the job again")
        make = _sweep_part if row.kind == "sweeps" else _walk_part
        parts.append(make(world, own, part["symbol"]))
    return str(of_symbols.page(spec_from_json(row.spec), parts, row.job_id, _command(row)))


def _sweep_part(world: JobService, row: JobRow, symbol: str) -> Any:
    from candlemill.report.of_symbols import Part

    sets = Sets(_sweep_content(world, row))
    best = sets.results[sets.order("sharpe_ratio")[0]]
    return Part(symbol, best, _guards(row) or {}, sets=sets)


def _walk_part(world: JobService, row: JobRow, symbol: str) -> Any:
    from candlemill.report.of_symbols import Part

    choices = fold_choices(row)
    stored = world.result(choices.job_id)
    if stored is None:
        raise UnknownName("result", choices.job_id, [], "ask for the job again")
    result = msgspec.json.decode(stored.result)
    days, daily = unpack(stored.daily)
    profits = np.asarray(profits_of(result, daily), dtype=np.int64)
    guards = guards_of(world.store, choices) or {}
    return Part(symbol, result, guards, len(choices.folds), days=days, daily=profits)


def _guards(row: JobRow | None) -> Any:
    return msgspec.json.decode(row.figures) if row is not None and row.figures else None


def _study_report(row: JobRow) -> str:
    from candlemill.report import study as pages

    found = study_of(row)
    plain = msgspec.to_builtins(found)
    return str(pages.page(spec_from_json(row.spec), plain, importance(found), _command(row)))


def _joint_report(world: JobService, row: JobRow | None, stored: ResultRow, result: dict[str, Any]) -> str:
    from candlemill.report import joint

    days, daily = unpack(stored.daily)
    profits = np.asarray(profits_of(result, daily), dtype=np.int64)
    spec = spec_from_json(msgspec.json.encode(result["spec"]) if row is None else row.spec)
    return str(joint.page(spec, result, days, profits, "" if row is None else _command(row)))


def _report(world: JobService, row: JobRow | None, stored: ResultRow, result: dict[str, Any]) -> str:
    trace = trace_of(world, result)
    if row is not None and row.kind == "walk_forward":
        from candlemill.report import walk

        chosen = fold_choices(row)
        content = {"folds": chosen.folds, "trace": trace, "score": chosen.score}
        content |= {"guards": guards_of(world.store, chosen), "command": _command(row)}
        return str(walk.page(content))
    from candlemill.guards.run import with_guards
    from candlemill.report import run

    return str(run.page(with_guards(trace, 1)))


def _command(row: JobRow) -> str:
    """Return the command line of a workflow or a study; nothing of a study that is a list of points."""
    if row.kind == "study":
        return _study_command(row)
    request = request_of(row)
    spec = spec_from_json(row.spec)
    if request is not None and (row.kind == "portfolio" or row.kind in OF_SYMBOLS):
        spec = msgspec.structs.replace(spec, symbol=",".join(request.weights))
    walk = request.walk_forward if request is not None else None
    options = {} if walk is None else {"train": walk.train, "test": walk.test, "score": walk.score}
    if walk is not None and walk.anchored:
        options["anchored"] = ""
    chosen = {} if walk is None else walk.options
    weights = request.weights if request is not None else {}
    unequal = [shlex.join(["--weight", f"{name}={exact(w)}"]) for name, w in weights.items() if w != SCALE]
    return " ".join([command_of(spec, "walk-forward" if walk is not None else None, chosen, **options), *unequal])


def _study_command(row: JobRow) -> str:
    study = study_of(row).request
    if study.points:
        return ""
    space = [shlex.join(["--space", f"{name}={grid_text(values)}"]) for name, values in study.space.items()]
    more = [f"--trials {len(study_of(row).trials)} --sampler {study.sampler} --score {study.score} --seed {study.seed}"]
    more += [f"--pruner {study.pruner}"] if study.pruner != "none" else []
    return " ".join([command_of(spec_from_json(row.spec), "optimize"), *space, *more])


REPORTS = [report]
