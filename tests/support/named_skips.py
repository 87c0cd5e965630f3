"""pytest --named-skips FILE: a test that is skipped for a reason that FILE does not name has failed.

A line of FILE is a pattern of what the skip says, as in a shell, then ` -- ` and why that is right. `#` comments.
"""

from collections.abc import Generator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

OPTION = "--named-skips"
SEPARATOR = " -- "


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, metavar="FILE", help="fail a test that is skipped for a reason that FILE does not name")


def read(text: str) -> list[str]:
    """The patterns. Raises ValueError for a line without a reason."""
    patterns = []
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            pattern, found, reason = line.partition(SEPARATOR)
            if not (found and pattern.strip() and reason.strip()):
                raise ValueError(f"{line!r} is not PATTERN{SEPARATOR}REASON")
            patterns.append(pattern.strip())
    return patterns


def judge(report: Any, config: pytest.Config) -> None:
    """Makes a failure of a report that says "skipped" for no named reason."""
    file = config.getoption(OPTION)
    if not (file and report.skipped) or hasattr(report, "wasxfail"):
        return
    said = report.longrepr[2].removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(fnmatchcase(said, pattern) for pattern in read(Path(file).read_text())):
        report.outcome = "failed"
        report.longrepr = f"skipped for a reason that {file} does not name: {said}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    judge(report, item.config)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    judge(report, collector.config)
    return report
