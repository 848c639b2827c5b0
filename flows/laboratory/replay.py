"""Judge a real history's decisions again with other knobs: which would be different, and why.

Each decision is judged by the product's own policy on the facts that it had, first with the knobs
of the pipeline file: if that does not give the recorded answer again, the facts do not hold all
that it rested on, and it is not judged further. What would have *followed* from another answer is
not replayed; `lab compare` runs the stream anew for that.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from flows.config import pipeline
from flows.config.pipeline import Pipeline, PipelineFile
from flows.laboratory import product_run
from flows.laboratory.product_run import Knobs
from flows.run import bootstrap
from models.core import metrics
from models.core.record_schema import Schema
from observability.core.decision import Decision
from observability.core.errors import BadConfiguration
from observability.drift import drift
from observability.drift.drift import ColumnDrift, DriftReading, Performance
from observability.drift.error_monitor import ErrorFinding
from observability.history.store import History
from observability.worth import worth
from observability.worth.worth import RetrainFacts
from power.core.device_readings import DeviceReading, DeviceSnapshot
from power.core.gate_config import GateConfig
from power.policy import gate
from power.policy.gate import GateState

QUESTIONS = ("worth", "drift", "gate")
"""The decisions that can be judged again."""

Row = Mapping[str, Any]


@dataclass
class _Known:
    """What judging needs beside the rows."""

    schema: Schema
    drift_at: dict[int, Decision] = field(default_factory=dict)
    """The answer about drift at a position, as it is with the knobs in question."""
    readings: list[Row] = field(default_factory=list)
    """Readings of devices that no decision of the gate has used yet, by time."""
    gate: GateState = field(default_factory=GateState)
    as_asked: GateConfig = field(default_factory=GateConfig)
    """The gate's knobs of the pipeline file, without --set."""


