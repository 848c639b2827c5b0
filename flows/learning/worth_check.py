"""Measures what `worth.judge` weighs, and remembers what it expected.

The champion's loss on the newest rows, archived versions on the same rows where it loses, and what
the last retrain has brought since. This module decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flows.run.state import PipelineState, Reuse
from flows.run.unit_of_work import UnitOfWork
from models.batch import batch_model
from models.batch.batch_model import BatchAnswersNothing
from models.batch.recipe_config import BatchRecipe
from models.core import metrics, paired_loss
from models.core.metrics import Measure
from models.core.paired_loss import Loss
from models.core.prediction import BatchPrediction
from models.core.record_schema import Label
from models.registry.registry import Manifest
from observability import energy_cost
from observability.core.decision import Decision
from observability.core.errors import ThermodriftError
from observability.drift import drift
from observability.drift.drift import DriftReading
from observability.history.records import ExpectationRecord, Record
from observability.worth import blend_value, memory, worth
from observability.worth.blend_value import BlendValue
from observability.worth.memory import Expectation, Level
from observability.worth.worth import RetrainFacts
from power.policy import power_cap

if TYPE_CHECKING:
    import pandas as pd

FEWEST_ARCHIVED = 100
"""Rows that archived versions are scored on at least."""
FRESH_RECORDS = 1_000
"""Records after which a champion does not show any more what a new one adds."""
ANSWERS_A_CHANGE = frozenset({"labels", "alarm", "archive"})
"""Evidence of a change of the data. Growth, a person's rule and a first champion are none, and a
loss is as likely one as it is real."""


@dataclass(frozen=True)
class WorthReading:
    """What was measured on the newest rows; shares of the baseline's loss."""

    lost: Loss | None = None
    """What the champion loses beyond the level, and its standard error; None: unknown."""
    level: Level | None = None
    """The level that it is against."""
    unit: float = math.nan
    """The baseline's loss now, in the pipeline's metric."""
    archived: Reuse | None = None
    """The best of the archived versions that were scored."""
    archived_error: float | None = None
    archived_count: int = 0
    adds: Loss | None = None
    """What the blend would lose more without the champion."""
    blend: BlendValue | None = None
    """What the champion adds, and a better one would."""
    followed: Loss | None = None
    """What the last promoted challenger saves against the champion that it replaced."""
    followed_records: int = 0


def loss_share(
    scores: dict[str, dict[str, float | None]] | dict[str, dict[str, float]],
    who: str,
    measure: Measure,
) -> tuple[float, float] | None:
    """The loss of `who` on the newest share of a hold-out: the baseline's share, and the unit.

    None where it, or the baseline's, is unknown or not above zero.
    """
    for window in ("newest", "holdout"):
        own = scores.get(f"{window}:{who}", {}).get(measure.name)
        baseline = scores.get(f"{window}:baseline", {}).get(measure.name)
        if own is None or baseline is None:
            continue
        unit = measure.loss(baseline)
        if math.isfinite(unit) and unit > 0 and math.isfinite(own):
            return measure.loss(own) / unit, unit
    return None


def measure(
    work: UnitOfWork, champion: Manifest, current: pd.DataFrame, changed: Decision
) -> WorthReading:
    """Measure on `current`: the newest rows, which the champion was not made from, in time order.

    Its columns are the schema's and the target; rows without a label are left out. `changed` is
    what `drift.judge` has said of them.
    """
    state, measure = work.state, work.state.learner.measure
    level = _level(state, champion)
    labelled = current[current[state.schema.target].notna()]
    labels = labelled[state.schema.target].tolist()
    unit = math.nan if level is None else _unit(work, labelled, level)
    adds, blend = _adds(state, unit)
    unmeasured = WorthReading(level=level, unit=unit, adds=adds, blend=blend)
    if level is None or len(labelled) < work.run.file.pipeline.drift.min_rows:
        return unmeasured
    model = work.champion()
    assert model is not None
    try:
        answers = model.predict(labelled[state.schema.names])
    except BatchAnswersNothing:
        return unmeasured
    rows = _Rows(labelled, labels, answers, measure)
    now = paired_loss.of(rows.labels, answers, rows.measure, rows.rarer)
    # The level was measured on a hold-out, with an error of its own.
    error = now.error * math.sqrt(1 + len(rows.labels) / max(level.held, 1))
    attainable = worth.attainable(level.loss, level.unit, unit, changed.facts.get("nature"))
    lost = Loss(now.mean / unit - attainable, error / unit)
    if not (math.isfinite(lost.mean) and math.isfinite(lost.error)):
        return unmeasured
    reading = _follow(work, replace(unmeasured, lost=lost), rows)
    # Where the champion loses nothing, no other version is looked at.
    return _archive(work, reading, champion, rows) if lost.mean > lost.error else reading


