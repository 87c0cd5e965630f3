"""Route that starts a study."""

import asyncio
from typing import Annotated, Literal

import msgspec
from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from candlemill.backtests.spec import ParamValue
from candlemill.errors import BadInput
from candlemill.gateway.job_service import JobService
from candlemill.gateway.problems import problem_responses
from candlemill.gateway.schemas.jobs import Begun, links_of
from candlemill.gateway.study_runs import StudyRuns
from candlemill.pipeline.request import Request, Values, names_several, resolve_request
from candlemill.studies.space import Point, parse_space, points_of
from candlemill.studies.study import TRIALS_LIMIT, StudyRequest, study_request
from candlemill.telemetry import logs


class StudyBody(Request, msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A backtest whose parameters and options vary: `space` maps a name to its values, a list or text like 5:50:5,
    0.1:0.5:0.1 or 1%:5%:1%; or `points` are the trials themselves. `score` is the figure that is made best; several,
    with commas, have no single best but a front."""

    space: dict[str, Values] = {}
    points: Annotated[list[dict[str, ParamValue]], Meta(max_length=TRIALS_LIMIT)] = []
    trials: Annotated[int, Meta(ge=1, le=TRIALS_LIMIT)] = 100
    sampler: Literal["tpe", "random", "cmaes", "grid"] = "tpe"
    pruner: Literal["none", "median", "halving"] = "none"
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 1
    score: Annotated[str, Meta(pattern="^[a-z_,]{1,200}$")] = "sharpe_ratio"


@post(
    "/api/v1/optimize",
    status_code=202,
    summary="Start a study: trials of parameters and options, chosen by the results of those before",
    responses=problem_responses(404, 409, 413, 422),
)
async def optimize(
    data: JSONBody[StudyBody], world: NamedDependency[JobService], runs: NamedDependency[StudyRuns]
) -> Begun:
    """Equal requests are one study, and one for more trials goes on with it. Its result is that of a job, with how much
    of the best may be luck; each trial is a job of its own."""
    planned, answer = await asyncio.to_thread(lambda: runs.submit(request_of(data, world), data.trials))
    logs.add_fields(job=planned.study_id)
    return Begun(planned.study_id, "study", answer.state, links_of(planned.study_id, "study"), planned.trials)


def request_of(data: StudyBody, world: JobService) -> StudyRequest:
    """Return the request of a study. Blocking. Raises BadInput, UnknownName and NoData."""
    if data.grid or data.walk_forward is not None or data.weights:
        raise BadInput("a study has a space: leave grid, walk_forward and weights out")
    if names_several(data.symbols) and "symbol" in data.space:
        raise BadInput("the space has the symbols: name one symbol besides")
    resolved = resolve_request(data, world.index)
    if resolved.kind != "backtest":
        raise BadInput("a study is of one symbol: several are an axis of its space, as in {'symbol': ['A', 'B']}")
    if data.points and data.space:
        raise BadInput("points are the trials themselves: leave space out")
    points: list[Point] = []
    if data.points:
        space, points = points_of(data.points)
    else:
        space = {}
        for name, values in data.space.items():
            space |= parse_space([f"{name}={values}"]) if isinstance(values, str) else {name: list(values)}
    return study_request(
        resolved.spec, space, points, sampler=data.sampler, pruner=data.pruner, seed=data.seed, score=data.score
    )