def knobs(settings: Sequence[str]) -> Knobs:
    """The tables of ``table.knob=value`` words; a value is TOML, and text needs no quotes.

    Raises BadConfiguration.
    """
    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        table, dot, knob = name.strip().rpartition(".")
        if not (equals and dot and knob):
            raise BadConfiguration(
                f"--set: TABLE.KNOB=VALUE was expected, as in worth.cooldown_records=500; came: "
                f"{setting!r}"
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        found.setdefault(table, {})[knob] = value
    return found


def collect(path: Path, home: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Judge the decisions of this pipeline in the history of `home` again.

    Raises BadConfiguration, and what the history raises.
    """
    file = pipeline.read(path)
    given = knobs(settings)
    changed = product_run.with_knobs(file, given)
    if not home.is_dir():
        raise BadConfiguration(f"there is no home at {home}; name one where {file.name} has run")
    history = History(home)
    rows = [
        {**row, "facts": json.loads(row["facts"])}
        for row in history.decisions(file.name).to_pylist()
        if row["question"] in QUESTIONS
    ]
    readings = history.ask(
        'SELECT * FROM gpu_readings WHERE pipeline = ? ORDER BY "read_at"', [file.name]
    ).to_pylist()
    schema = bootstrap.open_stream(file).schema
    known = partial(_Known, schema, as_asked=file.pipeline.gate)
    before = _judged(rows, file, known(readings=list(readings)), [None] * len(rows))
    after = _judged(rows, changed, known(readings=list(readings)), before)
    return _document(file, given, rows, before, after)


def _judged(
    rows: Sequence[Row],
    file: PipelineFile,
    known: _Known,
    before: Sequence[Decision | None],
) -> list[Decision | None]:
    """The answer to each row with these knobs; None where its facts do not suffice.

    `before` are the answers with the knobs of the file. Worth is asked with another answer about
    drift only if those facts have given the recorded one.
    """
    judges: Mapping[str, Callable[[Row, Pipeline, _Known], Decision]] = {
        "worth": _worth,
        "drift": _drift,
        "gate": _gate,
    }
    answers: list[Decision | None] = []
    for row, same in zip(rows, before, strict=True):
        answer = None
        # A fact that another version of a policy has recorded is missing, or has another type.
        with suppress(KeyError, TypeError, ValueError):
            answer = judges[row["question"]](row, file.pipeline, known)
        if row["question"] == "drift":
            known.drift_at[row["position"]] = _recorded(row)
            if answer is not None and same is not None and same.yes is row["yes"]:
                known.drift_at[row["position"]] = answer
        answers.append(answer)
    return answers


def _recorded(row: Row) -> Decision:
    return Decision(
        question=row["question"], yes=row["yes"], because=row["because"], facts=row["facts"]
    )


def _document(
    file: PipelineFile,
    given: Knobs,
    rows: Sequence[Row],
    before: Sequence[Decision | None],
    after: Sequence[Decision | None],
) -> dict[str, Any]:
    counts = {question: {"decisions": 0, "judged": 0, "different": 0} for question in QUESTIONS}
    different = []
    for row, same, other in zip(rows, before, after, strict=True):
        count = counts[row["question"]]
        count["decisions"] += 1
        if same is None or other is None or same.yes is not row["yes"]:
            continue
        count["judged"] += 1
        if other.yes is row["yes"]:
            continue
        count["different"] += 1
        different.append(
            {
                "position": row["position"],
                "question": row["question"],
                "was": row["yes"],
                "because": row["because"],
                "would_be": other.yes,
                "would_be_because": other.because,
            }
        )
    return {
        "pipeline": file.name,
        "set": {
            f"{table}.{knob}": value for table, t in given.items() for knob, value in t.items()
        },
        "questions": counts,
        "different": different,
    }


def _worth(row: Row, knobs_of: Pipeline, known: _Known) -> Decision:
    facts = {name: row["facts"][name] for name in RetrainFacts.model_fields if name in row["facts"]}
    alarm = known.drift_at.get(row["position"])
    if alarm is not None:
        nature = alarm.facts.get("nature")
        facts |= {
            "drift_alarm": alarm.yes,
            "drift_because": alarm.because,
            "drift_nature": nature if nature in ("real", "virtual") else None,
            "contract_broken": alarm.facts.get("outcome") == "contract_broken",
        }
    return worth.judge(RetrainFacts.model_validate(facts), knobs_of.worth)


def _drift(row: Row, knobs_of: Pipeline, known: _Known) -> Decision:
    facts = row["facts"]
    if "reference_rows" not in facts:
        return drift.judge(None, knobs_of.drift)
    named = {column.name: column.kind for column in known.schema.columns}
    of_labels = "category" if known.schema.task == "classification" else "number"
    columns = []
    for key in facts:
        role, colon, name = key.partition(":")
        if colon and role in ("feature", "target", "prediction"):
            kind = named[name] if role == "feature" else of_labels
            method = facts[f"{kind}_method"]
            columns.append(
                ColumnDrift(
                    name=name,
                    role=role,
                    kind=kind,
                    method=method,
                    score=facts[key],
                    larger_is_drift=drift.LARGER_IS_DRIFT[method],
                    threshold=facts[f"threshold:{name}"],
                    enough=facts[key] is not None,
                    current_missing=facts.get(f"missing_change:{name}", 0.0),
                )
            )
    reading = DriftReading(
        reference_rows=facts["reference_rows"],
        current_rows=facts["current_rows"],
        columns=tuple(columns),
        missing_columns=_names(facts["missing_columns"]),
        extra_columns=_names(facts["extra_columns"]),
        performance=_performance(facts),
        change=facts["change"],
        change_position=facts["change_estimate"] if facts["change"] else None,
        findings=tuple(_findings(facts)),
        untested=_names(facts["untested"]),
    )
    return drift.judge(reading, knobs_of.drift)


def _findings(facts: Row) -> Iterator[ErrorFinding]:
    """What the tests of errors had found; a test that is not in the facts had found nothing."""
    for key in facts:
        role, _, name = key.partition(":")
        if role == "error_evidence":
            member, _, against = name.partition(" against ")
            yield ErrorFinding(
                kind="relative errors" if against else "errors",
                member=member,
                against=against,
                evidence=facts[key],
                threshold=facts["error_false_alarm_records"],
                seen_at=facts[f"error_change:{name}"],
                change=facts[f"error_change:{name}"],
                mean_before=facts[f"error_before:{name}"],
                mean_allowed=facts[f"error_before:{name}"],
                mean_now=facts[f"error_now:{name}"],
                records_now=facts[f"error_records:{name}"],
            )


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name for name in listed.split(", ") if name)


def _performance(facts: Row) -> Performance | None:
    """The performance that a decision saw; the baseline's is computed back from the loss."""
    if "performance_metric" not in facts:
        return None
    name = facts["performance_metric"]
    metric = metrics.METRICS[name]
    reference, current = facts["performance_reference"], facts["performance_current"]
    loss, baseline = facts["performance_loss"], None
    if metric.unit == "baseline" and None not in (reference, current) and loss:
        baseline = abs(current - reference) / (2.0 * abs(loss))
    return Performance(
        metric=name,
        reference=reference,
        current=current,
        larger_is_better=metric.larger_is_better,
        unit=metric.unit,
        baseline=baseline,
        standard_error=facts["performance_standard_error"],
    )


def _gate(row: Row, knobs_of: Pipeline, known: _Known) -> Decision:
    """The gate's answer on the readings that were recorded with the decision."""
    facts = row["facts"]
    used = [each for each in known.readings if each["read_at"] <= row["decided_at"]]
    del known.readings[: len(used)]
    config = _as_urgent(facts, knobs_of.gate, known.as_asked)
    readings = tuple(
        DeviceReading.model_validate(
            {
                **{
                    name: each[name]
                    for name in DeviceReading.model_fields.keys() & each.keys()
                    if each[name] is not None
                },
                "read_at_s": each["elapsed_s"],
            }
        )
        for each in used
    )
    read_at_s = {
        **{each.uuid: each.latest.read_at_s for each in known.gate.devices if each.latest},
        **{each.uuid: each.read_at_s for each in readings},
    }
    # The clock is that of the decision: the age that its device's reading had.
    now_s = read_at_s.get(facts.get("uuid"), 0.0) + float(facts.get("age_s") or 0.0)
    snapshot = DeviceSnapshot(
        readings=readings, driver=facts.get("driver", "absent"), because="as recorded"
    )
    found = gate.judge(snapshot, known.gate, config, now_s)
    known.gate = found.state
    return found.decision


def _as_urgent(facts: Row, config: GateConfig, as_asked: GateConfig) -> GateConfig:
    """The gate's knobs moved by as much urgency as those of the decision were."""
    width = as_asked.resume_margin_c - as_asked.pause_margin_c
    came = facts.get("resume_margin_c")
    if came is None or width <= 0:
        return config
    urgency = min(max((as_asked.resume_margin_c - came) / width, 0.0), 1.0)
    return config.at_urgency(urgency)