def _unit(work: UnitOfWork, labelled: pd.DataFrame, level: Level) -> float:
    """The baseline's loss on the newest rows; where it is unknown or zero, that of the level."""
    schema, measure = work.state.schema, work.state.learner.measure
    if len(labelled) < work.run.file.pipeline.drift.min_rows:
        return level.unit
    labels = labelled[schema.target].tolist()
    rarer = metrics.counted(labels) if schema.task == "classification" else None
    answers = batch_model.baseline(labels, schema.task, measure).predict(labelled)
    unit = measure.loss(metrics.value(labels, answers, measure, rarer))
    return unit if math.isfinite(unit) and unit > 0 else level.unit


def _adds(state: PipelineState, unit: float) -> tuple[Loss | None, BlendValue | None]:
    """What the champion adds to the blend, and what champions do; None: unknown."""
    known, found = state.worth.blend, state.learner.champion_value.value()
    if found is None or not math.isfinite((found.rest + found.champion) / unit):
        return None, known
    adds = Loss(found.adds / unit, found.error / unit)
    ahead = (found.rest - found.champion) / unit
    if known is not None and found.records > FRESH_RECORDS:
        return adds, known._replace(ahead=ahead)
    return adds, blend_value.of(ahead, adds.mean, adds.error)


def facts(
    work: UnitOfWork,
    champion: Manifest | None,
    changed: Decision,
    drift_reading: DriftReading | None,
    reading: WorthReading,
    retrains_last_day: int | None,
) -> RetrainFacts:
    """All that is known when worth is judged."""
    state, pipeline = work.state, work.run.file.pipeline
    known, recipe, position = state.worth, pipeline.batch, state.position
    performance = None if drift_reading is None else drift_reading.performance
    began = concept_began(state)
    candidate, request, curve = known.candidate, state.request, known.curve(began)
    share = 1.0 - recipe.holdout
    fewest = fewest_rows(recipe)
    checked = known.calibration
    energy = state.job.job()
    joules = None if energy is None else energy.power_w * energy.seconds
    capped = power_cap.saving(state.caps, pipeline.cap)
    seen, changes = _changes(state)
    level, season = reading.level or known.level, known.season
    nature = changed.facts.get("nature")
    return RetrainFacts(
        drift_alarm=changed.yes,
        drift_because=changed.because,
        drift_nature=nature if nature in ("real", "virtual") else None,
        contract_broken=changed.facts.get("outcome") == "contract_broken",
        labels_changed=drift_reading is not None and bool(drift_reading.change),
        performance_loss=drift.performance_loss(performance) if performance else None,
        rows_available=min(state.totals.learned, recipe.window),
        new_rows=state.new_rows,
        champion_present=champion is not None,
        champion_age_records=None if champion is None else position - champion.train_to,
        records_since_retrain=None if state.closed_at is None else position - state.closed_at,
        records_since_change=(
            None if state.change_position is None else position - state.change_position
        ),
        open_request_position=None if request is None else request.asked_position,
        retrains_last_day=retrains_last_day,
        lost=None if reading.lost is None else reading.lost.mean,
        lost_error=None if reading.lost is None else reading.lost.error,
        champion_ahead=None if reading.blend is None else reading.blend.ahead,
        champion_adds=None if reading.adds is None else reading.adds.mean,
        champion_adds_error=None if reading.adds is None else reading.adds.error,
        blend_width=0.0 if reading.blend is None else reading.blend.width,
        records_since_level=0 if reading.level is None else position - reading.level.position,
        rows_then=None if level is None else max(level.rows, fewest),
        rows_now=_rows_now(state, recipe, position - began),
        rows_per_record=share * state.totals.learned / max(position, 1),
        rows_most=recipe.window * share,
        deficit=0.0 if level is None else level.deficit,
        curve_scale=None if curve is None else curve.scale,
        curve_exponent=None if curve is None else curve.exponent,
        curve_error=0.0 if curve is None else curve.error,
        curve_sizes=0 if curve is None else curve.sizes,
        loss_share=known.share_that_comes("loss"),
        growth_share=known.share_that_comes("growth"),
        calibration_count=checked.checked,
        calibration_ratio=checked.ratio,
        calibration_low=checked.low,
        calibration_high=checked.high,
        records_seen=seen,
        changes_known=changes,
        concept_age_records=position - began,
        fit_cost_s=state.last_fit_s,
        fit_joules=joules,
        fit_price=energy_cost.cost_of(joules, work.run.history.rates).price,
        capped_energy_share=None if capped is None else capped.energy_share,
        capped_time_share=1.0 if capped is None else capped.time_share,
        device_warm=bool(state.gate.devices) and not any(each.open for each in state.gate.devices),
        archived_version=None if reading.archived is None else reading.archived.version,
        archived_count=reading.archived_count,
        season_returns=0 if season is None else season.returns,
        season_shortest=None if season is None else season.shortest,
        season_longest=None if season is None else season.longest,
        archived_gain=None if reading.archived is None else reading.archived.gain,
        archived_error=reading.archived_error,
        candidate_version=None if candidate is None else candidate.version,
        candidate_since=None if candidate is None else candidate.since,
        last_without_model=known.unfitted,
    )


