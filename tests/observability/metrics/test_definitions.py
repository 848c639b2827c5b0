"""The names of metrics keep to Prometheus' conventions, and the page lists each of them."""

from __future__ import annotations

import re

import pytest

from observability.metrics.definitions import METRICS, Metric
from tests import ROOT

PAGE = ROOT / "docs" / "metrics.md"
UNITS = ("_seconds", "_celsius", "_joules", "_watts", "_bytes", "_ratio", "_records", "_info")
NOT_BASE = re.compile(r"_(ms|milliseconds|minutes|mhz|mj|kwh|percent|kb|mib|mb)(_|$)")


def row(metric: Metric) -> str:
    """The line of a metric in the page's table."""
    labels = ", ".join(f"`{each}`" for each in metric.labels) or "-"
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |"


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_name_has_our_prefix_its_unit_and_total_where_it_only_grows(metric: Metric) -> None:
    """`_total` is for counters alone, and no unit is a multiple or a part of a base unit."""
    assert re.fullmatch(r"thermodrift_[a-z][a-z_]*[a-z]", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert not NOT_BASE.search(metric.name)
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert metric.meaning.endswith(".")


@pytest.mark.parametrize("word", ["timestamp", "duration", "wait", "age"])
def test_what_is_a_time_is_in_seconds(word: str) -> None:
    """A moment is in seconds since 1970, a duration in seconds."""
    found = [each.name for each in METRICS if word in each.name.split("_")]
    assert found
    assert [] == [name for name in found if not name.endswith("_seconds")]


def test_each_name_is_defined_once() -> None:
    """Two definitions of one name would contradict each other."""
    names = [each.name for each in METRICS]
    assert sorted(set(names)) == sorted(names)


def test_the_page_lists_each_metric_as_it_is_defined() -> None:
    """In the order of the definitions; a change of one is a change of the page."""
    shown = [
        line
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| `thermodrift_")
    ]
    assert [row(each) for each in METRICS] == shown
