"""Results of a check as data types."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from candlemill.checks.markets import COLUMNS, Market
from candlemill.checks.subject import params_of
from candlemill.strategies import Strategy

Progress = Callable[[int, int], None]  # tests done, of how many
Verdict = Literal["ok", "note", "warning", "fault", "skipped"]


class Change(msgspec.Struct, frozen=True):
    """A changed value: one column of one candle."""

    t: int
    column: str
    before: int
    after: int


class Counterexample(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest case found.

    `said` lists the calls, each with its decision at the bar that opens at `t`; `candles` is all candles in time
    order, empty if it is too long to read.
    """

    text: str
    params: dict[str, Any]
    timeframe: int
    market: str
    t: int | None = None
    said: list[tuple[str, str]] = []
    changed: list[Change] = []
    bars: int = 0
    candles: list[dict[str, int]] = []


class Finding(msgspec.Struct, frozen=True):
    """The outcome of one test after `runs` trials."""

    test: str
    verdict: Verdict
    text: str
    runs: int = 0
    counterexample: Counterexample | None = None


class Report(msgspec.Struct, frozen=True):
    """The result of `candlemill.check` for a strategy. `honest`: no fault was found, which is evidence, not proof."""

    strategy: str
    params: dict[str, Any]
    timeframes: list[int]
    data: str
    seed: int
    findings: list[Finding]
    seconds: float

    @property
    def honest(self) -> bool:
        return not any(finding.verdict == "fault" for finding in self.findings)

    def __getitem__(self, test: str) -> Finding:
        return next(finding for finding in self.findings if finding.test == test)


SHOWN = 200  # maximum number of candles in a counterexample


def rows(market: Market) -> list[dict[str, int]]:
    if len(market) > SHOWN:
        return []
    columns = [getattr(market, name).tolist() for name in COLUMNS]
    return [dict(zip(COLUMNS, values, strict=True)) for values in zip(*columns, strict=True)]


def decision(value: int) -> str:
    return f"{value:+d}" if value else "0"


def report_of(
    strategy: Strategy,
    timeframes: Sequence[int],
    data: str,
    seed: int,
    tests: Sequence[str],
    finding: Callable[[str, int], Finding],
    progress: Progress | None,
) -> Report:
    """Run tests one after the other: `finding` gets a test's name and how many tests there are."""
    begun = time.monotonic()
    findings = []
    for number, test in enumerate(tests, 1):
        findings.append(finding(test, len(tests)))
        if progress:
            progress(number, len(tests))
    took = round(time.monotonic() - begun, 3)
    return Report(type(strategy).__name__, params_of(strategy), list(timeframes), data, seed, findings, took)
