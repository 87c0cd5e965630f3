"""Lists of jobs with their main figures and notes: a line for each job, a sweep too."""

from collections.abc import Sequence

import msgspec

from candlemill.backtests.settings import declared, settings_of
from candlemill.backtests.spec import ParamValue, Spec, spec_from_json
from candlemill.errors import BadInput, UnknownName
from candlemill.pipeline import job_state
from candlemill.pipeline.job_search import checked_notes
from candlemill.pipeline.rows import JobEntry, JobFilter, JobRow, Notes
from candlemill.pipeline.workflows import fold_choices
from candlemill.store.base import Store

PAGE = 500

Figures = tuple[int, int, int, int] | None  # profit, Sharpe ratio, drawdown, number of sets


class _Space(msgspec.Struct):
    space: dict[str, list[ParamValue]]


class _Trial(msgspec.Struct):
    number: int
    job_id: str


class _Study(msgspec.Struct):
    """What a list shows of a stored study; `best` is the number of its best trial."""

    request: _Space
    trials: list[_Trial]
    best: int | None = None


_study = msgspec.json.Decoder(_Study)


class Summary(msgspec.Struct, frozen=True):
    """What a list shows of a job, whoever asks for it: the fields of `Listed` that its row and its figures tell."""

    symbol: str
    strategy: str
    start: int
    end: int
    params: dict[str, object]
    grid: dict[str, list[object]]
    sizing: str
    total_pnl: int | None
    sharpe_ratio: int | None
    max_drawdown: int | None
    sets: int | None
    settings: dict[str, str]


class Listed(msgspec.Struct, frozen=True):
    """A job in a list. Times are UTC ms, money and ratios times 10^8; of a sweep or a study the figures of its best
    set.

    A compound account's drawdown is a share of its peak.
    """

    job_id: str
    kind: str
    state: str
    requested_ms: int
    symbol: str
    strategy: str
    start: int
    end: int
    params: dict[str, object]
    grid: dict[str, list[object]]
    sizing: str
    total_pnl: int | None
    sharpe_ratio: int | None
    max_drawdown: int | None
    sets: int | None
    label: str
    note: str
    tags: list[str]
    settings: dict[str, str]


def settings_of_job(row: JobRow, spec: Spec) -> dict[str, str]:
    """Return what differs from the usual in a job, as text; of a study what it varies too."""
    space = _space(row)
    varied = {name: f"{len(values):,} values" for name, values in declared(spec.strategy, space).items()}
    return varied | settings_of(spec, apart=space)


def count_of_sets(row: JobRow, sets: int | None) -> int | None:
    """Return the number of a sweep's sets, or of a study's trials; None for other jobs."""
    if row.kind == "study":
        return len(_study.decode(row.figures).trials) if row.figures else None
    return sets if row.kind == "sweep" else None


def _space(row: JobRow) -> dict[str, list[ParamValue]]:
    return _study.decode(row.figures).request.space if row.kind == "study" and row.figures else {}


def figures_job(row: JobRow) -> str:
    """Return the id of the job that has a finished job's figures: of a walk-forward the run of its choices, of a study
    its best trial, else itself."""
    if row.kind == "study" and row.figures:
        study = _study.decode(row.figures)
        return next((trial.job_id for trial in study.trials if trial.number == study.best), row.job_id)
    return fold_choices(row).job_id if row.kind == "walk_forward" else row.job_id


def listed(store: Store, job_filter: JobFilter, limit: int) -> list[Listed]:
    """Return the jobs of a search, the latest request first."""
    found: list[Listed] = []
    after: tuple[int, str] | None = None
    while len(found) < limit:
        entries = store.jobs(job_filter, after, min(PAGE, limit - len(found)))
        if not entries:
            break
        found += _lines(store, entries)
        after = (entries[-1].row.attempt, entries[-1].row.job_id)
    return found


def annotate(
    store: Store,
    start: str,
    label: str | None = None,
    note: str | None = None,
    tags: Sequence[str] = (),
    untag: Sequence[str] = (),
) -> Notes:
    """Change a job's notes; None keeps what is there. `start` are the first letters of its id.

    Raises UnknownName, and BadInput for a tag to be removed that it has not.
    """
    job_id = store.complete_id(start)
    if store.job(job_id) is None and not store.has_result(job_id):
        known = [entry.row.job_id for entry in store.jobs(limit=1000)]
        raise UnknownName("job", start, known, "`candlemill jobs` lists them")
    old = store.notes([job_id]).get(job_id, Notes(job_id))
    if missing := set(untag) - set(old.tags):
        raise BadInput(f"the job has no tag {min(missing)!r}: it has {', '.join(old.tags) or 'none'}")
    kept = [*(set(old.tags) - set(untag)), *tags]
    made = checked_notes(job_id, old.label if label is None else label, old.note if note is None else note, kept)
    if made != old:
        store.put_notes(made)
    return made


def _lines(store: Store, entries: list[JobEntry]) -> list[Listed]:
    of = {entry.row.job_id: figures_job(entry.row) for entry in entries if entry.row.state == "done"}
    figures = store.best_figures(list(of.values())) if of else {}
    notes = store.notes([entry.row.job_id for entry in entries])
    return [
        _line(entry, figures.get(of.get(entry.row.job_id, "")), notes.get(entry.row.job_id, Notes(entry.row.job_id)))
        for entry in entries
        if entry.row.spec  # none: a failed task that belongs to no submitted job
    ]


def _line(entry: JobEntry, figures: Figures, notes: Notes) -> Listed:
    row = entry.row
    return Listed(
        job_id=row.job_id,
        kind=row.kind,
        state=row.state,
        requested_ms=row.attempt,
        label=notes.label,
        note=notes.note,
        tags=notes.tags,
        **msgspec.structs.asdict(summary_of(row, figures)),
    )


def summary_of(row: JobRow, figures: Figures) -> Summary:
    """Return what a list shows of a job with a spec; `figures` are those of `best_figures`, if it has any."""
    spec, request = spec_from_json(row.spec), job_state.request_of(row)
    profit, ratio, drawdown, sets = figures or (None, None, None, None)
    return Summary(
        ",".join(request.weights) if request is not None and request.weights else spec.symbol,
        spec.strategy,
        spec.start,
        spec.end,
        dict(spec.params),
        {name: list(values) for name, values in spec.grid.items()},
        spec.sizing,
        profit,
        ratio,
        drawdown,
        count_of_sets(row, sets),
        settings_of_job(row, spec),
    )
