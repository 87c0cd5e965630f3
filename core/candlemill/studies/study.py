"""Studies: trials of parameters and options, chosen by a sampler from the results of the trials before.

A trial is a job of its own with its own address. The sampler is seeded and sees only results, which are exact, so a
study that is run again, after a kill too, has the same trials: those that are done are found in the store, and only the
others are computed.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from candlemill.backtests.daily import unpack
from candlemill.backtests.identity import code_key
from candlemill.backtests.metric_table import RANKED, is_descending, value_of
from candlemill.backtests.spec import ParamValue, Spec
from candlemill.engine.candles import DAY_MS, Column
from candlemill.errors import BadInput, BadStrategy, NoData
from candlemill.guards import sweep_guards, thinned
from candlemill.local.runner import JobRunner, Options, run_one
from candlemill.pipeline.cache_keys import job_data
from candlemill.pipeline.rows import JobRow, ResultRow
from candlemill.studies.samplers import Ended, Sampler, make_sampler
from candlemill.studies.space import Dimension, Point, checked_points, space_of, spec_at
from candlemill.units import clock_ms

SamplerName = Literal["tpe", "random", "cmaes", "grid", "points"]
PrunerName = Literal["none", "median", "halving"]
SAMPLERS: Final = get_args(SamplerName)
PRUNERS: Final = get_args(PrunerName)
TRIALS_LIMIT = 10_000
SCORES_LIMIT = 4
RUNGS = (4, 2, 1)  # with a pruner a trial first runs over a quarter and over half of the range

State = Literal["done", "pruned", "refused", "undefined"]
Update = Callable[[int, int], None]
RunTrial = Callable[[Spec], ResultRow]


class StudyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A study apart from how many trials it has. `spec` has what all trials have in common, and defaults; `points` are
    the trials themselves where no sampler chooses them. `score` is a figure, or several with commas between them."""

    spec: Spec
    space: dict[str, list[ParamValue]]
    sampler: SamplerName = "tpe"
    pruner: PrunerName = "none"
    seed: int = 1
    score: str = "sharpe_ratio"
    points: list[Point] = []

    @property
    def scores(self) -> list[str]:
        return self.score.split(",")


def study_request(
    spec: Spec,
    space: Mapping[str, Sequence[ParamValue]],
    points: Sequence[Point],
    *,
    sampler: str,
    pruner: str,
    seed: int,
    score: str,
) -> StudyRequest:
    """Return the request of a study; `points`, if there are some, are its trials. Raises BadInput."""
    given = {"space": dict(space), "points": list(points), "seed": seed, "score": score, "pruner": pruner}
    given |= {"spec": spec, "sampler": "points" if points else sampler}
    for name, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        if given[name] not in known:
            raise BadInput(f"{name}={given[name]!r} is none of {', '.join(known)}")
    try:
        return msgspec.convert(given, StudyRequest)
    except msgspec.ValidationError as error:
        raise BadInput(f"study: {error}") from None


class Trial(msgspec.Struct, frozen=True):
    """One trial: its point, the job that it ran, and its score (an integer in the figure's unit, None without one);
    `more` are those of a study's further figures.

    `pruned`: it ended on a part of the range, and `score` is that of this part. `refused`: the strategy or the job does
    not accept the point, for `reason`. `undefined`: the score is not defined for its result.
    """

    number: int
    point: Point
    state: State
    score: int | None
    job_id: str
    reason: str = ""
    more: list[int | None] = []

    @property
    def scores(self) -> list[int | None]:
        return [self.score, *self.more]


class Study(msgspec.Struct, frozen=True):
    """A study after some trials. `best` is the number of the best finished trial, by the first figure; `front` are
    those that no other trial beats in all figures, where there are several. `guards` say how much of the best's figures
    may be luck, and are None only where there is no best, or no other trial to compare it with."""

    study_id: str
    request: StudyRequest
    trials: list[Trial]
    best: int | None
    guards: dict[str, Any] | None
    front: list[int] = []


_studies = msgspec.json.Decoder(Study)


def study_of(row: JobRow) -> Study:
    """Return the study in a job's row."""
    return _studies.decode(row.figures)


def run_study(runner: JobRunner, request: StudyRequest, trials: int, options: Options, update: Update) -> Study:
    """Run the first `trials` trials of a study and store it. Raises BadInput, NoData, and what a job raises."""
    runner.store.keep()
    planned = plan_study(runner, request, trials)
    options = msgspec.structs.replace(options, parent=planned.study_id)
    study = finish_study(planned, lambda spec: run_one(runner, spec, options, lambda done, known: None), update)
    runner.store.put_jobs([done_row(planned, study, runner.store.job(study.study_id))])
    return study


