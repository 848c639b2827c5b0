"""Look at the world: has it changed, and is a retrain worth asking for? Measures, asks, records.

The judges decide (`drift.judge`, `worth.judge`); this file only brings them what they need and
writes down what they say, the "no" as much as the "yes".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows.run.session import Session
from flows.run.state import OpenRequest, Unknown
from models.batch import batch_model
from models.batch.batch_model import BatchAnswersNothing
from models.core import metrics, record_schema
from models.prediction_log import prediction_log
from models.registry.registry import Manifest
from observability.core.decision import Decision
from observability.drift import drift, evidently_adapter, retrain_policy
from observability.drift.drift import DriftReading, Performance, UnknownVote
from observability.drift.retrain_policy import Evidence
from observability.history.records import Record, RequestRecord

if TYPE_CHECKING:
    import pandas as pd

_NO_CHAMPION = UnknownVote(
    vote="all but the tripwire",
    because="there is no champion yet, so there is no reference to compare with",
    remedy="the first champion",
)


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
    return since > 0 and (since >= tolerance.every or state.learner.tripped or _ripe(session))


def _ripe(session: Session) -> bool:
    """Whether a change of the labels is just old enough for a fit to learn from it."""
    state = session.state
    if state.change_position is None:
        return False
    ripe = state.change_position + session.file.pipeline.worth.since_change
    return state.looked_at < ripe <= state.position


@dataclass(frozen=True)
class Windows:
    """What a look compares, read once: the champion's reference, and the latest window."""

    champion: Manifest
    """Verified."""
    reference: pd.DataFrame
    current: pd.DataFrame
    """Of rows that the champion was not made from."""


@task(name="watch", cache_policy=NO_CACHE, persist_result=False)
def watch(session: Session) -> Looked:
    """Judge drift and worth at this position; an answer of yes opens a request."""
    session.adopt_champion()
    state, tolerance = session.state, session.file.pipeline.drift
    reading = None
    with session.display.doing("checking"), session.stop.breakable():
        windows = read_windows(session)
        if windows is None:
            changed = _nothing_to_compare_with(session)
        else:
            reading = measure(session, windows)
            changed = drift.judge(reading, tolerance)
    champion = None if windows is None else windows.champion
    evidence = _evidence(session, changed, reading, champion)
    wanted = retrain_policy.judge(evidence, session.file.pipeline.worth)
    rows: list[Record] = [session.decided(changed), session.decided(wanted)]
    if changed:
        state.totals.alarms += 1
        session.display.happened(state.position, "alarm", changed.because, "yellow")
    if wanted:
        rows.append(_ask(session, wanted, changed))
    state.looked_at = state.position
    state.learner.tripped = False
    state.unknown = _unknown_since(session, reading)
    session.commit(rows)
    drawn = None
    if windows is not None and reading is not None and changed and wanted and tolerance.page:
        with session.display.doing("drawing the drift page"), session.stop.breakable():
            drawn = page(session, windows, reading)
    return Looked(changed, wanted, reading, drawn)


def page(session: Session, windows: Windows, reading: DriftReading) -> Path | None:
    """Write evidently's page of the latest window against the champion's reference."""
    session.places.reports.mkdir(parents=True, exist_ok=True)
    path = session.places.reports / f"drift-{session.state.position:012d}.html"
    tolerance = session.file.pipeline.drift
    unknown = drift.unknown_votes(reading, tolerance)
    watched = _watched(session)
    if not evidently_adapter.page(
        windows.reference, windows.current, watched, tolerance, path, unknown
    ):
        return None
    for older in sorted(session.places.reports.glob("drift-*.html"))[: -tolerance.pages_kept]:
        older.unlink(missing_ok=True)
    return path


def measure(session: Session, windows: Windows) -> DriftReading:
    """The latest window against the champion's reference."""
    return evidently_adapter.measure(
        windows.reference,
        windows.current,
        _watched(session),
        session.file.pipeline.drift,
        performance=_performance(session, windows),
        tripwire=session.state.learner.tripped,
        change=_change(session, windows.champion),
    )


