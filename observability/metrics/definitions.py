"""Every metric of thermodrift: its name, type, labels and meaning. Pure values, and the only place.

Names follow the conventions of Prometheus: base units, `_total` for what only grows, and 1 or 0 for
yes or no. What is unknown has no value: it is absent, and a metric that ends with `_readable` says
so with 0. `docs/metrics.md` shows this list; a test compares the two.

Source: https://prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram", "summary"]
Group = Literal["installation", "loop", "gate", "history", "upkeep", "service"]

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


@dataclass(frozen=True)
class Metric:
    """The definition of one metric."""

    group: Group
    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram."""


def _of_pipeline(group: Group, name: str, kind: Kind, meaning: str, *labels: str) -> Metric:
    return Metric(group, name, kind, meaning, ("pipeline", *labels))


def _of_device(name: str, kind: Kind, meaning: str, *labels: str) -> Metric:
    # DCGM's exporter names the device so, in capitals: figures of both are joined by it.
    return Metric("gate", name, kind, meaning, ("UUID", *labels))


INFO: Final = Metric(
    "installation", "thermodrift_info", "gauge", "Always 1; the version is a label.", ("version",)
)
SOURCE_READABLE: Final = Metric(
    "installation",
    "thermodrift_source_readable",
    "gauge",
    "Whether a file that figures come from could be read.",
    ("source",),
)

POSITION: Final = _of_pipeline(
    "loop", "thermodrift_position", "gauge", "The next position of the stream."
)
RECORDS: Final = _of_pipeline(
    "loop", "thermodrift_records_total", "counter", "Records that were read."
)
LEARNED: Final = _of_pipeline(
    "loop", "thermodrift_learned_records_total", "counter", "Records that were learned from."
)
UNLABELLED: Final = _of_pipeline(
    "loop",
    "thermodrift_unlabelled_records_total",
    "counter",
    "Records that were predicted and came without a label.",
)
REJECTED: Final = _of_pipeline(
    "loop",
    "thermodrift_rejected_records_total",
    "counter",
    "Records that were rejected, those that a replay accepted later included.",
)
REPLAYED: Final = _of_pipeline(
    "loop",
    "thermodrift_replayed_records_total",
    "counter",
    "Rejected records that a replay accepted.",
)
LAST_BATCH: Final = _of_pipeline(
    "loop", "thermodrift_last_batch_records", "gauge", "Records of the last batch."
)
LAST_BATCH_REJECTED: Final = _of_pipeline(
    "loop",
    "thermodrift_last_batch_rejected_records",
    "gauge",
    "Records of the last batch that were rejected.",
)
INTAKE_WELL: Final = _of_pipeline(
    "loop",
    "thermodrift_intake_well",
    "gauge",
    "Whether the stream fits the schema that it began with.",
)
SCORE: Final = _of_pipeline(
    "loop",
    "thermodrift_score",
    "summary",
    "Of each member, hits (`accuracy`) or absolute errors (`mae`) over the records that it"
    " answered: `_sum` by `_count` is its score.",
    "member",
    "metric",
)
JUDGED: Final = _of_pipeline(
    "loop",
    "thermodrift_judged_score",
    "gauge",
    "Of each member, the score by the metric that the pipeline is judged by.",
    "member",
    "metric",
)
CALIBRATION_ERROR: Final = _of_pipeline(
    "loop",
    "thermodrift_calibration_error_ratio",
    "gauge",
    "How far served probabilities are from the shares of hits that they promise, in the mean.",
)
ALARMS: Final = _of_pipeline("loop", "thermodrift_drift_alarms_total", "counter", "Drift alarms.")
RETRAINS: Final = _of_pipeline("loop", "thermodrift_retrains_total", "counter", "Retrains.")
PROMOTIONS: Final = _of_pipeline(
    "loop", "thermodrift_promotions_total", "counter", "Versions that were promoted."
)
DEFERRALS: Final = _of_pipeline(
    "loop",
    "thermodrift_deferrals_total",
    "counter",
    "Retrains that the gate deferred, by cause.",
    "cause",
)
CHAMPION: Final = _of_pipeline(
    "loop",
    "thermodrift_champion_info",
    "gauge",
    "Always 1; the champion's version is a label.",
    "version",
)
CANDIDATE: Final = _of_pipeline(
    "loop",
    "thermodrift_candidate_waiting",
    "gauge",
    "Whether a version that won waits for a person's word.",
)
UNKNOWN_VOTES: Final = _of_pipeline(
    "loop",
    "thermodrift_unknown_drift_votes",
    "gauge",
    "Votes that the last drift check could not cast.",
)
CHECKPOINT_AT: Final = _of_pipeline(
    "loop",
    "thermodrift_checkpoint_timestamp_seconds",
    "gauge",
    "When the checkpoint was written, in seconds since 1970.",
)
LEARNED_AT: Final = _of_pipeline(
    "loop",
    "thermodrift_learned_timestamp_seconds",
    "gauge",
    "When a record was learned from last, in seconds since 1970.",
)

