"""The drift check: has the data changed, and is a retrain worth requesting?

The policies decide (`drift.judge`, `worth.judge`); this module measures what they need and
records their decisions, also each no.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.learning import worth_check
from flows.learning.worth_check import WorthReading
from flows.run.state import OpenRequest, UnknownVote
from flows.run.unit_of_work import UnitOfWork
from models.batch import batch_model
from models.batch.batch_model import BatchAnswersNothing
from models.core import metrics, record_schema
from models.prediction_log import prediction_log
from models.registry.registry import Manifest
from observability.core.decision import Decision
from observability.drift import drift, evidently_adapter
from observability.drift.drift import DriftReading, Performance
from observability.history.records import Record, RequestRecord
from observability.worth import worth

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class DriftCheckResult:
    """The decisions of a drift check, and what they rest on."""

    changed: Decision
    wanted: Decision
    reading: DriftReading | None
    """None where there is no champion to compare with."""
    page: Path | None
    """evidently's page, where one was drawn."""


def due(work: UnitOfWork) -> Decision:
    """Whether a check is due: after so many records, for a sign of change, or for worth."""
    state, pipeline = work.state, work.run.file.pipeline
    pays = worth.look_again(state.position, state.drift_checked_at, state.worth.look_again_at)
    if pays:
        return pays
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
    """What a check compares, read once: the champion's reference, and the latest window."""

    champion: Manifest
    """Verified."""
    reference: pd.DataFrame
    current: pd.DataFrame
    """Of rows that the champion was not made from."""


@task(name="watch", cache_policy=NO_CACHE, persist_result=False)
def check(work: UnitOfWork, retrains_last_day: int | None = None) -> DriftCheckResult:
    """Judge drift and the worth of a retrain at this position; a yes opens a request.

    `retrains_last_day` is how many retrains began in the last 24 hours, where that is limited.
    """
    # The newest predictions may not be on disk yet.
    work.wait()
    work.sync_champion()
    state, pipeline = work.state, work.run.file.pipeline
    with work.run.display.doing("checking"), work.run.stop.breakable():
        windows = read_windows(work)
        reading = None if windows is None else measure(work, windows)
    changed = drift.judge(reading, pipeline.drift, drift_detector=state.learner.drift_detected)
    champion = None if windows is None else windows.champion
    seen = WorthReading()
    if windows is not None:
        with work.run.display.doing("weighing"), work.run.stop.breakable():
            seen = worth_check.measure(work, windows.champion, windows.current)
    facts = worth_check.facts(work, champion, changed, reading, seen, retrains_last_day)
    wanted = worth.judge(facts, pipeline.worth)
    rows: list[Record] = [work.decision_row(changed), work.decision_row(wanted)]
    if changed:
        state.totals.alarms += 1
        work.run.display.log_event(state.position, "alarm", changed.because, "yellow")
    if wanted:
        rows.append(_open_request(work, wanted, changed, seen))
    rows += worth_check.remember(work, facts, wanted, seen)
    state.drift_checked_at = state.position
    state.learner.drift_detected = False
    state.unknown = {
        each.vote: UnknownVote(
            since=state.unknown[each.vote].since if each.vote in state.unknown else state.position,
            because=each.because,
            remedy=each.remedy,
        )
        for each in drift.unknown_votes(reading, pipeline.drift)
    }
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
    """Compare the latest window with the champion's reference."""
    state, pipeline = work.state, work.run.file.pipeline
    change = ""
    if state.change_position is not None:
        unlearned = worth.unlearned_change(
            state.learner.novelty.because,
            state.change_position,
            trained_to=windows.champion.train_to,
            position=state.position,
            window=pipeline.batch.window,
            config=pipeline.worth,
        )
        # How the labels left what the champion knows, until it has learned enough of that.
        change = unlearned.because if unlearned else ""
    return evidently_adapter.measure(
        windows.reference,
        windows.current,
        _watched(work),
        pipeline.drift,
        performance=_performance(work, windows),
        drift_detector=state.learner.drift_detected,
        change=change,
    )