class PlannedStudy(msgspec.Struct, frozen=True):
    """A checked study, and how many trials it is to have."""

    study_id: str
    data_digest: str
    request: StudyRequest
    space: list[Dimension]
    trials: int


def plan_study(runner: JobRunner, request: StudyRequest, trials: int) -> PlannedStudy:
    """Check a study before anything runs. Raises BadInput, UnknownName and NoData."""
    space = _checked(request, trials)
    digests = []
    for symbol in request.space.get("symbol", [request.spec.symbol]):
        spec = msgspec.structs.replace(request.spec, symbol=str(symbol))
        data = job_data(runner.index, spec)
        if not data.days:
            runner.prepare(spec, None)  # raises the reason
        digests.append(data.digest)
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    total = len(request.points) if request.sampler == "points" else trials
    return PlannedStudy(study_id_of(request, digest), digest, request, space, total)


def finish_study(planned: PlannedStudy, run: RunTrial, update: Update) -> Study:
    """Run the trials of a study, each by `run`, and return it. `update` may raise to stop it."""
    trials = _Trials(planned, run)
    for number in range(planned.trials):
        if not trials.run(number):
            break
        update(number + 1, planned.trials)
    study = trials.study()
    if all(trial.state == "refused" for trial in study.trials):
        raise BadInput(study.trials[0].reason)
    return study


def begun_row(planned: PlannedStudy, known: JobRow | None) -> JobRow:
    """Return the row of a study that starts. `request` lets another process go on with it."""
    now = clock_ms()
    empty = Study(planned.study_id, planned.request, [], None, None)
    return _row(planned, "planned", empty, max(now, known.attempt + 1 if known is not None else 0))


def done_row(planned: PlannedStudy, study: Study, known: JobRow | None) -> JobRow:
    """Return the row of a study that has ended; `known` is its row until now."""
    going_on = known is not None and not known.finished
    attempt = max(clock_ms(), known.attempt + 1 if known is not None else 0)
    return _row(planned, "done", study, known.attempt if known is not None and going_on else attempt)


def _row(planned: PlannedStudy, state: str, study: Study, attempt: int) -> JobRow:
    return JobRow(
        planned.study_id, state, planned.request.spec.to_json().decode(), "", planned.data_digest, attempt,
        kind="study", attempt=attempt, figures=msgspec.json.encode(study).decode(),
        request=msgspec.json.encode(_Begun(planned.request, planned.trials)).decode(),
    )  # fmt: skip


class _Begun(msgspec.Struct, frozen=True):
    study: StudyRequest
    trials: int


def begun_of(row: JobRow) -> tuple[StudyRequest, int]:
    """Return the request and the number of trials of a stored study. Raises BadInput if another release wrote it."""
    try:
        found = msgspec.json.decode(row.request, type=_Begun)
    except msgspec.DecodeError:
        raise BadInput("the study was started by another release: ask again") from None
    return found.study, found.trials


def _checked(request: StudyRequest, trials: int) -> list[Dimension]:
    if not 1 <= trials <= TRIALS_LIMIT:
        raise BadInput(f"trials={trials} is not between 1 and {TRIALS_LIMIT:,}")
    if len(request.points) > TRIALS_LIMIT:
        raise BadInput(f"{len(request.points):,} points, the limit is {TRIALS_LIMIT:,}: use several studies")
    for score in request.scores:
        if score not in RANKED:
            raise BadInput(f"score={score!r} is none of {', '.join(RANKED)}")
    if len(set(request.scores)) < len(request.scores) or len(request.scores) > SCORES_LIMIT:
        raise BadInput(f"score={request.score!r} is not one to {SCORES_LIMIT} different figures")
    if len(request.scores) > 1 and (request.pruner != "none" or request.sampler == "cmaes"):
        raise BadInput("several figures go with --pruner none, and with all samplers but cmaes")
    if request.spec.grid or request.spec.schedule:
        raise BadInput("a study has a space instead of a grid: leave the grid out")
    space = space_of(request.spec.strategy, request.space)
    if request.sampler != "points":
        checked_points(request.spec, space)
    return space


