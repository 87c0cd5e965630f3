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
WITHOUT_RUN = ("walk_forwards", "study")  # whose results are those of other jobs
TraceOf = Callable[[dict[str, Any]], Replay]


class Exported(msgspec.Struct, frozen=True):
    """A finished job whose tables can be made.

    `results` are those of its runs: of a portfolio each symbol's, of a sweep each set's. `joint` is the result of the
    whole, None for a sweep.
    """

    job_id: str
    kind: str
    row: ResultRow | None
    joint: dict[str, Any] | None
    results: list[dict[str, Any]]
    grid: list[str]

    @property
    def names(self) -> list[Name]:
        """Return the names of the tables that this kind of job has."""
        if self.kind in SWEEPS:
            return ["sets", "jobs"]
        if self.joint is not None and "," in self.joint["symbol"] and self.kind != "portfolio":
            return ["trades", "orders", "equity", "daily", "contribution", "jobs"]  # many symbols with one account
        names: list[Name] = ["trades", "orders", "equity", "daily", "jobs"]
        return [name for name in names if name != "equity"] if self.kind == "portfolio" else names

    def about(self) -> dict[str, str]:
        """Return what the files' metadata say."""
        found = {"job_id": self.job_id, "kind": self.kind}
        of = self.joint or (self.results[0] if self.results else {})
        for name in ("strategy_id", "symbol", "data_digest", *(["result_digest"] if self.joint else [])):
            found[name] = str(of.get(name, ""))
        return found

    def table(self, name: Name, trace: TraceOf) -> Table:
        """Make a table. `trace` computes a run's replay. Raises BadInput for a table that this kind of job has not."""
        if name not in self.names:
            raise BadInput(f"job {self.job_id} ({self.kind}) has {', '.join(self.names)}, but no {name}")
        if name == "sets":
            return runs.figures_table(self.results, self.grid)
        if name == "jobs":
            return runs.figures_table([self.joint] if self.joint else self.results)
        if name == "daily":
            return self._daily()
        made = OF_TRACE[name]
        return joined([_named(made(trace(result)), result) for result in self.results])

    def _daily(self) -> Table:
        assert self.row is not None and self.joint is not None
        days, figures = unpack(self.row.daily)
        table = runs.daily_table(days, profits_of(self.joint, figures), self.joint["capital"])
        return _named(table, self.joint)


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
    if job is not None and job.kind in SWEEPS and job.state == "done":
        return _sweep(store, job)
    chosen = (
        fold_choices(job).job_id if job is not None and job.kind == "walk_forward" and job.state == "done" else job_id
    )
    row = next(iter(store.results([chosen])), None)
    if row is None and job is not None and job.kind in WITHOUT_RUN:
        raise BadInput(f"job {job_id} ({job.kind}) has no tables of its own: name one of its jobs")
    if row is None and job is not None and job.state != "done":
        raise BadInput(f"job {job_id} is {job.state}: it has no result yet")
    if row is None:
        known = [row.job_id for _, row in store.recent_results(1000)]
        raise UnknownName("job", job_id, known, "`candlemill results` lists the newest")
    joint: dict[str, Any] = msgspec.json.decode(row.result)
    kind = "portfolio" if "parts" in joint else job.kind if job is not None else "backtest"
    return Exported(job_id, kind, row, joint, list(joint.get("parts", [joint])), [])


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
    return Exported(job.job_id, job.kind, None, None, results, grid)


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
