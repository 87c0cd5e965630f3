"""What differs between two stored jobs: request, candles, code and figures."""

from collections.abc import Mapping
from typing import Any

import msgspec

from candlemill.backtests.identity import job_id
from candlemill.backtests.metric_table import RANKED, value_of
from candlemill.backtests.spec import Spec, spec_from_json
from candlemill.errors import CandlemillError
from candlemill.local.exports import SWEEPS, Exported, exported
from candlemill.pipeline.job_state import request_of
from candlemill.pipeline.rows import JobRow
from candlemill.store.base import Store

WHOLE = (*SWEEPS, "study", "walk_forward", "walk_forwards")  # whose request is that of the whole, not of a run
OUTCOMES = ("total_pnl", "sharpe_ratio", "max_drawdown", "trades")


class Difference(msgspec.Struct, frozen=True):
    """The differences between jobs `a` and `b`; what is equal is left out.

    `request` has both values of each option and parameter (None where a job has none), `candles` both digests, `code`
    a sentence, `figures` both integers of each figure; of sweeps `sets`, the parameter sets with different figures.
    """

    a: str
    b: str
    request: dict[str, tuple[Any, Any]]
    candles: tuple[str, str] | None
    code: str
    figures: dict[str, tuple[int | None, int | None]]
    sets: list[dict[str, Any]]

    @property
    def nothing(self) -> bool:
        return not (self.request or self.candles or self.figures or self.sets)


def difference(store: Store, first: str, second: str) -> Difference:
    """Compare two finished jobs by their ids, or by the first letters of these. Raises UnknownName, BadInput."""
    one, two = _Side(store, first), _Side(store, second)
    return Difference(
        one.found.job_id,
        two.found.job_id,
        _request(one, two),
        None if one.data_digest == two.data_digest else (one.data_digest, two.data_digest),
        _code(one, two),
        _figures(one.best, two.best),
        _sets(one.found, two.found),
    )


class _Side:
    """One of the two jobs."""

    def __init__(self, store: Store, job_id: str) -> None:
        self.found = exported(store, job_id)
        row = store.job(self.found.job_id)
        results = [self.found.joint] if self.found.joint is not None else self.found.results
        self.best: Mapping[str, Any] = max(results, key=lambda result: result["sharpe_ratio"])
        is_whole = self.found.kind in WHOLE and row is not None
        self.more = _more(row) if is_whole and row else {}
        self.spec: Spec = spec_from_json(row.spec if is_whole and row else msgspec.json.encode(self.best["spec"]))
        self.data_digest = str(row.data_digest if is_whole and row else self.best["data_digest"])
        self.weights: Mapping[str, int] = self.best.get("weights", {})

    def is_of_this_code(self) -> bool | None:
        """Return whether the code of this installation makes this id; None for a job whose strategy it has not."""
        if self.found.kind in ("portfolio", "walk_forward", "sweeps", "walk_forwards", "study"):
            return None
        try:
            return job_id(self.spec, self.data_digest) == self.found.job_id
        except (CandlemillError, KeyError):
            return None


def _more(row: JobRow) -> dict[str, Any]:
    """Return what a study's or a walk-forward's request has besides its spec."""
    if row.kind == "study":
        study = msgspec.json.decode(row.figures)
        request = study["request"]
        options = {name: request[name] for name in ("sampler", "pruner", "seed", "score")}
        space = {f"space {name}": values for name, values in request["space"].items()}
        return {**options, **space, "trials": len(study["trials"])}
    request = request_of(row)
    return msgspec.to_builtins(request.walk_forward) if request is not None and request.walk_forward else {}


def _request(one: _Side, two: _Side) -> dict[str, tuple[Any, Any]]:
    a, b = _flat(one), _flat(two)
    return {name: (a.get(name), b.get(name)) for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)}


def _flat(side: _Side) -> dict[str, Any]:
    """Return the spec's fields, with each parameter and each axis of the grid under a name of its own."""
    fields: dict[str, Any] = msgspec.to_builtins(side.spec)
    params, grid = fields.pop("params"), fields.pop("grid")
    kind = {"kind": side.found.kind}
    return (
        kind
        | fields
        | {f"param {name}": value for name, value in params.items()}
        | {f"grid {name}": values for name, values in grid.items()}
        | {f"weight {name}": weight for name, weight in side.weights.items()}
        | side.more
    )


def _code(one: _Side, two: _Side) -> str:
    """Return what is known about the code of both; empty where nothing is different."""
    if one.found.job_id == two.found.job_id:
        return ""
    if one.spec == two.spec and one.data_digest == two.data_digest and one.found.kind == two.found.kind:
        return "other code: the same request and candles have another id" if not one.weights else ""
    known = one.is_of_this_code(), two.is_of_this_code()
    names = {True: "the code that is installed", False: "other code", None: "code that is not known here"}
    return "" if known[0] == known[1] else f"{names[known[0]]}; {names[known[1]]}"


def _figures(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[int | None, int | None]]:
    pairs = {name: (value_of(a, name), value_of(b, name)) for name in RANKED}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _sets(one: Exported, two: Exported) -> list[dict[str, Any]]:
    """Return the parameter sets of both sweeps whose main figures differ, with both values of each."""
    if one.kind not in SWEEPS or two.kind not in SWEEPS:
        return []
    others = {_key(result): result for result in two.results}
    found = []
    for result in one.results:
        other = others.get(_key(result))
        changed = {} if other is None else _figures(result, other)
        if changed:
            found.append({"params": result["params"], **{name: changed[name] for name in OUTCOMES if name in changed}})
    return found


def _key(result: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode([result["symbol"], result["params"]], order="sorted")
