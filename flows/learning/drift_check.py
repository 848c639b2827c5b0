"""Look at the world: has it changed, and is a retrain worth asking for? Measures, asks, records.

The judges decide (`drift.judge`, `worth.judge`); this file only brings them what they need and
writes down what they say, the "no" as much as the "yes".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.run.state import OpenRequest, UnknownVote
from flows.run.unit_of_work import UnitOfWork
from models.batch import batch_model
from models.batch.batch_model import BatchAnswersNothing
from models.core import metrics, record_schema
from models.prediction_log import prediction_log
from models.registry.registry import Manifest
from observability.core.decision import Decision
from observability.drift import drift, evidently_adapter, retrain_policy
from observability.drift.drift import DriftReading, Performance
from observability.drift.retrain_policy import RetrainFacts
from observability.history.records import Record, RequestRecord

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DriftCheckResult:
    """What a look said: has the world changed, and is a retrain worth asking for?"""

    changed: Decision
    wanted: Decision
    reading: DriftReading | None
    """None where there was nothing to compare with."""
    page: Path | None
    """evidently's page of it, where one was drawn."""


def due(work: UnitOfWork) -> Decision:
    """Whether it is time to look: after so many records, or for a sign that the world changed."""
    state, pipeline = work.state, work.run.file.pipeline
    changed = state.change_position
    ripe_at = None if changed is None else changed + pipeline.worth.since_change
    return drift.due(
        state.position,
        state.drift_checked_at,
        ripe_at,
        state.learner.drift_detected,
        pipeline.drift,
    )


@dataclass(frozen=True)
class Windows:
    """What a look compares, read once: the champion's reference, and the latest window."""

    champion: Manifest
    """Verified."""
    reference: pd.DataFrame
    current: pd.DataFrame
    """Of rows that the champion was not made from."""


@task(name="watch", cache_policy=NO_CACHE, persist_result=False)
def check(work: UnitOfWork, retrains_last_day: int | None = None) -> DriftCheckResult:
    """Judge drift and worth at this position; an answer of yes opens a request.

    `retrains_last_day` is how many retrains began in the last 24 hours, where a run counts hours.
    """
    # The newest predictions may be on their way to the disk still.
    work.wait()
    work.sync_champion()
    state, pipeline = work.state, work.run.file.pipeline
    with work.run.display.doing("checking"), work.run.stop.breakable():
        windows = read_windows(work)
        reading = None if windows is None else measure(work, windows)
    changed = drift.judge(reading, pipeline.drift, tripwire=state.learner.drift_detected)
    champion = None if windows is None else windows.champion
    evidence = _evidence(work, changed, reading, champion, retrains_last_day)
    wanted = retrain_policy.judge(evidence, pipeline.worth)
    rows: list[Record] = [work.decision_row(changed), work.decision_row(wanted)]
    if changed:
        state.totals.alarms += 1
        work.run.display.log_event(state.position, "alarm", changed.because, "yellow")
    if wanted:
        rows.append(_ask(work, wanted, changed))
    state.drift_checked_at = state.position
    state.learner.drift_detected = False
    state.unknown = _unknown_since(work, reading)
    work.commit(rows)
    drawn = None
    if windows is not None and reading is not None and changed and wanted and pipeline.drift.page:
        with work.run.display.doing("drawing the drift page"), work.run.stop.breakable():
            drawn = page(work, windows, reading)
    return DriftCheckResult(changed, wanted, reading, drawn)


def page(work: UnitOfWork, windows: Windows, reading: DriftReading) -> Path | None:
    """Write evidently's page of the latest window against the champion's reference."""
    work.run.places.reports.mkdir(parents=True, exist_ok=True)
    path = work.run.places.reports / f"drift-{work.state.position:012d}.html"
    tolerance = work.run.file.pipeline.drift
    unknown = drift.unknown_votes(reading, tolerance)
    watched = _watched(work)
    if not evidently_adapter.page(
        windows.reference, windows.current, watched, tolerance, path, unknown
    ):
        return None
    for older in sorted(work.run.places.reports.glob("drift-*.html"))[: -tolerance.pages_kept]:
        older.unlink(missing_ok=True)
    return path


