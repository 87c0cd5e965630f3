"""Reports of a run, a sweep or a walk-forward as one self-contained HTML page, and their figures for notebooks.

Needs the extra `report` (plotly), which is imported only when the first report or figure is made.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from candlemill.backtests.replay import Replay


def write_report(trace: Replay, path: Path | str) -> None:
    """Write the page of one run. Raises BadInput without plotly, OSError where the file cannot be written."""
    from candlemill.report import run

    Path(path).write_text(run.page(trace), encoding="utf-8")


def write_sweep_report(sweep: Mapping[str, Any], path: Path | str) -> None:
    """Write the page of a sweep.

    `sweep` has `job_id`, `spec`, `results` (of reduce.result_of, optionally with `metrics`) and `guards` (or None).
    Raises as `write_report`, and BadInput for a sweep without results.
    """
    from candlemill.report import sweep as report

    Path(path).write_text(report.page(sweep), encoding="utf-8")


def write_walk_forward_report(found: Mapping[str, Any], path: Path | str) -> None:
    """Write the page of a walk-forward.

    `found` has `folds` (bounds in ms, `params`, `in_sample` and `out_of_sample` scores), the combined out-of-sample
    `trace`, and `guards` (or None); `score` is the name of the folds' score, `command` the command line to show.
    Raises as `write_report`.
    """
    from candlemill.report import walk

    Path(path).write_text(walk.page(found), encoding="utf-8")
