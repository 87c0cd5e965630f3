"""Tables of stored jobs for other programs: which a job has, and what is in them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from candlemill.backtests.daily import unpack
from candlemill.backtests.portfolio import profits_of
from candlemill.backtests.replay import Replay
from candlemill.errors import BadInput, CandlemillError, UnknownName
from candlemill.pipeline.job_state import steps_of
from candlemill.pipeline.rows import JobFilter, JobRow, ResultRow
from candlemill.pipeline.workflows import fold_choices
from candlemill.store.base import Store
from candlemill.tables import runs
from candlemill.tables.files import Format, write_file
from candlemill.tables.table import Table, stacked

Name = Literal["trades", "equity", "daily", "contribution", "orders", "sets", "jobs"]
NAMES: tuple[Name, ...] = get_args(Name)
OF_TRACE = {
    "trades": runs.trades_table,
    "orders": runs.orders_table,
    "equity": runs.equity_table,
    "contribution": runs.contribution_table,
}
SWEEPS = ("sweep", "sweeps")
SETS = (*SWEEPS, "study")  # whose results are those of many parameter sets
BATCH = 1_000  # results in one query, whose text has a limit
TraceOf = Callable[[dict[str, Any]], Replay]


class Exported(msgspec.Struct, frozen=True):
    """A finished job whose tables can be made.

    `results` are those of its runs: of a portfolio or walk-forwards each symbol's, of a sweep each set's, of a study
    each finished trial's. `joint` is the result of the whole, None where there is none. `rows` are those of the joint
    result, else of the runs; none of sets. `points` are the values of a study's trials for its axes `grid`.
    """

    job_id: str
    kind: str
    rows: list[ResultRow]
    joint: dict[str, Any] | None
    results: list[dict[str, Any]]
    grid: list[str] = []
    points: list[dict[str, Any]] = []

    @property
    def names(self) -> list[Name]:
        """Return the names of the tables that this kind of job has."""
        if self.kind in SETS:
            return ["sets", "jobs"]
        if self.joint is not None and "," in self.joint["symbol"] and self.kind != "portfolio":
            return ["trades", "orders", "equity", "daily", "contribution", "jobs"]  # many symbols with one account
        names: list[Name] = ["trades", "orders", "equity", "daily", "jobs"]
        return [name for name in names if name != "equity"] if self.kind == "portfolio" else names

    def about(self) -> dict[str, str]:
        """Return what the files' metadata say."""
        found = {"job_id": self.job_id, "kind": self.kind}
        for name in ("strategy_id", "symbol", "data_digest", *(["result_digest"] if self.joint else [])):
            found[name] = ",".join(dict.fromkeys(str(one[name]) for one in self._wholes))
        return found

    @property
    def _wholes(self) -> list[dict[str, Any]]:
        return [self.joint] if self.joint else self.results

    def table(self, name: Name, trace: TraceOf) -> Table:
        """Make a table. `trace` computes a run's replay. Raises BadInput for a table that this kind of job has not."""
        if name not in self.names:
            raise BadInput(f"job {self.job_id} ({self.kind}) has {', '.join(self.names)}, but no {name}")
        if name == "sets":
            return runs.figures_table(self.results, self.grid, self.points)
        if name == "jobs":
            return runs.figures_table(self._wholes)
        if name == "daily":
            return joined([_daily(row, result) for row, result in zip(self.rows, self._wholes, strict=True)])
        made = OF_TRACE[name]
        return joined([_named(made(trace(result)), result) for result in self.results])


def _daily(row: ResultRow, result: Mapping[str, Any]) -> Table:
    days, figures = unpack(row.daily)
    return _named(runs.daily_table(days, profits_of(result, figures), result["capital"]), result)


def _named(table: Table, result: Mapping[str, Any]) -> Table:
    """Return a table with the job and the symbol in front, so that tables of several jobs can be put together."""
    ids = {"job_id": result["job_id"], "symbol": result["symbol"]}
    own = {name: table.series(name) for name in table}
    columns = {name: runs.constant(str(text), len(table)) for name, text in ids.items()} | own
    return Table(columns, name=table.name)


def joined(tables: Sequence[Table]) -> Table:
    """Put tables of the same columns together, one below the other."""
    first = tables[0]
    return (
        first
        if len(tables) == 1
        else Table({n: stacked([one.series(n) for one in tables]) for n in first}, name=first.name)
    )


