"""The service's figures, in Prometheus' format. Each service has a registry of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from models.inbox.records import LabelResult

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True)
class BundleFigures:
    """What is told of the bundle that serves, at the moment of a scrape."""

    pipeline: str
    ready: bool
    age_s: float
    """Seconds since the bundle began to serve; 0 where there is none."""
    position: int
    """Of its checkpoint; -1 where there is none."""
    waiting: int
    """Records that wait for their prediction."""


class ServiceMetrics:
    """Counters and histograms of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "thermodrift_requests",
            "Requests, by route and status code.",
            ("route", "code"),
            registry=self.registry,
        )
        self._latency = Histogram(
            "thermodrift_request_seconds",
            "Seconds from a request's head to the end of its answer, by route.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._gathered = Histogram(
            "thermodrift_gathered_records",
            "Records that were predicted together.",
            ("pipeline",),
            buckets=_SIZES,
            registry=self.registry,
        )
        self._gathered_requests = Histogram(
            "thermodrift_gathered_requests",
            "Requests that were answered by one prediction.",
            ("pipeline",),
            buckets=_SIZES,
            registry=self.registry,
        )
        self._swaps = Counter(
            "thermodrift_bundle_swaps",
            "Bundles that began to serve.",
            ("pipeline",),
            registry=self.registry,
        )
        self._failed_swaps = Counter(
            "thermodrift_bundle_swap_failures",
            "Checkpoints or champions that could not be loaded; the old bundle went on serving.",
            ("pipeline",),
            registry=self.registry,
        )
        self._labels = Counter(
            "thermodrift_labels",
            "Labels that came, by what became of them.",
            ("pipeline", "outcome"),
            registry=self.registry,
        )
        self._ready = self._gauge("bundle_ready", "Whether a bundle serves: 1 or 0.")
        self._age = self._gauge("bundle_age_seconds", "Seconds since the bundle began to serve.")
        self._position = self._gauge("bundle_position", "Position of the bundle's checkpoint.")
        self._waiting = self._gauge("waiting_records", "Records that wait for their prediction.")

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(f"thermodrift_{name}", what, ("pipeline",), registry=self.registry)

    def answered(self, route: str, code: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._requests.labels(route, str(code)).inc()
        self._latency.labels(route).observe(seconds)

    def gathered(self, pipeline: str, requests: int, records: int) -> None:
        """Count records of several requests that were predicted together."""
        self._gathered.labels(pipeline).observe(records)
        self._gathered_requests.labels(pipeline).observe(requests)

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

    def page(self, bundles: Iterable[BundleFigures]) -> bytes:
        """All figures as text, with those of the bundles as they are now."""
        for each in bundles:
            self._ready.labels(each.pipeline).set(each.ready)
            self._age.labels(each.pipeline).set(each.age_s)
            self._position.labels(each.pipeline).set(each.position)
            self._waiting.labels(each.pipeline).set(each.waiting)
        return generate_latest(self.registry)
