"""What Prometheus reads from ``/metrics``."""

from __future__ import annotations

from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from sa_runtime.service.answered import Answered
from sa_runtime.service.gate import Gate
from sa_runtime.service.models import Models
from sa_runtime.service.stages import StageSeconds
from sa_runtime.service.tickets import BatchReport

_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0),
)
BAD_KINDS = ("not finite", "zero norm")
_CROPS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters, histograms and gauges of one service.

    No name of a client stands in them: their number is not bounded.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry, "namespace": "sa_deploy"}
        self._requests = Counter(
            "requests", "Requests by endpoint and status.", ["route", "status"], **made
        )
        self._refused = Counter("refused", "Requests not answered, by reason.", ["reason"], **made)
        self._seconds = StageSeconds(
            "sa_deploy_request_seconds",
            "Seconds of answered requests for vectors, by stage and in total.",
            _SECONDS,
        )
        self.registry.register(self._seconds)
        self._people = Counter("people", "Vectors given.", ["model"], **made)
        self._batch_crops = Histogram(
            "batch_crops", "Crops in a batch.", ["model"], buckets=_CROPS, **made
        )
        self._batch_seconds = Histogram(
            "batch_seconds", "Seconds of a batch.", ["model"], buckets=_SECONDS, **made
        )
        self._wait = Histogram(
            "batch_wait_seconds",
            "Seconds that the oldest crop of a batch waited.",
            ["model"],
            buckets=_SECONDS,
            **made,
        )
        self._failed = Counter("failed_crops", "Crops without vectors.", ["model"], **made)
        self._bad = Counter(
            "bad_vectors",
            "Vectors that are not finite, or of no length.",
            ["model", "kind"],
            **made,
        )
        self._flat = Counter("flat_images", "People without contrast.", ["model"], **made)
        self._queue = Gauge("queue_crops", "Crops that wait for a batch.", ["model"], **made)
        self._in_flight = Gauge("requests_in_flight", "Requests being answered.", **made)
        self._bodies = Gauge("bodies_bytes", "Bytes of their bodies.", **made)
        self._ready = Gauge("model_ready", "Whether the last canary passed.", ["model"], **made)
        self._cosine = Gauge(
            "canary_cosine", "Of the worst canary crop to its known vector.", ["model"], **made
        )
        self._drift = Gauge(
            "drift",
            "How far recent vectors are from those of export: see the documentation.",
            ["model", "kind"],
            **made,
        )
        self._told: dict[str, set[str]] = {}
        self._info = Gauge(
            "model_info",
            "1 for each model that is served.",
            ["model", "version", "space", "precision", "runtime"],
            **made,
        )
        ProcessCollector(registry=self.registry)

        # Looked up by their labels once: a lookup costs as much as counting does.
        self._counted = cache(self._requests.labels)
        self._given = cache(self._people.labels)
        self._refused_for = cache(self._refused.labels)

    def count(self, route: str, status: int, reason: str) -> None:
        """Count a request by its endpoint, its status, and why it was refused, if it was."""
        self._counted(route or "none", status).inc()
        if reason:
            self._refused_for(reason).inc()

    def note(self, answered: Answered) -> None:
        """Count a request and its stages."""
        self.count(answered.route, answered.status, answered.reason)
        if answered.stages and answered.status == 200:
            self._seconds.note({**answered.stages, "total": answered.seconds})
            self._given(answered.model).inc(answered.people)

    def note_batch(self, model: str, report: BatchReport) -> None:
        """Count a batch."""
        self._batch_crops.labels(model).observe(report.crops)
        self._batch_seconds.labels(model).observe(report.seconds)
        self._wait.labels(model).observe(report.waited_s)
        if report.failed:
            self._failed.labels(model).inc(report.failed)
        if report.flat:
            self._flat.labels(model).inc(report.flat)
        counts = (report.not_finite, report.zero_norm)
        for kind, count in zip(BAD_KINDS, counts, strict=True):
            if count:
                self._bad.labels(model, kind).inc(count)

    def note_drift(self, model: str, kinds: dict[str, float]) -> None:
        """Set what :mod:`sa_runtime.service.drift` measured; what it did not is not told."""
        for kind, value in kinds.items():
            self._drift.labels(model, kind).set(value)
        for kind in self._told.pop(model, set()) - set(kinds):
            self._drift.remove(model, kind)
        self._told[model] = set(kinds)

    def _begin(self, model: str) -> None:
        """Have what is seldom counted stand at 0: Prometheus sees no rise to the first value."""
        for counter in (self._failed, self._flat, self._people):
            counter.labels(model)
        for kind in BAD_KINDS:
            self._bad.labels(model, kind)

    def text(self, models: Models, gate: Gate) -> bytes:
        """The page of Prometheus, with the gauges as they stand."""
        self._in_flight.set(gate.requests)
        self._bodies.set(gate.held_bytes)
        self._info.clear()
        self._refused.labels("overload")
        for served in models:
            contract = served.contract
            self._begin(served.name)
            self._queue.labels(served.name).set(served.batcher.waiting)
            self._ready.labels(served.name).set(served.healthy)
            self._cosine.labels(served.name).set(served.cosine)
            self._info.labels(
                served.name,
                str(served.version),
                contract.space,
                contract.precision,
                served.runner.name,
            ).set(1)
        return generate_latest(self.registry)