def fewest_rows(recipe: BatchRecipe) -> float:
    """Rows of a concept below which a challenger does not know it."""
    return recipe.min_rows * (1.0 - recipe.holdout)


def _rows_now(state: PipelineState, recipe: BatchRecipe, age: int) -> float:
    """Rows of a concept of this age that a fit now could learn from.

    The newest share of the window is held out, and of a concept that is younger at most half.
    """
    rows = min(state.totals.learned, recipe.window)
    known = min(age, rows)
    return max(known / 2, known - recipe.holdout * rows, 1.0)


def concept_began(state: PipelineState) -> int:
    """The position where the present concept began, as far as it is known; else 0."""
    known = state.worth
    places = [
        state.change_position,
        state.change_estimate,
        known.loss_since,
        known.last_change,
    ]
    return max((place for place in places if place is not None), default=0)


def remember(
    work: UnitOfWork, judged: RetrainFacts, wanted: Decision, reading: WorthReading
) -> list[Record]:
    """Remember what was measured and expected at this check; the rows of the history for it."""
    state = work.state
    known = state.worth
    since = known.loss_since
    if not worth.loses(judged):
        since = None
    elif since is None:
        since = state.drift_checked_at
    later = wanted.facts.get("later_records")
    known = replace(
        known,
        blend=reading.blend,
        loss_since=since,
        look_again_at=state.position + int(later) if isinstance(later, int) else None,
    )
    newest = known.newest
    if newest is not None and reading.followed is not None:
        newest = newest.follow(reading.followed.mean, reading.followed_records)
        known = replace(known, expectations=(*known.expectations[:-1], newest))
    state.worth = known
    if not wanted or state.request is None:
        return []
    evidence = str(wanted.facts.get("evidence"))
    chance = _number(wanted, "change_chance") if evidence == "loss" else None
    expected = Expectation(
        request_id=state.request.request_id,
        position=state.position,
        evidence=evidence,
        raw_gain=_number(wanted, "expected_raw_gain"),
        gain=_number(wanted, "expected_gain"),
        horizon_records=_number(wanted, "horizon_records"),
        cost_records=_number(wanted, "cost_records"),
        chance=1.0 if evidence in ANSWERS_A_CHANGE else chance or 0.0,
    )
    state.worth = known.expect(expected)
    return [
        *([] if newest is None else expectation_row(work, newest, "followed")),
        *expectation_row(work, expected, "expected"),
    ]


def expectation_row(work: UnitOfWork, known: Expectation, event: str) -> list[Record]:
    """The row of what is known of an expectation now; none of one that nothing came after."""
    if event == "followed" and not known.followed_records:
        return []
    return [
        work.run.row(
            ExpectationRecord,
            request_id=known.request_id,
            event=event,
            position=work.state.position,
            evidence=known.evidence,
            metric=work.state.learner.measure.name,
            expected_gain=known.gain,
            horizon_records=known.horizon_records,
            cost_records=known.cost_records,
            version=known.version,
            replaced=known.replaced,
            compared_gain=known.compared,
            followed_gain=known.followed,
            followed_records=known.followed_records or None,
        )
    ]


@dataclass(frozen=True)
class _Rows:
    """Labelled rows, and the champion's predictions of them."""

    frame: pd.DataFrame
    labels: Sequence[Label]
    champion: BatchPrediction
    measure: Measure

    @property
    def rarer(self) -> Label | None:
        """The positive class of some metrics."""
        return metrics.counted(self.labels) if self.measure.task == "classification" else None

    def newest(self, count: int) -> _Rows:
        """The newest of them."""
        if count >= len(self.labels):
            return self
        shares = self.champion.probabilities
        part = BatchPrediction(
            self.champion.values[-count:],
            None if shares is None else shares[-count:],
            self.champion.labels,
        )
        return _Rows(self.frame.iloc[-count:], self.labels[-count:], part, self.measure)