def exported(store: Store, job_id: str) -> Exported:
    """Return a finished job by its id, or by its first letters. Raises UnknownName, BadInput for one that has no result
    yet."""
    job_id = store.complete_id(job_id)
    job = store.job(job_id)
    if job is not None and job.kind in OF_MANY and job.state == "done":
        return OF_MANY[job.kind](store, job)
    chosen = (
        fold_choices(job).job_id if job is not None and job.kind == "walk_forward" and job.state == "done" else job_id
    )
    row = next(iter(store.results([chosen])), None)
    if row is None and job is not None and job.state != "done":
        raise BadInput(f"job {job_id} is {job.state}: it has no result yet")
    if row is None:
        known = [row.job_id for _, row in store.recent_results(1000)]
        raise UnknownName("job", job_id, known, "`candlemill results` lists the newest")
    joint: dict[str, Any] = msgspec.json.decode(row.result)
    kind = "portfolio" if "parts" in joint else job.kind if job is not None else "backtest"
    return Exported(job_id, kind, [row], joint, list(joint.get("parts", [joint])))


def newest(store: Store, count: int) -> list[str]:
    """Return the ids of the finished jobs that were requested last, without those that belong to other jobs."""
    found = store.jobs(JobFilter(state="done", whole=True), limit=count)
    if not found:
        raise BadInput("no job is done yet: candlemill backtest --help")
    return [entry.row.job_id for entry in found]


def _sweep(store: Store, job: JobRow) -> Exported:
    """Return a sweep, or the sweeps of several symbols: with the sets of all."""
    ids = [step.job_id for step in steps_of(job)] if job.kind == "sweeps" else [job.job_id]
    results = [msgspec.json.decode(text) for one in ids for text in store.sweep_results(one, (), False, None)]
    grid = list(msgspec.json.decode(job.spec)["grid"])
    if not results:
        raise CandlemillError(f"sweep {job.job_id} has no results in the store: run it again")
    return Exported(job.job_id, job.kind, [], None, results, grid)


class _Trial(msgspec.Struct):
    state: str
    job_id: str
    point: dict[str, Any]


class _Request(msgspec.Struct):
    space: dict[str, Any]


class _Trials(msgspec.Struct):
    """What a study's row says of its trials."""

    request: _Request
    trials: list[_Trial]


def _study(store: Store, job: JobRow) -> Exported:
    """Return a study with its finished trials, each job once."""
    study = msgspec.json.decode(job.figures, type=_Trials)
    points = {trial.job_id: trial.point for trial in study.trials if trial.state == "done"}
    ids = list(points)
    rows = [row for k in range(0, len(ids), BATCH) for row in store.results(ids[k : k + BATCH])]
    found = {row.job_id: msgspec.json.decode(row.result) for row in rows}
    if not ids or len(found) < len(ids):
        raise BadInput(f"study {job.job_id} has {len(found):,} of {len(ids):,} trials' results: run it again")
    given = list(study.request.space) or list(dict.fromkeys(name for point in points.values() for name in point))
    return Exported(job.job_id, job.kind, [], None, [found[one] for one in ids], given, [points[one] for one in ids])


def _walk_forwards(store: Store, job: JobRow) -> Exported:
    """Return the walk-forwards of several symbols: of each the run of its choices."""
    known = store.job_rows([step.job_id for step in steps_of(job)])
    chosen = [fold_choices(known[step.job_id]).job_id for step in steps_of(job) if step.job_id in known]
    rows = {row.job_id: row for row in store.results(chosen)}
    if len(rows) < len(steps_of(job)):
        raise BadInput(f"some walk-forwards of {job.job_id} have been removed: run it again")
    found = [rows[one] for one in chosen]
    return Exported(job.job_id, job.kind, found, None, [msgspec.json.decode(row.result) for row in found])


OF_MANY: dict[str, Callable[[Store, JobRow], Exported]] = {
    "sweep": _sweep,
    "sweeps": _sweep,
    "study": _study,
    "walk_forwards": _walk_forwards,
}


def write_folder(
    folder: Path, found: Exported, names: Sequence[Name], trace: TraceOf, form: Format = "parquet"
) -> list[Path]:
    """Write tables of a job as `folder/TABLE/JOB.parquet`, where files of several jobs read as one table."""
    paths = []
    for name in names:
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        paths.append(place / f"{found.job_id}.{form}")
        write_file(found.table(name, trace), paths[-1], found.about())
    return paths


def default_names(found: Exported) -> list[Name]:
    """Return the tables that a folder gets unless the caller chooses: all but the equity of each minute."""
    return [name for name in found.names if name != "equity"]
