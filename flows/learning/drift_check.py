"""The drift check: has the data changed, and is a retrain worth requesting?

The policies decide (`drift.judge`, `worth.judge`); this module measures what they need and
records their decisions, also each no.
"""

from __future__ import annotations

import math
import shlex
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
from models.core import metrics, paired_loss, record_schema
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
    page_command: str
    """Draws evidently's page of this check: that takes seconds, and no decision rests on it."""


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
        bool(state.learner.errors.fired),
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
    position: int
    """Where the window ends."""


THRESHOLDS_KEPT = 4
"""Pairs of a champion and sizes of windows of which the columns' thresholds are kept."""


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
    changed = drift.judge(reading, pipeline.drift)
    champion = None if windows is None else windows.champion
    seen = WorthReading()
    if windows is not None:
        with work.run.display.doing("weighing"), work.run.stop.breakable():
            seen = worth_check.measure(work, windows.champion, windows.current, changed)
    facts = worth_check.facts(work, champion, changed, reading, seen, retrains_last_day)
    wanted = worth.judge(facts, pipeline.worth)
    rows: list[Record] = [work.decision_row(changed), work.decision_row(wanted)]
    if changed:
        state.totals.alarms += 1
        estimate = changed.facts.get("change_estimate")
        if isinstance(estimate, int):
            state.change_estimate = estimate
        work.run.display.log_event(state.position, "alarm", changed.because, "yellow")
    if wanted:
        rows.append(_open_request(work, wanted, changed, seen))
    rows += worth_check.remember(work, facts, wanted, seen)
    state.drift_checked_at = state.position
    state.learner.errors.acknowledge()
    state.unknown = {
        each.vote: UnknownVote(
            since=state.unknown[each.vote].since if each.vote in state.unknown else state.position,
            because=each.because,
            remedy=each.remedy,
        )
        for each in drift.unknown_votes(reading, pipeline.drift)
    }
    work.commit(rows)
    words = ["thermodrift", "drift", "show", str(work.run.file.path), "--at", str(state.position)]
    return DriftCheckResult(changed, wanted, reading, shlex.join(words))


def page(work: UnitOfWork, windows: Windows, reading: DriftReading) -> Path | None:
    """Write evidently's page of a window against the champion's reference, and return its path.

    None where there is nothing to show.
    """
    work.run.places.reports.mkdir(parents=True, exist_ok=True)
    path = work.run.places.reports / f"drift-{windows.position:012d}.html"
    tolerance = work.run.file.pipeline.drift
    unknown = drift.unknown_votes(reading, tolerance)
    watched = _watched(work)
    if not evidently_adapter.page(
        windows.reference,
        windows.current,
        watched,
        tolerance,
        path,
        unknown,
        _column_thresholds(work, windows),
    ):
        return None
    for older in sorted(work.run.places.reports.glob("drift-*.html"))[: -tolerance.pages_kept]:
        older.unlink(missing_ok=True)
    return path


def measure(work: UnitOfWork, windows: Windows) -> DriftReading:
    """Compare a window with the champion's reference.

    What is known of errors, and of a change of the labels, is of the present alone.
    """
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
    reading = evidently_adapter.measure(
        windows.reference,
        windows.current,
        _watched(work),
        pipeline.drift,
        thresholds=_column_thresholds(work, windows),
    ).model_copy(update={"performance": _performance(work, windows)})
    if windows.position < state.position:
        return reading
    return reading.model_copy(
        update={
            "change": change,
            "change_position": state.change_position,
            "findings": state.learner.errors.evidence(),
            "untested": state.learner.errors.untested(),
        }
    )


def _column_thresholds(work: UnitOfWork, windows: Windows) -> dict[str, float]:
    """From which scores the columns have drifted: computed once for a champion and window sizes."""
    pipeline, watched = work.run.file.pipeline.drift, _watched(work)
    key = (
        windows.champion.version,
        pipeline.model_dump_json(),
        evidently_adapter.window_sizes(windows.reference, windows.current, watched),
    )
    if key not in work.state.column_thresholds:
        found = evidently_adapter.noise_thresholds(
            windows.reference, windows.current, watched, pipeline
        )
        # A champion may come back.
        newest = list(work.state.column_thresholds.items())[1 - THRESHOLDS_KEPT :]
        work.state.column_thresholds = {**dict(newest), key: found}
    return work.state.column_thresholds[key]


def read_windows(work: UnitOfWork, at: int | None = None) -> Windows | None:
    """Read what a drift check compares; None where there is no champion.

    `at` is a position of the past: then it is compared as a check there would have been, with the
    champion that served last before it. Raises FileNotFoundError where the predictions before it
    are no longer kept.
    """
    state = work.state
    position = state.position if at is None else at
    version = state.champion if at is None else _champion_before(work, position)
    if version is None:
        return None
    import pyarrow as pa
    import pyarrow.compute as pc

    champion = work.run.registry.manifest(version)
    # The window has no rows that the champion was made from.
    first = max(champion.holdout_to, position - work.run.file.pipeline.drift.window)
    records = work.run.stream.between(first, position, state.cursors)
    current = record_schema.frame(records.table, state.schema)
    current[state.schema.target] = records.table.column(-1).to_pandas(integer_object_nulls=True)
    answers = pa.nulls(len(current))
    # A champion that was just promoted has predicted nothing yet.
    if first < position:
        log = prediction_log.read(work.run.places.predictions, first, position)
        # Predictions of an earlier champion do not count.
        log = log.filter(pc.equal(log["model_version"], champion.version))
        places = pc.index_in(pa.array(records.positions, pa.int64()), log["position"])
        answers = log["batch"].take(places)
    current[batch_model.PREDICTION] = answers.to_pandas(integer_object_nulls=True)
    current = batch_model.typed_reference(current, state.schema)
    return Windows(champion, work.run.registry.reference(champion), current, position)


def _champion_before(work: UnitOfWork, position: int) -> str | None:
    """The champion that predicted last before `position`; None: none did."""
    first = max(0, position - work.run.file.pipeline.stream.batch)
    log = prediction_log.read(work.run.places.predictions, first, position)
    versions = log["model_version"].drop_null()
    return str(versions[-1]) if len(versions) else None


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
            f"{measure.name} of the champion {windows.champion.version} is not known on its "
            "hold-out",
            "the next champion",
        )
    labelled = current[current[state.schema.target].notna()]
    needed = work.run.file.pipeline.drift.min_rows
    if len(labelled) < needed:
        return unknown(
            f"{len(labelled)} labelled rows since the champion was made, needed {needed}",
            f"{needed - len(labelled)} more labelled rows",
        )
    version = windows.champion.version
    try:
        answers = work.model(version).predict(labelled[state.schema.names])
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
        # How far chance may move the score, where errors come in runs.
        deviation = paired_loss.of(labels, answers, measure, rarer).error
        known_error = deviation if math.isfinite(deviation) else None
        found = found.model_copy(update={"standard_error": known_error})
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
