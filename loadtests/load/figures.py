"""What samples amount to: percentiles by kind, rates, an error budget, costs. Arithmetic alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

import msgspec

from loadtests.load.orders import Heard, Sample

ERRORS_ALLOWED = 0.001  # of all requests: the budget that a service which promises 99.9 % has


class Kind(msgspec.Struct, frozen=True):
    """Requests of one kind, or journeys; times in ms."""

    name: str
    count: int
    per_second: float
    p50: float
    p90: float
    p95: float
    p99: float
    most: float
    errors: int
    is_journey: bool


class Stage(msgspec.Struct, frozen=True):
    """One stage. `cores` are the cores' worth of CPU time by group of processes; `swarm` is locust's own."""

    name: str
    about: str
    seconds: float
    users: int
    requests: int
    errors: int
    per_second: float
    kinds: list[Kind]
    ms: list[float]  # p50, p95 and p99 of all requests, of whatever kind
    by_second: list[int]
    cores: dict[str, float]
    served_cpu_ms: float  # of the serving processes, per request, without what they use when nobody asks
    errors_reported: list[str]
    load: float
    more: dict[str, Any] = {}

    @property
    def budget_used(self) -> float:
        """The share of the error budget that is used up; above 1 it is overdrawn."""
        return self.errors / (ERRORS_ALLOWED * self.requests) if self.requests else 0.0

    def count(self, *kinds: str) -> int:
        """Those of these kinds whose answers were to be expected."""
        return sum(kind.count - kind.errors for kind in self.kinds if kind.name in kinds)


def percentile(ascending: Sequence[float], share: float) -> float:
    """The least value that at least `share` of all values do not exceed (nearest rank); 0 of none."""
    if not ascending:
        return 0.0
    return ascending[max(0, ceil(share * len(ascending)) - 1)]


def kinds_of(samples: Sequence[Sample], seconds: float) -> list[Kind]:
    """By kind: requests first, then journeys, each in order of their names."""
    groups: dict[tuple[bool, str], list[Sample]] = defaultdict(list)
    for one in samples:
        groups[one.is_journey, one.kind].append(one)
    found = []
    for (is_journey, name), members in sorted(groups.items()):
        ms = sorted(one.ms for one in members)
        p50, p90, p95, p99 = (percentile(ms, share) for share in (0.5, 0.9, 0.95, 0.99))
        errors = sum(not one.good for one in members)
        found.append(Kind(name, len(ms), len(ms) / seconds, p50, p90, p95, p99, ms[-1], errors, is_journey))
    return found


def by_second(samples: Sequence[Sample], seconds: float) -> list[int]:
    """Requests that were answered in each whole second."""
    counts = [0] * int(seconds)
    for one in samples:
        if not one.is_journey and int(one.at) < len(counts):
            counts[int(one.at)] += 1
    return counts


def stage_of(
    name: str,
    about: str,
    heard: Heard,
    users: int,
    served: Sequence[str],
    idle_cores: float,
    load: float,
    more: Mapping[str, Any] | None = None,
) -> Stage:
    """`served` are the groups of processes that serve; `idle_cores` is what these use when nobody asks."""
    requests = sum(not one.is_journey for one in heard.samples)
    errors = sum(not one.good for one in heard.samples)
    ms = sorted(one.ms for one in heard.samples if not one.is_journey)
    used = max(0.0, sum(heard.cores[group] for group in served) - idle_cores)
    return Stage(
        name=name,
        about=about,
        seconds=heard.seconds,
        users=users,
        requests=requests,
        errors=errors,
        per_second=requests / heard.seconds,
        kinds=kinds_of(heard.samples, heard.seconds),
        ms=[percentile(ms, share) for share in (0.5, 0.95, 0.99)],
        by_second=by_second(heard.samples, heard.seconds),
        cores=heard.cores,
        served_cpu_ms=1e3 * used * heard.seconds / max(requests, 1),
        errors_reported=heard.errors,
        load=load,
        more=dict(more or {}),
    )


def cost_seconds(stage: Stage, *journeys: str) -> float:
    """CPU seconds of the serving processes for each journey that reached its end."""
    return stage.served_cpu_ms / 1e3 * stage.requests / max(stage.count(*journeys), 1)
