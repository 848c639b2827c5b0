"""Look at the world: has it changed, and is a retrain worth asking for? Measures, asks, records.

The judges decide (`drift.judge`, `worth.judge`); this file only brings them what they need and
writes down what they say, the "no" as much as the "yes".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.session import Session
from flows.state import OpenRequest
from models import batch, example, predictions, scoring
from models.example import Label
from observability import drift, reports, worth
from observability.decision import Decision
from observability.drift import DriftReading, Performance
from observability.records import Record, RequestRecord
from observability.worth import Evidence

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Looked:
    """What a look said: has the world changed, and is a retrain worth asking for?"""

    changed: Decision
    wanted: Decision
    reading: DriftReading | None
    """None where there was nothing to compare with."""
    page: Path | None
    """evidently's page of it, where one was drawn."""


def due(session: Session) -> bool:
    """Whether it is time to look: after so many records, or because the tripwire fired."""
    state, tolerance = session.state, session.file.pipeline.drift
    since = state.position - state.looked_at
    return since > 0 and (since >= tolerance.every or state.learner.tripped)


@task(name="watch", cache_policy=NO_CACHE, persist_result=False)
def watch(session: Session) -> Looked:
    """Judge drift and worth at this position; an answer of yes opens a request."""
    session.adopt_champion()
    state = session.state
    with session.display.doing("checking"), session.stop.breakable():
        changed, reading = _drift(session)
    evidence = _evidence(session, changed, reading)
    wanted = worth.judge(evidence, session.file.pipeline.worth)
    rows: list[Record] = [session.decided(changed), session.decided(wanted)]
    if changed:
        state.totals.alarms += 1
        session.display.happened(state.position, "alarm", changed.because, "yellow")
    if wanted:
        rows.append(_ask(session, wanted, changed))
    state.looked_at = state.position
    state.learner.tripped = False
    session.commit(rows)
    drawn = None
    if changed and wanted and session.file.pipeline.drift.page:
        with session.display.doing("drawing the drift page"), session.stop.breakable():
            drawn = page(session)
    return Looked(changed, wanted, reading, drawn)


def page(session: Session) -> Path | None:
    """Write evidently's page of the latest window against the champion's reference."""
    windows = _windows(session)
    if windows is None:
        return None
    reference, current = windows
    session.places.reports.mkdir(parents=True, exist_ok=True)
    path = session.places.reports / f"drift-{session.state.position:012d}.html"
    watched = _watched(session)
    tolerance = session.file.pipeline.drift
    if not reports.page(reference, current, watched, tolerance, path):
        return None
    for older in sorted(session.places.reports.glob("drift-*.html"))[: -tolerance.pages_kept]:
        older.unlink(missing_ok=True)
    return path


def measure(session: Session) -> DriftReading | None:
    """The latest window against the champion's reference; None while there is no champion."""
    windows = _windows(session)
    if windows is None:
        return None
    reference, current = windows
    return reports.measure(
        reference,
        current,
        _watched(session),
        session.file.pipeline.drift,
        performance=_performance(session),
        tripwire=session.state.learner.tripped,
    )


def _drift(session: Session) -> tuple[Decision, DriftReading | None]:
    reading = measure(session)
    if reading is None:
        return _nothing_to_compare_with(session), None
    return drift.judge(reading, session.file.pipeline.drift), reading


def _nothing_to_compare_with(session: Session) -> Decision:
    return Decision(
        question="drift",
        yes=False,
        because="there is no champion yet, so there is no reference to compare with",
        facts={"outcome": "not_enough_data", "tripwire": session.state.learner.tripped},
    )


def _windows(session: Session) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    state = session.state
    if state.champion is None:
        return None
    import pandas as pd

    reference = session.store.reference(state.champion)
    first = _window_from(session, state.champion)
    examples = session.stream.between(first, state.position, state.marks)
    logged = _champions_log(session, first)
    current = example.frame(examples.rows, state.schema)
    current[state.schema.target] = pd.Series(examples.labels, dtype=object)
    current[batch.PREDICTION] = [logged.get(place) for place in examples.positions]
    return reference, batch.typed_reference(current, state.schema)


