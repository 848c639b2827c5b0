"""Makes dashboard.json, the Grafana dashboard of thermodrift, by Grafana's foundation SDK.

    python -m examples.monitoring.make_dashboard

The file is kept beside this one, and a test compares the two: change this script, run it, and
commit both. The product does not import the SDK.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueTextMode
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    VariableOption,
    VariableRefresh,
)

PATH = Path(__file__).with_name("dashboard.json")
SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
PIPELINE = 'pipeline=~"$pipeline"'


@dataclass(frozen=True)
class Curve:
    """A question to Prometheus, and the name of its answer in the legend."""

    ask: str
    legend: str


@dataclass(frozen=True)
class Chart:
    """A panel with curves over time; a third of the page wide."""

    title: str
    unit: str
    meaning: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Number:
    """A panel with the newest value of each series; a sixth of the page wide."""

    title: str
    unit: str
    meaning: str
    curve: Curve


ROWS: dict[str, tuple[Chart | Number, ...]] = {
    "Loop": (
        Number(
            "Learned last",
            "s",
            "Seconds since a record was learned from.",
            Curve(f"pipeline:learned:age_seconds{{{PIPELINE}}}", "{{pipeline}}"),
        ),
        Number(
            "Champion",
            "none",
            "The version that serves.",
            Curve(f"thermodrift_champion_info{{{PIPELINE}}}", "{{pipeline}} {{version}}"),
        ),
        Number(
            "Rejected of a day",
            "percentunit",
            "Share of the records that were rejected.",
            Curve(f"pipeline:rejected_records:ratio1d{{{PIPELINE}}}", "{{pipeline}}"),
        ),
        Number(
            "Drift alarms of a day",
            "none",
            "How often the world had changed.",
            Curve(
                f"max by (pipeline) (increase(thermodrift_drift_alarms_total{{{PIPELINE}}}[1d]))",
                "{{pipeline}}",
            ),
        ),
        Number(
            "Retrains of a day",
            "none",
            "Fits, with or without a promotion.",
            Curve(
                f"max by (pipeline) (increase(thermodrift_retrains_total{{{PIPELINE}}}[1d]))",
                "{{pipeline}}",
            ),
        ),
        Number(
            "Promotions of a day",
            "none",
            "Challengers that replaced the champion.",
            Curve(
                f"max by (pipeline) (increase(thermodrift_promotions_total{{{PIPELINE}}}[1d]))",
                "{{pipeline}}",
            ),
        ),
        Chart(
            "Score of the last day",
            "none",
            "Accuracy (more is better) or mean absolute error (less is better) of each member.",
            (
                Curve(
                    f"pipeline_member:score:mean1d{{{PIPELINE}}}",
                    "{{pipeline}} {{member}} {{metric}}",
                ),
            ),
        ),
        Chart(
            "Score as it is judged",
            "none",
            "By the metric that the pipeline is judged by.",
            (
                Curve(
                    f"max by (pipeline, member, metric) (thermodrift_judged_score{{{PIPELINE}}})",
                    "{{pipeline}} {{member}} {{metric}}",
                ),
            ),
        ),
        Chart(
            "Records",
            "cps",
            "Records each second: read, learned from, rejected.",
            tuple(
                Curve(
                    f"max by (pipeline) (rate(thermodrift_{name}_total{{{PIPELINE}}}[5m]))",
                    f"{{{{pipeline}}}} {told}",
                )
                for name, told in (
                    ("records", "read"),
                    ("learned_records", "learned"),
                    ("rejected_records", "rejected"),
                )
            ),
        ),
    ),
    "Gate and devices": (
        Chart(
            "Margin",
            "celsius",
            "Degrees left until the hardware slows itself down. A gap is unknown.",
            (Curve("gpu:margin_celsius:min", "{{UUID}}"),),
        ),
        Chart(
            "Temperature",
            "celsius",
            "Of the core and of the memory, from DCGM's exporter where it is there.",
            (
                Curve("gpu:temperature_celsius:max", "{{UUID}}"),
                Curve("gpu:memory_temperature_celsius:max", "{{UUID}} memory"),
            ),
        ),
        Chart(
            "Power",
            "watt",
            "By the energy counter, at an instant, and the limit.",
            (
                Curve("gpu:energy_watts:rate5m", "{{UUID}} mean of 5 min"),
                Curve("gpu:power_watts:max", "{{UUID}}"),
                Curve("gpu:power_limit_watts:max", "{{UUID}} limit"),
            ),
        ),
        Chart(
            "Why retrains were deferred",
            "none",
            "Deferrals of an hour, by cause.",
            (
                Curve(
                    "max by (pipeline, cause) "
                    f"(increase(thermodrift_deferrals_total{{{PIPELINE}}}[1h]))",
                    "{{pipeline}} {{cause}}",
                ),
            ),
        ),
        Chart(
            "Wait of the open request",
            "s",
            "How long a retrain has been waiting for headroom.",
            (
                Curve(
                    f"max by (pipeline) (thermodrift_retrain_wait_seconds{{{PIPELINE}}})",
                    "{{pipeline}}",
                ),
            ),
        ),
        Chart(
            "Error of the forecast",
            "celsius",
            "Root mean square error of the margin that was predicted, by how far ahead.",
            (
                Curve(
                    "max by (UUID, horizon_seconds) (thermodrift_forecast_error_celsius)",
                    "{{UUID}} {{horizon_seconds}} s",
                ),
            ),
        ),
    ),
    "Service": (
        Chart(
            "Requests",
            "reqps",
            "Each second, by route and status code.",
            (
                Curve(
                    "sum by (route, code) (rate(thermodrift_requests_total[5m]))",
                    "{{route}} {{code}}",
                ),
            ),
        ),
        Chart(
            "Time of 99 in 100 requests",
            "s",
            "From a request's head to the end of its answer.",
            (Curve("route:request_seconds:p99_5m", "{{route}}"),),
        ),
        Chart(
            "Age of the bundle",
            "s",
            "Since the checkpoint and champion that answer began to serve.",
            (
                Curve(
                    f"max by (pipeline) (thermodrift_bundle_age_seconds{{{PIPELINE}}})",
                    "{{pipeline}}",
                ),
            ),
        ),
    ),
    "History and upkeep": (
        Chart(
            "Commits that wait",
            "none",
            "In the outbox, for the history's file to be free.",
            (Curve("max(thermodrift_history_outbox_commits)", "commits"),),
        ),
        Chart(
            "Size of the history",
            "bytes",
            "Of its file.",
            (Curve("max(thermodrift_history_file_bytes)", "file"),),
        ),
        Chart(
            "Since upkeep did all of its work",
            "s",
            "It is run once a day.",
            (Curve("time() - max(thermodrift_upkeep_success_timestamp_seconds)", "upkeep"),),
        ),
    ),
}


def build() -> str:
    """The dashboard as JSON, with a line end at its end."""
    board = (
        dashboard.Dashboard("thermodrift")
        .uid("thermodrift")
        .tags(["thermodrift", "drift", "gpu"])
        .refresh("30s")
        .time("now-24h", "now")
        .readonly()
        .with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
        .with_variable(_pipelines())
    )
    for title, panels in ROWS.items():
        board = board.with_row(dashboard.Row(title))
        for panel in panels:
            board = board.with_panel(_chart(panel) if isinstance(panel, Chart) else _number(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _pipelines() -> dashboard.QueryVariable:
    everything = VariableOption(selected=True, text="All", value="$__all")
    return (
        dashboard.QueryVariable("pipeline")
        .datasource(SOURCE)
        .query("label_values(thermodrift_position, pipeline)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .include_all(True)
        .multi(True)
        .current(everything)
    )


def _chart(panel: Chart) -> timeseries.Panel:
    found = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.meaning)
        .unit(panel.unit)
        .datasource(SOURCE)
        .span(8)
        .height(8)
    )
    for letter, curve in zip(ascii_uppercase, panel.curves, strict=False):
        found = found.with_target(_query(curve).ref_id(letter))
    return found


def _number(panel: Number) -> stat.Panel:
    return (
        stat.Panel()
        .title(panel.title)
        .description(panel.meaning)
        .unit(panel.unit)
        .datasource(SOURCE)
        .span(4)
        .height(4)
        .text_mode(BigValueTextMode.VALUE_AND_NAME)
        .with_target(_query(panel.curve).ref_id("A").instant())
    )


def _query(curve: Curve) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(curve.ask).legend_format(curve.legend)


if __name__ == "__main__":
    PATH.write_text(build(), encoding="utf-8")
