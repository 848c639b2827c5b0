"""Adapter for prometheus-client: samples as text, as a file for node_exporter, or to a Pushgateway.

It decides nothing, and knows no file of the home.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import push_to_gateway
from prometheus_client.registry import Collector

from observability.metrics import samples
from observability.metrics.definitions import Metric
from observability.metrics.samples import Sample

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
JOB: Final = "thermodrift"
"""The name of the job at a Pushgateway."""
PUSH_WITHIN_S: Final = 2.0
"""A run that a signal ends has ten seconds for all that is left to do."""


class PushFailed(OSError):
    """A Pushgateway did not take the figures."""


class SampleCollector(Collector):
    """Gives a registry the samples of the moment at which it is asked."""

    def __init__(self, collect: Callable[[], Iterable[Sample]]) -> None:
        self._collect = collect

    def describe(self) -> list[Family]:
        """Name no metric beforehand: nothing is collected when the registry is made."""
        return []

    def collect(self) -> Iterator[Family]:
        """One family for each metric that has a value."""
        found: dict[Metric, list[Sample]] = {}
        for each in self._collect():
            found.setdefault(each.metric, []).append(each)
        for metric, values in found.items():
            yield _family(metric, values)


def _family(metric: Metric, values: Iterable[Sample]) -> Family:
    if metric.kind == "summary":
        summary = SummaryMetricFamily(metric.name, metric.meaning, labels=metric.labels)
        for each in values:
            summary.add_metric(each.labels, int(each.count), each.value)
        return summary
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.meaning, labels=metric.labels)
    for each in values:
        family.add_metric(each.labels, each.value)
    return family


def counter(metric: Metric, registry: CollectorRegistry) -> Counter:
    """A counter of this process."""
    return Counter(metric.name, metric.meaning, metric.labels, registry=registry)


def gauge(metric: Metric, registry: CollectorRegistry) -> Gauge:
    """A gauge of this process."""
    return Gauge(metric.name, metric.meaning, metric.labels, registry=registry)


def histogram(metric: Metric, registry: CollectorRegistry) -> Histogram:
    """A histogram of this process."""
    return Histogram(
        metric.name, metric.meaning, metric.labels, buckets=metric.buckets, registry=registry
    )


def text(registry: CollectorRegistry) -> bytes:
    """All figures of a registry in Prometheus' text format."""
    return generate_latest(registry)


def write_textfile(path: Path, values: Iterable[Sample]) -> None:
    """Replace a file for node_exporter's textfile collector, as a whole. Raises OSError."""
    samples.replace(path, text(_registry(values)))


def push(url: str, instance: str, values: Iterable[Sample]) -> None:
    """Replace what a Pushgateway has of this instance. Raises PushFailed."""
    try:
        push_to_gateway(
            url,
            job=JOB,
            registry=_registry(values),
            grouping_key={"instance": instance},
            timeout=PUSH_WITHIN_S,
        )
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise PushFailed(
            f"the Pushgateway {url} did not take the figures: {error}; start it, or correct "
            "metrics.push in the home's file"
        ) from error


def _registry(values: Iterable[Sample]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(SampleCollector(lambda: values))
    return registry
