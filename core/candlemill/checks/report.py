"""What a check found, as values."""

from typing import Any, Literal

import msgspec

from candlemill.checks.market import COLUMNS, Market

Verdict = Literal["ok", "note", "warning", "fault", "skipped"]


class Change(msgspec.Struct, frozen=True):
    """A candle's column that was rewritten."""

    t: int
    column: str
    before: int
    after: int


class Counterexample(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest case found. `said` is what was done, each with the decision that came of it at the bar that opens
    at `t`; `candles` the whole tape that shows it, in time order, empty where it is too long to be read."""

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
    """One test's outcome: `runs` trials were made."""

    test: str
    verdict: Verdict
    text: str
    runs: int = 0
    counterexample: Counterexample | None = None


class Report(msgspec.Struct, frozen=True):
    """What `candlemill.check` found out about a strategy. `honest`: no fault was found; that is evidence, no proof."""

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


SHOWN = 200  # candles that a counterexample carries


def rows(market: Market) -> list[dict[str, int]]:
    if len(market) > SHOWN:
        return []
    columns = [getattr(market, name).tolist() for name in COLUMNS]
    return [dict(zip(COLUMNS, values, strict=True)) for values in zip(*columns, strict=True)]


def decision(value: int) -> str:
    return f"{value:+d}" if value else "0"