def measure(work: UnitOfWork, windows: Windows) -> DriftReading:
    """The latest window against the champion's reference."""
    return evidently_adapter.measure(
        windows.reference,
        windows.current,
        _watched(work),
        work.run.file.pipeline.drift,
        performance=_performance(work, windows),
        tripwire=work.state.learner.drift_detected,
        change=_change(work, windows.champion),
    )


def read_windows(work: UnitOfWork) -> Windows | None:
    """Read what a drift check compares; None while there is no champion."""
    state = work.state
    if state.champion is None:
        return None
    import pyarrow as pa
    import pyarrow.compute as pc

    champion = work.run.registry.manifest(state.champion)
    # The window is never of rows that the champion was made from.
    first = max(champion.holdout_to, state.position - work.run.file.pipeline.drift.window)
    records = work.run.stream.between(first, state.position, state.marks)
    current = record_schema.frame(records.table, state.schema)
    current[state.schema.target] = records.table.column(-1).to_pandas(integer_object_nulls=True)
    answers = pa.nulls(len(current))
    # A champion that was just promoted has predicted nothing yet.
    if first < state.position:
        log = prediction_log.read(work.run.places.predictions, first, state.position)
        # The answers of its predecessor are not its own.
        log = log.filter(pc.equal(log["model_version"], champion.version))
        places = pc.index_in(pa.array(records.positions, pa.int64()), log["position"])
        answers = log["batch"].take(places)
    current[batch_model.PREDICTION] = answers.to_pandas(integer_object_nulls=True)
    current = batch_model.typed_reference(current, state.schema)
    return Windows(champion, work.run.registry.reference(champion), current)


def _change(work: UnitOfWork, champion: Manifest) -> str:
    """How the labels left what the champion knows; empty once it has learned enough of that."""
    state, pipeline = work.state, work.run.file.pipeline
    if state.change_position is None:
        return ""
    unlearned = retrain_policy.unlearned_change(
        state.learner.novelty.because,
        state.change_position,
        trained_to=champion.train_to,
        position=state.position,
        window=pipeline.batch.window,
        policy=pipeline.worth,
    )
    return unlearned.because if unlearned else ""


def _unknown_since(work: UnitOfWork, reading: DriftReading | None) -> dict[str, UnknownVote]:
    """The votes that this look could not cast, and since when each is unknown."""
    state = work.state
    return {
        each.vote: UnknownVote(
            since=state.unknown[each.vote].since if each.vote in state.unknown else state.position,
            because=each.because,
            remedy=each.remedy,
        )
        for each in drift.unknown_votes(reading, work.run.file.pipeline.drift)
    }


def _watched(work: UnitOfWork) -> tuple[drift.WatchedColumn, ...]:
    schema = work.state.schema
    return drift.watched(
        {column.name: column.kind for column in schema.columns},
        label_kind="category" if schema.task == "classification" else "number",
        target=schema.target,
        prediction=batch_model.PREDICTION,
    )


def _performance(work: UnitOfWork, windows: Windows) -> Performance:
    """The champion on its hold-out against the champion lately, by the judged metric.

    The champion answers the latest window here again, since the log keeps no more than the
    likeliest class of each.
    """
    state, measure = work.state, work.state.learner.measure
    current, scores = windows.current, windows.champion.scores
    reference, baseline = (
        _on_newest(scores, who, measure.name) for who in ("challenger", "baseline")
    )
    found = Performance(
        metric=measure.name,
        reference=reference,
        current=None,
        larger_is_better=measure.larger_is_better,
        unit=metrics.METRICS[measure.name].unit,
        baseline=baseline,
    )
    if reference is None:
        return _unknown(
            found,
            f"{measure.name} of the champion {state.champion} is not known on its hold-out",
            "the next champion",
        )
    labelled = current[current[state.schema.target].notna()]
    needed = work.run.file.pipeline.drift.min_rows
    if len(labelled) < needed:
        return _unknown(
            found,
            f"{len(labelled)} labelled rows since the champion was made, needed {needed}",
            f"{needed - len(labelled)} more labelled rows",
        )
    return _scored(work, found, labelled)


