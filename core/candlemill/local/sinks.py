"""Logs of results outside of the store: lines of JSON in a file, and runs of MLflow. A result is logged once."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from candlemill.backtests.metric_table import RANKED, unit_of, value_of
from candlemill.errors import BadInput, CandlemillError
from candlemill.formatting import exact
from candlemill.local.exports import Exported
from candlemill.pipeline.rows import Notes
from candlemill.tables.runs import sizing_of
from candlemill.units import SCALE, iso

EXPERIMENT = "candlemill"
JOB_TAG = "candlemill.job_id"
LINE_LIMIT = 1 << 20  # bytes of a line that is read again
BATCH = 100  # parameters that MLflow takes at a time


class Sink(Protocol):
    """A place that results are logged to."""

    def log(self, found: Exported, notes: Notes) -> int:
        """Log a job's results, of a sweep each set's; return how many were new."""


def records(found: Exported, notes: Notes) -> Iterator[dict[str, Any]]:
    """Yield what is logged of each result: what it is of, its options, and its figures as exact decimals."""
    for result in [found.joint] if found.joint is not None else found.results:
        spec = {name: value for name, value in result["spec"].items() if name not in ("params", "grid", "schedule")}
        yield {
            "job_id": result["job_id"],
            "of": found.job_id,
            "kind": found.kind,
            "strategy": result["strategy_id"],
            "symbol": result["symbol"],
            "start": iso(result["start"]),
            "end": iso(result["end"]),
            "label": notes.label,
            "tags": notes.tags,
            "params": result["params"],
            "spec": spec,
            "figures": _figures(result),
            "data_digest": result["data_digest"],
            "result_digest": result["result_digest"],
        }


def _figures(result: Mapping[str, Any]) -> dict[str, str]:
    """Return the defined figures as decimal texts; shares are fractions of 1."""
    found = {}
    for name in RANKED:
        value, unit = value_of(result, name), unit_of(name, sizing_of(result), "parts" in result)
        if value is not None:
            found[name] = exact(value) if unit.scale == SCALE else str(value)
    return found


class JsonLines:
    """A file that a line is added to for each result."""

    def __init__(self, path: Path) -> None:
        """Raises BadInput for a path in no folder."""
        if not path.absolute().parent.is_dir() or path.is_dir():
            raise BadInput(f"--to {path}: give a file in a folder that exists")
        self._path = path

    def log(self, found: Exported, notes: Notes) -> int:
        known, new = self._known(), 0
        with self._path.open("ab") as file:
            for record in records(found, notes):
                if (record["job_id"], record["of"]) in known:
                    continue
                numbers = {name: msgspec.Raw(text.encode()) for name, text in record["figures"].items()}
                file.write(msgspec.json.encode({**record, "figures": numbers}) + b"\n")
                new += 1
        return new

    def _known(self) -> set[tuple[str, str]]:
        """Return the results that the file has: their job ids, and the jobs that they are of."""
        if not self._path.exists():
            return set()
        known = set()
        with self._path.open("rb") as file:
            while line := file.readline(LINE_LIMIT):
                try:
                    record = msgspec.json.decode(line)
                    known.add((str(record["job_id"]), str(record["of"])))
                except (msgspec.DecodeError, KeyError, TypeError):
                    raise BadInput(f"{self._path} has a line that is no result: give another file") from None
        return known


class MLflow:
    """A tracking server of MLflow, or its database: each result is a run of the experiment `candlemill`."""

    def __init__(self, uri: str) -> None:
        """Raises BadInput without the library."""
        try:
            from mlflow.tracking import MlflowClient
        except ModuleNotFoundError:
            raise BadInput("--mlflow needs mlflow: pip install mlflow") from None
        self._client: Any = MlflowClient(tracking_uri=uri)

    def log(self, found: Exported, notes: Notes) -> int:
        from mlflow.exceptions import MlflowException

        try:
            experiment = self._experiment()
            return sum(self._run(experiment, record) for record in records(found, notes))
        except MlflowException as error:
            raise CandlemillError(f"MLflow refused: {' '.join(str(error).split())[:300]}") from None

    def _experiment(self) -> str:
        known = self._client.get_experiment_by_name(EXPERIMENT)
        return str(self._client.create_experiment(EXPERIMENT) if known is None else known.experiment_id)

    def _run(self, experiment: str, record: dict[str, Any]) -> bool:
        from mlflow.entities import Metric, Param

        if self._client.search_runs([experiment], f"tags.`{JOB_TAG}` = '{record['job_id']}'", max_results=1):
            return False
        names = ("of", "kind", "strategy", "symbol", "start", "end", "label", "data_digest", "result_digest")
        tags = {f"candlemill.{name}": str(record[name]) for name in names} | {JOB_TAG: record["job_id"]}
        tags |= {f"tag.{tag}": "yes" for tag in record["tags"]}
        name = record["label"] or f"{record['symbol'][:40]} {record['strategy']} {record['job_id'][:12]}"
        run = self._client.create_run(experiment, run_name=name, tags=tags)
        values = {**record["spec"], **{f"param.{key}": value for key, value in record["params"].items()}}
        params = [Param(key, str(value)[:500]) for key, value in values.items() if value is not None]
        now = int(run.info.start_time)
        metrics = [Metric(key, float(text), now, 0) for key, text in record["figures"].items()]
        for k in range(0, max(len(params), 1), BATCH):
            self._client.log_batch(run.info.run_id, metrics=metrics if k == 0 else [], params=params[k : k + BATCH])
        self._client.set_terminated(run.info.run_id)
        return True
