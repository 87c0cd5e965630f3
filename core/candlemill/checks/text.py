"""The findings of a check as lines of text."""

from collections.abc import Callable

from candlemill.checks.report import Counterexample, Finding, Report
from candlemill.formatting import table
from candlemill.units import SCALE, iso

COLUMNS = ("open", "high", "low", "close", "volume")
SHOWN_CANDLES = 12  # candles of a counterexample; the JSON output has more
SHOWN_CHANGES = 6


def findings_of(report: Report, again: Callable[[str], list[str]] = lambda test: []) -> list[str]:
    """Return one line per test, then the faults with counterexamples; `again` gives the lines to reproduce a test."""
    lines = [_line(finding) for finding in report.findings]
    for finding in report.findings:
        if finding.verdict == "fault":
            lines += ["", f"FAULT {finding.test}: {finding.text}"]
            lines += [f"  {line}" for line in _case(finding.counterexample)]
            lines += again(finding.test)
    faults = sum(finding.verdict == "fault" for finding in report.findings)
    found = f"{faults} fault{'s' * (faults > 1)} found" if faults else "no fault found"
    return [*lines, "", f"{found}, in {report.seconds:.1f} s"]


def _line(finding: Finding) -> str:
    verdict = finding.verdict.upper() if finding.verdict == "fault" else finding.verdict
    return f"  {verdict:<8} {finding.test:<15} {finding.text}"


def _case(case: Counterexample | None) -> list[str]:
    if case is None:
        return []
    bars = f"{timeframe_text(case.timeframe)} bars, {case.bars:,} candles"
    lines = [f"{params_text(case.params)}  {bars}: {case.market}".strip()]
    if case.t is not None:
        lines.append(f"at {iso(case.t)}:")
    wide = max((len(done) for done, _ in case.said), default=0)
    lines += [f"  {done:<{wide}}  {said}" for done, said in case.said]
    if case.changed:
        lines.append("what was rewritten:")
    for change in case.changed[:SHOWN_CHANGES]:
        lines.append(f"  {iso(change.t)} {change.column}  {_value(change.column, change.before)} -> "
                     f"{_value(change.column, change.after)}")  # fmt: skip
    if len(case.changed) > SHOWN_CHANGES:
        lines.append(f"  and {len(case.changed) - SHOWN_CHANGES:,} more values")
    if 0 < len(case.candles) <= SHOWN_CANDLES:
        rows = [[iso(row["t"]), *(_value(name, row[name]) for name in COLUMNS)] for row in case.candles]
        lines += ["all candles:", *_table(rows, ["candle", *COLUMNS])]
    return lines


def _table(rows: list[list[str]], headers: list[str]) -> list[str]:
    return [f"  {line}" for line in table(rows, headers, right=range(1, len(headers))).splitlines()]


def _value(column: str, value: int) -> str:
    if column == "t":
        return iso(value)
    return f"{value // SCALE}.{value % SCALE:08d}"


def params_text(params: dict[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items())


def timeframe_text(k: int) -> str:
    for minutes, unit in ((1440, "d"), (60, "h")):
        if k % minutes == 0:
            return f"{k // minutes}{unit}"
    return f"{k}m"