class _Trials:
    """Trials of a study in order, each a job."""

    def __init__(self, planned: PlannedStudy, run: RunTrial) -> None:
        self._request, self._run, self._id = planned.request, run, planned.study_id
        request = planned.request
        self._sampler: Sampler = make_sampler(
            request.sampler, request.pruner, request.seed, planned.space, request.points,
            [is_descending(score) for score in request.scores],
        )  # fmt: skip
        self._trials: list[Trial] = []
        self._rows: dict[str, ResultRow] = {}  # of finished trials, by job

    def run(self, number: int) -> bool:
        """Run one more trial; return False if the sampler has no more."""
        suggestion = self._sampler.ask()
        if suggestion is None:
            return False
        try:
            spec = spec_at(self._request.spec, suggestion.point)
        except BadStrategy:
            raise
        except BadInput as error:
            self._end(suggestion, Trial(number, suggestion.point, "refused", None, "", str(error)))
            return True
        trial = self._finish(number, suggestion, spec)
        self._end(suggestion, trial)
        return True

    def _finish(self, number: int, suggestion: Any, spec: Spec) -> Trial:
        spans = _rungs(spec) if self._request.pruner != "none" else [spec]
        for rung, part in enumerate(spans):
            row = self._run(part)
            result = msgspec.json.decode(row.result)
            score, *more = [value_of(result, name) for name in self._request.scores]
            if part is spans[-1]:
                self._rows[row.job_id] = row
                state: State = "undefined" if None in (score, *more) else "done"
                return Trial(number, suggestion.point, state, score, row.job_id, more=more)
            if score is not None and self._sampler.should_prune(suggestion, score, rung):
                return Trial(number, suggestion.point, "pruned", score, row.job_id)
        raise NoData("the study's range is empty")

    def _end(self, suggestion: Any, trial: Trial) -> None:
        self._trials.append(trial)
        self._sampler.tell(suggestion, Ended(trial.state, trial.scores))

    def study(self) -> Study:
        """Return the study so far, with its guards: every trial that ran counts."""
        done: dict[str, Trial] = {}
        for trial in self._trials:
            if trial.state == "done":
                done.setdefault(trial.job_id, trial)
        best = self._best(list(done.values()))
        ran = {trial.job_id for trial in self._trials if trial.job_id}
        guards = None
        if best is not None and len(ran) > 1:
            guards = _guards(list(done.values()), best, self._rows, len(ran), is_descending(self._request.scores[0]))
        number = None if best is None else best.number
        front = _front(list(done.values()), self._request.scores) if len(self._request.scores) > 1 else []
        return Study(self._id, self._request, self._trials, number, guards, front)

    def _best(self, done: Sequence[Trial]) -> Trial | None:
        sign = 1 if is_descending(self._request.scores[0]) else -1
        return max(done, key=lambda trial: sign * (trial.score or 0), default=None)


def _front(done: Sequence[Trial], scores: Sequence[str]) -> list[int]:
    """Return the numbers of the trials that no other trial beats: as good in all figures, and better in one."""
    signs = [1 if is_descending(score) else -1 for score in scores]
    values = [[sign * (value or 0) for sign, value in zip(signs, trial.scores, strict=True)] for trial in done]

    def beats(a: list[int], b: list[int]) -> bool:
        return a != b and all(x >= y for x, y in zip(a, b, strict=True))

    return [trial.number for trial, own in zip(done, values, strict=True) if not any(beats(one, own) for one in values)]


def _guards(
    done: Sequence[Trial], best: Trial, rows: Mapping[str, ResultRow], trials: int, descending: bool
) -> dict[str, Any]:
    sign = 1 if descending else -1
    sets = [(trial.point, sign * (trial.score or 0)) for trial in done]
    chosen = thinned(np.arange(len(sets)), len(sets), list(done).index(best))
    matrix = _matrix([unpack(rows[done[k].job_id].daily) for k in chosen])
    return sweep_guards(matrix, chosen, sets, {}, trials=trials)


def _matrix(series: Sequence[tuple[Column, Column]]) -> NDArray[np.int64]:
    """Return the daily figures of trials, [trials, days], over the days that any has: symbols begin and end apart, and
    on a day without candles a trial gained nothing."""
    days = np.unique(np.concatenate([own for own, _ in series]))
    matrix = np.zeros((len(series), len(days)), dtype=np.int64)
    for row, (own, figures) in zip(matrix, series, strict=True):
        row[np.searchsorted(days, own)] = figures
    return matrix


def _rungs(spec: Spec) -> list[Spec]:
    """Return the job over growing parts of its range, which end at midnights; the last is the whole."""
    found: list[Spec] = []
    for part in RUNGS[:-1]:
        end = spec.start + (spec.end - spec.start) // part // DAY_MS * DAY_MS
        if spec.start < end < spec.end and (not found or found[-1].end < end):
            found.append(msgspec.structs.replace(spec, end=end))
    return [*found, spec]


def study_id_of(request: StudyRequest, data_digest: str) -> str:
    """Return the content address of a study: the request, the candles and the code."""
    encoded = msgspec.json.encode(request, order="sorted")
    parts = [encoded, data_digest.encode(), code_key(request.spec.strategy).encode()]
    return hashlib.sha256(b"study\0" + b"\0".join(parts)).hexdigest()[:32]