def read_windows(work: UnitOfWork) -> Windows | None:
    """Read what a drift check compares; None while there is no champion."""
    state = work.state
    if state.champion is None:
        return None
    import pyarrow as pa
    import pyarrow.compute as pc

    champion = work.run.registry.manifest(state.champion)
    # The window has no rows that the champion was made from.
    first = max(champion.holdout_to, state.position - work.run.file.pipeline.drift.window)
    records = work.run.stream.between(first, state.position, state.marks)
    current = record_schema.frame(records.table, state.schema)
    current[state.schema.target] = records.table.column(-1).to_pandas(integer_object_nulls=True)
    answers = pa.nulls(len(current))
    # A champion that was just promoted has predicted nothing yet.
    if first < state.position:
        log = prediction_log.read(work.run.places.predictions, first, state.position)
        # Predictions of an earlier champion do not count.
        log = log.filter(pc.equal(log["model_version"], champion.version))
        places = pc.index_in(pa.array(records.positions, pa.int64()), log["position"])
        answers = log["batch"].take(places)
    current[batch_model.PREDICTION] = answers.to_pandas(integer_object_nulls=True)
    current = batch_model.typed_reference(current, state.schema)
    return Windows(champion, work.run.registry.reference(champion), current)


def _watched(work: UnitOfWork) -> tuple[drift.WatchedColumn, ...]:
    schema = work.state.schema
    return drift.watched(
        {column.name: column.kind for column in schema.columns},
        label_kind="category" if schema.task == "classification" else "number",
        target=schema.target,
        prediction=batch_model.PREDICTION,
    )


def _performance(work: UnitOfWork, windows: Windows) -> Performance:
    """The champion's score on its hold-out and on the latest window, by the judged metric.

    The champion predicts the latest window again, since the log only has the likeliest class.
    """
    state, measure = work.state, work.state.learner.measure
    current, scores = windows.current, windows.champion.scores

    def known(who: str) -> float | None:
        """The score on the newest share of the hold-out, which has the stream's class shares."""
        for window in ("newest", "holdout"):
            value = scores.get(f"{window}:{who}", {}).get(measure.name)
            if value is not None:
                return value
        return None

    def unknown(because: str, remedy: str) -> Performance:
        return found.model_copy(update={"unknown_because": because, "remedy": remedy})

    reference = known("challenger")
    found = Performance(
        metric=measure.name,
        reference=reference,
        current=None,
        larger_is_better=measure.larger_is_better,
        unit=metrics.METRICS[measure.name].unit,
        baseline=known("baseline"),
    )
    if reference is None:
        return unknown(
            f"{measure.name} of the champion {state.champion} is not known on its hold-out",
            "the next champion",
        )
    labelled = current[current[state.schema.target].notna()]
    needed = work.run.file.pipeline.drift.min_rows
    if len(labelled) < needed:
        return unknown(
            f"{len(labelled)} labelled rows since the champion was made, needed {needed}",
            f"{needed - len(labelled)} more labelled rows",
        )
    champion = work.champion()
    assert champion is not None
    try:
        answers = champion.predict(labelled[state.schema.names])
    except BatchAnswersNothing as error:
        return unknown(f"the champion cannot answer: {error}", "a champion that answers")
    labels = labelled[state.schema.target].tolist()
    rarer = metrics.counted(labels) if state.schema.task == "classification" else None
    score = metrics.value(labels, answers, measure, rarer)
    if not math.isfinite(score):
        return unknown(
            f"{measure.name} is unknown for {len(labels)} rows of {len(set(labels))} classes",
            "a window with rows of two classes: a larger [drift] window",
        )
    found = found.model_copy(update={"current": score})
    loss = drift.performance_loss(found)
    if loss is not None and loss > work.run.file.pipeline.drift.performance_drop:
        # How far chance may move the score.
        deviation = metrics.standard_error(labels, answers, measure, rarer)
        found = found.model_copy(update={"standard_error": deviation})
    return found


def _open_request(
    work: UnitOfWork, wanted: Decision, changed: Decision, seen: WorthReading
) -> RequestRecord:
    state, answer = work.state, wanted.facts.get("answer")
    # A request that waits for the machine is answered by an archived version, too.
    request = state.request or OpenRequest(
        request_id=f"{work.run.name}-{state.lineage}-{state.position}",
        because=wanted.because,
        asked_position=state.position,
        asked_s=work.run.power.request_s(state.position),
        severity=drift.severity(changed) if changed else 0.0,
    )
    request.capped = answer == "capped"
    if answer == "reuse":
        request.reuse, request.asked_gate_at = seen.archived, -1
    state.request = request
    told = "a retrain, for that alarm" if changed else f"a retrain: {wanted.because}"
    if request.reuse is not None:
        told = f"an archived version: {wanted.because}"
    work.run.display.log_event(state.position, "requested", told, "magenta")
    return work.run.row(
        RequestRecord,
        request_id=request.request_id,
        event="requested",
        position=state.position,
        because=wanted.because,
        deadline_s=work.run.file.pipeline.gate.deadline_s,
    )