REQUEST_OPEN: Final = _of_pipeline(
    "gate",
    "thermodrift_retrain_request_open",
    "gauge",
    "Whether a retrain request is open.",
)
REQUEST_DEFERRALS: Final = _of_pipeline(
    "gate",
    "thermodrift_retrain_request_deferrals",
    "gauge",
    "How often the open request was deferred.",
)
REQUEST_WAIT: Final = _of_pipeline(
    "gate",
    "thermodrift_retrain_wait_seconds",
    "gauge",
    "How long the open request has waited; with a recorded trace, on the trace's clock.",
)
GATE_OPEN: Final = _of_pipeline(
    "gate",
    "thermodrift_gate_open",
    "gauge",
    "Whether the gate was open at its last reading, without a person's override.",
)
GATE_CLOSED: Final = _of_pipeline(
    "gate",
    "thermodrift_gate_closed_info",
    "gauge",
    "1 for the cause for which the gate was closed; absent while it was open.",
    "cause",
)
DRIVER_READABLE: Final = _of_pipeline(
    "gate",
    "thermodrift_driver_readable",
    "gauge",
    "Whether there is a driver or a trace, and it answers.",
    "source",
)
OVERRIDE: Final = Metric(
    "gate",
    "thermodrift_gate_override",
    "gauge",
    "1 while a person's override is in force, by its answer.",
    ("answer",),
)
DEVICE_READABLE: Final = _of_device(
    "thermodrift_device_readable", "gauge", "Whether the device could be read."
)
MARGIN_READABLE: Final = _of_device(
    "thermodrift_device_margin_readable", "gauge", "Whether its margin is known."
)
DEVICE_READ_AT: Final = _of_device(
    "thermodrift_device_read_timestamp_seconds",
    "gauge",
    "When it was read last, in seconds since 1970.",
)
DEVICE_OPEN: Final = _of_device(
    "thermodrift_device_gate_open", "gauge", "Whether the gate was open for it."
)
DEVICE_CLOSED: Final = _of_device(
    "thermodrift_device_gate_closed_info",
    "gauge",
    "1 for the cause for which the gate was closed for it.",
    "cause",
)
MARGIN: Final = _of_device(
    "thermodrift_device_margin_celsius",
    "gauge",
    "Degrees left until the hardware slows itself down, as the gate counts them.",
)
TEMPERATURE: Final = _of_device(
    "thermodrift_device_temperature_celsius", "gauge", "Temperature of its core."
)
MEMORY_TEMPERATURE: Final = _of_device(
    "thermodrift_device_memory_temperature_celsius", "gauge", "Temperature of its memory."
)
POWER: Final = _of_device("thermodrift_device_power_watts", "gauge", "Power that it draws.")
POWER_LIMIT: Final = _of_device(
    "thermodrift_device_power_limit_watts", "gauge", "Power that it may draw."
)
ENERGY: Final = _of_device(
    "thermodrift_device_energy_joules_total", "counter", "Energy since its driver was loaded."
)
DISCARDED: Final = _of_device(
    "thermodrift_device_discarded_values",
    "gauge",
    "Implausible values so far in this run, each of which counts as unknown.",
)
FORECAST_ERROR: Final = _of_device(
    "thermodrift_forecast_error_celsius",
    "gauge",
    "Root mean square error of the forecasts of its margin, by how far they look ahead.",
    "horizon_seconds",
)
FORECAST_CHECKS: Final = _of_device(
    "thermodrift_forecast_checks_total",
    "counter",
    "Forecasts that were compared with a reading.",
    "horizon_seconds",
)

OUTBOX: Final = Metric(
    "history",
    "thermodrift_history_outbox_commits",
    "gauge",
    "Commits that wait to be flushed into the history.",
)
OUTBOX_OLDEST: Final = Metric(
    "history",
    "thermodrift_history_outbox_oldest_timestamp_seconds",
    "gauge",
    "When the oldest of them was written; absent where none waits.",
)
CORRUPT: Final = Metric(
    "history",
    "thermodrift_history_corrupt_files",
    "gauge",
    "Files of the history that were found damaged, and were renamed.",
)
ROWS: Final = Metric(
    "history",
    "thermodrift_history_rows",
    "gauge",
    "Rows of each table at the last flush; absent for a history in a lake.",
    ("table",),
)
FLUSHED_AT: Final = Metric(
    "history",
    "thermodrift_history_flush_timestamp_seconds",
    "gauge",
    "When commits were flushed last, in seconds since 1970.",
)
HISTORY_BYTES: Final = Metric(
    "history",
    "thermodrift_history_file_bytes",
    "gauge",
    "Size of the history's file; absent for a history in a lake.",
)

