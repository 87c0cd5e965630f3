"""Responses about paper runs."""

from typing import Any

import msgspec

from candlemill.gateway.schemas.units import Moment
from candlemill.paper.decision import Decision


class PaperRunSummary(msgspec.Struct, frozen=True):
    """A paper run: it began at `start`, and has published its decisions from `since` on. `last` is the newest one,
    `settings` what differs from the usual, as text."""

    run: str
    symbol: str
    strategy: str
    params: dict[str, Any]
    start: Moment
    since: Moment
    last: Decision | None
    settings: dict[str, str]


class PaperRuns(msgspec.Struct, frozen=True):
    runs: list[PaperRunSummary]


class PaperRunDetails(msgspec.Struct, frozen=True):
    """A paper run and its last decisions, the newest first. The valid decision of a minute has the highest attempt."""

    run: PaperRunSummary
    decisions: list[Decision]
