"""Reports: a run, a sweep or a walk-forward as one self-contained HTML page, and its figures for notebooks.

Needs the extra `report` (plotly), which is imported when the first report or figure is made, and not before.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from candlemill.trace import Trace


def write_report(trace: Trace, path: Path | str) -> None:
    """One run as a page. Raises BadInput without plotly, OSError where the file cannot be written."""
    from candlemill.report import run

    Path(path).write_text(run.page(trace), encoding="utf-8")


def write_sweep_report(sweep: Mapping[str, Any], path: Path | str) -> None:
    """A sweep as a page: `job_id`, `spec`, `results` (as of reduce.result_of, maybe with `metrics`) and `guards`, or
    None for these. Raises as `write_report`, and BadInput for a sweep without results."""
    from candlemill.report import sweep as report

    Path(path).write_text(report.page(sweep), encoding="utf-8")


def write_walk_forward_report(found: Mapping[str, Any], path: Path | str) -> None:
    """A walk-forward as a page: `folds` (bounds in ms, `params`, `in_sample` and `out_of_sample` scores), the stitched
    out-of-sample `trace`, and `guards` or None; `score` names what the folds were judged by, `command` is the command
    line to show. Raises as `write_report`."""
    from candlemill.report import walk

    Path(path).write_text(walk.page(found), encoding="utf-8")
