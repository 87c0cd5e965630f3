"""Counters, histograms and gauges for Prometheus.

prometheus-client is imported only when a page is requested, since its import takes a tenth of an executor's start.
Label values come from small fixed sets, never ids.
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
        """Values in the form of prometheus-client."""


class Counter:
    """Counter. `name` has no ending `_total`, which Prometheus adds."""

    def __init__(self, name: str, text: str, *labels: str, known: Sequence[str] = ()) -> None:
        """`known` values of a single label start at zero, since an alert on growth would miss their first increment."""
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
    """Histogram of durations in seconds, with buckets up to the ascending `bounds` and one above them."""

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
    """Gauge that calls `read` at each scrape. A new one replaces an older one of the same name."""

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
    """Return the metrics of this process and of `more` collectors as text, and its content type.

    None if prometheus-client is not installed.
    """
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
