"""The service's figures, and those of the home beside them. Each service has a registry of its own.

What they are called, and mean, is in `observability/metrics/definitions.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from models.inbox.records import LabelResult
from observability.metrics import definitions as defined
from observability.metrics import prometheus
from observability.metrics.prometheus import SampleCollector
from observability.metrics.samples import Sample, sample

CONTENT_TYPE = prometheus.CONTENT_TYPE


@dataclass(frozen=True)
class BundleFigures:
    """What is told of the bundle that serves, at the moment of a scrape."""

    pipeline: str
    ready: bool
    age_s: float | None
    """Seconds since the bundle began to serve; None where there is none."""
    position: int | None
    """Of its checkpoint; None where there is none."""
    waiting: int
    """Records that wait for their prediction."""

    def samples(self) -> list[Sample]:
        """The same as samples; what is None is absent."""
        return [
            *sample(defined.BUNDLE_READY, self.ready, self.pipeline),
            *sample(defined.BUNDLE_AGE, self.age_s, self.pipeline),
            *sample(defined.BUNDLE_POSITION, self.position, self.pipeline),
            *sample(defined.WAITING, self.waiting, self.pipeline),
        ]


class ServiceMetrics:
    """Counters and histograms of one service; any thread may count."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = prometheus.counter(defined.REQUESTS, registry)
        self._latency = prometheus.histogram(defined.REQUEST_SECONDS, registry)
        self._gathered = prometheus.histogram(defined.GATHERED_RECORDS, registry)
        self._gathered_requests = prometheus.histogram(defined.GATHERED_REQUESTS, registry)
        self._repeated = prometheus.counter(defined.REPEATED, registry)
        self._swaps = prometheus.counter(defined.SWAPS, registry)
        self._failed_swaps = prometheus.counter(defined.SWAP_FAILURES, registry)
        self._shadow_answers = prometheus.counter(defined.SHADOW_ANSWERS, registry)
        self._shadow_dropped = prometheus.counter(defined.SHADOW_DROPPED, registry)
        self._shadow_failures = prometheus.counter(defined.SHADOW_FAILURES, registry)
        self._labels = prometheus.counter(defined.LABELS, registry)

    def show(self, collect: Callable[[], Iterable[Sample]]) -> None:
        """Show these samples beside, as they are at each scrape."""
        self.registry.register(SampleCollector(collect))

    def begin(self, pipeline: str) -> None:
        """Show what is counted of a pipeline from 0 on: else the first failure is no increase."""
        self._swaps.labels(pipeline)
        self._failed_swaps.labels(pipeline)

    def answered(self, route: str, code: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(route, str(code)).inc()
        self._latency.labels(route).observe(seconds)

    def gathered(self, pipeline: str, requests: int, records: int) -> None:
        """Count records of several requests that were predicted together."""
        self._gathered.labels(pipeline).observe(records)
        self._gathered_requests.labels(pipeline).observe(requests)

    def repeated(self, pipeline: str) -> None:
        """Count a request that got the answers of an earlier one."""
        self._repeated.labels(pipeline).inc()

    def swapped(self, pipeline: str) -> None:
        """Count a bundle that began to serve."""
        self._swaps.labels(pipeline).inc()

    def swap_failed(self, pipeline: str) -> None:
        """Count a bundle that could not be loaded."""
        self._failed_swaps.labels(pipeline).inc()

    def labelled(self, pipeline: str, results: Iterable[LabelResult]) -> None:
        """Count labels by what became of them."""
        for each in results:
            self._labels.labels(pipeline, each.outcome).inc()

    def shadow_answered(self, pipeline: str, version: str, count: int) -> None:
        """Count answers in the shadow that were logged."""
        self._shadow_answers.labels(pipeline, version).inc(count)

    def shadow_dropped(self, pipeline: str, count: int) -> None:
        """Count records that the shadows could not keep up with."""
        self._shadow_dropped.labels(pipeline).inc(count)

    def shadow_failed(self, pipeline: str, count: int) -> None:
        """Count records that a shadow could not answer, or that could not be logged."""
        self._shadow_failures.labels(pipeline).inc(count)

    def page(self) -> bytes:
        """All figures as text. It reads files: not for an event loop."""
        return prometheus.text(self.registry)
