"""A histogram that costs next to nothing to add to: seconds by stage, for Prometheus."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector


class StageSeconds(Collector):
    """Seconds by stage, of one thread.

    A histogram of prometheus_client takes a lock for each of the numbers that it adds to, since any
    thread may. Requests end on the thread of the event loop alone, and each notes seven stages.

    Args:
        name: of the metric.
        documentation: of it.
        bounds: of its buckets, in seconds, ascending.

    >>> seconds = StageSeconds("seconds", "By stage.", bounds=(0.1, 1.0))
    >>> seconds.note({"read": 0.1, "total": 2.0})
    >>> [sample.value for sample in next(seconds.collect()).samples]
    [1.0, 1.0, 1.0, 1.0, 0.1, 0.0, 0.0, 1.0, 1.0, 2.0]
    """

    def __init__(self, name: str, documentation: str, bounds: Sequence[float]) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = tuple(bounds)
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def note(self, stages: dict[str, float]) -> None:
        """Add a request's."""
        for stage, seconds in stages.items():
            if stage not in self._counts:
                self._counts[stage] = [0] * (len(self._bounds) + 1)
                self._sums[stage] = 0.0
            self._counts[stage][bisect_left(self._bounds, seconds)] += 1
            self._sums[stage] += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """As Prometheus counts: a bucket holds what is at most its bound."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=["stage"])
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for stage, counts in self._counts.items():
            buckets = list(zip(bounds, map(float, accumulate(counts)), strict=True))
            family.add_metric([stage], buckets, self._sums[stage])
        yield family
