"""What waits for labels, and how long labels take: for status and for the summary of a run.

It only reads the inbox, beside the service that writes it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from models.inbox.errors import InboxMissing
from models.inbox.label_latency import LabelLatency
from models.inbox.reader import InboxReader
from observability.core.errors import ThermodriftError
from observability.core.paths import PipelinePlaces

_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))
_NOTHING: Mapping[str, Any] = {
    "waiting": None,
    "waiting_since": None,
    "joined": None,
    "not_learned": None,
    "expired": None,
    "half_within_s": None,
    "half_of_labelled_within_s": None,
    "labelled_within": [],
    "trouble": None,
}


def collect(places: PipelinePlaces, reads: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is known of the labels of this pipeline's service; None: nothing was ever predicted.

    `reads` is what the checkpoint says of the inbox that the pipeline learns from. `not_learned` is
    how many labelled predictions it has not learned yet, null where it does not read them.
    `half_within_s` is the time within which half of all predictions are labelled, estimated
    (`models.inbox.label_latency`), `half_of_labelled_within_s` of those that are labelled already.
    `trouble` says why nothing is known, or that the service whose labels are learned is not known.
    """
    trouble = _missing(places, reads)
    try:
        with InboxReader(places.inbox) as reader:
            latency, counts = reader.latency(time.time()), reader.counts()
    except InboxMissing:
        return {**_NOTHING, "trouble": trouble} if trouble else None
    except ThermodriftError as error:
        return {**_NOTHING, "trouble": str(error)}
    own = reads.get("service") == places.name
    return {
        "waiting": counts.waiting,
        "waiting_since": latency.waiting_since,
        "joined": counts.joined,
        "not_learned": counts.joined - int(reads["examples"]) if own else None,
        "expired": counts.expired,
        **_half(latency),
        "labelled_within": [each._asdict() for each in latency.shares],
        "trouble": trouble,
    }


def _missing(places: PipelinePlaces, reads: Mapping[str, Any]) -> str | None:
    """That the service whose labels are learned has no inbox, which may be an error of typing."""
    service = reads.get("service")
    if service is None or places.sibling(str(service)).inbox.exists():
        return None
    return (
        f"no prediction of service:{service} was recorded in this home yet; is the name right, and "
        "was `thermodrift serve` asked?"
    )


def _half(latency: LabelLatency) -> dict[str, float | None]:
    half = latency.quantiles[0]
    return {"half_within_s": half.of_all_s, "half_of_labelled_within_s": half.of_labelled_s}


def describe(labels: Mapping[str, Any]) -> str:
    """The same for people, in one sentence."""
    if labels["waiting"] is None:
        return f"nothing is known of its labels: {labels['trouble']}"
    told = "" if labels["trouble"] is None else f"{labels['trouble']}; "
    told += _counted(labels["waiting"], "prediction waits", "predictions wait") + " for a label"
    if labels["waiting_since"] is not None:
        told += f", the oldest for {_duration(time.time() - labels['waiting_since'])}"
    told += "; " + _counted(labels["joined"], "label came", "labels came")
    if labels["not_learned"]:
        told += f", {labels['not_learned']:,} of them are not learned yet"
    if labels["expired"]:
        told += (
            "; " + _counted(labels["expired"], "prediction", "predictions") + " expired without one"
        )
    if labels["half_of_labelled_within_s"] is None:
        return told
    quick = _duration(labels["half_of_labelled_within_s"])
    half = labels["half_within_s"]
    whole = "of all, fewer than half" if half is None else f"of all, half within {_duration(half)}"
    return (
        f"{told}; {whole} (estimated), of those that have one, half within {quick}: the quick ones "
        "are not the whole"
    )


def _counted(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _duration(seconds: float) -> str:
    for unit_s, unit in _UNITS:
        if seconds >= unit_s:
            return f"{seconds / unit_s:.1f} {unit}"
    return f"{max(seconds, 0.0):.1f} s"


def describe_service(service: Mapping[str, Any]) -> str:
    """What became of records that a service was asked about, in one sentence; empty: of none."""
    told = []
    if service["scored"]:
        counted = _counted(service["scored"], "record was", "records were")
        told.append(f"{counted} scored by what the service answered then")
        if service["other_champion"]:
            told.append(f"{service['other_champion']:,} of them by another champion than served")
    slept = sorted(service["asleep"].items())
    if slept:
        who = ", ".join(f"{name} {count:,}" for name, count in slept)
        told.append(f"asleep, because nothing was answered: {who}")
    if service["foreign"]:
        told.append(
            f"{service['foreign']:,} asked of another pipeline, and predicted here when the label "
            "came"
        )
    return "; ".join(told)


def describe_unlabelled(document: Mapping[str, Any]) -> Iterator[str]:
    """What is known of predictions without a label, a sentence each, of a summary or a status."""
    look, waits = document.get("unlabelled_look"), document.get("labels")
    if look is not None and look["yes"]:
        yield f"unlabelled rows have drifted (at position {look['position']:,}): {look['because']}"
    estimate = document.get("estimate")
    if estimate is not None and waits and waits["waiting"]:
        yield (
            f"what waits for labels is expected to score {estimate['metric']} "
            f"{estimate['score']:.4g}, as the last labelled records did; such an estimate was off "
            f"by {estimate['off_by']:.2g} in the mean, over {estimate['stretches']} stretches"
        )
