"""Counters and histograms that Prometheus reads.

They are kept here, and prometheus-client writes them down when somebody asks: importing it takes as long as a tenth of
an executor's start, and a process that nobody asks never does. Label values come from small fixed sets, never ids.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from prometheus_client.core import Metric

NOT_INSTALLED: Final = "metrics need prometheus-client: pip install prometheus-client"

_lock = threading.Lock()
_meters: "dict[str, Meter]" = {}


class Meter(Protocol):
    """One metric."""

    name: str

    def family(self) -> "Metric":
        """Its values as prometheus-client has them."""


class Counter:
    """A number that grows. `name` without the ending `_total`, which is added."""

    def __init__(self, name: str, text: str, *labels: str, known: Sequence[str] = ()) -> None:
        """`known` values of a single label stand at zero from the start: an alert on growth misses a first value."""
        self.name, self._text, self._labels = name, text, labels
        self._values: dict[tuple[str, ...], float] = {(one,): 0 for one in known} if labels else {(): 0}
        _meters[name] = self

    def add(self, *values: str, n: float = 1) -> None:
        with _lock:
            self._values[values] = self._values.get(values, 0) + n

    def family(self) -> "Metric":
        from prometheus_client.core import CounterMetricFamily

        found = CounterMetricFamily(self.name, self._text, labels=self._labels)
        with _lock:
            for values, number in self._values.items():
                found.add_metric(values, number)
        return found


class Histogram:
    """How often something took how long, in seconds: counted in buckets up to the `bounds`, ascending, and beyond."""

    def __init__(self, name: str, text: str, bounds: Sequence[float], *labels: str) -> None:
        self.name, self._text, self._labels = name, text, labels
        self._bounds = tuple(bounds)
        self._values: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        _meters[name] = self

    def observe(self, seconds: float, *values: str) -> None:
        with _lock:
            counts, total = self._values.setdefault(values, ([0] * (len(self._bounds) + 1), [0.0]))
            counts[bisect_left(self._bounds, seconds)] += 1
            total[0] += seconds

    def family(self) -> "Metric":
        from prometheus_client.core import HistogramMetricFamily

        found = HistogramMetricFamily(self.name, self._text, labels=self._labels)
        names = [*map(str, self._bounds), "+Inf"]
        with _lock:
            for values, (counts, total) in self._values.items():
                upto = [sum(counts[: k + 1]) for k in range(len(counts))]
                found.add_metric(values, list(zip(names, upto, strict=True)), total[0])
        return found


class Gauge:
    """A number that is looked up when it is asked for. One of the same name takes the place of an older one."""

    def __init__(self, name: str, text: str, read: Callable[[], float]) -> None:
        self.name, self._text, self._read = name, text, read
        _meters[name] = self

    def family(self) -> "Metric":
        from prometheus_client.core import GaugeMetricFamily

        return GaugeMetricFamily(self.name, self._text, value=self._read())


class _All:
    def collect(self) -> "Iterator[Metric]":
        return (meter.family() for meter in list(_meters.values()))


def page(*more: Any) -> tuple[bytes, str] | None:
    """This process's metrics, and those of `more` collectors, in Prometheus's text format, with its content type.
    None where prometheus-client is not installed."""
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
    except ImportError:
        return None
    registry = CollectorRegistry(auto_describe=False)
    for collector in (_All(), *more):
        registry.register(collector)
    ProcessCollector(registry=registry)
    return generate_latest(registry), CONTENT_TYPE_LATEST