def _window_from(session: Session, champion: str) -> int:
    """Where the latest window begins: never among the rows that the champion was made from."""
    made_to = session.store.manifest(champion).holdout_to
    return max(made_to, session.state.position - session.file.pipeline.drift.window)


def _champions_log(session: Session, first: int) -> dict[int, Label]:
    """What the present champion predicted, by position; its predecessor's answers are not its."""
    state = session.state
    if first >= state.position:
        # A champion that was just crowned has predicted nothing yet.
        return {}
    log = predictions.read(session.places.predictions, first, state.position)
    columns = (log[name].to_pylist() for name in ("position", "batch", "model_version"))
    return {
        place: predicted
        for place, predicted, version in zip(*columns, strict=True)
        if predicted is not None and version == state.champion
    }


def _watched(session: Session) -> tuple[drift.WatchedColumn, ...]:
    schema = session.state.schema
    return drift.watched(
        {column.name: column.kind for column in schema.columns},
        label_kind="category" if schema.task == "classification" else "number",
        target=schema.target,
        prediction=batch.PREDICTION,
    )


def _performance(session: Session) -> Performance | None:
    """The champion on its hold-out against the champion lately, as logged."""
    state = session.state
    if state.champion is None:
        return None
    manifest = session.store.manifest(state.champion)
    metric = scoring.metric(state.schema.task)
    first = _window_from(session, state.champion)
    logged = _champions_log(session, first)
    if len(logged) < session.file.pipeline.drift.min_rows:
        return None
    log = predictions.read(session.places.predictions, first, state.position)
    labels = log["label"].to_pylist()
    answers = [logged.get(place) for place in log["position"].to_pylist()]
    # What has no label yet says nothing of how good the champion is.
    if scoring.count(answers, labels) < session.file.pipeline.drift.min_rows:
        return None
    return Performance(
        metric=metric,
        reference=manifest.scores["holdout:challenger"].get(metric),
        current=scoring.mean(state.schema.task, answers, labels),
        larger_is_better=state.schema.task == "classification",
    )


def _evidence(session: Session, changed: Decision, reading: DriftReading | None) -> Evidence:
    state = session.state
    performance = reading.performance if reading is not None else None
    request = state.request
    window = session.file.pipeline.batch.window
    return Evidence(
        drift_alarm=changed.yes,
        drift_because=changed.because,
        contract_broken=changed.facts.get("outcome") == "contract_broken",
        performance_loss=drift.performance_loss(performance) if performance else None,
        rows_available=min(state.totals.learned, window),
        new_rows=state.new_rows,
        champion_present=state.champion is not None,
        champion_age_records=(
            state.position - session.store.manifest(state.champion).train_to
            if state.champion is not None
            else None
        ),
        records_since_retrain=(
            state.position - state.settled_at if state.settled_at is not None else None
        ),
        open_request_position=request.asked_position if request is not None else None,
        fit_cost_s=state.last_fit_s,
        retrains_last_day=session.retrains_last_day,
    )


def _ask(session: Session, wanted: Decision, changed: Decision) -> RequestRecord:
    state = session.state
    asked_s = session.power.request_s(state.position)
    state.request = OpenRequest(
        request_id=f"{session.name}-{state.lineage}-{state.position}",
        because=wanted.because,
        asked_position=state.position,
        asked_s=asked_s,
        severity=drift.severity(changed) if changed else 0.0,
    )
    told = "a retrain, for that alarm" if changed else f"a retrain: {wanted.because}"
    session.display.happened(state.position, "wanted", told, "magenta")
    return session.row(
        RequestRecord,
        request_id=state.request.request_id,
        event="asked",
        position=state.position,
        because=wanted.because,
        deadline_s=session.file.pipeline.gate.deadline_s,
    )
