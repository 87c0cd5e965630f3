"""Reports: a run, a sweep or a walk-forward as one self-contained HTML page, and its figures for notebooks.

Needs the extra `report` (plotly), which is imported when the first report or figure is made, and not before.
"""

from pathlib import Path

from candlemill.trace import Trace


def write_report(trace: Trace, path: Path | str) -> None:
    """One run as a page. Raises BadInput without plotly, OSError where the file cannot be written."""
    from candlemill.report import run

    Path(path).write_text(run.page(trace), encoding="utf-8")