UPKEEP_AT: Final = Metric(
    "upkeep",
    "thermodrift_upkeep_timestamp_seconds",
    "gauge",
    "When upkeep ended last, in seconds since 1970.",
)
UPKEEP_SUCCESS_AT: Final = Metric(
    "upkeep",
    "thermodrift_upkeep_success_timestamp_seconds",
    "gauge",
    "When it last did all of its work; absent where it never did.",
)
UPKEEP_SECONDS: Final = Metric(
    "upkeep", "thermodrift_upkeep_duration_seconds", "gauge", "How long the last one took."
)
UPKEEP_FREED: Final = Metric(
    "upkeep",
    "thermodrift_upkeep_freed_bytes",
    "gauge",
    "By how much the last one made the prediction logs smaller.",
)
UPKEEP_TASKS: Final = Metric(
    "upkeep",
    "thermodrift_upkeep_tasks",
    "gauge",
    "Tasks of the last one by their state: done, later or failed.",
    ("state",),
)

REQUESTS: Final = Metric(
    "service",
    "thermodrift_requests_total",
    "counter",
    "Requests, by route and status code.",
    ("route", "code"),
)
REQUEST_SECONDS: Final = Metric(
    "service",
    "thermodrift_request_seconds",
    "histogram",
    "Seconds from a request's head to the end of its answer, by route.",
    ("route",),
    _SECONDS,
)
GATHERED_RECORDS: Final = Metric(
    "service",
    "thermodrift_gathered_records",
    "histogram",
    "Records that were predicted together.",
    ("pipeline",),
    _SIZES,
)
GATHERED_REQUESTS: Final = Metric(
    "service",
    "thermodrift_gathered_requests",
    "histogram",
    "Requests that were answered by one prediction.",
    ("pipeline",),
    _SIZES,
)
REPEATED: Final = _of_pipeline(
    "service",
    "thermodrift_repeated_requests_total",
    "counter",
    "Requests that came again under their ids, and got the answers of before.",
)
WAITING: Final = _of_pipeline(
    "service",
    "thermodrift_waiting_records",
    "gauge",
    "Records that wait or are being predicted.",
)
BUNDLE_READY: Final = _of_pipeline(
    "service", "thermodrift_bundle_ready", "gauge", "Whether a bundle serves."
)
BUNDLE_POSITION: Final = _of_pipeline(
    "service",
    "thermodrift_bundle_position",
    "gauge",
    "Position of the checkpoint that serves; absent where none does.",
)
BUNDLE_AGE: Final = _of_pipeline(
    "service",
    "thermodrift_bundle_age_seconds",
    "gauge",
    "Seconds since the bundle began to serve; absent where none does.",
)
SWAPS: Final = _of_pipeline(
    "service", "thermodrift_bundle_swaps_total", "counter", "Bundles that began to serve."
)
SWAP_FAILURES: Final = _of_pipeline(
    "service",
    "thermodrift_bundle_swap_failures_total",
    "counter",
    "Attempts to load a checkpoint or champion that failed; the old bundle went on serving.",
)
SHADOW_READY: Final = _of_pipeline(
    "service",
    "thermodrift_shadow_ready",
    "gauge",
    "Whether a version answers in the shadow.",
    "version",
)
SHADOW_ANSWERS: Final = _of_pipeline(
    "service",
    "thermodrift_shadow_answers_total",
    "counter",
    "Answers in the shadow that were logged.",
    "version",
)
SHADOW_DROPPED: Final = _of_pipeline(
    "service",
    "thermodrift_shadow_dropped_total",
    "counter",
    "Records that were dropped because too many waited for the shadows.",
)
SHADOW_FAILURES: Final = _of_pipeline(
    "service",
    "thermodrift_shadow_failures_total",
    "counter",
    "Records that a shadow could not answer, or whose answer could not be logged.",
)
LABELS: Final = _of_pipeline(
    "service",
    "thermodrift_labels_total",
    "counter",
    "Labels that came, by what became of them.",
    "outcome",
)

METRICS: Final = tuple(each for each in list(globals().values()) if isinstance(each, Metric))
"""All of them, in the order of this file."""
BY_NAME: Final = {each.name: each for each in METRICS}