def _scored(work: UnitOfWork, found: Performance, labelled: pd.DataFrame) -> Performance:
    """With the champion's score of these rows, and how far chance may move it."""
    state, measure = work.state, work.state.learner.measure
    champion = work.champion()
    assert champion is not None
    try:
        answers = champion.predict(labelled[state.schema.names])
    except BatchAnswersNothing as error:
        return _unknown(found, f"the champion cannot answer: {error}", "a champion that answers")
    labels = labelled[state.schema.target].tolist()
    kind = state.schema.task
    rarer = metrics.counted(labels) if kind == "classification" else None
    current = metrics.value(labels, answers, measure, rarer)
    if not math.isfinite(current):
        return _unknown(
            found,
            f"{measure.name} cannot be told from {len(labels)} rows of {len(set(labels))} classes",
            "a window with rows of two classes: a larger [drift] window",
        )
    found = found.model_copy(update={"current": current})
    loss = drift.performance_loss(found)
    if loss is None or loss <= work.run.file.pipeline.drift.performance_drop:
        return found
    chance = metrics.standard_error(labels, answers, measure, rarer)
    return found.model_copy(update={"standard_error": chance})


def _unknown(found: Performance, because: str, remedy: str) -> Performance:
    return found.model_copy(update={"unknown_because": because, "remedy": remedy})


def _on_newest(
    scores: Mapping[str, Mapping[str, float | None]], who: str, metric: str
) -> float | None:
    """A score on the newest share of the hold-out, where classes are as frequent as they come."""
    for window in ("newest", "holdout"):
        value = scores.get(f"{window}:{who}", {}).get(metric)
        if value is not None:
            return value
    return None


def _evidence(
    work: UnitOfWork,
    changed: Decision,
    reading: DriftReading | None,
    champion: Manifest | None,
    retrains_last_day: int | None,
) -> RetrainFacts:
    state = work.state
    performance = reading.performance if reading is not None else None
    request = state.request
    window = work.run.file.pipeline.batch.window
    return RetrainFacts(
        drift_alarm=changed.yes,
        drift_because=changed.because,
        contract_broken=changed.facts.get("outcome") == "contract_broken",
        performance_loss=drift.performance_loss(performance) if performance else None,
        rows_available=min(state.totals.learned, window),
        new_rows=state.new_rows,
        champion_present=champion is not None,
        champion_age_records=(state.position - champion.train_to if champion is not None else None),
        records_since_retrain=(
            state.position - state.closed_at if state.closed_at is not None else None
        ),
        records_since_change=(
            state.position - state.change_position if state.change_position is not None else None
        ),
        open_request_position=request.asked_position if request is not None else None,
        fit_cost_s=state.last_fit_s,
        retrains_last_day=retrains_last_day,
    )


def _ask(work: UnitOfWork, wanted: Decision, changed: Decision) -> RequestRecord:
    state = work.state
    asked_s = work.run.power.request_s(state.position)
    state.request = OpenRequest(
        request_id=f"{work.run.name}-{state.lineage}-{state.position}",
        because=wanted.because,
        asked_position=state.position,
        asked_s=asked_s,
        severity=drift.severity(changed) if changed else 0.0,
    )
    told = "a retrain, for that alarm" if changed else f"a retrain: {wanted.because}"
    work.run.display.log_event(state.position, "requested", told, "magenta")
    return work.run.row(
        RequestRecord,
        request_id=state.request.request_id,
        event="requested",
        position=state.position,
        because=wanted.because,
        deadline_s=work.run.file.pipeline.gate.deadline_s,
    )
