"""Every kind of job, from Python: it loads as what made it, shows itself, is listed, exported, and compared."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import candlemill as cm
import pytest
from candlemill.local.exports import default_names, exported, write_folder
from candlemill.store.clickhouse import ClickHouseStore

pytest.importorskip("optuna", reason="optuna is not installed: pip install 'candlemill[optimize]'")
GRID = {"fast": [5, 10], "slow": [20, 30]}
WALK = {"train": "1d", "test": "1d"}
BOTH = "AAAUSDT,BBBUSDT"
PANEL: dict[str, Any] = {"lookback": 60, "every": 60, "top": 1, "max_gap": 100_000}
KINDS: dict[str, Callable[[], Any]] = {
    "backtest": lambda: cm.backtest("AAAUSDT", "sma_cross", fast=5, slow=20),
    "panel": lambda: cm.backtest(BOTH, "xs_momentum", **PANEL),
    "portfolio": lambda: cm.backtest(BOTH, "sma_cross", fast=5, slow=20),
    "sweep": lambda: cm.sweep("AAAUSDT", "sma_cross", **GRID),
    "sweeps": lambda: cm.sweep(BOTH, "sma_cross", **GRID),
    "walk_forward": lambda: cm.walk_forward("AAAUSDT", "sma_cross", stop_loss=["1%", "2%"], **GRID, **WALK),
    "walk_forwards": lambda: cm.walk_forward(BOTH, "sma_cross", **GRID, **WALK),
    "study": lambda: cm.optimize("AAAUSDT", "sma_cross", space={**GRID, "stop_loss": ["1%", "2%"]}, trials=4),
}


def test_every_kind_loads_shows_exports_and_differs(database: Path, tmp_path: Path) -> None:
    dsn = f"chdb://{database}"
    with cm.open(dsn):
        made = {kind: run() for kind, run in KINDS.items()}
        listed = dict(zip(cm.jobs()["job_id"].tolist(), cm.jobs()["kind"].tolist(), strict=True))
        other = cm.backtest("AAAUSDT", "sma_cross", fast=6, slow=20).job_id
        for kind, job in made.items():
            name = job.study_id if kind == "study" else job.job_id
            loaded = cm.load(name[:12])
            assert type(loaded) is type(job), kind
            assert repr(loaded) == repr(job) and loaded._repr_html_() == job._repr_html_(), kind
            if kind != "walk_forward":  # its run, whose id it has, is listed as its own
                assert listed[name] == ("backtest" if kind == "panel" else kind)
            assert cm.diff(name, name).nothing and "kind" not in cm.diff(name, name).request
            if kind != "backtest":
                assert not cm.diff(name, other).nothing, kind
        assert sorted(set(listed.values())) == sorted(set(made) - {"panel"})
        more = cm.optimize("AAAUSDT", "sma_cross", space={**GRID, "stop_loss": ["1%", "3%"]}, trials=4, seed=2)
        found = cm.diff(made["study"].study_id, more.study_id).request
        assert found == {"seed": (1, 2), "space stop_loss": (["1%", "2%"], ["1%", "3%"])}
    with ClickHouseStore(dsn) as store:
        for kind, job in made.items():
            ready = exported(store, job.study_id if kind == "study" else job.job_id)
            names = [one for one in default_names(ready) if one in ("daily", "sets", "jobs")]
            assert names and all(path.stat().st_size for path in write_folder(tmp_path / kind, ready, names, _none))


def _none(result: dict[str, Any]) -> Any:
    raise AssertionError("these tables need no replay")