def read_windows(session: Session) -> Windows | None:
    """Read what a look compares; None while there is no champion."""
    state = session.state
    if state.champion is None:
        return None
    import pyarrow as pa
    import pyarrow.compute as pc

    champion = session.store.manifest(state.champion)
    # The window is never of rows that the champion was made from.
    first = max(champion.holdout_to, state.position - session.file.pipeline.drift.window)
    records = session.stream.between(first, state.position, state.marks)
    current = record_schema.frame(records.table, state.schema)
    current[state.schema.target] = records.table.column(-1).to_pandas(integer_object_nulls=True)
    answers = pa.nulls(len(current))
    # A champion that was just promoted has predicted nothing yet.
    if first < state.position:
        log = prediction_log.read(session.places.predictions, first, state.position)
        # The answers of its predecessor are not its own.
        log = log.filter(pc.equal(log["model_version"], champion.version))
        places = pc.index_in(pa.array(records.positions, pa.int64()), log["position"])
        answers = log["batch"].take(places)
    current[batch_model.PREDICTION] = answers.to_pandas(integer_object_nulls=True)
    current = batch_model.typed_reference(current, state.schema)
    return Windows(champion, session.store.reference(champion), current)


def _change(session: Session, champion: Manifest) -> str:
    """How the labels left what the champion knows; empty once it has learned enough of that.

    After a window's worth of records a champion that still serves has been left so on purpose.
    """
    state, pipeline = session.state, session.file.pipeline
    changed = state.change_position
    if changed is None:
        return ""
    trained = max(champion.train_to - changed, 0)
    if trained >= pipeline.worth.min_rows or state.position - changed > pipeline.batch.window:
        return ""
    return (
        f"{state.learner.novelty.because}; the champion was made from {trained} records since then"
    )


def _unknown_since(session: Session, reading: DriftReading | None) -> dict[str, Unknown]:
    """The votes that this look could not cast, and since when each is unknown."""
    state = session.state
    votes: Sequence[UnknownVote] = (_NO_CHAMPION,)
    if reading is not None:
        votes = drift.unknown_votes(reading, session.file.pipeline.drift)
    return {
        each.vote: Unknown(
            since=state.unknown[each.vote].since if each.vote in state.unknown else state.position,
            because=each.because,
            remedy=each.remedy,
        )
        for each in votes
    }


def _nothing_to_compare_with(session: Session) -> Decision:
    return Decision(
        question="drift",
        yes=False,
        because="there is no champion yet, so there is no reference to compare with",
        facts={"outcome": "not_enough_data", "tripwire": session.state.learner.tripped},
    )


def _watched(session: Session) -> tuple[drift.WatchedColumn, ...]:
    schema = session.state.schema
    return drift.watched(
        {column.name: column.kind for column in schema.columns},
        label_kind="category" if schema.task == "classification" else "number",
        target=schema.target,
        prediction=batch_model.PREDICTION,
    )


def _performance(session: Session, windows: Windows) -> Performance:
    """The champion on its hold-out against the champion lately, by the judged metric.

    The champion answers the latest window here again, since the log keeps no more than the
    likeliest class of each.
    """
    state, measure = session.state, session.state.learner.measure
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
    needed = session.file.pipeline.drift.min_rows
    if len(labelled) < needed:
        return _unknown(
            found,
            f"{len(labelled)} labelled rows since the champion was made, needed {needed}",
            f"{needed - len(labelled)} more labelled rows",
        )
    return _scored(session, found, labelled)


def _scored(session: Session, found: Performance, labelled: pd.DataFrame) -> Performance:
    """With the champion's score of these rows, and how far chance may move it."""
    state, measure = session.state, session.state.learner.measure
    champion = session.champion()
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
    if loss is None or loss <= session.file.pipeline.drift.performance_drop:
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
    session: Session, changed: Decision, reading: DriftReading | None, champion: Manifest | None
) -> Evidence:
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
        champion_present=champion is not None,
        champion_age_records=(state.position - champion.train_to if champion is not None else None),
        records_since_retrain=(
            state.position - state.settled_at if state.settled_at is not None else None
        ),
        records_since_change=(
            state.position - state.change_position if state.change_position is not None else None
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
    session.display.happened(state.position, "requested", told, "magenta")
    return session.row(
        RequestRecord,
        request_id=state.request.request_id,
        event="requested",
        position=state.position,
        because=wanted.because,
        deadline_s=session.file.pipeline.gate.deadline_s,
    )