def _level(state: PipelineState, champion: Manifest) -> Level | None:
    """What the last comparison showed; of a champion promoted by hand, what its own did."""
    known = state.worth.level
    if known is not None and known.version == champion.version:
        return known
    share = loss_share(champion.scores, "challenger", state.learner.measure)
    if share is None:
        return None
    return Level(
        version=champion.version,
        position=champion.holdout_to,
        loss=share[0],
        unit=share[1],
        rows=champion.rows,
        held=champion.holdout_to - champion.holdout_from,
    )


def _changes(state: PipelineState) -> tuple[int, float]:
    """Records over which changes are known, and how many are expected to have been in them."""
    changes = state.worth.changes
    if len(changes) < memory.KEPT:
        return state.position, sum((each.chance for each in changes), 0.0)
    return state.position - changes[0].position, sum((each.chance for each in changes[1:]), 0.0)


def _predictions(work: UnitOfWork, version: str, frame: pd.DataFrame) -> BatchPrediction | None:
    """The predictions of a stored version; None where it cannot be loaded, or cannot predict."""
    try:
        return work.model(version).predict(frame[work.state.schema.names])
    except (ThermodriftError, OSError):
        return None


def _follow(work: UnitOfWork, reading: WorthReading, rows: _Rows) -> WorthReading:
    """With what the last promoted challenger saves against the champion that it replaced."""
    state = work.state
    newest = state.worth.newest
    if newest is None or newest.replaced is None or newest.version != state.champion:
        return reading
    # Rows that an earlier check has counted are not counted again.
    rows = rows.newest(max(state.position - max(state.drift_checked_at, newest.position), 0))
    before = _predictions(work, newest.replaced, rows.frame) if len(rows.labels) else None
    if before is None or reading.level is None:
        return reading
    saved = paired_loss.saved(rows.labels, before, rows.champion, rows.measure, rows.rarer)
    if not math.isfinite(saved.mean):
        return reading
    unit, blend = reading.unit, reading.blend
    followed = Loss(saved.mean / unit, saved.error / unit)
    if blend is not None:
        # Against what the one before it would add now.
        followed = followed._replace(mean=-blend.gain(-followed.mean))
    return replace(reading, followed=followed, followed_records=len(rows.labels))


def _archive(
    work: UnitOfWork, reading: WorthReading, champion: Manifest, rows: _Rows
) -> WorthReading:
    """With the archived version that saves most against the champion on the newest rows."""
    state, level = work.state, reading.level
    most = work.run.file.pipeline.worth.archived_versions
    if not most or level is None:
        return reading
    began = max(champion.holdout_to, concept_began(state))
    rows = rows.newest(max(state.position - began, FEWEST_ARCHIVED))
    first = state.position - len(rows.labels)
    others = [each for each in work.run.registry.versions() if each != champion.version]
    scored: list[tuple[Loss, Reuse]] = []
    tried = 0
    for version in state.worth.archive(others):
        if tried == most:
            break
        try:
            manifest = work.run.registry.manifest(version)
        except (ThermodriftError, OSError):
            continue
        # Rows that a version was made from do not say how it serves. Nor does another schema. A
        # version that a killed run has stored beyond this position is passed over as well.
        if manifest.holdout_to > first or manifest.record_schema != state.schema:
            continue
        tried += 1
        answers = _predictions(work, version, rows.frame)
        if answers is None:
            continue
        saved = paired_loss.saved(rows.labels, rows.champion, answers, rows.measure, rows.rarer)
        loss = paired_loss.of(rows.labels, answers, rows.measure, rows.rarer).mean
        if not (math.isfinite(saved.mean) and math.isfinite(saved.error) and math.isfinite(loss)):
            continue
        unit = reading.unit
        attained = Level(
            version, state.position, loss / unit, unit, manifest.rows, len(rows.labels)
        )
        share = Loss(saved.mean / unit, saved.error / unit)
        scored.append((share, Reuse(version, share.mean, attained)))
    if not scored:
        return reading
    # Of two that save as much, the newer one, which comes first.
    best = max(scored, key=lambda each: each[0].mean)
    return replace(
        reading, archived=best[1], archived_error=best[0].error, archived_count=len(scored)
    )


def _number(decision: Decision, name: str) -> float | None:
    value = decision.facts.get(name)
    return float(value) if isinstance(value, int | float) else None
