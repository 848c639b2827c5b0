"""The figures of one pipeline, from the first line of its checkpoint. No model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from observability.metrics import definitions as defined
from observability.metrics.definitions import Metric
from observability.metrics.samples import Sample, sample, summary

Header = Mapping[str, Any]

_TOTALS: Mapping[Metric, str] = {
    defined.RECORDS: "records",
    defined.LEARNED: "learned",
    defined.UNLABELLED: "unlabelled",
    defined.REPLAYED: "replayed",
    defined.ALARMS: "alarms",
    defined.RETRAINS: "retrains",
    defined.PROMOTIONS: "promotions",
}


def collect(name: str, header: Header, now_s: float) -> Iterator[Sample]:
    """The samples of a header, at `now_s` in seconds since 1970.

    A checkpoint of an earlier version lacks some; what is not there is absent. Raises ValueError,
    TypeError, KeyError and AttributeError for a header of another shape.
    """
    yield from sample(defined.POSITION, header.get("position"), name)
    yield from _totals(name, header.get("totals", {}))
    yield from _scores(name, header)
    yield from _intake(name, header.get("intake", {}))
    yield from sample(defined.CHECKPOINT_AT, _seconds(header.get("at")), name)
    yield from sample(defined.LEARNED_AT, _seconds(header.get("learned_at")), name)
    yield from sample(defined.UNKNOWN_VOTES, len(header.get("unknown_votes", ())), name)
    yield from sample(defined.CANDIDATE, header.get("candidate") is not None, name)
    if header.get("champion") is not None:
        yield from sample(defined.CHAMPION, 1, name, header["champion"])
    yield from _request(name, header, now_s)


def _totals(name: str, totals: Mapping[str, Any]) -> Iterator[Sample]:
    for metric, key in _TOTALS.items():
        yield from sample(metric, totals.get(key), name)
    if "rejected" in totals:
        # A replay makes fewer of the rejects, and what is counted may only grow.
        rejected = totals["rejected"] + totals.get("replayed", 0)
        yield from sample(defined.REJECTED, rejected, name)
    for cause, count in totals.get("deferred_because", {}).items():
        yield from sample(defined.DEFERRALS, count, name, cause)


def _scores(name: str, header: Header) -> Iterator[Sample]:
    metric = "accuracy" if header.get("task") == "classification" else "mae"
    counts = header.get("scored", {})
    for member, total in header.get("score_sums", {}).items():
        yield from summary(defined.SCORE, total, counts.get(member, 0), name, member, metric)
    for member, value in header.get("judged", {}).items():
        yield from sample(defined.JUDGED, value, name, member, header.get("judged_by", metric))
    calibration = header.get("calibration") or {}
    yield from sample(defined.CALIBRATION_ERROR, calibration.get("error"), name)


def _intake(name: str, intake: Mapping[str, Any]) -> Iterator[Sample]:
    if intake:
        yield from sample(defined.INTAKE_WELL, intake["state"] == "well", name)
        yield from sample(defined.LAST_BATCH, intake["last_batch_records"], name)
        yield from sample(defined.LAST_BATCH_REJECTED, intake["last_batch_rejected"], name)


def _request(name: str, header: Header, now_s: float) -> Iterator[Sample]:
    request = header.get("open_request")
    yield from sample(defined.REQUEST_OPEN, request is not None, name)
    if request is None:
        return
    yield from sample(defined.REQUEST_DEFERRALS, request["deferrals"], name)
    live = header.get("reads_from") != "trace"
    waited_s = now_s - request["asked_s"] if live else header.get("waited_s")
    yield from sample(defined.REQUEST_WAIT, waited_s, name)


def _seconds(moment: str | None) -> float | None:
    """Seconds since 1970 of a moment in ISO 8601."""
    return None if moment is None else datetime.fromisoformat(moment).timestamp()
